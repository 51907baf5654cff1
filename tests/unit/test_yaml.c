/* test_yaml.c: what base/json.h promises of YAML: scalars of the 1.2 core schema, aliases and merges within
 * bounds, duplicate keys named with their line, and damaged text survived. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static tn_arena arena;

static int free_arena(void **state) {
    (void)state;
    tn_arena_free(&arena);
    return 0;
}

static const tn_json *parse(const char *text) {
    const tn_json *root = NULL;
    if (tn_yaml_parse(&arena, text, (int64_t)strlen(text), "t", &root) != TN_OK)
        fail_msg("%s", tn_error_message());
    return root;
}

static void refuse(const char *text, tn_status expected, const char *part) {
    const tn_json *root = &(const tn_json){.type = TN_JSON_NULL};
    tn_status status = tn_yaml_parse(&arena, text, (int64_t)strlen(text), "t", &root);
    if (status != expected) fail_msg("status %d for '%.60s'", status, text);
    if (!strstr(tn_error_message(), part)) fail_msg("'%s' lacks '%s'", tn_error_message(), part);
    assert_null(root);
}

/* The tree of `text`, as JSON. */
static void assert_means(const char *text, const char *json) {
    tn_str out = {0};
    tn_json_writer w = tn_json_write_to(&out, 0);
    tn_json_put(&w, parse(text));
    assert_string_equal(tn_str_text(&out), json);
    tn_str_free(&out);
}

static void plain_scalars_follow_the_core_schema(void **state) {
    (void)state;
    assert_means("[~, null, Null, NULL, nULL]", "[null, null, null, null, \"nULL\"]");
    assert_means("[true, True, TRUE, false, False, FALSE]", "[true, true, true, false, false, false]");
    assert_means("[yes, no, on, off, y, n, tRUE]",
                 "[\"yes\", \"no\", \"on\", \"off\", \"y\", \"n\", \"tRUE\"]");
    assert_means("[0, -12, +12, 007, 0o17, 0x1f, 0xFF]", "[0, -12, 12, 7, 15, 31, 255]");
    assert_means("[0b11, 1_000, 0o8, 0xg, -0x1, 12:30, 1.2.3]",
                 "[\"0b11\", \"1_000\", \"0o8\", \"0xg\", \"-0x1\", \"12:30\", \"1.2.3\"]");
    assert_means("[2e-4, 1., .5, -1.5e+3, 1E5, +.25]", "[0.0002, 1.0, 0.5, -1500.0, 100000.0, 0.25]");
    assert_means("[9223372036854775807, 9223372036854775808, -99999999999999999999, +99999999999999999999]",
                 "[9223372036854775807, 9223372036854775808, -99999999999999999999, 99999999999999999999]");
    const tn_json *special = parse("[.inf, -.Inf, +.INF, .nan, .NaN]");
    assert_true(special->items[0].real == INFINITY && special->items[1].real == -INFINITY);
    assert_true(special->items[2].real == INFINITY && isnan(special->items[3].real) &&
                isnan(special->items[4].real));
    assert_means("[inf, nan, -.nan, e5, .]", "[\"inf\", \"nan\", \"-.nan\", \"e5\", \".\"]");
}

static void quoted_and_block_scalars_are_strings(void **state) {
    (void)state;
    assert_means("[\"1\", 'true', \"\", '~']", "[\"1\", \"true\", \"\", \"~\"]");
    assert_means("a: |\n  x\n  y\nb: >-\n  x\n  y\n", "{\"a\": \"x\\ny\\n\", \"b\": \"x y\"}");
    assert_means("\"\\0\\x41\\u00e9\\U0001F600\\L\"", "\"\\u0000A\xC3\xA9\xF0\x9F\x98\x80\xE2\x80\xA8\"");
}

static void a_configuration_reads_as_written(void **state) {
    (void)state;
    assert_means(
        "# a run\nmodel: Qwen/Qwen2.5-0.5B\nlearning_rate: 2e-4\ntarget_modules: [q_proj, v_proj]\n"
        "rope_scaling:\n  rope_type: yarn\n  factor: 4\nlist:\n- 1\n- a: b\n  c:\n",
        "{\"model\": \"Qwen/Qwen2.5-0.5B\", \"learning_rate\": 0.0002, \"target_modules\": [\"q_proj\", "
        "\"v_proj\"], "
        "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4}, \"list\": [1, {\"a\": \"b\", \"c\": "
        "null}]}");
    assert_means("1: a\ntrue: b\n~: c\n", "{\"1\": \"a\", \"true\": \"b\", \"~\": \"c\"}");
}

