/* tensor.c: a tensor's shape as text, and the size of its scales. */
#include "format/tensor.h"

#include <stdio.h>

int64_t tn_tensor_scale_bytes(const tn_tensor_info *tensor) {
    const tn_scales *s = tensor->scales;
    if (!s) return 0;
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
