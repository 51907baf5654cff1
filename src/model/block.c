/* block.c: one transformer block, forward and backward by hand, for every family of arch.h. The block is a
 * chain of stages, each from saved tensors to saved tensors:
 *
 *   attend           h → x = norm1(h) → q|k|v → (q/k norm) → rope → qkv     [T, q+2kv]
 *   attention        qkv → attn [T, q], lse [T, heads]
 *   mix              attn → h_mid = h + o(attn)                              [T, d]
 *   norm_before_mlp  h_mid → x = norm2(h_mid)                                [t, d]
 *   gate_up          x → gate|up                                             [t, 2f]
 *   activate         gate|up → act = silu(gate)·up                           [t, f]
 *   contract         act → h' = h_mid + down(act)                            [t, d]
 *
 * Where no row meets another, the rows pass in tiles of at most TN_TILE_ROWS: a tile's x, gate|up, act and
 * their gradients are used up before the next one comes, so that their buffers do not grow with T. Every policy
 * works in the same tiles: sums over the rows (dA, dB) are made in one order, whatever is kept.
 *
 * The backward pass replays exactly the stages whose results the policy did not keep, with the same operations
 * and so the same bits, then walks them in reverse. `contract`'s product is never replayed.
 */
#include "model/pass_internal.h"

static const tn_view no_view = {NULL, 0};

/* Rows first … first+count-1 of the batch. */
typedef struct tile {
    int64_t first, count;
} tile;

static tile tile_from(const tn_pass *pass, int64_t first) {
    return (tile){first, tn_tile_rows(pass->tokens - first)};
}

#define EACH_TILE(pass, t) \
    for (tile t = tile_from(pass, 0); t.count > 0; t = tile_from(pass, t.first + t.count))

/* The view that begins `columns` further right. */
static tn_view right(const tn_pass *pass, tn_view v, int64_t columns) {
    return tn_view_at(DEV(pass), v, 0, columns);
}

/* A tile's rows of a matrix of all rows. */
static tn_view rows_of(const tn_pass *pass, tn_view v, tile t) { return tn_view_at(DEV(pass), v, t.first, 0); }

/* A tile's mask is a part of the whole batch's. */
static tn_dropout dropout_of(const tn_dropout *dropout, tile t) {
    tn_dropout here = dropout ? *dropout : (tn_dropout){0};
    here.first_row += t.first;
    return here;
}

static tn_attention attention_of(const tn_pass *pass, int64_t l) {
    tn_attention a = pass->attention;
    a.window = pass->model->layers[l].window;
    return a;
}

/* Where attention reads q, k and v: v comes straight from the projection where q and k were normalised into
 * their own buffer, and k and v from the cache in generation. */
static void qkv_views(const tn_pass *pass, int64_t l, tn_view *q, tn_view *k, tn_view *v) {
    const tn_arch *a = pass->model->arch;
    *q = tn_pass_saved(pass, TN_SAVED_QKV, l);
    *k = right(pass, *q, tn_arch_q(a));
    *v = right(pass, a->qk_norm ? tn_pass_saved(pass, TN_SAVED_QKV_RAW, l) : *q, tn_arch_q(a) + tn_arch_kv(a));
}

/* A tile of the residual stream h, normalised, in pass->x. */
static tn_status normalise(tn_pass *pass, tn_view h, tile t, const void *weight) {
    const tn_arch *a = pass->model->arch;
    return OP(pass)->rmsnorm_forward(DEV(pass), t.count, 1, a->hidden, rows_of(pass, h, t), weight, false,
                                     a->norm_eps, pass->x, pass->rstd);
}

static tn_status normalise_qk(tn_pass *pass, int64_t l, tn_view raw, tn_view out) {
    const tn_arch *a = pass->model->arch;
    const tn_layer *layer = &pass->model->layers[l];
    float *rstd = tn_pass_saved_f32(pass, TN_SAVED_QK_RSTD, l);
    tn_status status = OP(pass)->rmsnorm_forward(DEV(pass), pass->tokens, a->heads, a->head_dim, raw,
                                                 layer->q_norm, false, a->norm_eps, out, rstd);
    if (status != TN_OK) return status;
    return OP(pass)->rmsnorm_forward(DEV(pass), pass->tokens, a->kv_heads, a->head_dim,
                                     right(pass, raw, tn_arch_q(a)), layer->k_norm, false, a->norm_eps,
                                     right(pass, out, tn_arch_q(a)), rstd + pass->limits.rows * a->heads);
}

