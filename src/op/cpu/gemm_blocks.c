/* gemm_blocks.c: products of bf16 matrices through the small products of kernels.h: B is packed once into
 * strips of columns in the order the kernels read, A is read where it lies, and what stands behind the sum is
 * done on a block of the result while it is in cache. LoRA costs a few more rows of B (gemm.h, a stacked B) and
 * columns of A that a task makes of its rows before it multiplies them. Where bf16 is not multiplied in
 * hardware, both operands are widened to floats on the way.
 *
 * A task is ROWS rows of A times a group of columns, so its rows of A stay in the core's second-level cache
 * while strips of B stream by. Where k does not fit DEPTH, the sums of HEIGHT x WIDTH results are kept between
 * passes. The packed B and the sums (at most 13 MiB) are taken on first use, what else is needed with the first
 * product that needs as much.
 */
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "op/cpu/cpu.h"
#include "op/cpu/gemm.h"

enum {
    ROWS = 256, /* of a block of the result */
    COLS = 128,
    STRIP = 32,       /* columns of B packed together, or half as many where there are no more */
    STEP = TN_STEP,   /* k of packed operands is padded to whole steps */
    FULL = 16,        /* rows of A that the kernels take at a time */
    CHUNK = 64,       /* of k packed at a time */
    DEPTH = 4096,     /* of k multiplied in one pass */
    WIDTH = 1024,     /* columns of B packed at once */
    HEIGHT = 1024,    /* rows whose sums are kept between passes */
    PACKED = 9 << 20, /* bytes of packed B, */
    CACHED = 4 << 20, /* and of those that stay in the second-level cache beside rows of A */
    TASKS = 4,        /* wanted for each thread */
    NEAR_BF16 = 640,  /* k of a strip that stays in the first-level cache while rows of A go by */
    NEAR_F32 = 128
};

/* Rows of a stacked B side by side with the columns of A they are multiplied with. */
typedef struct operand {
    const tn_gemm_rows *rows;
    int count;
    bool transposed;
    int64_t k, n;
} operand;

