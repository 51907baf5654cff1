#!/bin/sh
# test_data.sh: unpacks the shared test data into build/data where it is at hand. Without it the tests that need it
# skip, and say so.
set -eu
pack=${TENON_SHARED:-../shared}/data/unpack.sh
if [ ! -f "$pack" ]; then
    echo "no test data at $pack: tests that need it will skip"
    exit 0
fi
command -v xz >/dev/null 2>&1 || { echo "xz is missing (Debian: apt-get install xz-utils)" >&2; exit 1; }
sh "$pack" build/data
