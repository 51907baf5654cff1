/* test_gguf.c: the GGUF container (ggml: docs/gguf.md): values of every type, and what a damaged or lying file
 * gives. */
#include "format/gguf.h"
#include "gguf_builder.h"
#include "testing.h"

static tn_str bytes;

static tn_gguf *must_open(gguf_builder *b) {
    tn_gguf *file;
    build_gguf(b, &bytes);
    must(tn_gguf_open(write_scratch("x.gguf", bytes.data, bytes.length), &file));
    return file;
}

static void must_refuse(gguf_builder *b, tn_status wanted, const char *part) {
    tn_gguf *file;
    build_gguf(b, &bytes);
    must_fail(tn_gguf_open(write_scratch("x.gguf", bytes.data, bytes.length), &file), wanted, part);
    assert_non_null(strstr(tn_error_message(), "x.gguf"));
    assert_true(strlen(tn_error_remedy()) > 0);
    assert_null(file);
}

static const int64_t four[] = {4}, matrix[] = {32, 2};
static const float floats[] = {1.5f, -2.0f, 0.25f, 3.0f};

/* A file with something of everything, for cutting. */
static void small_file(gguf_builder *b) {
    static const unsigned char blocks[40] = {0, 0x3C, 7};
    add_string(b, "general.architecture", "llama");
    add_u32(b, "llama.block_count", 1);
    add_key(b, "tokens", GGUF_ARRAY);
    put_int(&b->keys, GGUF_STRING, 4);
    put_int(&b->keys, 2, 8);
    put_string(&b->keys, "a");
    put_string(&b->keys, "");
    add_tensor(b, "norm", 1, four, 0, floats, 16);
    add_tensor(b, "w", 2, matrix, 2, blocks, 36);
}

/* ---- Values -------------------------------------------------------------------------------------- */

static void every_value_type_is_read(void **state) {
    (void)state;
    static const struct {
        int type, width;
        uint64_t bits;
        int64_t value;
    } integers[] = {{GGUF_U8, 1, 200, 200},
                    {GGUF_I8, 1, 0xFE, -2},
                    {GGUF_U16, 2, 60000, 60000},
                    {GGUF_I16, 2, 0xFFFF, -1},
                    {GGUF_U32, 4, 4000000000u, 4000000000},
                    {GGUF_I32, 4, 0xFFFFFFFD, -3},
                    {GGUF_U64, 8, 1ull << 40, 1ll << 40},
                    {GGUF_I64, 8, UINT64_MAX, -1}};
    gguf_builder b = {0};
    char key[16];
    for (int i = 0; i < 8; i++) {
        snprintf(key, sizeof key, "i%d", i);
        add_key(&b, key, integers[i].type);
        put_int(&b.keys, integers[i].bits, integers[i].width);
    }
    add_f32(&b, "f32", 0.1f);
    add_key(&b, "f64", GGUF_F64);
    put_int(&b.keys, 0x3FB999999999999Aull, 8);
    add_key(&b, "yes", GGUF_BOOL);
    put_int(&b.keys, 1, 1);
    add_key(&b, "no", GGUF_BOOL);
    put_int(&b.keys, 0, 1);
    add_string(&b, "text", "größe");
    add_key(&b, "big", GGUF_U64);
    put_int(&b.keys, UINT64_MAX, 8);
    tn_gguf *f = must_open(&b);
    for (int i = 0; i < 8; i++) {
        snprintf(key, sizeof key, "i%d", i);
        assert_int_equal(tn_gguf_get(f, key)->type, TN_JSON_INTEGER);
        assert_true(tn_gguf_get(f, key)->integer == integers[i].value);
    }
    assert_true(tn_gguf_get(f, "f32")->type == TN_JSON_REAL && tn_gguf_get(f, "f32")->real == (double)0.1f);
    assert_true(tn_gguf_get(f, "f64")->real == 0.1);
    assert_true(tn_json_boolean(tn_gguf_get(f, "yes"), false) && !tn_json_boolean(tn_gguf_get(f, "no"), true));
    assert_string_equal(tn_json_string(tn_gguf_get(f, "text"), ""), "größe");
    assert_true(tn_gguf_get(f, "big")->type == TN_JSON_REAL && tn_gguf_get(f, "big")->real > 1.8e19);
    assert_int_equal(tn_gguf_metadata(f)->count, 14);
    assert_null(tn_gguf_get(f, "absent"));
    tn_gguf_close(f);
}

