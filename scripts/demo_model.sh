#!/bin/sh
# demo_model.sh: how models/islands came to be, from nothing but this repository, in about 12 minutes on 2 cores: a small
# world is written down (tools/world.c), a tokenizer trained on it (tools/bpe.c), a model initialised, pre-trained on the
# text, then tuned on questions; tenon trains both times. All modules are trained in full (modules_to_save) and folded
# into the model (tools/fold.c). Numbers at the end: questions of held_out in wordings that the training never used.
set -eu
build=${BUILD:-build}
tenon=$build/tenon tools=$build/tools
work=$build/demo-model
out=${1:-$work/islands}
modules=q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj,embed_tokens,lm_head
settings="--modules_to_save $modules --max_length 256 --per_device_train_batch_size 16 --gradient_accumulation_steps 1
          --adam_beta2 0.98 --weight_decay 0.01 --dtype float32 --device cpu --logging_steps 20 --save_steps 100000"

rm -rf "$work"
mkdir -p "$work/new" "$out"
"$tools/tenon-world" text 24000 >"$work/text.jsonl"
"$tools/tenon-world" chat 24000 >"$work/chat.jsonl"
"$tools/tenon-world" held_out 0 >"$work/held_out.jsonl"
{ head -c 1500000 "$work/text.jsonl" && head -c 500000 "$work/chat.jsonl"; } |
    "$tools/tenon-bpe" 1024 >"$work/new/tokenizer.json"
cp models/islands/tokenizer_config.json "$work/new/"
sed 's/"bfloat16"/"float32"/' models/islands/config.json >"$work/new/config.json"

$tenon init --model "$work/new/config.json" --tokenizer "$work/new" --output_dir "$work/start" --seed 1 --dtype float32
$tenon train --model "$work/start" --dataset "$work/text.jsonl" --stage cpt --output_dir "$work/pretrained" $settings \
    --learning_rate 3e-3 --embedding_learning_rate 3e-3
cp -r "$work/start" "$work/base"
"$tools/tenon-fold" "$work/start" "$work/pretrained" "$work/base"
$tenon train --model "$work/base" --dataset "$work/chat.jsonl" --output_dir "$work/tuned" $settings \
    --learning_rate 1.5e-3 --embedding_learning_rate 1.5e-3
"$tools/tenon-fold" "$work/base" "$work/tuned" "$out" bfloat16
cp "$work/new/tokenizer.json" "$work/new/tokenizer_config.json" "$out/"
sed 's/"float32"/"bfloat16"/' "$work/new/config.json" >"$out/config.json"
echo "held out:"
$tenon eval --model "$out" --dataset "$work/held_out.jsonl" --device cpu
echo "the model is in $out; models/islands is changed by copying it there"
