/* test_fp8.c: E4M3 and its conversions against torch (parity/golden/fp8.safetensors, made by
 * parity/make_fp8_golden.py), rows made of plain values, and scales of every shape that a checkpoint may have,
 * held against the definition: element (i, j) is its code times the scale of its tile. */
#include <math.h>

#include "base/file.h"
#include "format/model_files.h"
#include "format/safetensors.h"
#include "quant/scaled.h"
#include "testing.h"

static tn_safetensors *golden;

static const void *of(const char *name, int64_t count) {
    const tn_tensor_info *t = tn_safetensors_find(golden, name);
    assert_non_null(t);
    assert_int_equal(t->elements, count);
    return t->data;
}

static void every_code_is_what_torch_says(void **state) {
    (void)state;
    const float *values = of("codes.values", 256);
    for (int code = 0; code < 256; code++) {
        const float got = tn_e4m3_to_f32((uint8_t)code);
        if (isnan(values[code])) assert_true(isnan(got));
        else must_match(&got, &values[code], sizeof got); /* the sign of zero too */
        assert_int_equal(tn_f32_to_e4m3(got), code);
    }
}

static void values_get_the_codes_of_torch(void **state) {
    (void)state;
    const tn_tensor_info *x = tn_safetensors_find(golden, "x");
    const uint8_t *codes = of("x.codes", x->elements);
    for (int64_t i = 0; i < x->elements; i++) {
        const float value = ((const float *)x->data)[i];
        if (tn_f32_to_e4m3(value) != codes[i])
            fail_msg("%.9g is %02x, not %02x", value, tn_f32_to_e4m3(value), codes[i]);
    }
    assert_int_equal(tn_f32_to_e4m3(1e9f), 0x7E);
    assert_int_equal(tn_f32_to_e4m3(-INFINITY), 0xFE);
}

static void values_of(const void *user, int64_t first, int64_t count, float *out) {
    memcpy(out, (const float *)user + first, (size_t)count * sizeof *out);
}

static void rows_are_those_of_torch(void **state) {
    (void)state;
    enum { ROWS = 7, COLS = 33 };
    const float *w = of("w", ROWS * COLS);
    tn_scaled_layout layout;
    unsigned char *memory;
    float offset, values[COLS];
    assert_true(tn_scaled_layout_usual(TN_DTYPE_FP8, ROWS, COLS, &layout));
    must(tn_alloc_aligned(&memory, layout.bytes, "test"));
    must(tn_encode_scaled(&layout, values_of, w, memory, &offset));
    tn_scales scales = tn_scaled_at(&layout, memory, offset);
    assert_true(tn_scales_by_row(&scales, COLS));
    must_match(memory, of("w.codes", ROWS * COLS), ROWS * COLS);
    must_match(scales.absmax, of("w.scales", ROWS), ROWS * 4);
    for (int row = 0; row < ROWS; row++) {
        tn_decode_scaled(TN_DTYPE_FP8, memory, &scales, row * COLS, COLS, values);
        for (int i = 0; i < COLS; i++)
            assert_true(fabsf(values[i] - w[row * COLS + i]) <= 16.1f * scales.absmax[row]);
    }
    free(memory);
}

static void what_is_not_finite_is_refused(void **state) {
    (void)state;
    float x[64] = {1, 2}, offset;
    tn_scaled_layout layout;
    unsigned char memory[1024];
    assert_true(tn_scaled_layout_usual(TN_DTYPE_FP8, 2, 32, &layout));
    for (int k = 0; k < 2; k++) {
        x[40] = k ? NAN : INFINITY;
        must_fail(tn_encode_scaled(&layout, values_of, x, memory, &offset), TN_BAD_DATA, "not finite");
    }
}

/* ---- Checkpoints --------------------------------------------------------------------------------------- */

enum { ROWS = 12, COLS = 20 };

/* A directory with one weight and one scale of this name, dtype and shape; scale k is (k + 1) / 8, as E8M0 2^(k
 * % 4). */
typedef struct checkpoint {
    const char *config, *name;
    tn_dtype dtype;
    int rank;
    int64_t shape[2];
    int64_t tile[2]; /* that it means; 0: refused */
    const char *says;
} checkpoint;

static uint8_t codes[ROWS * COLS];
static unsigned char scale_bytes[ROWS * COLS * 4];

static tn_status give(void *user, int64_t declared, const void **bytes) {
    (void)user;
    *bytes = declared ? (const void *)scale_bytes : codes;
    return TN_OK;
}

