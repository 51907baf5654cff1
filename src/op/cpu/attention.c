/* attention.c: attention over packed documents, causal or in both directions, in tiles of TN_TILE queries by
 * TN_TILE keys, after Dao, "FlashAttention-2", 2023: scores exist one tile at a time, in a core's own cache.
 *
 * Forward: keys and values are packed once per kv head (phase 1); then each task, one tile of queries of one
 * head, walks over its tiles of keys with a running maximum and sum. Backward: packed keys and values again,
 * then each task, one head of one document, walks over all pairs of tiles. It works on transposed tiles (keys
 * by queries), in which dK, dV and dQᵀ are plain products without a transposed operand. dK and dV of each query
 * head are summed in fp32 and added up over a kv head's group at the end, in order. Tasks share nothing that is
 * written, so results do not depend on threads.
 *
 * A document begins a fresh tile: tile t of document i is number cu[i]/TN_TILE + i + t. Up to FEW queries
 * (generation) are computed row by row without packing.
 */
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <string.h>

#include "base/integer.h"
#include "op/cpu/cpu.h"

enum { T = TN_TILE, FEW = 8 };

static int64_t tiles(int64_t rows) { return (rows + T - 1) / T; }

/* What one call works with. `kind` is 1 where elements are bfloat16 (product in hardware), else floats. */
typedef struct work {
    const tn_attention *a;
    const tn_kernels *kernels;
    tn_dtype dtype;
    int kind;
    int64_t size;  /* bytes of an element */
    int64_t width; /* head_dim padded to 16, the n of packed operands */
    tn_view q, k, v, o, d_o, dq, dk, dv;
    const float *lse;
    float *lse_out;
    int64_t kv_tiles;                      /* in all documents */
    char *keys, *values, *keys_transposed; /* per kv head and tile; see phase 1 of each pass */
    float *dk_sums, *dv_sums;              /* [heads, kv_tiles, T, width] */
    char *own;                             /* own_bytes per thread */
    int64_t own_bytes;
} work;

static work begin(const tn_device *device, const tn_attention *a) {
    work w = {.a = a, .kernels = tn_kernels_of(device), .dtype = device->dtype};
    w.kind = tn_is_bf16(device) && w.kernels->panel[1];
    w.size = w.kind ? 2 : 4;
    w.width = (a->head_dim + 15) / 16 * 16;
    w.kv_tiles = a->kv_rows / T + a->documents;
    return w;
}

static int64_t first_tile(const int32_t *cu, int64_t document) { return cu[document] / T + document; }

/* Bytes of one tile of elements, padded to `width` columns. */
static int64_t tile_bytes(const work *w) { return T * w->width * w->size; }

/* ---- Tiles ---------------------------------------------------------------------------------------------- */

/* Rows first … first+count-1 of one head as elements [T, head_dim], rows behind count zero. */
static void load_tile(const work *w, tn_view view, int64_t first, int64_t count, int64_t column, void *tile) {
    int64_t d = w->a->head_dim, bytes = d * w->size;
    for (int64_t i = 0; i < count; i++) {
        const void *from = tn_at(w->dtype, view, first + i, column);
        if (tn_element_bytes(w->dtype) == w->size) memcpy((char *)tile + i * bytes, from, (size_t)bytes);
        else w->kernels->widen[1](d, from, (float *)tile + i * d);
    }
    memset((char *)tile + count * bytes, 0, (size_t)((T - count) * bytes));
}

static int64_t documents_queries(const tn_attention *a, int64_t i) {
    return a->host_cu_q[i + 1] - a->host_cu_q[i];
}
static int64_t documents_keys(const tn_attention *a, int64_t i) {
    return a->host_cu_kv[i + 1] - a->host_cu_kv[i];
}

/* What query `row` of a document sees: keys first … last-1, counted from `origin`. */
static void visible(const tn_attention *a, int64_t document, int64_t row, int64_t origin, int64_t *first,
                    int64_t *last) {
    int64_t end = row + documents_keys(a, document) - documents_queries(a, document) + 1;
    if (a->bidirectional) end = documents_keys(a, document);
    *first = tn_max(0, (a->window ? end - a->window : 0) - origin);
    *last = end - origin;
}

