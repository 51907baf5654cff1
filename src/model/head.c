/* head.c: final norm, lm_head and cross-entropy, over rows that carry a label only and in chunks of them: the
 * logits of a chunk exist for a moment, become their own gradient in place, and are overwritten by the next
 * chunk. Rows of the head that train alone (tn_rows) are a small linear whose logits are put among the others.
 */
#include <stdlib.h>

#include "base/integer.h"
#include "model/pass_internal.h"

static const tn_view no_view = {NULL, 0};

/* ---- Buffers -------------------------------------------------------------------------------------- */

/* Rows of the head that train alone; 0 = none. */
static int64_t trained_rows(const tn_pass *pass) {
    return pass->model->head_rows.ids ? pass->model->head_rows.linear.out : 0;
}

static tn_view take(const tn_pass *pass, tn_region *region, int64_t stride) {
    const int64_t bytes =
        tn_region_bytes(pass->limits.head_rows, stride, tn_dtype_block_bytes(DEV(pass)->dtype));
    return (tn_view){tn_region_take(region, TN_SEGMENT_LOGITS, bytes), stride};
}

void tn_head_place(tn_pass *pass, tn_region *region) {
    const tn_arch *a = pass->model->arch;
    const int64_t chunk = pass->limits.head_rows, border = pass->model->border_head, n = trained_rows(pass);
    pass->head_h = take(pass, region, tn_stride(a->hidden));
    pass->head_x = take(pass, region, tn_stride(a->hidden + border));
    pass->logits = take(pass, region, tn_stride(a->vocab + border));
    if (n) pass->row_logits = take(pass, region, n);
    pass->head_rstd = tn_region_take(region, TN_SEGMENT_LOGITS, chunk * (int64_t)sizeof(float));
    if (pass->limits.training) pass->head_dx = take(pass, region, tn_stride(a->hidden));
    else pass->wide_logits = tn_region_take(region, TN_SEGMENT_LOGITS, a->vocab * (int64_t)sizeof(float));
}

void tn_head_place_inputs(tn_pass *pass, tn_region *region) {
    const int64_t chunk = pass->limits.head_rows, n = trained_rows(pass);
    const int64_t width = tn_dtype_block_bytes(DEV(pass)->dtype);
    if (n == 0) return;
    pass->row_columns =
        tn_region_take(region, TN_SEGMENT_BATCH, tn_region_bytes(chunk, n, (int64_t)sizeof(int32_t)));
    pass->row_zeros = (tn_view){tn_region_take(region, TN_SEGMENT_BATCH, tn_region_bytes(chunk, n, width)), n};
}

/* Seen as one column of single elements, the logits of the trained rows are rows to gather and to scatter. */
tn_status tn_head_set(tn_pass *pass) {
    const int64_t chunk = pass->limits.head_rows, n = trained_rows(pass), stride = pass->logits.stride;
    int32_t *columns = NULL;
    tn_status status = TN_OK;
    if (n == 0 || pass->columns_set) return TN_OK;
    if (chunk * stride > INT32_MAX)
        return tn_fail(TN_USAGE, "trainable_token_indices: a vocabulary of %lld is too large for it",
                       (long long)pass->model->arch->vocab);
    TN_TRY(tn_alloc(&columns, chunk * n, (int64_t)sizeof *columns, "trained tokens"));
    for (int64_t row = 0; row < chunk; row++)
        for (int64_t i = 0; i < n; i++)
            columns[row * n + i] = (int32_t)(row * stride + pass->model->head_rows.ids[i]);
    TN_TRY(tn_upload_i32(pass, pass->row_columns, columns, chunk * n));
    TN_TRY(OP(pass)->zero(DEV(pass), pass->row_zeros.data, chunk * n * tn_dtype_block_bytes(DEV(pass)->dtype)));
    pass->columns_set = true;
done:
    free(columns);
    return status;
}

/* ---- Running -------------------------------------------------------------------------------------- */

static tn_view single(tn_view matrix) { return (tn_view){matrix.data, 1}; }

/* The trained rows' logits take the place of the frozen ones'. */
static tn_status put_row_logits(tn_pass *pass, int64_t count) {
    const int64_t n = trained_rows(pass);
    tn_status status = TN_OK;
    if (n == 0) return TN_OK;
    TN_TRY(OP(pass)->linear_forward(DEV(pass), &pass->model->head_rows.linear, count, pass->head_x,
                                    pass->row_logits, no_view, 1.0f / pass->model->arch->logit_scale, NULL));
    status = OP(pass)->scatter_rows(DEV(pass), count * n, 1, pass->row_columns, single(pass->row_logits),
                                    single(pass->logits));
done:
    return status;
}

