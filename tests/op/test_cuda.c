/* test_cuda.c: every operation of libtenon-cuda.so against the plain C reference, on random ragged shapes in
 * the three compute dtypes, and with --bench the time of each at the shapes of Llama-3.1-8B.
 *
 * A program of its own, without cmocka: it travels to a machine with a GPU that has nothing but CUDA (see
 * tests/op/device.sh). Exit codes: 0 all kept, 1 a promise broken, 77 no GPU here.
 *
 *   test_cuda [name]            checks whose name contains `name`; TENON_TEST_SEED=N draws other numbers
 *   test_cuda --bench [name]    milliseconds, TB/s or TFLOP/s
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/thread.h"
#include "op/op.h"
#include "op/ref/element.h"
#include "quant/dynamic_map.h"
#include "quant/quant.h"
#include "quant/scaled.h"

static tn_device *gpu, *ref;
static void *scratch;
static tn_dtype dtype;
static uint64_t draws;
static int broken, checked;
static const char *current;

#define MUST(call)                                                                              \
    do {                                                                                        \
        if ((call) != TN_OK) {                                                                  \
            printf("FAILED %s (%s:%d): %s\n", current, __FILE__, __LINE__, tn_error_message()); \
            exit(1);                                                                            \
        }                                                                                       \
    } while (0)

/* ---- Matrices on both sides ---------------------------------------------------------------------------- */

/* Rows of `stride` elements with columns 0 … cols-1 of interest; one copy on each side. */
typedef struct matrix {
    tn_dtype dtype;
    int64_t rows, cols, stride;
    tn_view host, device;
} matrix;

enum { POOL = 512 };
static void *pool[POOL];
static void *host_pool[POOL];
static int pooled;

static int64_t bytes_of(const matrix *m) { return m->rows * m->stride * tn_dtype_block_bytes(m->dtype); }

static matrix matrix_new(tn_dtype type, int64_t rows, int64_t cols, int64_t extra) {
    matrix m = {.dtype = type, .rows = rows, .cols = cols, .stride = cols + extra};
    m.host = (tn_view){calloc(1, (size_t)bytes_of(&m) + 64), m.stride};
    if (pooled == POOL) abort(); /* a test that keeps more has to release_all in between */
    m.device = (tn_view){NULL, m.stride};
    MUST(gpu->backend->allocate(gpu, bytes_of(&m) + 64, &m.device.data));
    pool[pooled] = m.device.data, host_pool[pooled++] = m.host.data;
    return m;
}

static void matrix_upload(const matrix *m) {
    MUST(gpu->backend->upload(gpu, m->device.data, m->host.data, bytes_of(m)));
}

static float normal(void) { return tn_random_normal(7, TN_STREAM(TN_PURPOSE_BENCH, 1, 1), draws++); }
static int64_t between(int64_t low, int64_t high) {
    return low + (int64_t)(tn_random_uniform(9, TN_STREAM(TN_PURPOSE_BENCH, 2, 2), draws++) *
                           (float)(high - low + 1));
}

/* Every element random, those beyond `cols` too: an operation that reads or writes them gives itself away. */
static matrix random_matrix(tn_dtype type, int64_t rows, int64_t cols, int64_t extra, double deviation) {
    matrix m = matrix_new(type, rows, cols, extra);
    for (int64_t i = 0; i < rows * m.stride; i++) tn_store(type, m.host.data, i, deviation * normal());
    matrix_upload(&m);
    return m;
}

static matrix integers(int64_t count) { return matrix_new(TN_DTYPE_I32, 1, count, 0); }

static void release_all(void) {
    while (pooled > 0) {
        gpu->backend->release(gpu, pool[--pooled]);
        free(host_pool[pooled]);
    }
}

/* One unit in the last place for the 16-bit types: in a matrix of a few elements one rounding that goes the
 * other way is the whole error. */
static double tolerance(double loose) {
    return loose * (dtype == TN_DTYPE_F32 ? 1e-5 : dtype == TN_DTYPE_F16 ? 0x1p-10 : 0x1p-7);
}

/* Relative L2 distance of columns [first, last) from the reference's; with `outside`, everything else must be
 * the same bits. */
static void compare(const char *what, const matrix *m, int64_t first, int64_t last, double allowed,
                    bool outside) {
    char *got = malloc((size_t)bytes_of(m));
    double error = 0, size = 0, worst = 0, worst_got = 0, worst_wanted = 0;
    int64_t strays = 0, worst_at = 0, element = m->dtype == TN_DTYPE_F32 ? 4 : 2;
    MUST(gpu->backend->download(gpu, got, m->device.data, bytes_of(m)));
    for (int64_t row = 0; row < m->rows; row++)
        for (int64_t col = 0; col < m->stride; col++) {
            int64_t i = row * m->stride + col;
            if (col < first || col >= last) {
                strays += outside &&
                          memcmp(got + i * element, (char *)m->host.data + i * element, (size_t)element) != 0;
                continue;
            }
            double a = tn_load(m->dtype, got, i), b = tn_load(m->dtype, m->host.data, i);
            if (isinf(a) && a == b) continue;
            error += (a - b) * (a - b), size += b * b;
            if (fabs(a - b) > worst) worst = fabs(a - b), worst_at = i, worst_got = a, worst_wanted = b;
        }
    for (int64_t row = 0; row < m->rows; row++)
        for (int64_t col = first; col < last; col++) {
            double b = tn_load(m->dtype, m->host.data, row * m->stride + col);
            if (isfinite(b)) size += 1e-30;
        }
    free(got);
    error = size > 0 ? sqrt(error / size) : sqrt(error);
    checked++;
    if (error <= allowed && strays == 0) return;
    broken++;
    printf(
        "BROKEN %s, %s, %s [%lld, %lld]: error %.3g (allowed %.3g), %lld stray writes; worst at [%lld, %lld], "
        "%g for "
        "%g\n",
        current, tn_dtype_name(dtype), what, (long long)m->rows, (long long)m->cols, error, allowed,
        (long long)strays, (long long)(worst_at / m->stride), (long long)(worst_at % m->stride), worst_got,
        worst_wanted);
}

static void compare_all(const char *what, const matrix *m, double loose) {
    compare(what, m, 0, m->cols, tolerance(loose), true);
}

/* Both sides run the same operation; V() and P() are the view and the pointer of the side at work. */
#define RUN(op, ...)                                  \
    do {                                              \
        {                                             \
            enum { HOST = 1 };                        \
            MUST(ref->backend->op(ref, __VA_ARGS__)); \
        }                                             \
        {                                             \
            enum { HOST = 0 };                        \
            MUST(gpu->backend->op(gpu, __VA_ARGS__)); \
        }                                             \
    } while (0)
#define V(m) (HOST ? (m).host : (m).device)
#define P(m) ((HOST ? (m).host : (m).device).data)
static const tn_view nothing;

/* ---- Rows ----------------------------------------------------------------------------------------------- */