/* Which queries, counted from `origin`, see key `key`. */
static void seeing(const tn_attention *a, int64_t document, int64_t key, int64_t origin, int64_t *first,
                   int64_t *last) {
    int64_t start = key - documents_keys(a, document) + documents_queries(a, document);
    if (a->bidirectional) start = 0;
    int64_t end =
        a->window ? tn_min(start + a->window, documents_queries(a, document)) : documents_queries(a, document);
    *first = tn_max(0, start - origin);
    *last = tn_min(T, end - origin);
}

/* Tiles of keys that the queries first … last of a document touch. */
static void touched(const tn_attention *a, int64_t document, int64_t first, int64_t last, int64_t *from,
                    int64_t *to) {
    int64_t low, high, ignored;
    visible(a, document, first, 0, &low, &ignored);
    visible(a, document, last, 0, &ignored, &high);
    *from = low / T;
    *to = high > 0 ? tiles(high) : 0;
}

/* The document that global tile number `tile` belongs to; its own tile number in *within, or -1 if it is a gap.
 */
static int64_t document_of(const tn_attention *a, const int32_t *cu, int64_t tile, int64_t *within) {
    int64_t low = 0, high = a->documents - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (first_tile(cu, middle) <= tile) low = middle;
        else high = middle - 1;
    }
    *within = tile - first_tile(cu, low);
    if (*within >= tiles(cu[low + 1] - cu[low])) *within = -1;
    return low;
}

/* Phase 1: for each kv head and tile of keys, `make` is called with rows of k and v. */
static void pack_keys(const work *w, void (*make)(const work *w, int64_t place, const void *k, const void *v)) {
    const tn_attention *a = w->a;
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t task = 0; task < a->kv_heads * w->kv_tiles; task++) {
        char *k = w->own + omp_get_thread_num() * w->own_bytes, *v = k + tile_bytes(w);
        int64_t head = task / w->kv_tiles, within,
                document = document_of(a, a->host_cu_kv, task % w->kv_tiles, &within);
        if (within < 0) continue;
        int64_t count = tn_min(T, documents_keys(a, document) - within * T);
        int64_t row = a->host_cu_kv[document] + within * T, column = head * a->head_dim;
        load_tile(w, w->k, row, count, column, k);
        load_tile(w, w->v, row, count, column, v);
        make(w, task, k, v);
    }
}

/* ---- Forward ------------------------------------------------------------------------------------- */

/* K as B of q·Kᵀ, V as B of p·V. */
static void pack_for_forward(const work *w, int64_t place, const void *k, const void *v) {
    w->kernels->pack_transposed[w->kind](T, w->a->head_dim, k, w->a->head_dim, w->keys + place * tile_bytes(w));
    w->kernels->pack[w->kind](T, w->a->head_dim, w->width, v, w->a->head_dim,
                              w->values + place * tile_bytes(w));
}

/* A thread's own memory in the forward pass. */
typedef struct forward_tiles {
    float scores[T * T], largest[T], total[T][TN_LANES];
    float p[T * T]; /* elements */
} forward_tiles;

static float add_up(const float parts[TN_LANES]) {
    float total = 0;
    for (int i = 0; i < TN_LANES; i++) total += parts[i];
    return total;
}

