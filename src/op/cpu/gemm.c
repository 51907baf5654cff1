/* gemm.c: which way a product is made. fp32 goes to the library as it stands. bf16 goes through tiles: operands
 * are copied into dense ones, widened to fp32 where the processor does not multiply bf16, the library sums a
 * tile in fp32, and what stands behind the sum is done here, on the tile's row while it is in cache. The copy
 * lets a second, thin product (LoRA) join the first along k, and the library's own ways of finishing a bf16
 * result cost as much as the product (docs/speed.md). Tiles (20 MiB) are taken on first
 * use. They are that large because every tile of B is copied once for each M rows of A, and A, where k fits a
 * tile, once in all.
 */
#include "op/cpu/gemm.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "op/cpu/cpu.h"

enum {
    M = 1024, /* a tile of the result */
    N = 1024,
    K = 2048,
    STEP = 32,   /* of k in AMX and AVX-512 products of bf16 */
    CHUNK = 256, /* elements scaled at a time */
    THIN = 64    /* columns up to which a product is LoRA's */
};

bool tn_gemm_has_bf16(void) {
#if defined(__x86_64__)
    return !getenv("TENON_CPU_KERNELS") && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

static struct {
    pthread_mutex_t lock;
    void *a, *b; /* of tile_type, with room for fp32: tests change the type */
    float *c;
} tiles = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Operands in tiles: bf16 where that is multiplied in hardware, else fp32. */
static tn_dtype tile_type(void) { return tn_gemm_has_bf16() ? TN_DTYPE_BF16 : TN_DTYPE_F32; }

/* One row of bf16 numbers to a tile, times `factor`. */
static void copy_row(const tn_kernels *kernels, int64_t count, const void *from, float factor, void *to) {
    if (tile_type() == TN_DTYPE_F32) {
        kernels->widen[1](count, from, to);
        if (factor != 1) kernels->scale[0](count, factor, to, to);
    } else if (factor == 1) memcpy(to, from, (size_t)count * 2);
    else
        for (int64_t k = 0; k < count; k += CHUNK) {
            float values[CHUNK];
            int64_t width = smaller(CHUNK, count - k);
            kernels->widen[1](width, (const uint16_t *)from + k, values);
            kernels->scale[1](width, factor, values, (uint16_t *)to + k);
        }
}

/* [rows, cols] from element [row, col] of a bf16 matrix to a tile of rows `to_ld` apart, times `factor`. */
static void copy_block(const void *from, int64_t ld, int64_t row, int64_t col, int64_t rows, int64_t cols,
                       float factor, void *to, int64_t to_ld) {
    const tn_kernels *kernels = tn_cpu_kernels();
    tn_view view = {(void *)(uintptr_t)from, ld}, tile = {to, to_ld};
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++)
        copy_row(kernels, cols, tn_at(TN_DTYPE_BF16, view, row + i, col), factor,
                 tn_at(tile_type(), tile, i, 0));
}

static void clear_block(int64_t rows, int64_t cols, void *to, int64_t to_ld) {
    tn_view tile = {to, to_ld};
    for (int64_t i = 0; i < rows; i++)
        memset(tn_at(tile_type(), tile, i, 0), 0, (size_t)(cols * tn_element_bytes(tile_type())));
}

/* One operand of a product and of its tail, as one matrix whose k runs through both. */
typedef struct operand {
    const void *data, *tail;
    int64_t ld, tail_ld;
    bool k_down; /* k counts rows, not columns */
    float factor;
} operand;

/* Steps of k in a tile: whole ones of the hardware's products, which are slow with a rest. */
static int64_t padded(int64_t depth) {
    return tile_type() == TN_DTYPE_BF16 ? (depth + STEP - 1) / STEP * STEP : depth;
}

/* Steps from … from+depth-1 of k, then zeros up to the padded depth, and `count` of the other dimension from
 * `first`: [count, padded], or where k goes down [padded, count]. The first product has k steps. */
