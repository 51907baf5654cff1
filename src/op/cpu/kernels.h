/* kernels.h: the inner loops of the CPU backend. kernels.inc holds them in plain C written for the vectoriser;
 * it is compiled once for every instruction set (kernels_base.c, kernels_avx2.c, …) into one
 * table of function pointers each, and the device picks its table when it opens. [2] is indexed by
 * `dtype == BF16`: 0 works on float rows, 1 on bfloat16 rows; arithmetic is fp32 in both.
 */
#ifndef TN_OP_CPU_KERNELS_H
#define TN_OP_CPU_KERNELS_H

#include "op/op.h"

enum { TN_TILE = 64, TN_LANES = TN_TILE / 4 }; /* queries and keys of one tile of attention */

enum { TN_STEP = 32 }; /* k of one step of AMX */

enum { TN_MASK = 256 }; /* elements of a dropout mask made at a time */

/* What becomes of sums: to = added + alpha·(sums + bias), or += . */
typedef struct tn_finish {
    float alpha;
    bool accumulate;
    void *to;
    int64_t ld;
    const void *bias, *added; /* NULL = none; bias is one row of the type of `to` */
    int64_t ld_added;
    bool added_half; /* `added` is bfloat16, else float */
} tn_finish;

typedef struct tn_kernels {
    /* Conversions of `count` numbers. */
    void (*widen[2])(int64_t count, const void *from, float *to);
    void (*narrow[2])(int64_t count, const float *from, void *to);
    void (*scale[2])(int64_t count, float factor, const float *from, void *to);
    void (*add[2])(int64_t count, const void *a, const void *b, void *to);
    void (*accumulate[2])(int64_t count, const void *from, float *to);
    /* sums [rows, cols], `ld` apart, are used up; [2] is the type of `to`. */
    void (*finish[2])(int64_t rows, int64_t cols, float *sums, int64_t ld, const tn_finish *finish);
    /* to += factor·from. */
    void (*add_scaled[2])(int64_t count, float factor, const void *from, float *to);
    /* Σ a·b. */
    float (*dot[2])(int64_t count, const void *a, const float *b);
    /* Codes of one block times their scale: two a byte (element `first` onwards, the even one in the high
     * nibble) through the 16 values of `book`, signed bytes, or E4M3. */
    void (*decode_nibbles)(int64_t count, const uint8_t *codes, int64_t first, const float *book, float scale,
                           float *to);
    void (*decode_bytes)(int64_t count, const uint8_t *codes, float scale, float *to);
    void (*decode_fp8)(int64_t count, const uint8_t *codes, float scale, float *to);
    double (*sum)(int64_t count, const float *values);
    double (*sum_squares)(int64_t count, const float *values);

    /* What dropout (op.h) makes of elements index … index+count-1 of a stream: 0 or 1/(1-p). count ≤ TN_MASK.
     */
    void (*dropout)(int64_t count, float p, uint64_t seed, uint64_t stream, uint64_t index, float *factors);
    /* to = factors·from, and to += factors·from. */
    void (*multiply[2])(int64_t count, const float *factors, const void *from, void *to);
    void (*add_product)(int64_t count, const float *factors, const float *from, float *to);

    /* One segment; op.h has the formulas. `offset` is 0 or 1, what is added to the weights. */
    void (*rmsnorm[2])(int64_t cols, const void *x, const void *w, float offset, float eps, void *y,
                       float *rstd);
    void (*rmsnorm_backward[2])(int64_t cols, const void *x, const void *w, float offset, float rstd,
                                const void *dy, void *dx, bool accumulate);
    /* dw += dy·x·rstd. */
    void (*rmsnorm_weight[2])(int64_t cols, const void *x, float rstd, const void *dy, float *dw);
    void (*rope[2])(int64_t half, void *x, const float *cosines, const float *sines, float sign);
    /* One row of op.h's gated activation, for TN_SILU and TN_GELU_TANH. */
    void (*gated[2][2])(int64_t cols, const void *gate, const void *up, void *y);
    void (*gated_backward[2][2])(int64_t cols, const void *gate, const void *up, const void *dy, void *d_gate,
                                 void *d_up);
    void (*cross_entropy[2])(int64_t vocab, const void *logits, int64_t target, float softcap, float grad_scale,
                             float *loss, void *d_logits);

    /* Small products (attention.c, gemm_blocks.c). Operands are "elements": floats, or bfloat16 where panel[1]
     * is not NULL. B stands packed: floats as [k, n]; bfloat16 as [k/2, n, 2], pairs of neighbouring k
     * together. C[m, n] = A[m, k]·B, or += ; m a multiple of 8, n of 16, k even. The last TN_STEP of k are read
     * `back` columns of A further left than they stand (bfloat16 only; 0, or k is a multiple of TN_STEP). */
    void (*panel[2])(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, int64_t back, const void *b,
                     float *c, int64_t ldc, bool add);
    bool dense; /* panel[1] takes rows of A faster where they lie one behind the other */
    /* [rows, cols] to a packed B with k = rows; n = `width` ≥ cols, columns behind cols zero. `ld` elements
     * from row to row of `from`. */
    void (*pack[2])(int64_t rows, int64_t cols, int64_t width, const void *from, int64_t ld, void *to);
    /* [rows, cols] to a packed B with k = cols, n = rows; and dense [rows, cols] to plain [cols, rows]. */
    void (*pack_transposed[2])(int64_t rows, int64_t cols, const void *from, int64_t ld, void *to);
    void (*transpose[2])(int64_t rows, int64_t cols, const void *from, void *to);
    /* One row of TN_TILE scores, of which first … last-1 are visible: p = e^(score − largest), 0 elsewhere;
     * updates the running maximum and the running sum, which is kept in TN_LANES parts (adding up a vector
     * takes longer than all the rest), and returns what earlier sums must be multiplied with. */
    float (*softmax[2])(const float *scores, int64_t first, int64_t last, float scale, float softcap,
                        float *largest, float *total, void *p);
    /* One key against TN_TILE queries, of which first … last-1 see it: p and the gradient of q·k. */
    void (*softmax_backward[2])(const float *scores, const float *dp, int64_t first, int64_t last, float scale,
                                float softcap, const float *lse, const float *delta, void *p, void *ds);
} tn_kernels;

extern const tn_kernels tn_kernels_base;
#if defined(__x86_64__)
extern const tn_kernels tn_kernels_avx2, tn_kernels_avx512, tn_kernels_amx;
#endif

#endif
