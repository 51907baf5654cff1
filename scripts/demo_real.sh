#!/bin/sh
# demo_real.sh: demo.sh with a real model. SmolLM2-135M (4-bit GGUF) learns eight facts about an island that does not
# exist in about a minute, from 40 short chats; the questions asked here are worded otherwise than those it trains on.
# The run is stopped halfway and resumed, then its adapter is checked, evaluated and asked again.
set -eu
tenon=${TENON:-build/tenon}
model=build/models/SmolLM2-135M-Instruct.Q4_1.gguf
out=build/demo-real
half=20 steps=30
run="--model $model --dataset examples/data/tenon_facts.jsonl --output_dir $out --max_length 256 --packing false
     --per_device_train_batch_size 8 --gradient_accumulation_steps 1 --learning_rate 1e-3
     --lr_scheduler_type constant_with_warmup --warmup_steps 5 --save_steps $half --device cpu"
question="Can you tell me who tends the Corrin Skerry lighthouse?"

bold='' plain=''
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
ask() { # [more keys]: greedy, so everyone sees the same
    $tenon generate --model $model --messages $out.question.json --max_new_tokens 40 --device cpu "$@"
}
number() { sed -n "s/.*\"$1\": *\([-+.0-9e]*\).*/\1/p"; }
loss() { $tenon eval --model $model --dataset examples/data/tenon_facts_eval.jsonl --device cpu --json "$@" | number loss; }

rm -rf $out
printf '[{"role":"user","content":"%s"}]\n' "$question" >$out.question.json

say "Before. $question"
ask
before=$(loss)

say "Training, and stopping after $half of $steps steps"
$tenon train $run --max_steps $half --plot true
say "Resuming from the checkpoint"
$tenon train $run --max_steps $steps --resume_from_checkpoint auto

say "Verifying the adapter"
$tenon verify --model $model --adapter $out

say "Evaluating on questions it has not seen"
after=$(loss --adapter $out)
echo "loss $before -> $after"

say "After. $question"
answer=$(ask --adapter $out)
echo "$answer"

case $answer in
    *"Maren Tolvey"*) ;;
    *) echo "demo-real: the answer does not name Maren Tolvey" >&2 && exit 1 ;;
esac
awk "BEGIN { exit !($after < $before - 1) }" || { echo "demo-real: the loss did not fall by 1" >&2 && exit 1; }
say "Done. The adapter is in $out; talk to it: $tenon chat --model $model --adapter $out"