static float scale_of(const checkpoint *c, int64_t k) {
    const bool power = c->dtype == TN_DTYPE_U8 || c->dtype == TN_DTYPE_F8_E8M0;
    return power ? (float)(1 << k % 4) : (float)(k + 1) / 8;
}

static void write_scales(const checkpoint *c) {
    for (int64_t k = 0; k < ROWS * COLS; k++) {
        const float value = scale_of(c, k);
        const uint16_t half = c->dtype == TN_DTYPE_BF16 ? tn_f32_to_bf16(value) : tn_f32_to_f16(value);
        if (c->dtype == TN_DTYPE_F32) memcpy(scale_bytes + 4 * k, &value, 4);
        else if (tn_dtype_is_float(c->dtype)) memcpy(scale_bytes + 2 * k, &half, 2);
        else scale_bytes[k] = (unsigned char)(127 + k % 4);
    }
}

static const char *new_checkpoint(const checkpoint *c) {
    static const int64_t shape[2] = {ROWS, COLS};
    static int count;
    char name[40], path[60], config[200];
    static char directory[256];
    tn_safetensors_writer *w;
    snprintf(name, sizeof name, "fp8-%d", count++);
    snprintf(directory, sizeof directory, "%s", scratch(name));
    must(tn_make_directories(directory));
    snprintf(path, sizeof path, "%s/config.json", name);
    snprintf(config, sizeof config, "{\"model_type\":\"llama\"%s}", c->config);
    write_scratch(path, config, (int64_t)strlen(config));
    write_scales(c);
    must(tn_safetensors_writer_new(&w));
    must(tn_safetensors_declare(w, "a.weight", TN_DTYPE_F8_E4M3, 2, shape));
    must(tn_safetensors_declare(w, c->name, c->dtype, c->rank, c->shape));
    snprintf(path, sizeof path, "%s/model.safetensors", name);
    must(tn_safetensors_write(w, scratch(path), give, NULL));
    tn_safetensors_writer_free(w);
    return directory;
}

#define TILES(rows, cols) ",\"quantization_config\":{\"weight_block_size\":[" #rows "," #cols "]}"
#define GROUP(tile) \
    ",\"quantization_config\":{\"config_groups\":{\"group_0\":{\"weights\":{\"block_structure\":" tile "}}}}"
#define GROUPS(rows, cols) GROUP("[" #rows "," #cols "]")
static const checkpoint checkpoints[] = {
    {"", "a.weight_scale", TN_DTYPE_F32, 0, {0}, {ROWS, COLS}, NULL},
    {"", "a.weight_scale", TN_DTYPE_BF16, 1, {1}, {ROWS, COLS}, NULL},
    {"", "a.weight_scale_inv", TN_DTYPE_F32, 2, {1, 1}, {ROWS, COLS}, NULL},
    {"", "a.weight_scale", TN_DTYPE_F32, 2, {ROWS, 1}, {1, COLS}, NULL},
    {"", "a.weight_scale", TN_DTYPE_F16, 1, {ROWS}, {1, COLS}, NULL},
    {"", "a.weight_scale", TN_DTYPE_BF16, 2, {1, COLS}, {ROWS, 1}, NULL},
    {TILES(5, 8), "a.weight_scale_inv", TN_DTYPE_F32, 2, {3, 3}, {5, 8}, NULL},
    {GROUPS(8, 6), "a.weight_scale", TN_DTYPE_BF16, 2, {2, 4}, {8, 6}, NULL},
    {GROUP("\"8x6\""), "a.weight_scale", TN_DTYPE_BF16, 2, {2, 4}, {8, 6}, NULL},
    {TILES(9223372036854775807, 8), "a.weight_scale_inv", TN_DTYPE_F32, 2, {1, 3}, {ROWS, 8}, NULL},
    {TILES(5, 9223372036854775807), "a.weight_scale_inv", TN_DTYPE_F32, 2, {3, 1}, {5, COLS}, NULL},
    {TILES(8, 8), "a.weight_scale_inv", TN_DTYPE_U8, 2, {2, 3}, {8, 8}, NULL},
    {TILES(8, 8), "a.weight_scale_inv", TN_DTYPE_F8_E8M0, 2, {2, 3}, {8, 8}, NULL},
    {"", "a.weight_scale", TN_DTYPE_F32, 2, {3, 4}, {4, 5}, NULL}, /* what divides evenly */
    {"", "a.weight_scale", TN_DTYPE_F32, 2, {5, 4}, {0}, "do not fit"},
    {TILES(4, 8), "a.weight_scale", TN_DTYPE_F32, 2, {3, 4}, {0}, "do not fit"},
    {"", "a.weight_scale", TN_DTYPE_F32, 1, {COLS}, {0}, "do not fit"},
    {"", "a.weight_scale", TN_DTYPE_I32, 2, {ROWS, 1}, {0}, "do not fit"},
    {"", "a.weight_scale", TN_DTYPE_F32, 1, {0}, {0}, "do not fit"},
    {"", "b.weight_scale", TN_DTYPE_F32, 2, {ROWS, 1}, {0}, "are missing"},
    {TILES(5, -8), "a.weight_scale", TN_DTYPE_F32, 0, {0}, {0}, "config.json: weight_block_size is no pair"},
    {TILES(5, 8.5), "a.weight_scale", TN_DTYPE_F32, 0, {0}, {0}, "is no pair of sizes"},
    {GROUP("\"8x\""), "a.weight_scale", TN_DTYPE_F32, 0, {0}, {0}, "block_structure is no pair of sizes"},
};

