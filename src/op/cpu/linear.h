/* linear.h: what the files of the CPU's linear group share (linear.c, linear_backward.c, linear_operands.c,
 * dora.c).
 */
#ifndef TN_OP_CPU_LINEAR_H
#define TN_OP_CPU_LINEAR_H

#include "op/cpu/cpu.h"
#include "op/cpu/gemm.h"
#include "op/dora.h"

enum { TN_FEW = 8 }; /* rows up to which dot products beat a prepared product */

/* LoRA's products are joined to W's. */
static inline bool tn_joins(const tn_device *device) { return tn_is_bf16(device); }

/* Ranks of the parts before part p. */
int64_t tn_ranks_before(const tn_linear *linear, int p);
/* A [r, in] of part p in the compute dtype; in BF16 those of all parts stand one behind the other. */
const void *tn_lora_a(const tn_device *device, const tn_linear *linear, int p);
/* B [out, r], in BF16 scale·B. */
const void *tn_lora_b(const tn_device *device, const tn_linear *linear, int p);

/* x itself, or part p's dropped copy of it in `buffer` (tn_take_dropped). */
tn_view tn_lora_source(const tn_device *device, const tn_linear *linear, int p, int64_t rows, tn_view x,
                       void *buffer, const tn_dropout *dropout);
/* NULL where nothing is dropped. */
tn_status tn_take_dropped(const tn_device *device, const tn_linear *linear, int64_t rows,
                          const tn_dropout *dropout, tn_scratch *scratch, void **buffer);
/* Factors of elements column … column+count-1 of a row for part p; count ≤ TN_MASK. */
void tn_dropout_mask(const tn_device *device, const tn_linear *linear, int p, int64_t row, int64_t column,
                     int64_t count, const tn_dropout *dropout, float factors[TN_MASK]);
/* to += from·mask; from [rows, in] dense, to the same in rows of `stride`. */
void tn_add_dropped(const tn_device *device, const tn_linear *linear, int p, int64_t rows, const float *from,
                    float *to, int64_t stride, const tn_dropout *dropout);

/* Rows first … first+count-1 of the weight, in the compute dtype: in place, or decoded into `tile`
 * (tn_take_tile). */
tn_view tn_weight_rows(const tn_device *device, const tn_weight *weight, int64_t first, int64_t count,
                       void *tile);
/* Rows taken at a time: all of a plain weight. */
int64_t tn_weight_step(const tn_weight *weight);
/* Room for the largest step of the group; NULL where nothing is decoded. */
tn_status tn_take_tile(const tn_device *device, const tn_linear *linear, tn_scratch *scratch, void **tile);

/* dora.c: norms and ratios of a linear with DoRA (nothing without), the bytes of scratch that takes, and the
 * steps of its products. */
tn_status tn_cpu_dora_refresh(tn_device *device, tn_linear *linear);
int64_t tn_cpu_dora_tile(int64_t cols);
extern const tn_dora_steps tn_cpu_dora;

#endif
