/* test_json.c: what base/json.h promises: exact numbers, strict syntax with positions, bounded depth, linear
 * time, Python's layout and number texts under every locale, and documents read by path. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/thread.h"

static tn_arena arena;

static int free_arena(void **state) {
    (void)state;
    tn_arena_free(&arena);
    return 0;
}

static const tn_json *parse_bytes(const char *text, int64_t length, int flags) {
    const tn_json *root = NULL;
    if (tn_json_parse(&arena, text, length, flags, "t", &root) != TN_OK) fail_msg("%s", tn_error_message());
    return root;
}

static const tn_json *parse(const char *text, int flags) {
    return parse_bytes(text, (int64_t)strlen(text), flags);
}

/* Refused with TN_BAD_DATA, a message that has `part`, and no tree. The bytes stand alone on the heap, so that
 * the address sanitizer sees a read behind them. */
static void refuse_bytes(const char *text, int64_t length, int flags, const char *part) {
    const tn_json *root = &(const tn_json){.type = TN_JSON_NULL};
    char *alone = malloc((size_t)length + (length == 0));
    assert_non_null(alone);
    memcpy(alone, text, (size_t)length);
    tn_status status = tn_json_parse(&arena, alone, length, flags, "t", &root);
    free(alone);
    if (status != TN_BAD_DATA) fail_msg("'%s' gave status %d", text, status);
    if (!strstr(tn_error_message(), part)) fail_msg("'%s' lacks '%s'", tn_error_message(), part);
    assert_null(root);
}

static void refuse(const char *text, int flags, const char *part) {
    refuse_bytes(text, (int64_t)strlen(text), flags, part);
}

/* The tree of `text` written on one line. */
static void assert_written(const char *text, int indent, const char *expected) {
    tn_str out = {0};
    tn_json_writer w = tn_json_write_to(&out, indent);
    tn_json_put(&w, parse(text, TN_JSON_EXTENSIONS));
    assert_string_equal(tn_str_text(&out), expected);
    tn_str_free(&out);
}

/* ---- Reading ---- */

static void integers_stay_exact_and_long_ones_keep_their_digits(void **state) {
    (void)state;
    const tn_json *root =
        parse("[9223372036854775807,-9223372036854775808,9223372036854775808,-0,9007199254740993]", 0);
    assert_int_equal(tn_json_at(root, 0)->type, TN_JSON_INTEGER);
    assert_true(tn_json_at(root, 0)->integer == INT64_MAX);
    assert_true(tn_json_at(root, 1)->integer == INT64_MIN);
    assert_int_equal(tn_json_at(root, 2)->type, TN_JSON_BIG);
    assert_string_equal(tn_json_at(root, 2)->string, "9223372036854775808");
    assert_int_equal(tn_json_at(root, 2)->count, 19);
    assert_true(tn_json_number(tn_json_at(root, 2), 0) == 9223372036854775808.0);
    assert_int_equal(tn_json_integer(tn_json_at(root, 2), 7), 7);
    assert_int_equal(tn_json_at(root, 3)->type, TN_JSON_INTEGER);
    assert_true(tn_json_at(root, 4)->integer == 9007199254740993);
}

static void reals_are_the_nearest_double(void **state) {
    (void)state;
    const tn_json *root = parse(
        "[0.1,1e5,-2.5E-3,1e999,5e-324,1.0,0.1000000000000000055511151231257827021181583404541015625]", 0);
    const double expected[] = {0.1, 1e5, -2.5e-3, INFINITY, 5e-324, 1.0, 0.1};
    for (int64_t i = 0; i < root->count; i++) {
        assert_int_equal(tn_json_at(root, i)->type, TN_JSON_REAL);
        assert_true(tn_json_at(root, i)->real == expected[i]);
    }
    assert_int_equal(tn_json_integer(tn_json_at(root, 1), 0), 100000);
    assert_int_equal(tn_json_integer(tn_json_at(root, 0), -7), -7);
    assert_int_equal(tn_json_integer(tn_json_at(root, 3), -7), -7);
}