static void arrays_are_read_whole(void **state) {
    (void)state;
    gguf_builder b = {0};
    add_key(&b, "scores", GGUF_ARRAY);
    put_int(&b.keys, GGUF_I32, 4);
    put_int(&b.keys, 1000, 8);
    for (int i = 0; i < 1000; i++) put_int(&b.keys, (uint64_t)(500 - i), 4);
    add_key(&b, "none", GGUF_ARRAY);
    put_int(&b.keys, GGUF_STRING, 4);
    put_int(&b.keys, 0, 8);
    tn_gguf *f = must_open(&b);
    const tn_json *scores = tn_gguf_get(f, "scores");
    assert_int_equal(scores->count, 1000);
    assert_int_equal(tn_json_at(scores, 999)->integer, -499);
    assert_int_equal(tn_gguf_get(f, "none")->count, 0);
    tn_gguf_close(f);
}

static void tensors_are_in_row_major_order_and_where_the_file_has_them(void **state) {
    (void)state;
    gguf_builder b = {0};
    small_file(&b);
    tn_gguf *f = must_open(&b);
    assert_int_equal(tn_gguf_count(f), 2);
    const tn_tensor_info *w = tn_gguf_find(f, "w"), *norm = tn_gguf_at(f, 0);
    assert_int_equal(w->dtype, TN_DTYPE_Q4_0);
    assert_int_equal(w->shape[0], 2); /* ne {32, 2} is torch's [2, 32] */
    assert_int_equal(w->shape[1], 32);
    assert_int_equal(w->bytes, 36);
    assert_int_equal(((const unsigned char *)w->data)[2], 7);
    must_match(norm->data, floats, 16);
    assert_null(tn_gguf_find(f, "v"));
    tn_gguf_close(f);
}

static void alignment_is_the_files_own(void **state) {
    (void)state;
    gguf_builder b = {.alignment = 8, .version = 2};
    add_u32(&b, "general.alignment", 8);
    add_tensor(&b, "x", 1, four + 0, 24, "abcd", 4);
    add_tensor(&b, "y", 1, four + 0, 24, "efgh", 4);
    tn_gguf *f = must_open(&b);
    must_match(tn_gguf_find(f, "y")->data, "efgh", 4);
    assert_int_equal((const char *)tn_gguf_find(f, "y")->data - (const char *)tn_gguf_find(f, "x")->data, 8);
    tn_gguf_close(f);
}

/* ---- Damage -------------------------------------------------------------------------------------- */

static void a_file_cut_anywhere_is_damaged(void **state) {
    (void)state;
    gguf_builder b = {0};
    tn_gguf *file;
    small_file(&b);
    build_gguf(&b, &bytes);
    for (int64_t n = 0; n < bytes.length; n++) {
        must_fail(tn_gguf_open(write_scratch("cut.gguf", bytes.data, n), &file), TN_BAD_DATA, "cut.gguf");
        assert_null(file);
    }
    must(tn_gguf_open(write_scratch("cut.gguf", bytes.data, bytes.length), &file));
    tn_gguf_close(file);
}

static void any_single_byte_may_be_wrong(void **state) {
    (void)state;
    static const unsigned char values[] = {0x00, 0x01, 0x7F, 0x80, 0xFF};
    gguf_builder b = {0};
    tn_gguf *file;
    small_file(&b);
    build_gguf(&b, &bytes);
    for (int64_t i = 0; i < bytes.length; i++) {
        const char was = bytes.data[i];
        for (size_t k = 0; k < sizeof values; k++) {
            bytes.data[i] = (char)values[k];
            tn_status status = tn_gguf_open(write_scratch("wrong.gguf", bytes.data, bytes.length), &file);
            assert_true(status == TN_OK || status == TN_BAD_DATA || status == TN_USAGE);
            tn_gguf_close(file);
        }
        bytes.data[i] = was;
    }
}

