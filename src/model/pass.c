/* pass.c: takes the buffers of a pass, brings a batch to the device, runs the blocks over it. */
#include "model/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/integer.h"
#include "model/pass_internal.h"

tn_status tn_pass_new(tn_model *model, const tn_pass_limits *limits, tn_pass **out) {
    tn_pass *pass = calloc(1, sizeof *pass);
    tn_status status = TN_OK;
    *out = NULL;
    if (!pass) return tn_fail_memory((int64_t)sizeof *pass, "a pass");
    pass->model = model;
    pass->limits = *limits;
    for (int kind = 0; kind < TN_SAVED_COUNT; kind++) {
        TN_TRY(tn_alloc(&pass->slot[kind], model->arch->layers + 1, (int64_t)sizeof(void *), "saved tensors"));
        TN_TRY(tn_alloc(&pass->away[kind], model->arch->layers, (int64_t)sizeof(void *), "saved tensors"));
    }
    TN_TRY(tn_alloc(&pass->cache_k, model->arch->layers, (int64_t)sizeof *pass->cache_k, "cache"));
    TN_TRY(tn_alloc(&pass->cache_v, model->arch->layers, (int64_t)sizeof *pass->cache_v, "cache"));
    *out = pass;
    pass = NULL;
done:
    tn_pass_free(pass);
    return status;
}

tn_status tn_pass_stage(tn_pass *pass) {
    const int64_t rows = pass->limits.rows, documents = pass->limits.documents;
    tn_status status;
    TN_TRY(tn_alloc(&pass->host, 2 * rows, (int64_t)sizeof *pass->host, "batch staging"));
    TN_TRY(tn_alloc(&pass->host_cu_q, documents + 1, (int64_t)sizeof *pass->host, "batch staging"));
    TN_TRY(tn_alloc(&pass->host_cu_kv, documents + 1, (int64_t)sizeof *pass->host, "batch staging"));
    status = tn_embed_stage(pass);
done:
    return status;
}

void tn_pass_free(tn_pass *pass) {
    if (!pass) return;
    for (int kind = 0; kind < TN_SAVED_COUNT; kind++) free(pass->slot[kind]), free(pass->away[kind]);
    free(pass->host);
    free(pass->host_cu_q);
    free(pass->host_cu_kv);
    free(pass->slots);
    free(pass->cache_k);
    free(pass->cache_v);
    free(pass);
}

/* ---- Buffers ------------------------------------------------------------------------------------- */

static tn_view take(tn_pass *pass, tn_region *region, tn_segment segment, int64_t rows, int64_t columns) {
    int64_t stride = tn_stride(columns);
    return (tn_view){
        tn_region_take(region, segment, tn_region_bytes(rows, stride, tn_dtype_block_bytes(DEV(pass)->dtype))),
        stride};
}

static void place_inputs(tn_pass *pass, tn_region *region) {
    const int64_t rows = pass->limits.rows, documents = pass->limits.documents,
                  half = pass->model->arch->rope.half;
    const int64_t tables = tn_rope_by_length(&pass->model->arch->rope) ? documents : 1;
    tn_inputs *in = &pass->in;
    int32_t **per_row[] = {&in->ids,   &in->positions, &in->rows,   &in->targets,
                           &in->order, &in->starts,    &in->inv_row};
    for (size_t i = 0; i < sizeof per_row / sizeof *per_row; i++)
        *per_row[i] = tn_region_take(region, TN_SEGMENT_BATCH, (rows + 1) * (int64_t)sizeof(int32_t));
    in->cu_q = tn_region_take(region, TN_SEGMENT_BATCH, (documents + 1) * (int64_t)sizeof(int32_t));
    in->cu_kv = tn_region_take(region, TN_SEGMENT_BATCH, (documents + 1) * (int64_t)sizeof(int32_t));
    in->inv_freq = tn_region_take(region, TN_SEGMENT_BATCH, tables * half * (int64_t)sizeof(float));
    in->cos = tn_region_take(region, TN_SEGMENT_BATCH, rows * half * (int64_t)sizeof(float));
    in->sin = tn_region_take(region, TN_SEGMENT_BATCH, rows * half * (int64_t)sizeof(float));
    in->losses = tn_region_take(region, TN_SEGMENT_BATCH, rows * (int64_t)sizeof(float));
    if (pass->model->embed_rows.ids) {
        in->slots = tn_region_take(region, TN_SEGMENT_BATCH, rows * (int64_t)sizeof(int32_t));
        in->slot_ids = tn_region_take(region, TN_SEGMENT_BATCH, rows * (int64_t)sizeof(int32_t));
    }
    in->loss_total = tn_region_take(region, TN_SEGMENT_BATCH, (int64_t)sizeof(double));
}

