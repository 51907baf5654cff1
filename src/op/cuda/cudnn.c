/* cudnn.c: attention through cuDNN for 16-bit types without window and soft cap.
 *
 * Documents of one length (a multiple of DENSE) are a dense batch; others are packed, with the batch and the
 * longest length rounded up to a few sizes, so that few plans serve all batches (a plan takes about a third of
 * a second). cuDNN's usual backward adds up dq in the order in which blocks finish; the ordered one gives the
 * same bits in every run but keeps a matrix of length² per head in its workspace. So documents and heads are
 * taken in groups whose matrix fits a budget. Documents over ORDERED_LENGTH take the usual one, and so do
 * shorter ones where one kv head's group is too much for the card (LARGEST_SHARE): there, and only there,
 * attention may differ in the last bits from run to run.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/integer.h"
#include "base/mem.h"
#include "op/cuda/cudnn_graph.h"

enum {
    DENSE = 128,
    SHORTEST = 256,
    ORDERED_LENGTH = 16384,
    MEMORY_SHARE = 512,
    LARGEST_SHARE = 32,
    MOST_DOCUMENTS = 32,
    MAX_TENSORS = 32,
    PLAN_MARGIN = 1 << 20
};

typedef struct tn_cuda_plans {
    cudnnHandle_t handle;
    tn_sdpa_plan *plans;
    int64_t count, capacity;
} tn_cuda_plans;

tn_status tn_cuda_plans_open(tn_cuda_device *cuda) {
    tn_status status = TN_OK;
    if (cuda->base.dtype == TN_DTYPE_F32) return TN_OK;
    TN_TRY(tn_alloc(&cuda->plans, 1, sizeof *cuda->plans, "attention plans"));
    cudnnStatus_t error = cudnnCreate(&cuda->plans->handle);
    if (error == CUDNN_STATUS_SUCCESS) error = cudnnSetStream(cuda->plans->handle, cuda->stream);
    if (error != CUDNN_STATUS_SUCCESS)
        TN_THROW(TN_FAILED, "GPU: opening cuDNN: %s", cudnnGetErrorString(error));
done:
    return status;
}

void tn_cuda_plans_close(tn_cuda_device *cuda) {
    if (!cuda->plans) return;
    for (int64_t i = 0; i < cuda->plans->count; i++) tn_sdpa_free(&cuda->plans->plans[i]);
    if (cuda->plans->handle) cudnnDestroy(cuda->plans->handle);
    free(cuda->plans->plans);
    free(cuda->plans);
}

/* The plan of a shape, made at its first use; NULL where cuDNN has none. */
static const tn_sdpa_plan *plan_for(tn_cuda_plans *plans, const tn_sdpa_shape *shape) {
    for (int64_t i = 0; i < plans->count; i++)
        if (memcmp(&plans->plans[i].shape, shape, sizeof *shape) == 0)
            return plans->plans[i].plan ? &plans->plans[i] : NULL;
    if (tn_grow(&plans->plans, &plans->capacity, plans->count + 1, sizeof *plans->plans, "attention plans") !=
        TN_OK)
        return NULL;
    tn_sdpa_plan *plan = &plans->plans[plans->count++];
    tn_sdpa_build(plans->handle, shape, plan);
    return plan->plan ? plan : NULL;
}

/* ---- Execution ------------------------------------------------------------------------------------------ */

typedef struct arguments {
    int64_t names[MAX_TENSORS];
    void *pointers[MAX_TENSORS];
    int count;
    float scale, minus_infinity, one;
} arguments;

static void bind(arguments *a, int64_t name, const void *pointer) {
    a->names[a->count] = name;
    a->pointers[a->count++] = (void *)(uintptr_t)pointer;
}

static void bind_numbers(arguments *a, float scale, bool backward) {
    a->scale = scale, a->minus_infinity = -INFINITY, a->one = 1;
    bind(a, TN_SDPA_SCALE, &a->scale);
    bind(a, TN_SDPA_MINUS_INFINITY, &a->minus_infinity);
    if (backward) bind(a, TN_SDPA_ONE, &a->one);
}