/* Their gradients are taken out, so that the frozen rows they stand for get none. */
static tn_status take_row_gradients(tn_pass *pass, int64_t count) {
    const int64_t n = trained_rows(pass);
    tn_status status = TN_OK;
    if (n == 0) return TN_OK;
    TN_TRY(OP(pass)->gather_rows(DEV(pass), count * n, 1, pass->row_columns, single(pass->logits),
                                 single(pass->row_logits)));
    status = OP(pass)->scatter_rows(DEV(pass), count * n, 1, pass->row_columns, single(pass->row_zeros),
                                    single(pass->logits));
done:
    return status;
}

/* Last hidden state of the rows in `index` → head_x = final_norm(h) → logits. */
static tn_status chunk_logits(tn_pass *pass, const int32_t *index, int64_t count, const tn_dropout *dropout) {
    const tn_arch *a = pass->model->arch;
    tn_status status;
    TN_TRY(OP(pass)->gather_rows(DEV(pass), count, a->hidden, index, tn_pass_saved(pass, TN_SAVED_H, a->layers),
                                 pass->head_h));
    TN_TRY(OP(pass)->rmsnorm_forward(DEV(pass), count, 1, a->hidden, pass->head_h, pass->model->final_norm,
                                     false, a->norm_eps, pass->head_x, pass->head_rstd));
    TN_TRY(OP(pass)->linear_forward(DEV(pass), &pass->model->head, count, pass->head_x, pass->logits, no_view,
                                    1.0f / a->logit_scale, dropout));
    status = put_row_logits(pass, count);
done:
    return status;
}

static tn_status chunk_backward(tn_pass *pass, const int32_t *index, int64_t count, const tn_dropout *dropout) {
    const tn_arch *a = pass->model->arch;
    /* Does anything under the head train? */
    bool below = pass->model->lowest_trained < a->layers || pass->model->dfinal_norm;
    tn_status status;
    TN_TRY(take_row_gradients(pass, count));
    TN_TRY(OP(pass)->linear_backward(DEV(pass), &pass->model->head, count, pass->head_x, pass->logits,
                                     below ? pass->head_dx : no_view, false, 1.0f / a->logit_scale, dropout));
    if (trained_rows(pass))
        TN_TRY(OP(pass)->linear_backward(DEV(pass), &pass->model->head_rows.linear, count, pass->head_x,
                                         pass->row_logits, below ? pass->head_dx : no_view, below,
                                         1.0f / a->logit_scale, NULL));
    if (!below) goto done;
    TN_TRY(OP(pass)->rmsnorm_backward(DEV(pass), count, 1, a->hidden, pass->head_h, pass->model->final_norm,
                                      false, pass->head_rstd, pass->head_dx, pass->head_dx, false,
                                      pass->model->dfinal_norm));
    status = OP(pass)->scatter_rows(DEV(pass), count, a->hidden, index, pass->head_dx, pass->dh);
done:
    return status;
}

tn_status tn_head_loss(tn_pass *pass, bool train, float loss_scale, const tn_dropout *dropout) {
    const tn_arch *a = pass->model->arch;
    const int64_t chunk = pass->limits.head_rows;
    tn_status status = TN_OK;
    if (train)
        TN_TRY(OP(pass)->zero(DEV(pass), pass->dh.data,
                              pass->tokens * pass->dh.stride * tn_dtype_block_bytes(DEV(pass)->dtype)));
    for (int64_t at = 0; at < pass->labelled; at += chunk) {
        int64_t count = tn_min(pass->labelled - at, chunk);
        tn_dropout here = dropout ? *dropout : (tn_dropout){0};
        here.first_row += at;
        TN_TRY(chunk_logits(pass, pass->in.rows + at, count, &here));
        TN_TRY(OP(pass)->cross_entropy(DEV(pass), count, a->vocab, pass->logits, pass->in.targets + at, 0.0f,
                                       loss_scale, pass->in.losses + at, train ? pass->logits : no_view));
        if (train) TN_TRY(chunk_backward(pass, pass->in.rows + at, count, &here));
    }
    if (pass->labelled) status = OP(pass)->sum(DEV(pass), pass->labelled, pass->in.losses, pass->in.loss_total);
done:
    return status;
}

tn_status tn_head_logits(tn_pass *pass, const int32_t *rows, int64_t count, float *logits) {
    const int64_t vocab = pass->model->arch->vocab, chunk = pass->limits.head_rows;
    tn_status status = TN_OK;
    for (int64_t at = 0; at < count; at += chunk) {
        int64_t n = tn_min(count - at, chunk);
        TN_TRY(chunk_logits(pass, rows + at, n, NULL));
        for (int64_t i = 0; i < n; i++) {
            tn_view row = tn_view_at(DEV(pass), pass->logits, i, 0);
            TN_TRY(OP(pass)->widen(DEV(pass), 1, vocab, row, pass->wide_logits));
            TN_TRY(OP(pass)->download(DEV(pass), logits + (at + i) * vocab, pass->wide_logits,
                                      vocab * (int64_t)sizeof *logits));
        }
    }
done:
    return status;
}