/* Bytes of scratch for attention, or for everything else; the tower's own attention is of the latter. */
static int64_t scratch_bytes(const tn_pass *pass, tn_scratch_use use) {
    const tn_pass_limits *l = &pass->limits;
    tn_limits limits =
        tn_model_limits(pass->model, l->rows, l->documents, l->longest, l->head_rows, l->training, l->dropout);
    limits.scratch_for = use;
    int64_t bytes = OP(pass)->scratch_bytes(DEV(pass), &limits);
    if (!l->patches || use == TN_SCRATCH_ATTENTION) return bytes;
    limits = tn_vision_limits(&pass->model->vision, l->patches);
    return tn_max(bytes, OP(pass)->scratch_bytes(DEV(pass), &limits));
}

/* Gradients inside a layer of which each is used up before the next begins: of the activation, of a normalised
 * input, of attention's output. */
static void place_gradients(tn_pass *pass, tn_region *region, int64_t tile) {
    const tn_arch *a = pass->model->arch;
    const int64_t start = region->next;
    pass->dact = take(pass, region, TN_SEGMENT_WORKSPACE, tile, a->intermediate);
    tn_region_back_to(region, start);
    pass->dx = take(pass, region, TN_SEGMENT_WORKSPACE, tile, a->hidden);
    tn_region_back_to(region, start);
    pass->dattn = take(pass, region, TN_SEGMENT_WORKSPACE, pass->limits.rows, tn_arch_q(a));
    tn_region_go_on(region);
}

/* What one half of a layer needs while the other half does not: the MLP with the residual stream before it, and
 * attention's scratch with the gradient of q, k and v. */
static void place_halves(tn_pass *pass, tn_region *region, tn_region *pinned, int64_t tile) {
    const tn_arch *a = pass->model->arch;
    const int64_t start = region->next;
    for (int kind = TN_SAVED_H_MID; kind < TN_SAVED_COUNT; kind++)
        if (!tn_pass_keeps(pass, (tn_saved)kind)) tn_saved_place(pass, region, pinned, (tn_saved)kind);
    pass->act = take(pass, region, TN_SEGMENT_WORKSPACE, tile, a->intermediate + pass->model->border_down);
    tn_region_back_to(region, start);
    if (pass->limits.training)
        pass->dqkv = take(pass, region, TN_SEGMENT_WORKSPACE, pass->limits.rows,
                          tn_arch_qkv(a) + pass->model->border_qkv);
    pass->attention_scratch_size = scratch_bytes(pass, TN_SCRATCH_ATTENTION);
    pass->attention_scratch = tn_region_take(region, TN_SEGMENT_SCRATCH, pass->attention_scratch_size);
    tn_region_go_on(region);
}

/* What lives through all layers, then one layer's buffers, and over those the head's: forward is over and
 * backward has not begun when the head runs. So do those of the vision tower, which is over before the layers
 * begin. */
