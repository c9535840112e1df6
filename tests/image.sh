#!/bin/sh
# Makes a root filesystem tar of Debian's static busybox: tests/image.sh FILE
set -eu

out=$1
PATH=$PATH:/usr/sbin:/sbin
busybox=$(command -v busybox)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/bin" "$work/etc" "$work/root" "$work/tmp" "$work/var" "$work/www" \
	"$work/proc" "$work/sys" "$work/dev"
cp "$busybox" "$work/bin/busybox"
for applet in $("$busybox" --list); do
	[ "$applet" = busybox ] || ln -s busybox "$work/bin/$applet"
done
ln -s bin "$work/sbin"
echo 'root:x:0:0:root:/root:/bin/sh' >"$work/etc/passwd"
echo 'root:x:0:' >"$work/etc/group"
chmod 1777 "$work/tmp"
mkdir -p "$(dirname "$out")"
tar --numeric-owner --owner=0 --group=0 --sort=name --mtime=@0 -C "$work" -cf "$out.part" .
mv "$out.part" "$out"
