/* head.c: final norm, lm_head and cross-entropy, over rows that carry a label only and in chunks of them: the
 * logits of a chunk exist for a moment, become their own gradient in place, and are overwritten by the next
 * chunk.
 */
#include "model/pass_internal.h"

#define OP(pass) ((pass)->model->device->backend)
#define DEV(pass) ((pass)->model->device)

static const tn_view no_view = {NULL, 0};

/* Last hidden state of the rows in `index` → head_x = final_norm(h) → logits. */
static tn_status chunk_logits(tn_pass *pass, const int32_t *index, int64_t count, const tn_dropout *dropout) {
    const tn_arch *a = pass->model->arch;
    tn_status status;
    TN_TRY(OP(pass)->gather_rows(DEV(pass), count, a->hidden, index, tn_pass_saved(pass, TN_SAVED_H, a->layers),
                                 pass->head_h));
    TN_TRY(OP(pass)->rmsnorm_forward(DEV(pass), count, 1, a->hidden, pass->head_h, pass->model->final_norm,
                                     false, a->norm_eps, pass->head_x, pass->head_rstd));
    status = OP(pass)->linear_forward(DEV(pass), &pass->model->head, count, pass->head_x, pass->logits, no_view,
                                      1.0f / a->logit_scale, dropout);
done:
    return status;
}

static tn_status chunk_backward(tn_pass *pass, const int32_t *index, int64_t count, const tn_dropout *dropout) {
    const tn_arch *a = pass->model->arch;
    /* Does anything under the head train? */
    bool below = pass->model->lowest_trained < a->layers || pass->model->dfinal_norm;
    tn_status status;
    TN_TRY(OP(pass)->linear_backward(DEV(pass), &pass->model->head, count, pass->head_x, pass->logits,
                                     below ? pass->head_dx : no_view, false, 1.0f / a->logit_scale, dropout));
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
        int64_t count = pass->labelled - at < chunk ? pass->labelled - at : chunk;
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
        int64_t n = count - at < chunk ? count - at : chunk;
        TN_TRY(chunk_logits(pass, rows + at, n, NULL));
        for (int64_t i = 0; i < n; i++) {
            tn_view row = {
                (char *)pass->logits.data + i * pass->logits.stride * tn_dtype_block_bytes(DEV(pass)->dtype),
                pass->logits.stride};
            TN_TRY(OP(pass)->widen(DEV(pass), 1, vocab, row, pass->wide_logits));
            TN_TRY(OP(pass)->download(DEV(pass), logits + (at + i) * vocab, pass->wide_logits,
                                      vocab * (int64_t)sizeof *logits));
        }
    }
done:
    return status;
}
