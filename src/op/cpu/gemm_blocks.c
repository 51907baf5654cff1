/* gemm_blocks.c: products of bf16 matrices through the small products of kernels.h: B is packed once into
 * strips of columns in the order the kernels read, A is read where it lies, and what stands behind the sum is
 * done on a block of the result while it is in cache. A second, thin product (LoRA) joins the first as one more
 * piece of k. Where bf16 is not multiplied in hardware, both operands are widened to floats on the way.
 *
 * A task is ROWS rows of A times a group of columns, so its rows of A stay in the core's second-level cache
 * while strips of B stream by. Where k does not fit DEPTH, the sums of HEIGHT x WIDTH results are kept between
 * passes. The packed B and the sums (at most 13 MiB) are taken on first use, a thread's block with the first
 * product of that many threads.
 */
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "op/cpu/cpu.h"
#include "op/cpu/gemm.h"

enum {
    ROWS = 128, /* of a block of the result */
    COLS = 128,
    STRIP = 32,      /* columns of B packed together */
    STEP = 32,       /* k of packed operands is padded to whole steps of AMX */
    FULL = 16,       /* rows of A that the kernels take at a time */
    CHUNK = 64,      /* of k packed at a time */
    DEPTH = 2304,    /* of k packed at once */
    WIDTH = 1024,    /* columns of B packed at once */
    HEIGHT = 1024,   /* rows whose sums are kept between passes */
    TASKS = 4,       /* wanted for each thread */
    NEAR_BF16 = 384, /* steps of k of a strip that fill half the first-level cache: A needs the other half */
    NEAR_F32 = 128
};

/* A product, or its tail, or a part of either along k. */
typedef struct piece {
    const void *a, *b;
    int64_t k, lda, ldb;
    float after; /* what the sum so far is multiplied with behind this piece */
} piece;

