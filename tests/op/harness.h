/* harness.h: runs one operation on the reference and on the backend under test and compares everything.
 *
 * A session holds two devices and the matrices of one case. Each matrix has guard columns behind its rows and
 * a guard row behind its end, filled like outputs with a poison that is a NaN in every dtype. RUN uploads all
 * of them, calls the operation, downloads, and does the same for the other device; then results must agree,
 * and everything else must hold the very bytes it held before.
 */
#ifndef TN_TESTS_OP_HARNESS_H
#define TN_TESTS_OP_HARNESS_H

/* cmocka.h needs the headers above it. */
/* clang-format off */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
/* clang-format on */

#include "base/mem.h"
#include "base/rng.h"
#include "op/op.h"

enum { REFERENCE, TESTED, MAX_MATRICES = 40, GUARD = 3, SCRATCH = 96 << 20 };

/* What an operation may do to a matrix. */
typedef enum usage { IN, OUT, IN_OUT } usage;

typedef struct matrix {
    tn_dtype dtype;
    usage use;
    int64_t rows, cols, free, stride; /* columns cols … cols+free-1 are the operation's to write (borders) */
    int64_t bytes;
    double tolerance;
    unsigned char *before, *after[2];
    void *on_device[2];
} matrix;

typedef struct session {
    tn_device *device[2];
    tn_dtype dtype;
    matrix matrices[MAX_MATRICES];
    int count;
    uint64_t seed;
} session;

static const tn_dtype compute_dtypes[] = {TN_DTYPE_F32, TN_DTYPE_BF16, TN_DTYPE_F16};

static const char *tested_name(void) {
    const char *name = getenv("TENON_TEST_BACKEND");
    return name && *name ? name : "cpu";
}

/* NULL, and a word about it, where the backend asked for is not there. */
static const tn_backend *tested_backend(void) {
    const char *why = NULL;
    if (strcmp(tested_name(), "reference") == 0) return tn_backend_reference();
    if (strcmp(tested_name(), "cuda") != 0) return tn_backend_cpu();
    const tn_backend *backend = tn_backend_cuda(&why);
    if (!backend) printf("SKIP: %s\n", why);
    return backend;
}

static void succeed_at(tn_status status, const char *file, int line) {
    if (status != TN_OK) printf("%s:%d: %s %s\n", file, line, tn_error_message(), tn_error_remedy());
    _assert_true(status == TN_OK, "status", file, line);
}
#define succeed(call) succeed_at(call, __FILE__, __LINE__)

static void *take_memory(tn_device *device, int64_t bytes) {
    void *memory;
    succeed(device->backend->allocate(device, bytes > 0 ? bytes : 64, &memory));
    return memory;
}

static void begin_session(session *s, tn_dtype dtype) {
    const tn_backend *backends[2] = {tn_backend_reference(), tested_backend()};
    *s = (session){.dtype = dtype, .seed = 1};
    for (int side = 0; side < 2; side++) {
        succeed(backends[side]->open(backends[side], 0, dtype, &s->device[side]));
        s->device[side]->scratch = take_memory(s->device[side], SCRATCH);
        s->device[side]->scratch_size = SCRATCH;
    }
}

static void drop_matrices(session *s) {
    for (int i = 0; i < s->count; i++) {
        matrix *m = &s->matrices[i];
        for (int side = 0; side < 2; side++) {
            s->device[side]->backend->release(s->device[side], m->on_device[side]);
            free(m->after[side]);
        }
        free(m->before);
    }
    s->count = 0;
}

static void end_session(session *s) {
    drop_matrices(s);
    for (int side = 0; side < 2; side++) {
        s->device[side]->backend->release(s->device[side], s->device[side]->scratch);
        tn_device_close(s->device[side]);
    }
}

/* ---- Numbers --------------------------------------------------------------------------------------- */

static int64_t size_of(tn_dtype dtype) { return tn_dtype_block_bytes(dtype); }