static void query_tile(const work *w, int64_t document, int64_t tile, int64_t head, char *own) {
    const tn_attention *a = w->a;
    forward_tiles *f = (forward_tiles *)own;
    float *sums = (float *)(own + sizeof *f); /* [T, width] */
    char *q = (char *)(sums + T * w->width);
    int64_t d = a->head_dim, kv_head = head / (a->heads / a->kv_heads), origin = tile * T;
    int64_t count = tn_min(T, documents_queries(a, document) - origin), row = a->host_cu_q[document] + origin,
            from, to;
    load_tile(w, w->q, row, count, head * d, q);
    memset(sums, 0, (size_t)(T * w->width) * sizeof *sums);
    memset(f->total, 0, sizeof f->total);
    for (int64_t i = 0; i < T; i++) f->largest[i] = -INFINITY;
    touched(a, document, origin, origin + count - 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        int64_t place = (kv_head * w->kv_tiles + first_tile(a->host_cu_kv, document) + t) * tile_bytes(w);
        w->kernels->panel[w->kind](T, T, d, q, d, 0, w->keys + place, f->scores, T, false);
        for (int64_t i = 0; i < T; i++) {
            int64_t first = 0, last = 0;
            if (i < count) visible(a, document, origin + i, t * T, &first, &last);
            float shrink =
                w->kernels->softmax[w->kind](f->scores + i * T, first, last, a->scale, a->softcap,
                                             &f->largest[i], f->total[i], (char *)f->p + i * T * w->size);
            if (shrink != 1) w->kernels->scale[0](w->width, shrink, sums + i * w->width, sums + i * w->width);
        }
        w->kernels->panel[w->kind](T, w->width, T, f->p, T, 0, w->values + place, sums, w->width, true);
    }
    for (int64_t i = 0; i < count; i++) {
        float total = add_up(f->total[i]), inverse = total > 0 ? 1 / total : 0;
        w->kernels->scale[w->dtype == TN_DTYPE_BF16](d, inverse, sums + i * w->width,
                                                     tn_at(w->dtype, w->o, row + i, head * d));
        if (w->lse_out) w->lse_out[(row + i) * a->heads + head] = f->largest[i] + logf(total);
    }
}

/* One query, row by row: no packing to pay for. */
static void query_row(const work *w, int64_t document, int64_t i, int64_t head, char *own) {
    const tn_attention *a = w->a;
    bool half = w->dtype == TN_DTYPE_BF16;
    float *q = (float *)own, *sums = q + a->head_dim, scores[T] = {0}, p[T], largest = -INFINITY,
          parts[TN_LANES] = {0}, total;
    int64_t d = a->head_dim, column = head / (a->heads / a->kv_heads) * d, first, last;
    int64_t row = a->host_cu_q[document] + i, start = a->host_cu_kv[document];
    w->kernels->widen[half](d, tn_at(w->dtype, w->q, row, head * d), q);
    memset(sums, 0, (size_t)d * sizeof *sums);
    visible(a, document, i, 0, &first, &last);
    for (int64_t key = first; key < last; key += T) {
        int64_t count = tn_min(T, last - key);
        for (int64_t j = 0; j < count; j++)
            scores[j] = w->kernels->dot[half](d, tn_at(w->dtype, w->k, start + key + j, column), q);
        float shrink = w->kernels->softmax[0](scores, 0, count, a->scale, a->softcap, &largest, parts, p);
        w->kernels->scale[0](d, shrink, sums, sums);
        for (int64_t j = 0; j < count; j++)
            w->kernels->add_scaled[half](d, p[j], tn_at(w->dtype, w->v, start + key + j, column), sums);
    }
    total = add_up(parts);
    w->kernels->scale[half](d, total > 0 ? 1 / total : 0, sums, tn_at(w->dtype, w->o, row, head * d));
    if (w->lse_out) w->lse_out[row * a->heads + head] = largest + logf(total);
}

static int64_t forward_own_bytes(const work *w) {
    int64_t packing = 2 * tile_bytes(w),
            tile = (int64_t)sizeof(forward_tiles) + T * w->width * 4 + tile_bytes(w);
    return tn_scratch_room(tn_max(packing, tile));
}

static tn_status take_forward(work *w, tn_scratch scratch) {
    int64_t packed = w->a->kv_heads * w->kv_tiles * tile_bytes(w);
    tn_status status;
    w->own_bytes = forward_own_bytes(w);
    TN_TRY(tn_scratch_take(&scratch, omp_get_max_threads() * w->own_bytes, &w->own));
    if (w->a->longest_q <= FEW) return TN_OK;
    TN_TRY(tn_scratch_take(&scratch, packed, &w->keys));
    status = tn_scratch_take(&scratch, packed, &w->values);
done:
    return status;
}

