/* cudnn_graph.h: attention as a graph of cuDNN's backend API, and the plan it compiles to. */
#ifndef TN_OP_CUDA_CUDNN_GRAPH_H
#define TN_OP_CUDA_CUDNN_GRAPH_H

#include <cudnn.h>

#include "op/cuda/cuda.h"

/* Names of the tensors a plan is executed with. PACKED: documents of different lengths behind one another; then
 * every tensor has a list of offsets (its name + TN_SDPA_OFFSETS), in elements, and lengths lists the rows. */
enum {
    TN_SDPA_Q = 1,
    TN_SDPA_K,
    TN_SDPA_V,
    TN_SDPA_O,
    TN_SDPA_STATS,
    TN_SDPA_DO,
    TN_SDPA_DQ,
    TN_SDPA_DK,
    TN_SDPA_DV,
    TN_SDPA_SUMS,   /* Σ d_o·o, scratch of the backward pass */
    TN_SDPA_DQ_SUM, /* dq in fp32, where sums may come in any order */
    TN_SDPA_SCALE,  /* these three are numbers in host memory */
    TN_SDPA_MINUS_INFINITY,
    TN_SDPA_ONE,
    TN_SDPA_Q_LENGTHS,
    TN_SDPA_KV_LENGTHS,
    TN_SDPA_OFFSETS = 32,
    TN_SDPA_VIRTUAL = 100,
};

/* What a plan is made for; also its key, so there is no padding in it. Rows of a document lie `*_stride`
 * elements apart. */
typedef struct tn_sdpa_shape {
    int64_t backward, packed, ordered; /* ordered: bit-identical dq, at length² workspace */
    int64_t bidirectional;             /* forward alone */
    int64_t io;                        /* tn_dtype */
    int64_t batch, length, heads, kv_heads, dim;
    int64_t
        stats_heads; /* heads of the array of statistics: more than `heads` where they are taken in groups */
    int64_t q_stride, k_stride, v_stride, o_stride, do_stride, dq_stride, dk_stride, dv_stride;
} tn_sdpa_shape;

typedef struct tn_sdpa_plan {
    tn_sdpa_shape shape;
    cudnnBackendDescriptor_t plan; /* NULL: cuDNN has none for this shape */
    int64_t workspace;
    cudnnBackendDescriptor_t *parts; /* everything the plan was made from */
    int part_count;
} tn_sdpa_plan;

/* Never fails: a shape without a plan gives an entry without one. */
void tn_sdpa_build(cudnnHandle_t handle, const tn_sdpa_shape *shape, tn_sdpa_plan *plan);
void tn_sdpa_free(tn_sdpa_plan *plan);

#endif