static void must_decode(const checkpoint *c, const tn_model_files *files) {
    const tn_tensor_info *t = tn_model_files_find(files, "a.weight");
    float values[ROWS * COLS];
    const int64_t across = (COLS + c->tile[1] - 1) / c->tile[1];
    assert_int_equal(tn_model_files_count(files), 1);
    assert_int_equal(t->dtype, TN_DTYPE_FP8);
    assert_int_equal(tn_scales_by_row(t->scales, COLS), c->tile[1] == COLS && c->tile[0] != 5);
    for (int64_t first = 0; first < ROWS * COLS; first += 7) { /* in pieces */
        const int64_t count = ROWS * COLS - first < 7 ? ROWS * COLS - first : 7;
        tn_tensor_values(t, first, count, values + first);
    }
    for (int64_t i = 0; i < ROWS * COLS; i++) {
        const int64_t tile = i / COLS / c->tile[0] * across + i % COLS / c->tile[1];
        const float want = tn_e4m3_to_f32(codes[i]) * scale_of(c, tile);
        if (values[i] != want) fail_msg("%s %lld: %g, not %g", c->name, (long long)i, values[i], want);
    }
}

static void scales_of_every_shape_are_found(void **state) {
    (void)state;
    for (int i = 0; i < ROWS * COLS; i++) codes[i] = (uint8_t)(i * 37 % 0x7F);
    for (size_t k = 0; k < sizeof checkpoints / sizeof *checkpoints; k++) {
        const checkpoint *c = &checkpoints[k];
        tn_model_files *files;
        const char *directory = new_checkpoint(c);
        if (c->says) {
            must_fail(tn_model_files_open(directory, true, &files), TN_BAD_DATA, c->says);
            continue;
        }
        must(tn_model_files_open(directory, true, &files));
        must_decode(c, files);
        tn_model_files_close(files);
    }
}

static void scales_that_are_no_numbers_are_refused(void **state) {
    (void)state;
    static const checkpoint c = {"", "a.weight_scale", TN_DTYPE_F8_E8M0, 2, {ROWS, 1}, {0}, NULL};
    tn_model_files *files;
    char path[300];
    tn_str text = {0};
    snprintf(path, sizeof path, "%s/model.safetensors", new_checkpoint(&c));
    must(tn_read_file(path, 1 << 20, &text));
    for (char *at = text.data; (at = memchr(at, 127, (size_t)(text.data + text.length - at))); at++)
        if (memcmp(at, "\x7f\x80\x81\x82", 4) == 0) *at = (char)0xFF; /* 1, 2, 4 and 8 */
    must(tn_save_text(path, text.data, text.length));
    tn_str_free(&text);
    path[strlen(path) - strlen("/model.safetensors")] = 0;
    must_fail(tn_model_files_open(path, true, &files), TN_BAD_DATA, "is not finite");
}

static int open_golden(void **state) {
    (void)state;
    must(tn_safetensors_open("tests/parity/golden/fp8.safetensors", &golden));
    return 0;
}

static int close_golden(void **state) {
    (void)state;
    tn_safetensors_close(golden);
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_is_what_torch_says),
        cmocka_unit_test(values_get_the_codes_of_torch),
        cmocka_unit_test(rows_are_those_of_torch),
        cmocka_unit_test(what_is_not_finite_is_refused),
        cmocka_unit_test(scales_of_every_shape_are_found),
        cmocka_unit_test(scales_that_are_no_numbers_are_refused),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
