#!/bin/sh
# Fuzzes every target for so many seconds: fuzz/run.sh SECONDS
set -eu

cd "$(dirname "$0")"
cargo fuzz --version >/dev/null 2>&1 || {
	echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2
	exit 1
}
for target in names request script; do
	# New inputs go to the first folder, which is not kept; a finding is added to the corpus by hand.
	mkdir -p "found/$target"
	# Sanitizers want a nightly compiler, or this.
	RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . --features libfuzzer "$target" \
		"found/$target" "corpus/$target" -- -max_total_time="$1" -timeout=10
done
