/* vision.h: Qwen2.5-VL's vision tower, frozen: from the patches of a picture to one row of the language model's
 * width for each merged patch. A picture is computed on its own, so buffers have room for the largest.
 *
 * Shapes: N = patches of a picture, d = the tower's hidden, m = merge², D = the language model's hidden.
 */
#ifndef TN_MODEL_VISION_H
#define TN_MODEL_VISION_H

#include "model/region.h"
#include "model/vision_layout.h"

typedef struct tn_vision_block {
    const void *norm1, *norm2; /* [d] compute dtype */
    tn_linear qkv, proj, gate_up, down;
} tn_vision_block;

typedef struct tn_vision {
    const tn_vision_arch *arch;
    tn_linear patch; /* the convolution, whose kernel is as large as its stride */
    tn_vision_block *blocks;
    const void *merger_norm;
    tn_linear merger_in, merger_out;
} tn_vision;

/* Buffers for pictures of up to `patches`, shared by all blocks. */
typedef struct tn_vision_pass {
    tn_device *device;
    const tn_vision *vision;
    int64_t patches;            /* most of one picture */
    tn_view pixels, h, x, qkv;  /* [N, values], [N, d], [N, d] without a gap, [N, 3d] */
    tn_view attn, gate_up, act; /* [N, d], [N, 2f], [N, f] */
    tn_view merged, features;   /* [N / m, m·d], [N / m, D] */
    float *cos, *sin;           /* [N, head_dim / 2] */
    int32_t *cu_windows, *cu_whole, *rows;
} tn_vision_pass;

void tn_vision_place(tn_vision_pass *pass, tn_region *region);
/* `pixels` [N, values] on the host, merged patches in the order of rows (tn_image_patches); rows[first] … of
 * `to` get the features in that order. */
tn_status tn_vision_forward(tn_vision_pass *pass, const float *pixels, int64_t rows, int64_t columns,
                            int64_t first, tn_view to);
/* Scratch bounds for pictures of up to `patches`. */
tn_limits tn_vision_limits(const tn_vision *vision, int64_t patches);

#endif
