/* test_op_attention.c: attention agrees with the reference on packed documents of odd lengths: grouped heads,
 * windows, soft caps, more keys than queries, head sizes from 8 to 256.
 */
#include "op/harness.h"

enum { MAX_DOCUMENTS = 5 };

typedef struct layout {
    int documents;
    int32_t queries[MAX_DOCUMENTS], keys[MAX_DOCUMENTS]; /* keys of 0: as many as queries */
    int64_t heads, kv_heads, head_dim, window;
    float softcap;
    bool bidirectional;
} layout;

static const layout layouts[] = {
    {.documents = 1, .queries = {1}, .heads = 1, .kv_heads = 1, .head_dim = 16},
    {.documents = 1, .queries = {7}, .keys = {7}, .heads = 4, .kv_heads = 2, .head_dim = 8},
    {.documents = 3, .queries = {64, 1, 65}, .heads = 3, .kv_heads = 1, .head_dim = 64},
    {.documents = 5, .queries = {3, 130, 17, 64, 1}, .heads = 4, .kv_heads = 2, .head_dim = 24},
    {.documents = 2, .queries = {150, 90}, .heads = 2, .kv_heads = 2, .head_dim = 80, .window = 33},
    {.documents = 2,
     .queries = {40, 200},
     .heads = 2,
     .kv_heads = 1,
     .head_dim = 32,
     .window = 100,
     .softcap = 5},
    {.documents = 1, .queries = {129}, .heads = 2, .kv_heads = 1, .head_dim = 128, .softcap = 20},
    {.documents = 1, .queries = {70}, .heads = 1, .kv_heads = 1, .head_dim = 256},
    {.documents = 2, .queries = {1, 1}, .keys = {300, 65}, .heads = 4, .kv_heads = 2, .head_dim = 64},
    {.documents = 2,
     .queries = {3, 8},
     .keys = {130, 20},
     .heads = 2,
     .kv_heads = 2,
     .head_dim = 16,
     .window = 9},
    {.documents = 2,
     .queries = {70, 10},
     .keys = {170, 10},
     .heads = 2,
     .kv_heads = 1,
     .head_dim = 16,
     .window = 50},
    {.documents = 1, .queries = {20}, .heads = 1, .kv_heads = 1, .head_dim = 6},
    {.documents = 3, .queries = {5, 70, 1}, .heads = 2, .kv_heads = 1, .head_dim = 16, .bidirectional = true},
};

/* One case on both devices. */
typedef struct problem {
    tn_attention shape;
    int32_t cu_q[MAX_DOCUMENTS + 1], cu_kv[MAX_DOCUMENTS + 1];
    matrix *cu_q_matrix, *cu_kv_matrix;
} problem;

static void make_problem(session *s, const layout *l, problem *p) {
    *p = (problem){.shape = {.documents = l->documents,
                             .heads = l->heads,
                             .kv_heads = l->kv_heads,
                             .head_dim = l->head_dim,
                             .scale = 0.3f,
                             .softcap = l->softcap,
                             .bidirectional = l->bidirectional,
                             .window = l->window}};
    for (int i = 0; i < l->documents; i++) {
        int32_t keys = l->keys[i] ? l->keys[i] : l->queries[i];
        p->cu_q[i + 1] = p->cu_q[i] + l->queries[i];
        p->cu_kv[i + 1] = p->cu_kv[i] + keys;
        if (l->queries[i] > p->shape.longest_q) p->shape.longest_q = l->queries[i];
        if (keys > p->shape.longest_kv) p->shape.longest_kv = keys;
    }
    p->shape.q_rows = p->cu_q[l->documents], p->shape.kv_rows = p->cu_kv[l->documents];
    p->shape.host_cu_q = p->cu_q, p->shape.host_cu_kv = p->cu_kv;
    p->cu_q_matrix = integers(s, l->documents + 1, p->cu_q);
    p->cu_kv_matrix = integers(s, l->documents + 1, p->cu_kv);
}

static const tn_attention *shape_on(problem *p, int side) {
    p->shape.cu_q = p->cu_q_matrix->on_device[side], p->shape.cu_kv = p->cu_kv_matrix->on_device[side];
    return &p->shape;
}

/* Copies what the reference's forward pass gave into inputs of the backward pass. */
static void forward_of_reference(session *s, problem *p, matrix *q, matrix *k, matrix *v, matrix *o,
                                 matrix *lse) {
    tn_device *device = s->device[REFERENCE];
    const int side = REFERENCE;
    upload_all(s, side);
    succeed(device->backend->attention_forward(device, shape_on(p, side), V(q), V(k), V(v), V(o), P(lse)));
    succeed(device->backend->download(device, o->before, P(o), o->bytes));
    succeed(device->backend->download(device, lse->before, P(lse), lse->bytes));
}

static void forward_case(session *s) {
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        for (int inference = 0; inference < 2; inference++) {
            const layout *l = &layouts[i];
            problem p;
            make_problem(s, l, &p);
            matrix *q = input(s, p.shape.q_rows, l->heads * l->head_dim);
            matrix *k = input(s, p.shape.kv_rows, l->kv_heads * l->head_dim);
            matrix *v = input(s, p.shape.kv_rows, l->kv_heads * l->head_dim);
            matrix *o = output(s, p.shape.q_rows, l->heads * l->head_dim);
            matrix *lse = array(s, inference ? IN : OUT, TN_DTYPE_F32, p.shape.q_rows * l->heads, 2e-6);
            o->tolerance *= 2; /* probabilities may be rounded to the compute dtype before they meet v */
            RUN(s, attention_forward, shape_on(&p, side), V(q), V(k), V(v), V(o), inference ? NULL : P(lse));
        }
}
static void attention_forward_agrees(void **state) { (void)state, in_every_dtype(forward_case); }

static void backward_case(session *s) {
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const layout *l = &layouts[i];
        int64_t wide = l->heads * l->head_dim, narrow = l->kv_heads * l->head_dim;
        problem p;
        make_problem(s, l, &p);
        matrix *q = input(s, p.shape.q_rows, wide), *k = input(s, p.shape.kv_rows, narrow);
        matrix *v = input(s, p.shape.kv_rows, narrow), *o = input(s, p.shape.q_rows, wide);
        matrix *lse = array(s, IN, TN_DTYPE_F32, p.shape.q_rows * l->heads, 0),
               *d_o = input(s, p.shape.q_rows, wide);
        matrix *dq = output(s, p.shape.q_rows, wide), *dk = output(s, p.shape.kv_rows, narrow);
        matrix *dv = output(s, p.shape.kv_rows, narrow);
        forward_of_reference(s, &p, q, k, v, o, lse);
        dq->tolerance = dk->tolerance = dv->tolerance =
            s->dtype == TN_DTYPE_F32 ? 1e-5 : 3 * usual_tolerance(s->dtype);
        /* One key alone: its dq and dk are zero but for rounding, so that only dv says anything. */
        if (p.shape.kv_rows == 1) dq->tolerance = dk->tolerance = INFINITY;
        RUN(s, attention_backward, shape_on(&p, side), V(q), V(k), V(v), V(o), P(lse), V(d_o), V(dq), V(dk),
            V(dv));
    }
}
static void attention_backward_agrees(void **state) { (void)state, in_every_dtype(backward_case); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_forward_agrees),
        cmocka_unit_test(attention_backward_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
