/* tensor.h: what a file says of one tensor, whatever the file's format: name, storage format, shape in
 * row-major (torch) order and where its bytes are mapped.
 */
#ifndef TN_FORMAT_TENSOR_H
#define TN_FORMAT_TENSOR_H

#include "base/dtype.h"

enum { TN_MAX_RANK = 8 };

/* Scales that lie apart from their codes, as bitsandbytes keeps them. The matrix is one flat line of blocks
 * that cross the ends of rows; only the last may be short. The scale of block b is absmax[b], or, where scales
 * are quantised once more (double quantisation), map[codes[b]] · nested[b / nested_block] + offset. FP8 alone
 * has tiles instead: `block` columns of `tile` rows share absmax[], which is row-major over the grid of tiles
 * and holds the factors themselves; those at the right and lower edge may be short. */
typedef struct tn_scales {
    int64_t block;       /* elements; of LLM_INT8 one row */
    int64_t tile, cols;  /* of FP8: rows of a tile, and columns of the matrix; else 0 */
    const float *absmax; /* NULL where they are nested */
    const uint8_t *codes;
    const float *map; /* [256] */
    const float *nested;
    int64_t nested_block; /* blocks that share a value of `nested` */
    float offset;
} tn_scales;

typedef struct tn_tensor_info {
    const char *name;
    tn_dtype dtype;
    int rank;
    int64_t shape[TN_MAX_RANK]; /* row-major: a weight is [out, in] */
    int64_t elements, bytes;    /* bytes at `data`: without the scales */
    const void *data;           /* into the mapping; aligned to the dtype's size at best */
    const char *file;           /* path, for messages */
    const tn_scales *scales;    /* of a dtype that has them, else NULL */
} tn_tensor_info;

/* Where row `row` of a matrix that llama.cpp keeps head by head interleaved (q and k) lies in Hugging Face's
 * order, and the other way round: stored row 2j+p of a head is row p·(head_dim/2)+j. */
static inline int64_t tn_interleaved_to_halves(int64_t row, int64_t head_dim) {
    const int64_t in_head = row % head_dim;
    return row - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
}
static inline int64_t tn_halves_to_interleaved(int64_t row, int64_t head_dim) {
    const int64_t in_head = row % head_dim, half = head_dim / 2;
    return row - in_head + 2 * (in_head % half) + in_head / half;
}

/* The block of element i of the flat matrix; *end is the first element behind it in the line. */
int64_t tn_scales_block(const tn_scales *scales, int64_t i, int64_t *end);
/* Whether each row has one scale of its own, as LLM_INT8's and most FP8's have. */
bool tn_scales_by_row(const tn_scales *scales, int64_t cols);
/* Bytes of the scales that lie apart. */
int64_t tn_tensor_scale_bytes(const tn_tensor_info *tensor);
/* "[768, 3072]" into `out`. */
const char *tn_shape_text(const tn_tensor_info *tensor, char out[128]);

#endif
