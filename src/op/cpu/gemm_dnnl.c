/* gemm_dnnl.c: matrix products through oneDNN's matmul primitive; the only file that knows the library, and
 * compiles with 2.x and 3.x, whose C interfaces differ in how descriptors are made. Building a primitive
 * generates machine code (milliseconds), so each is kept in a table keyed by the whole description of the
 * product. The table lives as long as the process; when it is full (batches of ever new sizes) it is emptied
 * and fills again with what is in use.
 */
#include <dnnl.h>
#include <pthread.h>

#include "base/cpu.h"
#include "base/hash.h"
#include "base/status.h"
#include "op/cpu/gemm.h"

typedef struct prepared {
    tn_gemm gemm;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c, added, bias;
} prepared;

enum { SLOTS = 512 };

static struct {
    pthread_mutex_t lock;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    prepared slots[SLOTS]; /* open addressing, at most half full */
    int64_t used;
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Stops at the first failure of the library. */
#define DNNL_TRY(call)                                                                         \
    do {                                                                                       \
        dnnl_status_t code = (call);                                                           \
        if (code != dnnl_success) {                                                            \
            status = tn_fail(TN_FAILED, "oneDNN: %s failed with status %d", #call, (int)code); \
            goto done;                                                                         \
        }                                                                                      \
    } while (0)

static dnnl_data_type_t type_of(tn_dtype dtype) {
    return dtype == TN_DTYPE_F32 ? dnnl_f32 : dtype == TN_DTYPE_BF16 ? dnnl_bf16 : dnnl_f16;
}

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t descriptor;
#define DESCRIPTOR(d) (d)
enum { SCALE_IS_POST_OP = 1 };
static dnnl_status_t describe(descriptor *d, tn_dtype dtype, int64_t rows, int64_t cols, int64_t row_stride,
                              int64_t col_stride) {
    dnnl_dims_t dims = {rows, cols}, strides = {row_stride, col_stride};
    return dnnl_memory_desc_create_with_strides(d, 2, dims, type_of(dtype), strides);
}
static void forget(descriptor *d) { dnnl_memory_desc_destroy(*d); }
static dnnl_status_t set_scale(dnnl_primitive_attr_t attributes, dnnl_post_ops_t ops, float alpha) {
    (void)attributes;
    return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, alpha, 0);
}
static dnnl_status_t append_sum(dnnl_post_ops_t ops) {
    return dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef);
}
static dnnl_status_t make(dnnl_primitive_desc_t *result, descriptor *a, descriptor *b, descriptor *c,
                          descriptor *bias, dnnl_primitive_attr_t attributes) {
    return dnnl_matmul_primitive_desc_create(result, cache.engine, *a, *b, bias ? *bias : NULL, *c, attributes);
}
#else
typedef dnnl_memory_desc_t descriptor;
#define DESCRIPTOR(d) (&(d))
enum { SCALE_IS_POST_OP = 0 };
static dnnl_status_t describe(descriptor *d, tn_dtype dtype, int64_t rows, int64_t cols, int64_t row_stride,
                              int64_t col_stride) {
    dnnl_dims_t dims = {rows, cols}, strides = {row_stride, col_stride};
    return dnnl_memory_desc_init_by_strides(d, 2, dims, type_of(dtype), strides);
}
static void forget(descriptor *d) { (void)d; }
/* As a post-op followed by a sum this would fall to the library's plain reference code. */
static dnnl_status_t set_scale(dnnl_primitive_attr_t attributes, dnnl_post_ops_t ops, float alpha) {
    (void)ops;
    return dnnl_primitive_attr_set_output_scales(attributes, 1, 0, &alpha);
}
static dnnl_status_t append_sum(dnnl_post_ops_t ops) { return dnnl_post_ops_append_sum(ops, 1); }
static dnnl_status_t make(dnnl_primitive_desc_t *result, descriptor *a, descriptor *b, descriptor *c,
                          descriptor *bias, dnnl_primitive_attr_t attributes) {
    dnnl_matmul_desc_t matmul;
    dnnl_status_t code = dnnl_matmul_desc_init(&matmul, a, b, bias, c);
    return code == dnnl_success ? dnnl_primitive_desc_create(result, &matmul, attributes, cache.engine, NULL)
                                : code;
}
#endif

/* The order matters: alpha scales product and bias, then what is added comes unscaled. */
static tn_status describe_extras(const tn_gemm *g, descriptor *added, dnnl_post_ops_t ops,
                                 dnnl_primitive_attr_t attributes) {
    tn_status status = TN_OK;
    if (g->alpha != 1) DNNL_TRY(set_scale(attributes, ops, g->alpha));
    if (g->accumulate) DNNL_TRY(append_sum(ops));
    if (g->ld_added) DNNL_TRY(dnnl_post_ops_append_binary(ops, dnnl_binary_add, DESCRIPTOR(*added)));
    DNNL_TRY(dnnl_primitive_attr_set_post_ops(attributes, ops));
done:
    return status;
}

