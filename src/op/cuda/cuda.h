/* cuda.h: what the files of the GPU backend share: the device struct, scratch, error checks, the matrix
 * product, and the operations of the table.
 *
 * Everything runs on one stream (`stream`) and is ordered by it; a second one (`copies`) serves loading and, in
 * training, what is moved between device and host beside computing.
 * Nothing is allocated in a step: an operation takes its scratch with tn_cuda_take() after tn_cuda_begin(),
 * and no two operations overlap, so all of them start from the same place. The first WORKSPACE bytes of the
 * scratch belong to cublasLt.
 */
#ifndef TN_OP_CUDA_CUDA_H
#define TN_OP_CUDA_CUDA_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/status.h"
#include "op/op.h"

enum { TN_CUDA_WORKSPACE = 64 << 20 };

typedef struct tn_cuda_device {
    tn_device base;
    cudaStream_t stream, copies;
    int multiprocessors, capability; /* 90 for compute capability 9.0 */
    int shared_limit;                /* bytes of shared memory one block may ask for */
    int64_t used;                    /* of the scratch, by the running operation */
    int64_t attention_budget;        /* bytes of one call's ordered matrix (cudnn.c), from scratch_bytes() */
    struct tn_cuda_gemms *gemms;
    struct tn_cuda_plans *plans; /* cuDNN's attention; NULL where cuDNN is missing */
    struct tn_cuda_ring *ring;   /* pinned buffers, while something is being loaded */
    struct tn_cuda_group *group; /* of several processes, once joined (nccl.c) */
} tn_cuda_device;

static inline tn_cuda_device *tn_cuda(tn_device *device) { return (tn_cuda_device *)device; }

/* TN_OK, or TN_FAILED with the runtime's words behind `what`. */
tn_status tn_cuda_check(cudaError_t error, const char *what);
/* The same for the kernel launched just before. */
tn_status tn_cuda_launched(const char *what);

/* What `later` is given from now on waits for what `earlier` has been given so far (moves.c). */
tn_status tn_cuda_order(cudaStream_t earlier, cudaStream_t later);

/* Forgets the scratch of the operation before. */
void tn_cuda_begin(tn_device *device);
/* `bytes` of scratch, 256-byte aligned; NULL (and a failure stored) where scratch_bytes() was exceeded. */
void *tn_cuda_take(tn_device *device, int64_t bytes);
static inline int64_t tn_cuda_round(int64_t bytes) { return (bytes + 255) / 256 * 256; }
static inline int64_t tn_cuda_size(tn_dtype dtype) { return dtype == TN_DTYPE_F32 ? 4 : 2; }

/* ---- Matrix products (gemm.c) ---------------------------------------------------------------------- */

/* d[m, n] = alpha · a·b + beta · c + bias, all row-major. `a` is [m, k], or [k, m] where transpose_a;
 * `b` is [k, n], or [n, k] where transpose_b. a, b and bias are of the compute dtype, c and d of it or fp32
 * (wide). c may be d. Which of m and k counts tokens (and therefore varies) is said by `rows_in_k`. */
typedef struct tn_cuda_gemm {
    int64_t m, n, k;
    bool transpose_a, transpose_b, wide, rows_in_k;
    const void *a, *b, *c, *bias;
    void *d;
    int64_t lda, ldb, ldc, ldd;
    float alpha, beta;
    const float *a_scales, *b_scales; /* a [m, k] and b [n, k] are E4M3, and these [m] and [n]; else NULL */
} tn_cuda_gemm;
tn_status tn_cuda_multiply(tn_device *device, const tn_cuda_gemm *gemm);
/* Whether there is an algorithm for it: for every product but those of E4M3 there is. */
bool tn_cuda_can_multiply(tn_device *device, const tn_cuda_gemm *gemm);
tn_status tn_cuda_gemms_open(tn_cuda_device *device);
void tn_cuda_gemms_close(tn_cuda_device *device);