static void strings_keep_nul_bytes_escapes_and_pairs(void **state) {
    (void)state;
    const tn_json *s = parse("\"a\\u0000b\\n\\\"\\/\\u00e9\\uD83D\\uDE00\"", 0);
    assert_int_equal(s->count, 12);
    assert_memory_equal(s->string, "a\0b\n\"/\xC3\xA9\xF0\x9F\x98\x80", 13);
}

static void lone_surrogates_become_replacement_characters(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"\"\\ud800\"", "\xEF\xBF\xBD"},
        {"\"\\udc00x\"", "\xEF\xBF\xBDx"},
        {"\"\\ud800x\"", "\xEF\xBF\xBDx"},
        {"\"\\ud800\\u0041\"",
         "\xEF\xBF\xBD"
         "A"},
        {"\"\\ud800\\ud800\\udc00\"", "\xEF\xBF\xBD\xF0\x90\x80\x80"},
        {"\"\\\\ud800\"", "\\ud800"}, /* an escaped backslash, no surrogate */
        {"\"\\\\\\ud800\"", "\\\xEF\xBF\xBD"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(parse(cases[i].text, 0)->string, cases[i].expected);
    assert_string_equal(parse("{\"\\ud800\":1}", 0)->members[0].key, "\xEF\xBF\xBD");
}