static tn_status execute(tn_cuda_device *cuda, const tn_sdpa_plan *plan, const arguments *a, void *workspace) {
    cudnnBackendDescriptor_t pack = NULL;
    cudnnStatus_t error = cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (error == CUDNN_STATUS_SUCCESS)
        error = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, a->count,
                                         a->names);
    if (error == CUDNN_STATUS_SUCCESS)
        error = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
                                         a->count, a->pointers);
    if (error == CUDNN_STATUS_SUCCESS)
        error = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                                         &workspace);
    if (error == CUDNN_STATUS_SUCCESS) error = cudnnBackendFinalize(pack);
    if (error == CUDNN_STATUS_SUCCESS) error = cudnnBackendExecute(cuda->plans->handle, plan->plan, pack);
    if (pack) cudnnBackendDestroyDescriptor(pack);
    return error == CUDNN_STATUS_SUCCESS ? TN_OK
                                         : tn_fail(TN_FAILED, "GPU: attention: %s", cudnnGetErrorString(error));
}

/* ---- Shapes --------------------------------------------------------------------------------------------- */

/* least · factor^n, at least `value`. */
static int64_t power_above(int64_t value, int64_t least, int64_t factor) {
    while (least < value) least *= factor;
    return least;
}

/* Length a plan is made for: 256, 512, 1024, 2048, and from there in quarters of an octave. */
static int64_t bucket(int64_t length) {
    int64_t power = power_above(length, SHORTEST, 2), step = power / 8;
    return power <= 2048 ? power : (length + step - 1) / step * step;
}

static bool aligned(tn_view v) { return (uintptr_t)v.data % 16 == 0 && v.stride % 8 == 0; }

/* Whether cuDNN is asked at all: plain attention of documents on themselves, offsets within 31 bits. */
static bool suitable(tn_device *device, const tn_attention *a, const tn_view *views, int count) {
    if (!tn_cuda(device)->plans || a->window || a->softcap > 0 || a->head_dim % 8 || a->q_rows != a->kv_rows)
        return false;
    for (int i = 0; i < count; i++)
        if (!aligned(views[i]) || (a->documents > 1 && views[i].stride > INT32_MAX / a->q_rows)) return false;
    return a->host_cu_q == a->host_cu_kv ||
           memcmp(a->host_cu_q, a->host_cu_kv, (size_t)(a->documents + 1) * sizeof(int32_t)) == 0;
}

/* Backward graphs that gave wrong dk and dv on an H200 (cuDNN as installed there, tests/op/test_cuda.c): heads
 * wider than 128. Our own kernels take these. */
static bool miscomputed(const tn_attention *a) { return a->head_dim > 128; }

static int64_t length_of(const tn_attention *a, int64_t document) {
    return a->host_cu_q[document + 1] - a->host_cu_q[document];
}

/* Whether all documents are of one length that fills tiles. Those of a vision tower, of as many lengths as
 * there are sizes of pictures, are packed, whose plans serve many lengths. */
static bool is_dense(const tn_attention *a) {
    int64_t length = length_of(a, 0);
    if (a->bidirectional || length % DENSE || length == 0) return false;
    for (int64_t i = 1; i < a->documents; i++)
        if (length_of(a, i) != length) return false;
    return true;
}

static tn_sdpa_shape shape_of(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                              tn_view o) {
    return (tn_sdpa_shape){.packed = !is_dense(a),
                           .bidirectional = a->bidirectional,
                           .io = device->dtype,
                           .batch = a->documents,
                           .length = length_of(a, 0),
                           .heads = a->heads,
                           .kv_heads = a->kv_heads,
                           .dim = a->head_dim,
                           .stats_heads = a->heads,
                           .q_stride = q.stride,
                           .k_stride = k.stride,
                           .v_stride = v.stride,
                           .o_stride = o.stride};
}