/* ---- LoRA's gradients (thin.cu) ---------------------------------------------------------------------- */

/* By whom dA += alpha·vᵀ·x and dB += alpha·s·dyᵀ·u are computed: by the library part by part, by our kernels
 * from the v in dy's border, or by our kernels together with that v. */
typedef enum tn_cuda_thin_way { TN_THIN_NONE, TN_THIN_SUMS, TN_THIN_ALL } tn_cuda_thin_way;
/* b [out, border] is the compute copy of scale·B. */
tn_cuda_thin_way tn_cuda_thin_way_of(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                     tn_view dy, const void *b, int64_t b_stride);
tn_status tn_cuda_thin_gradients(tn_device *device, tn_cuda_thin_way way, const tn_linear *linear, int64_t rows,
                                 tn_view x, tn_view dy, const void *b, int64_t b_stride, float alpha);

/* ---- Attention -------------------------------------------------------------------------------------- */

/* cuDNN (cudnn.c). *done is false where it has no plan for the shape; nothing was computed then. */
tn_status tn_cuda_plans_open(tn_cuda_device *device);
void tn_cuda_plans_close(tn_cuda_device *device);
tn_status tn_cuda_cudnn_forward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                tn_view o, float *lse, bool *done);
tn_status tn_cuda_cudnn_backward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                 tn_view o, const float *lse, tn_view d_o, tn_view dq, tn_view dk, tn_view dv,
                                 bool *done);
int64_t tn_cuda_cudnn_scratch(tn_device *device, const tn_limits *limits);
/* Arrays of document starts times a factor, one per tensor. */
enum { TN_CUDA_LISTS = 9 };
typedef struct tn_cuda_offsets {
    int count;
    int64_t name[TN_CUDA_LISTS]; /* of the tensor, for cudnn.c */
    int32_t factor[TN_CUDA_LISTS];
    int32_t *to[TN_CUDA_LISTS];
} tn_cuda_offsets;
/* to[i] = start of document i · factor, for i < length; beyond the documents their end. */
tn_status tn_cuda_document_offsets(tn_device *device, const tn_attention *a, int64_t length,
                                   const tn_cuda_offsets *lists);
/* Lengths of documents first … first+count-1, then zeros up to `batch`. */
tn_status tn_cuda_document_lengths(tn_device *device, const tn_attention *a, int64_t first, int64_t count,
                                   int64_t batch, int32_t *lengths);
/* to = from with rows and heads swapped per document: [batch, length, heads] to [batch, heads, length] where
 * `by_head`, else back. */
tn_status tn_cuda_swap_statistics(tn_device *device, int64_t batch, int64_t length, int64_t heads,
                                  const float *from, float *to, bool by_head);
/* Our own kernels (attention.cu, attention_backward.cu, attention_decode.cu): any dtype, head_dim ≤ 256. */
tn_status tn_cuda_flash_forward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                tn_view o, float *lse);
tn_status tn_cuda_flash_backward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                 tn_view o, const float *lse, tn_view d_o, tn_view dq, tn_view dk, tn_view dv);
tn_status tn_cuda_decode_attention(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                   tn_view o, float *lse);
enum { TN_CUDA_DECODE_ROWS = 16 }; /* at most this many queries go to the decode kernel */
int64_t tn_cuda_flash_scratch(const tn_limits *limits);

/* ---- Weights (load.c, weights.cu, dequantize.cu, scaled.cu, fp8.cu) -----------------------------------------
 */

void tn_cuda_ring_close(tn_cuda_device *device);
/* to[row, 0…cols) = the quantised weight. */
tn_status tn_cuda_dequantize(tn_device *device, const tn_weight *weight, void *to, int64_t stride);
/* to[row] = scale · row ids[row] (ids NULL: row `row`) of a weight whose scales lie apart (scaled.cu). */
tn_status tn_cuda_decode_scaled(tn_device *device, const tn_weight *weight, int64_t rows, const int32_t *ids,
                                float scale, tn_view to);