static void copy_operand(const operand *o, int64_t k, int64_t from, int64_t depth, int64_t first, int64_t count,
                         void *to) {
    int64_t own = smaller(depth, k > from ? k - from : 0), rest = depth - own, skipped = from + own - k;
    int64_t width = padded(depth), ld = o->k_down ? count : width;
    tn_view tile = {to, ld};
    void *behind = tn_at(tile_type(), tile, o->k_down ? own : 0, o->k_down ? 0 : own);
    void *end = tn_at(tile_type(), tile, o->k_down ? depth : 0, o->k_down ? 0 : depth);
    if (o->k_down) {
        if (own) copy_block(o->data, o->ld, from, first, own, count, 1, to, ld);
        if (rest) copy_block(o->tail, o->tail_ld, skipped, first, rest, count, o->factor, behind, ld);
        if (width > depth) clear_block(width - depth, count, end, ld);
    } else {
        if (own) copy_block(o->data, o->ld, first, from, count, own, 1, to, ld);
        if (rest) copy_block(o->tail, o->tail_ld, first, skipped, count, rest, o->factor, behind, ld);
        if (width > depth) clear_block(count, width - depth, end, ld);
    }
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

/* `k` counts the tail's steps as well. A's tile is there already where `a_ready`. */
static tn_status block(const tn_gemm *g, int64_t k, int64_t row, int64_t col, int64_t cols, bool a_ready,
                       const operand *a, const operand *b, void *c, const void *added, const void *bias) {
    int64_t rows = smaller(M, g->m - row);
    for (int64_t from = 0; from < k; from += K) {
        int64_t depth = smaller(K, k - from), width = padded(depth);
        if (!a_ready) copy_operand(a, g->k, from, depth, row, rows, tiles.a);
        copy_operand(b, g->k, from, depth, col, cols, tiles.b);
        tn_gemm tile = {.in = tile_type(),
                        .out = TN_DTYPE_F32,
                        .a_transposed = g->a_transposed,
                        .b_transposed = g->b_transposed,
                        .m = rows,
                        .n = cols,
                        .k = width,
                        .lda = g->a_transposed ? rows : width,
                        .ldb = g->b_transposed ? width : cols,
                        .ldc = cols,
                        .alpha = 1,
                        .accumulate = from > 0};
        tn_status status = tn_gemm_library(&tile, tiles.a, tiles.b, tiles.c, NULL, NULL);
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

/* Columns of a tile: as few tiles as hold n, about equally wide. */
static int64_t tile_columns(int64_t n) {
    int64_t count = (n + N - 1) / N, columns = (n + count - 1) / count;
    return smaller(N, (columns + STEP - 1) / STEP * STEP);
}

static tn_status in_tiles(const tn_gemm *g, int64_t k, const operand *a, const operand *b, void *c,
                          const void *added, const void *bias) {
    int64_t step = tile_columns(g->n);
    pthread_mutex_lock(&tiles.lock);
    tn_status status = take_tiles();
    for (int64_t row = 0; row < g->m; row += M)
        for (int64_t col = 0; status == TN_OK && col < g->n; col += step)
            status = block(g, k, row, col, smaller(step, g->n - col), col > 0 && k <= K, a, b, c, added, bias);
    pthread_mutex_unlock(&tiles.lock);
    return status;
}

tn_status tn_gemm_joined(const tn_gemm *g, const tn_gemm_tail *tail, const void *a, const void *b, void *c,
                         const void *added, const void *bias) {
    operand left = {a, tail->a, g->lda, tail->lda, g->a_transposed, tail->factor};
    operand right = {b, tail->b, g->ldb, tail->ldb, !g->b_transposed, 1};
    return in_tiles(g, g->k + tail->k, &left, &right, c, added, bias);
}

/* Products the library makes of bf16 in hardware at its best as they stand: with fp32 sums, thin ones, and
 * dense ones with nothing behind the sum. */
static bool suits_library(const tn_gemm *g) {
    bool bare = g->alpha == 1 && !g->accumulate && !g->biased && !g->ld_added;
    bool dense = g->lda == (g->a_transposed ? g->m : g->k) && g->ldc == g->n;
    return (g->out == TN_DTYPE_F32 && !g->ld_added) || g->n <= THIN || (bare && dense);
}

tn_status tn_gemm_run(const tn_gemm *g, const void *a, const void *b, void *c, const void *added,
                      const void *bias) {
    const tn_gemm_tail none = {0};
    if (g->in == TN_DTYPE_F32 || (tn_gemm_has_bf16() && suits_library(g)))
        return tn_gemm_library(g, a, b, c, added, bias);
    return tn_gemm_joined(g, &none, a, b, c, added, bias);
}