/* Offsets of all documents in every tensor, for any `batch` that starts at one of them. */
static tn_status bind_offsets(tn_device *device, const tn_attention *a, const tn_sdpa_shape *s, int64_t batch,
                              tn_cuda_offsets *lists) {
    const struct {
        int64_t name, stride;
    } tensors[] = {{TN_SDPA_Q, s->q_stride},   {TN_SDPA_K, s->k_stride},        {TN_SDPA_V, s->v_stride},
                   {TN_SDPA_O, s->o_stride},   {TN_SDPA_STATS, s->stats_heads}, {TN_SDPA_DO, s->do_stride},
                   {TN_SDPA_DQ, s->dq_stride}, {TN_SDPA_DK, s->dk_stride},      {TN_SDPA_DV, s->dv_stride}};
    lists->count = s->backward ? 9 : 5;
    for (int i = 0; i < lists->count; i++) {
        lists->name[i] = tensors[i].name, lists->factor[i] = (int32_t)tensors[i].stride;
        lists->to[i] = tn_cuda_take(device, (a->documents + batch + 1) * (int64_t)sizeof(int32_t));
        if (!lists->to[i]) return TN_FAILED;
    }
    return tn_cuda_document_offsets(device, a, a->documents + batch + 1, lists);
}

/* Lengths of documents first … first+count-1, zeros up to `batch`, and where they start. */
static tn_status bind_documents(tn_device *device, const tn_attention *a, const tn_cuda_offsets *lists,
                                int64_t first, int64_t count, int64_t batch, arguments *args) {
    int32_t *lengths = tn_cuda_take(device, batch * (int64_t)sizeof(int32_t));
    if (!lengths) return TN_FAILED;
    bind(args, TN_SDPA_Q_LENGTHS, lengths);
    bind(args, TN_SDPA_KV_LENGTHS, lengths);
    for (int i = 0; i < lists->count; i++) bind(args, lists->name[i] + TN_SDPA_OFFSETS, lists->to[i] + first);
    return tn_cuda_document_lengths(device, a, first, count, batch, lengths);
}

/* ---- Forward -------------------------------------------------------------------------------------------- */

tn_status tn_cuda_cudnn_forward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                tn_view o, float *lse, bool *done) {
    const tn_view views[] = {q, k, v, o};
    arguments args = {.count = 0};
    tn_cuda_offsets lists;
    tn_status status = TN_OK;
    *done = false;
    if (!suitable(device, a, views, 4)) return TN_OK;
    tn_sdpa_shape s = shape_of(device, a, q, k, v, o);
    if (s.packed) s.batch = power_above(a->documents, 1, 4), s.length = bucket(a->longest_q);
    const tn_sdpa_plan *plan = plan_for(tn_cuda(device)->plans, &s);
    if (!plan || plan->workspace > device->scratch_size - tn_cuda(device)->used) return TN_OK;
    void *workspace = tn_cuda_take(device, plan->workspace);
    float *stats = s.packed && lse ? lse : tn_cuda_take(device, a->q_rows * a->heads * (int64_t)sizeof(float));
    if (!workspace || !stats) return TN_FAILED;
    bind(&args, TN_SDPA_Q, q.data), bind(&args, TN_SDPA_K, k.data), bind(&args, TN_SDPA_V, v.data);
    bind(&args, TN_SDPA_O, o.data), bind(&args, TN_SDPA_STATS, stats);
    bind_numbers(&args, a->scale, false);
    if (s.packed) {
        TN_TRY(bind_offsets(device, a, &s, s.batch, &lists));
        TN_TRY(bind_documents(device, a, &lists, 0, a->documents, s.batch, &args));
    }
    TN_TRY(execute(tn_cuda(device), plan, &args, workspace));
    if (lse && !s.packed)
        TN_TRY(tn_cuda_swap_statistics(device, s.batch, s.length, s.heads, stats, lse, false));
    *done = true;
done:
    return status;
}

