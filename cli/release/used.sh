#!/bin/sh
# used.sh PROGRAM MAP FUNCTIONS: which constants and variables the functions of a list use, as patterns of a linker
# script. Constants have no name, but each has a section: of each address in an instruction, the one that begins there
# or before.
set -eu
{
  # Where sections begin, by the linker's map, and their patterns: of what many files have, a file is named. What has
  # 4096 bytes or more has pages for itself, unless the linker made it of many.
  sed -nE '
    /:\(\.(rodata|data|bss)(\.[^ ]*)?\)$/!d
    /:\(\.data\.rel\.ro/d
    s|^ *([0-9a-f]+) +[0-9a-f]+ +[0-9a-f]{1,3} .*:\((\.[a-z]+\.[^ ]+)\)$|\1 *(\2)|; t end
    s|^ *([0-9a-f]+) +[0-9a-f]+ +[0-9a-f]{1,3} .*/([^/ ]+)\(([^/ ]+)\):(\(.*\))$|\1 *\2:\3\4|; t end
    s|^ *([0-9a-f]+) +[0-9a-f]+ +[0-9a-f]{1,3} .*/([^/ ]+):(\(.*\))$|\1 *\2\3|; t end
    s|^ *([0-9a-f]+) .* <internal>:(\(.*\))$|\1 *\2|; t end
    s|^ *([0-9a-f]+) .*|\1 -|
    :end
    p' "$2"
  # One function may have many names: those of the list are found by their addresses.
  { sed 's/^/- /' "$3" && nm "$1" && objdump --disassemble --no-show-raw-insn "$1"; } |
    awk '$1 == "-" { names[$2]; next } NF == 3 && $3 in names { starts[$1] } /^[0-9a-f]+ </ { is = $1 in starts } is' |
    sed 's/0x[0-9a-f]*(%rip)//' | grep -oE '(0x|# )[0-9a-f]+' | sed -E 's/0x|# //; s/$/ ~/'
} | awk '{ printf "%16s %s\n", $1, $2 }' | LC_ALL=C sort |
  awk '$2 != "~" { section = $2; next } section != "-" && section && !(section in used) { used[section]; print section }'