static void absurd_counts_are_refused_before_memory_is_taken(void **state) {
    (void)state;
    static const uint64_t absurd[] = {1ull << 62, UINT64_MAX, 1ull << 31, 1000};
    tn_gguf *file;
    for (int i = 0; i < 4; i++) {
        for (int field = 8; field <= 16; field += 8) { /* number of tensors, of keys */
            gguf_builder b = {0};
            small_file(&b);
            build_gguf(&b, &bytes);
            for (int k = 0; k < 8; k++) bytes.data[field + k] = (char)(absurd[i] >> (8 * k));
            must_fail(tn_gguf_open(write_scratch("x.gguf", bytes.data, bytes.length), &file), TN_BAD_DATA,
                      "x.gguf");
        }
        gguf_builder b = {0};
        add_key(&b, "tokens", GGUF_ARRAY);
        put_int(&b.keys, GGUF_STRING, 4);
        put_int(&b.keys, absurd[i], 8);
        must_refuse(&b, TN_BAD_DATA, "array");
        add_key(&b, "text", GGUF_STRING);
        put_int(&b.keys, absurd[i], 8);
        must_refuse(&b, TN_BAD_DATA, "string");
    }
}

static void magic_and_version_are_checked(void **state) {
    (void)state;
    gguf_builder b = {.version = 1};
    must_refuse(&b, TN_BAD_DATA, "GGUF version 1; 2 and 3");
    b.version = 4;
    must_refuse(&b, TN_BAD_DATA, "GGUF version 4");
    b.version = 0x03000000; /* big-endian */
    must_refuse(&b, TN_BAD_DATA, "GGUF version");
    tn_gguf *file;
    must_fail(tn_gguf_open(write_scratch("x.gguf", "GGML____________________", 24), &file), TN_BAD_DATA,
              "magic");
}

static void alignment_must_be_a_power_of_two(void **state) {
    (void)state;
    static const uint32_t wrong[] = {0, 3, 24, 1u << 31};
    for (int i = 0; i < 4; i++) {
        gguf_builder b = {0};
        add_u32(&b, "general.alignment", wrong[i]);
        must_refuse(&b, TN_BAD_DATA, "no power of two");
    }
    gguf_builder b = {0};
    add_string(&b, "general.alignment", "32");
    must_refuse(&b, TN_BAD_DATA, "no power of two");
}

static void keys_and_tensors_have_different_names(void **state) {
    (void)state;
    gguf_builder b = {0};
    add_u32(&b, "a", 1);
    add_u32(&b, "b", 1);
    add_u32(&b, "a", 2);
    must_refuse(&b, TN_BAD_DATA, "the key a stands twice");
    add_tensor(&b, "w", 1, four, 0, floats, 16);
    add_tensor(&b, "w", 1, four, 0, floats, 16);
    must_refuse(&b, TN_BAD_DATA, "w");
    char name[16];
    for (int i = 0; i < 60; i++) { /* enough for the hashed set of keys */
        snprintf(name, sizeof name, "k%d", i % 59);
        add_u32(&b, name, 0);
    }
    must_refuse(&b, TN_BAD_DATA, "the key k0 stands twice");
}

static void names_are_short_utf8(void **state) {
    (void)state;
    gguf_builder b = {0};
    char name[65];
    memset(name, 'n', 64);
    name[64] = '\0';
    add_tensor(&b, name, 1, four, 0, floats, 16);
    must_refuse(&b, TN_BAD_DATA, "less than 64 bytes");
    name[63] = '\0';
    add_tensor(&b, name, 1, four, 0, floats, 16);
    tn_gguf_close(must_open(&b));
    add_tensor(&b, "a\xFF", 1, four, 0, floats, 16);
    must_refuse(&b, TN_BAD_DATA, "UTF-8");
    add_u32(&b, "", 1);
    must_refuse(&b, TN_BAD_DATA, "UTF-8");
}

