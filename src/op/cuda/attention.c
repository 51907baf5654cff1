/* attention.c: who computes attention: the decode kernel for a handful of queries, cuDNN for 16-bit types, our
 * own kernels for everything else.
 */
#include "op/cuda/cuda.h"

static tn_status check(const tn_attention *a) {
    if (a->head_dim <= 256) return TN_OK;
    return tn_fail(TN_USAGE, "attention: head_dim %lld is larger than 256", (long long)a->head_dim);
}

tn_status tn_cuda_attention_forward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                    tn_view o, float *lse) {
    bool done = false;
    tn_status status;
    if (a->q_rows == 0) return TN_OK;
    TN_TRY(check(a));
    tn_cuda_begin(device);
    if (a->q_rows <= TN_CUDA_DECODE_ROWS) return tn_cuda_decode_attention(device, a, q, k, v, o, lse);
    TN_TRY(tn_cuda_cudnn_forward(device, a, q, k, v, o, lse, &done));
    if (!done) status = tn_cuda_flash_forward(device, a, q, k, v, o, lse);
done:
    return status;
}

tn_status tn_cuda_attention_backward(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                     tn_view o, const float *lse, tn_view d_o, tn_view dq, tn_view dk,
                                     tn_view dv) {
    bool done = false;
    tn_status status;
    if (a->q_rows == 0) return TN_OK;
    TN_TRY(check(a));
    tn_cuda_begin(device);
    TN_TRY(tn_cuda_cudnn_backward(device, a, q, k, v, o, lse, d_o, dq, dk, dv, &done));
    if (!done) status = tn_cuda_flash_backward(device, a, q, k, v, o, lse, d_o, dq, dk, dv);
done:
    return status;
}