static void moving_rows(void) {
    for (int odd = 0; odd < 2; odd++) {
        int64_t rows = between(1, 70), cols = odd ? 37 : 96;
        matrix a = random_matrix(dtype, rows, cols, 16, 1), b = random_matrix(dtype, rows, cols, 8, 1);
        matrix y = random_matrix(dtype, rows, cols, 24, 1), index = integers(rows),
               w = random_matrix(TN_DTYPE_F32, rows, cols, 0, 1);
        for (int64_t i = 0; i < rows; i++) ((int32_t *)index.host.data)[i] = (int32_t)(rows - 1 - i);
        matrix_upload(&index);
        RUN(add, rows, cols, V(a), V(b), V(y));
        compare_all("add", &y, 1);
        RUN(gather_rows, rows / 2, cols, P(index), V(a), V(y));
        compare_all("gather", &y, 0);
        RUN(scatter_rows, rows / 2, cols, P(index), V(b), V(y));
        compare_all("scatter", &y, 0);
        RUN(copy_rows, rows, cols, V(a), V(y));
        compare_all("copy", &y, 0);
        RUN(widen, rows, cols, V(a), P(w));
        compare_all("widen", &w, 0);
    }
}

static void same_bytes(const char *what, const void *got, const void *want, int64_t bytes) {
    checked++;
    if (memcmp(got, want, (size_t)bytes) == 0) return;
    broken++;
    printf("BROKEN %s %s: other bytes\n", current, what);
}

/* Large enough that a copy which began too early, or an operation which did not wait for it, gives itself away.
 */
static void moves(void) {
    enum { ROWS = 32768, WIDTH = 4096, BUSY = 8 };
    const int64_t bytes = (int64_t)ROWS * WIDTH, cols = WIDTH / (dtype == TN_DTYPE_F32 ? 4 : 2);
    matrix source = matrix_new(dtype, ROWS, cols, 0), a = matrix_new(dtype, ROWS, cols, 0),
           b = matrix_new(dtype, ROWS, cols, 0);
    const tn_backend *backend = gpu->backend;
    void *host;
    MUST(backend->host_allocate(gpu, bytes, &host));
    memset(host, 0, (size_t)bytes);
    for (int64_t i = 0; i < bytes / 4; i++) ((uint32_t *)source.host.data)[i] = (uint32_t)i * 2654435761u;
    matrix_upload(&source);
    for (int i = 0; i < BUSY; i++) MUST(backend->zero(gpu, a.device.data, bytes));
    MUST(backend->copy_rows(gpu, ROWS, cols, source.device, a.device));
    MUST(backend->move(gpu, host, a.device.data, bytes));
    MUST(backend->move_wait(gpu));
    MUST(backend->zero(gpu, a.device.data, bytes));
    MUST(backend->sync(gpu));
    same_bytes("out", host, source.host.data, bytes);
    for (int i = 0; i < BUSY; i++) MUST(backend->zero(gpu, b.device.data, bytes));
    MUST(backend->move(gpu, b.device.data, host, bytes));
    MUST(backend->move_wait(gpu));
    MUST(backend->copy_rows(gpu, ROWS, cols, b.device, a.device));
    MUST(backend->download(gpu, a.host.data, a.device.data, bytes));
    same_bytes("in", a.host.data, source.host.data, bytes);
    backend->host_release(gpu, host, bytes);
}

static void gating(void) {
    for (int activation = 0; activation < 3; activation++)
        for (int odd = 0; odd < 2; odd++) {
            int64_t rows = between(1, 60), cols = odd ? 45 : 128;
            matrix g = random_matrix(dtype, rows, 2 * cols, 16, 2), y = random_matrix(dtype, rows, cols, 16, 1);
            matrix dy = random_matrix(dtype, rows, cols, 8, 1), d = random_matrix(dtype, rows, 2 * cols, 32, 1);
            RUN(gated_forward, rows, cols, (tn_activation)activation, V(g), V(y));
            compare_all("y", &y, 1);
            RUN(gated_backward, rows, cols, (tn_activation)activation, V(g), V(dy), V(d));
            compare_all("d_gate_up", &d, 1);
            RUN(gated_backward, rows, cols, (tn_activation)activation, V(g), V(dy), V(g));
            compare_all("d_gate_up in place", &g, 1);
        }
}

static void activations(void) {
    for (int activation = 0; activation < 3; activation++)
        for (int odd = 0; odd < 2; odd++) {
            int64_t rows = between(1, 60), cols = odd ? 45 : 128;
            matrix x = random_matrix(dtype, rows, cols, 16, 2), y = random_matrix(dtype, rows, cols, 8, 1);
            RUN(activate, rows, cols, (tn_activation)activation, V(x), V(y));
            compare_all("y", &y, 1);
            RUN(activate, rows, cols, (tn_activation)activation, V(x), V(x));
            compare_all("y in place", &x, 1);
        }
}

static void rotary(void) {
    for (int odd = 0; odd < 2; odd++) {
        int64_t rows = between(1, 60), heads = 5, dim = odd ? 22 : 64, half = odd ? 7 : 32;
        matrix x = random_matrix(dtype, rows, heads * dim, 48, 1), positions = integers(rows),
               tables = integers(rows);
        matrix f = random_matrix(TN_DTYPE_F32, 2, half, 0, 0),
               c = random_matrix(TN_DTYPE_F32, rows, half, 0, 1), s = c;
        s = random_matrix(TN_DTYPE_F32, rows, half, 0, 1);
        for (int64_t i = 0; i < rows; i++)
            ((int32_t *)positions.host.data)[i] = (int32_t)between(0, 130000),
                      ((int32_t *)tables.host.data)[i] = (int32_t)between(0, 1);
        for (int64_t i = 0; i < 2 * half; i++)
            ((float *)f.host.data)[i] =
                powf(500000.0f, -(float)(i % half) / (float)half) / (float)(1 + i / half);
        matrix_upload(&positions), matrix_upload(&tables), matrix_upload(&f);
        RUN(rope_table, rows, half, P(positions), P(tables), P(f), 1.25f, P(c), P(s));
        compare("cos", &c, 0, half, 1e-6, true);
        compare("sin", &s, 0, half, 1e-6, true);
        RUN(rope, rows, heads, dim, half, V(x), P(c), P(s), false);
        compare_all("rope", &x, 1);
        RUN(rope, rows, heads, dim, half, V(x), P(c), P(s), true);
        compare_all("rope back", &x, 2);
    }
}

static void norms(void) {
    static const int64_t shapes[][2] = {{1, 576}, {1, 2048}, {9, 64}, {3, 51}, {1, 1537}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int offset = 0; offset < 2; offset++) {
            int64_t rows = between(1, 300), groups = shapes[i][0], cols = shapes[i][1];
            matrix x = random_matrix(dtype, rows, groups * cols, 16, 1),
                   w = random_matrix(dtype, 1, cols, 0, 0.5);
            matrix y = random_matrix(dtype, rows, groups * cols, 8, 1),
                   r = random_matrix(TN_DTYPE_F32, rows, groups, 0, 1);
            matrix dy = random_matrix(dtype, rows, groups * cols, 8, 1),
                   dx = random_matrix(dtype, rows, groups * cols, 8, 1);
            matrix dw = random_matrix(TN_DTYPE_F32, 1, cols, 0, 1);
            RUN(rmsnorm_forward, rows, groups, cols, V(x), P(w), offset, 1e-5f, V(y), P(r));
            compare_all("y", &y, 1);
            compare("rstd", &r, 0, groups, 1e-5, true);
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                RUN(rmsnorm_backward, rows, groups, cols, V(x), P(w), offset, P(r), V(dy), V(dx), accumulate,
                    accumulate ? P(dw) : NULL);
                compare_all("dx", &dx, 1);
            }
            compare("dw", &dw, 0, cols, 1e-4, true);
            RUN(rmsnorm_backward, rows, groups, cols, V(x), P(w), offset, P(r), V(dy), V(dy), false, P(dw));
            compare_all("dx in place of dy", &dy, 1);
            compare("dw", &dw, 0, cols, 1e-4, true);
        }
}

