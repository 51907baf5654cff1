/* dora.h: DoRA (Liu et al., arXiv 2402.09353, with PEFT's treatment of dropout) on top of a backend's own
 * linear operations: what the CPU and the GPU share, so that a product without DoRA knows nothing of it. With
 * g = magnitude / norm, z = x·Wᵀ + LoRA and, where something is dropped, c = (drop(x) − x)·Wᵀ:
 *
 *   y  = residual + alpha·(bias + g·z + (g−1)·c)
 *   dm += alpha/norm · Σ dy·(z + c)
 *   dA, dB and dx as without DoRA, but from g·dy; and dx += alpha·(drop − 1)((g−1)·dy·W)
 *
 * z is not kept: the backward pass makes it again, and then writes g·dy in its place and (g−1)·dy in that of c.
 * Rows pass in tiles, whose z and c lie at the end of the scratch; what is left of it is the plain operations'.
 * A tile is large, because a quantised weight is decoded for every product.
 */
#ifndef TN_OP_DORA_H
#define TN_OP_DORA_H

#include "op/op.h"

enum { TN_DORA_ROWS = 4096, TN_DORA_ELEMENTS = 1 << 27 }; /* of a tile, at most */

/* What a backend brings beside linear_forward and linear_backward. All views are of the compute dtype. */
typedef struct tn_dora_steps {
    /* to = (drop − 1) ⊙ from by the mask of part `part`, [rows, in]; added where `accumulate`. */
    tn_status (*mask)(tn_device *device, const tn_linear *linear, int part, const tn_dropout *dropout,
                      int64_t rows, tn_view from, tn_view to, bool accumulate);
    /* y of z [rows, out]; c.data and residual.data NULL = none. */
    tn_status (*finish)(tn_device *device, const tn_linear *linear, int64_t rows, tn_view z, tn_view c,
                        tn_view y, tn_view residual, float alpha);
    /* One part's columns: dm, and then z = g·dy and c = (g−1)·dy. c.data NULL = none; dmagnitude NULL: only the
     * latter. */
    tn_status (*turn)(tn_device *device, int64_t rows, int64_t cols, tn_view dy, tn_view z, tn_view c,
                      const float *norm, const float *ratio, float alpha, float *dmagnitude);
} tn_dora_steps;

/* As linear_forward and linear_backward, of a linear whose `ratio` is set. */
tn_status tn_dora_forward(tn_device *device, const tn_dora_steps *steps, const tn_linear *linear, int64_t rows,
                          tn_view x, tn_view y, tn_view residual, float alpha, const tn_dropout *dropout);
tn_status tn_dora_backward(tn_device *device, const tn_dora_steps *steps, const tn_linear *linear, int64_t rows,
                           tn_view x, tn_view dy, tn_view dx, bool accumulate, float alpha,
                           const tn_dropout *dropout);
/* Scratch that the two take beside that of the plain operations. */
int64_t tn_dora_scratch(const tn_device *device, const tn_limits *limits);

/* Does some part have DoRA? Known before anything is loaded. */
bool tn_has_dora(const tn_linear *linear);
/* g of row n of a part on the host. A row of zeros stays one. */
static inline float tn_dora_ratio(const tn_lora *lora, int64_t n, float norm) {
    return lora->dora && norm > 0 ? lora->magnitude[n] / norm : 1;
}
/* Bytes of `norm` and `ratio` at the end of a linear's region, and their place there. */
int64_t tn_dora_bytes(const tn_linear *linear);
void tn_dora_place(tn_linear *linear, void *memory);

#endif
