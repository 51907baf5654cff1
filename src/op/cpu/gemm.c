/* gemm.c: which way a product is made. fp32 goes to the library as it stands, and so does what the library
 * makes best of bf16 in hardware; other products of bf16 go through gemm_blocks.c. What is left, a transposed A
 * of bf16 (gradients of weights) without hardware for it, is widened here in tiles, which the library
 * multiplies in fp32. Tiles (20 MiB) are taken on first use. They are that large because every tile of B is
 * copied once for each M rows of A, and A, where k fits a tile, once in all.
 */
#include "op/cpu/gemm.h"

#include <pthread.h>

#include "base/integer.h"
#include "base/mem.h"
#include "op/cpu/cpu.h"

enum {
    M = 1024, /* a tile of the result */
    N = 1024,
    K = 2048,
    STEP = 32, /* tiles are about as wide as each other, in steps of this */
    THIN = 64  /* columns up to which a product is LoRA's */
};

static struct {
    pthread_mutex_t lock;
    float *a, *b, *c;
} tiles = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* [rows, cols] of a bf16 matrix from its element [row, col] to a dense tile of floats. */
static void widen(const void *from, int64_t ld, int64_t row, int64_t col, int64_t rows, int64_t cols,
                  float *to) {
    const tn_kernels *kernels = tn_cpu_kernels();
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++)
        kernels->widen[1](cols, (const uint16_t *)from + (row + i) * ld + col, to + i * cols);
}

/* What the library would have done behind the sum. */
static void finish_tile(const tn_gemm *g, int64_t row, int64_t col, int64_t rows, int64_t cols, void *c,
                        const void *added, const void *bias) {
    const tn_kernels *kernels = tn_cpu_kernels();
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++)
        tn_gemm_finish(kernels, g, row + i, 1, col, cols, tiles.c + i * cols, cols, c, added, bias);
}

static tn_status tile(const tn_gemm *g, int64_t row, int64_t col, int64_t cols, bool a_ready, const void *a,
                      const void *b, void *c, const void *added, const void *bias) {
    int64_t rows = tn_min(M, g->m - row);
    for (int64_t from = 0; from < g->k; from += K) {
        int64_t depth = tn_min(K, g->k - from);
        if (!a_ready) widen(a, g->lda, from, row, depth, rows, tiles.a);
        if (g->b_transposed) widen(b, g->ldb, col, from, cols, depth, tiles.b);
        else widen(b, g->ldb, from, col, depth, cols, tiles.b);
        tn_gemm product = {.in = TN_DTYPE_F32,
                           .out = TN_DTYPE_F32,
                           .a_transposed = true,
                           .b_transposed = g->b_transposed,
                           .m = rows,
                           .n = cols,
                           .k = depth,
                           .lda = rows,
                           .ldb = g->b_transposed ? depth : cols,
                           .ldc = cols,
                           .alpha = 1,
                           .accumulate = from > 0};
        tn_status status = tn_gemm_library(&product, tiles.a, tiles.b, tiles.c, NULL, NULL);
        if (status != TN_OK) return status;
    }
    finish_tile(g, row, col, rows, cols, c, added, bias);
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

/* Columns of a tile: as few tiles as hold n, about equally wide. */
static int64_t tile_columns(int64_t n) {
    int64_t count = (n + N - 1) / N, columns = (n + count - 1) / count;
    return tn_min(N, (columns + STEP - 1) / STEP * STEP);
}

static tn_status in_tiles(const tn_gemm *g, const void *a, const void *b, void *c, const void *added,
                          const void *bias) {
    int64_t step = tile_columns(g->n);
    pthread_mutex_lock(&tiles.lock);
    tn_status status = take_tiles();
    for (int64_t row = 0; row < g->m; row += M)
        for (int64_t col = 0; status == TN_OK && col < g->n; col += step)
            status = tile(g, row, col, tn_min(step, g->n - col), col > 0 && g->k <= K, a, b, c, added, bias);
    pthread_mutex_unlock(&tiles.lock);
    return status;
}

/* Products the library makes of bf16 in hardware as well as our own blocks or better: thin ones, transposed
 * ones, and dense ones with nothing behind the sum. */
static bool suits_library(const tn_gemm *g) {
    bool bare = g->alpha == 1 && !g->accumulate && !g->biased && !g->ld_added;
    bool dense = g->lda == g->k && g->ldc == g->n;
    return g->a_transposed || g->n <= THIN || (bare && dense);
}

tn_status tn_gemm_run(const tn_gemm *g, const void *a, const void *b, void *c, const void *added,
                      const void *bias) {
    const tn_gemm_rows rows = {b, 0, g->k, g->ldb};
    const tn_gemm_stack stack = {&rows, 1, NULL, 0};
    const bool hardware = tn_cpu_kernels()->panel[1] != NULL;
    if (g->in == TN_DTYPE_F32 || (hardware && suits_library(g)))
        return tn_gemm_library(g, a, b, c, added, bias);
    if (g->a_transposed) return in_tiles(g, a, b, c, added, bias);
    return tn_gemm_stacked(g, &stack, (void *)(uintptr_t)a, c, added, bias); /* no inners: A is only read */
}

void tn_gemm_finish(const tn_kernels *kernels, const tn_gemm *g, int64_t row, int64_t rows, int64_t col,
                    int64_t cols, float *sums, int64_t ld, void *c, const void *added, const void *bias) {
    tn_view to = {c, g->ldc}, from = {(void *)(uintptr_t)added, g->ld_added},
            biases = {(void *)(uintptr_t)bias, 0};
    const tn_finish finish = {.alpha = g->alpha,
                              .accumulate = g->accumulate,
                              .to = tn_at(g->out, to, row, col),
                              .ld = g->ldc,
                              .bias = g->biased ? tn_at(g->out, biases, 0, col) : NULL,
                              .added = g->ld_added ? tn_at(g->added, from, row, col) : NULL,
                              .ld_added = g->ld_added,
                              .added_half = g->added == TN_DTYPE_BF16};
    kernels->finish[g->out == TN_DTYPE_BF16](rows, cols, sums, ld, &finish);
}