/* ---- Backward: what one call takes ----------------------------------------------------------------------- */

static int64_t ordered_bytes(int64_t heads, int64_t length) { return heads * length * length * 2; }

static int64_t budget(tn_device *device) {
    int64_t set = tn_cuda(device)->attention_budget;
    return set ? set : device->memory_total / MEMORY_SHARE;
}

/* Largest divisor of `whole` that is at most `most`, at least 1. */
static int64_t divisor(int64_t whole, int64_t most) {
    int64_t part = most < 1 ? 1 : tn_min(most, whole);
    while (whole % part) part--;
    return part;
}

/* Whether documents of this length are taken in order: one kv head with its group may take twice the budget. */
static bool is_ordered(int64_t most, int64_t heads, int64_t kv_heads, int64_t length) {
    return length <= ORDERED_LENGTH && ordered_bytes(heads / kv_heads, length) <= 2 * most;
}

/* kv heads a call takes of documents of this length. */
static int64_t heads_at_once(int64_t most, int64_t heads, int64_t kv_heads, int64_t dim, int64_t length) {
    int64_t group = heads / kv_heads;
    if (!is_ordered(most, heads, kv_heads, length)) return divisor(kv_heads, most / (group * length * dim * 8));
    return divisor(kv_heads, most / ordered_bytes(group, length));
}

/* Documents of packed calls of this length. */
static int64_t documents_at_once(int64_t most, int64_t heads, int64_t length) {
    int64_t fit = most / ordered_bytes(heads, length), batch = 1;
    while (batch < MOST_DOCUMENTS && batch * 2 <= fit) batch *= 2;
    return batch;
}

/* Scratch of a call: Σ d_o·o, cuDNN's matrix or else dq in fp32, and dk, dv of all query heads. */
static int64_t call_bytes(const tn_sdpa_shape *s) {
    int64_t rows = s->batch * s->length * s->heads,
            bytes = tn_cuda_round(rows * (int64_t)sizeof(float)) + PLAN_MARGIN;
    if (s->packed || s->heads != s->kv_heads) bytes += rows * s->dim * 4;
    return bytes + (s->ordered ? s->batch * ordered_bytes(s->heads, s->length) : rows * s->dim * 4);
}

/* Completes the shape of the call that begins at `first`; returns how many documents it takes. */
static int64_t next_call(tn_device *device, const tn_attention *a, int64_t first, tn_sdpa_shape *s) {
    int64_t most = budget(device), count = 1;
    if (s->packed) {
        s->length = bucket(length_of(a, first));
        for (; first + count < a->documents; count++) {
            int64_t length = tn_max(s->length, bucket(length_of(a, first + count)));
            if (count + 1 > documents_at_once(most, a->heads, length)) break;
            s->length = length;
        }
        s->batch = documents_at_once(most, a->heads, s->length);
    }
    s->kv_heads = heads_at_once(most, a->heads, a->kv_heads, a->head_dim, s->length);
    s->heads = s->kv_heads * (a->heads / a->kv_heads);
    s->ordered = is_ordered(most, a->heads, a->kv_heads, s->length);
    if (!s->packed)
        s->batch = count = s->kv_heads < a->kv_heads ? 1
                           : s->ordered ? divisor(a->documents, most / ordered_bytes(a->heads, s->length))
                                        : 1;
    return count;
}

/* ---- Backward -------------------------------------------------------------------------------------------- */

typedef struct backward_pass {
    const tn_attention *a;
    tn_view q, k, v, o, d_o, dq, dk, dv;
    const float *stats; /* [documents, heads, length], packed [token, heads] */
    tn_cuda_offsets lists;
} backward_pass;

static void *at(const tn_device *device, tn_view v, int64_t row, int64_t column) {
    return (char *)v.data + (row * v.stride + column) * tn_cuda_size(device->dtype);
}

