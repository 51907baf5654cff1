/* test_scaled.c: NF4, FP4 and LLM.int8 against the answers of bitsandbytes' CUDA library
 * (parity/golden/scaled.safetensors, made by parity/make_scaled_golden.py; the whole reference file where it is
 * at hand), byte for byte. */
#include <math.h>

#include "base/file.h"
#include "format/safetensors.h"
#include "quant/dynamic_map.h"
#include "quant/quant.h"
#include "quant/scaled.h"
#include "testing.h"

enum { TAGS = 5 };
static const char *const tags[TAGS] = {"fp32_short", "fp32_odd", "fp16", "bf16_zero_blocks", "fp32_big"};
static const tn_dtype formats[] = {TN_DTYPE_NF4, TN_DTYPE_FP4};

static tn_safetensors *golden;

static int open_golden(void **state) {
    (void)state;
    const char *whole = "../shared/reference/bnb_cuda.safetensors";
    must(tn_safetensors_open(tn_is_file(whole) ? whole : "tests/parity/golden/scaled.safetensors", &golden));
    return 0;
}

static int close_golden(void **state) {
    (void)state;
    tn_safetensors_close(golden);
    return 0;
}

/* TAG.FORMAT.WHAT; NULL where the file has not got it. */
static const tn_tensor_info *of(const char *tag, tn_dtype format, const char *what) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s.%s", tag, tn_dtype_name(format), what);
    return tn_safetensors_find(golden, name);
}

static const tn_tensor_info *input_of(const char *tag) {
    char name[96];
    snprintf(name, sizeof name, "%s.x", tag);
    return tn_safetensors_find(golden, name);
}

static void values_of(const void *user, int64_t first, int64_t count, float *out) {
    tn_tensor_values(user, first, count, out);
}

typedef struct encoded {
    tn_scaled_layout layout;
    unsigned char *memory;
    tn_scales scales;
} encoded;

static encoded encode(tn_dtype format, const tn_tensor_info *x, int64_t rows, int64_t cols, int64_t block,
                      int64_t nested_block) {
    encoded e;
    float offset;
    assert_true(tn_scaled_layout_of(format, rows, cols, block, nested_block, &e.layout));
    must(tn_alloc_aligned(&e.memory, e.layout.bytes + 1, "test"));
    memset(e.memory, 0xAA, (size_t)e.layout.bytes + 1);
    must(tn_encode_scaled(&e.layout, values_of, x, e.memory, &offset));
    assert_int_equal(e.memory[e.layout.bytes], 0xAA);
    e.scales = tn_scaled_at(&e.layout, e.memory, offset);
    return e;
}

static void must_decode_to(tn_dtype format, const void *codes, const tn_scales *scales,
                           const tn_tensor_info *decoded) {
    if (!decoded) return;
    float *got = malloc((size_t)decoded->elements * sizeof *got), *want = malloc((size_t)decoded->elements * 4);
    uint16_t *rounded = malloc((size_t)decoded->elements * 2);
    tn_decode_scaled(format, codes, scales, 0, decoded->elements, got);
    tn_dequantize(decoded->dtype, decoded->data, 0, decoded->elements, want);
    if (decoded->dtype != TN_DTYPE_F32) {
        must(tn_quantize(decoded->dtype, got, decoded->elements, rounded));
        tn_dequantize(decoded->dtype, rounded, 0, decoded->elements, got);
    }
    for (int64_t i = 0; i < decoded->elements; i++)
        if (got[i] != want[i])
            fail_msg("%s: value %lld is %.9g, not %.9g", decoded->name, (long long)i, got[i], want[i]);
    free(got), free(want), free(rounded);
}

static void codes_and_scales_are_those_of_bitsandbytes(void **state) {
    (void)state;
    int tested = 0;
    for (int t = 0; t < TAGS; t++)
        for (int f = 0; f < 2; f++) {
            const tn_tensor_info *x = input_of(tags[t]), *codes = of(tags[t], formats[f], "codes");
            if (!x) continue;
            encoded e = encode(formats[f], x, 1, x->elements, 64, 0);
            must_match(e.memory, codes->data, codes->bytes);
            must_match(e.scales.absmax, of(tags[t], formats[f], "absmax")->data, 4 * e.layout.blocks);
            must_decode_to(formats[f], e.memory, &e.scales, of(tags[t], formats[f], "decoded"));
            free(e.memory);
            tested++;
        }
    assert_true(tested >= 8);
}