static void json_is_yaml(void **state) {
    (void)state;
    assert_means("{\"a\": [1, 2.5, null, true, \"x\"], \"b\": {}}",
                 "{\"a\": [1, 2.5, null, true, \"x\"], \"b\": {}}");
}

static void an_empty_text_is_null(void **state) {
    (void)state;
    assert_means("", "null");
    assert_means("# nothing\n", "null");
    assert_means("---\n...\n", "null");
    assert_means(
        "\xEF\xBB\xBF"
        "a: 1\n",
        "{\"a\": 1}");
}

static void tags_confirm_or_make_strings(void **state) {
    (void)state;
    assert_means("[!!str 1, ! 2, !!float 3, !!int 4, !!bool true, !!null ~, !!seq [], !!map {}]",
                 "[\"1\", \"2\", 3.0, 4, true, null, [], {}]");
    refuse("!!int x", TN_BAD_DATA, "line 1");
    refuse("!!python/object:os.system x", TN_BAD_DATA, "a tag that is not known here");
    refuse("!!python/tuple [1]", TN_BAD_DATA, "a tag that is not known here");
}

static void aliases_repeat_their_anchor(void **state) {
    (void)state;
    assert_means("a: &x [1, {k: v}]\nb: *x\nc: &x 3\nd: *x\n",
                 "{\"a\": [1, {\"k\": \"v\"}], \"b\": [1, {\"k\": \"v\"}], \"c\": 3, \"d\": 3}");
    assert_means("&k key: *k\n", "{\"key\": \"key\"}");
    refuse("a: *x\n", TN_BAD_DATA, "an alias without an anchor before it");
    refuse("&a [1, *a]", TN_BAD_DATA, "an alias inside the node it stands for");
}

static void billion_laughs_are_refused(void **state) {
    (void)state;
    tn_str text = {0};
    tn_str_puts(&text, "a0: &a0 lol\n");
    for (int i = 1; i < 10; i++) {
        tn_str_printf(&text, "a%d: &a%d [", i, i);
        for (int j = 0; j < 9; j++) tn_str_printf(&text, "*a%d,", i - 1);
        tn_str_puts(&text, "]\n");
    }
    refuse(text.data, TN_BAD_DATA, "aliases expand to more than");
    tn_str_clear(&text); /* one long string, many times */
    tn_str_puts(&text, "- &a \"");
    for (int i = 0; i < 100000; i++) tn_str_putc(&text, 'x');
    tn_str_puts(&text, "\"\n");
    for (int i = 0; i < 20; i++) tn_str_puts(&text, "- *a\n");
    refuse(text.data, TN_BAD_DATA, "aliases expand to more than");
    tn_str_clear(&text);
    for (int i = 0; i < 1025; i++) tn_str_printf(&text, "- &a%d 1\n", i);
    refuse(text.data, TN_BAD_DATA, "anchors");
    tn_str_free(&text);
}

static void depth_is_bounded_through_aliases_too(void **state) {
    (void)state;
    char text[2 * TN_JSON_MAX_DEPTH + 3] = {0};
    memset(text, '[', TN_JSON_MAX_DEPTH);
    memset(text + TN_JSON_MAX_DEPTH, ']', TN_JSON_MAX_DEPTH);
    parse(text);
    memset(text, '[', TN_JSON_MAX_DEPTH + 1);
    refuse(text, TN_BAD_DATA, "nested deeper than 256 levels");
    tn_str chain = {0};
    tn_str_puts(&chain, "- &a0 []\n");
    for (int i = 1; i < 255; i++) tn_str_printf(&chain, "- &a%d [*a%d]\n", i, i - 1);
    tn_str last = {0};
    tn_str_printf(&last, "%s- [*a254]\n", chain.data);
    parse(chain.data); /* 255 lists inside the sequence of all: 256 levels */
    refuse(last.data, TN_BAD_DATA, "nested deeper than 256 levels");
    tn_str_free(&chain);
    tn_str_free(&last);
}

