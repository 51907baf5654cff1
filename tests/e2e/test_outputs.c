/* test_outputs.c: where merge, quantize and export write to. An output appears whole or not at all: a run that
 * is stopped leaves nothing, what a killed one has left goes with the next, two never share a place; and
 * nothing that is there, at the end of a link either, is written over. */
#include <sys/stat.h>
#include <unistd.h>

#include "verbs.h"

#define ISLANDS "models/islands"
#define SUFFIX ".tmp-tenon"

enum { MERGE, QUANTIZE, EXPORT, VERBS };

/* Asks to stop at the `calls`th question. */
static bool stop_later(void *user) {
    int *calls = user;
    return --*calls < 0;
}

static tn_status write_to(int verb, const char *path, const tn_hooks *hooks) {
    static const struct {
        const char *name;
        verb_function *function;
        const char *keys[5];
    } verbs[VERBS] = {
        {"merge", tn_merge, {"model", GOLDEN "llama/model", "adapter", GOLDEN "llama/adapter", "output_dir"}},
        {"quantize", tn_quantize_model, {"model", GOLDEN "llama/model", "to", "nf4", "output_dir"}},
        {"export", tn_export, {"model", ISLANDS, "to", "gguf", "output"}}};
    tn_config *config;
    tn_doc *doc = NULL;
    must(tn_config_new(verbs[verb].name, &config));
    if (verb != QUANTIZE) must(tn_config_set(config, "device", "cpu"));
    for (int i = 0; i < 4; i += 2) must(tn_config_set(config, verbs[verb].keys[i], verbs[verb].keys[i + 1]));
    must(tn_config_set(config, verbs[verb].keys[4], path));
    tn_status status = verbs[verb].function(config, hooks, &doc);
    assert_int_equal(status == TN_OK, doc != NULL);
    tn_doc_free(doc);
    tn_config_free(config);
    return status;
}

/* A path that nothing is at, and the name of its unfinished form. */
static const char *fresh(char unfinished[320]) {
    static char path[300];
    static int count;
    char name[32];
    snprintf(name, sizeof name, "out-%d", count++);
    snprintf(path, sizeof path, "%s", scratch(name));
    snprintf(unfinished, 320, "%s" SUFFIX, path);
    return path;
}

static bool is_there(const char *path) {
    struct stat info;
    return lstat(path, &info) == 0;
}

static void must_be_whole(int verb, const char *path) {
    if (verb == EXPORT) assert_true(tn_file_size(path) > 10000);
    else {
        assert_true(tn_is_file(joined(path, "config.json")));
        assert_true(tn_file_size(joined(path, "model.safetensors")) > 10000);
        assert_false(is_there(joined(path, SUFFIX)));
    }
}

static void a_stopped_run_leaves_nothing(void **state) {
    char unfinished[320];
    (void)state;
    for (int verb = 0; verb < VERBS; verb++)
        for (int calls = 0; calls < 20; calls += 6) {
            int left = calls;
            const tn_hooks hooks = {.user = &left, .should_stop = stop_later};
            const char *path = fresh(unfinished);
            must_fail(write_to(verb, path, &hooks), TN_INTERRUPTED, "interrupted before");
            assert_false(is_there(path));
            assert_false(is_there(unfinished));
        }
}

static void what_a_killed_run_left_goes_with_the_next(void **state) {
    char unfinished[320];
    (void)state;
    for (int verb = 0; verb < VERBS; verb++) {
        const char *path = fresh(unfinished);
        must(tn_make_directories(joined(unfinished, "deeper")));
        must(tn_save_text(joined(unfinished, "model.safetensors.tmp-1"), "half", 4));
        must(write_to(verb, path, NULL));
        must_be_whole(verb, path);
        assert_false(is_there(unfinished));
        assert_false(is_there(joined(path, "deeper")));
    }
}

