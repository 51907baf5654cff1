/* cudnn_graph.c: builds attention from matrix products, element-wise operations and reductions, as
 * cuDNN 9 expects to find it; its engines recognise the whole as one fused kernel.
 *
 *   forward    s = scale·q·kᵀ, masked; stats = max + ln Σ exp(s − max); o = softmax(s)·v
 *   backward   p = exp(s − stats); dv = pᵀ·d_o; ds = p·(d_o·vᵀ − Σ d_o·o)·scale; dk = dsᵀ·q; dq = ds·k
 *
 * Scores are [batch, heads, length, length] and virtual: they never exist in memory. A descriptor that cannot
 * be made marks the graph as failed, later calls do nothing, and the end is an entry without a plan.
 */
#include "op/cuda/cudnn_graph.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

typedef cudnnBackendDescriptor_t node;

enum { MAX_OPERATIONS = 40, MAX_PARTS = 400, MAX_CONFIGS = 8 };

typedef struct graph {
    const tn_sdpa_shape *shape;
    node operations[MAX_OPERATIONS];
    int operation_count;
    node parts[MAX_PARTS];
    int part_count;
    int64_t next; /* name of the next virtual tensor */
    bool failed;
    node scale, minus_infinity, one, q_lengths, kv_lengths;
    node offsets[TN_SDPA_OFFSETS]; /* by name of their tensor */
} graph;

typedef struct sizes {
    int64_t n[4];
} sizes;

static const cudnnDataType_t f32 = CUDNN_DATA_FLOAT, i32 = CUDNN_DATA_INT32, boolean = CUDNN_DATA_BOOLEAN;

static cudnnDataType_t io_type(const graph *g) {
    return g->shape->io == TN_DTYPE_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_HALF;
}

/* ---- Descriptors --------------------------------------------------------------------------------------- */

static node make(graph *g, cudnnBackendDescriptorType_t type) {
    node d = NULL;
    if (g->failed || g->part_count == MAX_PARTS ||
        cudnnBackendCreateDescriptor(type, &d) != CUDNN_STATUS_SUCCESS) {
        g->failed = true;
        return NULL;
    }
    return g->parts[g->part_count++] = d;
}

static void set(graph *g, node d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                int64_t count, const void *values) {
    if (!g->failed && cudnnBackendSetAttribute(d, name, type, count, values) != CUDNN_STATUS_SUCCESS)
        g->failed = true;
}

static void set_node(graph *g, node d, cudnnBackendAttributeName_t name, node value) {
    if (value) set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void set_type(graph *g, node d, cudnnBackendAttributeName_t name, cudnnDataType_t type) {
    set(g, d, name, CUDNN_TYPE_DATA_TYPE, 1, &type);
}

static node finish(graph *g, node d) {
    if (!g->failed && cudnnBackendFinalize(d) != CUDNN_STATUS_SUCCESS) g->failed = true;
    return d;
}

static node tensor(graph *g, int64_t name, cudnnDataType_t type, sizes dims, sizes strides, bool by_value,
                   node offsets) {
    node d = make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t alignment = name == TN_SDPA_STATS ? 4 : 16; /* statistics of a group of heads begin anywhere */
    bool is_virtual = name >= TN_SDPA_VIRTUAL;
    set_type(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims.n);
    set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides.n);
    set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &name);
    set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
    set_node(g, d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, offsets);
    return finish(g, d);
}

static sizes packed_strides(sizes dims) {
    return (sizes){{dims.n[1] * dims.n[2] * dims.n[3], dims.n[2] * dims.n[3], dims.n[3], 1}};
}

/* A result that stays inside the kernel. */
static node inside(graph *g, cudnnDataType_t type, sizes dims) {
    return tensor(g, g->next++, type, dims, packed_strides(dims), false, NULL);
}

static sizes score_sizes(const graph *g) {
    return (sizes){{g->shape->batch, g->shape->heads, g->shape->length, g->shape->length}};
}
static node scores(graph *g, cudnnDataType_t type) { return inside(g, type, score_sizes(g)); }
static sizes row_sizes(const graph *g) {
    return (sizes){{g->shape->batch, g->shape->heads, g->shape->length, 1}};
}

static node number(graph *g, int64_t name, cudnnDataType_t type) {
    const sizes single = {{1, 1, 1, 1}};
    return tensor(g, name, type, single, single, true, NULL);
}

static node list(graph *g, int64_t name, int64_t count) {
    return tensor(g, name, i32, (sizes){{count, 1, 1, 1}}, (sizes){{1, 1, 1, 1}}, false, NULL);
}