/* Rows of packed documents are found through the offsets, those of a dense batch from `row` on. */
static tn_status run_call(tn_device *device, const tn_sdpa_plan *plan, const backward_pass *b, int64_t first,
                          int64_t count, int64_t kv_head) {
    const tn_sdpa_shape *s = &plan->shape;
    arguments args = {.count = 0};
    int64_t row = s->packed ? 0 : first * s->length, head = kv_head * (b->a->heads / b->a->kv_heads);
    int64_t column = head * s->dim, kv_column = kv_head * s->dim, rows = s->batch * s->length * s->heads;
    tn_status status = TN_OK;
    float *sums = tn_cuda_take(device, rows * (int64_t)sizeof(float)), *dq_sum = NULL;
    void *workspace = tn_cuda_take(device, plan->workspace);
    if (!s->ordered) dq_sum = tn_cuda_take(device, rows * s->dim * (int64_t)sizeof(float));
    if (!sums || !workspace || (!s->ordered && !dq_sum)) return TN_FAILED;
    bind(&args, TN_SDPA_Q, at(device, b->q, row, column)),
        bind(&args, TN_SDPA_K, at(device, b->k, row, kv_column));
    bind(&args, TN_SDPA_V, at(device, b->v, row, kv_column)),
        bind(&args, TN_SDPA_O, at(device, b->o, row, column));
    bind(&args, TN_SDPA_DO, at(device, b->d_o, row, column)),
        bind(&args, TN_SDPA_DQ, at(device, b->dq, row, column));
    bind(&args, TN_SDPA_DK, at(device, b->dk, row, kv_column)),
        bind(&args, TN_SDPA_DV, at(device, b->dv, row, kv_column));
    bind(&args, TN_SDPA_STATS, b->stats + (s->packed ? head : (first * s->stats_heads + head) * s->length));
    bind(&args, TN_SDPA_SUMS, sums);
    bind_numbers(&args, b->a->scale, true);
    if (dq_sum) {
        bind(&args, TN_SDPA_DQ_SUM, dq_sum);
        TN_TRY(tn_cuda_check(
            cudaMemsetAsync(dq_sum, 0, (size_t)(rows * s->dim) * sizeof(float), tn_cuda(device)->stream),
            "zeroing dq"));
    }
    if (s->packed) TN_TRY(bind_documents(device, b->a, &b->lists, first, count, s->batch, &args));
    status = execute(tn_cuda(device), plan, &args, workspace);
done:
    return status;
}

/* Whether every call has a plan and its scratch: found out before anything is computed. */
static bool all_planned(tn_device *device, const tn_attention *a, tn_sdpa_shape s) {
    for (int64_t first = 0, count; first < a->documents; first += count) {
        count = next_call(device, a, first, &s);
        if (call_bytes(&s) > device->scratch_size - tn_cuda(device)->used) return false;
        const tn_sdpa_plan *plan = plan_for(tn_cuda(device)->plans, &s);
        if (!plan || plan->workspace > call_bytes(&s)) return false;
    }
    return true;
}

tn_status tn_cuda_cudnn_backward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                 tn_view o, const float *lse, tn_view d_o, tn_view dq, tn_view dk, tn_view dv,
                                 bool *done) {
    const tn_view views[] = {q, k, v, o, d_o, dq, dk, dv};
    backward_pass b = {
        .a = a, .q = q, .k = k, .v = v, .o = o, .d_o = d_o, .dq = dq, .dk = dk, .dv = dv, .stats = lse};
    tn_status status = TN_OK;
    *done = false;
    if (!suitable(device, a, views, 8) || miscomputed(a) || a->bidirectional) return TN_OK;
    tn_sdpa_shape s = shape_of(device, a, q, k, v, o);
    s.backward = 1, s.do_stride = d_o.stride, s.dq_stride = dq.stride, s.dk_stride = dk.stride,
    s.dv_stride = dv.stride;
    if (s.packed) TN_TRY(bind_offsets(device, a, &s, MOST_DOCUMENTS, &b.lists));
    else {
        float *stats = tn_cuda_take(device, a->q_rows * a->heads * (int64_t)sizeof(float));
        if (!stats) return TN_FAILED;
        TN_TRY(tn_cuda_swap_statistics(device, a->documents, s.length, a->heads, lse, stats, true));
        b.stats = stats;
    }
    if (!all_planned(device, a, s)) return TN_OK;
    int64_t used = tn_cuda(device)->used;
    for (int64_t first = 0, count; first < a->documents; first += count) {
        count = next_call(device, a, first, &s);
        for (int64_t head = 0; head < a->kv_heads; head += s.kv_heads) {
            tn_cuda(device)->used = used; /* calls follow one another on the stream */
            TN_TRY(run_call(device, plan_for(tn_cuda(device)->plans, &s), &b, first, count, head));
        }
    }
    *done = true;
done:
    return status;
}

