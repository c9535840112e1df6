#!/bin/sh
# Installs the Debian packages that demo and tests need, and those of others that are named, or says exactly
# what is missing: deps.sh [netavark|cni]...; deps.sh build: only those that building needs.
set -eu

missing=
need() { # COMMAND PACKAGE
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

# Some of these live in sbin, which an ordinary user's PATH lacks.
PATH=$PATH:/usr/sbin:/sbin
need cargo "cargo (https://rustup.rs)"
need cc gcc
# A library has no command to look for.
echo | cc -E -include seccomp.h - >/dev/null 2>&1 || missing="$missing libseccomp-dev"
if [ "${1-}" != build ]; then
	need c++ g++ # for libFuzzer
	need ip iproute2
	need nft nftables
	need conntrack conntrack
	need iptables-nft iptables
	need iptables-legacy iptables
	need busybox busybox-static
	need sysctl procps
	need nsenter util-linux
	need strace strace
	need runc runc # beside the embedded runtime
fi
for other in "$@"; do
	case $other in
	netavark) [ -e "${NETAVARK:-/usr/lib/podman/netavark}" ] || missing="$missing netavark" ;;
	cni) [ -e "${CNI_PLUGINS:-/usr/lib/cni}" ] || missing="$missing containernetworking-plugins" ;;
	esac
done

[ -n "$missing" ] || exit 0
case $missing in
*rustup.rs*)
	echo "missing:$missing" >&2
	exit 1
	;;
esac
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "missing: install$missing (as root on Debian: apt-get install$missing)" >&2
	exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# The list is words on purpose.
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $missing
