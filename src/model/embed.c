/* embed.c: the embedding, forward and backward. It may be frozen, train in full, or train in some rows alone:
 * those stand in a small table of their own (tn_rows), are looked up behind the frozen ones and take their
 * place, so that the frozen table may be of any format. Gradients are added in the order of the ids.
 */
#include <stdlib.h>
#include <string.h>

#include "model/pass_internal.h"

static int by_id(const void *x, const void *y) {
    const tn_slot *a = x, *b = y;
    return a->id < b->id ? -1 : a->id > b->id;
}

tn_status tn_embed_stage(tn_pass *pass) {
    const tn_rows *rows = &pass->model->embed_rows;
    if (!rows->ids) return TN_OK;
    tn_status status = tn_alloc(&pass->slots, rows->table.rows, (int64_t)sizeof *pass->slots, "trained tokens");
    for (int64_t i = 0; status == TN_OK && i < rows->table.rows; i++)
        pass->slots[i] = (tn_slot){(int32_t)rows->ids[i], (int32_t)i};
    if (status == TN_OK) qsort(pass->slots, (size_t)rows->table.rows, sizeof *pass->slots, by_id);
    return status;
}

/* Row of the table that trains for this token, -1 where it is frozen. */
static int32_t trained_row(const tn_pass *pass, int32_t id) {
    const tn_slot key = {.id = id};
    if (!pass->slots) return id;
    const tn_slot *found =
        bsearch(&key, pass->slots, (size_t)pass->model->embed_rows.table.rows, sizeof key, by_id);
    return found ? found->slot : -1;
}

typedef struct occurrence {
    int32_t trained, row;
} occurrence;

static int by_trained(const void *x, const void *y) {
    const occurrence *a = x, *b = y;
    return a->trained != b->trained ? (a->trained < b->trained ? -1 : 1)
           : a->row < b->row        ? -1
                                    : a->row > b->row;
}

/* `slots` of each row of the batch and `slot_ids` of the ordered ones. */
static tn_status upload_slots(tn_pass *pass, const occurrence *list) {
    int32_t *ordered = pass->host, *each = pass->host + pass->limits.rows;
    for (int64_t i = 0; i < pass->tokens; i++) each[i] = 0; /* nobody looks at a frozen one's */
    for (int64_t i = 0; i < pass->ordered; i++) ordered[i] = each[list[i].row] = list[i].trained;
    tn_status status = tn_upload_i32(pass, pass->in.slot_ids, ordered, pass->ordered);
    return status == TN_OK ? tn_upload_i32(pass, pass->in.slots, each, pass->tokens) : status;
}

tn_status tn_embed_set(tn_pass *pass, const int32_t *ids, const tn_batch *batch, bool training) {
    int32_t *order = pass->host, *starts = NULL;
    occurrence *list = NULL;
    int64_t n = 0, segments = 0, picture = 0;
    tn_status status;
    pass->ordered = pass->segments = 0;
    if (!pass->slots && !(training && pass->model->embed_grad)) return TN_OK;
    TN_TRY(tn_alloc(&list, pass->tokens, (int64_t)sizeof *list, "embedding order"));
    TN_TRY(tn_alloc(&starts, pass->tokens + 1, (int64_t)sizeof *starts, "embedding order"));
    for (int64_t i = 0; i < pass->tokens; i++) {
        if (batch && picture < batch->picture_count && i == batch->pictures[picture].first) {
            i += batch->pictures[picture].rows * batch->pictures[picture].columns - 1;
            picture++;
            continue;
        }
        list[n] = (occurrence){trained_row(pass, ids[i]), (int32_t)i};
        if (list[n].trained >= 0) n++;
    }
    qsort(list, (size_t)n, sizeof *list, by_trained);
    for (int64_t i = 0; i < n; i++) {
        order[i] = list[i].row;
        if (i == 0 || list[i].trained != list[i - 1].trained) starts[segments++] = (int32_t)i;
    }
    starts[segments] = (int32_t)n;
    pass->ordered = n, pass->segments = segments;
    TN_TRY(tn_upload_i32(pass, pass->in.order, order, n));
    TN_TRY(tn_upload_i32(pass, pass->in.starts, starts, segments + 1));
    if (pass->slots) status = upload_slots(pass, list);
done:
    free(list);
    free(starts);
    return status;
}

tn_status tn_embed_forward(tn_pass *pass) {
    const tn_model *m = pass->model;
    const float scale = m->arch->embed_scale;
    const tn_view h = tn_pass_saved(pass, TN_SAVED_H, 0);
    tn_status status;
    TN_TRY(OP(pass)->embed_forward(DEV(pass), pass->tokens, pass->in.ids, &m->embed, scale, h));
    for (int64_t at = 0; pass->slots && at < pass->ordered; at += TN_TILE_ROWS) { /* x holds a tile */
        const int64_t count = tn_tile_rows(pass->ordered - at);
        TN_TRY(OP(pass)->embed_forward(DEV(pass), count, pass->in.slot_ids + at, &m->embed_rows.table, scale,
                                       pass->x));
        TN_TRY(OP(pass)->scatter_rows(DEV(pass), count, m->arch->hidden, pass->in.order + at, pass->x, h));
    }
done:
    return status;
}

tn_status tn_embed_backward(tn_pass *pass) {
    const tn_model *m = pass->model;
    float *gradient = pass->slots ? m->embed_rows.gradient : m->embed_grad;
    if (!gradient || pass->ordered == 0) return TN_OK;
    return OP(pass)->embed_backward(DEV(pass), pass->tokens, m->arch->hidden, pass->segments,
                                    pass->slots ? pass->in.slots : pass->in.ids, pass->in.order,
                                    pass->in.starts, m->arch->embed_scale, pass->dh, gradient);
}
