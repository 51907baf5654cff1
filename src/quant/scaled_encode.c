/* scaled_encode.c: quantising to bitsandbytes' formats with the decisions of its CUDA library
 * (csrc/kernels.cu): values are multiplied by the reciprocal of their block's largest magnitude, and what is
 * equal to a threshold stays below it. An all-zero block makes 0 · inf, a NaN that is above no threshold: code
 * 0. FP8 is what torch makes of a row divided by its scale, absmax / 448.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/integer.h"
#include "base/mem.h"
#include "quant/dynamic_map.h"
#include "quant/scaled.h"

enum { PIECE = 1024 /* values held at a time */ };

/* dQuantizeNF4: a code is the number of thresholds below the value. */
static const float nf4_thresholds[15] = {-0.8480964004993439f,   -0.6106329262256622f,  -0.4599952697753906f,
                                         -0.33967943489551544f,  -0.23460740596055984f, -0.13791173323988914f,
                                         -0.045525018125772476f, 0.03979014977812767f,  0.1202552504837513f,
                                         0.2035212516784668f,    0.2920137718319893f,   0.3893125355243683f,
                                         0.5016634166240692f,    0.6427869200706482f,   0.8614784181118011f};

/* dQuantizeFP4: the same of magnitudes; codes[n] has n thresholds below it. */
static const float fp4_thresholds[7] = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f,
                                        0.4166667f,  0.583333f,  0.8333333f};
static const uint8_t fp4_codes[8] = {0, 1, 6, 7, 4, 5, 2, 3};

static void encode_nf4(int64_t count, const float *values, float inverse, uint8_t *codes) {
    for (int64_t i = 0; i < count; i++) {
        float u = values[i] * inverse;
        int above = 0;
        for (int t = 0; t < 15; t++) above += u > nf4_thresholds[t];
        codes[i] = (uint8_t)above;
    }
}

static void encode_fp4(int64_t count, const float *values, float inverse, uint8_t *codes) {
    for (int64_t i = 0; i < count; i++) {
        float u = values[i] * inverse, magnitude = fabsf(u);
        int above = 0;
        for (int t = 0; t < 7; t++) above += magnitude > fp4_thresholds[t];
        codes[i] = (uint8_t)(fp4_codes[above] | (u < 0 ? 8 : 0));
    }
}

/* int8_vectorwise_quant: round half to even, which adding 1.5 · 2^23 does; a row of zeros to zeros. */
static void encode_int8(int64_t count, const float *values, float factor, int8_t *codes) {
    const float shift = 12582912.0f;
    for (int64_t i = 0; i < count; i++) codes[i] = (int8_t)(int)(values[i] * factor + shift - shift);
}

float tn_fp8_scale(float absmax) {
    float scale = absmax / 448.0f;
    return scale >= FLT_MIN ? scale : 0;
}

uint8_t tn_fp8_code(float value, float scale) { return scale > 0 ? tn_f32_to_e4m3(value / scale) : 0; }

/* Largest magnitude; infinite where a value is not finite. */
static float largest_magnitude(int64_t count, const float *values) {
    float largest = 0;
    bool finite = true;
    for (int64_t i = 0; i < count; i++) {
        float a = fabsf(values[i]);
        finite = finite && a <= FLT_MAX;
        largest = a > largest ? a : largest;
    }
    return finite ? largest : INFINITY;
}

/* Codes of elements first … first+count-1 (first even, or of whole bytes) to their place. */
static void put_codes(const tn_scaled_layout *l, int64_t first, int64_t count, const float *values,
                      float absmax, uint8_t *memory) {
    uint8_t codes[PIECE];
    const uint8_t rest = l->dtype == TN_DTYPE_NF4 && absmax > 0 ? 7 : 0; /* of 0, behind an odd end */
    if (l->dtype == TN_DTYPE_LLM_INT8) {
        encode_int8(count, values, absmax > 0 ? 127.0f / absmax : 0, (int8_t *)memory + first);
        return;
    }
    if (l->dtype == TN_DTYPE_FP8) {
        for (int64_t i = 0; i < count; i++) memory[first + i] = tn_fp8_code(values[i], tn_fp8_scale(absmax));
        return;
    }
    if (l->dtype == TN_DTYPE_NF4) encode_nf4(count, values, 1.0f / absmax, codes);
    else encode_fp4(count, values, 1.0f / absmax, codes);
    for (int64_t i = 0; i < count; i += 2)
        memory[(first + i) / 2] = (uint8_t)(codes[i] << 4 | (i + 1 < count ? codes[i + 1] : rest));
}