static void losses(void) {
    for (int odd = 0; odd < 2; odd++)
        for (int cap = 0; cap < 2; cap++) {
            int64_t rows = between(1, 20), vocab = odd ? 1003 : 5120;
            float scale =
                dtype == TN_DTYPE_F16 ? 1000.0f : 0.01f; /* as a loss scale keeps gradients normal numbers */
            matrix logits = random_matrix(dtype, rows, vocab, 16, 4),
                   loss = random_matrix(TN_DTYPE_F32, 1, rows, 0, 1);
            matrix d = random_matrix(dtype, rows, vocab, 16, 1), targets = integers(rows);
            for (int64_t i = 0; i < rows; i++)
                ((int32_t *)targets.host.data)[i] = (int32_t)between(0, vocab - 1);
            matrix_upload(&targets);
            RUN(cross_entropy, rows, vocab, V(logits), P(targets), cap ? 5.0f : 0, scale, P(loss), nothing);
            compare("loss", &loss, 0, rows, 1e-5, true);
            RUN(cross_entropy, rows, vocab, V(logits), P(targets), cap ? 5.0f : 0, scale, P(loss), V(d));
            compare_all("gradient", &d, 1);
            RUN(cross_entropy, rows, vocab, V(logits), P(targets), cap ? 5.0f : 0, scale, P(loss), V(logits));
            compare_all("gradient in place", &logits, 1);
        }
}

static void sums(void) {
    int64_t counts[] = {1, 1000, 300001};
    for (int i = 0; i < 3; i++) {
        matrix v = random_matrix(TN_DTYPE_F32, 1, counts[i], 0, 1), total = matrix_new(TN_DTYPE_F32, 1, 4, 0);
        double got[2], *want = total.host.data;
        want[0] = 3, want[1] = 4;
        matrix_upload(&total);
        RUN(sum, counts[i], P(v), P(total));
        RUN(sum_squares, counts[i], P(v), (double *)P(total) + 1);
        MUST(gpu->backend->download(gpu, got, total.device.data, sizeof got));
        checked++;
        if (fabs(got[0] - want[0]) > 1e-9 * (double)counts[i] || fabs(got[1] - want[1]) > 1e-9 * want[1]) {
            printf("BROKEN sums of %lld: %.17g %.17g, want %.17g %.17g\n", (long long)counts[i], got[0], got[1],
                   want[0], want[1]);
            broken++;
        }
    }
}

static void optimizers(void) {
    int64_t n = 10007;
    matrix p = random_matrix(TN_DTYPE_F32, 1, n, 0, 1), g = random_matrix(TN_DTYPE_F32, 1, n, 0, 1);
    matrix m = random_matrix(TN_DTYPE_F32, 1, n, 0, 0.1), v = random_matrix(TN_DTYPE_F32, 1, n, 0, 0),
           squares = matrix_new(TN_DTYPE_F32, 1, 2, 0);
    for (int64_t i = 0; i < n; i++) ((float *)v.host.data)[i] = 0.01f * normal() * normal();
    for (int64_t i = 0; i < n; i++) ((float *)v.host.data)[i] = fabsf(((float *)v.host.data)[i]);
    matrix_upload(&v);
    for (int bad = 0; bad < 2; bad++) {
        *(double *)squares.host.data = bad ? INFINITY : 1e4;
        matrix_upload(&squares);
        for (int which = 0; which < 4; which++) {
            tn_optimizer_step s = {.learning_rate = 1e-2,
                                   .beta1 = 0.9,
                                   .beta2 = 0.99,
                                   .epsilon = 1e-8,
                                   .weight_decay = 0.1,
                                   .momentum = which == 3 ? 0.9 : 0,
                                   .step = 3,
                                   .grad_scale = 0.25,
                                   .max_norm = 1};
            tn_optimizer_step host = s, device = s;
            host.sum_squares = squares.host.data, device.sum_squares = squares.device.data;
            if (which == 0) RUN(adamw, n, P(p), P(g), P(m), P(v), HOST ? &host : &device);
            if (which == 1) RUN(sgd, n, P(p), P(g), NULL, HOST ? &host : &device);
            if (which == 3) RUN(sgd, n, P(p), P(g), P(m), HOST ? &host : &device);
            if (which == 2) RUN(lion, n, P(p), P(g), P(m), HOST ? &host : &device);
            compare("p", &p, 0, n, 1e-5, true);
            compare("m", &m, 0, n, 1e-5, true);
            compare("v", &v, 0, n, 1e-5, true);
        }
    }
}

/* Nearly all equal, and none more than one apart. */
static void compare_codes(const char *what, const matrix *m, int64_t n) {
    unsigned char *got = malloc((size_t)bytes_of(m));
    const unsigned char *want = m->host.data;
    int64_t others = 0, far = 0;
    MUST(gpu->backend->download(gpu, got, m->device.data, bytes_of(m)));
    for (int64_t i = 0; i < n; i++) others += got[i] != want[i], far += abs(got[i] - want[i]) > 1;
    free(got);
    checked++;
    if (far == 0 && others <= 2 + n / 1000) return;
    broken++;
    printf("BROKEN %s: of %lld %lld differ, %lld by more than one\n", what, (long long)n, (long long)others,
           (long long)far);
}

/* Encoded moments that begin as a step would leave them. Results differ where a value lies on the border of two
 * codes. */
static void optimizer_8bit(void) {
    const int64_t lengths[] = {1, 255, 256, 257, 5000, 300001};
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (int bad = 0; bad < 2; bad++) {
            const int64_t n = lengths[l], blocks_of = (n + 255) / 256;
            matrix p = random_matrix(TN_DTYPE_F32, 1, n, 0, 1), g = random_matrix(TN_DTYPE_F32, 1, n, 0, 1),
                   a = random_matrix(TN_DTYPE_F32, 1, blocks_of, 0, 0.1f),
                   b = random_matrix(TN_DTYPE_F32, 1, blocks_of, 0, 0.1f), m = matrix_new(TN_DTYPE_U8, 1, n, 0),
                   v = matrix_new(TN_DTYPE_U8, 1, n, 0), squares = matrix_new(TN_DTYPE_F32, 1, 2, 0);
            for (int64_t i = 0; i < n; i++) {
                ((unsigned char *)m.host.data)[i] = (unsigned char)between(0, 255);
                ((unsigned char *)v.host.data)[i] = (unsigned char)between(0, 255);
            }
            for (int64_t i = 0; i < blocks_of; i++) {
                float *x = (float *)a.host.data + i, *y = (float *)b.host.data + i;
                *x = fabsf(*x), *y = fabsf(*y);
            }
            *(double *)squares.host.data = bad ? INFINITY : 1e4;
            matrix_upload(&m), matrix_upload(&v), matrix_upload(&a), matrix_upload(&b), matrix_upload(&squares);
            tn_optimizer_step s = {.learning_rate = 1e-2,
                                   .beta1 = 0.9,
                                   .beta2 = 0.99,
                                   .epsilon = 1e-8,
                                   .weight_decay = 0.1,
                                   .step = 3,
                                   .grad_scale = 0.25,
                                   .max_norm = 1};
            tn_optimizer_step host = s, device = s;
            host.sum_squares = squares.host.data, device.sum_squares = squares.device.data;
            RUN(adamw_8bit, n, P(p), P(g), ((tn_codes){P(m), P(a)}), ((tn_codes){P(v), P(b)}),
                HOST ? &host : &device);
            compare("p", &p, 0, n, 1e-5, true);
            compare("m absmax", &a, 0, blocks_of, 1e-5, true);
            compare("v absmax", &b, 0, blocks_of, 1e-5, true);
            compare_codes("m codes", &m, n);
            compare_codes("v codes", &v, n);
        }
}

