/* reference.h: the operations of the plain C reference, each documented in op.h. They work on host memory,
 * for F32, BF16 and F16, with sums in double, and need no scratch. The CPU backend takes from here what it
 * does not do faster.
 */
#ifndef TN_OP_REF_REFERENCE_H
#define TN_OP_REF_REFERENCE_H

#include "op/op.h"

/* memory.c */
tn_status tn_ref_open(const tn_backend *backend, int index, tn_dtype dtype, tn_device **device);
void tn_ref_close(tn_device *device);
tn_status tn_ref_allocate(tn_device *device, int64_t bytes, void **memory);
void tn_ref_release(tn_device *device, void *memory);
tn_status tn_ref_upload(tn_device *device, void *to, const void *from, int64_t bytes);
tn_status tn_ref_download(tn_device *device, void *to, const void *from, int64_t bytes);
tn_status tn_ref_zero(tn_device *device, void *memory, int64_t bytes);
tn_status tn_ref_sync(tn_device *device);
tn_status tn_ref_host_allocate(tn_device *device, int64_t bytes, void **memory);
void tn_ref_host_release(tn_device *device, void *memory, int64_t bytes);
tn_status tn_ref_move(tn_device *device, void *to, const void *from, int64_t bytes);
int64_t tn_ref_scratch_bytes(tn_device *device, const tn_limits *limits);
/* Fills memory_total and memory_free from the operating system. */
void tn_host_memory(tn_device *device);

/* weights.c */
int64_t tn_ref_linear_bytes(tn_device *device, const tn_linear *linear, const tn_source *const sources[]);
tn_status tn_ref_linear_load(tn_device *device, tn_linear *linear, const tn_source *const sources[],
                             void *region);
tn_status tn_ref_linear_refresh(tn_device *device, tn_linear *linear);
int64_t tn_ref_weight_bytes(tn_device *device, int64_t rows, int64_t cols, const tn_source *source);
tn_status tn_ref_weight_load(tn_device *device, int64_t rows, int64_t cols, const tn_source *source,
                             void *region, tn_weight *weight);
tn_status tn_ref_weight_refresh(tn_device *device, int64_t count, const float *master, void *values);
tn_status tn_ref_load_finish(tn_device *device);
/* Elements first … first+count-1 of row `row`, as floats; both multiples of the weight's block. */
void tn_decode_row(const tn_weight *weight, int64_t row, int64_t first, int64_t count, float *out);

/* linear.c */
tn_status tn_ref_linear_forward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view y,
                                tn_view residual, float alpha, const tn_dropout *dropout);
tn_status tn_ref_linear_backward(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                 tn_view dy, tn_view dx, bool accumulate, float alpha,
                                 const tn_dropout *dropout);
tn_status tn_ref_linear_inner(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                              const tn_dropout *dropout);
/* What dropout makes of element (row, column) of the input of part `part`: 0, or 1/(1-p). */
float tn_dropout_factor(const tn_dropout *dropout, const tn_linear *linear, int part, int64_t row,
                        int64_t column);

/* norm.c */
tn_status tn_ref_rmsnorm_forward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                 const void *w, bool offset, float eps, tn_view y, float *rstd);
tn_status tn_ref_rmsnorm_backward(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                  const void *w, bool offset, const float *rstd, tn_view dy, tn_view dx,
                                  bool accumulate, float *dw);
tn_status tn_ref_rope_table(tn_device *device, int64_t rows, int64_t half, const int32_t *positions,
                            const int32_t *row_table, const float *inv_freq, float scaling, float *cosines,
                            float *sines);
tn_status tn_ref_rope(tn_device *device, int64_t rows, int64_t heads, int64_t head_dim, int64_t half, tn_view x,
                      const float *cosines, const float *sines, bool inverse);

/* attention.c */
tn_status tn_ref_attention_forward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                   tn_view o, float *lse);
tn_status tn_ref_attention_backward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                    tn_view o, const float *lse, tn_view d_o, tn_view dq, tn_view dk,
                                    tn_view dv);

/* rows.c */
tn_status tn_ref_embed_forward(tn_device *device, int64_t rows, const int32_t *ids, const tn_weight *table,
                               float scale, tn_view y);
tn_status tn_ref_embed_backward(tn_device *device, int64_t rows, int64_t cols, int64_t segments,
                                const int32_t *ids, const int32_t *order, const int32_t *starts, float scale,
                                tn_view dy, float *dtable);
tn_status tn_ref_activate(tn_device *device, int64_t rows, int64_t cols, tn_activation activation, tn_view x,
                          tn_view y);
tn_status tn_ref_gated_forward(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                               tn_view gate_up, tn_view y);
tn_status tn_ref_gated_backward(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                                tn_view gate_up, tn_view dy, tn_view d_gate_up);
tn_status tn_ref_add(tn_device *device, int64_t rows, int64_t cols, tn_view a, tn_view b, tn_view y);
tn_status tn_ref_gather_rows(tn_device *device, int64_t rows, int64_t cols, const int32_t *index, tn_view from,
                             tn_view to);
tn_status tn_ref_scatter_rows(tn_device *device, int64_t rows, int64_t cols, const int32_t *index, tn_view from,
                              tn_view to);
tn_status tn_ref_copy_rows(tn_device *device, int64_t rows, int64_t cols, tn_view from, tn_view to);
tn_status tn_ref_widen(tn_device *device, int64_t rows, int64_t cols, tn_view from, float *to);

/* loss.c */
tn_status tn_ref_cross_entropy(tn_device *device, int64_t rows, int64_t vocab, tn_view logits,
                               const int32_t *targets, float softcap, float grad_scale, float *loss,
                               tn_view d_logits);
tn_status tn_ref_sum(tn_device *device, int64_t count, const float *values, double *total);
tn_status tn_ref_sum_squares(tn_device *device, int64_t count, const float *values, double *total);

/* optim.c */
tn_status tn_ref_adamw(tn_device *device, int64_t count, float *p, const float *g, float *m, float *v,
                       const tn_optimizer_step *step);
tn_status tn_ref_sgd(tn_device *device, int64_t count, float *p, const float *g, float *m,
                     const tn_optimizer_step *step);
tn_status tn_ref_lion(tn_device *device, int64_t count, float *p, const float *g, float *m,
                      const tn_optimizer_step *step);
/* optim_8bit.c */
tn_status tn_ref_adamw_8bit(tn_device *device, int64_t count, float *p, const float *g, tn_codes m, tn_codes v,
                            const tn_optimizer_step *step);
/* What gradients are multiplied with: scale and clipping; NaN where *sum_squares is not finite. */
double tn_gradient_factor(const tn_optimizer_step *step);

#endif
