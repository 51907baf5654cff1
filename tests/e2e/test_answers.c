/* test_answers.c: what the verbs answer with --json: the fields that product.md promises, each of its type, and
 * what stands beside the documents: the log, the run's directory. One run of the embedded model is what they
 * are asked about. $TENON names the program; commands run in the repository's root, $S is a scratch folder:
 *
 *   $S/run    a run of 4 steps with an evaluation after 2     $S/q.json   a question
 *   $S/ids    ids of a tokenized text */
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "testing.h"

#define MODEL " --model models/islands --max_length 64 --device cpu"
#define DATA " --dataset examples/data/islands.jsonl"

static tn_str out, err;

/* The exit code of a shell line in which `tenon` is the program; stdout and stderr land in `out` and `err`. */
static int shell(const char *line) {
    tn_str command = {0};
    tn_str_printf(&command,
                  "S='%s'; export OMP_NUM_THREADS=1; tenon() { \"$TENON\" \"$@\"; }; { %s; } >\"$S/out\" "
                  "2>\"$S/err\" </dev/null",
                  scratch(""), line);
    int status = system(tn_str_text(&command));
    tn_str_free(&command);
    tn_str_clear(&out);
    tn_str_clear(&err);
    must(tn_read_file(scratch("out"), 1 << 24, &out));
    must(tn_read_file(scratch("err"), 1 << 24, &err));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool said(const char *part) { return strstr(tn_str_text(&err), part) != NULL; }
static bool answered(const char *part) { return strstr(tn_str_text(&out), part) != NULL; }

/* 'i' integer, 'r' number, 's' string, 'b' boolean, 'a' array, 'o' object, 'n' null */
static char kind_of(const tn_json *value) {
    static const char kinds[] = {
        [TN_JSON_NULL] = 'n', [TN_JSON_BOOLEAN] = 'b', [TN_JSON_INTEGER] = 'i', [TN_JSON_REAL] = 'r',
        [TN_JSON_BIG] = '?',  [TN_JSON_STRING] = 's',  [TN_JSON_ARRAY] = 'a',   [TN_JSON_OBJECT] = 'o'};
    return value ? kinds[value->type] : '-';
}

/* `fields`: "path:kind" separated by spaces; an integer is a number too. */
static void must_hold(const tn_json *root, const char *fields, const char *what) {
    char path[96], kind;
    int used;
    for (; sscanf(fields, " %95[^:]:%c%n", path, &kind, &used) == 2; fields += used) {
        char found = kind_of(tn_json_path(root, path));
        if (found != kind && !(found == 'i' && kind == 'r'))
            fail_msg("%s: %s is '%c', not '%c': %s", what, path, found, kind, tn_str_text(&out));
    }
}

#define PARAMS(all, rate)                                \
    " params.trainable:i params.all:" all                \
    " params.groups[0].name:s params.groups[0].count:i " \
    "params.groups[0].learning_rate:" rate " "
#define MEMORY " memory.device:i memory.pinned:i memory.host:i "
#define LISTS " missing:a unexpected:a mismatched:a nonfinite:a "
#define TENSORS \
    " tensors[0].name:s tensors[0].dtype:s tensors[0].shape[0]:i tensors[0].bytes:i metadata:o parameters:i "

static void every_verb_answers_with_its_fields(void **state) {
    static const struct {
        const char *line, *fields;
    } rows[] = {
        {"tenon train --json" MODEL DATA " --output_dir $S/x --max_steps 2; rm -r $S/x",
         "steps:i loss:r output_dir:s tokens:i seconds:r"},
        {"tenon plan --json" MODEL, PARAMS("i", "r") MEMORY
         "memory.disk:i memory.segments[0].name:s memory.segments[0].bytes:i fits:b longest_context:i "
         "tokens_per_second:r"},
        {"tenon eval --json" MODEL DATA " --adapter $S/run", "loss:r perplexity:r tokens:i records:i"},
        {"tenon generate --json" MODEL " --messages $S/q.json",
         "text:s ids[0]:i prompt_ids[0]:i finish_reason:s"},
        {"tenon data --json" MODEL DATA,
         "samples[0].ids[0]:i samples[0].labels[0]:i records:i tokens:i labelled:i"},
        {"tenon inspect --json --model models/islands", "kind:s" TENSORS},
        {"tenon inspect --json --model $S/run", "kind:s" TENSORS},
        {"tenon verify --json --adapter $S/run", "ok:b" PARAMS("n", "n") LISTS},
        {"tenon verify --json --adapter $S/run --model models/islands --reference $S/run/checkpoint-2",
         "ok:b" PARAMS("i", "r") LISTS "tensors[0].name:s tensors[0].relative_change:r"},
        {"tenon bench --json" MODEL " --steps 1 --warmup 0",
         "tokens_per_second:r step_seconds:r percent_of_ceiling:r first_step_seconds:r steps[0].loss:r "
         "steps[0].grad_norm:r steps[0].seconds:r" MEMORY},
        {"tenon init --json --model models/islands --output_dir $S/x; rm -r $S/x", "output:s parameters:i"},
        {"tenon env --json", "version:s cpu:o devices[0].name:s libraries:o uses:s"},
        {"echo '{\"text\":\"The lighthouse\"}' | tenon tokenize --model models/islands", "ids[0]:i text:s"},
        {"head -n 1 $S/run/train_log.jsonl",
         "step:i loss:r grad_norm:r learning_rate:r epoch:r tokens:i tokens_per_second:r memory:i"},
        {"grep eval_loss $S/run/train_log.jsonl | head -n 1", "step:i eval_loss:r loss:-"},
    };
    tn_arena arena = {0};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const tn_json *root;
        if (shell(rows[i].line) != 0) fail_msg("%s: %s", rows[i].line, tn_str_text(&err));
        must(tn_json_parse(&arena, tn_str_text(&out), out.length, 0, rows[i].line, &root));
        must_hold(root, rows[i].fields, rows[i].line);
    }
    tn_arena_free(&arena);
}