static double read_number(tn_dtype dtype, const void *data, int64_t i) {
    if (dtype == TN_DTYPE_F64) return ((const double *)data)[i];
    if (dtype == TN_DTYPE_I32) return ((const int32_t *)data)[i];
    if (dtype == TN_DTYPE_F32) return (double)((const float *)data)[i];
    uint16_t bits = ((const uint16_t *)data)[i];
    return (double)(dtype == TN_DTYPE_BF16 ? tn_bf16_to_f32(bits) : tn_f16_to_f32(bits));
}

static void write_number(tn_dtype dtype, void *data, int64_t i, double value) {
    if (dtype == TN_DTYPE_F64) ((double *)data)[i] = value;
    else if (dtype == TN_DTYPE_I32) ((int32_t *)data)[i] = (int32_t)value;
    else if (dtype == TN_DTYPE_F32) ((float *)data)[i] = (float)value;
    else
        ((uint16_t *)data)[i] =
            dtype == TN_DTYPE_BF16 ? tn_f32_to_bf16((float)value) : tn_f32_to_f16((float)value);
}

/* Normal numbers of deviation `scale`. */
static void randomise(session *s, matrix *m, double scale) {
    s->seed++;
    for (int64_t row = 0; row < m->rows; row++)
        for (int64_t col = 0; col < m->cols; col++)
            write_number(m->dtype, m->before, row * m->stride + col,
                         scale * (double)tn_random_normal(s->seed, 0, (uint64_t)(row * m->cols + col)));
}

/* ---- Matrices ---------------------------------------------------------------------------------------- */

/* `spare` columns behind the matrix: `free_cols` of them may be written, the rest and GUARD more may not. */
static matrix *matrix_new(session *s, usage use, tn_dtype dtype, int64_t rows, int64_t cols, int64_t free_cols,
                          double tolerance) {
    assert_true(s->count < MAX_MATRICES);
    matrix *m = &s->matrices[s->count++];
    *m = (matrix){
        .dtype = dtype, .use = use, .rows = rows, .cols = cols, .free = free_cols, .tolerance = tolerance};
    m->stride = cols + free_cols + (rows > 1 ? GUARD : 0);
    m->bytes = (rows * m->stride + GUARD) * size_of(dtype);
    m->before = malloc((size_t)m->bytes);
    memset(m->before, 0xFF, (size_t)m->bytes); /* a NaN, or -1 */
    for (int side = 0; side < 2; side++) {
        m->after[side] = malloc((size_t)m->bytes);
        m->on_device[side] = take_memory(s->device[side], m->bytes);
    }
    return m;
}

/* Random input of the compute dtype. */
static matrix *input(session *s, int64_t rows, int64_t cols) {
    matrix *m = matrix_new(s, IN, s->dtype, rows, cols, 0, 0);
    randomise(s, m, 1);
    return m;
}

/* Relative L2 error that two correct implementations may show: rounding of the result, plus its sums' fp32. */
static double usual_tolerance(tn_dtype dtype) {
    return dtype == TN_DTYPE_F32 ? 2e-6 : dtype == TN_DTYPE_BF16 ? 4e-3 : 5e-4;
}

static matrix *output(session *s, int64_t rows, int64_t cols) {
    return matrix_new(s, OUT, s->dtype, rows, cols, 0, usual_tolerance(s->dtype));
}

/* A dense fp32 (or double, or int) array, without guard columns. */
static matrix *array(session *s, usage use, tn_dtype dtype, int64_t count, double tolerance) {
    matrix *m = matrix_new(s, use, dtype, 1, count, 0, tolerance);
    if (use != OUT && dtype != TN_DTYPE_I32) randomise(s, m, 1);
    return m;
}

static inline matrix *integers(session *s, int64_t count, const int32_t *values) {
    matrix *m = array(s, IN, TN_DTYPE_I32, count, 0);
    memcpy(m->before, values, (size_t)count * 4);
    return m;
}

static tn_view view_of(const matrix *m, int side) {
    return m ? (tn_view){m->on_device[side], m->stride} : (tn_view){NULL, 0};
}

/* ---- Running and comparing --------------------------------------------------------------------------- */

static void upload_all(session *s, int side) {
    for (int i = 0; i < s->count; i++)
        succeed(s->device[side]->backend->upload(s->device[side], s->matrices[i].on_device[side],
                                                 s->matrices[i].before, s->matrices[i].bytes));
}