void tn_pass_place(tn_pass *pass, tn_region *region, tn_region *pinned) {
    const tn_pass_limits *l = &pass->limits;
    const tn_model *m = pass->model;
    const tn_arch *a = m->arch;
    const int64_t tile = tn_tile_rows(l->rows);
    place_inputs(pass, region);
    tn_head_place_inputs(pass, region);
    for (int64_t i = 0; l->cache_length && i < a->layers; i++) {
        pass->cache_k[i] = take(pass, region, TN_SEGMENT_CACHE, l->cache_length, tn_arch_kv(a));
        pass->cache_v[i] = take(pass, region, TN_SEGMENT_CACHE, l->cache_length, tn_arch_kv(a));
    }
    if (l->cache_length && l->patches)
        pass->seen = take(pass, region, TN_SEGMENT_WORKSPACE,
                          l->patches / (a->vision->merge * a->vision->merge), a->hidden);
    DEV(pass)->scratch_size = scratch_bytes(pass, TN_SCRATCH_REST);
    DEV(pass)->scratch = tn_region_take(region, TN_SEGMENT_SCRATCH, DEV(pass)->scratch_size);
    if (l->training)
        pass->dh =
            take(pass, region, TN_SEGMENT_WORKSPACE, l->rows, a->hidden + tn_max(m->border_o, m->border_down));
    for (int kind = TN_SAVED_H; kind < TN_SAVED_COUNT; kind++)
        if (kind == TN_SAVED_H || tn_pass_keeps(pass, (tn_saved)kind))
            tn_saved_place(pass, region, pinned, (tn_saved)kind);
    int64_t start = region->next;
    for (int kind = TN_SAVED_H + 1; kind < TN_SAVED_H_MID; kind++)
        if (!tn_pass_keeps(pass, (tn_saved)kind)) tn_saved_place(pass, region, pinned, (tn_saved)kind);
    pass->x =
        take(pass, region, TN_SEGMENT_WORKSPACE, tile, a->hidden + tn_max(m->border_qkv, m->border_gate_up));
    pass->rstd = tn_region_take(region, TN_SEGMENT_WORKSPACE, tile * (int64_t)sizeof(float));
    if (l->training) place_gradients(pass, region, tile);
    place_halves(pass, region, pinned, tile);
    tn_region_back_to(region, start);
    tn_head_place(pass, region);
    if (l->patches) {
        tn_region_back_to(region, start);
        pass->vision = (tn_vision_pass){.device = DEV(pass), .vision = &m->vision, .patches = l->patches};
        tn_vision_place(&pass->vision, region);
    }
    tn_region_go_on(region);
}

/* ---- Inputs -------------------------------------------------------------------------------------- */

tn_status tn_upload_i32(tn_pass *pass, int32_t *to, const int32_t *from, int64_t count) {
    return count ? OP(pass)->upload(DEV(pass), to, from, count * (int64_t)sizeof *from) : TN_OK;
}

/* Positions by frame, row and column, of the batch's rows from `first` on, turn a share of the pairs each: such
 * tables are made on the host. */
static tn_status set_mrope(tn_pass *pass, const tn_batch *b, int64_t first) {
    const tn_arch *a = pass->model->arch;
    const int64_t half = a->rope.half, values = pass->tokens * half;
    const float scaling = tn_rope_scaling(&a->rope);
    float *inv_freq = NULL, *cosines = NULL, *sines = NULL;
    tn_status status;
    if (tn_rope_by_length(&a->rope))
        return tn_fail(TN_USAGE, "rope_scaling that depends on a document's length does not go with pictures");
    TN_TRY(tn_alloc(&inv_freq, half, (int64_t)sizeof *inv_freq, "rope frequencies"));
    TN_TRY(tn_alloc(&cosines, values, (int64_t)sizeof *cosines, "rope tables"));
    TN_TRY(tn_alloc(&sines, values, (int64_t)sizeof *sines, "rope tables"));
    tn_rope_inv_freq(&a->rope, b->longest, inv_freq);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < pass->tokens; row++)
        for (int64_t i = 0; i < half; i++) {
            const int axis = i < a->mrope_section[0]                         ? 0
                             : i < a->mrope_section[0] + a->mrope_section[1] ? 1
                                                                             : 2;
            const float angle = (float)b->axes[axis][first + row] * inv_freq[i];
            cosines[row * half + i] = (float)cos((double)angle) * scaling;
            sines[row * half + i] = (float)sin((double)angle) * scaling;
        }
    TN_TRY(OP(pass)->upload(DEV(pass), pass->in.cos, cosines, values * (int64_t)sizeof *cosines));
    status = OP(pass)->upload(DEV(pass), pass->in.sin, sines, values * (int64_t)sizeof *sines);
done:
    free(inv_freq);
    free(cosines);
    free(sines);
    return status;
}