static void offsets_must_be_the_running_sum(void **state) {
    (void)state;
    gguf_builder b = {0};
    add_tensor(&b, "x", 1, four, 0, floats, 16);
    add_entry(&b, "y", 1, four, 0, 64); /* 32 is where it should be */
    must_refuse(&b, TN_BAD_DATA, "tensor y lies at offset 64; the tensors before it end at 32");
    add_entry(&b, "x", 1, four, 0, 32);
    tn_str_add(&b.data, (const char *)floats, 16);
    must_refuse(&b, TN_BAD_DATA, "tensor x lies at offset 32");
    add_tensor(&b, "x", 1, four, 0, floats, 16);
    add_entry(&b, "y", 1, four, 0, 0); /* an overlap */
    must_refuse(&b, TN_BAD_DATA, "tensor y lies at offset 0");
    add_entry(&b, "x", 1, four, 0, UINT64_MAX);
    must_refuse(&b, TN_BAD_DATA, "tensor x lies at offset -1");
    add_entry(&b, "x", 1, four, 0, 0);
    must_refuse(&b, TN_BAD_DATA, "beyond the end of the file");
}

static void shapes_must_be_possible(void **state) {
    (void)state;
    static const int64_t negative[] = {-4}, enormous[] = {INT64_MAX, INT64_MAX}, part[] = {48, 2},
                         five[5] = {1, 1, 1, 1, 1};
    static const int64_t wide[] = {INT64_MAX / 2};
    gguf_builder b = {0};
    add_entry(&b, "x", 1, negative, 0, 0);
    must_refuse(&b, TN_BAD_DATA, "tensor x: a dimension of");
    add_entry(&b, "x", 2, enormous, 0, 0);
    must_refuse(&b, TN_BAD_DATA, "tensor x: a dimension of");
    add_entry(&b, "x", 1, wide, 0, 0);
    must_refuse(&b, TN_BAD_DATA, "tensor x");
    add_entry(&b, "x", 2, part, 2, 0); /* 96 elements are three blocks, but a row is one and a half */
    must_refuse(&b, TN_BAD_DATA, "rows of 48 elements are no whole q4_0 blocks of 32");
    add_entry(&b, "x", 5, five, 0, 0);
    must_refuse(&b, TN_BAD_DATA, "5 dimensions");
}

static void types_we_lack_are_told_from_types_that_do_not_exist(void **state) {
    (void)state;
    gguf_builder b = {0};
    add_entry(&b, "x", 1, four, 16, 0); /* IQ2_XXS */
    must_refuse(&b, TN_USAGE, "tensor x has the ggml type 16, which is not supported");
    add_entry(&b, "x", 1, four, 999, 0);
    must_refuse(&b, TN_BAD_DATA, "unknown ggml type 999");
    add_key(&b, "k", 13);
    must_refuse(&b, TN_BAD_DATA, "unknown value type");
    add_key(&b, "k", GGUF_ARRAY); /* an array of arrays */
    put_int(&b.keys, GGUF_ARRAY, 4);
    put_int(&b.keys, 1, 8);
    must_refuse(&b, TN_BAD_DATA, "array of an unknown type");
}

static void a_missing_file_is_a_usage_error(void **state) {
    (void)state;
    tn_gguf *file;
    must_fail(tn_gguf_open("/nonexistent.gguf", &file), TN_USAGE, "/nonexistent.gguf");
}

static int clean_up(void **state) {
    (void)state;
    tn_str_free(&bytes);
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_type_is_read),
        cmocka_unit_test(arrays_are_read_whole),
        cmocka_unit_test(tensors_are_in_row_major_order_and_where_the_file_has_them),
        cmocka_unit_test(alignment_is_the_files_own),
        cmocka_unit_test(a_file_cut_anywhere_is_damaged),
        cmocka_unit_test(any_single_byte_may_be_wrong),
        cmocka_unit_test(absurd_counts_are_refused_before_memory_is_taken),
        cmocka_unit_test(magic_and_version_are_checked),
        cmocka_unit_test(alignment_must_be_a_power_of_two),
        cmocka_unit_test(keys_and_tensors_have_different_names),
        cmocka_unit_test(names_are_short_utf8),
        cmocka_unit_test(offsets_must_be_the_running_sum),
        cmocka_unit_test(shapes_must_be_possible),
        cmocka_unit_test(types_we_lack_are_told_from_types_that_do_not_exist),
        cmocka_unit_test(a_missing_file_is_a_usage_error),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
