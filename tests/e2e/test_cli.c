/* test_cli.c: the program from outside, as a shell runs it: arguments, exit codes, JSON errors, help. $TENON
 * names it. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"

static char folder[] = "/tmp/tenon-cli-XXXXXX";
static tn_str out, err;

static const char *const verbs[] = {"train",    "plan",  "eval",    "generate", "chat",
                                    "tokenize", "data",  "inspect", "verify",   "init",
                                    "bench",    "merge", "export",  "quantize", "env"};
enum { VERBS = sizeof verbs / sizeof *verbs };

static void slurp(const char *name, tn_str *text) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    tn_str_clear(text);
    assert_int_equal(tn_read_file(path, 1 << 24, text), TN_OK);
}

/* Runs `tenon` with the words of a shell; stdout and stderr land in `out` and `err`. Returns the exit code. */
static int tenon_to(const char *words, const char *redirection) {
    char command[2048];
    const char *program = getenv("TENON");
    assert_non_null(program);
    snprintf(command, sizeof command, "cd %s && : >out && '%s' %s >%s 2>err </dev/null", folder, program, words,
             redirection);
    int status = system(command);
    assert_true(WIFEXITED(status));
    slurp("out", &out);
    slurp("err", &err);
    return WEXITSTATUS(status);
}
static int tenon(const char *words) { return tenon_to(words, "out"); }

static void write_file(const char *name, const char *text) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(tn_save_text(path, text, (int64_t)strlen(text)), TN_OK);
}

static void assert_in(const tn_str *text, const char *part) {
    if (!strstr(tn_str_text(text), part)) fail_msg("'%s' lacks '%s'", tn_str_text(text), part);
}

/* stdout is one error document with this code, and nothing else. */
static void assert_error_document(int code, const char *part) {
    tn_arena arena = {0};
    const tn_json *root;
    if (tn_json_parse(&arena, tn_str_text(&out), out.length, 0, "stdout", &root) != TN_OK)
        fail_msg("%s: %s", tn_error_message(), tn_str_text(&out));
    assert_int_equal(tn_json_integer(tn_json_path(root, "error.code"), -1), code);
    const char *message = tn_json_string(tn_json_path(root, "error.message"), "");
    if (!strstr(message, part)) fail_msg("'%s' lacks '%s'", message, part);
    assert_non_null(tn_json_string(tn_json_path(root, "error.remedy"), NULL));
    tn_arena_free(&arena);
}

static void an_unknown_key_is_a_usage_error_with_a_suggestion(void **state) {
    (void)state;
    assert_int_equal(tenon("train --lerning_rate 1e-4"), 2);
    assert_in(&err, "learning_rate");
    assert_int_equal(out.length, 0);
    assert_int_equal(tenon("train --lerning_rate=1e-4 --json"), 2);
    assert_error_document(2, "learning_rate");
    assert_int_equal(tenon("generate --lora_r 3"), 2);
    assert_in(&err, "not a key of generate");
}

static void an_unknown_verb_is_a_usage_error(void **state) {
    (void)state;
    assert_int_equal(tenon("trian"), 2);
    assert_in(&err, "trian");
    assert_int_equal(tenon("frobnicate --json"), 2);
    assert_error_document(2, "frobnicate");
    assert_int_equal(tenon(""), 2);
}

static void every_failing_verb_answers_with_an_error_document(void **state) {
    char words[128];
    (void)state;
    for (int i = 0; i < VERBS - 1; i++) { /* env needs nothing, so it does not fail */
        snprintf(words, sizeof words, "%s --json", verbs[i]);
        if (tenon(words) != 2) fail_msg("%s exits otherwise", words);
        assert_error_document(2, "needs");
    }
    assert_int_equal(tenon("inspect --model /nonexistent/model --json"), 2);
    assert_error_document(2, "/nonexistent/model");
    assert_int_equal(tenon("inspect --json --model '/nonexistent/\"\xff\"'"), 2);
    assert_error_document(2, "/nonexistent/");
}

static void a_boolean_takes_the_next_word_only_if_it_is_true_or_false(void **state) {
    (void)state;
    assert_int_equal(tenon("train --packing false --lora_r 0"), 2);
    assert_in(&err, "lora_r"); /* it went on past `false` */
    assert_int_equal(tenon("train --packing --lora_r 0"), 2);
    assert_in(&err, "lora_r");
    assert_int_equal(tenon("train --packing=maybe"), 2);
    assert_in(&err, "true or false");
    assert_int_equal(tenon("train --packing missing.yaml"), 2);
    assert_in(&err, "missing.yaml");
    assert_int_equal(tenon("env --json false"), 0);
    assert_int_not_equal(*tn_str_text(&out), '{'); /* no document, but the answer for the eye */
    assert_int_equal(tenon("env --json"), 0);
    assert_true(out.length > 2);
}

static void a_key_needs_its_value(void **state) {
    (void)state;
    assert_int_equal(tenon("train --model"), 2);
    assert_in(&err, "--model needs a value");
    assert_int_equal(tenon("train --model --packing"), 2);
    assert_in(&err, "--model needs a value");
    assert_int_equal(tenon("train -model x"), 2);
    assert_int_equal(tenon("train --=x"), 2);
    assert_int_equal(tenon("train a.yaml b.yaml"), 2);
    assert_in(&err, "b.yaml");
}

