/* test_kill.c: SIGKILL at random moments of a run that saves after every step, so that most of them hit a save.
 * There is always a whole checkpoint, never an older one than before, and what comes out in the end is bit for
 * bit that of a run nobody disturbed. Three kills, two hundred and ten with TENON_TEST_LONG. $TENON names the
 * program. */
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "testing.h"
#include "train/checkpoint.h"

static int kills, steps;

/* `tenon train` into this directory; its output goes to the file log. */
static pid_t start_from(const char *output_dir, const char *checkpoint) {
    char max_steps[16];
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0) return child;
    snprintf(max_steps, sizeof max_steps, "%d", steps);
    if (chdir(scratch("")) != 0 || !freopen("log", "w", stderr) || !freopen("/dev/null", "w", stdout))
        _exit(98);
    setenv("OMP_NUM_THREADS", "1", 1);
    execl(getenv("TENON"), "tenon", "train", "--model", "m", "--dataset", "d.jsonl", "--output_dir", output_dir,
          "--lora_r", "4", "--max_steps", max_steps, "--save_steps", "1", "--save_total_limit", "2", "--device",
          "cpu", "--resume_from_checkpoint", checkpoint, (char *)NULL);
    _exit(99);
}

static pid_t start(const char *output_dir) { return start_from(output_dir, "auto"); }

static void finish(const char *output_dir) {
    int status;
    tn_str log = {0};
    pid_t child = start(output_dir);
    assert_int_equal(waitpid(child, &status, 0), child);
    must(tn_read_file(scratch("log"), 1 << 24, &log));
    if (status != 0) fail_msg("%s", tn_str_text(&log));
    tn_str_free(&log);
}

static void sleep_ms(long ms) {
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

/* Step of the newest whole checkpoint, 0 where there is none. */
static int newest(const char *output_dir) {
    tn_arena arena = {0};
    const char *path;
    must(tn_checkpoint_newest(&arena, scratch(output_dir), &path));
    int step = path ? atoi(strrchr(path, '-') + 1) : 0;
    tn_arena_free(&arena);
    return step;
}

/* Until the run has saved a checkpoint of its own: one of the two steps behind `step`. */
static void wait_for_save(const char *output_dir, int step) {
    for (int i = 0; i < 5000; i++) {
        for (int ahead = 1; ahead <= 2; ahead++) {
            char path[64];
            snprintf(path, sizeof path, "%s/checkpoint-%d", output_dir, step + ahead);
            if (tn_is_directory(scratch(path))) return;
        }
        sleep_ms(2);
    }
    fail_msg("nothing was saved behind step %d", step);
}

/* Step, loss and the rest of a log line, without what depends on the clock. */
static void assert_same_log(void) {
    tn_str a = {0}, b = {0};
    must(tn_read_file(scratch("calm/train_log.jsonl"), 1 << 24, &a));
    must(tn_read_file(scratch("killed/train_log.jsonl"), 1 << 24, &b));
    const char *p = tn_str_text(&a), *q = tn_str_text(&b);
    for (int step = 1; step <= steps; step++) {
        const char *clock = strstr(p, "\"tokens_per_second\"");
        assert_non_null(clock);
        if (strncmp(p, q, (size_t)(clock - p)) != 0) fail_msg("step %d:\n%s\n%s", step, p, q);
        p = strchr(p, '\n') + 1;
        q = strchr(q, '\n');
        assert_non_null(q++);
    }
    assert_int_equal(*q, '\0');
    tn_str_free(&a);
    tn_str_free(&b);
}

static void assert_same_file(const char *name) {
    char path[2][64];
    tn_map a, b;
    snprintf(path[0], sizeof path[0], "calm/%s", name);
    snprintf(path[1], sizeof path[1], "killed/%s", name);
    must(tn_map_open(scratch(path[0]), &a));
    must(tn_map_open(scratch(path[1]), &b));
    assert_int_equal(a.bytes, b.bytes);
    must_match(b.data, a.data, a.bytes);
    tn_map_close(&a);
    tn_map_close(&b);
}

static void a_killed_run_resumes_bit_for_bit(void **state) {
    int hits = 0, before = 0, last = 0;
    (void)state;
    finish("calm");
    srand((unsigned)time(NULL));
    for (int i = 0; i < kills; i++) {
        int status;
        long wait = rand() % 100;
        pid_t child = start("killed");
        if (before + 2 <= steps) wait_for_save("killed", before);
        sleep_ms(wait);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFSIGNALED(status)) hits++;
        else if (WEXITSTATUS(status) != 0) fail_msg("run %d exits %d", i, WEXITSTATUS(status));
        last = newest("killed");
        if (last < before) fail_msg("kill %d after %ld ms: checkpoint %d after %d", i, wait, last, before);
        before = last;
    }
    print_message("%d of %d runs killed; the last stood at step %d of %d\n", hits, kills, last, steps);
    assert_true(hits > 0);
    finish("killed");
    assert_same_log();
    assert_same_file("adapter_model.safetensors");
}

/* Runs taken up from an early checkpoint write all later ones once more, and are killed at it. Whatever there
 * was of a step stays until the new one is in its place: the newest step is never lost. */
static void a_checkpoint_that_is_replaced_is_always_there(void **state) {
    char early[64];
    (void)state;
    int last = newest("killed");
    snprintf(early, sizeof early, "killed/checkpoint-%d", last - 1);
    assert_int_equal(last, steps);
    for (int i = 0; i < kills; i++) {
        int status;
        pid_t child = start_from("killed", early);
        sleep_ms(20 + rand() % 200);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSIGNALED(status) && WEXITSTATUS(status) != 0) fail_msg("run %d exits %d", i, status);
        assert_int_equal(newest("killed"), last);
    }
}

static void move(const char *from, const char *to) {
    if (rename(scratch(from), scratch(to)) != 0) fail_msg("%s cannot be moved to %s", from, to);
}

/* Between its two renames a save leaves the older checkpoint aside, and a later one tidies up. */
static void what_was_put_aside_is_resumed(void **state) {
    char name[64], old[80];
    (void)state;
    snprintf(name, sizeof name, "killed/checkpoint-%d", steps);
    snprintf(old, sizeof old, "%s.old", name);
    move(name, old);
    assert_int_equal(newest("killed"), steps);
    steps += 1;
    finish("killed"); /* from the one aside: the next step alone is new */
    assert_int_equal(newest("killed"), steps);
    assert_true(tn_is_directory(scratch(old)) && !tn_is_directory(scratch(name)));
    steps += 2;
    finish("killed"); /* save_total_limit 2 */
    assert_false(tn_is_directory(scratch(old)));
}

static int make_model(void **state) {
    static const char config[] =
        "{\"model_type\":\"llama\",\"vocab_size\":64,\"hidden_size\":32,\"intermediate_size\":64,"
        "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
        "\"max_position_embeddings\":64,\"tie_word_embeddings\":false}\n";
    static const char records[] =
        "{\"input_ids\":[1,2,3,4,5,6,7]}\n{\"input_ids\":[1,9,3,8,5,6]}\n"
        "{\"input_ids\":[4,2,9,4,7]}\n{\"input_ids\":[11,9,13,8,15,6]}\n";
    char command[1024];
    (void)state;
    kills = getenv("TENON_TEST_LONG") ? 210 : 3;
    steps = 15 * kills;
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_run_resumes_bit_for_bit),
        cmocka_unit_test(a_checkpoint_that_is_replaced_is_always_there),
        cmocka_unit_test(what_was_put_aside_is_resumed),
    };
    return cmocka_run_group_tests(tests, make_model, remove_files);
}