/* One block: its scale, and its codes into memory. A block of more than a piece is read twice. */
static float encode_block(const tn_scaled_layout *l, int64_t b, tn_value_source *source, const void *user,
                          uint8_t *memory) {
    float values[PIECE], absmax = 0;
    int64_t first = b * l->block, end = tn_min(first + l->block, l->elements);
    for (int64_t i = first; i < end; i += PIECE) {
        int64_t count = tn_min(PIECE, end - i);
        source(user, i, count, values);
        absmax = fmaxf(absmax, largest_magnitude(count, values));
    }
    for (int64_t i = first; i < end; i += PIECE) {
        int64_t count = tn_min(PIECE, end - i);
        if (end - first > PIECE) source(user, i, count, values);
        put_codes(l, i, count, values, absmax, memory);
    }
    return absmax;
}

/* ---- Scales of scales -------------------------------------------------------------------------------- */

/* dQuantize: a search from the middle in halving steps, then the nearer of the value met and its neighbour; the
 * middle between them stays with the value met. */
static uint8_t nearest_code(const float map[256], float x) {
    int pivot = 127, above = 255, below = 0;
    for (int step = 64; step > 0; step /= 2) {
        if (x > map[pivot]) below = pivot, pivot += step;
        else above = pivot, pivot -= step;
    }
    if (x > map[pivot]) return (uint8_t)(x > (map[above] + map[pivot]) * 0.5f ? above : pivot);
    return (uint8_t)(x < (map[below] + map[pivot]) * 0.5f ? below : pivot);
}

void tn_encode_nested(int64_t blocks, int64_t nested_block, const float *absmax, float offset, uint8_t *codes,
                      float *nested) {
    const float *map = tn_dynamic_map(true);
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < blocks; first += nested_block) {
        int64_t end = tn_min(first + nested_block, blocks);
        float largest = 0;
        for (int64_t b = first; b < end; b++) largest = fmaxf(largest, fabsf(absmax[b] - offset));
        nested[first / nested_block] = largest;
        for (int64_t b = first; b < end; b++)
            codes[b] = nearest_code(map, (absmax[b] - offset) * (1.0f / largest));
    }
}

static void nest(const tn_scaled_layout *l, const float *absmax, unsigned char *memory, float *offset) {
    double sum = 0;
    for (int64_t b = 0; b < l->blocks; b++) sum += absmax[b];
    *offset = l->blocks ? (float)(sum / (double)l->blocks) : 0;
    tn_encode_nested(l->blocks, l->nested_block, absmax, *offset, memory + l->absmax,
                     (float *)(void *)(memory + l->nested));
    memcpy(memory + l->map, tn_dynamic_map(true), TN_DYNAMIC_VALUES * sizeof(float));
}

tn_status tn_encode_scaled(const tn_scaled_layout *l, tn_value_source *values, const void *user, void *memory,
                           float *offset) {
    float *absmax = (float *)(void *)((unsigned char *)memory + l->absmax), *taken = NULL;
    bool finite = true;
    *offset = 0;
    if (l->nested_block) {
        tn_status status = tn_alloc(&taken, l->blocks, (int64_t)sizeof *taken, "scales");
        if (status != TN_OK) return status;
        absmax = taken;
    }
#pragma omp parallel for schedule(static) reduction(&& : finite)
    for (int64_t b = 0; b < l->blocks; b++) {
        absmax[b] = encode_block(l, b, values, user, memory);
        finite = finite && absmax[b] <= FLT_MAX;
        if (l->dtype == TN_DTYPE_FP8) absmax[b] = tn_fp8_scale(absmax[b]);
    }
    if (taken && finite) nest(l, absmax, memory, offset);
    free(taken);
    return finite ? TN_OK : tn_fail(TN_BAD_DATA, "a value is not finite");
}