static void flags_win_over_the_file(void **state) {
    (void)state;
    write_file("run.yaml", "model: /nonexistent/from-file\n");
    assert_int_equal(tenon("inspect run.yaml"), 2);
    assert_in(&err, "from-file");
    assert_int_equal(tenon("inspect run.yaml --model /nonexistent/from-flag"), 2);
    assert_in(&err, "from-flag");
    assert_int_equal(tenon("inspect --model_name=/nonexistent/from-flag run.yaml"), 2);
    assert_in(&err, "from-flag");
    write_file("bad.yaml", "model: x\nlora_rnak: 3\n");
    assert_int_equal(tenon("train bad.yaml --json"), 2);
    assert_error_document(2, "lora_rank");
    write_file("broken.yaml", "model: [x\n");
    assert_int_equal(tenon("train broken.yaml"), 2);
    assert_in(&err, "broken.yaml");
}

/* The table is the verb's result, so it can be piped. */
static void inspect_prints_its_table_on_stdout(void **state) {
    (void)state;
    write_file("tiny.json",
               "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"vocab_size\": 32, "
               "\"hidden_size\": 16, \"intermediate_size\": 32, \"num_hidden_layers\": 1, "
               "\"num_attention_heads\": 2, \"num_key_value_heads\": 2, \"max_position_embeddings\": 64, "
               "\"rms_norm_eps\": 1e-5, \"tie_word_embeddings\": true}");
    assert_int_equal(tenon("init --model tiny.json --output_dir fresh"), 0);
    assert_int_equal(tenon("inspect --model fresh"), 0);
    assert_in(&out, "model.layers.0.self_attn.q_proj.weight");
    assert_in(&out, "parameters:");
    assert_null(strstr(tn_str_text(&err), "q_proj"));
}

static void answers_stand_on_stdout(void **state) {
    (void)state;
    assert_int_equal(tenon("env"), 0);
    assert_in(&out, "cpu");
    assert_int_equal(tenon("plan --model llama-3.1-8b --device cpu --max_length 512 --memory_limit 100GB"), 0);
    assert_in(&out, "trainable");
    assert_in(&out, "longest context");
    write_file("ids.jsonl", "{\"input_ids\": [1, 2, 3]}\n");
    assert_int_equal(tenon("data --model fresh --dataset ids.jsonl --device cpu"), 0);
    assert_in(&out, "--- sample 1");
    assert_int_equal(tenon("eval --model fresh --dataset ids.jsonl --device cpu"), 0);
    assert_in(&out, "perplexity");
}

static void a_conflict_is_named(void **state) {
    (void)state;
    assert_int_equal(tenon("train --model m --dataset d --output_dir o --load_in_4bit --load_in_8bit --json"),
                     2);
    assert_error_document(2, "load_in_8bit");
    assert_int_equal(tenon("train --r 8 --lora_rank 9"), 2);
    assert_in(&err, "lora_rank");
}

static void every_verb_has_help(void **state) {
    char words[64];
    (void)state;
    assert_int_equal(tenon("help"), 0);
    for (int i = 0; i < VERBS; i++) assert_in(&out, verbs[i]);
    for (int i = 0; i < VERBS; i++) {
        snprintf(words, sizeof words, "help %s", verbs[i]);
        assert_int_equal(tenon(words), 0);
        assert_in(&out, "Examples");
        assert_in(&out, "--json");
        snprintf(words, sizeof words, "%s --help", verbs[i]);
        assert_int_equal(tenon(words), 0);
        assert_in(&out, "Examples");
    }
    assert_int_equal(tenon("help nothing"), 2);
    assert_int_equal(tenon("help train"), 0);
    assert_in(&out, "embedding_lr");
    assert_in(&out, "default 2e-4");
}

static void version_is_that_of_the_header(void **state) {
    (void)state;
    assert_int_equal(tenon("version"), 0);
    assert_in(&out, TENON_VERSION);
    assert_int_equal(tenon("--version"), 0);
}

static void an_answer_that_cannot_be_written_is_a_storage_error(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    assert_int_equal(tenon_to("version", "/dev/full"), 6);
    assert_in(&err, "stdout");
    assert_int_equal(tenon_to("help train", "/dev/full"), 6);
    assert_int_equal(tenon_to("env --json", "/dev/full"), 6);
    assert_int_equal(tenon_to("version", "&-"), 6);
}

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    tn_str_free(&out);
    tn_str_free(&err);
    return tn_remove_tree(folder) == TN_OK ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_key_is_a_usage_error_with_a_suggestion),
        cmocka_unit_test(an_unknown_verb_is_a_usage_error),
        cmocka_unit_test(every_failing_verb_answers_with_an_error_document),
        cmocka_unit_test(a_boolean_takes_the_next_word_only_if_it_is_true_or_false),
        cmocka_unit_test(a_key_needs_its_value),
        cmocka_unit_test(flags_win_over_the_file),
        cmocka_unit_test(inspect_prints_its_table_on_stdout),
        cmocka_unit_test(answers_stand_on_stdout),
        cmocka_unit_test(a_conflict_is_named),
        cmocka_unit_test(every_verb_has_help),
        cmocka_unit_test(version_is_that_of_the_header),
        cmocka_unit_test(an_answer_that_cannot_be_written_is_a_storage_error),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