/* Rows of x [rows, cols] as E4M3: codes [rows, cols] and a scale a row. */
tn_status tn_cuda_encode_fp8(tn_device *device, int64_t rows, int64_t cols, tn_view x, uint8_t *codes,
                             float *scales);
/* The LoRA copies: b_copy[out, border] = scale·B in part blocks, a_copy[border, in] = A rows; zeros elsewhere.
 */
tn_status tn_cuda_refresh_border(tn_device *device, const tn_linear *linear, void *b_copy, int64_t b_stride,
                                 void *a_copy, int64_t a_stride);
/* values[rows, cols] = rounded fp32 master. */
tn_status tn_cuda_round_rows(tn_device *device, int64_t rows, int64_t cols, const float *from, void *to,
                             int64_t stride);
tn_status tn_cuda_random_rows(tn_device *device, const tn_source *source, int64_t rows, int64_t cols, void *to,
                              int64_t stride);
/* Elements first (even) … first+count-1 of the source as floats, to memory that the device can write. */
tn_status tn_cuda_random_values(tn_device *device, const tn_source *source, int64_t first, int64_t count,
                                float *to);
/* to[out] = alpha · biases side by side, zeros where a part has none. */
tn_status tn_cuda_collect_bias(tn_device *device, const tn_linear *linear, float alpha, void *to);
/* dbias += alpha · Σ over rows of dy. */
tn_status tn_cuda_column_sums(tn_device *device, int64_t rows, int64_t cols, tn_view dy, float alpha,
                              float *sums);
int64_t tn_cuda_column_scratch(int64_t cols);
/* to[row, col] (+)= mask · from / (1 - p), the mask of part `part`. */
tn_status tn_cuda_dropout(tn_device *device, const tn_linear *linear, int part, const tn_dropout *dropout,
                          int64_t rows, tn_view from, tn_view to, bool accumulate);
/* The same with the mask less one: what dropout adds to `from` itself. */
tn_status tn_cuda_dropout_less(tn_device *device, const tn_linear *linear, int part, const tn_dropout *dropout,
                               int64_t rows, tn_view from, tn_view to, bool accumulate);

/* ---- Several processes (nccl.c) ---------------------------------------------------------------------- */

extern const tn_reducer tn_cuda_reducer;

/* ---- The table --------------------------------------------------------------------------------------- */

int64_t tn_cuda_linear_bytes(tn_device *, const tn_linear *, const tn_source *const[]);
tn_status tn_cuda_linear_load(tn_device *, tn_linear *, const tn_source *const[], void *);
tn_status tn_cuda_linear_refresh(tn_device *, tn_linear *);
int64_t tn_cuda_weight_bytes(tn_device *, int64_t rows, int64_t cols, const tn_source *);
tn_status tn_cuda_weight_load(tn_device *, int64_t rows, int64_t cols, const tn_source *, void *, tn_weight *);
tn_status tn_cuda_weight_refresh(tn_device *, int64_t count, const float *, void *);
tn_status tn_cuda_load_finish(tn_device *);
tn_status tn_cuda_upload(tn_device *, void *, const void *, int64_t bytes);
tn_status tn_cuda_host_allocate(tn_device *, int64_t bytes, void **memory);
void tn_cuda_host_release(tn_device *, void *memory, int64_t bytes);
tn_status tn_cuda_move(tn_device *, void *to, const void *from, int64_t bytes);
tn_status tn_cuda_move_wait(tn_device *);
tn_status tn_cuda_linear_forward(tn_device *, const tn_linear *, int64_t rows, tn_view x, tn_view y,
                                 tn_view residual, float alpha, const tn_dropout *);
tn_status tn_cuda_linear_backward(tn_device *, const tn_linear *, int64_t rows, tn_view x, tn_view dy,
                                  tn_view dx, bool accumulate, float alpha, const tn_dropout *);
