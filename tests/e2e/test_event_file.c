/* test_event_file.c: TensorBoard's files against bytes of TensorBoard's own writer, and what a run leaves in
 * them. tests/parity/event_file_check.py reads them by the tensorboard package.
 */
#include "format/event_file.h"
#include "testing.h"

/* Event(step=3, summary=Summary(value=[Value(tag="train/loss", simple_value=1.5)])) of tensorboard 2.21 with
 * wall time 0, without its frame; and the first frame's head of every event file. */
static const unsigned char event[] = {9,  0,   0,   0,  0,   0,   0,  0,   0,   16,  3,   42, 19, 10, 17,  10,
                                      10, 116, 114, 97, 105, 110, 47, 108, 111, 115, 115, 21, 0,  0,  192, 63},
                           head[] = {24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22};

static const char *only_file(tn_arena *arena, const char *directory) {
    const char **names;
    int64_t count;
    must(tn_list_directory(arena, directory, &names, &count));
    assert_int_equal(count, 1);
    return tn_path_join(arena, directory, names[0]);
}

static void the_bytes_are_tensorboards(void **state) {
    (void)state;
    tn_event_file *file;
    tn_arena arena = {0};
    tn_str text = {0};
    const tn_scalar loss = {"train/loss", 1.5};
    must(tn_event_file_open(scratch("runs"), 2, &file));
    must(tn_event_file_add(file, 3, &loss, 1));
    tn_event_file_close(file);
    must(tn_read_file(only_file(&arena, scratch("runs")), 4096, &text));
    must_match(text.data, head, sizeof head);
    /* the last frame: its wall time is put back to the golden's, which the frame's own sum does not cover then
     */
    char *last = text.data + text.length - (int64_t)sizeof event - 4;
    memset(last + 1, 0, 8);
    must_match(last, event, sizeof event);
    assert_int_equal(last[-12], sizeof event);
    tn_str_free(&text);
    tn_arena_free(&arena);
}

static void a_folder_that_cannot_be_is_named(void **state) {
    (void)state;
    tn_event_file *file;
    write_scratch("a_file", "x", 1);
    must_fail(tn_event_file_open(scratch("a_file"), 0, &file), TN_USAGE, "a_file");
    assert_null(file);
}

static int times(const tn_str *text, const char *word) {
    int count = 0;
    const size_t length = strlen(word);
    for (int64_t i = 0; i + (int64_t)length <= text->length; i++)
        count += memcmp(text->data + i, word, length) == 0;
    return count;
}

static void a_run_reports_steps_and_evaluations(void **state) {
    static const char *const keys[] = {"model",      "tests/parity/golden/llama/model",
                                       "dataset",    "tests/parity/golden/llama/train.jsonl",
                                       "max_length", "32",
                                       "max_steps",  "4",
                                       "eval_split", "2",
                                       "eval_steps", "2",
                                       "report_to",  "tensorboard",
                                       "device",     "cpu"};
    (void)state;
    tn_config *config;
    tn_doc *doc = NULL;
    tn_arena arena = {0};
    tn_str text = {0};
    must(tn_config_new("train", &config));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i += 2)
        must(tn_config_set(config, keys[i], keys[i + 1]));
    must(tn_config_set(config, "output_dir", scratch("run")));
    must(tn_train(config, NULL, &doc));
    must(tn_read_file(only_file(&arena, scratch("run/runs")), 1 << 16, &text));
    assert_int_equal(times(&text, "train/loss"), 4);
    assert_int_equal(times(&text, "train/learning_rate"), 4);
    assert_int_equal(times(&text, "eval/loss"), 2);
    tn_doc_free(doc);
    tn_config_free(config);
    tn_str_free(&text);
    tn_arena_free(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_bytes_are_tensorboards),
                                       cmocka_unit_test(a_run_reports_steps_and_evaluations),
                                       cmocka_unit_test(a_folder_that_cannot_be_is_named)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_scratch();
    return failed;
}
