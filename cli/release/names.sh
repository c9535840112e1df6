#!/bin/sh
# Reads names of symbols and writes what any compiler calls them, each on a line: without the hashes of crates, and what
# an optimizer added.
exec sed -E 's/Cs[0-9A-Za-z]+_//g; s/\.llvm\.[0-9]+$//'