static struct {
    pthread_mutex_t lock;
    char *packed; /* PACKED bytes */
    float *sums;  /* [HEIGHT/ROWS, WIDTH/COLS] blocks of [ROWS, COLS] */
    char *own;    /* own_bytes of each thread */
    char *inner;  /* packed D of all inners */
    int64_t own_capacity, inner_capacity;
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* One product on its way. `kind` is 1 where elements are bf16, multiplied in hardware, else floats. */
typedef struct work {
    const tn_gemm *g;
    const tn_gemm_stack *stack;
    const tn_kernels *kernels;
    int kind;
    int64_t size; /* bytes of an element */
    int64_t near; /* NEAR_… of that kind */
    int64_t sum_bytes,
        own_bytes; /* a thread's: blocks of sums, and those and rows of A that had to be copied */
    void *a, *c;
    const void *added, *bias;
} work;

/* What one pass multiplies: columns col … col+cols-1 and rows row … row+rows-1 of the result, over k from …
 * from+depth-1. */
typedef struct pass {
    bool first, last; /* of the passes over these results */
    bool inner;       /* makes the columns of A first */
    int64_t row, rows, col, cols, from, depth;
} pass;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t parts_of(int64_t count, int64_t size) { return (count + size - 1) / size; }
static int64_t up_to(int64_t count, int64_t step) { return parts_of(count, step) * step; }

/* ---- Packing B ------------------------------------------------------------------------------------------ */

static int64_t strip_width(int64_t n) { return n <= STRIP / 2 ? STRIP / 2 : STRIP; }

/* Where the last step of k begins: it ends with k, so that A can be read where it lies, and what it repeats of
 * the step before is zero in the packed B. */
static int64_t last_step(int64_t k) { return k < STEP ? 0 : k - STEP; }
static int64_t step_begin(int64_t k, int64_t step) { return smaller(step * STEP, last_step(k)); }

static const uint16_t *row_of_b(const operand *b, const tn_gemm_rows *rows, int64_t k, int64_t col) {
    int64_t row = k - rows->at;
    return (const uint16_t *)rows->b + (b->transposed ? col * rows->ld + row : row * rows->ld + col);
}

/* The rows of B that hold all of k … k+depth-1, or NULL. */
static const tn_gemm_rows *rows_holding(const operand *b, int64_t k, int64_t depth) {
    for (int i = 0; i < b->count; i++)
        if (b->rows[i].at <= k && k + depth <= b->rows[i].at + b->rows[i].k) return &b->rows[i];
    return NULL;
}

/* Elements of B in k first … k+depth-1 and columns col … col+cols-1 to `block`, which stands for k from `k` on:
 * [width, depth] if B is transposed, else [depth, width], in elements of that kind. Others become zero. */
static void gather(const work *w, const operand *b, int64_t k, int64_t depth, int64_t first, int64_t col,
                   int64_t cols, int64_t width, void *block) {
    memset(block, 0, (size_t)(depth * width * w->size));
    for (int i = 0; i < b->count; i++) {
        const tn_gemm_rows *rows = &b->rows[i];
        int64_t from = larger(first, rows->at), to = smaller(k + depth, rows->at + rows->k);
        if (from >= to) continue;
        int64_t lines = b->transposed ? cols : to - from, count = b->transposed ? to - from : cols;
        int64_t ld = b->transposed ? depth : width, place = b->transposed ? from - k : (from - k) * width;
        for (int64_t line = 0; line < lines; line++) {
            const uint16_t *source = row_of_b(b, rows, from, col) + line * rows->ld;
            char *target = (char *)block + (place + line * ld) * w->size;
            if (w->kind) memcpy(target, source, (size_t)count * 2);
            else w->kernels->widen[1](count, source, (float *)(void *)target);
        }
    }
}

/* Columns col … col+cols-1 of B, k from … from+depth-1, to a strip of `width` in the kernels' order. */
static void pack_strip(const work *w, const operand *b, int64_t from, int64_t depth, int64_t col, int64_t cols,
                       int64_t width, char *to) {
    float block[STRIP * CHUNK];
    for (int64_t k = 0, taken; k < up_to(depth, STEP); k += taken) {
        taken = smaller(CHUNK, larger(depth / STEP * STEP - k, STEP));
        int64_t begin = from + (taken == STEP ? step_begin(depth, k / STEP) : k),
                ld = b->transposed ? taken : width;
        const tn_gemm_rows *rows =
            w->kind && cols == width && begin == from + k ? rows_holding(b, begin, taken) : NULL;
        const void *source = block;
        char *place = to + k * width * w->size;
        if (rows) source = row_of_b(b, rows, begin, col), ld = rows->ld;
        else gather(w, b, begin, taken, from + k, col, cols, width, block);
        if (b->transposed) w->kernels->pack_transposed[w->kind](width, taken, source, ld, place);
        else w->kernels->pack[w->kind](taken, width, width, source, ld, place);
    }
}

static operand stacked(const work *w) {
    return (operand){w->stack->rows, w->stack->count, w->g->b_transposed, w->g->k, w->g->n};
}

static int64_t strip_bytes(const work *w, int64_t depth, int64_t width) {
    return up_to(depth, STEP) * width * w->size;
}

static void pack(const work *w, const pass *s, int64_t strip) {
    operand b = stacked(w);
    int64_t width = strip_width(w->g->n), col = strip * width;
    pack_strip(w, &b, s->from, s->depth, s->col + col, smaller(width, s->cols - col), width,
               memory.packed + strip * strip_bytes(w, s->depth, width));
}

/* ---- Rows of A ------------------------------------------------------------------------------------------ */

/* Rows of A as the kernels want them. */
typedef struct left {
    const char *data;
    int64_t stride, rows;
    int64_t back; /* columns that the last step of k begins before its place */
} left;

static uint16_t *row_of_a(const work *w, int64_t row, int64_t col) {
    return (uint16_t *)w->a + row * w->g->lda + col;
}

static void copy_columns(const work *w, const uint16_t *from, int64_t count, char *to) {
    if (w->kind) memcpy(to, from, (size_t)count * 2);
    else w->kernels->widen[1](count, from, (float *)(void *)to);
}

/* Some of the columns that B's rows are multiplied with. */
typedef struct span {
    int64_t from, depth; /* all of them */
    int64_t k, taken; /* those from+k … from+k+taken-1; k is whole steps, and so is `taken` but for the last */
} span;

/* In place unless `copies`, or copied to `buffer` as packed B has them, padded with zeros. */
static left rows_of_a(const work *w, int64_t row, int64_t rows, const span *s, bool copies, char *buffer) {
    int64_t full = up_to(rows, FULL), stride = up_to(s->taken, STEP), whole = stride - STEP;
    bool ends = s->k + s->taken == s->depth;
    int64_t last = ends ? last_step(s->depth) : s->k + whole, there = smaller(STEP, s->depth);
    if (!copies && w->kind && rows == full && s->depth >= STEP)
        return (left){(const char *)row_of_a(w, row, s->from + s->k), w->g->lda, rows, stride - s->taken};
    memset(buffer + rows * stride * w->size, 0, (size_t)((full - rows) * stride * w->size));
    for (int64_t i = 0; i < rows; i++) {
        char *line = buffer + i * stride * w->size, *end = line + whole * w->size;
        copy_columns(w, row_of_a(w, row + i, s->from + s->k), whole, line);
        copy_columns(w, row_of_a(w, row + i, s->from + last), there, end);
        memset(end + there * w->size, 0, (size_t)((STEP - there) * w->size));
    }
    return (left){buffer, stride, full, 0};
}

/* ---- Multiplying ---------------------------------------------------------------------------------------- */

/* Steps of k taken at a time, about as many as each other. */
static int64_t near_of(const work *w, int64_t depth) {
    int64_t padded = up_to(depth, STEP);
    return up_to(parts_of(padded, parts_of(padded, w->near)), STEP);
}

/* Adds the product of rows of A and `cols` columns to `block`, or sets it; their strips begin at `b`, `bytes`
 * apart. */
static void multiply_strips(const work *w, const left *a, int64_t depth, const char *b, int64_t bytes,
                            int64_t width, int64_t cols, bool add, float *block) {
    for (int64_t at = 0; at < cols; at += width, b += bytes)
        w->kernels->panel[w->kind](a->rows, width, up_to(depth, STEP), a->data, a->stride, a->back, b,
                                   block + at, COLS, add);
}

/* Makes the columns of A that come first, of `rows` rows from `row`; `own` is the thread's memory. */
static void make_columns(const work *w, int64_t row, int64_t rows, char *own) {
    const char *packed = memory.inner;
    float *block = (float *)(void *)own;
    for (int i = 0; i < w->stack->inner_count; i++) {
        const tn_gemm_inner *inner = &w->stack->inners[i];
        int64_t width = strip_width(inner->r), bytes = strip_bytes(w, inner->k, width);
        int64_t near = near_of(w, inner->k);
        for (int64_t col = 0, cols; col < inner->r; col += COLS, packed += parts_of(cols, width) * bytes) {
            cols = smaller(COLS, inner->r - col);
            for (int64_t k = 0; k < inner->k; k += near) {
                const span columns = {inner->from, inner->k, k, smaller(near, inner->k - k)};
                left a = rows_of_a(w, row, rows, &columns, false, own + w->sum_bytes);
                multiply_strips(w, &a, columns.taken, packed + k * width * w->size, bytes, width, cols, k > 0,
                                block);
            }
            for (int64_t line = 0; line < rows; line++)
                w->kernels->narrow[1](cols, block + line * COLS, row_of_a(w, row + line, inner->to + col));
        }
    }
}

/* The sums of rows from `row` and columns from `col` of the pass; the task's columns begin at `from`. */
static float *block_of(const work *w, const pass *s, int64_t row, int64_t col, int64_t from, char *own) {
    if (!s->first || !s->last) return memory.sums + (row / ROWS * (WIDTH / COLS) + col / COLS) * ROWS * COLS;
    return (float *)(void *)own + (s->depth > w->near ? (col - from) * ROWS : 0);
}

/* `rows` rows from `row` times columns from … to-1 of the pass. Where k is taken in several steps, kernels may
 * want rows of A copied for each: they lie closer together then, on fewer pages. */
static void multiply(const work *w, const pass *s, int64_t row, int64_t rows, int64_t from, int64_t to,
                     char *own) {
    int64_t width = strip_width(w->g->n), bytes = strip_bytes(w, s->depth, width), near = near_of(w, s->depth);
    for (int64_t k = 0; k < s->depth; k += near) {
        const span columns = {s->from, s->depth, k, smaller(near, s->depth - k)};
        bool last = s->last && k + near >= s->depth;
        bool copies = w->kernels->dense && near < s->depth;
        left a = rows_of_a(w, s->row + row, rows, &columns, copies, own + w->sum_bytes);
        for (int64_t col = from; col < to; col += COLS) {
            int64_t cols = smaller(COLS, to - col);
            float *block = block_of(w, s, row, col, from, own);
            const char *b = memory.packed + col / width * bytes + k * width * w->size;
            multiply_strips(w, &a, columns.taken, b, bytes, width, cols, !s->first || k > 0, block);
            if (last)
                tn_gemm_finish(w->kernels, w->g, s->row + row, rows, s->col + col, cols, block, COLS, w->c,
                               w->added, w->bias);
        }
    }
}

/* Columns of a task: all, or fewer where rows alone make too few tasks. */
static int64_t group_of(const pass *s) {
    int64_t blocks = parts_of(s->cols, COLS), wanted = (int64_t)TASKS * omp_get_max_threads();
    int64_t groups = smaller(blocks, parts_of(wanted, parts_of(s->rows, ROWS)));
    return parts_of(blocks, groups) * COLS;
}

static void run_pass(const work *w, const pass *s) {
    int64_t group = group_of(s), groups = parts_of(s->cols, group),
            strips = parts_of(s->cols, strip_width(w->g->n));
    int64_t row_tasks = parts_of(s->rows, ROWS), tasks = row_tasks * groups;
    bool apart = s->inner && groups > 1; /* else the task that reads the rows makes their columns */
#pragma omp parallel
    {
        char *own = memory.own + omp_get_thread_num() * w->own_bytes;
#pragma omp for schedule(static)
        for (int64_t strip = 0; strip < strips; strip++) pack(w, s, strip);
        if (apart) {
#pragma omp for schedule(dynamic, 1)
            for (int64_t task = 0; task < row_tasks; task++)
                make_columns(w, s->row + task * ROWS, smaller(ROWS, s->rows - task * ROWS), own);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; task++) {
            int64_t row = task / groups * ROWS, rows = smaller(ROWS, s->rows - row),
                    col = task % groups * group;
            if (s->inner && !apart) make_columns(w, s->row + row, rows, own);
            multiply(w, s, row, rows, col, smaller(col + group, s->cols), own);
        }
    }
}

/* Columns of B packed at once. */
static int64_t width_of(const work *w) {
    int64_t column = strip_bytes(w, smaller(w->g->k, DEPTH), 1), room = w->kind ? CACHED : PACKED;
    int64_t most = larger(COLS, smaller(WIDTH, room / column / COLS * COLS));
    return smaller(most, up_to(parts_of(w->g->n, parts_of(w->g->n, most)), STRIP));
}

static void run(const work *w) {
    const tn_gemm *g = w->g;
    const bool deep = g->k > DEPTH;
    const int64_t height = deep ? HEIGHT : g->m, width = width_of(w);
    for (int64_t col = 0; col < g->n; col += width)
        for (int64_t row = 0; row < g->m; row += height)
            for (int64_t k = 0; k < g->k; k += DEPTH) {
                pass s = {.first = k == 0,
                          .last = k + DEPTH >= g->k,
                          .inner = col == 0 && k == 0,
                          .row = row,
                          .rows = smaller(height, g->m - row),
                          .col = col,
                          .cols = smaller(width, g->n - col),
                          .from = k,
                          .depth = smaller(DEPTH, g->k - k)};
                run_pass(w, &s);
            }
}

/* ---- Memory --------------------------------------------------------------------------------------------- */

static tn_status grow(char **bytes, int64_t *capacity, int64_t needed, const char *what) {
    if (needed <= *capacity) return TN_OK;
    free(*bytes);
    *bytes = NULL, *capacity = 0;
    tn_status status = tn_alloc_aligned(bytes, needed, what);
    if (status == TN_OK) *capacity = needed;
    return status;
}

static int64_t inner_bytes(const work *w) {
    int64_t bytes = 0;
    for (int i = 0; i < w->stack->inner_count; i++) {
        const tn_gemm_inner *inner = &w->stack->inners[i];
        int64_t width = strip_width(inner->r);
        bytes += parts_of(inner->r, width) * strip_bytes(w, inner->k, width);
    }
    return bytes;
}

static tn_status take_memory(work *w) {
    tn_status status = TN_OK;
    bool deep = w->g->k > DEPTH, blocks = !deep && w->g->k > w->near;
    w->sum_bytes = ROWS * 4 * (blocks ? smaller(WIDTH, up_to(w->g->n, COLS)) : COLS);
    w->own_bytes = w->sum_bytes + ROWS * w->near * w->size;
    if (!memory.packed) TN_TRY(tn_alloc_aligned(&memory.packed, PACKED, "packed weights"));
    if (deep && !memory.sums)
        TN_TRY(tn_alloc_aligned(&memory.sums, (int64_t)HEIGHT * WIDTH * 4, "sums of a product"));
    TN_TRY(
        grow(&memory.own, &memory.own_capacity, omp_get_max_threads() * w->own_bytes, "blocks of a product"));
    status = grow(&memory.inner, &memory.inner_capacity, inner_bytes(w), "packed LoRA weights");
done:
    return status;
}

static void pack_inners(const work *w) {
    char *to = memory.inner;
    for (int i = 0; i < w->stack->inner_count; i++) {
        const tn_gemm_inner *inner = &w->stack->inners[i];
        const tn_gemm_rows rows = {inner->d, 0, inner->k, inner->ld};
        const operand d = {&rows, 1, inner->transposed, inner->k, inner->r};
        int64_t width = strip_width(inner->r);
        for (int64_t col = 0; col < inner->r; col += width, to += strip_bytes(w, inner->k, width))
            pack_strip(w, &d, 0, inner->k, col, smaller(width, inner->r - col), width, to);
    }
}

static void make_all_columns(const work *w) {
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t row = 0; row < w->g->m; row += ROWS)
        make_columns(w, row, smaller(ROWS, w->g->m - row), memory.own + omp_get_thread_num() * w->own_bytes);
}

tn_status tn_gemm_stacked(const tn_gemm *g, const tn_gemm_stack *stack, void *a, void *c, const void *added,
                          const void *bias) {
    work w = {
        .g = g, .stack = stack, .kernels = tn_cpu_kernels(), .a = a, .c = c, .added = added, .bias = bias};
    w.kind = w.kernels->panel[1] != NULL;
    w.size = w.kind ? 2 : 4;
    w.near = w.kind ? NEAR_BF16 : NEAR_F32;
    pthread_mutex_lock(&memory.lock);
    tn_status status = take_memory(&w);
    if (status == TN_OK) {
        pack_inners(&w);
        if (g->n > 0) run(&w);
        else make_all_columns(&w);
    }
    pthread_mutex_unlock(&memory.lock);
    return status;
}
