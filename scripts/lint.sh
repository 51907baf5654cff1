#!/bin/sh
# lint.sh: clang-tidy on src/, tools/, examples/ and bench/, with the checks of .clang-tidy, from the compile commands of
# build/. A stamp a file lets a second run look at changed files only (a changed header looks at all). The commands are
# those of gcc, some of whose warning options clang does not know.
set -eu
command -v clang-tidy >/dev/null 2>&1 || { echo "clang-tidy is missing (Debian: apt-get install clang-tidy)" >&2; exit 1; }
build=${BUILD:-build}
[ -f "$build/compile_commands.json" ] || { echo "lint.sh: run make first" >&2; exit 1; }
stamps=$build/lint
mkdir -p "$stamps"
newest=$(ls -t .clang-tidy $(git ls-files 'src/*.h' 'include/*.h') | head -n 1)
todo=""
for source in $(git ls-files 'src/*.c' 'tools/*.c' 'examples/*.c' 'bench/*.c'); do
    grep -q "/$source\"" "$build/compile_commands.json" || continue # not part of this build
    stamp=$stamps/$(echo "$source" | tr / _)
    [ -f "$stamp" ] && [ ! "$source" -nt "$stamp" ] && [ ! "$newest" -nt "$stamp" ] && continue
    todo="$todo $source"
done
[ -n "$todo" ] || { echo "lint: nothing changed"; exit 0; }
echo "$todo" | tr ' ' '\n' | sed '/^$/d' | BUILD_DIR=$build STAMPS=$stamps xargs -P "$(nproc 2>/dev/null || echo 2)" -n 1 sh -c '
    if out=$(clang-tidy --quiet -p "$BUILD_DIR" --extra-arg=-Wno-unknown-warning-option "$0" 2>/dev/null) && [ -z "$out" ]; then
        touch "$STAMPS/$(echo "$0" | tr / _)"
    else
        echo "$out"
        exit 1
    fi' || { echo "lint: failed" >&2; exit 1; }
echo "lint: clean"
