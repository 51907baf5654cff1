/* attention.c: attention over packed documents, causal or not, one query row and head at a time. Scores are
 * computed again wherever they are needed, so that no T×T matrix and no row of scores is ever stored; the
 * forward pass keeps a running maximum and sum (Milakov and Gimelshein, "Online normalizer calculation for
 * softmax", 2018).
 *
 *   q, o, dq, d_o [q_rows, heads·head_dim]   k, v, dk, dv [kv_rows, kv_heads·head_dim]   lse [q_rows, heads]
 */
#include <math.h>
#include <stddef.h>

#include "base/integer.h"
#include "op/ref/element.h"
#include "op/ref/reference.h"

enum { MAX_HEAD_DIM = 512 };

/* Keys first … last (exclusive) that a query sees, as rows of k. */
typedef struct range {
    int64_t first, last;
} range;

static range visible_keys(const tn_attention *a, int64_t document, int64_t query) {
    int64_t queries = a->host_cu_q[document + 1] - a->host_cu_q[document];
    int64_t start = a->host_cu_kv[document], keys = a->host_cu_kv[document + 1] - start;
    if (a->bidirectional) return (range){start, start + keys};
    int64_t last = query - a->host_cu_q[document] + keys - queries + 1;
    int64_t first = a->window ? tn_max(0, last - a->window) : 0;
    return (range){start + first, start + tn_max(first, last)};
}

static range seeing_queries(const tn_attention *a, int64_t document, int64_t key) {
    int64_t start = a->host_cu_q[document], queries = a->host_cu_q[document + 1] - start;
    if (a->bidirectional) return (range){start, start + queries};
    int64_t keys = a->host_cu_kv[document + 1] - a->host_cu_kv[document];
    int64_t first = key - a->host_cu_kv[document] - (keys - queries);
    int64_t last = a->window ? tn_min(queries, first + a->window) : queries;
    first = tn_max(0, first);
    return (range){start + first, start + tn_max(first, last)};
}

static double dot(tn_dtype dtype, const void *x, const void *y, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)tn_load(dtype, x, i) * tn_load(dtype, y, i);
    return sum;
}

/* Scaled and capped score. */
static double score(tn_dtype dtype, const tn_attention *a, const void *q, const void *k) {
    double s = a->scale * dot(dtype, q, k, a->head_dim);
    return a->softcap > 0 ? a->softcap * tanh(s / a->softcap) : s;
}

static void attend(tn_dtype dtype, const tn_attention *a, range keys, const void *q, tn_view k, tn_view v,
                   int64_t column, void *o, float *lse) {
    double sums[MAX_HEAD_DIM] = {0}, largest = -INFINITY, total = 0;
    for (int64_t key = keys.first; key < keys.last; key++) {
        double s = score(dtype, a, q, tn_at(dtype, k, key, column));
        if (s > largest) {
            double shrink = exp(largest - s);
            for (int64_t i = 0; i < a->head_dim; i++) sums[i] *= shrink;
            total *= shrink, largest = s;
        }
        double p = exp(s - largest);
        const void *values = tn_at(dtype, v, key, column);
        for (int64_t i = 0; i < a->head_dim; i++) sums[i] += p * tn_load(dtype, values, i);
        total += p;
    }
    for (int64_t i = 0; i < a->head_dim; i++) tn_store(dtype, o, i, total > 0 ? sums[i] / total : 0);
    if (lse) *lse = (float)(largest + log(total));
}

tn_status tn_ref_attention_forward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                   tn_view o, float *lse) {
    tn_dtype dtype = device->dtype;
    int64_t group = a->heads / a->kv_heads, d = a->head_dim;
    if (d > MAX_HEAD_DIM)
        return tn_fail(TN_USAGE, "head_dim %lld is larger than %d", (long long)d, MAX_HEAD_DIM);
    for (int64_t document = 0; document < a->documents; document++) {
#pragma omp parallel for schedule(dynamic, 8)
        for (int64_t row = a->host_cu_q[document]; row < a->host_cu_q[document + 1]; row++)
            for (int64_t head = 0; head < a->heads; head++)
                attend(dtype, a, visible_keys(a, document, row), tn_at(dtype, q, row, head * d), k, v,
                       head / group * d, tn_at(dtype, o, row, head * d),
                       lse ? &lse[row * a->heads + head] : NULL);
    }
    return TN_OK;
}