/* The mean is torch's own sum; given it, everything is the same to the bit. */
static void nested_scales_are_those_of_bitsandbytes(void **state) {
    (void)state;
    for (int t = 0; t < TAGS; t++)
        for (int f = 0; f < 2; f++) {
            const tn_tensor_info *x = input_of(tags[t]);
            if (!x) continue;
            const tn_tensor_info *nested = of(tags[t], formats[f], "nested.absmax2");
            const tn_tensor_info *codes = of(tags[t], formats[f], "nested.absmax_codes");
            const float offset = *(const float *)of(tags[t], formats[f], "nested.offset")->data;
            encoded e = encode(formats[f], x, 1, x->elements, 64, 256);
            if (!(fabsf(e.scales.offset - offset) <= 4 * (nextafterf(offset, INFINITY) - offset)))
                fail_msg("%s: offset %.9g, not %.9g", tags[t], e.scales.offset, offset);
            tn_encode_nested(e.layout.blocks, 256, of(tags[t], formats[f], "absmax")->data, offset,
                             e.memory + e.layout.absmax, (float *)(void *)(e.memory + e.layout.nested));
            must_match(e.scales.nested, nested->data, nested->bytes);
            must_match(e.scales.codes, codes->data, codes->bytes);
            e.scales.offset = offset;
            must_decode_to(formats[f], e.memory, &e.scales, of(tags[t], formats[f], "nested.decoded"));
            free(e.memory);
        }
}

static void the_map_of_scales_is_that_of_bitsandbytes(void **state) {
    (void)state;
    must_match(tn_dynamic_map(true), tn_safetensors_find(golden, "map.signed")->data, 256 * sizeof(float));
}

static void int8_rows_are_those_of_bitsandbytes(void **state) {
    (void)state;
    const tn_tensor_info *w = tn_safetensors_find(golden, "int8.w");
    encoded e = encode(TN_DTYPE_LLM_INT8, w, w->shape[0], w->shape[1], w->shape[1], 0);
    must_match(e.scales.absmax, tn_safetensors_find(golden, "int8.SCB")->data, 4 * w->shape[0]);
    must_match(e.memory, tn_safetensors_find(golden, "int8.CB")->data, w->elements);
    float row[96];
    tn_decode_scaled(TN_DTYPE_LLM_INT8, e.memory, &e.scales, 5 * 96, 96, row);
    for (int i = 0; i < 96; i++)
        assert_true(row[i] == (float)(int8_t)e.memory[5 * 96 + i] * (e.scales.absmax[5] * (1.0f / 127.0f)));
    free(e.memory);
}

/* x[i] = (((73·i + 19) mod 257) − 128) / 64, one block. */
static void one_block_by_hand(void **state) {
    (void)state;
    static const char *const hex[] = {"04af27d04ae27d04ae16d03ae16c039e16c039e16c039e15cf39e15cf28e15bf",
                                      "bf73d95bc73a95bc72a95bc72a95bc62ae5bc62ae5bd62ae53d62ae43d62ae43"};
    float x[64];
    const tn_tensor_info tensor = {.dtype = TN_DTYPE_F32, .elements = 64, .data = x};
    for (int i = 0; i < 64; i++) x[i] = (float)((73 * i + 19) % 257 - 128) / 64.0f;
    for (int f = 0; f < 2; f++) {
        encoded e = encode(formats[f], &tensor, 1, 64, 64, 0);
        char got[65];
        for (int i = 0; i < 32; i++) snprintf(got + 2 * i, 3, "%02x", e.memory[i]);
        assert_string_equal(got, hex[f]);
        assert_true(e.scales.absmax[0] == 1.984375f);
        free(e.memory);
    }
}

/* Blocks cross the ends of rows, and any run of elements can be decoded on its own. */
static void pieces_decode_like_the_whole(void **state) {
    (void)state;
    enum { ROWS = 7, COLS = 75, N = ROWS * COLS };
    static const tn_dtype all[] = {TN_DTYPE_NF4, TN_DTYPE_FP4, TN_DTYPE_LLM_INT8};
    float x[N], whole[N], piece[N];
    const tn_tensor_info tensor = {.dtype = TN_DTYPE_F32, .elements = N, .data = x};
    for (int i = 0; i < N; i++) x[i] = sinf((float)i * 1.7f) * (float)(1 + i / 60);
    for (int f = 0; f < 3; f++)
        for (int nested = 0; nested < (f < 2 ? 2 : 1); nested++) {
            encoded e = encode(all[f], &tensor, ROWS, COLS, f < 2 ? 32 : COLS, nested ? 4 : 0);
            tn_decode_scaled(all[f], e.memory, &e.scales, 0, N, whole);
            for (int first = 0; first < N; first += 13) {
                int count = N - first < 101 ? N - first : 101;
                tn_decode_scaled(all[f], e.memory, &e.scales, first, count, piece);
                must_match(piece, whole + first, 4 * count);
            }
            double error = 0, norm = 0;
            for (int i = 0; i < N; i++) error += pow(whole[i] - x[i], 2), norm += pow(x[i], 2);
            assert_true(sqrt(error / norm) < (f == 0 ? 0.12 : f == 1 ? 0.2 : 0.01));
            free(e.memory);
        }
}

