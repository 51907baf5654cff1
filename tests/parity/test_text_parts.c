/* test_text_parts.c: small tokenizers with the odd parts that files bring, against ids that Hugging Face's
 * tokenizers made (golden/text_parts.jsonl, written by make_text_golden.py). */
#include "../testing.h"
#include "base/json.h"
#include "text/work.h"

static const char golden[] = "tests/parity/golden/text_parts.jsonl";

/* `base` with the members of `change` in the place of its own. */
static void open_changed(const tn_json *base, const tn_json *change, tn_text **text) {
    tn_str json = {0};
    tn_json_writer w = tn_json_write_to(&json, 0);
    tn_json_begin(&w, '{');
    for (int64_t i = 0; i < base->count; i++) {
        const tn_json *changed = tn_json_get(change, base->members[i].key);
        tn_json_key(&w, base->members[i].key);
        tn_json_put(&w, changed ? changed : &base->members[i].value);
    }
    tn_json_end(&w, '}');
    must(tn_text_from_json_text(json.data, json.length, golden, text));
    tn_str_free(&json);
}

static void check_ids(const tn_text *text, const tn_json *line, bool special, int64_t number) {
    const tn_json *input = tn_json_get(line, "text"), *wanted = tn_json_get(line, special ? "special" : "ids");
    tn_ids ids = {0};
    must(tn_text_encode(text, input->string, input->count, special, &ids, NULL));
    if (ids.count != wanted->count)
        fail_msg("line %lld: %lld ids of \"%s\", not %lld", (long long)number, (long long)ids.count,
                 input->string, (long long)wanted->count);
    for (int64_t i = 0; i < ids.count; i++)
        if (ids.ids[i] != tn_json_integer(&wanted->items[i], -1))
            fail_msg("line %lld: id %lld of \"%s\" is %d", (long long)number, (long long)i, input->string,
                     ids.ids[i]);
    tn_ids_free(&ids);
}

static void check_decoded(const tn_text *text, const tn_json *line, bool skip_special, int64_t number) {
    const tn_json *list = tn_json_get(line, "ids"),
                  *wanted = tn_json_get(line, skip_special ? "plain" : "decoded");
    tn_ids ids = {0};
    tn_str decoded = {0};
    for (int64_t i = 0; i < list->count; i++)
        must(tn_ids_push(&ids, (int32_t)tn_json_integer(&list->items[i], -1)));
    must(tn_text_decode(text, ids.ids, ids.count, skip_special, &decoded));
    if (decoded.length != wanted->count ||
        memcmp(tn_str_text(&decoded), wanted->string, (size_t)decoded.length) != 0)
        fail_msg("line %lld: \"%s\", not \"%s\"", (long long)number, tn_str_text(&decoded), wanted->string);
    tn_str_free(&decoded);
    tn_ids_free(&ids);
}

static void odd_parts_give_the_librarys_ids_and_texts(void **state) {
    tn_arena arena = {0};
    tn_str file = {0};
    const tn_json *base = NULL;
    int64_t number = 0;
    (void)state;
    must(tn_read_file(golden, 64 << 20, &file));
    for (char *at = file.data, *end; *at; at = end + 1) {
        const tn_json *line;
        tn_text *text;
        end = strchr(at, '\n');
        assert_non_null(end);
        must(tn_json_parse(&arena, at, end - at, TN_JSON_DEFAULT, golden, &line));
        if (number++ == 0) {
            base = line;
            continue;
        }
        open_changed(base, tn_json_get(line, "change"), &text);
        const tn_json *texts = tn_json_get(line, "texts");
        for (int64_t i = 0; i < texts->count; i++) {
            check_ids(text, &texts->items[i], false, number);
            check_ids(text, &texts->items[i], true, number);
            check_decoded(text, &texts->items[i], false, number);
            check_decoded(text, &texts->items[i], true, number);
        }
        tn_text_free(text);
    }
    assert_int_equal(number, 97);
    tn_str_free(&file);
    tn_arena_free(&arena);
}

static void expressions_cut_short_are_refused(void **state) {
    static const char *const expressions[] = {"(?#",   "(?#a",    "[",     "[^",        "[a&&", "[]",
                                              "[a&&]", "\\",      "\\p{L", "\\p{",      "[\\",  "(?<",
                                              "(a",    "[[a-c]x", "a)",    "[[:digit:]"};
    (void)state;
    for (size_t i = 0; i < sizeof expressions / sizeof expressions[0]; i++) {
        tn_regex *regex = NULL;
        must_fail(tn_regex_compile(expressions[i], (int64_t)strlen(expressions[i]), false, &regex), TN_BAD_DATA,
                  "regular expression");
        assert_null(regex);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_parts_give_the_librarys_ids_and_texts),
        cmocka_unit_test(expressions_cut_short_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
