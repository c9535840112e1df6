#!/bin/sh
# Reads names of symbols and writes what any compiler calls them, each on a line: as they are written in Rust, for a
# mangled name counts its bytes, without the hashes of crates, and without what an optimizer added.
sed -E 's/\.llvm\.[0-9]+$//' | c++filt --format=rust | sed -E 's/([0-9A-Za-z_])\[[0-9a-f]+\]/\1/g'