static tn_status prepare(const tn_gemm *g, prepared *p) {
    tn_status status = TN_OK;
    descriptor a = {0}, b = {0}, c = {0}, added = {0}, bias = {0};
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_desc_t description = NULL;
    DNNL_TRY(describe(&a, g->in, g->m, g->k, g->a_transposed ? 1 : g->lda, g->a_transposed ? g->lda : 1));
    DNNL_TRY(describe(&b, g->in, g->k, g->n, g->b_transposed ? 1 : g->ldb, g->b_transposed ? g->ldb : 1));
    DNNL_TRY(describe(&c, g->out, g->m, g->n, g->ldc, 1));
    if (g->ld_added) DNNL_TRY(describe(&added, g->added, g->m, g->n, g->ld_added, 1));
    if (g->biased) DNNL_TRY(describe(&bias, g->out, 1, g->n, g->n, 1));
    DNNL_TRY(dnnl_primitive_attr_create(&attributes));
    DNNL_TRY(dnnl_post_ops_create(&ops));
    TN_TRY(describe_extras(g, &added, ops, attributes));
    DNNL_TRY(make(&description, &a, &b, &c, g->biased ? &bias : NULL, attributes));
    DNNL_TRY(dnnl_primitive_create(&p->primitive, description));
    DNNL_TRY(dnnl_memory_create(&p->a, DESCRIPTOR(a), cache.engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&p->b, DESCRIPTOR(b), cache.engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&p->c, DESCRIPTOR(c), cache.engine, DNNL_MEMORY_NONE));
    if (g->ld_added) DNNL_TRY(dnnl_memory_create(&p->added, DESCRIPTOR(added), cache.engine, DNNL_MEMORY_NONE));
    if (g->biased) DNNL_TRY(dnnl_memory_create(&p->bias, DESCRIPTOR(bias), cache.engine, DNNL_MEMORY_NONE));
    p->gemm = *g;
done:
    if (description) dnnl_primitive_desc_destroy(description);
    if (ops) dnnl_post_ops_destroy(ops);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    forget(&a), forget(&b), forget(&c), forget(&added), forget(&bias);
    return status;
}

static bool same(const tn_gemm *x, const tn_gemm *y) {
    return x->in == y->in && x->out == y->out && x->a_transposed == y->a_transposed &&
           x->b_transposed == y->b_transposed && x->m == y->m && x->n == y->n && x->k == y->k &&
           x->lda == y->lda && x->ldb == y->ldb && x->ldc == y->ldc && x->alpha == y->alpha &&
           x->accumulate == y->accumulate && x->ld_added == y->ld_added && x->added == y->added &&
           x->biased == y->biased;
}

static prepared *slot_of(const tn_gemm *g) {
    int64_t shape[] = {
        g->m, g->n, g->k, g->lda, g->ldb, g->ldc, g->ld_added, g->a_transposed, g->b_transposed, g->in, g->out};
    uint64_t i = tn_hash64(shape, sizeof shape);
    while (cache.slots[i % SLOTS].primitive && !same(&cache.slots[i % SLOTS].gemm, g)) i++;
    return &cache.slots[i % SLOTS];
}

static void discard(prepared *p) {
    dnnl_memory_t memories[] = {p->a, p->b, p->c, p->added, p->bias};
    for (int i = 0; i < 5; i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    *p = (prepared){0};
}

static tn_status find(const tn_gemm *g, prepared **found) {
    tn_status status = TN_OK;
    if (!cache.engine) {
        DNNL_TRY(dnnl_engine_create(&cache.engine, dnnl_cpu, 0));
        DNNL_TRY(dnnl_stream_create(&cache.stream, cache.engine, dnnl_stream_default_flags));
    }
    *found = slot_of(g);
    if ((*found)->primitive) return TN_OK;
    if (cache.used * 2 >= SLOTS) {
        for (int i = 0; i < SLOTS; i++) discard(&cache.slots[i]);
        cache.used = 0;
        *found = slot_of(g);
    }
    status = prepare(g, *found);
    if (status == TN_OK) cache.used++;
    else discard(*found);
done:
    return status;
}

/* The library does not write through the handles of inputs; its interface has no const. */
static void *handle(const void *memory) { return (void *)(uintptr_t)memory; }

static tn_status execute(const tn_gemm *g, const prepared *p, const void *a, const void *b, void *c,
                         const void *added, const void *bias) {
    tn_status status = TN_OK;
    dnnl_exec_arg_t arguments[5] = {{DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->c}};
    int count = 3;
    DNNL_TRY(dnnl_memory_set_data_handle(p->a, handle(a)));
    DNNL_TRY(dnnl_memory_set_data_handle(p->b, handle(b)));
    DNNL_TRY(dnnl_memory_set_data_handle(p->c, c));
    if (g->biased) {
        DNNL_TRY(dnnl_memory_set_data_handle(p->bias, handle(bias)));
        arguments[count++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, p->bias};
    }
    if (g->ld_added) {
        int place = (SCALE_IS_POST_OP && g->alpha != 1) + g->accumulate; /* index of the post-op */
        DNNL_TRY(dnnl_memory_set_data_handle(p->added, handle(added)));
        arguments[count++] =
            (dnnl_exec_arg_t){DNNL_ARG_ATTR_MULTIPLE_POST_OP(place) | DNNL_ARG_SRC_1, p->added};
    }
    DNNL_TRY(dnnl_primitive_execute(p->primitive, cache.stream, count, arguments));
    DNNL_TRY(dnnl_stream_wait(cache.stream));
done:
    return status;
}

tn_status tn_gemm_library(const tn_gemm *gemm, const void *a, const void *b, void *c, const void *added,
                          const void *bias) {
    prepared *p = NULL;
    if (gemm->m == 0 || gemm->n == 0) return TN_OK;
    pthread_mutex_lock(&cache.lock);
    tn_status status = find(gemm, &p);
    if (status == TN_OK) status = execute(gemm, p, a, b, c, added, bias);
    pthread_mutex_unlock(&cache.lock);
    return status;
}
