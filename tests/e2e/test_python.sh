#!/bin/sh
# test_python.sh: the Python package's own tests (python/tests), where there is a Python; tenon itself needs none.
set -eu
command -v python3 >/dev/null 2>&1 || { echo "SKIPPED: python3 is missing, the package in python/ is not tested"; exit 77; }
python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' || { echo "SKIPPED: python3 is older than 3.8"; exit 77; }
[ -z "${SANITIZE:-}" ] || { echo "SKIPPED: a library under AddressSanitizer does not load into a Python without it"; exit 77; }
TENON_LIBRARY=${BUILD:-build}
export TENON_LIBRARY
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=python exec python3 -m unittest discover -v -s python/tests
