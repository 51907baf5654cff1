/* quant.h: decoding (and encoding) of block formats in plain C, the truth that every fast path and every
 * device is compared with. A matrix row is a whole number of blocks; formulas and layouts: ggml-quants.c
 * and ggml-common.h.
 */
#ifndef TN_QUANT_QUANT_H
#define TN_QUANT_QUANT_H

#include "base/dtype.h"

/* Decodes `count` elements starting at element `first` (both multiples of the block) of block-typed or
 * plain (F32, F16, BF16) storage at `data` into fp32. fp32 arithmetic in ggml's order: same bits. */
void tn_dequantize(tn_dtype dtype, const void *data, int64_t first, int64_t count, float *out);
/* Encodes by the reference quantisers of ggml-quants.c. Types: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0,
 * Q5_1, Q4_K, Q5_K, Q6_K. TN_USAGE for others and for a `count` that is no multiple of the block, TN_BAD_DATA
 * for a value that is not finite (plain types take it). */
tn_status tn_quantize(tn_dtype dtype, const float *values, int64_t count, void *out);

#endif