/* cos and sin of every row; one table of frequencies a document where the kind asks for it. */
static tn_status set_rope(tn_pass *pass, int64_t documents) {
    const tn_rope *rope = &pass->model->arch->rope;
    const bool by_length = tn_rope_by_length(rope);
    const int64_t tables = by_length ? documents : 1;
    float *inv_freq = NULL;
    tn_status status;
    TN_TRY(tn_alloc(&inv_freq, tables * rope->half, (int64_t)sizeof *inv_freq, "rope frequencies"));
    for (int64_t d = 0; d < tables; d++) {
        tn_rope_inv_freq(rope, pass->host_cu_kv[d + 1] - pass->host_cu_kv[d], inv_freq + d * rope->half);
        if (by_length)
            for (int32_t row = pass->host_cu_q[d]; row < pass->host_cu_q[d + 1]; row++)
                pass->host[row] = (int32_t)d;
    }
    TN_TRY(OP(pass)->upload(DEV(pass), pass->in.inv_freq, inv_freq,
                            tables * rope->half * (int64_t)sizeof *inv_freq));
    if (by_length) TN_TRY(tn_upload_i32(pass, pass->in.inv_row, pass->host, pass->tokens));
    status = OP(pass)->rope_table(DEV(pass), pass->tokens, rope->half, pass->in.positions,
                                  by_length ? pass->in.inv_row : NULL, pass->in.inv_freq, tn_rope_scaling(rope),
                                  pass->in.cos, pass->in.sin);
done:
    free(inv_freq);
    return status;
}

/* Labelled rows and their targets, compact: rows without a label never reach the head. */
static tn_status set_targets(tn_pass *pass, const int32_t *targets) {
    int32_t *rows = pass->host, *wanted = pass->host + pass->limits.rows;
    int64_t n = 0;
    for (int64_t i = 0; i < pass->tokens; i++) {
        if (targets[i] < 0) continue;
        if (targets[i] >= pass->model->arch->vocab)
            return tn_fail(TN_BAD_DATA, "label %d is outside the model's vocabulary of %lld", targets[i],
                           (long long)pass->model->arch->vocab);
        rows[n] = (int32_t)i, wanted[n++] = targets[i];
    }
    pass->labelled = n;
    tn_status status = tn_upload_i32(pass, pass->in.rows, rows, n);
    return status == TN_OK ? tn_upload_i32(pass, pass->in.targets, wanted, n) : status;
}

static tn_status check_ids(const tn_pass *pass, const int32_t *ids, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= pass->model->arch->vocab) {
            tn_fail(TN_BAD_DATA, "token id %d is outside the model's vocabulary of %lld", ids[i],
                    (long long)pass->model->arch->vocab);
            return tn_remedy("data and model need the same tokenizer");
        }
    return TN_OK;
}

static void set_attention(tn_pass *pass, int64_t documents, int64_t longest_q, int64_t longest_kv) {
    const tn_arch *a = pass->model->arch;
    pass->attention = (tn_attention){.documents = documents,
                                     .q_rows = pass->tokens,
                                     .kv_rows = pass->past + pass->tokens,
                                     .longest_q = longest_q,
                                     .longest_kv = longest_kv,
                                     .cu_q = pass->in.cu_q,
                                     .cu_kv = pass->in.cu_kv,
                                     .host_cu_q = pass->host_cu_q,
                                     .host_cu_kv = pass->host_cu_kv,
                                     .heads = a->heads,
                                     .kv_heads = a->kv_heads,
                                     .head_dim = a->head_dim,
                                     .scale = a->attention_scale};
}

