/* test_safetensors.c: every rule a header must keep, each broken once, and the writer.
 */
#include "format/safetensors.h"
#include "testing.h"

static void put_length(unsigned char *out, uint64_t length) {
    for (int i = 0; i < 8; i++) out[i] = (unsigned char)(length >> (8 * i));
}

/* A file of this header and `bytes` bytes of data 0, 1, 2, … */
static const char *write_file(const char *header, int64_t bytes) {
    unsigned char file[4096];
    const int64_t length = (int64_t)strlen(header);
    assert_true(8 + length + bytes <= (int64_t)sizeof file);
    put_length(file, (uint64_t)length);
    memcpy(file + 8, header, (size_t)length);
    for (int64_t i = 0; i < bytes; i++) file[8 + length + i] = (unsigned char)i;
    return write_scratch("x.safetensors", file, 8 + length + bytes);
}

static void must_refuse(const char *header, int64_t bytes, const char *part) {
    tn_safetensors *file;
    must_fail(tn_safetensors_open(write_file(header, bytes), &file), TN_BAD_DATA, part);
    assert_non_null(strstr(tn_error_message(), "x.safetensors"));
    assert_true(strlen(tn_error_remedy()) > 0);
    assert_null(file);
}

static tn_safetensors *must_open(const char *header, int64_t bytes) {
    tn_safetensors *file;
    must(tn_safetensors_open(write_file(header, bytes), &file));
    return file;
}

#define TENSOR(name, dtype, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin "," #end "]}"

/* ---- Reading ------------------------------------------------------------------------------------- */

static void a_plain_file_is_read(void **state) {
    (void)state;
    tn_safetensors *f = must_open("{\"__metadata__\":{\"format\":\"pt\"}," TENSOR(
                                      "b", "F32", "2,1", 6, 14) "," TENSOR("a", "BF16", "3", 0, 6) "}   ",
                                  14);
    assert_int_equal(tn_safetensors_count(f), 2);
    assert_string_equal(tn_safetensors_at(f, 0)->name, "a"); /* in the order of the data */
    const tn_tensor_info *b = tn_safetensors_find(f, "b");
    assert_ptr_equal(b, tn_safetensors_at(f, 1));
    assert_int_equal(b->dtype, TN_DTYPE_F32);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->shape[0] * 10 + b->shape[1], 21);
    assert_int_equal(b->elements, 2);
    assert_int_equal(b->bytes, 8);
    assert_int_equal(((const unsigned char *)b->data)[0], 6);
    assert_null(tn_safetensors_find(f, "c"));
    assert_string_equal(tn_json_string(tn_json_get(tn_safetensors_metadata(f), "format"), ""), "pt");
    tn_safetensors_close(f);
}

static void scalars_and_empty_tensors_are_legal(void **state) {
    (void)state;
    tn_safetensors *f =
        must_open("{" TENSOR("scalar", "F32", "", 0, 4) "," TENSOR("none", "I64", "3,0", 4, 4) "," TENSOR(
                      "first", "U8", "0", 0, 0) "," TENSOR("last", "U8", "2", 4, 6) "}",
                  6);
    assert_int_equal(tn_safetensors_find(f, "scalar")->rank, 0);
    assert_int_equal(tn_safetensors_find(f, "scalar")->elements, 1);
    assert_int_equal(tn_safetensors_find(f, "none")->elements, 0);
    assert_int_equal(tn_safetensors_find(f, "none")->shape[0], 3);
    tn_safetensors_close(f);
    f = must_open("{}", 0);
    assert_int_equal(tn_safetensors_count(f), 0);
    assert_null(tn_safetensors_find(f, "x"));
    tn_safetensors_close(f);
}

static void every_plain_dtype_has_its_size(void **state) {
    (void)state;
    static const struct {
        const char *code;
        int bytes;
    } dtypes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1},
                  {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
                  {"F32", 4},  {"C64", 8}, {"F64", 8}, {"I64", 8},     {"U64", 8}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        char header[256];
        snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]}}",
                 dtypes[i].code, 3 * dtypes[i].bytes);
        tn_safetensors *f = must_open(header, 3 * dtypes[i].bytes);
        assert_string_equal(tn_dtype_code(tn_safetensors_at(f, 0)->dtype), dtypes[i].code);
        tn_safetensors_close(f);
    }
    must_refuse("{" TENSOR("x", "F4", "2", 0, 1) "}", 1, "dtype \"F4\"");
    must_refuse("{" TENSOR("x", "Q4_0", "32", 0, 18) "}", 18, "dtype \"Q4_0\""); /* a GGUF type */
}