/* Blocks and rows longer than what the encoder holds at a time. */
static void long_blocks_are_encoded_in_pieces(void **state) {
    (void)state;
    enum { N = 3 * 4096 + 17 };
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    const tn_tensor_info tensor = {.dtype = TN_DTYPE_F32, .elements = N, .data = x};
    for (int i = 0; i < N; i++) x[i] = cosf((float)i) * (float)(i % 4096 == 4000 ? 2 : 1);
    for (int f = 0; f < 2; f++) {
        tn_dtype dtype = f ? TN_DTYPE_LLM_INT8 : TN_DTYPE_NF4;
        encoded e = encode(dtype, &tensor, 1, N, f ? N : 4096, 0);
        for (int64_t b = 0; b < e.layout.blocks; b++) {
            float largest = 0;
            for (int64_t i = b * e.layout.block; i < N && i < (b + 1) * e.layout.block; i++)
                largest = fmaxf(largest, fabsf(x[i]));
            assert_true(e.scales.absmax[b] == largest);
        }
        tn_decode_scaled(dtype, e.memory, &e.scales, 0, N, y);
        for (int i = 0; i < N; i++) assert_true(fabsf(x[i] - y[i]) < (f ? 0.01f : 0.4f));
        free(e.memory);
    }
    free(x), free(y);
}

static void what_is_not_finite_is_refused(void **state) {
    (void)state;
    static const tn_dtype all[] = {TN_DTYPE_NF4, TN_DTYPE_FP4, TN_DTYPE_LLM_INT8};
    float x[128] = {1, 2, 3}, offset;
    const tn_tensor_info tensor = {.dtype = TN_DTYPE_F32, .elements = 128, .data = x};
    unsigned char *memory;
    must(tn_alloc_aligned(&memory, 4096, "test"));
    for (int f = 0; f < 3; f++)
        for (int k = 0; k < 2; k++) {
            tn_scaled_layout layout;
            x[100] = k ? NAN : -INFINITY;
            assert_true(tn_scaled_layout_usual(all[f], 2, 64, &layout));
            must_fail(tn_encode_scaled(&layout, values_of, &tensor, memory, &offset), TN_BAD_DATA,
                      "not finite");
        }
    free(memory);
}

static void sizes_are_counted_and_overflow_is_seen(void **state) {
    (void)state;
    tn_scaled_layout l;
    int64_t bytes;
    assert_true(tn_dtype_bytes(TN_DTYPE_NF4, 7, &bytes));
    assert_int_equal(bytes, 4);
    /* 0.5159 bytes a weight: codes, a byte for 64, and four for 16,384 */
    assert_true(tn_scaled_layout_usual(TN_DTYPE_NF4, 4096, 4096, &l));
    assert_int_equal(l.bytes, (1 << 23) + (1 << 18) + 4096 + 1024);
    assert_true(tn_scaled_layout_usual(TN_DTYPE_LLM_INT8, 4096, 1024, &l));
    assert_int_equal(l.bytes, (1 << 22) + 4 * 4096);
    assert_false(tn_scaled_layout_usual(TN_DTYPE_NF4, INT64_MAX / 2, 4, &l));
    assert_false(tn_scaled_layout_of(TN_DTYPE_LLM_INT8, INT64_MAX - 10, 1, 1, 0, &l));
    assert_false(tn_scaled_layout_of(TN_DTYPE_NF4, 8, 8, 0, 0, &l));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_and_scales_are_those_of_bitsandbytes),
        cmocka_unit_test(nested_scales_are_those_of_bitsandbytes),
        cmocka_unit_test(the_map_of_scales_is_that_of_bitsandbytes),
        cmocka_unit_test(int8_rows_are_those_of_bitsandbytes),
        cmocka_unit_test(one_block_by_hand),
        cmocka_unit_test(pieces_decode_like_the_whole),
        cmocka_unit_test(long_blocks_are_encoded_in_pieces),
        cmocka_unit_test(what_is_not_finite_is_refused),
        cmocka_unit_test(sizes_are_counted_and_overflow_is_seen),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