static tn_status set_batch(tn_pass *pass, const tn_batch *b, bool training) {
    tn_status status;
    if (b->tokens > pass->limits.rows || b->documents > pass->limits.documents)
        return tn_fail(TN_FAILED, "a batch of %lld tokens in %lld documents exceeds the plan (%lld, %lld)",
                       (long long)b->tokens, (long long)b->documents, (long long)pass->limits.rows,
                       (long long)pass->limits.documents);
    TN_TRY(check_ids(pass, b->ids, b->tokens));
    pass->tokens = b->tokens;
    pass->past = 0;
    memcpy(pass->host_cu_q, b->cu_seqlens, (size_t)(b->documents + 1) * sizeof *b->cu_seqlens);
    memcpy(pass->host_cu_kv, b->cu_seqlens, (size_t)(b->documents + 1) * sizeof *b->cu_seqlens);
    set_attention(pass, b->documents, b->longest, b->longest);
    TN_TRY(tn_upload_i32(pass, pass->in.ids, b->ids, b->tokens));
    TN_TRY(tn_upload_i32(pass, pass->in.positions, b->positions, b->tokens));
    TN_TRY(tn_upload_i32(pass, pass->in.cu_q, b->cu_seqlens, b->documents + 1));
    TN_TRY(tn_upload_i32(pass, pass->in.cu_kv, b->cu_seqlens, b->documents + 1));
    TN_TRY(b->picture_count ? set_mrope(pass, b, 0) : set_rope(pass, b->documents));
    TN_TRY(set_targets(pass, b->targets));
    TN_TRY(tn_embed_set(pass, b->ids, b, training));
    status = tn_head_set(pass);
done:
    return status;
}

/* ---- Running ------------------------------------------------------------------------------------- */

/* The features of the batch's pictures take the places of their tokens' embeddings. */
static tn_status see(tn_pass *pass, const tn_batch *b) {
    const tn_model *m = pass->model;
    tn_status status = TN_OK;
    if (b->picture_count > 0 && !m->sees)
        return tn_fail(TN_FAILED, "a batch with pictures, and the vision tower is not loaded");
    for (int64_t i = 0; i < b->picture_count && status == TN_OK; i++) {
        const tn_batch_picture *p = &b->pictures[i];
        status = tn_vision_forward(&pass->vision, b->pixels + p->patch * tn_vision_values(m->arch->vision),
                                   p->rows, p->columns, p->first, tn_pass_saved(pass, TN_SAVED_H, 0));
    }
    return status;
}

/* The same for the tokens of one piece, which may begin or end inside a picture. */
static tn_status see_piece(tn_pass *pass, const tn_piece *piece) {
    const tn_model *m = pass->model;
    const tn_batch *b = piece->prompt;
    const tn_view h = tn_pass_saved(pass, TN_SAVED_H, 0);
    const int64_t end = piece->past + piece->count;
    tn_status status = TN_OK;
    for (int64_t i = 0; b && i < b->picture_count; i++) {
        const tn_batch_picture *p = &b->pictures[i];
        const int64_t last = p->first + p->rows * p->columns, from = tn_max(p->first, piece->past);
        if (last <= piece->past || p->first >= end) continue;
        if (from == p->first)
            TN_TRY(tn_vision_forward(&pass->vision, b->pixels + p->patch * tn_vision_values(m->arch->vision),
                                     p->rows, p->columns, 0, pass->seen));
        TN_TRY(OP(pass)->copy_rows(DEV(pass), tn_min(last, end) - from, m->arch->hidden,
                                   tn_view_at(DEV(pass), pass->seen, from - p->first, 0),
                                   tn_view_at(DEV(pass), h, from - piece->past, 0)));
    }
done:
    return status;
}

/* The layers over H[0]. `keep`: a backward pass will follow. */
static tn_status run_layers(tn_pass *pass, bool keep, const tn_dropout *dropout) {
    tn_status status = TN_OK;
    for (int64_t l = 0; l < pass->model->arch->layers; l++) {
        if (keep) TN_TRY(tn_saved_send(pass, l));
        TN_TRY(tn_block_forward(pass, l, dropout));
    }
done:
    return status;
}

static tn_status forward(tn_pass *pass, const tn_batch *batch, bool keep, const tn_dropout *dropout) {
    tn_status status;
    TN_TRY(tn_embed_forward(pass));
    TN_TRY(see(pass, batch));
    status = run_layers(pass, keep, dropout);
done:
    return status;
}

tn_status tn_pass_train(tn_pass *pass, const tn_batch *batch, float loss_scale, const tn_dropout *dropout) {
    const tn_model *m = pass->model;
    tn_status status;
    TN_TRY(set_batch(pass, batch, true));
    TN_TRY(forward(pass, batch, true, dropout));
    TN_TRY(tn_head_loss(pass, true, loss_scale, dropout));
    for (int64_t l = m->arch->layers - 1; l >= 0 && l >= m->lowest_trained; l--) {
        TN_TRY(tn_saved_bring(pass, l));
        TN_TRY(tn_block_backward(pass, l, dropout));
    }
    status = tn_embed_backward(pass);
done:
    return status;
}