static void broken_text_is_refused_with_its_place(void **state) {
    (void)state;
    static const char *const broken[] = {
        "",
        " ",
        "{",
        "[1,2",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\"}",
        "{a:1}",
        "'a'",
        "[01]",
        "[1.]",
        "[.5]",
        "[+1]",
        "[-]",
        "[1e]",
        "\"a",
        "\"\n\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "nul",
        "true false",
        "[1]x",
        "[1]]",
        "// c\n1",
        "NaN",
        "[Infinity]",
        "0x10",
        "[1 2]",
        "\\",
        "\"\\ud800",
        "\"\\ud800\\",
        "\"\\ud800\\u",
        "\"\\ud800\\udc0",
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        refuse(broken[i], 0, "t: not valid JSON at line ");
    refuse("{\n \"a\": 1,\n \"b\": x}", 0, "line 3, column");
    refuse("[1,2", 0, "(byte 4)");
    refuse_bytes("[1]\0", 4, 0, "trailing garbage");
}

static void bytes_that_are_not_utf8_are_refused_with_their_offset(void **state) {
    (void)state;
    refuse("[\"ab\xFF\"]", 0, "(byte 4): bytes that are not UTF-8");
    refuse("\"\xED\xA0\x80\"", 0, "(byte 1)"); /* a surrogate in UTF-8 */
    refuse("\"\xC0\x80\"", 0, "(byte 1)");     /* overlong */
    refuse("\"aaaaaaaaaaaaaaaaaaaaaa\xE2\x82", 0, "(byte 23)");
}

static void a_byte_order_mark_is_skipped(void **state) {
    (void)state;
    assert_int_equal(parse("\xEF\xBB\xBF{\"a\":1}", 0)->count, 1);
    refuse("\xEF\xBB\xBF", 0, "premature EOF");
}

static void depth_is_bounded(void **state) {
    (void)state;
    char text[2 * TN_JSON_MAX_DEPTH + 3];
    memset(text, '[', TN_JSON_MAX_DEPTH);
    memset(text + TN_JSON_MAX_DEPTH, ']', TN_JSON_MAX_DEPTH);
    parse_bytes(text, 2 * TN_JSON_MAX_DEPTH, 0);
    memset(text, '[', TN_JSON_MAX_DEPTH + 1);
    memset(text + TN_JSON_MAX_DEPTH + 1, ']', TN_JSON_MAX_DEPTH + 1);
    refuse_bytes(text, 2 * TN_JSON_MAX_DEPTH + 2, 0, "nested deeper than 256 levels");
    char *deep = malloc(1 << 20);
    assert_non_null(deep);
    memset(deep, '[', 1 << 20);
    refuse_bytes(deep, 1 << 20, 0, "nested deeper");
    free(deep);
}

static void a_key_twice_is_an_error_only_when_asked(void **state) {
    (void)state;
    assert_int_equal(tn_json_integer(tn_json_get(parse("{\"a\":1,\"a\":2}", 0), "a"), 0), 2);
    refuse("{\"a\":1,\"b\":{\"x\":0,\"x\":1}}", TN_JSON_UNIQUE_KEYS, "key \"x\"");
    parse("{\"a\":{\"b\":1},\"b\":{\"a\":1,\"b\":2},\"\":0,\"a\\u0000\":1}", TN_JSON_UNIQUE_KEYS);
    tn_str many = {0};
    for (int i = 0; i < 50; i++) tn_str_printf(&many, "%s\"k%d\":%d", i ? "," : "{", i, i);
    tn_str_puts(&many, ",\"k17\":0}");
    refuse(tn_str_text(&many), TN_JSON_UNIQUE_KEYS, "key \"k17\"");
    tn_str_free(&many);
}

/* A quadratic check would take minutes: 400,000 keys are 8·10^10 pairs. */
static void a_large_object_is_checked_in_linear_time(void **state) {
    (void)state;
    tn_str text = {0};
    for (int i = 0; i < 400000; i++) tn_str_printf(&text, "%s\"token-%d\":%d", i ? "," : "{", i, i);
    tn_str_putc(&text, '}');
    double start = tn_seconds();
    assert_int_equal(parse_bytes(text.data, text.length, TN_JSON_UNIQUE_KEYS)->count, 400000);
    assert_true(tn_seconds() - start < 10);
    tn_str_free(&text);
}

static void python_specials_are_read_only_as_an_extension(void **state) {
    (void)state;
    const tn_json *root =
        parse("[NaN, Infinity,-Infinity , {\"NaN\":\"-Infinity \\\"NaN\"}]", TN_JSON_EXTENSIONS);
    assert_true(isnan(root->items[0].real));
    assert_true(root->items[1].real == INFINITY && root->items[2].real == -INFINITY);
    assert_string_equal(tn_json_string(tn_json_get(&root->items[3], "NaN"), ""), "-Infinity \"NaN");
    assert_true(isnan(parse("NaN", TN_JSON_EXTENSIONS)->real));
    assert_true(parse("-Infinity", TN_JSON_EXTENSIONS)->real == -INFINITY);
    assert_int_equal(parse("[\"\\ud800\",0e0]", TN_JSON_EXTENSIONS)->count, 2);
    static const char *const broken[] = {"-NaN", "1NaN",  "NaN5",  "NaNNaN",      "[NaN NaN]",  "+Infinity",
                                         "nan",  "NaN.0", "1.NaN", "1e-Infinity", "{NaN:1}",    "Na",
                                         "Inf",  "- NaN", "1-NaN", "Infinity0",   "--Infinity", "-"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        refuse(broken[i], TN_JSON_EXTENSIONS, "not valid JSON");
}

static void every_prefix_and_every_damaged_byte_is_survived(void **state) {
    (void)state;
    const char text[] =
        "{\"a\":[1,-2.5e3,true,null,\"x\\ud83d\\ude00\\ud800\"],\"b\":{\"c\":NaN,\"d\":12345678901234567890}}";
    int64_t length = (int64_t)sizeof text - 1;
    const tn_json *root;
    for (int64_t n = 0; n < length; n++) refuse_bytes(text, n, TN_JSON_EXTENSIONS, "not valid JSON");
    for (int64_t at = 0; at < length; at++)
        for (int value = 0; value < 256; value++) {
            char damaged[sizeof text];
            memcpy(damaged, text, sizeof text);
            damaged[at] = (char)value;
            tn_arena own = {0};
            tn_status status = tn_json_parse(&own, damaged, length, 3, "t", &root);
            assert_true(status == TN_OK || status == TN_BAD_DATA);
            tn_arena_free(&own);
        }
}

static void tokenizer_files_are_read_whole(void **state) {
    (void)state;
    const char *path = "build/data/tokenizers/gemma3/tokenizer.json";
    const tn_json *root;

    if (!tn_is_file(path)) {
        print_message("SKIP: %s is not there\n", path);
        skip();
    }
    assert_int_equal(tn_json_read_file(&arena, path, TN_JSON_UNIQUE_KEYS, &root), TN_OK);
    assert_int_equal(tn_json_path(root, "model.vocab")->count, 262144);
}

static void a_missing_file_is_a_usage_error(void **state) {
    (void)state;
    const tn_json *root;
    assert_int_equal(tn_json_read_file(&arena, "/nowhere/x.json", 0, &root), TN_USAGE);
    assert_null(root);
}

static void absent_values_read_as_what_was_given_otherwise(void **state) {
    (void)state;
    const tn_json *root = parse("{\"a\":{\"b\":[0,{\"c\":\"x\"}]},\"n\":null,\"t\":true,\"r\":2.0}", 0);
    assert_string_equal(tn_json_string(tn_json_path(root, "a.b[1].c"), ""), "x");
    assert_ptr_equal(tn_json_path(root, ""), root);
    static const char *const absent[] = {"a.x",   "a.b[2]", "a.b[-1]", "a.b[",
                                         "a.b[1", "a.b[x]", "a.b[]",   "a.b[1]c",
                                         "a.",    "n.x",    "a[0]",    "a.b[99999999999999999999]",
                                         ".a",    "a..b"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) assert_null(tn_json_path(root, absent[i]));
    assert_null(tn_json_get(NULL, "a"));
    assert_null(tn_json_at(NULL, 0));
    assert_true(tn_json_is_null(NULL) && tn_json_is_null(tn_json_get(root, "n")));
    assert_string_equal(tn_json_string(tn_json_get(root, "t"), "no"), "no");
    assert_true(tn_json_boolean(tn_json_get(root, "t"), false) && tn_json_boolean(NULL, true));
    assert_int_equal(tn_json_integer(tn_json_get(root, "r"), 0), 2);
    assert_true(tn_json_is_string(tn_json_path(root, "a.b[1].c"), "x") && !tn_json_is_string(NULL, "x"));
    assert_string_equal(tn_json_type_name(root), "an object");
    assert_string_equal(tn_json_type_name(NULL), "absent");
}

/* ---- Writing ---- */

static void layout_is_that_of_python(void **state) {
    (void)state;
    const char *text =
        "{\"a\":[1,2.0,[],{}],\"b\":{\"c\":null,\"d\":[true,false]},\"e\":99999999999999999999,\"f\":NaN}";
    assert_written(text, 0,
                   "{\"a\": [1, 2.0, [], {}], \"b\": {\"c\": null, \"d\": [true, false]}, "
                   "\"e\": 99999999999999999999, \"f\": null}");
    assert_written("{\"a\":[1,[],{}],\"b\":{\"c\":2}}", 2,
                   "{\n  \"a\": [\n    1,\n    [],\n    {}\n  ],\n  \"b\": {\n    \"c\": 2\n  }\n}");
    assert_written("[]", 2, "[]");
    assert_written("3", 2, "3");
}

static void members_are_written_in_one_call(void **state) {
    (void)state;
    tn_str out = {0};
    tn_json_writer w = tn_json_write_to(&out, 0);
    tn_json_begin(&w, '{');
    tn_json_string_member(&w, "s", "x");
    tn_json_integer_member(&w, "i", -3);
    tn_json_real_member(&w, "r", 1e-5);
    tn_json_boolean_member(&w, "b", true);
    tn_json_key(&w, "f");
    tn_json_put_float(&w, 0.1f);
    tn_json_end(&w, '}');
    assert_string_equal(out.data, "{\"s\": \"x\", \"i\": -3, \"r\": 1e-05, \"b\": true, \"f\": 0.1}");
    tn_str_free(&out);
}

static void quoting_escapes_only_what_json_demands(void **state) {
    (void)state;
    tn_str out = {0};
    tn_json_quote(&out, "\"\\/\n\r\t\b\f\x01\x1f\x7f\0\xC3\xA9\xE2\x80\xA8", 17);
    assert_string_equal(out.data, "\"\\\"\\\\/\\n\\r\\t\\b\\f\\u0001\\u001f\x7f\\u0000\xC3\xA9\xE2\x80\xA8\"");
    tn_str_clear(&out);
    tn_json_quote(&out,
                  "a\xFF"
                  "b\xC3\nc\xE2\x82",
                  8);
    assert_string_equal(out.data,
                        "\"a\xEF\xBF\xBD"
                        "b\xEF\xBF\xBD\\nc\xEF\xBF\xBD\"");
    tn_str_free(&out);
}

/* Expected texts: Python 3.11's repr(). */
static void reals_are_written_as_python_writes_them(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0.0, "0.0"},
        {-0.0, "-0.0"},
        {1.0, "1.0"},
        {-1.5, "-1.5"},
        {0.1, "0.1"},
        {1e-4, "0.0001"},
        {1e-5, "1e-05"},
        {9.999e-5, "9.999e-05"},
        {2e-4, "0.0002"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},
        {1.5e16, "1.5e+16"},
        {9999999999999998.0, "9999999999999998.0"},
        {1e22, "1e+22"},
        {1e100, "1e+100"},
        {5e-324, "5e-324"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {0x1p-44, "5.684341886080802e-14"}, /* above a power of two: not the nearest 16 digits */
        {9007199254740993.0, "9007199254740992.0"},
        {0.30000000000000004, "0.30000000000000004"},
        {123456.789, "123456.789"},
        {100.0, "100.0"},
        {INFINITY, "inf"},
        {-INFINITY, "-inf"},
    };
    char text[40];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(tn_real_text(cases[i].value, text), cases[i].text);
    assert_string_equal(tn_real_text((double)NAN, text), "nan");
    assert_string_equal(tn_float_text(0.1f, text), "0.1");
    assert_string_equal(tn_float_text(16777216.0f, text), "16777216.0");
    assert_string_equal(tn_float_text(3.4028235e38f, text), "3.4028235e+38");
    assert_string_equal(tn_float_text(0x1p-149f, text), "1e-45");
    assert_string_equal(tn_float_text(1.0f / 3, text), "0.33333334");
}

static void every_real_reads_back_the_same(void **state) {
    (void)state;
    char text[40];
    for (uint64_t i = 0; i < 100000; i++) {
        uint32_t words[4];
        double value, back;
        float single;
        tn_random4(1, 2, i, words);
        memcpy(&value, words, sizeof value);
        memcpy(&single, words + 2, sizeof single);
        if (isfinite(value)) {
            tn_real_text(value, text);
            assert_true(tn_parse_real(text, (int64_t)strlen(text), &back) && back == value);
        }
        if (isfinite(single)) {
            tn_float_text(single, text);
            assert_true(strtof(text, NULL) == single);
        }
    }
}

/* A locale with a decimal comma; where none is installed one is compiled into a directory of our own, whose
 * name `made` gets. */
static bool set_comma_locale(char made[32]) {
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "ru_RU.UTF-8"};
    char command[128];
    for (int attempt = 0; attempt < 2; attempt++) {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (setlocale(LC_ALL, names[i]) && localeconv()->decimal_point[0] == ',') return true;
        if (*made) break;
        strcpy(made, "/tmp/tenon-locale-XXXXXX");
        assert_non_null(mkdtemp(made));
        snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 2>/dev/null", made);
        if (system(command) != 0) break;
        setenv("LOCPATH", made, 1);
    }
    return false;
}