/* Products want an even k and m in eights. */
static bool in_tiles(const tn_attention *a) { return a->head_dim % 8 == 0; }

tn_status tn_cpu_attention_forward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                   tn_view o, float *lse) {
    if (!in_tiles(a)) return tn_ref_attention_forward(device, a, q, k, v, o, lse);
    work w = begin(device, a);
    w.q = q, w.k = k, w.v = v, w.o = o, w.lse_out = lse;
    tn_status status = take_forward(&w, tn_scratch_of(device));
    if (status != TN_OK) return status;
    bool few = a->longest_q <= FEW;
    int64_t q_tiles = few ? a->q_rows : a->q_rows / T + a->documents;
    if (!few) pack_keys(&w, pack_for_forward);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t task = 0; task < a->heads * q_tiles; task++) {
        char *own = w.own + omp_get_thread_num() * w.own_bytes;
        int64_t head = task % a->heads, place = task / a->heads, within, document = 0;
        if (few) {
            while (a->host_cu_q[document + 1] <= place) document++;
            query_row(&w, document, place - a->host_cu_q[document], head, own);
        } else {
            document = document_of(a, a->host_cu_q, place, &within);
            if (within >= 0) query_tile(&w, document, within, head, own);
        }
    }
    return TN_OK;
}

/* ---- Backward ------------------------------------------------------------------------------------ */

/* K and V as A of the transposed scores and of dPᵀ, Kᵀ as A of dQᵀ. */
static void pack_for_backward(const work *w, int64_t place, const void *k, const void *v) {
    int64_t bytes = T * w->a->head_dim * w->size;
    memcpy(w->keys + place * tile_bytes(w), k, (size_t)bytes);
    memcpy(w->values + place * tile_bytes(w), v, (size_t)bytes);
    w->kernels->transpose[w->kind](T, w->a->head_dim, k, w->keys_transposed + place * tile_bytes(w));
}

/* A thread's own memory in the backward pass; tiles of elements are followed by what depends on head_dim. */
typedef struct backward_tiles {
    float scores[T * T], dp[T * T], lse[T], delta[T];
    float p[T * T], ds[T * T], ds_packed[T * T]; /* elements */
} backward_tiles;

typedef struct query_operands {
    char *rows;                          /* [T, head_dim], while packing */
    char *q, *d_o;                       /* B of p·dO and dS·Q */
    char *q_transposed, *d_o_transposed; /* B of the scores and of dP */
    float *dq, *dq_rows;                 /* dQᵀ [head_dim, T] and dQ */
} query_operands;

static int64_t backward_own_bytes(const work *w) {
    int64_t tile = (int64_t)sizeof(backward_tiles) + 5 * tile_bytes(w) + 2 * T * w->width * 4;
    return tn_scratch_room(tn_max(2 * tile_bytes(w), tile));
}

static query_operands operands_behind(const work *w, char *own) {
    int64_t tile = tile_bytes(w);
    char *p = own + sizeof(backward_tiles);
    return (query_operands){p,
                            p + tile,
                            p + 2 * tile,
                            p + 3 * tile,
                            p + 4 * tile,
                            (float *)(p + 5 * tile),
                            (float *)(p + 5 * tile) + T * w->width};
}