/* ---- Scratch --------------------------------------------------------------------------------------------- */

/* The hungriest call of a dense batch of `rows` tokens, whose documents are of any length up to `longest`.
 * Longer ones than ORDERED_LENGTH are taken singly, by as many heads as the budget holds, or by one group. */
static int64_t dense_bytes(int64_t most, int64_t rows, int64_t longest, const tn_limits *l) {
    const int64_t group = l->heads / l->kv_heads;
    tn_sdpa_shape s = {.backward = 1, .dim = l->head_dim, .batch = 1, .length = longest};
    s.heads = group, s.kv_heads = 1;
    int64_t bytes = tn_max(call_bytes(&s), most + most / l->head_dim + PLAN_MARGIN);
    for (s.length = DENSE; s.length <= tn_min(longest, ORDERED_LENGTH); s.length += DENSE) {
        s.ordered = is_ordered(most, l->heads, l->kv_heads, s.length);
        s.kv_heads = heads_at_once(most, l->heads, l->kv_heads, l->head_dim, s.length);
        s.heads = s.kv_heads * group;
        s.batch = !s.ordered || s.kv_heads < l->kv_heads
                      ? 1
                      : tn_max(1, tn_min(rows / s.length, most / ordered_bytes(s.heads, s.length)));
        bytes = tn_max(bytes, call_bytes(&s));
    }
    return bytes;
}

/* The hungriest call over all lengths; also sets the budget that the backward calls keep to. */
int64_t tn_cuda_cudnn_scratch(tn_device *device, const tn_limits *l) {
    if (device->dtype == TN_DTYPE_F32) return 0;
    int64_t lists = 10 * tn_cuda_round((5 * l->documents + 2 * MOST_DOCUMENTS) * (int64_t)sizeof(int32_t));
    int64_t bytes = 0, longest = bucket(l->longest),
            whole = ordered_bytes(l->heads, longest) * (l->rows / tn_max(l->longest, 1) + 1);
    int64_t most = tn_min(device->memory_total / MEMORY_SHARE, whole);
    int64_t least = ordered_bytes(l->heads / l->kv_heads, tn_min(longest, ORDERED_LENGTH));
    if (least / 2 > most) most = tn_min(least / 2, device->memory_total / LARGEST_SHARE);
    if (l->backward) tn_cuda(device)->attention_budget = most;
    tn_sdpa_shape s = {.backward = 1, .packed = 1, .dim = l->head_dim};
    for (int64_t length = SHORTEST; l->backward && length <= longest; length = bucket(length + 1)) {
        s.length = length, s.ordered = is_ordered(most, l->heads, l->kv_heads, length);
        s.kv_heads = heads_at_once(most, l->heads, l->kv_heads, l->head_dim, length);
        s.heads = s.kv_heads * (l->heads / l->kv_heads);
        s.batch = documents_at_once(most, l->heads, length);
        bytes = tn_max(bytes, call_bytes(&s));
    }
    if (l->backward) bytes = tn_max(bytes, dense_bytes(most, l->rows, longest, l));
    return bytes + lists + tn_cuda_round(l->rows * l->heads * (int64_t)sizeof(float)) + PLAN_MARGIN;
}