/* q and k stand side by side, so rope turns them as heads + kv_heads heads. */
static tn_status turn(tn_pass *pass, int64_t l, tn_view qk, bool back) {
    const tn_arch *a = pass->model->arch;
    if (!pass->model->layers[l].turns) return TN_OK;
    return OP(pass)->rope(DEV(pass), pass->tokens, a->heads + a->kv_heads, a->head_dim, a->rope.half, qk,
                          pass->in.cos, pass->in.sin, back);
}

static tn_status attend(tn_pass *pass, int64_t l, const tn_dropout *dropout) {
    const tn_layer *layer = &pass->model->layers[l];
    bool qk_norm = pass->model->arch->qk_norm;
    tn_view qkv = tn_pass_saved(pass, TN_SAVED_QKV, l),
            raw = qk_norm ? tn_pass_saved(pass, TN_SAVED_QKV_RAW, l) : qkv;
    tn_status status;
    EACH_TILE(pass, t) {
        const tn_dropout here = dropout_of(dropout, t);
        TN_TRY(normalise(pass, tn_pass_saved(pass, TN_SAVED_H, l), t, layer->norm1));
        TN_TRY(OP(pass)->linear_forward(DEV(pass), &layer->qkv, t.count, pass->x, rows_of(pass, raw, t),
                                        no_view, 1.0f, &here));
    }
    if (qk_norm) TN_TRY(normalise_qk(pass, l, raw, qkv));
    status = turn(pass, l, qkv, false);
done:
    return status;
}

/* Moves the new keys and values behind the cached ones and reads all of them from there. */
static tn_status through_cache(tn_pass *pass, int64_t l, tn_view *k, tn_view *v) {
    const tn_arch *a = pass->model->arch;
    tn_view new_k = tn_view_at(DEV(pass), pass->cache_k[l], pass->past, 0);
    tn_view new_v = tn_view_at(DEV(pass), pass->cache_v[l], pass->past, 0);
    tn_status status;
    TN_TRY(OP(pass)->copy_rows(DEV(pass), pass->tokens, tn_arch_kv(a), *k, new_k));
    TN_TRY(OP(pass)->copy_rows(DEV(pass), pass->tokens, tn_arch_kv(a), *v, new_v));
    *k = pass->cache_k[l];
    *v = pass->cache_v[l];
done:
    return status;
}

/* Attention's scratch lies over the buffers of the MLP. Called before and after an attention operation. */
static void swap_scratch(tn_pass *pass) {
    void *scratch = DEV(pass)->scratch;
    int64_t size = DEV(pass)->scratch_size;
    DEV(pass)->scratch = pass->attention_scratch, DEV(pass)->scratch_size = pass->attention_scratch_size;
    pass->attention_scratch = scratch, pass->attention_scratch_size = size;
}

static tn_status attention(tn_pass *pass, int64_t l) {
    tn_attention a = attention_of(pass, l);
    tn_view q, k, v;
    tn_status status = TN_OK;
    qkv_views(pass, l, &q, &k, &v);
    if (pass->limits.cache_length) TN_TRY(through_cache(pass, l, &k, &v));
    swap_scratch(pass);
    status =
        OP(pass)->attention_forward(DEV(pass), &a, q, k, v, tn_pass_saved(pass, TN_SAVED_ATTN, l),
                                    pass->limits.training ? tn_pass_saved_f32(pass, TN_SAVED_LSE, l) : NULL);
    swap_scratch(pass);
done:
    return status;
}

static tn_status mix(tn_pass *pass, int64_t l, const tn_dropout *dropout) {
    const tn_model *m = pass->model;
    return OP(pass)->linear_forward(DEV(pass), &m->layers[l].o, pass->tokens,
                                    tn_pass_saved(pass, TN_SAVED_ATTN, l),
                                    tn_pass_saved(pass, TN_SAVED_H_MID, l), tn_pass_saved(pass, TN_SAVED_H, l),
                                    m->arch->residual_scale, dropout);
}

static tn_status norm_before_mlp(tn_pass *pass, int64_t l, tile t) {
    return normalise(pass, tn_pass_saved(pass, TN_SAVED_H_MID, l), t, pass->model->layers[l].norm2);
}

