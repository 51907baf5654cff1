/* dora.h: DoRA on the GPU (dora.cu): norms and ratios of a linear that has it (nothing without), and the steps
 * of its products (op/dora.h). */
#ifndef TN_OP_CUDA_DORA_H
#define TN_OP_CUDA_DORA_H

#include "op/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "op/dora.h"

tn_status tn_cuda_dora_refresh(tn_device *device, tn_linear *linear);
extern const tn_dora_steps tn_cuda_dora;

#ifdef __cplusplus
}
#endif
#endif
