/* scaled.c: code books, layouts and decoding of formats with scales apart. Codes of four bits are two a byte,
 * the even element in the high nibble.
 */
#include "quant/scaled.h"

#include "base/mem.h"
#include "quant/quant.h"

float tn_scale_of(tn_dtype dtype, const tn_scales *s, int64_t b) {
    float scale = s->absmax ? s->absmax[b] : s->map[s->codes[b]] * s->nested[b / s->nested_block] + s->offset;
    return dtype == TN_DTYPE_LLM_INT8 ? scale * (1.0f / 127.0f) : scale;
}

void tn_decode_scaled(tn_dtype dtype, const void *codes, const tn_scales *scales, int64_t first, int64_t count,
                      float *out) {
    const float *book = tn_dtype_code_book(dtype);
    const uint8_t *bytes = codes;
    for (int64_t i = first, end; i < first + count; i = end) {
        float scale = tn_scale_of(dtype, scales, tn_scales_block(scales, i, &end));
        if (end > first + count) end = first + count;
        if (dtype == TN_DTYPE_LLM_INT8)
            for (int64_t k = i; k < end; k++) out[k - first] = (float)(int8_t)bytes[k] * scale;
        else if (dtype == TN_DTYPE_FP8)
            for (int64_t k = i; k < end; k++) out[k - first] = tn_e4m3_to_f32(bytes[k]) * scale;
        else
            for (int64_t k = i; k < end; k++)
                out[k - first] = book[k % 2 ? bytes[k / 2] & 15 : bytes[k / 2] >> 4] * scale;
    }
}

void tn_tensor_values(const tn_tensor_info *t, int64_t first, int64_t count, float *out) {
    if (tn_dtype_has_scales(t->dtype)) tn_decode_scaled(t->dtype, t->data, t->scales, first, count, out);
    else tn_dequantize(t->dtype, t->data, first, count, out);
}

/* ---- Layout ------------------------------------------------------------------------------------------ */

enum { ALIGNMENT = 64 };

/* Puts `bytes` behind what is there; false on overflow. */
static bool append(int64_t *end, int64_t bytes, int64_t *at) {
    *at = *end;
    if (!tn_add(*end, bytes, end) || !tn_add(*end, ALIGNMENT - 1, end)) return false;
    *end -= *end % ALIGNMENT;
    return true;
}

bool tn_scaled_layout_of(tn_dtype dtype, int64_t rows, int64_t cols, int64_t block, int64_t nested_block,
                         tn_scaled_layout *l) {
    int64_t codes, at;
    if (dtype == TN_DTYPE_FP8) return block == cols && tn_scaled_layout_tiles(rows, cols, 1, block, l);
    *l = (tn_scaled_layout){.dtype = dtype, .block = block, .nested_block = nested_block};
    if (block <= 0 || !tn_mul(rows, cols, &l->elements) || !tn_dtype_bytes(dtype, l->elements, &codes))
        return false;
    l->blocks = l->elements / block + (l->elements % block > 0);
    bool fits = append(&l->bytes, codes, &at);
    if (nested_block == 0) return fits && append(&l->bytes, l->blocks * 4, &l->absmax);
    l->nested_blocks = l->blocks / nested_block + (l->blocks % nested_block > 0);
    return fits && append(&l->bytes, l->blocks, &l->absmax) &&
           append(&l->bytes, l->nested_blocks * 4, &l->nested) && append(&l->bytes, 256 * 4, &l->map);
}

bool tn_scaled_layout_tiles(int64_t rows, int64_t cols, int64_t tile, int64_t block, tn_scaled_layout *l) {
    int64_t at;
    *l = (tn_scaled_layout){.dtype = TN_DTYPE_FP8, .block = block, .tile = tile, .cols = cols};
    if (block <= 0 || tile <= 0 || rows < 0 || cols < 0 || !tn_mul(rows, cols, &l->elements)) return false;
    l->blocks = (rows / tile + (rows % tile > 0)) * (cols / block + (cols % block > 0));
    return append(&l->bytes, l->elements, &at) && append(&l->bytes, l->blocks * 4, &l->absmax);
}

bool tn_scaled_layout_usual(tn_dtype dtype, int64_t rows, int64_t cols, tn_scaled_layout *layout) {
    bool rowwise = dtype == TN_DTYPE_LLM_INT8 || dtype == TN_DTYPE_FP8;
    return tn_scaled_layout_of(dtype, rows, cols, rowwise ? cols : 64, rowwise ? 0 : 256, layout);
}

tn_scales tn_scaled_at(const tn_scaled_layout *l, const void *memory, float offset) {
    const unsigned char *base = memory;
    tn_scales s = {
        .block = l->block, .tile = l->tile, .cols = l->cols, .nested_block = l->nested_block, .offset = offset};
    if (l->nested_block == 0) {
        s.absmax = (const float *)(const void *)(base + l->absmax);
        return s;
    }
    s.codes = base + l->absmax;
    s.nested = (const float *)(const void *)(base + l->nested);
    s.map = (const float *)(const void *)(base + l->map);
    return s;
}