static void unknown_fields_of_an_entry_and_null_metadata_are_let_pass(void **state) {
    (void)state;
    tn_safetensors *f = must_open(
        "{\"__metadata__\":null,\"x\":{\"more\":1,\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    assert_null(tn_safetensors_metadata(f));
    tn_safetensors_close(f);
}

static void tensors_must_tile_the_data(void **state) {
    (void)state;
    must_refuse("{" TENSOR("x", "U8", "2", 1, 3) "}", 3,
                "tensor x begins at byte 1 of the data, the one before it ends at 0 (a hole)");
    must_refuse("{" TENSOR("x", "U8", "2", 0, 2) "," TENSOR("y", "U8", "1", 3, 4) "}", 4, "(a hole)");
    must_refuse("{" TENSOR("x", "U8", "2", 0, 2) "," TENSOR("y", "U8", "2", 1, 3) "}", 3, "(an overlap)");
    must_refuse("{" TENSOR("x", "U8", "2", 0, 2) "," TENSOR("y", "U8", "2", 0, 2) "}", 2, "(an overlap)");
    must_refuse("{" TENSOR("x", "U8", "2", 0, 2) "}", 3, "1 bytes stand behind the last tensor");
    must_refuse("{}", 1, "behind the last tensor");
    must_refuse("{" TENSOR("x", "U8", "0", 2, 2) "," TENSOR("y", "U8", "1", 0, 1) "}", 2, "(a hole)");
}

static void offsets_shape_and_dtype_must_agree(void **state) {
    (void)state;
    must_refuse("{" TENSOR("x", "F32", "2", 0, 4) "}", 4, "span 4 bytes, which is not what F32 [2] takes");
    must_refuse("{" TENSOR("x", "U8", "3", 0, 2) "}", 2, "U8 [3]");
    must_refuse("{" TENSOR("x", "F32", "", 0, 8) "}", 8, "F32 []");
    must_refuse("{" TENSOR("x", "U8", "4", 0, 4) "}", 3, "lie outside");
    must_refuse("{" TENSOR("x", "U8", "1", 2, 1) "}", 3, "lie outside");
    must_refuse("{" TENSOR("x", "U8", "1", -1, 0) "}", 0, "lie outside");
    must_refuse("{" TENSOR("x", "U8", "1", 0, 9223372036854775807) "}", 1, "lie outside");
    must_refuse("{" TENSOR("x", "U8", "1", 0, 99999999999999999999) "}", 1, "not a pair of integers");
    must_refuse("{" TENSOR("x", "U8", "1", 0, 1.0) "}", 1, "not a pair of integers");
    must_refuse("{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "not a pair of integers");
    must_refuse("{\"x\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "not a pair of integers");
}

static void shapes_must_be_possible(void **state) {
    (void)state;
    must_refuse("{" TENSOR("x", "U8", "-1", 0, 1) "}", 1, "dimension 0");
    must_refuse("{" TENSOR("x", "U8", "1,1.5", 0, 1) "}", 1, "dimension 1");
    must_refuse("{" TENSOR("x", "U8", "\"1\"", 0, 1) "}", 1, "dimension 0");
    must_refuse("{" TENSOR("x", "U8", "4294967296,4294967296", 0, 0) "}", 0, "dimension 1");
    must_refuse("{" TENSOR("x", "F64", "2305843009213693952,2", 0, 0) "}", 0, "which is not what F64");
    must_refuse("{" TENSOR("x", "U8", "1,1,1,1,1,1,1,1,1", 0, 1) "}", 1, "not a list of up to 8 numbers");
    must_refuse("{\"x\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1, "not a list");
    must_refuse("{\"x\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "not a list");
    must_refuse("{\"x\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "dtype \"(none)\"");
    must_refuse("{\"x\":[]}", 0, "not an object");
}

static void a_key_twice_is_refused(void **state) {
    (void)state;
    must_refuse("{" TENSOR("x", "U8", "1", 0, 1) "," TENSOR("x", "U8", "1", 0, 1) "}", 1, "\"x\"");
    must_refuse("{" TENSOR("x", "U8", "1", 0, 1) "," TENSOR("\\u0078", "U8", "1", 1, 2) "}", 2, "\"x\"");
    must_refuse("{" TENSOR("a\\u0000b", "U8", "1", 0, 1) "}", 1, "NUL");
}

static void the_header_must_be_a_json_object_from_its_first_byte(void **state) {
    (void)state;
    must_refuse(" {}", 0, "does not begin with '{'");
    must_refuse("[]", 0, "does not begin with '{'");
    must_refuse("", 0, "does not begin with '{'");
    must_refuse("{} x", 0, "x.safetensors");
    must_refuse("{", 0, "x.safetensors");
    must_refuse("{\"a\xFF\":1}", 0, "UTF-8");
    must_refuse("{\"__metadata__\":[]}", 0, "__metadata__ is not an object");
    must_refuse("{\"__metadata__\":{\"a\":1}}", 0, "a value of __metadata__ is not a string");
    tn_safetensors *file;
    static const unsigned char padded_with_nul[] = {4, 0, 0, 0, 0, 0, 0, 0, '{', '}', 0, 0};
    must_fail(tn_safetensors_open(write_scratch("n.safetensors", padded_with_nul, 12), &file), TN_BAD_DATA,
              "n.safetensors");
}

static void the_length_of_the_header_is_bounded(void **state) {
    (void)state;
    static const uint64_t lengths[] = {100000001, 100000000, 1 << 20, UINT64_MAX, (uint64_t)INT64_MAX};
    static const char *const parts[] = {"more than 100,000,000", "longer than the file", "longer than the file",
                                        "more than 100,000,000", "more than 100,000,000"};
    unsigned char bytes[16] = "........{}";
    tn_safetensors *file;
    for (int i = 0; i < 5; i++) {
        put_length(bytes, lengths[i]);
        must_fail(tn_safetensors_open(write_scratch("l.safetensors", bytes, 10), &file), TN_BAD_DATA, parts[i]);
    }
    must_fail(tn_safetensors_open(write_scratch("l.safetensors", bytes, 0), &file), TN_BAD_DATA,
              "shorter than the 8 bytes");
}

static void a_file_cut_anywhere_is_refused(void **state) {
    (void)state;
    tn_str whole = {0};
    tn_safetensors *file;
    must(tn_read_file(write_file("{" TENSOR("x", "F32", "2", 0, 8) "," TENSOR("y", "U8", "3", 8, 11) "}", 11),
                      4096, &whole));
    for (int64_t n = 0; n < whole.length; n++) {
        must_fail(tn_safetensors_open(write_scratch("cut.safetensors", whole.data, n), &file), TN_BAD_DATA,
                  "cut.safetensors");
        assert_null(file);
    }
    must(tn_safetensors_open(write_scratch("cut.safetensors", whole.data, whole.length), &file));
    tn_safetensors_close(file);
    tn_str_free(&whole);
}

static void a_missing_file_is_a_usage_error(void **state) {
    (void)state;
    tn_safetensors *file;
    must_fail(tn_safetensors_open("/nonexistent.safetensors", &file), TN_USAGE, "/nonexistent.safetensors");
    must_fail(tn_safetensors_open("/tmp", &file), TN_USAGE, "/tmp");
}

/* ---- Writing ------------------------------------------------------------------------------------- */

static const char pattern[] = "abcdefghijklmnopqrstuvwxyz";

static tn_status give(void *user, int64_t declared, const void **bytes) {
    *(int64_t *)user += 1;
    *bytes = pattern + declared;
    return TN_OK;
}

static void what_was_written_is_read_back_in_the_order_of_the_reference_library(void **state) {
    (void)state;
    static const int64_t shape[] = {2, 1};
    static const struct {
        const char *name;
        tn_dtype dtype;
        int rank;
    } tensors[] = {{"b.weight", TN_DTYPE_BF16, 2}, {"a.weight", TN_DTYPE_BF16, 2},
                   {"größe", TN_DTYPE_U8, 1},      {"scalar", TN_DTYPE_F32, 0},
                   {"ids", TN_DTYPE_I64, 1},       {"flag\"\n", TN_DTYPE_BOOL, 1}};
    static const char *const order[] = {"ids", "scalar", "a.weight", "b.weight", "größe", "flag\"\n"};
    tn_safetensors_writer *w;
    tn_safetensors *f;
    int64_t calls = 0;
    must(tn_safetensors_writer_new(&w));
    must(tn_safetensors_metadata_add(w, "format", "pt"));
    must(tn_safetensors_metadata_add(w, "a\"b", "c\\d"));
    for (int i = 0; i < 6; i++)
        must(tn_safetensors_declare(w, tensors[i].name, tensors[i].dtype, tensors[i].rank, shape));
    must(tn_safetensors_write(w, scratch("w.safetensors"), give, &calls));
    tn_safetensors_writer_free(w);
    assert_int_equal(calls, 6);
    must(tn_safetensors_open(scratch("w.safetensors"), &f));
    assert_int_equal(tn_safetensors_count(f), 6);
    assert_string_equal(tn_json_string(tn_json_get(tn_safetensors_metadata(f), "a\"b"), ""), "c\\d");
    for (int i = 0; i < 6; i++) {
        assert_string_equal(tn_safetensors_at(f, i)->name, order[i]);
        const tn_tensor_info *t = tn_safetensors_find(f, tensors[i].name);
        assert_int_equal(t->dtype, tensors[i].dtype);
        assert_int_equal(t->rank, tensors[i].rank);
        must_match(t->data, pattern + i, t->bytes);
    }
    tn_safetensors_close(f);
    tn_str text = {0};
    must(tn_read_file(scratch("w.safetensors"), 1 << 20, &text));
    assert_int_equal((unsigned char)text.data[0] % 8, 0); /* data begins at a multiple of 8 */
    tn_str_free(&text);
}

static void a_file_without_tensors_is_written_and_read(void **state) {
    (void)state;
    static const int64_t none[] = {0, 4};
    tn_safetensors_writer *w;
    tn_safetensors *f;
    int64_t calls = 0;
    must(tn_safetensors_writer_new(&w));
    must(tn_safetensors_write(w, scratch("e.safetensors"), give, &calls));
    must(tn_safetensors_declare(w, "nothing", TN_DTYPE_F32, 2, none));
    must(tn_safetensors_write(w, scratch("e2.safetensors"), give, &calls));
    tn_safetensors_writer_free(w);
    must(tn_safetensors_open(scratch("e.safetensors"), &f));
    assert_int_equal(tn_safetensors_count(f), 0);
    tn_safetensors_close(f);
    must(tn_safetensors_open(scratch("e2.safetensors"), &f));
    assert_int_equal(tn_safetensors_at(f, 0)->shape[1], 4);
    tn_safetensors_close(f);
}

static void what_no_reader_would_take_is_not_written(void **state) {
    (void)state;
    static const int64_t shape[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, huge[] = {INT64_MAX, 4};
    tn_safetensors_writer *w;
    int64_t calls = 0;
    must(tn_safetensors_writer_new(&w));
    must_fail(tn_safetensors_declare(w, "x", TN_DTYPE_U8, 9, shape), TN_FAILED, "9 dimensions");
    must_fail(tn_safetensors_declare(w, "x", TN_DTYPE_U8, 2, huge), TN_FAILED, "too large");
    must_fail(tn_safetensors_declare(w, "x", TN_DTYPE_Q4_0, 1, shape), TN_FAILED, "q4_0");
    must(tn_safetensors_declare(w, "x", TN_DTYPE_U8, 1, shape));
    must(tn_safetensors_declare(w, "y", TN_DTYPE_U8, 1, shape));
    must(tn_safetensors_declare(w, "x", TN_DTYPE_F32, 1, shape));
    must_fail(tn_safetensors_write(w, scratch("twice.safetensors"), give, &calls), TN_FAILED,
              "x is declared twice");
    assert_false(tn_is_file(scratch("twice.safetensors")));
    tn_safetensors_writer_free(w);
}

static tn_status fail_at_second(void *user, int64_t declared, const void **bytes) {
    *bytes = pattern;
    return declared == 1 ? tn_fail(TN_NUMERIC, "%s", (const char *)user) : TN_OK;
}

static void a_failed_write_leaves_the_old_file(void **state) {
    (void)state;
    static const int64_t shape[] = {1};
    char reason[] = "a NaN in the second tensor";
    tn_safetensors_writer *w;
    tn_str text = {0};
    write_scratch("old.safetensors", "the old file", 12);
    must(tn_safetensors_writer_new(&w));
    must(tn_safetensors_declare(w, "x", TN_DTYPE_U8, 1, shape));
    must(tn_safetensors_declare(w, "y", TN_DTYPE_U8, 1, shape));
    must_fail(tn_safetensors_write(w, scratch("old.safetensors"), fail_at_second, reason), TN_NUMERIC, reason);
    must_fail(tn_safetensors_write(w, "/nonexistent/x.safetensors", give, &(int64_t){0}), TN_USAGE,
              "/nonexistent");
    tn_safetensors_writer_free(w);
    must(tn_read_file(scratch("old.safetensors"), 100, &text));
    assert_string_equal(text.data, "the old file");
    tn_str_free(&text);
}

static int clean_up(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_file_is_read),
        cmocka_unit_test(scalars_and_empty_tensors_are_legal),
        cmocka_unit_test(every_plain_dtype_has_its_size),
        cmocka_unit_test(unknown_fields_of_an_entry_and_null_metadata_are_let_pass),
        cmocka_unit_test(tensors_must_tile_the_data),
        cmocka_unit_test(offsets_shape_and_dtype_must_agree),
        cmocka_unit_test(shapes_must_be_possible),
        cmocka_unit_test(a_key_twice_is_refused),
        cmocka_unit_test(the_header_must_be_a_json_object_from_its_first_byte),
        cmocka_unit_test(the_length_of_the_header_is_bounded),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(a_missing_file_is_a_usage_error),
        cmocka_unit_test(what_was_written_is_read_back_in_the_order_of_the_reference_library),
        cmocka_unit_test(a_file_without_tensors_is_written_and_read),
        cmocka_unit_test(what_no_reader_would_take_is_not_written),
        cmocka_unit_test(a_failed_write_leaves_the_old_file),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