static void load_queries(const work *w, int64_t row, int64_t count, int64_t head, backward_tiles *b,
                         query_operands *q) {
    int64_t d = w->a->head_dim;
    load_tile(w, w->q, row, count, head * d, q->rows);
    w->kernels->pack[w->kind](T, d, w->width, q->rows, d, q->q);
    w->kernels->pack_transposed[w->kind](T, d, q->rows, d, q->q_transposed);
    load_tile(w, w->d_o, row, count, head * d, q->rows);
    w->kernels->pack[w->kind](T, d, w->width, q->rows, d, q->d_o);
    w->kernels->pack_transposed[w->kind](T, d, q->rows, d, q->d_o_transposed);
    memset(q->dq, 0, (size_t)(T * w->width) * sizeof(float));
    for (int64_t i = 0; i < T; i++) {
        b->lse[i] = b->delta[i] = 0;
        if (i >= count) continue;
        b->lse[i] = w->lse[(row + i) * w->a->heads + head];
        w->kernels->widen[w->dtype == TN_DTYPE_BF16](d, tn_at(w->dtype, w->o, row + i, head * d), q->dq_rows);
        b->delta[i] = w->kernels->dot[w->dtype == TN_DTYPE_BF16](d, tn_at(w->dtype, w->d_o, row + i, head * d),
                                                                 q->dq_rows);
    }
}

/* One pair of tiles: adds to dK, dV (of this head) and dQᵀ. */
static void tile_pair(const work *w, int64_t document, int64_t query, int64_t t, int64_t head,
                      backward_tiles *b, const query_operands *q) {
    const tn_attention *a = w->a;
    const tn_kernels *kernels = w->kernels;
    int64_t d = a->head_dim, tile = first_tile(a->host_cu_kv, document) + t;
    int64_t place = (head / (a->heads / a->kv_heads) * w->kv_tiles + tile) * tile_bytes(w);
    int64_t sums = (head * w->kv_tiles + tile) * T * w->width, keys = documents_keys(a, document);
    kernels->panel[w->kind](T, T, d, w->keys + place, d, 0, q->q_transposed, b->scores, T, false);
    kernels->panel[w->kind](T, T, d, w->values + place, d, 0, q->d_o_transposed, b->dp, T, false);
    for (int64_t j = 0; j < T; j++) {
        int64_t first = 0, last = 0;
        if (t * T + j < keys) seeing(a, document, t * T + j, query * T, &first, &last);
        kernels->softmax_backward[w->kind](b->scores + j * T, b->dp + j * T, first, last, a->scale, a->softcap,
                                           b->lse, b->delta, (char *)b->p + j * T * w->size,
                                           (char *)b->ds + j * T * w->size);
    }
    kernels->panel[w->kind](T, w->width, T, b->p, T, 0, q->d_o, w->dv_sums + sums, w->width, true);
    kernels->panel[w->kind](T, w->width, T, b->ds, T, 0, q->q, w->dk_sums + sums, w->width, true);
    kernels->pack[w->kind](T, T, T, b->ds, T, b->ds_packed);
    kernels->panel[w->kind](d, T, T, w->keys_transposed + place, T, 0, b->ds_packed, q->dq, T, true);
}

static void head_backward(const work *w, int64_t document, int64_t head, char *own) {
    const tn_attention *a = w->a;
    backward_tiles *b = (backward_tiles *)own;
    query_operands q = operands_behind(w, own);
    int64_t d = a->head_dim, queries = documents_queries(a, document), width = w->width;
    int64_t start = (head * w->kv_tiles + first_tile(a->host_cu_kv, document)) * T * width;
    size_t bytes = (size_t)(tiles(documents_keys(a, document)) * T * width) * sizeof(float);
    memset(w->dk_sums + start, 0, bytes);
    memset(w->dv_sums + start, 0, bytes);
    for (int64_t query = 0; query < tiles(queries); query++) {
        int64_t count = tn_min(T, queries - query * T), row = a->host_cu_q[document] + query * T, from, to;
        load_queries(w, row, count, head, b, &q);
        touched(a, document, query * T, query * T + count - 1, &from, &to);
        for (int64_t t = from; t < to; t++) tile_pair(w, document, query, t, head, b, &q);
        w->kernels->transpose[0](d, T, q.dq, q.dq_rows);
        for (int64_t i = 0; i < count; i++)
            w->kernels->narrow[w->dtype == TN_DTYPE_BF16](d, q.dq_rows + i * d,
                                                          tn_at(w->dtype, w->dq, row + i, head * d));
    }
}