/* ---- Weights --------------------------------------------------------------------------------------------- */

static const tn_dtype blocks[] = {TN_DTYPE_Q4_0,   TN_DTYPE_Q4_1,   TN_DTYPE_Q5_0,     TN_DTYPE_Q5_1,
                                  TN_DTYPE_Q8_0,   TN_DTYPE_Q2_K,   TN_DTYPE_Q3_K,     TN_DTYPE_Q4_K,
                                  TN_DTYPE_Q5_K,   TN_DTYPE_Q6_K,   TN_DTYPE_NF4,      TN_DTYPE_FP4,
                                  TN_DTYPE_IQ4_NL, TN_DTYPE_IQ4_XS, TN_DTYPE_LLM_INT8, TN_DTYPE_FP8};

/* Scales apart, kept until the program ends: of NF4 nested, of FP4 in plain blocks of 32, of FP8 by turns one a
 * row, a tile of 24 x 40 or 20 x 12, or a column. */
static const tn_scales *file_scales(tn_dtype type, int64_t rows, int64_t cols) {
    enum { MOST = 1 << 20 };
    static float absmax[MOST];
    static unsigned char codes[MOST];
    static tn_scales scales[64];
    static int taken;
    tn_scales *s = &scales[taken++ % 64];
    *s = (tn_scales){.block = type == TN_DTYPE_LLM_INT8 ? cols : type == TN_DTYPE_NF4 ? 64 : 32};
    if (taken == 1)
        for (int i = 0; i < MOST; i++)
            absmax[i] = 0.05f + 0.01f * normal(), codes[i] = (unsigned char)between(0, 255);
    if (rows * (cols / s->block + 1) >= MOST) abort();
    if (type == TN_DTYPE_NF4)
        s->codes = codes, s->map = tn_dynamic_map(true), s->nested = absmax, s->nested_block = 256,
        s->offset = 0.1f;
    else s->absmax = absmax;
    if (type == TN_DTYPE_FP8) {
        const int64_t tiles[4][2] = {{1, cols}, {24, 40}, {20, 12}, {rows, 1}};
        s->cols = cols, s->tile = tiles[taken % 4][0], s->block = tiles[taken % 4][1];
    }
    return s;
}

/* A tensor as a file would hold it. Block types: random bytes with tame scales. */
static tn_tensor_info file_tensor(tn_dtype type, int64_t rows, int64_t cols) {
    tn_tensor_info t = {.name = "w",
                        .file = "memory",
                        .dtype = type,
                        .rank = 2,
                        .shape = {rows, cols},
                        .elements = rows * cols};
    tn_dtype_bytes(type, t.elements, &t.bytes);
    unsigned char *data = malloc((size_t)t.bytes);
    for (int64_t i = 0; i < t.bytes; i++) data[i] = (unsigned char)between(0, 255);
    for (int64_t i = 0; i < t.bytes && type == TN_DTYPE_FP8; i++) /* no NaN, and no larger than others */
        data[i] = (unsigned char)((data[i] & 0x80) | (data[i] & 0x7F) % 0x48);
    if (!tn_dtype_is_block(type)) {
        for (int64_t i = 0; i < t.elements; i++) tn_store(type, data, i, 0.05 * normal());
    } else if (tn_dtype_has_scales(type)) t.scales = file_scales(type, rows, cols);
    else {
        static const struct {
            tn_dtype type;
            int at[2];
        } scales[] = {{TN_DTYPE_Q4_0, {0, -1}},   {TN_DTYPE_Q4_1, {0, 2}},    {TN_DTYPE_Q5_0, {0, -1}},
                      {TN_DTYPE_Q5_1, {0, 2}},    {TN_DTYPE_Q8_0, {0, -1}},   {TN_DTYPE_Q2_K, {80, 82}},
                      {TN_DTYPE_Q3_K, {108, -1}}, {TN_DTYPE_Q4_K, {0, 2}},    {TN_DTYPE_Q5_K, {0, 2}},
                      {TN_DTYPE_Q6_K, {208, -1}}, {TN_DTYPE_IQ4_NL, {0, -1}}, {TN_DTYPE_IQ4_XS, {0, -1}}};
        int64_t size = tn_dtype_block_bytes(type);
        for (size_t k = 0; k < sizeof scales / sizeof *scales; k++)
            for (int64_t b = 0; scales[k].type == type && b < t.bytes / size; b++)
                for (int j = 0; j < 2; j++) {
                    uint16_t half = tn_f32_to_f16(0.002f * normal());
                    if (scales[k].at[j] >= 0) memcpy(data + b * size + scales[k].at[j], &half, 2);
                }
    }
    t.data = data;
    return t;
}

static void embedding(void) {
    for (int i = -3; i < (int)(sizeof blocks / sizeof *blocks); i++) {
        tn_dtype type = i == -3 ? TN_DTYPE_F32 : i == -2 ? TN_DTYPE_BF16 : i == -1 ? TN_DTYPE_F16 : blocks[i];
        int64_t rows = between(3, 40), cols = 512, vocab = 64;
        tn_tensor_info t = file_tensor(type, vocab, cols);
        tn_source source = {.tensor = &t, .permuted_head_dim = i < 0 ? 16 : 0};
        void *host_region = malloc((size_t)ref->backend->weight_bytes(ref, vocab, cols, &source) + 64), *region;
        tn_weight host, device;
        MUST(gpu->backend->allocate(gpu, gpu->backend->weight_bytes(gpu, vocab, cols, &source), &region));
        MUST(ref->backend->weight_load(ref, vocab, cols, &source, host_region, &host));
        MUST(gpu->backend->weight_load(gpu, vocab, cols, &source, region, &device));
        MUST(gpu->backend->load_finish(gpu));
        matrix ids = integers(rows), y = random_matrix(dtype, rows, cols, 16, 1);
        for (int64_t k = 0; k < rows; k++) ((int32_t *)ids.host.data)[k] = (int32_t)between(0, vocab - 1);
        matrix_upload(&ids);
        RUN(embed_forward, rows, P(ids), HOST ? &host : &device, 1.5f, V(y));
        compare(tn_dtype_name(type), &y, 0, cols, 1e-6, true);
        gpu->backend->release(gpu, region);
        free(host_region), free((void *)(uintptr_t)t.data);
    }
}

