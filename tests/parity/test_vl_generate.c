/* test_vl_generate.c: answers of the tiny Qwen2.5-VL to conversations with pictures, through the verbs
 * `generate` and `chat`: token for token those of Transformers + PEFT (golden/qwen2_5_vl/generation.json, made
 * by make_vl_golden.py), whatever is cached of the conversation before; and what is said where a picture is
 * missing, damaged, or one too many.
 */
#include <sys/wait.h>

#include "base/json.h"
#include "testing.h"

#define GOLDEN "tests/parity/golden/qwen2_5_vl/"
#define MODEL GOLDEN "model"
#define PICTURES "tests/parity/golden/pictures/"
#define ANSWERS GOLDEN "generation.json"

static tn_arena arena;
static const tn_json *golden;

static int set_up(void **state) {
    (void)state;
    must(tn_json_read_file(&arena, ANSWERS, TN_JSON_DEFAULT, &golden));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    tn_arena_free(&arena);
    return 0;
}

/* A generator and the settings it reads. */
typedef struct answerer {
    tn_config *config;
    tn_generator *generator;
} answerer;

/* `messages`: the file beside which pictures lie; NULL: the directory we are in. */
static answerer open_answerer(const char *model, const char *adapter, const char *messages,
                              int64_t max_length) {
    answerer a;
    char length[32];
    snprintf(length, sizeof length, "%lld", (long long)max_length);
    must(tn_config_new(messages ? "generate" : "chat", &a.config));
    must(tn_config_set(a.config, "model", model));
    must(tn_config_set(a.config, "device", test_device()));
    must(tn_config_set(a.config, "dtype", "float32"));
    must(tn_config_set(a.config, "max_new_tokens", "20"));
    must(tn_config_set(a.config, "max_length", length));
    if (adapter) must(tn_config_set(a.config, "adapter", adapter));
    if (messages) must(tn_config_set(a.config, "messages", messages));
    must(tn_generator_open(a.config, &a.generator));
    return a;
}

static void close_answerer(answerer *a) {
    tn_generator_free(a->generator);
    tn_config_free(a->config);
}

static tn_doc *ask(answerer *a, const char *messages) {
    tn_doc *doc;
    must(tn_generate_chat(a->generator, messages, NULL, NULL, &doc));
    return doc;
}

/* ---- Answers ------------------------------------------------------------------------------------- */

static void must_be_ids(const tn_doc *doc, const char *key, const tn_json *want) {
    assert_int_equal(tn_doc_count(doc, key), want->count);
    for (int64_t i = 0; i < want->count; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s[%lld]", key, (long long)i);
        const int64_t got = tn_doc_integer(doc, path, -1), id = tn_json_integer(&want->items[i], -2);
        if (got != id) fail_msg("%s is %lld, not %lld", path, (long long)got, (long long)id);
    }
}

static void must_answer(answerer *a, const tn_json *record, const char *which) {
    tn_str messages = {0};
    tn_json_writer w = tn_json_write_to(&messages, 0);
    tn_json_put(&w, tn_json_get(record, "messages"));
    tn_doc *doc = ask(a, tn_str_text(&messages));
    must_be_ids(doc, "prompt_ids", tn_json_get(record, "prompt_ids"));
    must_be_ids(doc, "ids", tn_json_get(record, which));
    tn_doc_free(doc);
    tn_str_free(&messages);
}

/* One generator answers all: the second conversation goes on from the first, the others begin anew; then each
 * is asked again behind another. */
static void answers_are_those_of_transformers(void **state) {
    (void)state;
    for (int adapter = 0; adapter < 2; adapter++) {
        answerer a = open_answerer(MODEL, adapter ? GOLDEN "adapter" : NULL, ANSWERS, 128);
        for (int64_t i = 0; i < golden->count; i++)
            must_answer(&a, &golden->items[i], adapter ? "adapter" : "base");
        for (int64_t i = golden->count - 1; i >= 0; i--)
            for (int twice = 0; twice < 2; twice++)
                must_answer(&a, &golden->items[i], adapter ? "adapter" : "base");
        close_answerer(&a);
    }
}

#define SHOWN(path)                                                          \
    "[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"" path \
    "\"},{\"type\":\"text\",\"text\":\"x\"}]}]"

/* Token for token the same question; only the pixels tell them apart. */
static void another_picture_of_the_same_size_is_looked_at(void **state) {
    (void)state;
    answerer a = open_answerer(MODEL, GOLDEN "adapter", NULL, 128),
             fresh = open_answerer(MODEL, GOLDEN "adapter", NULL, 128);
    tn_doc *first = ask(&a, SHOWN(PICTURES "rgb.png")), *second = ask(&a, SHOWN(PICTURES "grey1.png")),
           *alone = ask(&fresh, SHOWN(PICTURES "grey1.png"));
    assert_string_equal(tn_doc_text(second), tn_doc_text(alone));
    assert_int_equal(tn_doc_count(first, "prompt_ids"), tn_doc_count(second, "prompt_ids"));
    assert_string_not_equal(tn_doc_text(first), tn_doc_text(second));
    tn_doc_free(first);
    tn_doc_free(second);
    tn_doc_free(alone);
    close_answerer(&a);
    close_answerer(&fresh);
}

