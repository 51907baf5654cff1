/* scaled.h: the formats whose scales lie apart from their codes. Those of bitsandbytes: NF4 and FP4 (blocks of
 * 64, scales plain or quantised once more) and LLM.int8 (a scale a row), the same bytes as its CUDA library
 * writes (csrc/kernels.cu, functional.py). And FP8: E4M3 with a scale a row, as compressed-tensors and fbgemm
 * make it, or with one a tile in checkpoints. Plain C, the truth for every fast path.
 *
 * A value is book[code] · scale in fp32, of LLM.int8 code · (absmax · (1/127)), of FP8 e4m3 · scale.
 */
#ifndef TN_QUANT_SCALED_H
#define TN_QUANT_SCALED_H

#include "format/tensor.h"

/* What the codes of block `b` are multiplied with. */
float tn_scale_of(tn_dtype dtype, const tn_scales *scales, int64_t b);
/* Elements first … first+count-1 of the flat matrix. */
void tn_decode_scaled(tn_dtype dtype, const void *codes, const tn_scales *scales, int64_t first, int64_t count,
                      float *out);
/* The same of a tensor in any format that weights can have; where its blocks hold their own scales, first and
 * count are multiples of the block. */
void tn_tensor_values(const tn_tensor_info *tensor, int64_t first, int64_t count, float *out);

/* Where the parts of a quantised matrix lie in one piece of memory: codes at 0, everything else at these
 * offsets, which are multiples of 64. */
typedef struct tn_scaled_layout {
    tn_dtype dtype;
    int64_t elements, block, blocks;
    int64_t tile, cols;                  /* of FP8, as in tn_scales */
    int64_t nested_block, nested_blocks; /* 0: absmax is plain */
    int64_t absmax, nested, map;         /* offsets; absmax holds floats, or the 8-bit codes of nested scales */
    int64_t bytes;
} tn_scaled_layout;
/* Of [rows, cols] in blocks of `block` elements (of LLM_INT8 cols). False on overflow. */
bool tn_scaled_layout_of(tn_dtype dtype, int64_t rows, int64_t cols, int64_t block, int64_t nested_block,
                         tn_scaled_layout *layout);
/* Of FP8 in tiles of `tile` rows and `block` columns. */
bool tn_scaled_layout_tiles(int64_t rows, int64_t cols, int64_t tile, int64_t block, tn_scaled_layout *layout);
/* What tenon writes itself: blocks of 64 with nested scales in blocks of 256, or rows of int8 or FP8. */
bool tn_scaled_layout_usual(tn_dtype dtype, int64_t rows, int64_t cols, tn_scaled_layout *layout);
/* The scales of a matrix that lies at `memory` (on whatever device). */
tn_scales tn_scaled_at(const tn_scaled_layout *layout, const void *memory, float offset);

/* Gives elements first … first+count-1 of the flat matrix; called from several threads. */
typedef void tn_value_source(const void *user, int64_t first, int64_t count, float *out);
/* Quantises into `memory` as `layout` says, FP8 in rows only; *offset is that of nested scales (else 0).
 * TN_BAD_DATA where a value is not finite. */
tn_status tn_encode_scaled(const tn_scaled_layout *layout, tn_value_source *values, const void *user,
                           void *memory, float *offset);
/* The scale of a row of FP8 with this largest magnitude: 0, and codes of 0, where it would have lost its own
 * precision. And the code of a value. */
float tn_fp8_scale(float absmax);
uint8_t tn_fp8_code(float value, float scale);
/* The second half of tn_encode_scaled: `blocks` scales less `offset` to 8-bit codes and one fp32 per nested
 * block. */
void tn_encode_nested(int64_t blocks, int64_t nested_block, const float *absmax, float offset, uint8_t *codes,
                      float *nested);

#endif