static void embedding_gradient(void) {
    int64_t rows = 200, cols = 100, vocab = 30;
    matrix ids = integers(rows), order = integers(rows), starts = integers(rows + 1),
           dy = random_matrix(dtype, rows, cols, 12, 1);
    matrix table = random_matrix(TN_DTYPE_F32, vocab, cols, 0, 1);
    int32_t *id = ids.host.data, *o = order.host.data, *s = starts.host.data;
    int64_t segments = 0, n = 0;
    for (int64_t i = 0; i < rows; i++) id[i] = (int32_t)between(0, vocab - 1);
    for (int32_t v = 0; v < vocab; v++) {
        int64_t before = n;
        for (int32_t i = 0; i < rows; i++)
            if (id[i] == v) o[n++] = i;
        if (n > before) s[segments++] = (int32_t)before;
    }
    s[segments] = (int32_t)rows;
    matrix_upload(&ids), matrix_upload(&order), matrix_upload(&starts);
    RUN(embed_backward, rows, cols, segments, P(ids), P(order), P(starts), 2.0f, V(dy), P(table));
    compare("dtable", &table, 0, cols, 1e-5, true);
}

typedef struct linear_case {
    const char *name;
    int parts;
    int64_t in, out[3], r[3];
    tn_dtype type[3]; /* of the file; COUNT: shared */
    bool bias, full;
    float dropout;
} linear_case;

static const linear_case linear_cases[] = {
    {"q|k|v, r 16",
     3,
     576,
     {576, 192, 192},
     {16, 16, 16},
     {TN_DTYPE_BF16, TN_DTYPE_BF16, TN_DTYPE_BF16},
     false,
     false,
     0},
    {"q|k|v, bias, uneven r",
     3,
     896,
     {896, 128, 128},
     {8, 0, 5},
     {TN_DTYPE_F32, TN_DTYPE_F16, TN_DTYPE_BF16},
     true,
     false,
     0},
    {"one part, r 64", 1, 256, {512}, {64}, {TN_DTYPE_BF16}, false, false, 0},
    {"no LoRA", 2, 128, {256, 256}, {0}, {TN_DTYPE_BF16, TN_DTYPE_BF16}, false, false, 0},
    {"odd sizes", 2, 75, {33, 61}, {3, 4}, {TN_DTYPE_F32, TN_DTYPE_F32}, true, false, 0},
    {"blocks",
     3,
     512,
     {256, 128, 128},
     {16, 16, 16},
     {TN_DTYPE_Q4_K, TN_DTYPE_Q6_K, TN_DTYPE_Q8_0},
     true,
     false,
     0},
    {"blocks without LoRA", 1, 512, {256}, {0}, {TN_DTYPE_Q5_1}, false, false, 0},
    {"scales apart",
     3,
     320,
     {320, 64, 64},
     {8, 8, 8},
     {TN_DTYPE_NF4, TN_DTYPE_LLM_INT8, TN_DTYPE_FP4},
     true,
     false,
     0},
    {"scales apart, odd",
     3,
     75,
     {33, 61, 7},
     {3, 4, 0},
     {TN_DTYPE_NF4, TN_DTYPE_LLM_INT8, TN_DTYPE_FP4},
     true,
     false,
     0},
    {"FP8 in the file",
     3,
     320,
     {320, 64, 64},
     {8, 8, 8},
     {TN_DTYPE_FP8, TN_DTYPE_FP8, TN_DTYPE_FP8},
     true,
     false,
     0},
    {"FP8 in the file, odd",
     3,
     75,
     {33, 61, 7},
     {3, 4, 0},
     {TN_DTYPE_FP8, TN_DTYPE_FP8, TN_DTYPE_FP8},
     true,
     false,
     0},
    {"full", 2, 192, {128, 64}, {0}, {TN_DTYPE_BF16, TN_DTYPE_BF16}, true, true, 0},
    {"dropout",
     3,
     320,
     {320, 64, 64},
     {8, 8, 8},
     {TN_DTYPE_BF16, TN_DTYPE_BF16, TN_DTYPE_BF16},
     false,
     false,
     0.3f},
    {"dropout, odd", 1, 75, {64}, {5}, {TN_DTYPE_BF16}, false, false, 0.1f},
    {"shared", 1, 256, {1000}, {0}, {TN_DTYPE_COUNT}, false, false, 0},
    {"shared with LoRA", 1, 256, {1000}, {8}, {TN_DTYPE_COUNT}, false, false, 0},
    {"r 32 and 24", 2, 200, {136, 64}, {32, 24}, {TN_DTYPE_BF16, TN_DTYPE_BF16}, false, false, 0},
    {"r 40 three times",
     3,
     104,
     {72, 40, 8},
     {40, 40, 33},
     {TN_DTYPE_BF16, TN_DTYPE_BF16, TN_DTYPE_BF16},
     false,
     false,
     0},
    {"r 88", 1, 96, {264}, {88}, {TN_DTYPE_BF16}, false, false, 0},
    {"r 160", 1, 64, {264}, {160}, {TN_DTYPE_BF16}, false, false, 0},
};

/* LoRA's bf16 kernels look at the number of rows and at the size of dy. */
static const linear_case tall_cases[] = {
    {"many rows", 1, 72, {40}, {7}, {TN_DTYPE_BF16}, false, false, 0},
    {"many rows, wide, r 16", 2, 72, {2056, 1048}, {16, 8}, {TN_DTYPE_BF16, TN_DTYPE_BF16}, false, false, 0},
    {"many rows, wide, ragged r",
     3,
     136,
     {3000, 520, 264},
     {12, 3, 9},
     {TN_DTYPE_BF16, TN_DTYPE_BF16, TN_DTYPE_BF16},
     false,
     false,
     0},
};
static const int64_t tall_rows[] = {6007, 4111, 3407};

static tn_dtype quantise_to; /* plain weights of the case while they are loaded; 0: not */
static bool with_dora;       /* on every part that has LoRA */

typedef struct group {
    tn_linear host, device;
    tn_tensor_info tensor[3];
    tn_source source[3];
    matrix a[3], b[3], da[3], db[3], bias[3], master[3], dweight[3], dbias[3], table;
    matrix magnitude[3], dmagnitude[3];
    void *host_region, *region;
} group;

