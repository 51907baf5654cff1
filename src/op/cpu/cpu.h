/* cpu.h: the operations the CPU backend does itself (op.h documents them) and what its files share. Where a
 * device computes in F16 the reference does all the work; see backend.c.
 */
#ifndef TN_OP_CPU_CPU_H
#define TN_OP_CPU_CPU_H

#include "op/cpu/kernels.h"
#include "op/ref/element.h"
#include "op/ref/reference.h"

/* The CPU backend's device. */
typedef struct tn_cpu_device {
    tn_device base;
    const tn_kernels *kernels;
} tn_cpu_device;

static inline const tn_kernels *tn_kernels_of(const tn_device *device) {
    return ((const tn_cpu_device *)device)->kernels;
}

/* Index into the pairs of tn_kernels. */
static inline int tn_is_bf16(const tn_device *device) { return device->dtype == TN_DTYPE_BF16; }

/* Pieces of the scratch an operation cuts for itself, one behind another on 64-byte boundaries. */
typedef struct tn_scratch {
    char *next;
    int64_t left;
} tn_scratch;
tn_scratch tn_scratch_of(const tn_device *device);
/* TN_FAILED where the scratch is smaller than scratch_bytes() promised. */
tn_status tn_scratch_take(tn_scratch *scratch, int64_t bytes, void *piece);
/* What the pieces above take. */
int64_t tn_scratch_room(int64_t bytes);

/* The kernels of the best instruction set here, which every device of this process uses. */
const tn_kernels *tn_cpu_kernels(void);

/* The dtype of the fastest products here: BF16 where the processor multiplies it, else F32. */
tn_dtype tn_cpu_best_dtype(void);

/* decode.c: as tn_decode_row, with the kernels. */
void tn_cpu_decode_row(const tn_kernels *kernels, const tn_weight *weight, int64_t row, int64_t first,
                       int64_t count, float *out);

/* linear.c, linear_backward.c, linear_operands.c */
int64_t tn_cpu_linear_bytes(tn_device *device, const tn_linear *linear, const tn_source *const sources[]);
tn_status tn_cpu_linear_load(tn_device *device, tn_linear *linear, const tn_source *const sources[],
                             void *region);
tn_status tn_cpu_linear_refresh(tn_device *device, tn_linear *linear);
tn_status tn_cpu_linear_forward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view y,
                                tn_view residual, float alpha, const tn_dropout *dropout);
tn_status tn_cpu_linear_backward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                 tn_view dy, tn_view dx, bool accumulate, float alpha,
                                 const tn_dropout *dropout);
tn_status tn_cpu_linear_inner(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                              const tn_dropout *dropout);
int64_t tn_cpu_linear_scratch(const tn_device *device, const tn_limits *limits);

/* rows.c */
tn_status tn_cpu_weight_refresh(tn_device *device, int64_t count, const float *master, void *values);
tn_status tn_cpu_embed_forward(tn_device *device, int64_t rows, const int32_t *ids, const tn_weight *table,
                               float scale, tn_view y);
tn_status tn_cpu_rmsnorm_forward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                 const void *w, bool offset, float eps, tn_view y, float *rstd);
tn_status tn_cpu_rmsnorm_backward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                  const void *w, bool offset, const float *rstd, tn_view dy, tn_view dx,
                                  bool accumulate, float *dw);
tn_status tn_cpu_rope(tn_device *device, int64_t rows, int64_t heads, int64_t head_dim, int64_t half, tn_view x,
                      const float *cosines, const float *sines, bool inverse);
tn_status tn_cpu_gated_forward(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                               tn_view gate_up, tn_view y);
tn_status tn_cpu_gated_backward(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                                tn_view gate_up, tn_view dy, tn_view d_gate_up);
tn_status tn_cpu_add(tn_device *device, int64_t rows, int64_t cols, tn_view a, tn_view b, tn_view y);
tn_status tn_cpu_widen(tn_device *device, int64_t rows, int64_t cols, tn_view from, float *to);
tn_status tn_cpu_cross_entropy(tn_device *device, int64_t rows, int64_t vocab, tn_view logits,
                               const int32_t *targets, float softcap, float grad_scale, float *loss,
                               tn_view d_logits);

/* attention.c */
tn_status tn_cpu_attention_forward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                   tn_view o, float *lse);
tn_status tn_cpu_attention_backward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                    tn_view o, const float *lse, tn_view d_o, tn_view dq, tn_view dk,
                                    tn_view dv);
int64_t tn_cpu_attention_scratch(const tn_device *device, const tn_limits *limits);

/* flat.c: over flat fp32 ranges, in pieces of fixed size */
tn_status tn_cpu_sum(tn_device *device, int64_t count, const float *values, double *total);
tn_status tn_cpu_sum_squares(tn_device *device, int64_t count, const float *values, double *total);
tn_status tn_cpu_adamw(tn_device *device, int64_t count, float *p, const float *g, float *m, float *v,
                       const tn_optimizer_step *step);
tn_status tn_cpu_adamw_8bit(tn_device *device, int64_t count, float *p, const float *g, tn_codes m, tn_codes v,
                            const tn_optimizer_step *step);
tn_status tn_cpu_sgd(tn_device *device, int64_t count, float *p, const float *g, float *m,
                     const tn_optimizer_step *step);
tn_status tn_cpu_lion(tn_device *device, int64_t count, float *p, const float *g, float *m,
                      const tn_optimizer_step *step);

#endif
