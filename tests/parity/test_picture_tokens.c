/* test_picture_tokens.c: conversations with pictures become the ids, labels and rope positions that
 * Transformers gives them (golden/pictures/tokens.jsonl); records whose pictures and places do not fit say so.
 */
#include "data/pictures.h"
#include "testing.h"

#define FOLDER "tests/parity/golden/pictures/"
#define MODEL "build/data/tokenizers/qwen2_5_vl"

static tn_chat *chat; /* NULL where the shared tokenizer is not there */
static tn_picture_tokens tokens;

static int set_up(void **state) {
    tn_arena arena = {0};
    const tn_json *config;
    (void)state;
    if (!tn_is_file(MODEL "/tokenizer.json")) return 0;
    must(tn_chat_open(MODEL, &chat));
    must(tn_json_read_file(&arena, MODEL "/config.json", TN_JSON_DEFAULT, &config));
    must(tn_picture_tokens_read(&arena, MODEL, config, &tokens));
    tn_arena_free(&arena);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    tn_chat_free(chat);
    return 0;
}

static const char *const golden[] = {FOLDER "records_messages.jsonl", FOLDER "records_alpaca.jsonl",
                                     FOLDER "records_pair.jsonl"};

static tn_status open_set(const char *const *paths, int64_t count, int64_t max_length, tn_dataset **dataset) {
    const tn_dataset_options options = {.paths = paths,
                                        .count = count,
                                        .max_length = max_length,
                                        .train_on_responses_only = true,
                                        .allow_unlabelled = true,
                                        .pictures = &tokens,
                                        .cache_directory = ""};
    return tn_dataset_open(&options, chat, dataset);
}

/* ---- Golden records ------------------------------------------------------------------------------ */

static void must_equal(const tn_json *want, const int32_t *got, int64_t count, int64_t record,
                       const char *what) {
    assert_int_equal(want->count, count);
    for (int64_t i = 0; i < count; i++)
        if (tn_json_integer(tn_json_at(want, i), -1) != got[i])
            fail_msg("record %lld: %s %lld is %d", (long long)record, what, (long long)i, (int)got[i]);
}

static void check_labels(const tn_json *spans, tn_sample sample) {
    int64_t span = 0;
    for (int64_t i = 0; i < sample.length; i++) {
        const tn_json *s = tn_json_at(spans, span);
        const bool labelled = s && i >= tn_json_integer(tn_json_at(s, 0), -1);
        assert_int_equal(sample.labels[i], labelled ? sample.ids[i] : TN_NO_LABEL);
        if (s && i + 1 == tn_json_integer(tn_json_at(s, 1), -1)) span++;
    }
    assert_int_equal(span, spans->count);
}

static void check_pictures(const tn_json *line, tn_sample sample) {
    const tn_json *places = tn_json_get(line, "pictures"), *paths = tn_json_get(line, "paths");
    assert_int_equal(places->count, sample.picture_count);
    for (int64_t i = 0; i < sample.picture_count; i++) {
        const tn_sample_picture *p = &sample.pictures[i];
        const tn_json *place = tn_json_at(places, i);
        assert_int_equal(p->first, tn_json_integer(tn_json_at(place, 0), -1));
        assert_int_equal(p->rows, tn_json_integer(tn_json_at(place, 1), -1));
        assert_int_equal(p->columns, tn_json_integer(tn_json_at(place, 2), -1));
        assert_string_equal(tn_path_base(sample.paths + p->path), tn_json_string(tn_json_at(paths, i), ""));
        assert_true(tn_is_file(sample.paths + p->path)); /* beside the file of records */
    }
}

static void check_positions(const tn_json *want, tn_sample sample, int64_t record) {
    int32_t *positions = NULL;
    must(tn_alloc(&positions, 3 * sample.length, (int64_t)sizeof *positions, "positions"));
    tn_picture_positions(&sample, positions, positions + sample.length, positions + 2 * sample.length);
    for (int axis = 0; axis < 3; axis++)
        must_equal(tn_json_at(want, axis), positions + axis * sample.length, sample.length, record, "position");
    free(positions);
}

