/* element.h: reading and writing single numbers of the compute dtype, and the rows of a view. Arithmetic is
 * always done on the float (or double) read here; tn_store rounds to nearest even.
 */
#ifndef TN_OP_REF_ELEMENT_H
#define TN_OP_REF_ELEMENT_H

#include "op/op.h"

static inline float tn_load(tn_dtype dtype, const void *data, int64_t i) {
    if (dtype == TN_DTYPE_F32) return ((const float *)data)[i];
    uint16_t bits = ((const uint16_t *)data)[i];
    return dtype == TN_DTYPE_BF16 ? tn_bf16_to_f32(bits) : tn_f16_to_f32(bits);
}

static inline void tn_store(tn_dtype dtype, void *data, int64_t i, double value) {
    float single = (float)value;
    if (dtype == TN_DTYPE_F32) ((float *)data)[i] = single;
    else ((uint16_t *)data)[i] = dtype == TN_DTYPE_BF16 ? tn_f32_to_bf16(single) : tn_f32_to_f16(single);
}

static inline float tn_round_to(tn_dtype dtype, float value) {
    if (dtype == TN_DTYPE_F32) return value;
    return dtype == TN_DTYPE_BF16 ? tn_bf16_to_f32(tn_f32_to_bf16(value)) : tn_f16_to_f32(tn_f32_to_f16(value));
}

static inline int64_t tn_element_bytes(tn_dtype dtype) { return dtype == TN_DTYPE_F32 ? 4 : 2; }

/* Element [row, column] of a view. */
static inline void *tn_at(tn_dtype dtype, tn_view view, int64_t row, int64_t column) {
    return (char *)view.data + (row * view.stride + column) * tn_element_bytes(dtype);
}

#endif
