/* Readers keep their promises on good files, on odd ones, and on damaged ones. */
#include "data/readers.h"
#include "testing.h"

/* The records of `text` written one behind another as JSON with their lines, or "ERROR: message". */
static char *read_bytes(const char *path, const char *text, int64_t length) {
    tn_reader *reader = NULL;
    tn_arena arena = {0};
    tn_str out = {0};
    tn_slice slice;
    const tn_json *record;
    bool found = true;
    tn_status status = tn_reader_open_memory(path, text, length, &reader);
    while (status == TN_OK) {
        status = tn_reader_next(reader, &slice, &found);
        if (status != TN_OK || !found) break;
        status = tn_reader_parse(reader, slice, &arena, NULL, &record);
        if (status != TN_OK) break;
        tn_json_writer w = tn_json_write_to(&out, 0);
        tn_str_printf(&out, "%lld:", (long long)slice.line);
        tn_json_put(&w, record);
        tn_str_putc(&out, '\n');
    }
    if (status != TN_OK) {
        tn_str_clear(&out);
        tn_str_printf(&out, "ERROR %d: %s", (int)status, tn_error_message());
    }
    tn_reader_free(reader);
    tn_arena_free(&arena);
    return out.data ? out.data : strdup("");
}

static void expect(const char *path, const char *text, const char *wanted) {
    char *got = read_bytes(path, text, (int64_t)strlen(text));
    assert_string_equal(got, wanted);
    free(got);
}

/* The failure names every one of the parts. */
static void expect_error(const char *path, const char *text, tn_status status, const char *part,
                         const char *more) {
    char *got = read_bytes(path, text, (int64_t)strlen(text)), start[16];
    snprintf(start, sizeof start, "ERROR %d:", (int)status);
    if (strncmp(got, start, strlen(start)) != 0 || !strstr(got, part) || !strstr(got, more))
        fail_msg("\"%s\" does not start with %s or lacks \"%s\" or \"%s\"", got, start, part, more);
    free(got);
}

static void jsonl_gives_a_record_a_line_with_its_number(void **state) {
    (void)state;
    expect("a.jsonl", "{\"a\":1}\n\n  \r\n{\"b\":\"x\"}\r\n{\"c\":null}",
           "1:{\"a\": 1}\n4:{\"b\": \"x\"}\n5:{\"c\": null}\n");
    expect("a.jsonl", "\xEF\xBB\xBF{\"a\":1}\n", "1:{\"a\": 1}\n");
    expect("a.jsonl", "", "");
    expect("a.jsonl", " \n\n", "");
}

static void truncated_jsonl_names_file_and_line(void **state) {
    (void)state;
    expect_error("dir/a.jsonl", "{\"a\":1}\n{\"a\":2}\n{\"a\": \"cut of", TN_BAD_DATA, "dir/a.jsonl:3", "JSON");
    expect_error("a.jsonl", "{\"a\":1}\n{\"a\":2,}\n{\"a\":3}\n", TN_BAD_DATA, "a.jsonl:2", "JSON");
    expect_error("a.jsonl", "{\"a\":1} {\"a\":2}\n", TN_BAD_DATA, "a.jsonl:1", "");
}

static void json_may_be_a_list_an_object_data_or_lines(void **state) {
    (void)state;
    expect("a.json", "[{\"a\":1},\n {\"a\":\"]}\\\"\"}\n]\n", "1:{\"a\": 1}\n2:{\"a\": \"]}\\\"\"}\n");
    expect("a.json", "\xEF\xBB\xBF [ ]", "");
    expect("a.json", "{\"version\":[1,{}],\n\"data\":[{\"a\":1},\n{\"a\":2}],\"more\":{}}",
           "2:{\"a\": 1}\n3:{\"a\": 2}\n");
    expect("a.json", "{\"text\":\"x\",\"n\":[1]}\n", "1:{\"text\": \"x\", \"n\": [1]}\n");
    expect("a.json", "{\"data\":[1]}\n{\"data\":[2]}\n", "1:{\"data\": [1]}\n2:{\"data\": [2]}\n");
    expect("a.json", "", "");
}

static void damaged_json_lists_are_refused(void **state) {
    (void)state;
    expect_error("a.json", "[{\"a\":1},\n{\"a\":2}", TN_BAD_DATA, "a.json:2", "ends inside the list");
    expect_error("a.json", "[{\"a\":1},\n{\"a\":", TN_BAD_DATA, "a.json:2", "JSON");
    expect_error("a.json", "[{\"a\":1},\n]", TN_BAD_DATA, "a.json:2", "comma");
    expect_error("a.json", "[{\"a\":1}\n{\"a\":1}]", TN_BAD_DATA, "a.json:2", "comma");
    expect_error("a.json", "[,{\"a\":1}]", TN_BAD_DATA, "a.json:1", "");
    expect_error("a.json", "[{\"a\":1}] x", TN_BAD_DATA, "a.json:1", "behind the list");
    expect_error("a.json", "]", TN_BAD_DATA, "a.json:1", "");
    expect_error("a.json", "[{\"a\":[1}]]", TN_BAD_DATA, "a.json:1", "");
}

