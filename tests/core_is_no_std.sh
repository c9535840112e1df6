#!/bin/sh
# Proves that core needs no std: it says no_std and forbids unsafe code itself, and none of its
# dependencies is built with its `std` feature.
set -eu

grep -q '^#!\[no_std\]$' core/src/lib.rs || { echo "core/src/lib.rs lacks #![no_std]" >&2; exit 1; }
grep -q '^#!\[forbid(unsafe_code)\]$' core/src/lib.rs ||
	{ echo "core/src/lib.rs lacks #![forbid(unsafe_code)]" >&2; exit 1; }
tree=$(cargo tree --locked -p mydocker-core -e no-dev,no-build,no-proc-macro,features)
if echo "$tree" | grep -n 'feature "std"'; then
	echo "a dependency of mydocker-core is built with std" >&2
	exit 1
fi
echo "mydocker-core: no_std, and so are its dependencies"
