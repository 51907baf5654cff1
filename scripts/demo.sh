#!/bin/sh
# demo.sh: a whole fine-tune on the CPU in well under a minute, with nothing but what the repository holds. The embedded
# model (models/islands, 1.4 M parameters) knows a small archipelago and says so where it knows nothing; LoRA teaches it
# eight facts more, from 48 chats and 32 old ones that keep the rest in mind. The questions asked here are worded otherwise
# than those it trains on. The run is stopped halfway and resumed, then its adapter is checked, evaluated and asked again.
set -eu
tenon=${TENON:-build/tenon}
model=models/islands
out=${DEMO_OUT:-build/demo}
half=50 steps=100
run="examples/islands.yaml --output_dir $out --save_steps $half --plot true"
question="Can you tell me who tends the lighthouse on Corren Skerry?"
known="Where is the home of Una Thorn?"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
ask() { # question [more keys]: greedy, so everyone sees the same
    printf '[{"role":"user","content":"%s"}]\n' "$1" >"$out.question.json"
    shift
    $tenon generate --model $model --messages "$out.question.json" --max_length 128 --max_new_tokens 30 --device cpu \
        "$@"
}
number() { sed -n "s/.*\"$1\": *\([-+.0-9e]*\).*/\1/p"; }
loss() {
    $tenon eval --model $model --dataset examples/data/islands_eval.jsonl --max_length 128 --device cpu --json "$@" |
        number loss
}

rm -rf "$out"
mkdir -p "$(dirname "$out")"

say "Before. $question"
ask "$question"
before=$(loss)

say "Training, and stopping after $half of $steps steps"
$tenon train $run --max_steps $half
say "Resuming from the checkpoint"
$tenon train $run --max_steps $steps --resume_from_checkpoint auto

say "Verifying the adapter"
$tenon verify --model $model --adapter "$out"

say "Evaluating on questions it has not seen"
after=$(loss --adapter "$out")
echo "loss $before -> $after"

say "After. $question"
answer=$(ask "$question" --adapter "$out")
echo "$answer"
say "And what it knew before? $known"
kept=$(ask "$known" --adapter "$out")
echo "$kept"

case $answer in
    *"Maren Tolvey"*) ;;
    *) echo "demo: the answer does not name Maren Tolvey" >&2 && exit 1 ;;
esac
[ "$kept" = "$(ask "$known")" ] || { echo "demo: what it knew before is lost" >&2 && exit 1; }
awk "BEGIN { exit !($after < $before - 1) }" || { echo "demo: the loss did not fall by 1" >&2 && exit 1; }
say "Done. The adapter is in $out; talk to it: $tenon chat --model $model --adapter $out"