static void records_become_transformers_tokens(void **state) {
    (void)state;
    tn_dataset *dataset;
    tn_str file = {0};
    tn_arena arena = {0};
    int64_t record = 0;
    if (!chat) skip();
    must(open_set(golden, 3, 4096, &dataset));
    must(tn_read_file(FOLDER "tokens.jsonl", 1 << 20, &file));
    for (const char *at = tn_str_text(&file), *end; (end = strchr(at, '\n')); at = end + 1, record++) {
        const tn_json *line;
        must(tn_json_parse(&arena, at, end - at, TN_JSON_DEFAULT, "tokens.jsonl", &line));
        assert_true(record < tn_dataset_samples(dataset));
        const tn_sample sample = tn_dataset_at(dataset, record);
        must_equal(tn_json_get(line, "ids"), sample.ids, sample.length, record, "id");
        check_labels(tn_json_get(line, "spans"), sample);
        check_pictures(line, sample);
        check_positions(tn_json_get(line, "positions"), sample, record);
    }
    assert_int_equal(record, tn_dataset_samples(dataset));
    tn_dataset_free(dataset);
    tn_arena_free(&arena);
    tn_str_free(&file);
}

/* A run of image tokens is whole or not there: cut inside the second picture, its <|vision_start|> is the last.
 */
static void no_picture_is_cut_through(void **state) {
    (void)state;
    tn_dataset *dataset;
    if (!chat) skip();
    must(open_set(golden, 3, 4096, &dataset));
    const tn_sample_picture second = tn_dataset_at(dataset, 0).pictures[1];
    tn_dataset_free(dataset);
    for (int64_t length = second.first; length <= second.first + second.rows * second.columns; length++) {
        const bool whole = length == second.first + second.rows * second.columns;
        must(open_set(golden, 3, length, &dataset));
        assert_int_equal(tn_dataset_at(dataset, 0).length, whole ? length : second.first);
        assert_int_equal(tn_dataset_at(dataset, 0).picture_count, whole ? 2 : 1);
        tn_dataset_free(dataset);
    }
}

/* The example of the paper's rule: 3 tokens, a picture of 2 × 3, 2 tokens. */
static void a_picture_advances_by_its_longer_side(void **state) {
    (void)state;
    static const int32_t want[3][11] = {{0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7},
                                        {0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7},
                                        {0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7}};
    const tn_sample_picture picture = {.first = 3, .rows = 2, .columns = 3};
    const tn_sample sample = {.length = 11, .pictures = &picture, .picture_count = 1};
    int32_t got[33];
    tn_picture_positions(&sample, got, got + 11, got + 22);
    must_match(got, want, sizeof want);
}

/* ---- What is refused ----------------------------------------------------------------------------- */

static void must_refuse(const char *record, tn_status wanted, const char *part) {
    tn_dataset *dataset;
    if (!chat) skip();
    const char *path = write_scratch("records.jsonl", record, (int64_t)strlen(record));
    must_fail(open_set(&path, 1, 4096, &dataset), wanted, part);
    assert_true(strlen(tn_error_remedy()) > 0);
}

#define QUESTION(content) \
    "{\"messages\":[{\"role\":\"user\",\"content\":" content "},{\"role\":\"assistant\",\"content\":\"b\"}]"

static void pictures_without_places_and_places_without_pictures_are_refused(void **state) {
    (void)state;
    must_refuse(QUESTION("\"<image>a\"") ",\"images\":[\"a.png\",\"b.png\"]}", TN_BAD_DATA, "2 pictures");
    must_refuse(QUESTION("\"<image><image>a\"") ",\"images\":[\"a.png\"]}", TN_BAD_DATA, "picture 2");
    must_refuse(QUESTION("[{\"type\":\"image\"}]") "}", TN_BAD_DATA, "picture 1");
    must_refuse(QUESTION("\"<|image_pad|>\"") "}", TN_BAD_DATA, "places for 1");
}

static void what_is_no_local_picture_is_refused(void **state) {
    (void)state;
    must_refuse(QUESTION("\"<image>a\"") ",\"images\":[\"nowhere.png\"]}", TN_USAGE, "nowhere.png");
    must_refuse(QUESTION("\"<image>a\"") ",\"images\":[\"https://example.org/a.png\"]}", TN_USAGE,
                "an address");
    must_refuse(QUESTION("\"<image>a\"") ",\"images\":[{\"bytes\":\"x\"}]}", TN_BAD_DATA, "no path");
    must_refuse(QUESTION("[{\"type\":\"video\",\"video\":\"a.mp4\"}]") "}", TN_USAGE, "video");
    must_refuse(QUESTION("\"a\"") ",\"videos\":[\"a.mp4\"]}", TN_USAGE, "videos");
    must_refuse("{\"text\":\"a\",\"images\":[\"a.png\"]}", TN_USAGE, "images");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_become_transformers_tokens),
        cmocka_unit_test(no_picture_is_cut_through),
        cmocka_unit_test(a_picture_advances_by_its_longer_side),
        cmocka_unit_test(pictures_without_places_and_places_without_pictures_are_refused),
        cmocka_unit_test(what_is_no_local_picture_is_refused),
    };
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    remove_scratch();
    return failed;
}