/* The forms in which data sets name their pictures are taken here as well. */
static void a_record_with_images_is_the_same_question(void **state) {
    static const char *const forms[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>x\"}],\"images\":[\"" PICTURES "rgb.png\"]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"image\":\"" PICTURES "rgb.png\"}",
        "[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"url\":\"file://" PICTURES
        "rgb.png\"},{\"type\":\"text\",\"text\":\"x\"}]}]"};
    (void)state;
    answerer a = open_answerer(MODEL, GOLDEN "adapter", NULL, 128);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        tn_doc *doc = ask(&a, forms[i]);
        must_be_ids(doc, "ids", tn_json_get(&golden->items[2], "adapter"));
        tn_doc_free(doc);
    }
    close_answerer(&a);
}

/* ---- What is wrong ------------------------------------------------------------------------------- */

static void must_complain(answerer *a, const char *messages, tn_status status, const char *part) {
    tn_doc *doc;
    must_fail(tn_generate_chat(a->generator, messages, NULL, NULL, &doc), status, part);
    if (!*tn_error_remedy()) fail_msg("no remedy: %s", tn_error_message());
    assert_null(doc);
}

/* The first bytes of a picture file, or all of it with some changed. */
static const char *damaged(const char *name, int64_t cut, int64_t at) {
    char path[256];
    tn_str bytes = {0};
    snprintf(path, sizeof path, PICTURES "%s", name);
    must(tn_read_file(path, 1 << 20, &bytes));
    for (int64_t i = 0; at && i < 16; i++) bytes.data[at + i] = (char)(bytes.data[at + i] ^ 0x5a);
    const char *out = write_scratch(name, bytes.data, cut ? cut : bytes.length);
    tn_str_free(&bytes);
    return out;
}

static void pictures_that_are_not_to_be_had_are_said(void **state) {
    static const struct {
        const char *messages;
        tn_status status;
        const char *part;
    } cases[] = {
        {SHOWN(PICTURES "nowhere.png"), TN_USAGE, PICTURES "nowhere.png"},
        {SHOWN(PICTURES "picture.webp"), TN_USAGE, PICTURES "picture.webp"},
        {SHOWN(PICTURES "cmyk.jpg"), TN_BAD_DATA, PICTURES "cmyk.jpg"},
        {SHOWN("https://example.org/a.png"), TN_USAGE, "is an address"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"<image><image>x\"}],\"images\":[\"" PICTURES
         "rgb.png\"]}",
         TN_BAD_DATA, "a place for picture 2, and \"images\" has 1"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"<image>x\"}],\"images\":[\"" PICTURES
         "rgb.png\",\"" PICTURES "grey.png\"]}",
         TN_BAD_DATA, "2 pictures, and its conversation places for 1"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]", TN_BAD_DATA, "\"images\" has 0"},
        {"[{\"role\":\"user\",\"content\":\"<|image_pad|>x\"}]", TN_BAD_DATA, "0 pictures"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"video\",\"video\":\"a.mp4\"}]}]", TN_USAGE, "video"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"videos\":[\"a.mp4\"]}", TN_USAGE, "videos"},
        {"{\"messages\":\"x\"}", TN_BAD_DATA, "a list was expected"},
    };
    tn_doc *doc;
    (void)state;
    answerer a = open_answerer(MODEL, GOLDEN "adapter", NULL, 128);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        must_complain(&a, cases[i].messages, cases[i].status, cases[i].part);
    must_fail(tn_generate_text(a.generator, "<|image_pad|>", NULL, NULL, &doc), TN_USAGE, "a picture's token");
    doc = ask(&a, SHOWN(PICTURES "rgb.png")); /* nothing of it has stayed */
    must_be_ids(doc, "ids", tn_json_get(&golden->items[2], "adapter"));
    tn_doc_free(doc);
    close_answerer(&a);
}

static void damaged_pictures_are_said(void **state) {
    static const struct {
        const char *name;
        int64_t cut, at;
    } cases[] = {{"rgb.png", 400, 0},
                 {"rgb.png", 0, 80},
                 {"rgb.png", 9, 0},
                 {"baseline.jpg", 700, 0},
                 {"baseline.jpg", 3, 0}};
    (void)state;
    answerer a = open_answerer(MODEL, GOLDEN "adapter", NULL, 128);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char messages[1024];
        const char *path = damaged(cases[i].name, cases[i].cut, cases[i].at);
        snprintf(messages, sizeof messages,
                 "[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"%s\"}]}]", path);
        must_complain(&a, messages, TN_BAD_DATA, path);
    }
    close_answerer(&a);
}