static void numbers_are_the_same_under_a_comma_locale(void **state) {
    char made[32] = "";
    (void)state;
    bool found = set_comma_locale(made);
    if (*made) assert_int_equal(tn_remove_tree(made), TN_OK); /* what was loaded stays */
    if (!found) {
        print_message("SKIP: no locale with a decimal comma\n");
        skip();
    }
    assert_written("[0.5,1e-7,2.5]", 0, "[0.5, 1e-07, 2.5]");
    assert_true(parse("[1.5]", 0)->items[0].real == 1.5);
    char text[40];
    assert_string_equal(tn_float_text(0.25f, text), "0.25");
    snprintf(text, sizeof text, "%.1f", 0.5);
    assert_string_equal(text, "0,5"); /* the caller's locale is as it was */
    setlocale(LC_ALL, "C");
}

static void decimal_text_is_read_whole_or_not_at_all(void **state) {
    (void)state;
    static const char *const broken[] = {"",    "-",   ".",  "1x",  " 1",  "1 ", "0x10",
                                         "inf", "nan", "1e", "1e+", "1,5", "e5", "--1"};
    double real;
    int64_t integer;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        assert_false(tn_parse_real(broken[i], (int64_t)strlen(broken[i]), &real));
        assert_false(tn_parse_integer(broken[i], (int64_t)strlen(broken[i]), &integer));
    }
    assert_true(tn_parse_real("+1.e2garbage", 5, &real) && real == 100);
    assert_true(tn_parse_integer("-9223372036854775808", 20, &integer) && integer == INT64_MIN);
    assert_false(tn_parse_integer("9223372036854775808", 19, &integer));
    char zeros[301];
    memset(zeros, '0', 300);
    memcpy(zeros, "1.", 2);
    assert_true(tn_parse_real(zeros, 300, &real) && real == 1);
}