static void csv_keeps_quotes_commas_and_newlines_inside_fields(void **state) {
    (void)state;
    expect("a.csv", "prompt,completion\nhi,there\n\"a,\"\"b\"\"\nc\",\"\"\nlast,\"x\"",
           "2:{\"prompt\": \"hi\", \"completion\": \"there\"}\n"
           "3:{\"prompt\": \"a,\\\"b\\\"\\nc\", \"completion\": \"\"}\n"
           "5:{\"prompt\": \"last\", \"completion\": \"x\"}\n");
    expect("a.csv", "\xEF\xBB\xBFtext\r\none\r\n\r\n\"two\r\nlines\"\r\n",
           "2:{\"text\": \"one\"}\n4:{\"text\": \"two\\r\\nlines\"}\n");
    expect("a.csv", ",text\n0,a \"b\" c\n", "2:{\"\": \"0\", \"text\": \"a \\\"b\\\" c\"}\n");
    expect("a.csv", "text\n", "");
    expect("a.csv", "", "");
}

static void damaged_csv_names_the_line(void **state) {
    (void)state;
    expect_error("a.csv", "a,b\n1,2\n1,2,3\n", TN_BAD_DATA, "a.csv:3", "3 fields, the header row has 2");
    expect_error("a.csv", "a,b\n1,2\n1\n", TN_BAD_DATA, "a.csv:3", "1 fields");
    expect_error("a.csv", "a,b\n1,2\n1,\"open\n\n\n", TN_BAD_DATA, "a.csv:3", "never ends");
    expect_error("a.csv", "a\n\"x\"\"", TN_BAD_DATA, "a.csv:2", "never ends");
    expect_error("a.csv", "a,b\n\"1\"x,2\n", TN_BAD_DATA, "a.csv:2", "closing quote");
    expect_error("a.csv", "a,b,a\n", TN_BAD_DATA, "a.csv:1", "\"a\" stands twice");
}

static void text_is_one_document(void **state) {
    (void)state;
    expect("a.txt", "one\n\ntwo\r\n", "1:{\"text\": \"one\\n\\ntwo\\r\\n\"}\n");
    expect("a.TXT", "\xEF\xBB\xBFx", "1:{\"text\": \"x\"}\n");
    expect("a.txt", "\n \n", "");
}

static void bytes_that_are_not_utf8_are_placed(void **state) {
    (void)state;
    expect_error("a.jsonl", "{\"a\":1}\n{\"a\":\"\xE9t\"}\n", TN_BAD_DATA, "a.jsonl:2", "byte 14");
    expect_error("a.csv", "a,b\n1,\"x\n\xFF\"\n", TN_BAD_DATA, "a.csv:3", "byte 9");
    expect_error("a.txt",
                 "\xEF\xBB\xBF"
                 "a\nb\xC0\x80",
                 TN_BAD_DATA, "a.txt:2", "byte 6");
    expect_error("a.json", "[\n\n{\"a\":\n\"\xED\xA0\x80\"}]", TN_BAD_DATA, "a.json:4", "0xED");
    expect_error("a.csv", "\xFF,b\n", TN_BAD_DATA, "a.csv:1", "byte 0");
}

static void missing_and_unknown_files_are_usage_errors(void **state) {
    (void)state;
    tn_reader *reader;
    assert_int_equal(tn_reader_open("/nowhere/a.jsonl", &reader), TN_USAGE);
    assert_non_null(strstr(tn_error_message(), "/nowhere/a.jsonl"));
    assert_int_equal(tn_reader_open("/nowhere/a.parquet", &reader), TN_USAGE);
    assert_non_null(strstr(tn_error_message(), ".jsonl"));
    assert_int_equal(tn_reader_open("/tmp", &reader), TN_USAGE);
    assert_null(reader);
}

static void nesting_without_end_is_refused(void **state) {
    (void)state;
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH + 1);
    assert_non_null(text);
    memset(text, '[', DEPTH);
    text[DEPTH] = '\0';
    expect_error("a.jsonl", text, TN_BAD_DATA, "a.jsonl:1", "");
    expect_error("a.json", text, TN_BAD_DATA, "a.json:1", "");
    memset(text, '{', DEPTH);
    expect_error("a.json", text, TN_BAD_DATA, "a.json:1", "");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jsonl_gives_a_record_a_line_with_its_number),
        cmocka_unit_test(truncated_jsonl_names_file_and_line),
        cmocka_unit_test(json_may_be_a_list_an_object_data_or_lines),
        cmocka_unit_test(damaged_json_lists_are_refused),
        cmocka_unit_test(csv_keeps_quotes_commas_and_newlines_inside_fields),
        cmocka_unit_test(damaged_csv_names_the_line),
        cmocka_unit_test(text_is_one_document),
        cmocka_unit_test(bytes_that_are_not_utf8_are_placed),
        cmocka_unit_test(missing_and_unknown_files_are_usage_errors),
        cmocka_unit_test(nesting_without_end_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