/* For one pair of query and key: p = softmax's value and ds = gradient of q·k. */
static void pair_gradient(tn_dtype dtype, const tn_attention *a, const void *q, const void *k, const void *v,
                          const void *o, const void *d_o, float lse, double *p, double *ds) {
    double s = score(dtype, a, q, k);
    *p = exp(s - lse);
    *ds = *p * (dot(dtype, d_o, v, a->head_dim) - dot(dtype, d_o, o, a->head_dim)) * a->scale;
    if (a->softcap > 0) *ds *= 1 - s / a->softcap * (s / a->softcap);
}

static void query_gradient(tn_dtype dtype, const tn_attention *a, range keys, int64_t row, int64_t head,
                           tn_view q, tn_view k, tn_view v, tn_view o, const float *lse, tn_view d_o,
                           tn_view dq) {
    double sums[MAX_HEAD_DIM] = {0}, p, ds;
    int64_t d = a->head_dim, column = head / (a->heads / a->kv_heads) * d;
    for (int64_t key = keys.first; key < keys.last; key++) {
        const void *values = tn_at(dtype, k, key, column);
        pair_gradient(dtype, a, tn_at(dtype, q, row, head * d), values, tn_at(dtype, v, key, column),
                      tn_at(dtype, o, row, head * d), tn_at(dtype, d_o, row, head * d),
                      lse[row * a->heads + head], &p, &ds);
        for (int64_t i = 0; i < d; i++) sums[i] += ds * tn_load(dtype, values, i);
    }
    for (int64_t i = 0; i < d; i++) tn_store(dtype, tn_at(dtype, dq, row, head * d), i, sums[i]);
}

static void key_gradient(tn_dtype dtype, const tn_attention *a, range queries, int64_t key, int64_t kv_head,
                         tn_view q, tn_view k, tn_view v, tn_view o, const float *lse, tn_view d_o, tn_view dk,
                         tn_view dv) {
    double k_sums[MAX_HEAD_DIM] = {0}, v_sums[MAX_HEAD_DIM] = {0}, p, ds;
    int64_t d = a->head_dim, group = a->heads / a->kv_heads;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (int64_t row = queries.first; row < queries.last; row++) {
            const void *query = tn_at(dtype, q, row, head * d), *gradient = tn_at(dtype, d_o, row, head * d);
            pair_gradient(dtype, a, query, tn_at(dtype, k, key, kv_head * d), tn_at(dtype, v, key, kv_head * d),
                          tn_at(dtype, o, row, head * d), gradient, lse[row * a->heads + head], &p, &ds);
            for (int64_t i = 0; i < d; i++) {
                k_sums[i] += ds * tn_load(dtype, query, i);
                v_sums[i] += p * tn_load(dtype, gradient, i);
            }
        }
    for (int64_t i = 0; i < d; i++) {
        tn_store(dtype, tn_at(dtype, dk, key, kv_head * d), i, k_sums[i]);
        tn_store(dtype, tn_at(dtype, dv, key, kv_head * d), i, v_sums[i]);
    }
}

tn_status tn_ref_attention_backward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                    tn_view o, const float *lse, tn_view d_o, tn_view dq, tn_view dk,
                                    tn_view dv) {
    tn_dtype dtype = device->dtype;
    if (a->head_dim > MAX_HEAD_DIM)
        return tn_fail(TN_USAGE, "head_dim %lld is larger than %d", (long long)a->head_dim, MAX_HEAD_DIM);
    for (int64_t document = 0; document < a->documents; document++) {
#pragma omp parallel for schedule(dynamic, 8)
        for (int64_t row = a->host_cu_q[document]; row < a->host_cu_q[document + 1]; row++)
            for (int64_t head = 0; head < a->heads; head++)
                query_gradient(dtype, a, visible_keys(a, document, row), row, head, q, k, v, o, lse, d_o, dq);
#pragma omp parallel for schedule(dynamic, 8)
        for (int64_t key = a->host_cu_kv[document]; key < a->host_cu_kv[document + 1]; key++)
            for (int64_t head = 0; head < a->kv_heads; head++)
                key_gradient(dtype, a, seeing_queries(a, document, key), key, head, q, k, v, o, lse, d_o, dk,
                             dv);
    }
    return TN_OK;
}