tn_status tn_pass_eval(tn_pass *pass, const tn_batch *batch, float *losses) {
    tn_status status;
    float *compact = NULL;
    TN_TRY(set_batch(pass, batch, false));
    TN_TRY(forward(pass, batch, false, NULL));
    TN_TRY(tn_head_loss(pass, false, 0.0f, NULL));
    if (!losses) goto done;
    TN_TRY(tn_alloc(&compact, pass->labelled, (int64_t)sizeof *compact, "losses"));
    TN_TRY(OP(pass)->download(DEV(pass), compact, pass->in.losses, pass->labelled * (int64_t)sizeof *compact));
    for (int64_t i = 0, n = 0; i < batch->tokens; i++) losses[i] = batch->targets[i] >= 0 ? compact[n++] : 0.0f;
done:
    free(compact);
    return status;
}

tn_status tn_pass_reset_loss(tn_pass *pass) {
    return OP(pass)->zero(DEV(pass), pass->in.loss_total, (int64_t)sizeof(double));
}

tn_status tn_pass_read_loss(tn_pass *pass, double *loss) {
    return OP(pass)->download(DEV(pass), loss, pass->in.loss_total, (int64_t)sizeof(double));
}

static tn_status set_piece(tn_pass *pass, const tn_piece *piece) {
    const int64_t count = piece->count, past = piece->past;
    const int32_t last = (int32_t)count - 1;
    tn_status status;
    pass->tokens = count;
    pass->past = past;
    pass->host_cu_q[0] = pass->host_cu_kv[0] = 0;
    pass->host_cu_q[1] = (int32_t)count;
    pass->host_cu_kv[1] = (int32_t)(past + count);
    set_attention(pass, 1, count, past + count);
    for (int64_t i = 0; i < count; i++) pass->host[i] = (int32_t)(past + piece->shift + i);
    TN_TRY(tn_upload_i32(pass, pass->in.positions, pass->host, count));
    TN_TRY(tn_upload_i32(pass, pass->in.ids, piece->ids, count));
    TN_TRY(tn_upload_i32(pass, pass->in.cu_q, pass->host_cu_q, 2));
    TN_TRY(tn_upload_i32(pass, pass->in.cu_kv, pass->host_cu_kv, 2));
    TN_TRY(tn_upload_i32(pass, pass->in.rows, &last, 1));
    const bool sees = piece->prompt && piece->prompt->picture_count > 0;
    TN_TRY(sees ? set_mrope(pass, piece->prompt, past) : set_rope(pass, 1));
    TN_TRY(tn_embed_set(pass, piece->ids, NULL, false)); /* what pictures cover may be looked up */
    status = tn_head_set(pass);
done:
    return status;
}

tn_status tn_pass_logits(tn_pass *pass, const tn_piece *piece, float *logits) {
    tn_status status;
    if (piece->count > pass->limits.rows || piece->past + piece->count > pass->limits.cache_length)
        return tn_fail(TN_NO_FIT, "%lld tokens exceed the context of %lld",
                       (long long)(piece->past + piece->count), (long long)pass->limits.cache_length);
    TN_TRY(check_ids(pass, piece->ids, piece->count));
    TN_TRY(set_piece(pass, piece));
    TN_TRY(tn_embed_forward(pass));
    TN_TRY(see_piece(pass, piece));
    TN_TRY(run_layers(pass, false, NULL));
    status = tn_head_logits(pass, pass->in.rows, 1, logits);
done:
    return status;
}

tn_status tn_pass_all_logits(tn_pass *pass, const tn_batch *batch, float *logits) {
    tn_status status;
    TN_TRY(set_batch(pass, batch, false));
    for (int64_t i = 0; i < batch->tokens; i++) pass->host[i] = (int32_t)i;
    TN_TRY(tn_upload_i32(pass, pass->in.rows, pass->host, batch->tokens));
    TN_TRY(forward(pass, batch, false, NULL));
    status = tn_head_logits(pass, pass->in.rows, batch->tokens, logits);
done:
    return status;
}