static struct {
    pthread_mutex_t lock;
    char *packed; /* [DEPTH, WIDTH] elements */
    float *sums;  /* [HEIGHT/ROWS, WIDTH/COLS] blocks of [ROWS, COLS] */
    char *own;    /* own_bytes of each thread: a block of sums, and rows of A that had to be copied */
    int64_t own_capacity;
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* One product on its way. `kind` is 1 where elements are bf16, multiplied in hardware, else floats. */
typedef struct work {
    const tn_gemm *g;
    const tn_kernels *kernels;
    int kind;
    int64_t size; /* bytes of an element */
    int64_t near; /* NEAR_… of that kind */
    int64_t own_bytes;
    void *c;
    const void *added, *bias;
} work;

/* What one pass multiplies: columns col … col+cols-1 and rows row … row+rows-1 of the result. */
typedef struct pass {
    const piece *pieces;
    int count;
    bool first, last; /* of the passes over these results */
    int64_t row, rows, col, cols;
} pass;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t parts_of(int64_t count, int64_t size) { return (count + size - 1) / size; }
static int64_t up_to(int64_t count, int64_t step) { return parts_of(count, step) * step; }

static int64_t padded(int64_t k) { return up_to(k, STEP); }

/* Element [row, col] of a bf16 matrix. */
static const void *bf16_at(const void *matrix, int64_t ld, int64_t row, int64_t col) {
    return (const uint16_t *)matrix + row * ld + col;
}

/* [rows, cols] bf16 numbers to elements [to_rows, to_cols], zero behind them. */
static void copy_block(const work *w, const void *from, int64_t ld, int64_t rows, int64_t cols, int64_t to_rows,
                       int64_t to_cols, void *to) {
    int64_t line = to_cols * w->size;
    for (int64_t i = 0; i < rows; i++) {
        char *place = (char *)to + i * line;
        if (w->kind) memcpy(place, bf16_at(from, ld, i, 0), (size_t)cols * 2);
        else w->kernels->widen[1](cols, bf16_at(from, ld, i, 0), (float *)(void *)place);
        memset(place + cols * w->size, 0, (size_t)((to_cols - cols) * w->size));
    }
    memset((char *)to + rows * line, 0, (size_t)((to_rows - rows) * line));
}

/* Columns col … col+width-1 of B, `width` ≤ STRIP, in the kernels' order for B with n = STRIP: from where they
 * lie, or by way of a block that is widened, or zero where B ends. */
static void pack_strip(const work *w, const piece *p, int64_t col, int64_t width, char *to) {
    float block[STRIP * CHUNK];
    for (int64_t k = 0; k < padded(p->k); k += CHUNK) {
        int64_t depth = smaller(CHUNK, padded(p->k) - k), there = smaller(depth, p->k - k);
        bool turned = w->g->b_transposed, whole = w->kind && width == STRIP && there == depth;
        const void *from = turned ? bf16_at(p->b, p->ldb, col, k) : bf16_at(p->b, p->ldb, k, col);
        char *place = to + k * STRIP * w->size;
        int64_t ld = p->ldb;
        if (!whole && turned) copy_block(w, from, ld, width, there, STRIP, depth, block);
        else if (!whole) copy_block(w, from, ld, there, width, depth, STRIP, block);
        if (!whole) from = block, ld = turned ? depth : STRIP;
        if (turned) w->kernels->pack_transposed[w->kind](STRIP, depth, from, ld, place);
        else w->kernels->pack[w->kind](depth, STRIP, STRIP, from, ld, place);
    }
}

static int64_t packed_depth(const pass *s) {
    int64_t depth = 0;
    for (int i = 0; i < s->count; i++) depth += padded(s->pieces[i].k);
    return depth;
}

/* Where a strip of columns begins; its pieces stand one behind the other. */
static char *strip_at(const work *w, const pass *s, int64_t strip) {
    return memory.packed + strip * packed_depth(s) * STRIP * w->size;
}

static void pack(const work *w, const pass *s, int64_t strip) {
    char *to = strip_at(w, s, strip);
    for (int i = 0; i < s->count; i++) {
        pack_strip(w, &s->pieces[i], s->col + strip * STRIP, smaller(STRIP, s->cols - strip * STRIP), to);
        to += padded(s->pieces[i].k) * STRIP * w->size;
    }
}

/* Rows of A as the kernels want them: in place, or copied to `buffer`. */
static tn_view rows_of_a(const work *w, const piece *p, int64_t row, int64_t rows, void *buffer) {
    const void *from = bf16_at(p->a, p->lda, row, 0);
    if (w->kind && rows % FULL == 0 && p->k % STEP == 0) return (tn_view){(void *)(uintptr_t)from, p->lda};
    copy_block(w, from, p->lda, rows, p->k, up_to(rows, FULL), padded(p->k), buffer);
    return (tn_view){buffer, padded(p->k)};
}

/* Adds the pieces' products of one strip of columns to `block`, or sets it. A strip's k goes by in steps that
 * stay in the first-level cache while rows of A come and go. */
static void multiply_strip(const work *w, const pass *s, const tn_view a[2], int64_t rows, const char *b,
                           float *block) {
    bool add = !s->first;
    for (int i = 0; i < s->count; i++) {
        const piece *p = &s->pieces[i];
        int64_t depth = padded(p->k), near = up_to(parts_of(depth, parts_of(depth, w->near)), STEP);
        for (int64_t k = 0; k < depth; k += near) {
            int64_t step = smaller(near, depth - k);
            w->kernels->panel[w->kind](rows, STRIP, step, (char *)a[i].data + k * w->size, a[i].stride, b,
                                       block, COLS, add);
            b += step * STRIP * w->size;
            add = true;
        }
        for (int64_t line = 0; p->after != 1 && line < rows; line++)
            w->kernels->scale[0](STRIP, p->after, block + line * COLS, block + line * COLS);
    }
}

/* `rows` rows from `row` times columns from … to-1 of the pass; `own` is the thread's memory. */
static void multiply(const work *w, const pass *s, int64_t row, int64_t rows, int64_t from, int64_t to,
                     char *own) {
    tn_view a[2];
    char *buffer = own + ROWS * COLS * 4;
    for (int i = 0; i < s->count; i++) {
        a[i] = rows_of_a(w, &s->pieces[i], s->row + row, rows, buffer);
        buffer += ROWS * padded(s->pieces[i].k) * w->size;
    }
    for (int64_t col = from; col < to; col += COLS) {
        int64_t cols = smaller(COLS, to - col), full = up_to(rows, FULL);
        float *block = (float *)(void *)own;
        if (!s->first || !s->last)
            block = memory.sums + (row / ROWS * (WIDTH / COLS) + col / COLS) * ROWS * COLS;
        for (int64_t strip = col / STRIP, at = 0; at < cols; strip++, at += STRIP)
            multiply_strip(w, s, a, full, strip_at(w, s, strip), block + at);
        for (int64_t line = 0; s->last && line < rows; line++)
            tn_gemm_finish_row(w->kernels, w->g, s->row + row + line, s->col + col, cols, block + line * COLS,
                               w->c, w->added, w->bias);
    }
}

/* Columns of a task: all, or fewer where rows alone make too few tasks. */
static int64_t group_of(const pass *s) {
    int64_t blocks = parts_of(s->cols, COLS), wanted = (int64_t)TASKS * omp_get_max_threads();
    int64_t groups = smaller(blocks, parts_of(wanted, parts_of(s->rows, ROWS)));
    return parts_of(blocks, groups) * COLS;
}

static void run_pass(const work *w, const pass *s) {
    int64_t group = group_of(s), groups = parts_of(s->cols, group), strips = parts_of(s->cols, STRIP);
    int64_t tasks = parts_of(s->rows, ROWS) * groups;
#pragma omp parallel
    {
        char *own = memory.own + omp_get_thread_num() * w->own_bytes;
#pragma omp for schedule(static)
        for (int64_t strip = 0; strip < strips; strip++) pack(w, s, strip);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; task++) {
            int64_t row = task / groups * ROWS, col = task % groups * group;
            multiply(w, s, row, smaller(ROWS, s->rows - row), col, smaller(col + group, s->cols), own);
        }
    }
}

