/* tensor.c: a tensor's shape as text. */
#include "format/tensor.h"

#include <stdio.h>

const char *tn_shape_text(const tn_tensor_info *tensor, char out[128]) {
    int at = snprintf(out, 128, "[");
    for (int i = 0; i < tensor->rank && at < 100; i++)
        at += snprintf(out + at, 128 - (size_t)at, "%s%lld", i ? ", " : "", (long long)tensor->shape[i]);
    snprintf(out + at, 128 - (size_t)at, "]");
    return out;
}