/* ---- Documents ---- */

static void documents_are_read_by_path(void **state) {
    (void)state;
    tn_str text = {0};
    tn_doc *doc;
    tn_str_puts(&text, "{\"params\": {\"groups\": [{\"name\": \"g\"}]}, \"n\": 3, \"x\": 0.5, \"b\": true}");
    assert_int_equal(tn_doc_from(&text, &doc), TN_OK);
    assert_null(text.data);
    assert_string_equal(tn_doc_string(doc, "params.groups[0].name", ""), "g");
    assert_int_equal(tn_doc_integer(doc, "n", 0), 3);
    assert_true(tn_doc_number(doc, "x", 0) == 0.5 && tn_doc_boolean(doc, "b", false));
    assert_int_equal(tn_doc_count(doc, "params.groups"), 1);
    assert_int_equal(tn_doc_count(doc, ""), 4);
    assert_int_equal(tn_doc_count(doc, "n"), -1);
    assert_string_equal(tn_doc_key(doc, "", 1), "n");
    assert_null(tn_doc_key(doc, "", 4));
    assert_null(tn_doc_key(doc, "params.groups", 0));
    assert_int_equal(tn_doc_text(doc)[0], '{');
    tn_doc_free(doc);
    tn_doc_free(NULL);
}

static void a_document_that_is_no_json_fails_and_frees_its_text(void **state) {
    (void)state;
    tn_str text = {0};
    tn_doc *doc;
    tn_str_puts(&text, "{");
    assert_int_equal(tn_doc_from(&text, &doc), TN_BAD_DATA);
    assert_null(doc);
    assert_null(text.data);
    assert_int_equal(tn_doc_from(&text, &doc), TN_BAD_DATA); /* an empty one */
}