static void group_part(group *g, const linear_case *c, int i) {
    tn_part *h = &g->host.part[i], *d = &g->device.part[i];
    int64_t out = c->out[i], r = c->r[i], in = c->in;
    *h = (tn_part){.weight = {.rows = out, .cols = in, .dtype = dtype}, .lora = {.r = r, .scale = 2}};
    *d = *h;
    if (c->type[i] != TN_DTYPE_COUNT) g->tensor[i] = file_tensor(c->type[i], out, in);
    bool permuted = i == 1 && out % 32 == 0 && !g->tensor[i].scales;
    g->source[i] = (tn_source){
        .tensor = &g->tensor[i], .permuted_head_dim = permuted ? 32 : 0, .quantise_to = quantise_to};
    if (r) {
        g->a[i] = random_matrix(TN_DTYPE_F32, r, in, 0, 0.06),
        g->b[i] = random_matrix(TN_DTYPE_F32, out, r, 0, 0.1);
        g->da[i] = random_matrix(TN_DTYPE_F32, r, in, 0, 1),
        g->db[i] = random_matrix(TN_DTYPE_F32, out, r, 0, 1);
        h->lora = (tn_lora){.r = r,
                            .scale = 2,
                            .a = g->a[i].host.data,
                            .b = g->b[i].host.data,
                            .da = g->da[i].host.data,
                            .db = g->db[i].host.data};
        d->lora = (tn_lora){.r = r,
                            .scale = 2,
                            .a = g->a[i].device.data,
                            .b = g->b[i].device.data,
                            .da = g->da[i].device.data,
                            .db = g->db[i].device.data};
    }
    if (r && with_dora) {
        g->magnitude[i] = random_matrix(TN_DTYPE_F32, 1, out, 0, 1);
        g->dmagnitude[i] = random_matrix(TN_DTYPE_F32, 1, out, 0, 1);
        h->lora.dora = d->lora.dora = true;
        h->lora.magnitude = g->magnitude[i].host.data, d->lora.magnitude = g->magnitude[i].device.data;
        h->lora.dmagnitude = g->dmagnitude[i].host.data, d->lora.dmagnitude = g->dmagnitude[i].device.data;
    }
    if (c->bias) {
        g->bias[i] = random_matrix(dtype, 1, out, 0, 0.5);
        h->bias = g->bias[i].host.data, d->bias = g->bias[i].device.data;
    }
    if (c->full) {
        g->master[i] = random_matrix(TN_DTYPE_F32, out, in, 0, 0.05),
        g->dweight[i] = random_matrix(TN_DTYPE_F32, out, in, 0, 1);
        g->dbias[i] = random_matrix(TN_DTYPE_F32, 1, out, 0, 1);
        h->master = g->master[i].host.data, h->dweight = g->dweight[i].host.data,
        h->dbias = g->dbias[i].host.data;
        d->master = g->master[i].device.data, d->dweight = g->dweight[i].device.data,
        d->dbias = g->dbias[i].device.data;
    }
    g->host.out += out, g->host.rank += r;
    /* LoRA values as the GPU rounds them, so that the comparison is about the products. */
    for (int64_t k = 0; k < r * in; k++)
        ((float *)g->a[i].host.data)[k] = tn_round_to(dtype, ((float *)g->a[i].host.data)[k]);
    for (int64_t k = 0; k < r * out; k++)
        ((float *)g->b[i].host.data)[k] = tn_round_to(dtype, ((float *)g->b[i].host.data)[k]);
    if (r) matrix_upload(&g->a[i]), matrix_upload(&g->b[i]);
}

static void group_new(group *g, const linear_case *c) {
    const tn_source *sources[3] = {0};
    memset(g, 0, sizeof *g);
    g->host.parts = c->parts, g->host.in = c->in, g->host.site = 11;
    g->host.fp8_products = g->device.fp8_products = true;
    for (int i = 0; i < c->parts; i++) {
        group_part(g, c, i);
        sources[i] = c->type[i] == TN_DTYPE_COUNT ? NULL : &g->source[i];
    }
    g->host.border = tn_border(g->host.rank);
    g->device.parts = g->host.parts, g->device.in = g->host.in, g->device.out = g->host.out,
    g->device.rank = g->host.rank;
    g->device.border = g->host.border, g->device.site = g->host.site;
    if (!sources[0]) {
        g->table = random_matrix(dtype, c->out[0], c->in, 0, 0.05);
        g->host.part[0].weight = (tn_weight){
            .data = g->table.host.data, .dtype = dtype, .rows = c->out[0], .cols = c->in, .stride = c->in};
        g->device.part[0].weight = g->host.part[0].weight;
        g->device.part[0].weight.data = g->table.device.data;
    }
    g->host_region = malloc((size_t)ref->backend->linear_bytes(ref, &g->host, sources) + 64);
    MUST(gpu->backend->allocate(gpu, gpu->backend->linear_bytes(gpu, &g->device, sources) + 64, &g->region));
    MUST(ref->backend->linear_load(ref, &g->host, sources, g->host_region));
    MUST(gpu->backend->linear_load(gpu, &g->device, sources, g->region));
    MUST(gpu->backend->load_finish(gpu));
    MUST(ref->backend->linear_refresh(ref, &g->host));
    MUST(gpu->backend->linear_refresh(gpu, &g->device));
}

static void group_free(group *g) {
    for (int i = 0; i < 3; i++) free((void *)(uintptr_t)g->tensor[i].data);
    free(g->host_region);
    gpu->backend->release(gpu, g->region);
}

static void linear_gradients_match(group *g, const linear_case *c) {
    for (int i = 0; i < c->parts; i++) {
        if (c->r[i]) compare_all("dA", &g->da[i], dtype == TN_DTYPE_F32 ? 3 : 1);
        if (c->r[i]) compare_all("dB", &g->db[i], dtype == TN_DTYPE_F32 ? 3 : 1);
        if (c->r[i] && with_dora) compare_all("dm", &g->dmagnitude[i], dtype == TN_DTYPE_F32 ? 3 : 2);
        if (c->full) compare_all("dW", &g->dweight[i], 1);
        if (c->full) compare_all("dbias", &g->dbias[i], 1);
    }
}

/* A second backward pass from the same values must give the same bits. */
static void gradients_repeat(group *g, const linear_case *c, int64_t rows, const matrix *x, const matrix *dy,
                             const tn_dropout *dropout) {
    matrix *all[6] = {&g->da[0], &g->db[0], &g->da[1], &g->db[1], &g->da[2], &g->db[2]};
    for (int run = 0; run < 2; run++) {
        for (int i = 0; i < 2 * c->parts; i++)
            if (c->r[i / 2]) MUST(gpu->backend->zero(gpu, all[i]->device.data, bytes_of(all[i])));
        MUST(gpu->backend->linear_backward(gpu, &g->device, rows, x->device, dy->device, nothing, false, 1,
                                           dropout));
        for (int i = 0; i < 2 * c->parts; i++) {
            if (!c->r[i / 2]) continue;
            if (run) compare(i % 2 ? "dB again" : "dA again", all[i], 0, all[i]->cols, 0, true);
            else MUST(gpu->backend->download(gpu, all[i]->host.data, all[i]->device.data, bytes_of(all[i])));
        }
    }
}

static void linear_case_holds(const linear_case *c, int64_t rows) {
    group g;
    char name[128];
    snprintf(name, sizeof name, "linear: %s%s%s%s", c->name, with_dora ? ", DoRA" : "",
             quantise_to ? ", to " : "", quantise_to ? tn_dtype_name(quantise_to) : "");
    current = name;
    group_new(&g, c);
    int64_t border = g.host.border, out = g.host.out;
    tn_dropout dropout = {.p = c->dropout, .seed = 5, .step = 3, .first_row = 40};
    matrix x = random_matrix(dtype, rows, c->in, border, 1), y = random_matrix(dtype, rows, out, 16, 1);
    matrix residual = random_matrix(dtype, rows, out, 8, 1), dy = random_matrix(dtype, rows, out, border, 1);
    matrix dx = random_matrix(dtype, rows, c->in, 8, 1);
    RUN(linear_inner, HOST ? &g.host : &g.device, rows, V(x), &dropout);
    compare("u", &x, c->in, c->in + g.host.rank, tolerance(2), false);
    RUN(linear_forward, HOST ? &g.host : &g.device, rows, V(x), V(y), nothing, 1.0f, &dropout);
    compare_all("y", &y, 2);
    RUN(linear_forward, HOST ? &g.host : &g.device, rows, V(x), V(y), V(residual), 0.5f, &dropout);
    compare_all("y with residual", &y, 2);
    RUN(linear_forward, HOST ? &g.host : &g.device, rows, V(x), V(y), V(y), 1.0f, &dropout);
    compare_all("y in place of residual", &y, 2);
    compare("x", &x, 0, c->in, 0, false);
    RUN(linear_backward, HOST ? &g.host : &g.device, rows, V(x), V(dy), V(dx), false, 1.0f, &dropout);
    compare_all("dx", &dx, 2);
    linear_gradients_match(&g, c);
    RUN(linear_backward, HOST ? &g.host : &g.device, rows, V(x), V(dy), V(dx), true, 0.5f, &dropout);
    compare_all("dx accumulated", &dx, 2);
    linear_gradients_match(&g, c);
    gradients_repeat(&g, c, rows, &x, &dy, &dropout);
    group_free(&g);
    release_all();
}