/* Kept for all rows, or of the tile in hand. */
static tn_view gate_up_of(const tn_pass *pass, int64_t l, tile t) {
    tn_view all = tn_pass_saved(pass, TN_SAVED_GATE_UP, l);
    return tn_pass_keeps(pass, TN_SAVED_GATE_UP) ? rows_of(pass, all, t) : all;
}

static tn_status gate_up(tn_pass *pass, int64_t l, tile t, const tn_dropout *dropout) {
    return OP(pass)->linear_forward(DEV(pass), &pass->model->layers[l].gate_up, t.count, pass->x,
                                    gate_up_of(pass, l, t), no_view, 1.0f, dropout);
}

static tn_status activate(tn_pass *pass, int64_t l, tile t) {
    const tn_arch *a = pass->model->arch;
    return OP(pass)->gated_forward(DEV(pass), t.count, a->intermediate, a->activation, gate_up_of(pass, l, t),
                                   pass->act);
}

static tn_status contract(tn_pass *pass, int64_t l, tile t, const tn_dropout *dropout) {
    const tn_model *m = pass->model;
    return OP(pass)->linear_forward(DEV(pass), &m->layers[l].down, t.count, pass->act,
                                    rows_of(pass, tn_pass_saved(pass, TN_SAVED_H, l + 1), t),
                                    rows_of(pass, tn_pass_saved(pass, TN_SAVED_H_MID, l), t),
                                    m->arch->residual_scale, dropout);
}

tn_status tn_block_forward(tn_pass *pass, int64_t l, const tn_dropout *dropout) {
    tn_status status;
    TN_TRY(attend(pass, l, dropout));
    TN_TRY(attention(pass, l));
    TN_TRY(mix(pass, l, dropout));
    EACH_TILE(pass, t) {
        const tn_dropout here = dropout_of(dropout, t);
        TN_TRY(norm_before_mlp(pass, l, t));
        TN_TRY(gate_up(pass, l, t, &here));
        TN_TRY(activate(pass, l, t));
        TN_TRY(contract(pass, l, t, &here));
    }
done:
    return status;
}

/* Brings back what the policy did not keep before the MLP. */
static tn_status replay_attention(tn_pass *pass, int64_t l, const tn_dropout *dropout) {
    tn_status status = TN_OK;
    if (!tn_pass_keeps(pass, TN_SAVED_QKV)) TN_TRY(attend(pass, l, dropout));
    if (!tn_pass_keeps(pass, TN_SAVED_ATTN)) TN_TRY(attention(pass, l));
    if (!tn_pass_keeps(pass, TN_SAVED_H_MID)) TN_TRY(mix(pass, l, dropout));
done:
    return status;
}

/* The same of a tile of the MLP, up to gate|up, and the inputs of its two products. */
static tn_status replay_mlp(tn_pass *pass, int64_t l, tile t, const tn_dropout *dropout) {
    const tn_layer *layer = &pass->model->layers[l];
    tn_status status;
    TN_TRY(norm_before_mlp(pass, l, t));
    if (!tn_pass_keeps(pass, TN_SAVED_GATE_UP)) TN_TRY(gate_up(pass, l, t, dropout));
    else TN_TRY(OP(pass)->linear_inner(DEV(pass), &layer->gate_up, t.count, pass->x, dropout));
    TN_TRY(activate(pass, l, t));
    status = OP(pass)->linear_inner(DEV(pass), &layer->down, t.count, pass->act, dropout);
done:
    return status;
}

/* dh += ∂norm of a tile, from the gradient of its normalised rows in pass->dx. */
static tn_status norm_backward(tn_pass *pass, tn_view h, tile t, const void *weight, float *dweight) {
    const tn_arch *a = pass->model->arch;
    return OP(pass)->rmsnorm_backward(DEV(pass), t.count, 1, a->hidden, rows_of(pass, h, t), weight, false,
                                      pass->rstd, pass->dx, rows_of(pass, pass->dh, t), true, dweight);
}