/* Whatever the name is a link to is not what was left. */
static void a_link_in_its_place_is_not_followed(void **state) {
    char unfinished[320], mine[300];
    (void)state;
    snprintf(mine, sizeof mine, "%s", scratch("mine"));
    must(tn_make_directories(mine));
    must(tn_save_text(joined(mine, "notes.txt"), "mine", 4));
    for (int verb = 0; verb < VERBS; verb++) {
        const char *path = fresh(unfinished);
        assert_int_equal(symlink(mine, unfinished), 0);
        must(write_to(verb, path, NULL));
        must_be_whole(verb, path);
        assert_int_equal(tn_file_size(joined(mine, "notes.txt")), 4);
        assert_false(is_there(joined(mine, "config.json")));
    }
}

static void two_runs_do_not_share_a_place(void **state) {
    char unfinished[320];
    (void)state;
    for (int verb = 0; verb < VERBS; verb++) {
        const char *path = fresh(unfinished);
        int lock;
        must(tn_make_directories(unfinished));
        must(tn_save_text(joined(unfinished, "model.safetensors"), "theirs", 6));
        must(tn_lock_directory(unfinished, &lock)); /* as another process that is in the middle of it */
        must_fail(write_to(verb, path, NULL), TN_USAGE, "another process is writing to");
        assert_int_equal(tn_file_size(joined(unfinished, "model.safetensors")), 6);
        tn_unlock_directory(&lock);
        must(write_to(verb, path, NULL));
        must_be_whole(verb, path);
    }
}

/* It may be the root of a disk, or the current one; neither can be renamed to. */
static void an_empty_directory_is_filled_where_it_is(void **state) {
    char unfinished[320], link[340], again[344];
    struct stat before, after;
    (void)state;
    for (int verb = 0; verb < EXPORT; verb++) {
        const char *path = fresh(unfinished);
        must(tn_make_directories(joined(path, SUFFIX))); /* what a killed run left is nothing */
        assert_int_equal(stat(path, &before), 0);
        snprintf(link, sizeof link, "%s.link", path);
        snprintf(again, sizeof again, "%s/.", link);
        assert_int_equal(symlink(tn_path_base(path), link), 0);
        must(write_to(verb, again, NULL));
        assert_int_equal(stat(path, &after), 0);
        assert_true(before.st_ino == after.st_ino);
        must_be_whole(verb, path);
        must_fail(write_to(verb, link, NULL), TN_USAGE, "is there already");
    }
}

static void what_cannot_become_an_output_is_refused_at_once(void **state) {
    char unfinished[320];
    (void)state;
    for (int verb = 0; verb < VERBS; verb++) {
        int never = 0; /* it would be interrupted if it began */
        const tn_hooks hooks = {.user = &never, .should_stop = stop_later};
        const char *path = fresh(unfinished);
        assert_int_equal(symlink("nowhere", path), 0);
        must_fail(write_to(verb, path, &hooks), TN_USAGE, "is a link to nothing");
        assert_int_equal(unlink(path), 0);
        must(tn_save_text(path, "mine", 4));
        must_fail(write_to(verb, path, &hooks), TN_USAGE, "is there already");
        assert_int_equal(tn_file_size(path), 4);
    }
    must(tn_make_directories(fresh(unfinished)));
    unfinished[strlen(unfinished) - strlen(SUFFIX)] = '\0';
    must_fail(write_to(EXPORT, unfinished, NULL), TN_USAGE, "it is a directory");
    must_fail(write_to(EXPORT, scratch("nowhere/x.gguf"), NULL), TN_USAGE, "No such file or directory");
}

static int clean_up(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_run_leaves_nothing),
        cmocka_unit_test(what_a_killed_run_left_goes_with_the_next),
        cmocka_unit_test(a_link_in_its_place_is_not_followed),
        cmocka_unit_test(two_runs_do_not_share_a_place),
        cmocka_unit_test(an_empty_directory_is_filled_where_it_is),
        cmocka_unit_test(what_cannot_become_an_output_is_refused_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