/* Adds up one tile of a kv head's group, heads in order, and rounds it. */
static void reduce_tile(const work *w, int64_t place, int64_t kv_head, float *sums, tn_view to) {
    const tn_attention *a = w->a;
    int64_t group = a->heads / a->kv_heads, width = w->width, within;
    int64_t document = document_of(a, a->host_cu_kv, place, &within);
    if (within < 0) return;
    int64_t count = tn_min(T, documents_keys(a, document) - within * T),
            row = a->host_cu_kv[document] + within * T;
    float *total = sums + (kv_head * group * w->kv_tiles + place) * T * width;
    for (int64_t member = 1; member < group; member++)
        w->kernels->accumulate[0](T * width, total + member * w->kv_tiles * T * width, total);
    for (int64_t i = 0; i < count; i++)
        w->kernels->narrow[w->dtype == TN_DTYPE_BF16](a->head_dim, total + i * width,
                                                      tn_at(w->dtype, to, row + i, kv_head * a->head_dim));
}

static tn_status take_backward(work *w, tn_scratch scratch) {
    int64_t packed = w->a->kv_heads * w->kv_tiles * tile_bytes(w),
            sums = w->a->heads * w->kv_tiles * T * w->width * 4;
    tn_status status;
    w->own_bytes = backward_own_bytes(w);
    TN_TRY(tn_scratch_take(&scratch, omp_get_max_threads() * w->own_bytes, &w->own));
    TN_TRY(tn_scratch_take(&scratch, packed, &w->keys));
    TN_TRY(tn_scratch_take(&scratch, packed, &w->values));
    TN_TRY(tn_scratch_take(&scratch, packed, &w->keys_transposed));
    TN_TRY(tn_scratch_take(&scratch, sums, &w->dk_sums));
    status = tn_scratch_take(&scratch, sums, &w->dv_sums);
done:
    return status;
}

tn_status tn_cpu_attention_backward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                    tn_view o, const float *lse, tn_view d_o, tn_view dq, tn_view dk,
                                    tn_view dv) {
    if (!in_tiles(a)) return tn_ref_attention_backward(device, a, q, k, v, o, lse, d_o, dq, dk, dv);
    work w = begin(device, a);
    w.q = q, w.k = k, w.v = v, w.o = o, w.lse = lse, w.d_o = d_o, w.dq = dq, w.dk = dk, w.dv = dv;
    tn_status status = take_backward(&w, tn_scratch_of(device));
    if (status != TN_OK) return status;
    pack_keys(&w, pack_for_backward);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t task = 0; task < a->heads * a->documents; task++)
        head_backward(&w, task / a->heads, task % a->heads, w.own + omp_get_thread_num() * w.own_bytes);
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t task = 0; task < a->kv_heads * w.kv_tiles; task++) {
        reduce_tile(&w, task % w.kv_tiles, task / w.kv_tiles, w.dk_sums, dk);
        reduce_tile(&w, task % w.kv_tiles, task / w.kv_tiles, w.dv_sums, dv);
    }
    return TN_OK;
}

int64_t tn_cpu_attention_scratch(const tn_device *device, const tn_limits *limits) {
    tn_attention a = {.documents = limits->documents,
                      .kv_rows = tn_max(limits->rows, limits->longest),
                      .heads = limits->heads,
                      .kv_heads = limits->kv_heads,
                      .head_dim = limits->head_dim};
    work w = begin(device, &a);
    int64_t packed = tn_scratch_room(a.kv_heads * w.kv_tiles * tile_bytes(&w));
    int64_t sums = tn_scratch_room(a.heads * w.kv_tiles * T * w.width * 4);
    int64_t forward = omp_get_max_threads() * forward_own_bytes(&w) + 2 * packed;
    int64_t backward = omp_get_max_threads() * backward_own_bytes(&w) + 3 * packed + 2 * sums;
    return limits->backward ? tn_max(forward, backward) : forward;
}