static void a_run_leaves_its_files(void **state) {
    (void)state;
    assert_int_equal(
        shell("cd $S/run && ls adapter_model.safetensors adapter_config.json tokenizer.json "
              "tokenizer_config.json chat_template.jinja train_log.jsonl run.json "
              "config.resolved.yaml && cd checkpoint-2 && ls adapter_model.safetensors "
              "adapter_config.json tokenizer.json optimizer.safetensors trainer_state.json run.json "
              "manifest.json"),
        0);
    assert_int_equal(shell("grep '^threads: 1$' $S/run/config.resolved.yaml"), 0); /* as used, not as asked */
    assert_int_equal(shell("tenon plan $S/run/config.resolved.yaml"), 0); /* and it can be read again */
}

/* ---- Sampling ------------------------------------------------------------------------------------ */

#define SAMPLE "tenon generate" MODEL " --prompt 'The village' --max_new_tokens 24 --temperature 1.5 "

static void a_seed_gives_the_same_text_again(void **state) {
    (void)state;
    assert_int_equal(shell(SAMPLE "--seed 1 >$S/a; " SAMPLE "--seed 1 >$S/b; " SAMPLE
                                  "--seed 2 >$S/c; cmp $S/a $S/b && ! cmp -s $S/a $S/c"),
                     0);
    assert_int_equal(shell(SAMPLE "--top_k 1 --seed 1 >$S/a; " SAMPLE "--top_k 1 --seed 2 >$S/b; " SAMPLE
                                  "--temperature=0 >$S/c; cmp $S/a $S/b && cmp $S/a $S/c"),
                     0);
}

static void tokens_become_text_again(void **state) {
    (void)state;
    assert_int_equal(
        shell("echo '{\"text\":\"żółw 🐢 <|im_end|>\"}' | tenon tokenize --model models/islands | sed "
              "'s/, \"text\".*/}/' >$S/ids; tenon tokenize --model models/islands --dataset $S/ids"),
        0);
    assert_true(answered("\"text\": \"żółw 🐢 <|im_end|>\""));
    assert_int_equal(shell("echo '{\"ids\":[1,99999]}' | tenon tokenize --model models/islands"), 3);
    assert_true(said("\"ids\"[1] is no token"));
}

