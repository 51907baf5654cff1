/* saved.c: the table of saved tensors. One row a kind: its width, and what each policy does with it. A kind
 * that is not kept has one buffer for all layers, filled again by the backward pass; gate|up's holds a tile of
 * rows.
 *
 * A kind that is moved has two buffers, of which even and odd layers take turns. Forward: layer l reads H[l]
 * and writes H[l+1] over H[l-1], whose copy to the host has had all of layer l-1's work to finish in; what
 * layer l itself makes is sent while layer l+1 works. What the two buffers hold in the end stays. Backward:
 * while layer l is at work, what layer l-1 needs comes back to the other buffers. So the waits below are over
 * before they are asked for, where a layer's work takes longer than the journey.
 */
#include "model/pass_internal.h"

enum fate { AGAIN, KEPT, MOVED };
enum { TURNS = 2 };

static const struct {
    bool fp32;
    enum fate fate[TN_POLICIES]; /* none, selective, full, offload, offload_inputs */
} table[TN_SAVED_COUNT] = {
    [TN_SAVED_H] = {false, {KEPT, KEPT, KEPT, MOVED, MOVED}},
    [TN_SAVED_QKV_RAW] = {false, {KEPT, KEPT, AGAIN, AGAIN, AGAIN}},
    [TN_SAVED_QK_RSTD] = {true, {KEPT, KEPT, AGAIN, AGAIN, AGAIN}},
    [TN_SAVED_QKV] = {false, {KEPT, KEPT, AGAIN, AGAIN, AGAIN}},
    [TN_SAVED_ATTN] = {false, {KEPT, KEPT, AGAIN, MOVED, AGAIN}},
    [TN_SAVED_LSE] = {true, {KEPT, KEPT, AGAIN, MOVED, AGAIN}},
    [TN_SAVED_H_MID] = {false, {KEPT, KEPT, AGAIN, AGAIN, AGAIN}},
    [TN_SAVED_GATE_UP] = {false, {KEPT, AGAIN, AGAIN, AGAIN, AGAIN}},
};

const char *tn_policy_name(tn_policy policy) {
    static const char *const names[TN_POLICIES] = {"none", "selective", "full", "offload", "offload_inputs"};
    return names[policy];
}

int64_t tn_saved_columns(const tn_model *model, tn_saved kind) {
    const tn_arch *a = model->arch;
    switch (kind) {
        case TN_SAVED_H:
        case TN_SAVED_H_MID: return a->hidden;
        case TN_SAVED_QKV_RAW: return a->qk_norm ? tn_arch_qkv(a) : 0;
        case TN_SAVED_QK_RSTD: return a->qk_norm ? a->heads + a->kv_heads : 0;
        case TN_SAVED_QKV: return a->qk_norm ? tn_arch_q(a) + tn_arch_kv(a) : tn_arch_qkv(a);
        case TN_SAVED_ATTN: return tn_arch_q(a) + model->border_o;
        case TN_SAVED_LSE: return a->heads;
        case TN_SAVED_GATE_UP: return 2 * a->intermediate + model->border_gate_up;
        default: return 0;
    }
}

tn_view tn_pass_saved(const tn_pass *pass, tn_saved kind, int64_t layer) {
    return (tn_view){pass->slot[kind][layer], pass->stride[kind]};
}

float *tn_pass_saved_f32(const tn_pass *pass, tn_saved kind, int64_t layer) { return pass->slot[kind][layer]; }

static bool has_fate(const tn_pass *pass, tn_saved kind, enum fate fate) {
    return pass->limits.training && table[kind].fate[pass->limits.policy] == fate;
}

bool tn_pass_keeps(const tn_pass *pass, tn_saved kind) {
    return has_fate(pass, kind, KEPT) || has_fate(pass, kind, MOVED);
}

static int64_t row_bytes(const tn_pass *pass, tn_saved kind) {
    const int64_t width = tn_dtype_block_bytes(pass->model->device->dtype);
    return pass->stride[kind] * (table[kind].fp32 ? (int64_t)sizeof(float) : width);
}

/* In inference one buffer serves all layers and both residual kinds: the stream is updated in place. */
void tn_saved_place(tn_pass *pass, tn_region *region, tn_region *pinned, tn_saved kind) {
    const int64_t layers = pass->model->arch->layers, columns = tn_saved_columns(pass->model, kind);
    const int64_t count = kind == TN_SAVED_H ? layers + 1 : layers;
    const bool kept = has_fate(pass, kind, KEPT), moved = has_fate(pass, kind, MOVED);
    const bool in_place = kind == TN_SAVED_H_MID && !pass->limits.training;
    const int64_t buffers = kept ? count : moved ? TURNS : 1;
    void **slot = pass->slot[kind];
    pass->stride[kind] = table[kind].fp32 ? columns : tn_stride(columns);
    const bool by_tile = kind == TN_SAVED_GATE_UP && !kept;
    const int64_t bytes = tn_region_bytes(by_tile ? tn_tile_rows(pass->limits.rows) : pass->limits.rows,
                                          row_bytes(pass, kind), 1);
    for (int64_t l = 0; l < count; l++)
        slot[l] = l >= buffers ? slot[l - buffers]
                  : in_place   ? pass->slot[TN_SAVED_H][0]
                               : tn_region_take(region, kept ? TN_SEGMENT_SAVED : TN_SEGMENT_WORKSPACE, bytes);
    for (int64_t l = pass->model->lowest_trained; moved && l < count - TURNS; l++)
        if (l >= 0) pass->away[kind][l] = tn_region_take(pinned, TN_SEGMENT_SAVED, bytes);
}

/* ---- Moving ---------------------------------------------------------------------------------------- */

static tn_status begin(tn_pass *pass, tn_saved kind, int64_t layer, bool out) {
    tn_device *device = pass->model->device;
    void *away = layer >= 0 && layer < pass->model->arch->layers ? pass->away[kind][layer] : NULL;
    void *here = pass->slot[kind][layer >= 0 ? layer : 0];
    if (!away) return TN_OK;
    return device->backend->move(device, out ? away : here, out ? here : away,
                                 pass->tokens * row_bytes(pass, kind));
}

static bool moves(const tn_pass *pass) { return has_fate(pass, TN_SAVED_H, MOVED); }

tn_status tn_saved_send(tn_pass *pass, int64_t layer) {
    tn_device *device = pass->model->device;
    tn_status status = moves(pass) ? device->backend->move_wait(device) : TN_OK;
    for (int kind = TN_SAVED_H; kind < TN_SAVED_COUNT && status == TN_OK && moves(pass); kind++)
        status = begin(pass, (tn_saved)kind, kind == TN_SAVED_H ? layer : layer - 1, true);
    return status;
}

tn_status tn_saved_bring(tn_pass *pass, int64_t layer) {
    tn_device *device = pass->model->device;
    tn_status status = moves(pass) ? device->backend->move_wait(device) : TN_OK;
    for (int kind = TN_SAVED_H; kind < TN_SAVED_COUNT && status == TN_OK && moves(pass); kind++)
        status = begin(pass, (tn_saved)kind, layer - 1, false);
    return status;
}
