#!/bin/sh
# The linker of `make release`: as `cc`, but lays the functions of hot.txt side by side. A command that ends
# after some milliseconds pays for every page of itself that it touches, and these are the ones that it calls.
# With a linker that can't do that, or names that are others, the program is the same and slower.
set -eu
here=$(dirname "$0")

with_names() {
  for word; do
    shift
    case $word in -Wl,--strip-*) ;; *) set -- "$@" "$word" ;; esac
  done
  cc "$@"
}

output= before=
for word; do
  [ "$before" != -o ] || output=$word
  before=$word
done
with_names "$@"
nm --just-symbols "$output" >"$output.names"
"$here/names.sh" <"$output.names" | paste "$output.names" - |
  awk -F '\t' 'NR == FNR { names[$2] = names[$2] "\n" $1; next } $0 in names { print substr(names[$0], 2) }' \
    - "$here/hot.txt" >"$output.order"
cc "$@" "-Wl,--symbol-ordering-file=$output.order,--no-warn-symbol-ordering" 2>"$output.said" ||
  cc "$@"
rm -f "$output.names" "$output.order" "$output.said"
