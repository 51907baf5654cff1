/* gemm.c: which way a product is made. bf16 operands go to the library where the processor multiplies bf16;
 * elsewhere they are widened tile by tile into fp32, so that bf16 weights never need an fp32 copy. The tiles
 * (20 MiB) are taken on first use: only such machines, asked for bf16, have them. They are that large because
 * every tile of B is widened once for each M rows of A, and A, where k fits a tile, once in all.
 */
#include "op/cpu/gemm.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "op/cpu/cpu.h"

enum { M = 1024, N = 1024, K = 2048 };

bool tn_gemm_has_bf16(void) {
#if defined(__x86_64__)
    return !getenv("TENON_CPU_KERNELS") && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

static struct {
    pthread_mutex_t lock;
    float *a, *b, *c;
} tiles = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* [rows, cols] from element [row, col] of a bf16 matrix to a dense fp32 one. */
static void widen_block(const void *from, int64_t ld, int64_t row, int64_t col, int64_t rows, int64_t cols,
                        float *to) {
    const tn_kernels *kernels = tn_cpu_kernels();
    tn_view view = {(void *)(uintptr_t)from, ld};
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++)
        kernels->widen[1](cols, tn_at(TN_DTYPE_BF16, view, row + i, col), to + i * cols);
}

/* What the library would have done behind the sum, on the tile's row while it is in cache. */
static void finish_block(const tn_gemm *g, int64_t row, int64_t col, int64_t rows, int64_t cols, void *c,
                         const void *added, const void *bias) {
    const tn_kernels *kernels = tn_cpu_kernels();
    const int half = g->out == TN_DTYPE_BF16, added_half = g->added == TN_DTYPE_BF16;
    tn_view to = {c, g->ldc}, from = {(void *)(uintptr_t)added, g->ld_added},
            biases = {(void *)(uintptr_t)bias, 0};
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        float *sums = tiles.c + i * cols;
        void *place = tn_at(g->out, to, row + i, col);
        if (g->biased) kernels->accumulate[half](cols, tn_at(g->out, biases, 0, col), sums);
        if (g->alpha != 1) kernels->scale[0](cols, g->alpha, sums, sums);
        if (g->accumulate) kernels->accumulate[half](cols, place, sums);
        if (g->ld_added) kernels->accumulate[added_half](cols, tn_at(g->added, from, row + i, col), sums);
        kernels->narrow[half](cols, sums, place);
    }
}

/* A's tile is there already where `a_ready`. */
static tn_status block(const tn_gemm *g, int64_t row, int64_t col, bool a_ready, const void *a, const void *b,
                       void *c, const void *added, const void *bias) {
    int64_t rows = smaller(M, g->m - row), cols = smaller(N, g->n - col);
    for (int64_t k = 0; k < g->k; k += K) {
        int64_t depth = smaller(K, g->k - k);
        if (!a_ready && g->a_transposed) widen_block(a, g->lda, k, row, depth, rows, tiles.a);
        else if (!a_ready) widen_block(a, g->lda, row, k, rows, depth, tiles.a);
        if (g->b_transposed) widen_block(b, g->ldb, col, k, cols, depth, tiles.b);
        else widen_block(b, g->ldb, k, col, depth, cols, tiles.b);
        tn_gemm wide = {.in = TN_DTYPE_F32,
                        .out = TN_DTYPE_F32,
                        .a_transposed = g->a_transposed,
                        .b_transposed = g->b_transposed,
                        .m = rows,
                        .n = cols,
                        .k = depth,
                        .lda = g->a_transposed ? rows : depth,
                        .ldb = g->b_transposed ? depth : cols,
                        .ldc = cols,
                        .alpha = 1,
                        .accumulate = k > 0};
        tn_status status = tn_gemm_library(&wide, tiles.a, tiles.b, tiles.c, NULL, NULL);
        if (status != TN_OK) return status;
    }
    finish_block(g, row, col, rows, cols, c, added, bias);
    return TN_OK;
}

static tn_status take_tiles(void) {
    tn_status status = TN_OK;
    if (!tiles.a) TN_TRY(tn_alloc_aligned(&tiles.a, (int64_t)M * K * 4, "a tile of a product"));
    if (!tiles.b) TN_TRY(tn_alloc_aligned(&tiles.b, (int64_t)K * N * 4, "a tile of a product"));
    if (!tiles.c) TN_TRY(tn_alloc_aligned(&tiles.c, (int64_t)M * N * 4, "a tile of a product"));
done:
    return status;
}

tn_status tn_gemm_run(const tn_gemm *g, const void *a, const void *b, void *c, const void *added,
                      const void *bias) {
    if (g->in == TN_DTYPE_F32 || tn_gemm_has_bf16()) return tn_gemm_library(g, a, b, c, added, bias);
    pthread_mutex_lock(&tiles.lock);
    tn_status status = take_tiles();
    for (int64_t row = 0; row < g->m; row += M)
        for (int64_t col = 0; status == TN_OK && col < g->n; col += N)
            status = block(g, row, col, col > 0 && g->k <= K, a, b, c, added, bias);
    pthread_mutex_unlock(&tiles.lock);
    return status;
}
