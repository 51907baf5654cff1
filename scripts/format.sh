#!/bin/sh
# format.sh [-i]: checks the layout of all C and CUDA sources against .clang-format; -i rewrites them.
set -eu
command -v clang-format >/dev/null 2>&1 || { echo "clang-format is missing (Debian: apt-get install clang-format)" >&2; exit 1; }
if [ "${1:-}" = -i ]; then mode=-i; else mode="--dry-run -Werror"; fi
git ls-files -z --cached --others --exclude-standard -- 'src/*.[ch]' 'include/*.h' 'tests/*.[ch]' 'bench/*.[ch]' \
    'tools/*.c' 'examples/*.c' |
    xargs -0 -r clang-format $mode