/* The pieces one pass each in parts of at most DEPTH, with the sums kept between them. */
static void run_deep(const work *w, const piece *pieces, int count, const pass *place) {
    for (int i = 0; i < count; i++)
        for (int64_t k = 0; k < pieces[i].k; k += DEPTH) {
            piece part = pieces[i];
            bool ends = part.k - k <= DEPTH;
            part.a = bf16_at(part.a, part.lda, 0, k);
            part.b = bf16_at(part.b, part.ldb, w->g->b_transposed ? 0 : k, w->g->b_transposed ? k : 0);
            part.k = smaller(DEPTH, part.k - k);
            if (!ends) part.after = 1;
            pass s = *place;
            s.pieces = &part, s.count = 1, s.first = i == 0 && k == 0, s.last = i == count - 1 && ends;
            run_pass(w, &s);
        }
}

static void run(const work *w, const piece *pieces, int count) {
    const tn_gemm *g = w->g;
    pass s = {pieces, count, true, true, 0, 0, 0, 0};
    bool fits = packed_depth(&s) <= DEPTH;
    int64_t height = fits ? g->m : HEIGHT;
    for (s.col = 0; s.col < g->n; s.col += WIDTH)
        for (s.row = 0; s.row < g->m; s.row += height) {
            s.cols = smaller(WIDTH, g->n - s.col), s.rows = smaller(height, g->m - s.row);
            if (fits) run_pass(w, &s);
            else run_deep(w, pieces, count, &s);
        }
}

static tn_status take_memory(work *w) {
    tn_status status = TN_OK;
    w->own_bytes = ROWS * (COLS * 4 + (int64_t)(DEPTH + STEP) * 4);
    int64_t own = omp_get_max_threads() * w->own_bytes;
    if (!memory.packed) TN_TRY(tn_alloc_aligned(&memory.packed, (int64_t)DEPTH * WIDTH * 4, "packed weights"));
    if (!memory.sums) TN_TRY(tn_alloc_aligned(&memory.sums, (int64_t)HEIGHT * WIDTH * 4, "sums of a product"));
    if (own > memory.own_capacity) {
        free(memory.own);
        memory.own = NULL, memory.own_capacity = 0;
        TN_TRY(tn_alloc_aligned(&memory.own, own, "blocks of a product"));
        memory.own_capacity = own;
    }
done:
    return status;
}

tn_status tn_gemm_joined(const tn_gemm *g, const tn_gemm_tail *tail, const void *a, const void *b, void *c,
                         const void *added, const void *bias) {
    work w = {.g = g, .kernels = tn_cpu_kernels(), .c = c, .added = added, .bias = bias};
    w.kind = w.kernels->panel[1] != NULL;
    w.size = w.kind ? 2 : 4;
    w.near = w.kind ? NEAR_BF16 : NEAR_F32;
    piece pieces[2] = {{tail->a, tail->b, tail->k, tail->lda, tail->ldb, tail->factor},
                       {a, b, g->k, g->lda, g->ldb, 1}};
    int skipped = tail->k == 0;
    pthread_mutex_lock(&memory.lock);
    tn_status status = take_memory(&w);
    if (status == TN_OK) run(&w, pieces + skipped, 2 - skipped);
    pthread_mutex_unlock(&memory.lock);
    return status;
}
