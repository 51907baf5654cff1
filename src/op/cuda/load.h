/* load.h: where the pieces of a loaded linear lie (layouts: load.c). */
#ifndef TN_OP_CUDA_LOAD_H
#define TN_OP_CUDA_LOAD_H

#include "op/cuda/cuda.h"

/* Elements from row to row of the bordered matrix. */
static inline int64_t tn_cuda_stride(const tn_linear *linear) {
    return (linear->in + linear->border + 15) / 16 * 16;
}

/* Whether W and its border are one matrix at linear->fused. */
static inline bool tn_cuda_is_bordered(const tn_linear *linear) {
    return linear->fused && linear->fused == linear->part[0].weight.data;
}

/* Copies of the LoRA pairs in the compute dtype: b [out, border] holds scale·B in diagonal blocks, a [border,
 * in]. */
typedef struct tn_cuda_border {
    void *b, *a;
    int64_t b_stride, a_stride;
} tn_cuda_border;

static inline tn_cuda_border tn_cuda_border_at(const tn_device *device, const tn_linear *linear,
                                               void *bordered) {
    int64_t size = tn_cuda_size(device->dtype), stride = tn_cuda_stride(linear);
    return (tn_cuda_border){(char *)bordered + linear->in * size,
                            (char *)bordered + linear->out * stride * size, stride, stride};
}

static inline tn_cuda_border tn_cuda_border_of(const tn_device *device, const tn_linear *linear) {
    if (tn_cuda_is_bordered(linear)) return tn_cuda_border_at(device, linear, linear->fused);
    int64_t b_bytes = tn_cuda_round(linear->out * linear->border * tn_cuda_size(device->dtype));
    return (tn_cuda_border){linear->fused, (char *)linear->fused + b_bytes, linear->border, linear->in};
}

#endif
