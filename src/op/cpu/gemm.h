/* gemm.h: matrix products on the CPU, whatever library makes them. Row-major, `ld` elements from row to row. */
#ifndef TN_OP_CPU_GEMM_H
#define TN_OP_CPU_GEMM_H

#include "op/cpu/kernels.h"

/* C[m, n] = added + alpha·(A·B + bias), where A is stored [m, k] ([k, m] if a_transposed) and B [k, n]
 * ([n, k] if b_transposed). A and B are of type `in`, C and bias of type `out`; sums are fp32 and rounded once.
 */
typedef struct tn_gemm {
    tn_dtype in, out;
    bool a_transposed, b_transposed;
    int64_t m, n, k, lda, ldb, ldc;
    float alpha;
    bool accumulate;  /* adds C as it was */
    bool biased;      /* bias [n] */
    tn_dtype added;   /* type of `added` */
    int64_t ld_added; /* its row stride; 0 = nothing is added */
} tn_gemm;

/* `in` is F32 or BF16. Errors: TN_FAILED with the library's status. */
tn_status tn_gemm_run(const tn_gemm *gemm, const void *a, const void *b, void *c, const void *added,
                      const void *bias);

/* Rows at … at+k-1 of a B that is stacked from several matrices; rows that none of them holds are zero. */
typedef struct tn_gemm_rows {
    const void *b; /* [k, n], or [n, k] where B is transposed */
    int64_t at, k, ld;
} tn_gemm_rows;

/* Columns of A that are made before it is multiplied: A[:, to … to+r-1] = A[:, from … from+k-1]·D, rounded. */
typedef struct tn_gemm_inner {
    const void *d; /* [k, r], or [r, k] if transposed */
    int64_t ld, from, k, to, r;
    bool transposed;
} tn_gemm_inner;

typedef struct tn_gemm_stack {
    const tn_gemm_rows *rows;
    int count;
    const tn_gemm_inner *inners;
    int inner_count;
} tn_gemm_stack;

/* C = added + alpha·(A·B + bias) for a stacked B; g.ldb is not read. Of BF16 with A not transposed only. With n
 * = 0 it only makes columns of A. (gemm_blocks.c) */
tn_status tn_gemm_stacked(const tn_gemm *gemm, const tn_gemm_stack *stack, void *a, void *c, const void *added,
                          const void *bias);

/* A gradient that is Lᵀ·X: `r` columns of L give to [r, n], or [n, r] where it stands transposed. */
typedef struct tn_gradient {
    int64_t r;
    float factor;
    float *to;
    bool transposed;
} tn_gradient;

enum { TN_GRADIENT_COLUMNS = 192 };

/* gemm_thin.c: to += factor·Lᵀ·X for parts that stand side by side in L [rows, Σr]; X [rows, n]; of BF16, sums
 * in fp32. It is here where bf16 is multiplied in hardware and L has at most TN_GRADIENT_COLUMNS. */
bool tn_gemm_gradients_here(const tn_gradient *parts, int count);
tn_status tn_gemm_gradients(const tn_gradient *parts, int count, int64_t rows, const void *l, int64_t ldl,
                            const void *x, int64_t ldx, int64_t n);

/* gemm_dnnl.c: the product by the library; BF16 only in hardware. The prepared product is kept for the next
 * call of the same shape. */
tn_status tn_gemm_library(const tn_gemm *gemm, const void *a, const void *b, void *c, const void *added,
                          const void *bias);

/* What stands behind the sums [rows, cols], `ld` apart, of the result's rows from `row` and columns from `col`;
 * the sums are used up. */
void tn_gemm_finish(const tn_kernels *kernels, const tn_gemm *gemm, int64_t row, int64_t rows, int64_t col,
                    int64_t cols, float *sums, int64_t ld, void *c, const void *added, const void *bias);

#endif