static void merge_keys_fill_in_what_is_missing(void **state) {
    (void)state;
    assert_means("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n",
                 "{\"a\": {\"x\": 1, \"y\": 2}, \"b\": {\"y\": 3, \"x\": 1}}");
    assert_means("- &a {x: 1}\n- &b {x: 2, y: 2}\n- <<: [*a, *b]\n  z: 3\n",
                 "[{\"x\": 1}, {\"x\": 2, \"y\": 2}, {\"z\": 3, \"x\": 1, \"y\": 2}]");
    assert_means("{\"<<\": 1}", "{\"<<\": 1}"); /* quoted: a key like others */
    assert_means("<<: []\na: 1", "{\"a\": 1}");
    refuse("<<: 3", TN_BAD_DATA, "<< takes a mapping");
    refuse("<<: [{}, 3]", TN_BAD_DATA, "<< takes a mapping");
    refuse("a: {<<: {},\n <<: {}}", TN_USAGE, "key \"<<\" in line 2");
}

static void a_key_twice_is_named_with_its_line(void **state) {
    (void)state;
    refuse("a: 1\nb: 2\na: 3\n", TN_USAGE, "t: key \"a\" in line 3 stands twice");
    refuse("x:\n  - k: 1\n    k: 2\n", TN_USAGE, "key \"k\" in line 3");
    tn_str many = {0};
    for (int i = 0; i < 40; i++) tn_str_printf(&many, "k%d: %d\n", i, i);
    parse(many.data);
    tn_str_puts(&many, "k5: 0\n");
    refuse(many.data, TN_USAGE, "key \"k5\" in line 41");
    tn_str_free(&many);
}

static void broken_text_is_refused_with_its_place(void **state) {
    (void)state;
    static const char *const broken[] = {"a: [1,",   "a: b: c", "{a: 1", "\"x", "a:\n\t- 1", "- a\nb: 1",
                                         "%",        "&",       "*",     "|x",  "!<",        "? [a]\n: 1",
                                         "{[1]: 2}", "a: \x01", "@x",    "`x`"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        refuse(broken[i], TN_BAD_DATA, "t: not valid YAML at line ");
    refuse("a: 1\nb: [\n", TN_BAD_DATA, "line 3");
    refuse("a: \xFF", TN_BAD_DATA, "byte 3");
    refuse("--- 1\n--- 2\n", TN_BAD_DATA, "a second document begins");
    refuse("a: 1\n...\nb\n", TN_BAD_DATA, "line 3");
}

static void every_prefix_and_every_damaged_byte_is_survived(void **state) {
    (void)state;
    const char text[] =
        "a: &x {b: [1, 2.5e3, ~, 'q', \"\\u0041\"]}\nc: {<<: *x, d: !!str 1}\ne: |\n  text\nf: >-\n  x\n";
    int64_t length = (int64_t)sizeof text - 1;
    for (int64_t at = 0; at <= length; at++)
        for (int value = 0; value < 256; value += at < length ? 1 : 256) {
            char *damaged = malloc((size_t)length);
            tn_arena own = {0};
            const tn_json *root;
            assert_non_null(damaged);
            memcpy(damaged, text, (size_t)length);
            if (at < length) damaged[at] = (char)value;
            tn_status status = tn_yaml_parse(&own, damaged, value == 0 ? at : length, "t", &root);
            assert_true(status == TN_OK || status == TN_BAD_DATA || status == TN_USAGE);
            tn_arena_free(&own);
            free(damaged);
        }
}

#define TEST(name) cmocka_unit_test_teardown(name, free_arena)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(plain_scalars_follow_the_core_schema),
        TEST(quoted_and_block_scalars_are_strings),
        TEST(a_configuration_reads_as_written),
        TEST(json_is_yaml),
        TEST(an_empty_text_is_null),
        TEST(tags_confirm_or_make_strings),
        TEST(aliases_repeat_their_anchor),
        TEST(billion_laughs_are_refused),
        TEST(depth_is_bounded_through_aliases_too),
        TEST(merge_keys_fill_in_what_is_missing),
        TEST(a_key_twice_is_named_with_its_line),
        TEST(broken_text_is_refused_with_its_place),
        TEST(every_prefix_and_every_damaged_byte_is_survived),
    };
    return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