#define TEST(name) cmocka_unit_test_teardown(name, free_arena)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(integers_stay_exact_and_long_ones_keep_their_digits),
        TEST(reals_are_the_nearest_double),
        TEST(strings_keep_nul_bytes_escapes_and_pairs),
        TEST(lone_surrogates_become_replacement_characters),
        TEST(broken_text_is_refused_with_its_place),
        TEST(bytes_that_are_not_utf8_are_refused_with_their_offset),
        TEST(a_byte_order_mark_is_skipped),
        TEST(depth_is_bounded),
        TEST(a_key_twice_is_an_error_only_when_asked),
        TEST(a_large_object_is_checked_in_linear_time),
        TEST(python_specials_are_read_only_as_an_extension),
        TEST(every_prefix_and_every_damaged_byte_is_survived),
        TEST(tokenizer_files_are_read_whole),
        TEST(a_missing_file_is_a_usage_error),
        TEST(absent_values_read_as_what_was_given_otherwise),
        TEST(layout_is_that_of_python),
        TEST(members_are_written_in_one_call),
        TEST(quoting_escapes_only_what_json_demands),
        TEST(reals_are_written_as_python_writes_them),
        TEST(every_real_reads_back_the_same),
        TEST(numbers_are_the_same_under_a_comma_locale),
        TEST(decimal_text_is_read_whole_or_not_at_all),
        TEST(documents_are_read_by_path),
        TEST(a_document_that_is_no_json_fails_and_frees_its_text),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
