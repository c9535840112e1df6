#!/bin/sh
# Fuzzes every target for so many seconds, or replays one input:
#   [SEED=1] fuzz/run.sh SECONDS
#   fuzz/run.sh TARGET FILE
# With a seed it begins at the corpora that are in the repository; without one it is left to chance,
# and goes on from what earlier runs found.
set -eu

here=$(dirname "$0")
if [ $# = 2 ]; then
	file=$(realpath "$2")
fi
cd "$here"
cargo fuzz --version >/dev/null 2>&1 || {
	echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2
	exit 1
}

# Code of ours is safe: out of bounds it panics, and here it does where it overflows as well. That
# takes no sanitizer, which would take a nightly compiler. What makes a release small and fast would
# make the build as long as the run.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1
export CARGO_PROFILE_RELEASE_STRIP=none
how="--fuzz-dir . --features libfuzzer --sanitizer none --codegen-units 16"

if [ $# = 2 ]; then
	# A few words, on purpose.
	# shellcheck disable=SC2086
	exec cargo fuzz run $how "$1" "$file"
fi

# shellcheck disable=SC2086
cargo fuzz build $how
for source in fuzz_targets/*.rs; do
	target=$(basename "$source" .rs)
	echo "fuzzing $target for $1 s"
	# New inputs go to the first folder, which is not kept; a finding is added to the corpus by hand.
	found=found/$target
	[ -z "${SEED:-}" ] || found=found/$target-again
	[ -z "${SEED:-}" ] || rm -rf "$found"
	mkdir -p "$found" "artifacts/$target"
	log=found/$target.log
	# shellcheck disable=SC2086
	if ! cargo fuzz run $how "$target" "$found" "corpus/$target" -- -seed="${SEED:-0}" \
		-max_total_time="$1" -timeout=10 -rss_limit_mb=1024 -dict=words.dict \
		-print_final_stats=1 >"$log" 2>&1; then
		grep -v '^#' "$log" >&2
		finding=$(sed -n 's/.*Test unit written to .*\(artifacts\/.*\)/\1/p' "$log" | tail -n 1)
		echo "a finding in $target; again: fuzz/run.sh $target fuzz/$finding" >&2
		exit 1
	fi
	grep -E '^stat::(number_of|average)' "$log"
done
