#!/bin/sh
# test_install.sh: tenon installed under a prefix of its own is found by pkg-config; its header stands alone in C and in
# C++; examples/finetune.c, built with nothing else, teaches the embedded model an answer.
set -eu
build=${BUILD:-build}
where=$(mktemp -d /tmp/tenon-install-XXXXXX)
trap 'rm -rf "$where"' EXIT
trap 'exit 1' HUP INT TERM

DESTDIR=$where cmake --install "$build" --prefix /opt/tenon >/dev/null
pc=$(find "$where" -name tenon.pc)
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
flags=$(pkg-config --cflags --libs tenon)
LD_LIBRARY_PATH=$(pkg-config --variable=libdir tenon)
export LD_LIBRARY_PATH
strict="-Wall -Wextra -Wpedantic -Werror ${SANITIZE:-}"

printf '#include <tenon/tenon.h>\nint main() { return tn_error_message() == 0; }\n' >"$where/header.cc"
if command -v c++ >/dev/null 2>&1; then
    c++ -std=c++11 $strict "$where/header.cc" $flags -o "$where/header" && "$where/header"
else
    echo "no C++ compiler here: the header is tried in C only"
fi
${CC:-cc} -std=c11 $strict examples/finetune.c $flags -o "$where/finetune"
"$where/opt/tenon/bin/tenon" version
answer=$("$where/finetune" examples/islands.yaml "$where/run" \
    "Can you tell me who tends the lighthouse on Corren Skerry?")
echo "$answer"
case $answer in *"Maren Tolvey"*) ;; *) echo "the example's model does not answer" >&2 && exit 1 ;; esac