static void download_all(session *s, int side) {
    for (int i = 0; i < s->count; i++)
        succeed(s->device[side]->backend->download(s->device[side], s->matrices[i].after[side],
                                                   s->matrices[i].on_device[side], s->matrices[i].bytes));
}

static bool may_change(const matrix *m, int64_t element) {
    int64_t row = element / m->stride, col = element % m->stride;
    if (row >= m->rows) return false;
    if (col < m->cols) return m->use != IN;
    return col < m->cols + m->free;
}

/* Everything outside the results holds what it held. */
static bool guards_hold(const matrix *m, int side) {
    int64_t size = size_of(m->dtype);
    for (int64_t i = 0; i < m->bytes / size; i++)
        if (!may_change(m, i) && memcmp(m->before + i * size, m->after[side] + i * size, (size_t)size) != 0) {
            printf("matrix of %lld x %lld: element [%lld, %lld] was overwritten by %s\n", (long long)m->rows,
                   (long long)m->cols, (long long)(i / m->stride), (long long)(i % m->stride),
                   side == TESTED ? tested_name() : "the reference");
            return false;
        }
    return true;
}

/* Relative L2 distance of the results; infinite where one holds a NaN that the other does not. */
static double distance(const matrix *m) {
    double difference = 0, norm = 0;
    for (int64_t row = 0; row < m->rows; row++)
        for (int64_t col = 0; col < m->cols; col++) {
            double a = read_number(m->dtype, m->after[TESTED], row * m->stride + col);
            double b = read_number(m->dtype, m->after[REFERENCE], row * m->stride + col);
            if (isnan(b) || isnan(a) || isinf(a) || isinf(b)) {
                if (memcmp(&a, &b, sizeof a) != 0) return INFINITY;
                continue;
            }
            difference += (a - b) * (a - b);
            norm += b * b;
        }
    return norm > 0 ? sqrt(difference / norm) : difference > 0 ? INFINITY : 0;
}

static void check_all(session *s, const char *operation, const char *file, int line) {
    for (int i = 0; i < s->count; i++) {
        const matrix *m = &s->matrices[i];
        bool good = guards_hold(m, REFERENCE) && guards_hold(m, TESTED);
        double error = m->use == IN ? 0 : distance(m);
        if (error > m->tolerance) good = false;
        if (!good)
            printf("%s, %s: matrix %d [%lld, %lld] %s: error %.3g, allowed %.3g\n", operation,
                   tn_dtype_name(s->dtype), i, (long long)m->rows, (long long)m->cols, tn_dtype_name(m->dtype),
                   error, m->tolerance);
        _assert_true(good, operation, file, line);
    }
    drop_matrices(s);
}

/* In the arguments V(m) is a matrix's view and P(m) its data on the device. */
#define V(m) view_of(m, side)
#define P(m) ((m)->on_device[side])
#define RUN(s, operation, ...)                                        \
    do {                                                              \
        for (int side = 0; side < 2; side++) {                        \
            tn_device *device = (s)->device[side];                    \
            upload_all(s, side);                                      \
            succeed(device->backend->operation(device, __VA_ARGS__)); \
            download_all(s, side);                                    \
        }                                                             \
        check_all(s, #operation, __FILE__, __LINE__);                 \
    } while (0)

/* Calls `test` with a session of each compute dtype; the CPU backend also with the kernels of lesser machines
 * (which do not matter in F16, where it is the reference). */
static void in_every_dtype(void (*test)(session *s)) {
    const char *const kernels[] = {NULL, "avx512", "avx2", "base"};
    bool cpu = strcmp(tested_name(), "cpu") == 0;
    session s;
    if (!tested_backend()) skip();
    for (int k = 0; k < (cpu ? 4 : 1); k++) {
        if (kernels[k]) setenv("TENON_CPU_KERNELS", kernels[k], 1);
        for (int i = 0; i < (kernels[k] ? 2 : 3); i++) {
            begin_session(&s, compute_dtypes[i]);
            test(&s);
            end_session(&s);
        }
    }
    unsetenv("TENON_CPU_KERNELS");
}

#endif