static void a_picture_larger_than_the_context_is_said(void **state) {
    (void)state;
    answerer a = open_answerer(MODEL, NULL, NULL, 30);
    must_complain(&a, SHOWN(PICTURES "rgb.png"), TN_NO_FIT, "tokens exceed the context of 30");
    tn_doc *doc = ask(&a, "[{\"role\":\"user\",\"content\":\"x\"}]");
    tn_doc_free(doc);
    close_answerer(&a);
}

static void a_model_that_reads_alone_sees_nothing(void **state) {
    (void)state;
    answerer a = open_answerer("models/islands", NULL, NULL, 64);
    must_complain(&a, SHOWN(PICTURES "rgb.png"), TN_USAGE, "this model sees none");
    close_answerer(&a);
}

/* ---- Chat ---------------------------------------------------------------------------------------- */

/* `tenon chat ARGUMENTS` given `lines` as printf writes them: its exit code, and what it wrote. */
static int chat(const char *lines, const char *arguments, tn_str *out, tn_str *err) {
    tn_str command = {0};
    tn_str_printf(&command, "printf '%s' | \"$TENON\" chat --device %s %s >%s 2>%s", lines, test_device(),
                  arguments, scratch("out"), scratch("err"));
    const int status = system(tn_str_text(&command));
    must(tn_read_file(scratch("out"), 1 << 20, out));
    must(tn_read_file(scratch("err"), 1 << 20, err));
    tn_str_free(&command);
    return WEXITSTATUS(status);
}

static void chat_shows_a_picture_with_the_next_line(void **state) {
    (void)state;
    tn_str out = {0}, err = {0};
    answerer a = open_answerer(MODEL, GOLDEN "adapter", NULL, 128);
    tn_doc *doc = ask(&a, SHOWN(PICTURES "rgb.png"));
    assert_int_equal(chat("/image nowhere.png\n/image " PICTURES "rgb.png\nx\n",
                          "--model " MODEL " --adapter " GOLDEN
                          "adapter --dtype float32 --max_new_tokens 20 --max_length 128",
                          &out, &err),
                     3);
    assert_memory_equal(tn_str_text(&out), tn_doc_string(doc, "text", NULL),
                        strlen(tn_doc_string(doc, "text", "")));
    assert_non_null(strstr(tn_str_text(&err), "nowhere.png: No such file"));
    tn_str_free(&out);
    tn_str_free(&err);
    tn_doc_free(doc);
    close_answerer(&a);
}

static void chat_of_a_model_that_reads_alone_goes_on(void **state) {
    (void)state;
    tn_str out = {0}, err = {0};
    assert_int_equal(chat("/image " PICTURES "rgb.png\nx\nWho keeps the lighthouse on Crab Island?\n",
                          "--model models/islands --max_new_tokens 4", &out, &err),
                     2);
    assert_non_null(strstr(tn_str_text(&err), "this model sees none"));
    assert_true(tn_str_text(&out)[0] == 'T');
    tn_str_free(&out);
    tn_str_free(&err);
}

/* A file that is no picture, and /image alone: said, and the next line is answered. */
static void what_cannot_be_shown_costs_no_conversation(void **state) {
    (void)state;
    tn_str out = {0}, err = {0};
    assert_int_equal(chat("/image\n/image " PICTURES "picture.webp\nx\n/image \\344.png\n/image " PICTURES
                          "\nx\nx\n/image " PICTURES "rgb.png\n",
                          "--model " MODEL " --max_new_tokens 1 --max_length 128", &out, &err),
                     2);
    assert_true(out.length > 0);
    static const char *const parts[] = {"/image without a path", "is a WebP file", "the path is not UTF-8 text",
                                        "is not a regular file", "with the next line, and none came"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(tn_str_text(&err), parts[i])) fail_msg("%s: %s", parts[i], tn_str_text(&err));
    tn_str_free(&err);
    tn_str_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_transformers),
        cmocka_unit_test(another_picture_of_the_same_size_is_looked_at),
        cmocka_unit_test(a_record_with_images_is_the_same_question),
        cmocka_unit_test(pictures_that_are_not_to_be_had_are_said),
        cmocka_unit_test(damaged_pictures_are_said),
        cmocka_unit_test(a_picture_larger_than_the_context_is_said),
        cmocka_unit_test(a_model_that_reads_alone_sees_nothing),
        cmocka_unit_test(chat_shows_a_picture_with_the_next_line),
        cmocka_unit_test(chat_of_a_model_that_reads_alone_goes_on),
        cmocka_unit_test(what_cannot_be_shown_costs_no_conversation),
    };
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    remove_scratch();
    return failed;
}
