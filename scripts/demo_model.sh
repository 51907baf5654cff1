#!/bin/sh
# demo_model.sh: how models/islands came to be, from nothing but this repository: a small world is written down
# (tools/world.c), a tokenizer trained on it (tools/bpe.c), a model initialised, pre-trained on the text, then tuned on
# questions about it and about strangers; both times tenon trains every weight. A tenth of the text goes along with the
# questions, or the model would forget how to tell. The same threads and instruction set give the same bytes; so do not --threads 1 and 2, whose
# products are summed in another order.
set -eu
build=${BUILD:-build}
tenon=$build/tenon tools=$build/tools
work=$build/demo-model
out=${1:-$work/islands}
settings="--full_finetuning true --stage cpt --max_length 256 --per_device_train_batch_size 16
          --gradient_accumulation_steps 1 --adam_beta2 0.98 --weight_decay 0.01 --dtype float32 --device cpu --threads 2
          --logging_steps 20"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
measure() { # model: text and questions that no training saw
    for kind in text.txt chat.jsonl; do
        echo "$1, held out $kind:"
        $tenon eval --model "$1" --dataset "$work/held_out_$kind" --stage cpt --train_on_responses_only true \
            --max_length 256 --device cpu
    done
}

rm -rf "$work"
mkdir -p "$work/new" "$out"
"$tools/tenon-world" text 24000 >"$work/text.txt"
"$tools/tenon-world" chat 24000 >"$work/chat.jsonl"
"$tools/tenon-world" strangers 7200 >"$work/strangers.jsonl"
"$tools/tenon-world" held_out_text 800 >"$work/held_out_text.txt"
"$tools/tenon-world" held_out_chat 0 >"$work/held_out_chat.jsonl"
head -n 2400 "$work/text.txt" >"$work/reminder.txt"
{ head -c 1500000 "$work/text.txt" && head -c 500000 "$work/chat.jsonl"; } |
    "$tools/tenon-bpe" 1024 >"$work/new/tokenizer.json"
cp models/islands/config.json models/islands/tokenizer_config.json "$work/new/"

say "A model that knows nothing"
$tenon init --model "$work/new/config.json" --tokenizer "$work/new" --output_dir "$work/start" --seed 1 --dtype bfloat16
say "Pre-training on text"
$tenon train --model "$work/start" --dataset "$work/text.txt" --output_dir "$work/pretrained" $settings \
    --learning_rate 3e-3
say "Tuning on questions"
$tenon train --model "$work/pretrained" --dataset "$work/chat.jsonl,$work/strangers.jsonl,$work/reminder.txt" \
    --output_dir "$work/tuned" $settings --train_on_responses_only true --learning_rate 2e-3
cp "$work/tuned/model.safetensors" "$work/new/config.json" "$work/new/tokenizer.json" "$work/new/tokenizer_config.json" \
    "$out/"

say "What it is worth"
measure "$work/pretrained"
measure "$out"
echo "the model is in $out; models/islands is changed by copying it there"
