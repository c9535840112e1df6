#!/bin/sh
# The linker of `make release`: as `cc`, but lays the functions of hot.txt side by side, and so the constants and the
# variables that they use. A command that ends after some milliseconds pays for every page of itself that it touches,
# and this is what it touches. With a linker that can't do that, or names that are others, the program is the same and
# slower.
set -eu
here=$(dirname "$0")

with_names() {
  for word; do
    shift
    case $word in -Wl,--strip-*) ;; *) set -- "$@" "$word" ;; esac
  done
  cc "$@"
}

# libseccomp comes behind the C library that it uses, and most linkers look into each but once.
set -- -Wl,--start-group "$@" -Wl,--end-group
output= before=
for word; do
  [ "$before" != -o ] || output=$word
  before=$word
done
with_names "$@" "-Wl,-Map=$output.map"
nm --just-symbols "$output" >"$output.names"
"$here/names.sh" <"$output.names" | paste "$output.names" - |
  awk -F '\t' 'NR == FNR { names[$2] = names[$2] "\n" $1; next } $0 in names { print substr(names[$0], 2) }' \
    - "$here/hot.txt" >"$output.order"
"$here/used.sh" "$output" "$output.map" "$output.order" >"$output.used"
# Variables that begin as something lie before those that begin as nothing, and so both side by side.
while read -r section place; do
  echo "SECTIONS { .$section.hot : {"
  grep -F "(.$section" "$output.used" || :
  echo "} } INSERT $place .$section;"
done >"$output.script" <<END
rodata BEFORE
data AFTER
bss BEFORE
END
cc "$@" "-Wl,--symbol-ordering-file=$output.order,--no-warn-symbol-ordering,-T,$output.script" 2>"$output.said" ||
  cc "$@"
for file in map names order used script said; do rm -f "$output.$file"; done