static void chat_leaves_out_what_is_no_text(void **state) {
    (void)state;
    assert_int_equal(shell("printf 'Where is \\377?\\nWhere is the home of Una Thorn?\\n' | tenon chat" MODEL),
                     3);
    assert_true(said("not UTF-8"));
    assert_string_equal(tn_str_text(&out), "Una Thorn lives in Brinmouth.\n");
    assert_int_equal(shell("printf 'a\\0b\\n' | tenon chat" MODEL), 3);
}

/* ---- What is said -------------------------------------------------------------------------------- */

static void what_one_would_not_expect_is_said(void **state) {
    (void)state;
    assert_int_equal(
        shell("tenon train" MODEL DATA " --output_dir $S/x --max_steps 1 --lr_scheduler_type constant "
              "--warmup_steps 5; rm -r $S/x"),
        0);
    assert_true(said("constant has no warm-up"));
    assert_int_equal(shell("tenon eval" MODEL DATA " --max_samples 1 --dtype float16"), 0);
    assert_true(said("float16 with the plain reference"));
}

static void a_dataset_without_labels_is_shown(void **state) {
    (void)state;
    assert_int_equal(
        shell("echo '{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}' >$S/masked.jsonl; tenon "
              "data" MODEL " --dataset $S/masked.jsonl"),
        0);
    assert_true(answered("⟦<|im_start|>user\nHello"));
    assert_true(said("train refuses them"));
}

/* The token cache stands for every mapped file: it is read in each epoch. */
static void a_file_cut_short_under_a_run_is_named(void **state) {
    (void)state;
    assert_int_equal(
        shell(
            "export XDG_CACHE_HOME=$S/cache; \"$TENON\" train --json" MODEL DATA
            " --output_dir $S/x --max_steps 99999 & "
            "until test -s $S/x/train_log.jsonl; do sleep 0.1; done; truncate -s 0 $S/cache/tenon/*; wait $!; "
            "code=$?; rm -r $S/x; exit $code"),
        6);
    assert_true(said("/cache/tenon/tokens-"));
    assert_true(said("was cut short"));
    assert_true(answered("{\"error\":{\"code\":6,"));
}

/* bench: two micro-batches are twice the tokens of one. */
static void bench_accumulates_where_it_is_asked_to(void **state) {
    (void)state;
    assert_int_equal(shell("tenon bench --json" MODEL " --steps 1 --warmup 0 --gradient_accumulation_steps 2"),
                     0);
    tn_arena arena = {0};
    const tn_json *root;
    must(tn_json_parse(&arena, tn_str_text(&out), out.length, 0, "bench", &root));
    double tokens = tn_json_number(tn_json_get(root, "tokens_per_second"), 0) *
                    tn_json_number(tn_json_get(root, "step_seconds"), 0);
    assert_true(tokens > 255.9 && tokens < 256.1); /* 2 micro-batches of 2 rows of 64 */
    tn_arena_free(&arena);
}

static int make_run(void **state) {
    static const char question[] = "[{\"role\":\"user\",\"content\":\"Where is the home of Una Thorn?\"}]";
    (void)state;
    write_scratch("q.json", question, sizeof question - 1);
    if (shell("tenon train" MODEL DATA " --output_dir $S/run --max_steps 4 --save_steps 2 --eval_steps 2 "
              "--eval_split 8") != 0)
        fail_msg("%s", tn_str_text(&err));
    return 0;
}

static int remove_run(void **state) {
    (void)state;
    tn_str_free(&out);
    tn_str_free(&err);
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verb_answers_with_its_fields),
        cmocka_unit_test(a_run_leaves_its_files),
        cmocka_unit_test(a_seed_gives_the_same_text_again),
        cmocka_unit_test(tokens_become_text_again),
        cmocka_unit_test(chat_leaves_out_what_is_no_text),
        cmocka_unit_test(what_one_would_not_expect_is_said),
        cmocka_unit_test(a_dataset_without_labels_is_shown),
        cmocka_unit_test(a_file_cut_short_under_a_run_is_named),
        cmocka_unit_test(bench_accumulates_where_it_is_asked_to),
    };
    return cmocka_run_group_tests(tests, make_run, remove_run);
}
