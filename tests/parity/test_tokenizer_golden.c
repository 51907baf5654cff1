/* test_tokenizer_golden.c: every line of the golden files made by Hugging Face's tokenizers comes out
 * exactly: ids, ids with special tokens, decoded text (whole and streamed).
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* cmocka.h needs what stands above it. */
/* clang-format off */
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */

#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer.h"

static const char *data; /* folder of the unpacked files, NULL: not there */

static int unpack(void **state) {
    (void)state;
    if (!tn_is_file("build/data/golden/tokenize_gpt2.jsonl") && tn_is_file("../shared/data/unpack.sh") &&
        system("sh ../shared/data/unpack.sh build/data > /dev/null") != 0)
        printf("unpack.sh failed\n");
    if (tn_is_file("build/data/golden/tokenize_gpt2.jsonl")) data = "build/data";
    return 0;
}

static bool same_ids(const tn_json *expected, const tn_ids *ids) {
    if (!expected || expected->count != ids->count) return false;
    for (int64_t i = 0; i < ids->count; i++)
        if (tn_json_integer(&expected->items[i], -1) != ids->ids[i]) return false;
    return true;
}

static bool same_text(const tn_json *expected, const tn_str *text) {
    return expected && expected->count == text->length &&
           memcmp(expected->string, tn_str_text(text), (size_t)text->length) == 0;
}

static void check_line(const tn_text *text, const tn_json *line, const char *file, int64_t number) {
    const tn_json *input = tn_json_get(line, "text");
    tn_ids ids = {0}, special = {0};
    tn_str decoded = {0}, streamed = {0};
    tn_text_stream *stream;
    assert_int_equal(tn_text_encode(text, input->string, input->count, false, &ids, NULL), TN_OK);
    assert_int_equal(tn_text_encode(text, input->string, input->count, true, &special, NULL), TN_OK);
    assert_int_equal(tn_text_decode(text, ids.ids, ids.count, false, &decoded), TN_OK);
    assert_int_equal(tn_text_stream_new(text, false, &stream), TN_OK);
    for (int64_t i = 0; i < ids.count; i++) {
        assert_int_equal(tn_text_stream_push(stream, ids.ids[i], &streamed), TN_OK);
        assert_true(tn_utf8_valid(tn_str_text(&streamed), streamed.length));
    }
    assert_int_equal(tn_text_stream_end(stream, &streamed), TN_OK);
    tn_text_stream_free(stream);
    bool right =
        same_ids(tn_json_get(line, "ids"), &ids) && same_ids(tn_json_get(line, "ids_special"), &special) &&
        same_text(tn_json_get(line, "decoded"), &decoded) && same_text(tn_json_get(line, "decoded"), &streamed);
    if (!right) fail_msg("%s line %lld: %s", file, (long long)number, input->string);
    tn_ids_free(&ids);
    tn_ids_free(&special);
    tn_str_free(&decoded);
    tn_str_free(&streamed);
}

static void check_golden(const char *name, int64_t lines) {
    tn_arena arena = {0};
    tn_map map;
    tn_text *text;
    int64_t number = 0;
    if (!data) {
        printf("SKIP: ../shared/data is not there\n");
        skip();
    }
    const char *file = tn_arena_printf(&arena, "%s/golden/tokenize_%s.jsonl", data, name);
    assert_int_equal(
        tn_text_from_json(tn_arena_printf(&arena, "%s/tokenizers/%s/tokenizer.json", data, name), &text),
        TN_OK);
    assert_int_equal(tn_map_open(file, &map), TN_OK);
    const char *at = (const char *)map.data, *end = at + map.bytes;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const tn_json *line;
        tn_arena tree = {0};
        if (!newline) newline = end;
        assert_int_equal(tn_json_parse(&tree, at, newline - at, TN_JSON_DEFAULT, file, &line), TN_OK);
        check_line(text, line, file, ++number);
        tn_arena_free(&tree);
        at = newline + 1;
    }
    assert_int_equal(number, lines);
    tn_map_close(&map);
    tn_text_free(text);
    tn_arena_free(&arena);
}

static void every_line_of_gpt2_is_exact(void **state) { (void)state, check_golden("gpt2", 361); }
static void every_line_of_llama3_2_is_exact(void **state) { (void)state, check_golden("llama3_2", 369); }
static void every_line_of_qwen2_5_is_exact(void **state) { (void)state, check_golden("qwen2_5", 378); }
static void every_line_of_qwen3_is_exact(void **state) { (void)state, check_golden("qwen3", 378); }
static void every_line_of_mistral_nemo_is_exact(void **state) {
    (void)state, check_golden("mistral_nemo", 369);
}
static void every_line_of_gemma3_is_exact(void **state) { (void)state, check_golden("gemma3", 378); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_line_of_gpt2_is_exact),
        cmocka_unit_test(every_line_of_llama3_2_is_exact),
        cmocka_unit_test(every_line_of_qwen2_5_is_exact),
        cmocka_unit_test(every_line_of_qwen3_is_exact),
        cmocka_unit_test(every_line_of_mistral_nemo_is_exact),
        cmocka_unit_test(every_line_of_gemma3_is_exact),
    };
    return cmocka_run_group_tests(tests, unpack, NULL);
}