static node offsets_of(graph *g, int64_t name) {
    if (g->shape->packed && !g->offsets[name])
        g->offsets[name] = list(g, name + TN_SDPA_OFFSETS, g->shape->batch + 1);
    return g->offsets[name];
}

/* [batch, heads, length, dim] over rows of tokens, or with the last two swapped. */
static node rows(graph *g, int64_t name, int64_t heads, int64_t stride, bool swapped) {
    const tn_sdpa_shape *s = g->shape;
    sizes dims = {{s->batch, heads, s->length, s->dim}}, strides = {{s->length * stride, s->dim, stride, 1}};
    if (swapped) {
        dims = (sizes){{s->batch, heads, s->dim, s->length}};
        strides = (sizes){{s->length * stride, s->dim, 1, stride}};
    }
    return tensor(g, name, io_type(g), dims, strides, false, offsets_of(g, name));
}

/* ln Σ exp(score) of a query and head: [batch, heads, length] each, packed documents [token, head]. */
static node statistics(graph *g) {
    const tn_sdpa_shape *s = g->shape;
    sizes strides = {{s->stats_heads * s->length, s->length, 1, 1}};
    if (s->packed) strides = (sizes){{s->stats_heads * s->length, 1, s->stats_heads, 1}};
    return tensor(g, TN_SDPA_STATS, f32, row_sizes(g), strides, false, offsets_of(g, TN_SDPA_STATS));
}

/* ---- Operations ------------------------------------------------------------------------------------------ */

static void add_operation(graph *g, node operation) {
    finish(g, operation);
    if (g->operation_count == MAX_OPERATIONS) g->failed = true;
    if (!g->failed) g->operations[g->operation_count++] = operation;
}

