#!/bin/sh
# demo.sh: a whole fine-tune on the CPU in well under a minute, with nothing but what the repository holds. The embedded
# model (models/islands, 1.4 M parameters) knows a small archipelago and says so where it knows nothing; LoRA teaches it
# eight facts more, from 48 chats and 32 old ones that keep the rest in mind. The questions asked here are worded otherwise
# than those it trains on. The run is stopped on its way and resumed, then its adapter is checked, loaded and asked again.
set -eu
tenon=${TENON:-build/tenon}
model=models/islands
out=${DEMO_OUT:-build/demo}
held_out=examples/data/islands_eval.jsonl
pause=60 steps=100
run="examples/islands.yaml --output_dir $out --save_steps $pause"

bold='' plain=''
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
ask() { # question [more keys]: greedy, so everyone sees the same
    printf '[{"role":"user","content":"%s"}]\n' "$1" >"$out.question.json"
    shift
    $tenon generate --model $model --messages "$out.question.json" --max_length 128 --max_new_tokens 30 --device cpu \
        "$@"
}
number() { sed -n "s/.*\"$1\": *\([-+.0-9e]*\).*/\1/p"; }
loss() { $tenon eval --model $model --dataset $held_out --max_length 128 --device cpu --json "$@" | number loss; }
fail() { echo "demo: $*" >&2 && exit 1; }

# Asks every third of the held-out questions, prints the first ones with their answers, and leaves in `right` how many
# answers were as they should be.
interview() { # how many to print [more keys]
    shown=$1 && shift
    right=0 asked=0
    sed -n '1~3s/.*"user", "content": "\([^"]*\)".*"content": "\([^"]*\)".*/\1|\2/p' $held_out >"$out.questions"
    while IFS='|' read -r question wanted; do
        answer=$(ask "$question" "$@" </dev/null)
        [ $asked -ge "$shown" ] || printf '  %-63s %s\n' "$question" "$answer"
        asked=$((asked + 1))
        [ "$answer" != "$wanted" ] || right=$((right + 1))
    done <"$out.questions"
}

rm -rf "$out"
mkdir -p "$(dirname "$out")"

say "Before"
interview 2
echo "$right of $asked right"
[ $right -eq 0 ] || fail "it knows the answers before it is trained"
before=$(loss)

say "LoRA on $(wc -l <examples/data/islands.jsonl) short chats, stopped after $pause of $steps steps"
$tenon train $run --max_steps $pause --plot true
say "Taken up again from the checkpoint"
$tenon train $run --max_steps $steps --resume_from_checkpoint auto --logging_steps 10 --plot false

say "The adapter, checked tensor by tensor"
$tenon verify --model $model --adapter "$out"

say "After: the same questions, in wordings it was not trained on"
interview 6 --adapter "$out"
after=$(loss --adapter "$out")
printf '%d of %d right; loss on all held-out questions %.4f -> %.4f\n' $right $asked "$before" "$after"
[ $right -eq $asked ] || fail "$((asked - right)) answers are wrong"
awk "BEGIN { exit !($after < $before - 1) }" || fail "the loss did not fall by 1"

known="Where is the home of Una Thorn?"
say "And what it knew before"
kept=$(ask "$known" --adapter "$out")
printf '  %-63s %s\n' "$known" "$kept"
[ "$kept" = "$(ask "$known")" ] || fail "what it knew before is lost"
rm -f "$out.question.json" "$out.questions"

say "Next"
printf '  %-60s %s\n' "$tenon chat --model $model --adapter $out" "# talk to it" \
    "$tenon plan --model DIR --dataset chats.jsonl" "# what your own model and chats will take" \
    "make demo-real" "# the same with SmolLM2-135M"
