#!/bin/sh
# The main job, end to end: a network, two real containers, a published port, and nothing left.
# Works in a network namespace of its own; DEMO_HOST=1 works on this host.
set -eu

if [ "$(id -u)" != 0 ]; then
	echo "the demo runs real containers, which needs root: sudo make demo" >&2
	exit 1
fi
cd "$(dirname "$0")/.."
if [ "${DEMO_HOST:-}" != 1 ] && [ -z "${DEMO_INSIDE:-}" ]; then
	# Private mounts as well, so that whatever happens goes with the last process.
	DEMO_INSIDE=1 exec unshare --net --mount --propagation private "$0"
fi

PATH=$PWD/target/debug:$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
MYDOCKER_ROOT=$work/lib
MYDOCKER_RUN_ROOT=$work/run
export MYDOCKER_ROOT MYDOCKER_RUN_ROOT

clean_up() {
	mydocker rm -f web >/dev/null 2>&1 || true
	mydocker network remove testbridge >/dev/null 2>&1 || true
	ip link del demo0 2>/dev/null || true
	ip netns del mydocker-demo-lan 2>/dev/null || true
	rm -rf "$work"
}
trap clean_up EXIT

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
show() {
	printf '\033[36m$ %s\033[0m\n' "$*"
	"$@"
}
# What the host's network looks like: links, addresses, routes, firewall.
network() {
	ip -o link | sed 's/^[0-9]*: //; s/ qlen.*//'
	ip -o addr | sed 's/^[0-9]*: //'
	ip route show table all
	nft list ruleset
}

mkdir -p "$work/lib/image"
cp target/image/busybox.tar "$work/lib/image/"
ip link set lo up
# Another machine, one cable away.
ip netns add mydocker-demo-lan
ip link add demo0 type veth peer name eth0 netns mydocker-demo-lan
# Without link-local addresses, which come a second late and would blur the comparison.
ip link set demo0 addrgenmode none
ip addr add 192.0.2.1/24 dev demo0
ip link set demo0 up
ip -n mydocker-demo-lan addr add 192.0.2.9/24 dev eth0
ip -n mydocker-demo-lan link set eth0 up
network >"$work/before"

say "What creating a network would do. Nothing is touched yet."
show mydocker network create --dry-run --subnet 10.0.0.1/24 testbridge

say "Do it."
show mydocker network create --subnet 10.0.0.1/24 testbridge
show mydocker network list

say "What joining a container with a published port would do."
show mydocker run --dry-run -d --name web -p 8080:80 --net testbridge busybox httpd -f -p 80 -h /www

say "Run it."
show mydocker run -d --name web -p 8080:80 --net testbridge busybox \
	sh -c 'echo "hello from $(hostname)" >/www/index.html; exec httpd -f -p 80 -h /www'
show mydocker ps
show mydocker network inspect testbridge

say "A second container pings the first and fetches from it."
show mydocker run --rm --net testbridge busybox ping -c 2 10.0.0.2
show mydocker run --rm --net testbridge busybox wget -q -O - http://10.0.0.2/

say "The published port: from this host, by 127.0.0.1 and by its own address …"
show busybox wget -q -O - http://127.0.0.1:8080/
show busybox wget -q -O - http://192.0.2.1:8080/
say "… from a container, by the host's address …"
show mydocker run --rm --net testbridge busybox wget -q -O - http://192.0.2.1:8080/
say "… and from another machine."
show ip netns exec mydocker-demo-lan busybox wget -q -O - http://192.0.2.1:8080/

say "Take it down. Nothing is left."
show mydocker stop -t 1 web
show mydocker rm web
show mydocker network remove testbridge
network >"$work/after"
diff "$work/before" "$work/after"
echo "links, addresses, routes and firewall are as they were before"
