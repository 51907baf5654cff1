/* tensor.c: a tensor's shape as text, and which scale belongs to what. */
#include "format/tensor.h"

#include <stdio.h>

int64_t tn_scales_block(const tn_scales *s, int64_t i, int64_t *end) {
    if (!s->tile) {
        int64_t b = i / s->block;
        *end = (b + 1) * s->block;
        return b;
    }
    int64_t row = i / s->cols, column = i % s->cols / s->block, across = (s->cols + s->block - 1) / s->block;
    *end = row * s->cols + (column + 1 < across ? (column + 1) * s->block : s->cols);
    return row / s->tile * across + column;
}

bool tn_scales_by_row(const tn_scales *s, int64_t cols) {
    return s->absmax && s->block == cols && (!s->tile || s->tile == 1);
}

int64_t tn_tensor_scale_bytes(const tn_tensor_info *tensor) {
    const tn_scales *s = tensor->scales;
    int64_t end;
    if (!s) return 0;
    if (s->tile) return tensor->elements ? 4 * (tn_scales_block(s, tensor->elements - 1, &end) + 1) : 0;
    int64_t blocks = tensor->elements / s->block + (tensor->elements % s->block > 0);
    if (s->absmax) return 4 * blocks;
    return blocks + 4 * (blocks / s->nested_block + (blocks % s->nested_block > 0));
}

const char *tn_shape_text(const tn_tensor_info *tensor, char out[128]) {
    int at = snprintf(out, 128, "[");
    for (int i = 0; i < tensor->rank && at < 100; i++)
        at += snprintf(out + at, 128 - (size_t)at, "%s%lld", i ? ", " : "", (long long)tensor->shape[i]);
    snprintf(out + at, 128 - (size_t)at, "]");
    return out;
}