tn_status tn_cuda_linear_inner(tn_device *, const tn_linear *, int64_t rows, tn_view x, const tn_dropout *);
int64_t tn_cuda_linear_scratch(tn_device *, const tn_limits *);
tn_status tn_cuda_embed_forward(tn_device *, int64_t rows, const int32_t *ids, const tn_weight *, float scale,
                                tn_view y);
tn_status tn_cuda_embed_backward(tn_device *, int64_t rows, int64_t cols, int64_t segments, const int32_t *ids,
                                 const int32_t *order, const int32_t *starts, float scale, tn_view dy,
                                 float *dtable);
tn_status tn_cuda_rmsnorm_forward(tn_device *, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                  const void *w, bool offset, float eps, tn_view y, float *rstd);
tn_status tn_cuda_rmsnorm_backward(tn_device *, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                   const void *w, bool offset, const float *rstd, tn_view dy, tn_view dx,
                                   bool accumulate, float *dw);
tn_status tn_cuda_rope_table(tn_device *, int64_t rows, int64_t half, const int32_t *positions,
                             const int32_t *row_table, const float *inv_freq, float scaling, float *cos,
                             float *sin);
tn_status tn_cuda_rope(tn_device *, int64_t rows, int64_t heads, int64_t head_dim, int64_t half, tn_view x,
                       const float *cos, const float *sin, bool inverse);
tn_status tn_cuda_attention_forward(tn_device *, const tn_attention *, tn_view q, tn_view k, tn_view v,
                                    tn_view o, float *lse);
tn_status tn_cuda_attention_backward(tn_device *, const tn_attention *, tn_view q, tn_view k, tn_view v,
                                     tn_view o, const float *lse, tn_view d_o, tn_view dq, tn_view dk,
                                     tn_view dv);
tn_status tn_cuda_gated_forward(tn_device *, int64_t rows, int64_t cols, tn_activation, tn_view gate_up,
                                tn_view y);
tn_status tn_cuda_gated_backward(tn_device *, int64_t rows, int64_t cols, tn_activation, tn_view gate_up,
                                 tn_view dy, tn_view d_gate_up);
tn_status tn_cuda_activate(tn_device *, int64_t rows, int64_t cols, tn_activation, tn_view x, tn_view y);
tn_status tn_cuda_add(tn_device *, int64_t rows, int64_t cols, tn_view a, tn_view b, tn_view y);
tn_status tn_cuda_gather_rows(tn_device *, int64_t rows, int64_t cols, const int32_t *index, tn_view from,
                              tn_view to);
tn_status tn_cuda_scatter_rows(tn_device *, int64_t rows, int64_t cols, const int32_t *index, tn_view from,
                               tn_view to);
tn_status tn_cuda_copy_rows(tn_device *, int64_t rows, int64_t cols, tn_view from, tn_view to);
tn_status tn_cuda_widen(tn_device *, int64_t rows, int64_t cols, tn_view from, float *to);
tn_status tn_cuda_cross_entropy(tn_device *, int64_t rows, int64_t vocab, tn_view logits,
                                const int32_t *targets, float softcap, float grad_scale, float *loss,
                                tn_view d_logits);
tn_status tn_cuda_sum(tn_device *, int64_t count, const float *values, double *total);
tn_status tn_cuda_sum_squares(tn_device *, int64_t count, const float *values, double *total);
tn_status tn_cuda_adamw(tn_device *, int64_t count, float *p, const float *g, float *m, float *v,
                        const tn_optimizer_step *);
tn_status tn_cuda_adamw_8bit(tn_device *, int64_t count, float *p, const float *g, tn_codes m, tn_codes v,
                             const tn_optimizer_step *step);
tn_status tn_cuda_sgd(tn_device *, int64_t count, float *p, const float *g, float *m,
                      const tn_optimizer_step *);
tn_status tn_cuda_lion(tn_device *, int64_t count, float *p, const float *g, float *m,
                       const tn_optimizer_step *);

#ifdef __cplusplus
}
#endif
#endif