static tn_status mlp_backward(tn_pass *pass, int64_t l, tile t, const tn_dropout *dropout) {
    const tn_arch *a = pass->model->arch;
    const tn_layer *layer = &pass->model->layers[l];
    tn_view gate_up_view = gate_up_of(pass, l, t); /* turned into its gradient */
    tn_status status;
    TN_TRY(OP(pass)->linear_backward(DEV(pass), &layer->down, t.count, pass->act, rows_of(pass, pass->dh, t),
                                     pass->dact, false, a->residual_scale, dropout));
    TN_TRY(OP(pass)->gated_backward(DEV(pass), t.count, a->intermediate, a->activation, gate_up_view,
                                    pass->dact, gate_up_view));
    TN_TRY(OP(pass)->linear_backward(DEV(pass), &layer->gate_up, t.count, pass->x, gate_up_view, pass->dx,
                                     false, 1.0f, dropout));
    status = norm_backward(pass, tn_pass_saved(pass, TN_SAVED_H_MID, l), t, layer->norm2, layer->dnorm2);
done:
    return status;
}

static tn_status qk_norm_backward(tn_pass *pass, int64_t l) {
    const tn_arch *a = pass->model->arch;
    const tn_layer *layer = &pass->model->layers[l];
    const float *rstd = tn_pass_saved_f32(pass, TN_SAVED_QK_RSTD, l);
    tn_view raw = tn_pass_saved(pass, TN_SAVED_QKV_RAW, l), dk = right(pass, pass->dqkv, tn_arch_q(a));
    tn_status status =
        OP(pass)->rmsnorm_backward(DEV(pass), pass->tokens, a->heads, a->head_dim, raw, layer->q_norm, false,
                                   rstd, pass->dqkv, pass->dqkv, false, layer->dq_norm);
    if (status != TN_OK) return status;
    return OP(pass)->rmsnorm_backward(DEV(pass), pass->tokens, a->kv_heads, a->head_dim,
                                      right(pass, raw, tn_arch_q(a)), layer->k_norm, false,
                                      rstd + pass->limits.rows * a->heads, dk, dk, false, layer->dk_norm);
}

static tn_status attention_backward(tn_pass *pass, int64_t l, const tn_dropout *dropout) {
    const tn_arch *a = pass->model->arch;
    const tn_layer *layer = &pass->model->layers[l];
    tn_attention shape = attention_of(pass, l);
    tn_view attn = tn_pass_saved(pass, TN_SAVED_ATTN, l), h = tn_pass_saved(pass, TN_SAVED_H, l), q, k, v;
    tn_view dq = pass->dqkv, dk = right(pass, dq, tn_arch_q(a)), dv = right(pass, dk, tn_arch_kv(a));
    bool last = l <= pass->model->lowest_trained && !layer->dnorm1; /* nothing below needs a gradient */
    tn_status status;
    qkv_views(pass, l, &q, &k, &v);
    TN_TRY(OP(pass)->linear_backward(DEV(pass), &layer->o, pass->tokens, attn, pass->dh, pass->dattn, false,
                                     a->residual_scale, dropout));
    swap_scratch(pass);
    status = OP(pass)->attention_backward(DEV(pass), &shape, q, k, v, attn,
                                          tn_pass_saved_f32(pass, TN_SAVED_LSE, l), pass->dattn, dq, dk, dv);
    swap_scratch(pass);
    if (status != TN_OK) goto done;
    TN_TRY(turn(pass, l, dq, true));
    if (a->qk_norm) TN_TRY(qk_norm_backward(pass, l));
    EACH_TILE(pass, t) {
        const tn_dropout here = dropout_of(dropout, t);
        TN_TRY(normalise(pass, h, t, layer->norm1));
        TN_TRY(OP(pass)->linear_inner(DEV(pass), &layer->qkv, t.count, pass->x, &here));
        TN_TRY(OP(pass)->linear_backward(DEV(pass), &layer->qkv, t.count, pass->x, rows_of(pass, pass->dqkv, t),
                                         last ? no_view : pass->dx, false, 1.0f, &here));
        if (!last) TN_TRY(norm_backward(pass, h, t, layer->norm1, layer->dnorm1));
    }
done:
    return status;
}

tn_status tn_block_backward(tn_pass *pass, int64_t l, const tn_dropout *dropout) {
    tn_status status;
    TN_TRY(replay_attention(pass, l, dropout));
    EACH_TILE(pass, t) {
        const tn_dropout here = dropout_of(dropout, t);
        TN_TRY(replay_mlp(pass, l, t, &here));
        TN_TRY(mlp_backward(pass, l, t, &here));
    }
    status = attention_backward(pass, l, dropout);
done:
    return status;
}