static void linears(void) {
    static const tn_dtype formats[] = {TN_DTYPE_F32, TN_DTYPE_NF4, TN_DTYPE_LLM_INT8, TN_DTYPE_FP8};
    static const linear_case tall_fp8 = {
        "many rows", 2, 144, {64, 32}, {8, 4}, {TN_DTYPE_BF16, TN_DTYPE_BF16}, true, false, 0};
    for (int f = 0; f < 4; f++) {
        quantise_to = formats[f];
        for (size_t i = 0; i < sizeof linear_cases / sizeof *linear_cases; i++)
            linear_case_holds(&linear_cases[i], between(17, 150));
    }
    linear_case_holds(&tall_fp8, 8219); /* more than are rounded at a time */
    quantise_to = TN_DTYPE_F32;
    for (size_t i = 0; i < sizeof tall_cases / sizeof *tall_cases && dtype == TN_DTYPE_BF16; i++)
        linear_case_holds(&tall_cases[i], tall_rows[i]);
}

/* More rows than a tile of DoRA has, dropped. */
static const linear_case tiles_case = {"many rows, dropout",           2,    96,    {40, 16}, {7, 3},
                                       {TN_DTYPE_BF16, TN_DTYPE_Q8_0}, true, false, 0.3f};

/* The same cases with DoRA, which is never on what trains in full. */
static void dora(void) {
    static const tn_dtype formats[] = {TN_DTYPE_F32, TN_DTYPE_NF4, TN_DTYPE_LLM_INT8};
    with_dora = true;
    for (int f = 0; f < 3; f++) {
        quantise_to = formats[f];
        for (size_t i = 0; i < sizeof linear_cases / sizeof *linear_cases; i++)
            if (!linear_cases[i].full) linear_case_holds(&linear_cases[i], between(17, 150));
    }
    quantise_to = TN_DTYPE_F32;
    for (size_t i = 0; i < sizeof tall_cases / sizeof *tall_cases && dtype == TN_DTYPE_BF16; i++)
        linear_case_holds(&tall_cases[i], tall_rows[i]);
    linear_case_holds(&tiles_case, 5003);
    with_dora = false;
}

static void random_weights(void) {
    int64_t rows = 33, cols = 75;
    tn_source source = {.seed = 99, .std = 0.02f};
    matrix w = matrix_new(dtype, rows, cols, 0);
    tn_weight host, device;
    MUST(ref->backend->weight_load(ref, rows, cols, &source, w.host.data, &host));
    MUST(gpu->backend->weight_load(gpu, rows, cols, &source, w.device.data, &device));
    MUST(gpu->backend->load_finish(gpu));
    compare("random weights", &w, 0, cols, 1e-6, true);
}

/* Quantised as they are made. Device and host round a logarithm apart now and then, which may cost a code. */
static void random_quantised_weights(void) {
    static const tn_dtype formats[] = {TN_DTYPE_NF4, TN_DTYPE_LLM_INT8, TN_DTYPE_FP8};
    for (int f = 0; f < 3; f++) {
        enum { ROWS = 40, COLS = 200 };
        tn_source source = {.seed = 99, .std = 0.02f, .quantise_to = formats[f]};
        void *host_region = malloc((size_t)ref->backend->weight_bytes(ref, ROWS, COLS, &source)), *region;
        tn_weight host, device;
        MUST(gpu->backend->allocate(gpu, gpu->backend->weight_bytes(gpu, ROWS, COLS, &source), &region));
        MUST(ref->backend->weight_load(ref, ROWS, COLS, &source, host_region, &host));
        MUST(gpu->backend->weight_load(gpu, ROWS, COLS, &source, region, &device));
        MUST(gpu->backend->load_finish(gpu));
        matrix ids = integers(ROWS), y = random_matrix(dtype, ROWS, COLS, 16, 1);
        for (int32_t k = 0; k < ROWS; k++) ((int32_t *)ids.host.data)[k] = k;
        matrix_upload(&ids);
        RUN(embed_forward, ROWS, P(ids), HOST ? &host : &device, 1, V(y));
        compare(tn_dtype_name(formats[f]), &y, 0, COLS, 1e-2, true);
        gpu->backend->release(gpu, region);
        free(host_region);
    }
}

/* ---- Attention ----------------------------------------------------------------------------------- */

typedef struct attention_case {
    const char *name;
    int64_t documents, q[6], kv[6]; /* lengths; kv 0 = as q */
    int64_t heads, kv_heads, dim;
    float softcap;
    int64_t window;
    bool bidirectional;
} attention_case;

static const attention_case attention_cases[] = {
    {"dense 2x128", 2, {128, 128}, {0}, 4, 2, 64, 0, 0, false},
    {"dense 1x300", 1, {300}, {0}, 6, 2, 128, 0, 0, false},
    {"packed", 5, {1, 70, 33, 130, 7}, {0}, 6, 3, 64, 0, 0, false},
    {"packed, d 128, all heads", 3, {90, 1, 201}, {0}, 3, 3, 128, 0, 0, false},
    {"packed, d 64, all heads", 4, {300, 17, 120, 64}, {0}, 4, 4, 64, 0, 0, false},
    {"packed, d 80", 3, {60, 31, 99}, {0}, 4, 1, 80, 0, 0, false},
    {"d 256", 2, {70, 65}, {0}, 4, 2, 256, 0, 0, false},
    {"window", 3, {50, 200, 3}, {0}, 4, 2, 64, 0, 37, false},
    {"soft cap and window", 2, {90, 40}, {0}, 2, 1, 128, 20, 30, false},
    {"soft cap", 2, {90, 140}, {0}, 2, 1, 256, 20, 0, false},
    {"continuation", 2, {33, 20}, {133, 20}, 4, 2, 64, 0, 0, false},
    {"decode", 2, {1, 3}, {700, 900}, 8, 2, 128, 0, 0, false},
    {"decode with window", 1, {5}, {1500}, 4, 4, 80, 0, 600, false},
    {"bidirectional, dense", 2, {128, 128}, {0}, 4, 4, 64, 0, 0, true},
    {"bidirectional, one picture", 1, {1012}, {0}, 2, 2, 80, 0, 0, true},
    {"bidirectional, windows", 6, {64, 64, 32, 64, 64, 16}, {0}, 4, 4, 80, 0, 0, true},
    {"bidirectional, few", 1, {4}, {0}, 4, 4, 80, 0, 0, true},
    {"bidirectional, groups", 3, {5, 70, 1}, {0}, 2, 1, 16, 0, 0, true},
};

