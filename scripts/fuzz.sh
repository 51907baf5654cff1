#!/bin/sh
# fuzz.sh: every fuzzer of build-fuzz for FUZZ_SECONDS (600) each, or those named: scripts/fuzz.sh gguf yaml.
# Corpora grow in build-fuzz/corpus/NAME from small seeds; words for the dictionary are the strings of the parsers'
# sources. A template may use 20 million steps and 512 MiB before it is refused, hence the timeout. An input that fails is kept in build-fuzz/found, and is the exit code.
set -eu
build=build-fuzz
[ $# -gt 0 ] || set -- $(cd "$build" && ls -d fuzz_* | sed -n 's/^fuzz_\([a-z_]*\)$/\1/p')
mkdir -p "$build/found" "$build/corpus"
cat src/base/*.c src/format/*.c src/text/*.c src/data/*.c src/model/arch.c src/model/rope.c src/model/vision_arch.c | grep -v '^#include' |
    grep -oE '"[A-Za-z0-9_ <>|.:{}-]{2,40}"' | sort -u >"$build/words.dict"

seed() { [ -f "$1" ] || cat >"$1"; }
seeds() {
    seed "$1/json" <<'END'
{"a": [1, -2.5e3, "x\u00e9\ud83d\ude00\n", null, true], "b": {"c": {}}}
END
    case $name in
    config)
        seed "$1/llama" <<'END'
{"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "num_attention_heads": 4, "rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}, "eos_token_id": [1, 2]}
END
        ;;
    adapter_config)
        seed "$1/peft" <<'END'
{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "bias": "none", "use_rslora": true, "target_modules": ["q_proj", "down_proj"], "modules_to_save": ["lm_head"], "layers_to_transform": [0, 1], "layers_pattern": "layers", "rank_pattern": {"^model.layers.0.*q_proj": 4}, "alpha_pattern": {"down_proj": 2.5}, "init_lora_weights": "gaussian"}
END
        seed "$1/regex" <<'END'
{"peft_type": "LORA", "target_modules": "model\\.layers\\.(\\d+)\\..*_proj", "exclude_modules": "lm_head|.*norm", "trainable_token_indices": {"embed_tokens": [1, 2]}, "fan_in_fan_out": false}
END
        ;;
    bnb_state) # 64 x 3 weights, 3 blocks; nested, and in bf16 storage; int8 of 4 rows
        printf '\140\003\001\002{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 3], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05}' >"$1/nested"
        printf '\060\003\000\005{"quant_type": "fp4", "blocksize": 64, "dtype": "float16", "shape": [3, 64]}' >"$1/plain"
        printf '\100\004\020\010' >"$1/bytes"
        ;;
    yaml)
        seed "$1/run" <<'END'
a: &x [1, 'two', "three\n"]
b: {c: *x, d: ~}
e: |
  text
END
        ;;
    records)
        printf '\000{"messages":[{"role":"user","content":"a"}]}\n{"input_ids":[1,2]}\n' >"$1/jsonl"
        printf '\001{"data":[{"instruction":"a","output":"b"},{"prompt":"a","completion":"b"}]}' >"$1/array"
        printf '\002text,b\n"a ""b""\n",c\n' >"$1/csv"
        ;;
    template)
        seed "$1/chat" <<'END'
{%- for m in messages if m.role != 'tool' %}{{ '<|' + m['role'] + '|>' ~ (m.content or '') | trim }}{% set x = namespace(n=loop.index0) %}{% endfor %}{% macro f(a, b=1) %}{{ a | tojson(indent=2) }}{% endmacro %}{{ f(tools) }}{{ s.split(' ')[::-1] | join('-') }}{% if n is odd %}{{ raise_exception('no') }}{% endif %}
END
        ;;
    tokenizer_json)
        seed "$1/bpe" <<'END'
{"added_tokens": [{"id": 3, "content": "<s>", "special": true}], "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": "a"}]}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true, "use_regex": true}, "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "byte_fallback": true, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}
END
        ! command -v python3 >/dev/null || python3 tests/fuzz/seed_tokenizer_json.py "$1"
        ;;
    picture) cp tests/parity/golden/pictures/*.png tests/parity/golden/pictures/*.jpg "$1" ;;
    safetensors)
        printf '\100\0\0\0\0\0\0\0%-64s\0\0\0\0\0\0\0\0' '{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}' >"$1/one"
        ;;
    gguf)
        printf 'GGUF\3\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\24\0\0\0\0\0\0\0general.architecture\10\0\0\0\5\0\0\0\0\0\0\0llama\21\0\0\0\0\0\0\0token_embd.weight\2\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' >"$1/one"
        head -c $((160 - $(wc -c <"$1/one"))) /dev/zero >>"$1/one"
        ;;
    esac
}

for name; do
    corpus=$build/corpus/$name
    mkdir -p "$corpus"
    seeds "$corpus"
    echo "fuzz_$name: ${FUZZ_SECONDS:-600} s"
    "$build/fuzz_$name" -max_total_time="${FUZZ_SECONDS:-600}" -max_len=8192 -timeout=60 -rss_limit_mb=2500 \
        -dict="$build/words.dict" -artifact_prefix="$build/found/$name-" -print_final_stats=1 "$corpus" \
        >"$build/fuzz_$name.log" 2>&1 || { tail -30 "$build/fuzz_$name.log"; exit 1; }
    grep DONE "$build/fuzz_$name.log"
done
