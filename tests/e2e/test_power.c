/* test_power.c: a short run is stopped at its every call that changes a file (power_shim.c): by a signal, by a
 * power cut that takes unflushed data, by one that takes unflushed names as well, and by a call that fails as
 * on a full disk. Each time a resumed run ends with the bits and the log of one that nobody disturbed, and a
 * checkpoint that was there to last is there. A few calls of each, all with TENON_TEST_LONG. $TENON names the
 * program, $POWER_SHIM the library.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "testing.h"
#include "train/checkpoint.h"

enum { STEPS = 6, CUT = 99 };

static const char *const modes[] = {"kill", "data", "names", "fail"};
enum { MODES = sizeof modes / sizeof *modes };

/* `tenon train` into scratch/run, under the library where `mode` is given; its exit code. */
static int train(const char *output_dir, const char *mode, int64_t at) {
    pid_t child = fork();
    int status;
    assert_true(child >= 0);
    if (child > 0) {
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFEXITED(status)) fail_msg("%s at call %lld: signal %d", mode, (long long)at, WTERMSIG(status));
        return WEXITSTATUS(status);
    }
    char number[24];
    snprintf(number, sizeof number, "%lld", (long long)at);
    if (mode) {
        char directory[512];
        snprintf(directory, sizeof directory, "%s", scratch(""));
        directory[strlen(directory) - 1] = '\0'; /* the output directory may go too */
        setenv("SHIM_DIR", directory, 1);
        setenv("SHIM_ATTIC", scratch("attic"), 1);
        setenv("SHIM_LOG", scratch("calls"), 1);
        setenv("SHIM_MODE", mode, 1);
        if (at > 0) setenv("SHIM_AT", number, 1);
        setenv("LD_PRELOAD", getenv("POWER_SHIM"), 1);
        setenv("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0", 1); /* the library comes first */
    }
    if (chdir(scratch("")) != 0 || !freopen("log", "w", stderr) || !freopen("/dev/null", "w", stdout))
        _exit(98);
    setenv("OMP_NUM_THREADS", "1", 1);
    execl(getenv("TENON"), "tenon", "train", "--model", "m", "--dataset", "d.jsonl", "--output_dir", output_dir,
          "--lora_r", "128", "--target_modules", "q_proj", "--modules_to_save", "embed_tokens", "--optim",
          "adamw_8bit", "--max_steps", "6", "--save_steps", "2", "--save_total_limit", "1", "--device", "cpu",
          "--resume_from_checkpoint", "auto", (char *)NULL);
    _exit(97);
}

static void must_train(const char *output_dir, const char *mode, int64_t at) {
    tn_str log = {0};
    int code = train(output_dir, NULL, 0);
    must(tn_read_file(scratch("log"), 1 << 24, &log));
    if (code != 0)
        fail_msg("%s at call %lld, resumed: exit %d: %s", mode, (long long)at, code, tn_str_text(&log));
    tn_str_free(&log);
}

static void load(const char *name, tn_str *out) {
    if (tn_is_file(scratch(name))) must(tn_read_file(scratch(name), 1 << 24, out));
}

/* Highest step of a checkpoint whose name lasted, by what the library noted; 0 where none did. */
static int lasting_step(void) {
    tn_str calls = {0};
    int step = 0;
    load("calls", &calls);
    for (const char *line = tn_str_text(&calls); line && *line; line = strchr(line, '\n') + 1) {
        const char *end = strchr(line, '\n');
        char name[600];
        if (!end || strncmp(line, "lasts ", 6) != 0) continue;
        snprintf(name, sizeof name, "%.*s", (int)(end - line - 6), line + 6);
        int64_t found = tn_checkpoint_step(name);
        if (found > step) step = (int)found;
    }
    tn_str_free(&calls);
    return step;
}

static int newest_step(void) {
    tn_arena arena = {0};
    const char *path;
    must(tn_checkpoint_newest(&arena, scratch("run"), &path));
    int step = path ? (int)tn_checkpoint_step(path) : 0;
    tn_arena_free(&arena);
    return step;
}

