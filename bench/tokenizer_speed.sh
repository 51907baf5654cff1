#!/bin/sh
# tokenizer_speed.sh: load time and MB/s of the tokenizers of ../shared/data, on one core. Texts: a play, an
# encyclopedia, problems as JSON lines, and this repository's C. Made by `make bench-tokenizer`.
set -eu
data=build/data
sh scripts/test_data.sh >/dev/null
[ -d "$data/tokenizers" ] || { echo "no tokenizers in $data (../shared/data is not there)" >&2; exit 1; }
cat src/*/*.c src/op/*/*.c > build/code_c.txt
for tokenizer in "$data"/tokenizers/*/tokenizer.json; do
    case $tokenizer in *qwen2_5_vl*) continue ;; esac # qwen2_5's
    build/tests/tokenizer_speed "$tokenizer" "$data/datasets/tinyshakespeare/input.txt" \
        "$data/datasets/llamafactory/wiki_demo.txt" "$data/datasets/gsm8k/train.jsonl" build/code_c.txt
done
