#!/bin/sh
# test_real.sh: a real model on real data, through the program alone. SmolLM2-135M trains on GSM8K and on alpaca; the
# loss on records it has not seen must fall by a stated margin, the adapter must reload to the very loss that training
# reported, and generation must answer through the chat template. In float32, where "the very loss" has a meaning on
# every machine: 1e-5 apart at most.
set -eu
tenon=${TENON:-build/tenon}
model=${MODEL:-build/models/SmolLM2-135M-Instruct.Q4_1.gguf}
data=${DATA:-build/data/datasets}
work=build/test-real
steps=${STEPS:-200}
passed=0 failed=0

[ -f "$model" ] || { echo "SKIP: no $model (scripts/fetch_smollm2.sh)"; exit 77; }
[ -d "$data" ] || { echo "SKIP: no $data (scripts/test_data.sh)"; exit 77; }
rm -rf $work
mkdir -p $work

check() { # name, awk condition
    if awk "BEGIN { exit !($2) }"; then
        passed=$((passed + 1)) && echo "ok: $1 ($2)"
    else
        failed=$((failed + 1)) && echo "FAILED: $1 ($2)"
    fi
}
number() { sed -n "s/.*\"$1\": *\([-+.0-9e]*\).*/\1/p" | tail -n 1; }
loss() { $tenon eval --json --device cpu --dtype float32 --model "$model" --max_length 512 "$@" 2>>$work/log | number loss; }

# name, training file, held-out file, least fall of the held-out loss
real() {
    before=$(loss --dataset "$3")
    $tenon train --json --device cpu --dtype float32 --model "$model" --dataset "$2" --eval_dataset "$3" --output_dir "$work/$1" \
        --max_length 512 --max_steps "$steps" --per_device_train_batch_size 2 --gradient_accumulation_steps 1 \
        --packing false --learning_rate 5e-4 --save_steps "$steps" >"$work/$1.train.json" 2>>$work/log
    reported=$(grep eval_loss "$work/$1/train_log.jsonl" | number eval_loss)
    after=$(loss --dataset "$3" --adapter "$work/$1")
    again=$(loss --dataset "$3" --adapter "$work/$1/checkpoint-$steps")
    check "$1: the held-out loss falls by $4" "$after < $before - $4"
    check "$1: the adapter reloads to the loss that training reported" "$after - $reported < 1e-5 && $reported - $after < 1e-5"
    check "$1: adapter and last checkpoint are one" "$after == $again"
    $tenon verify --json --model "$model" --adapter "$work/$1" >"$work/$1.verify.json" 2>>$work/log
    check "$1: verify finds nothing wrong" "$(grep -c '"ok": *true' "$work/$1.verify.json") == 1"
}

head -n 2000 "$data/gsm8k/train.jsonl" >$work/gsm8k.jsonl
head -n 40 "$data/gsm8k/test.jsonl" >$work/gsm8k_held_out.jsonl
real gsm8k $work/gsm8k.jsonl $work/gsm8k_held_out.jsonl 0.15

# alpaca comes as one JSON list with a record on every five lines: the last 40 records are held out
{ head -n 4001 "$data/llamafactory/alpaca_en_demo.json" | sed '$s/,$//' && echo ']'; } >$work/alpaca.json
{ echo '[' && tail -n 201 "$data/llamafactory/alpaca_en_demo.json"; } >$work/alpaca_held_out.json
real alpaca $work/alpaca.json $work/alpaca_held_out.json 0.02

echo '[{"role":"user","content":"Tom has 3 apples and buys 4 more. How many apples has he?"}]' >$work/question.json
$tenon generate --json --device cpu --model "$model" --adapter $work/gsm8k --messages $work/question.json \
    --max_new_tokens 120 >$work/answer.json 2>>$work/log
cat $work/answer.json
check "generation ends a GSM8K answer by itself" "$(grep -c '"finish_reason": *"stop"' $work/answer.json) == 1"
check "generation answers in GSM8K's form" "$(grep -c '####' $work/answer.json) == 1"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