/* Lines without what depends on the clock. */
static bool same_log(void) {
    tn_str a = {0}, b = {0};
    bool same = true;
    load("calm/train_log.jsonl", &a);
    load("run/train_log.jsonl", &b);
    const char *p = tn_str_text(&a), *q = tn_str_text(&b);
    for (int step = 1; same && step <= STEPS; step++) {
        const char *clock = strstr(p, "\"tokens_per_second\""), *end = strchr(q, '\n');
        same = clock && end && strncmp(p, q, (size_t)(clock - p)) == 0;
        if (!same) break;
        p = strchr(p, '\n') + 1, q = end + 1;
    }
    same = same && *q == '\0';
    tn_str_free(&a);
    tn_str_free(&b);
    return same;
}

static bool same_file(const char *name) {
    char path[2][64];
    tn_str a = {0}, b = {0};
    snprintf(path[0], sizeof path[0], "calm/%s", name);
    snprintf(path[1], sizeof path[1], "run/%s", name);
    load(path[0], &a);
    load(path[1], &b);
    bool same = a.length == b.length && a.length > 0 && memcmp(a.data, b.data, (size_t)a.length) == 0;
    tn_str_free(&a);
    tn_str_free(&b);
    return same;
}

static void fresh_run(void) {
    must(tn_remove_tree(scratch("run")));
    must(tn_remove_tree(scratch("calls")));
    must(tn_remove_tree(scratch("attic")));
    must(tn_make_directories(scratch("attic")));
}

static int64_t count_calls(void) {
    tn_str calls = {0};
    fresh_run();
    assert_int_equal(train("run", "kill", 0), 0);
    load("calls", &calls);
    const char *line = strstr(tn_str_text(&calls), "calls ");
    assert_non_null(line);
    int64_t count = atoll(line + 6);
    tn_str_free(&calls);
    return count;
}

/* One stop, and what has to hold after it. A run may end well in spite of a call that failed (a file of the
 * past that could not be removed is no reason to lose the run). */
static void stop_at(const char *mode, int64_t at) {
    fresh_run();
    int code = train("run", mode, at);
    const bool fails = strcmp(mode, "fail") == 0;
    if (fails ? code != 0 && code != 6 : code != CUT) {
        tn_str log = {0};
        load("log", &log);
        fail_msg("%s at call %lld: exit %d: %s", mode, (long long)at, code, tn_str_text(&log));
    }
    const int lasting = lasting_step();
    if (newest_step() < lasting)
        fail_msg("%s at call %lld: checkpoint %d is lost, %d is there", mode, (long long)at, lasting,
                 newest_step());
    must_train("run", mode, at);
    if (!same_file("adapter_model.safetensors") || !same_log())
        fail_msg("%s at call %lld: the resumed run is another", mode, (long long)at);
}

static void every_call_may_be_the_last(void **state) {
    (void)state;
    if (!getenv("POWER_SHIM")) skip();
    must_train("calm", "nothing", 0);
    const int64_t calls = count_calls();
    assert_true(calls > 50);
    for (int m = 0; m < MODES; m++) {
        const int64_t stride = getenv("TENON_TEST_LONG") ? 1 : calls / 5;
        for (int64_t at = 1 + m; at <= calls; at += stride) stop_at(modes[m], at);
        if (getenv("TENON_TEST_LONG"))
            for (int64_t at = 1; at <= m; at++) stop_at(modes[m], at);
    }
    print_message("%lld calls\n", (long long)calls);
}

static int make_model(void **state) {
    static const char config[] =
        "{\"model_type\":\"llama\",\"vocab_size\":128,\"hidden_size\":32,\"intermediate_size\":64,"
        "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
        "\"max_position_embeddings\":64,\"tie_word_embeddings\":false}\n";
    static const char records[] =
        "{\"input_ids\":[1,2,3,4,5,6,7]}\n{\"input_ids\":[1,9,3,8,5,6]}\n"
        "{\"input_ids\":[4,2,9,4,7]}\n{\"input_ids\":[11,9,13,8,15,6]}\n";
    char command[1024];
    (void)state;
    write_scratch("d.jsonl", records, sizeof records - 1);
    snprintf(command, sizeof command, "\"$TENON\" init --model '%s' --output_dir '%s' >/dev/null",
             write_scratch("c.json", config, sizeof config - 1), scratch("m"));
    return system(command);
}

static int remove_files(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_call_may_be_the_last)};
    return cmocka_run_group_tests(tests, make_model, remove_files);
}