static void attention_case_holds(const attention_case *c) {
    char name[128];
    snprintf(name, sizeof name, "attention: %s", c->name);
    current = name;
    matrix cu_q = integers(c->documents + 1), cu_kv = integers(c->documents + 1);
    int32_t *hq = cu_q.host.data, *hkv = cu_kv.host.data;
    tn_attention a = {.documents = c->documents,
                      .host_cu_q = hq,
                      .host_cu_kv = hkv,
                      .heads = c->heads,
                      .kv_heads = c->kv_heads,
                      .head_dim = c->dim,
                      .scale = 1 / sqrtf((float)c->dim),
                      .softcap = c->softcap,
                      .window = c->window,
                      .bidirectional = c->bidirectional};
    for (int64_t i = 0; i < c->documents; i++) {
        int64_t q = c->q[i], kv = c->kv[i] ? c->kv[i] : q;
        hq[i + 1] = hq[i] + (int32_t)q, hkv[i + 1] = hkv[i] + (int32_t)kv;
        if (q > a.longest_q) a.longest_q = q;
        if (kv > a.longest_kv) a.longest_kv = kv;
    }
    a.q_rows = hq[c->documents], a.kv_rows = hkv[c->documents];
    matrix_upload(&cu_q), matrix_upload(&cu_kv);
    int64_t q = c->heads * c->dim, kv = c->kv_heads * c->dim;
    matrix mq = random_matrix(dtype, a.q_rows, q, 16, 1), mk = random_matrix(dtype, a.kv_rows, kv, 24, 1);
    matrix mv = random_matrix(dtype, a.kv_rows, kv, 32, 1), o = random_matrix(dtype, a.q_rows, q, 0, 1);
    matrix lse = random_matrix(TN_DTYPE_F32, a.q_rows, c->heads, 0, 1),
           d_o = random_matrix(dtype, a.q_rows, q, 8, 1);
    matrix dq = random_matrix(dtype, a.q_rows, q, 16, 1), dk = random_matrix(dtype, a.kv_rows, kv, 16, 1),
           dv = random_matrix(dtype, a.kv_rows, kv, 16, 1);
    tn_attention host = a, device = a;
    host.cu_q = hq, host.cu_kv = hkv, device.cu_q = cu_q.device.data, device.cu_kv = cu_kv.device.data;
    RUN(attention_forward, HOST ? &host : &device, V(mq), V(mk), V(mv), V(o), NULL);
    compare_all("o without lse", &o, 1);
    RUN(attention_forward, HOST ? &host : &device, V(mq), V(mk), V(mv), V(o), P(lse));
    compare_all("o", &o, 1);
    compare("lse", &lse, 0, c->heads, dtype == TN_DTYPE_F32 ? 1e-5 : 1e-3, true);
    RUN(attention_backward, HOST ? &host : &device, V(mq), V(mk), V(mv), V(o), P(lse), V(d_o), V(dq), V(dk),
        V(dv));
    compare_all("dq", &dq, dtype == TN_DTYPE_F32 ? 3 : 2);
    compare_all("dk", &dk, dtype == TN_DTYPE_F32 ? 3 : 2);
    compare_all("dv", &dv, dtype == TN_DTYPE_F32 ? 3 : 2);
}

static void attentions(void) {
    for (size_t i = 0; i < sizeof attention_cases / sizeof *attention_cases; i++)
        attention_case_holds(&attention_cases[i]);
}

static void open_both(const tn_backend *backend, const tn_limits *limits) {
    MUST(backend->open(backend, 0, dtype, &gpu));
    MUST(tn_backend_reference()->open(tn_backend_reference(), 0, dtype, &ref));
    gpu->scratch_size = backend->scratch_bytes(gpu, limits);
    MUST(backend->allocate(gpu, gpu->scratch_size, &scratch));
    gpu->scratch = scratch;
    ref->fp8_products = gpu->fp8_products;
}

static void close_both(void) {
    gpu->backend->release(gpu, scratch);
    gpu->backend->close(gpu);
    ref->backend->close(ref);
}

#include "bench_cuda.h"

/* ---- Start --------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {{"moving rows", moving_rows},
             {"moves", moves},
             {"gating", gating},
             {"activations", activations},
             {"rotary", rotary},
             {"norms", norms},
             {"losses", losses},
             {"sums", sums},
             {"optimizers", optimizers},
             {"optimizer in 8 bits", optimizer_8bit},
             {"embedding", embedding},
             {"embedding gradient", embedding_gradient},
             {"random weights", random_weights},
             {"random weights, quantised", random_quantised_weights},
             {"linears", linears},
             {"dora", dora},
             {"attentions", attentions}};

static const tn_backend *backend_beside_us(void) {
    char path[4096], self[4000];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) *slash = '\0';
    const char *places[] = {"", "/.."};
    void *handle = NULL;
    for (int i = 0; i < 2 && !handle; i++) {
        snprintf(path, sizeof path, "%s%s/libtenon-cuda.so", self, places[i]);
        if (access(path, R_OK) == 0 && !(handle = dlopen(path, RTLD_NOW))) printf("%s\n", dlerror());
    }
    const tn_backend *(*entry)(int) = NULL;
    if (handle) *(void **)(&entry) = dlsym(handle, "tn_backend_open");
    return entry ? entry(TN_BACKEND_VERSION) : NULL;
}

int main(int argc, char **argv) {
    static const tn_dtype dtypes[] = {TN_DTYPE_F32, TN_DTYPE_BF16, TN_DTYPE_F16};
    static const tn_limits limits = {.rows = 6144,
                                     .documents = 8,
                                     .longest = 1500,
                                     .hidden = 2048,
                                     .intermediate = 2048,
                                     .heads = 9,
                                     .kv_heads = 9,
                                     .head_dim = 256,
                                     .vocab = 5120,
                                     .head_rows = 64,
                                     .rank = 160,
                                     .dora = 4096,
                                     .backward = true,
                                     .dropout = true,
                                     .block_weights = true,
                                     .fp8_products = true,
                                     .largest_weight = 1 << 20};
    bool bench = argc > 1 && strcmp(argv[1], "--bench") == 0;
    const char *wanted = argc > 1 + bench ? argv[1 + bench] : "";
    current = "opening";
    if (getenv("TENON_TEST_SEED")) draws = strtoull(getenv("TENON_TEST_SEED"), NULL, 10) << 32;
    const tn_backend *backend = backend_beside_us();
    tn_device *probe;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!backend || backend->open(backend, 0, TN_DTYPE_F32, &probe) != TN_OK) {
        printf("SKIP: no GPU backend or no GPU: %s\n",
               backend ? tn_error_message() : "libtenon-cuda.so did not open");
        return 77;
    }
    printf("%s, %.1f GiB, context %.0f MiB\n", probe->name, (double)probe->memory_total / 1073741824.0,
           (double)probe->context_bytes / 1048576.0);
    backend->close(probe);
    if (bench) return bench_all(backend, wanted);
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
        dtype = dtypes[d];
        open_both(backend, &limits);
        for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
            int before = broken;
            if (!strstr(tests[i].name, wanted)) continue;
            current = tests[i].name;
            tests[i].run();
            MUST(gpu->backend->sync(gpu));
            release_all();
            printf("%-8s %-20s %s\n", tn_dtype_name(dtype), tests[i].name, broken > before ? "BROKEN" : "kept");
        }
        close_both();
    }
    printf("%d comparisons, %d broken\n", checked, broken);
    return broken > 0;
}