/* y = mode(x, b), with t the choice of a select. */
static node pointwise(graph *g, cudnnPointwiseMode_t mode, cudnnDataType_t precision, int64_t axis, node x,
                      node b, node t, node y) {
    node how = make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set_type(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, precision);
    if (mode == CUDNN_POINTWISE_GEN_INDEX) set(g, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
    finish(g, how);
    node operation = make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_node(g, operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_node(g, operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    set_node(g, operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    set_node(g, operation, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
    set_node(g, operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    add_operation(g, operation);
    return y;
}

static node map(graph *g, cudnnPointwiseMode_t mode, node x, node b) {
    return pointwise(g, mode, f32, 0, x, b, NULL, scores(g, f32));
}

static node row_map(graph *g, cudnnPointwiseMode_t mode, node x, node b) {
    return pointwise(g, mode, f32, 0, x, b, NULL, inside(g, f32, row_sizes(g)));
}

/* Product whose real sizes are the documents' lengths m, n, k (NULL: as the tensors say). */
static node multiply(graph *g, node a, node b, node c, node m, node n, node k) {
    node how = make(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set_type(g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, f32);
    finish(g, how);
    node operation = make(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_node(g, operation, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    set_node(g, operation, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_node(g, operation, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_node(g, operation, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    set_node(g, operation, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, m);
    set_node(g, operation, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, n);
    set_node(g, operation, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, k);
    add_operation(g, operation);
    return c;
}

static node reduction(graph *g, cudnnReduceTensorOp_t mode, node x, node y) {
    node how = make(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    set_type(g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, f32);
    set(g, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode);
    finish(g, how);
    node operation = make(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_node(g, operation, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    set_node(g, operation, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_node(g, operation, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    add_operation(g, operation);
    return y;
}

static node swapped_scores(graph *g, node x) {
    const tn_sdpa_shape *s = g->shape;
    node y =
        tensor(g, g->next++, io_type(g), score_sizes(g),
               (sizes){{s->heads * s->length * s->length, s->length * s->length, 1, s->length}}, false, NULL);
    node operation = make(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_node(g, operation, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    set_node(g, operation, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    add_operation(g, operation);
    return y;
}

static node index_of(graph *g, cudnnDataType_t precision, int64_t axis, node x) {
    return pointwise(g, CUDNN_POINTWISE_GEN_INDEX, precision, axis, x, NULL, NULL, scores(g, i32));
}

static node compare(graph *g, cudnnPointwiseMode_t mode, node x, node b) {
    return pointwise(g, mode, boolean, 0, x, b, NULL, scores(g, boolean));
}

static node where(graph *g, node x, node keep) {
    return pointwise(g, CUDNN_POINTWISE_BINARY_SELECT, f32, 0, x, g->minus_infinity, keep, scores(g, f32));
}

/* −∞ beyond the lengths of a document. */
static node mask_lengths(graph *g, node x) {
    if (!g->shape->packed) return x;
    node row = index_of(g, i32, 2, x), column = index_of(g, i32, 3, x);
    node row_inside = compare(g, CUDNN_POINTWISE_CMP_LT, row, g->q_lengths);
    node column_inside = compare(g, CUDNN_POINTWISE_CMP_LT, column, g->kv_lengths);
    return where(g, x, compare(g, CUDNN_POINTWISE_LOGICAL_AND, row_inside, column_inside));
}

static node mask_future(graph *g, node x) {
    node row = index_of(g, f32, 2, x), column = index_of(g, f32, 3, x);
    return where(g, x, compare(g, CUDNN_POINTWISE_CMP_GE, row, column));
}

/* ---- The two passes ------------------------------------------------------------------------------ */

static void common_inputs(graph *g) {
    g->scale = number(g, TN_SDPA_SCALE, f32);
    g->minus_infinity = number(g, TN_SDPA_MINUS_INFINITY, f32);
    if (!g->shape->packed) return;
    g->q_lengths = list(g, TN_SDPA_Q_LENGTHS, g->shape->batch);
    g->kv_lengths = list(g, TN_SDPA_KV_LENGTHS, g->shape->batch);
}

static void forward(graph *g) {
    const tn_sdpa_shape *s = g->shape;
    common_inputs(g);
    node q = rows(g, TN_SDPA_Q, s->heads, s->q_stride, false),
         k = rows(g, TN_SDPA_K, s->kv_heads, s->k_stride, true);
    node v = rows(g, TN_SDPA_V, s->kv_heads, s->v_stride, false),
         o = rows(g, TN_SDPA_O, s->heads, s->o_stride, false);
    node x = multiply(g, q, k, scores(g, f32), g->q_lengths, g->kv_lengths, NULL);
    x = mask_lengths(g, map(g, CUDNN_POINTWISE_MUL, x, g->scale));
    if (!s->bidirectional) x = mask_future(g, x);
    node top = reduction(g, CUDNN_REDUCE_TENSOR_MAX, x, inside(g, f32, row_sizes(g)));
    node e = map(g, CUDNN_POINTWISE_EXP, map(g, CUDNN_POINTWISE_SUB, x, top), NULL);
    node sum = reduction(g, CUDNN_REDUCE_TENSOR_ADD, e, inside(g, f32, row_sizes(g)));
    node logarithm = row_map(g, CUDNN_POINTWISE_LOG, sum, NULL);
    pointwise(g, CUDNN_POINTWISE_ADD, f32, 0, top, logarithm, NULL, statistics(g));
    node p = pointwise(g, CUDNN_POINTWISE_DIV, f32, 0, e, sum, NULL, scores(g, io_type(g)));
    multiply(g, p, v, o, g->q_lengths, NULL, g->kv_lengths);
}

/* to = aᵀ-scores · b, summed over the heads that share a kv head. Packed documents take the sum over one head
 * too: written by the product itself, their dk and dv came out wrong (cuDNN on an H200, tests/op/test_cuda.c).
 */
static void kv_gradient(graph *g, node a, node b, node to) {
    const tn_sdpa_shape *s = g->shape;
    if (s->heads == s->kv_heads && !s->packed) {
        multiply(g, a, b, to, g->kv_lengths, NULL, g->q_lengths);
        return;
    }
    node each = inside(g, io_type(g), (sizes){{s->batch, s->heads, s->length, s->dim}});
    reduction(g, CUDNN_REDUCE_TENSOR_ADD, multiply(g, a, b, each, g->kv_lengths, NULL, g->q_lengths), to);
}

static void query_gradient(graph *g, node ds, node k, node dq) {
    const tn_sdpa_shape *s = g->shape;
    node straight =
        tensor(g, g->next++, io_type(g), (sizes){{s->batch, s->kv_heads, s->length, s->dim}},
               (sizes){{s->length * s->k_stride, s->dim, s->k_stride, 1}}, false, offsets_of(g, TN_SDPA_K));
    node operation = make(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_node(g, operation, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, k);
    set_node(g, operation, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, straight);
    add_operation(g, operation);
    if (s->ordered) {
        multiply(g, ds, straight, dq, g->q_lengths, NULL, g->kv_lengths);
        return;
    }
    sizes dims = {{s->batch, s->heads, s->length, s->dim}};
    node sum = tensor(g, TN_SDPA_DQ_SUM, f32, dims, packed_strides(dims), false, NULL);
    multiply(g, ds, straight, sum, g->q_lengths, NULL, g->kv_lengths);
    pointwise(g, CUDNN_POINTWISE_IDENTITY, f32, 0, sum, NULL, NULL, dq);
}

static void backward(graph *g) {
    const tn_sdpa_shape *s = g->shape;
    sizes head_rows = {{s->batch, s->heads, s->length, s->dim}};
    common_inputs(g);
    g->one = number(g, TN_SDPA_ONE, f32);
    node q = rows(g, TN_SDPA_Q, s->heads, s->q_stride, false),
         k = rows(g, TN_SDPA_K, s->kv_heads, s->k_stride, true);
    node v = rows(g, TN_SDPA_V, s->kv_heads, s->v_stride, true),
         o = rows(g, TN_SDPA_O, s->heads, s->o_stride, false);
    node d_o = rows(g, TN_SDPA_DO, s->heads, s->do_stride, false),
         dq = rows(g, TN_SDPA_DQ, s->heads, s->dq_stride, false);
    node dk = rows(g, TN_SDPA_DK, s->kv_heads, s->dk_stride, false),
         dv = rows(g, TN_SDPA_DV, s->kv_heads, s->dv_stride, false);
    node stats = statistics(g);
    node sums = tensor(g, TN_SDPA_SUMS, f32, row_sizes(g), packed_strides(row_sizes(g)), false, NULL);
    node product = pointwise(g, CUDNN_POINTWISE_MUL, f32, 0, d_o, o, NULL, inside(g, f32, head_rows));
    node sum = reduction(g, CUDNN_REDUCE_TENSOR_ADD, product, inside(g, f32, row_sizes(g)));
    pointwise(g, CUDNN_POINTWISE_MUL, f32, 0, sum, g->one, NULL, sums);
    node x = multiply(g, q, k, scores(g, f32), g->q_lengths, g->kv_lengths, NULL);
    x = mask_lengths(g, map(g, CUDNN_POINTWISE_MUL, x, g->scale));
    node p = map(g, CUDNN_POINTWISE_EXP, mask_future(g, map(g, CUDNN_POINTWISE_SUB, x, stats)), NULL);
    kv_gradient(g, swapped_scores(g, p), d_o, dv);
    node dp = multiply(g, d_o, v, scores(g, f32), g->q_lengths, g->kv_lengths, NULL);
    node ds = map(g, CUDNN_POINTWISE_MUL, map(g, CUDNN_POINTWISE_SUB, dp, sums), p);
    ds = map(g, CUDNN_POINTWISE_MUL, ds, g->scale);
    kv_gradient(g, swapped_scores(g, ds), q, dk);
    query_gradient(g, ds, k, dq);
}

/* ---- Plan ---------------------------------------------------------------------------------------- */

/* The first engine configuration of cuDNN's own order that compiles. */
static node compile(graph *g, cudnnHandle_t handle, int64_t *workspace) {
    node configurations[MAX_CONFIGS];
    int64_t count = 0, one;
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    node operations = make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(g, operations, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    set(g, operations, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->operation_count,
        g->operations);
    finish(g, operations);
    node heuristics = make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_node(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, operations);
    set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    finish(g, heuristics);
    for (int i = 0; i < MAX_CONFIGS; i++) configurations[i] = make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (g->failed ||
        cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 MAX_CONFIGS, &count, configurations) != CUDNN_STATUS_SUCCESS)
        return NULL;
    for (int64_t i = 0; i < count && i < MAX_CONFIGS; i++) {
        node plan = make(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
        set_node(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configurations[i]);
        if (g->failed) return NULL;
        if (cudnnBackendFinalize(plan) == CUDNN_STATUS_SUCCESS &&
            cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &one,
                                     workspace) == CUDNN_STATUS_SUCCESS)
            return plan;
    }
    return NULL;
}

void tn_sdpa_build(cudnnHandle_t handle, const tn_sdpa_shape *shape, tn_sdpa_plan *plan) {
    graph g = {.shape = shape, .next = TN_SDPA_VIRTUAL};
    *plan = (tn_sdpa_plan){.shape = *shape};
    if (shape->backward) backward(&g);
    else forward(&g);
    plan->plan = compile(&g, handle, &plan->workspace);
    if (tn_alloc(&plan->parts, g.part_count, sizeof(node), "attention plan") != TN_OK) return;
    plan->part_count = g.part_count;
    memcpy(plan->parts, g.parts, (size_t)g.part_count * sizeof(node));
}

void tn_sdpa_free(tn_sdpa_plan *plan) {
    while (plan->part_count > 0) cudnnBackendDestroyDescriptor(plan->parts[--plan->part_count]);
    free(plan->parts);
}
