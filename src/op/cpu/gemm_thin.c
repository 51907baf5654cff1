/* gemm_thin.c: gradients of LoRA's matrices: Lᵀ·X, where L has few columns and both have the rows of a
 * micro-batch. The library reads X for each L anew and column by column; here X goes by once, in strips of
 * columns that are packed for the small products of kernels.h, and all that L holds side by side is multiplied
 * with it.
 *
 * A task is a strip. L is transposed before, rows padded with zeros to whole steps; its place and the threads'
 * blocks are taken on first use, and grow.
 */
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/integer.h"
#include "base/mem.h"
#include "op/cpu/cpu.h"
#include "op/cpu/gemm.h"

enum {
    STRIP = 192, /* columns of X of a task */
    DEPTH = 192, /* rows of X packed at a time */
    STEP = 32,   /* rows are padded to whole steps of AMX */
    FULL = 16    /* columns of L are padded to what the kernels take at a time */
};

static struct {
    pthread_mutex_t lock;
    char *bytes;
    int64_t capacity;
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* One product on its way. */
typedef struct work {
    const tn_kernels *kernels;
    const tn_gradient *parts;
    int count;
    int64_t rows, n, ldl, ldx;
    const uint16_t *l, *x;
    int64_t width, depth; /* of Lᵀ: columns of L and rows, padded */
    uint16_t *turned;     /* Lᵀ [width, depth] */
} work;

/* A thread's own memory. */
typedef struct own {
    uint16_t packed[DEPTH * STRIP], tail[STEP * STRIP];
    float sums[TN_GRADIENT_COLUMNS * STRIP]; /* [width, STRIP] */
} own;

static int64_t up_to(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

static int64_t columns_of(const tn_gradient *parts, int count) {
    int64_t columns = 0;
    for (int i = 0; i < count; i++) columns += parts[i].r;
    return columns;
}

/* Rows row … row+STEP-1 of L to columns of Lᵀ. */
static void turn(const work *w, int64_t row) {
    int64_t columns = columns_of(w->parts, w->count), there = tn_min(STEP, w->rows - row);
    for (int64_t j = 0; j < w->width; j++) {
        uint16_t *to = w->turned + j * w->depth + row;
        for (int64_t i = 0; i < STEP; i++) to[i] = j < columns && i < there ? w->l[(row + i) * w->ldl + j] : 0;
    }
}

/* Rows of X from `row` on, in columns col … col+cols-1, packed; zeros behind the last. Returns their number. */
static int64_t pack(const work *w, int64_t row, int64_t col, int64_t cols, own *o) {
    int64_t whole = tn_min(DEPTH, (w->rows - row) / STEP * STEP), rest = w->rows - row - whole;
    w->kernels->pack[1](whole, cols, STRIP, w->x + row * w->ldx + col, w->ldx, o->packed);
    if (whole == DEPTH || rest == 0) return whole;
    memset(o->tail, 0, sizeof o->tail);
    for (int64_t i = 0; i < rest; i++)
        memcpy(o->tail + i * STRIP, w->x + (row + whole + i) * w->ldx + col, (size_t)cols * 2);
    w->kernels->pack[1](STEP, STRIP, STRIP, o->tail, STRIP, o->packed + whole * STRIP);
    return whole + STEP;
}

/* The sums of a strip to where each part's gradient stands. */
static void give(const work *w, int64_t col, int64_t cols, const float *sums) {
    for (int p = 0; p < w->count; p++) {
        const tn_gradient *part = &w->parts[p];
        for (int64_t i = 0; i < part->r; i++, sums += STRIP) {
            if (!part->transposed)
                w->kernels->add_scaled[0](cols, part->factor, sums, part->to + i * w->n + col);
            for (int64_t j = 0; part->transposed && j < cols; j++)
                part->to[(col + j) * part->r + i] += part->factor * sums[j];
        }
    }
}

static void strip(const work *w, int64_t col, own *o) {
    int64_t cols = tn_min(STRIP, w->n - col);
    for (int64_t row = 0, depth; row < w->rows; row += depth) {
        depth = pack(w, row, col, cols, o);
        w->kernels->panel[1](w->width, STRIP, depth, w->turned + row, w->depth, 0, o->packed, o->sums, STRIP,
                             row > 0);
    }
    give(w, col, cols, o->sums);
}

static tn_status take_memory(work *w, own **owns) {
    int64_t turned = up_to(w->width * w->depth * 2, 64),
            needed = turned + omp_get_max_threads() * (int64_t)sizeof(own);
    if (needed > memory.capacity) {
        free(memory.bytes);
        memory.bytes = NULL, memory.capacity = 0;
        tn_status status = tn_alloc_aligned(&memory.bytes, needed, "blocks of gradients");
        if (status != TN_OK) return status;
        memory.capacity = needed;
    }
    w->turned = (uint16_t *)(void *)memory.bytes;
    *owns = (own *)(void *)(memory.bytes + turned);
    return TN_OK;
}

bool tn_gemm_gradients_here(const tn_gradient *parts, int count) {
    return tn_cpu_kernels()->panel[1] != NULL && columns_of(parts, count) <= TN_GRADIENT_COLUMNS;
}

tn_status tn_gemm_gradients(const tn_gradient *parts, int count, int64_t rows, const void *l, int64_t ldl,
                            const void *x, int64_t ldx, int64_t n) {
    work w = {tn_cpu_kernels(),  parts, count, rows, n, ldl, ldx, l, x, up_to(columns_of(parts, count), FULL),
              up_to(rows, STEP), NULL};
    own *owns;
    pthread_mutex_lock(&memory.lock);
    tn_status status = take_memory(&w, &owns);
    if (status == TN_OK) {
#pragma omp parallel
        {
#pragma omp for schedule(static)
            for (int64_t row = 0; row < rows; row += STEP) turn(&w, row);
#pragma omp for schedule(dynamic, 1)
            for (int64_t col = 0; col < n; col += STRIP) strip(&w, col, &owns[omp_get_thread_num()]);
        }
    }
    pthread_mutex_unlock(&memory.lock);
    return status;
}
