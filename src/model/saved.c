/* saved.c: the table of saved tensors. One row a kind: its width, and under which policies every layer keeps
 * its own. A kind that is not kept has one buffer for all layers, filled again by the backward pass.
 */
#include "model/pass_internal.h"

static const struct {
    bool fp32;
    bool kept[TN_POLICIES]; /* none, selective, full */
} table[TN_SAVED_COUNT] = {
    [TN_SAVED_H] = {false, {true, true, true}},       [TN_SAVED_QKV_RAW] = {false, {true, true, false}},
    [TN_SAVED_QK_RSTD] = {true, {true, true, false}}, [TN_SAVED_QKV] = {false, {true, true, false}},
    [TN_SAVED_ATTN] = {false, {true, true, false}},   [TN_SAVED_LSE] = {true, {true, true, false}},
    [TN_SAVED_H_MID] = {false, {true, true, false}},  [TN_SAVED_GATE_UP] = {false, {true, false, false}},
};

const char *tn_policy_name(tn_policy policy) {
    static const char *const names[TN_POLICIES] = {"none", "selective", "full"};
    return names[policy];
}

bool tn_saved_kept(tn_saved saved, tn_policy policy) { return table[saved].kept[policy]; }

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

bool tn_pass_keeps(const tn_pass *pass, tn_saved kind) {
    return pass->limits.training && tn_saved_kept(kind, pass->limits.policy);
}

/* In inference one buffer serves all layers and both residual kinds: the stream is updated in place. */
void tn_saved_place(tn_pass *pass, tn_region *region, tn_saved kind) {
    const int64_t layers = pass->model->arch->layers, width = tn_dtype_block_bytes(pass->model->device->dtype);
    int64_t count = kind == TN_SAVED_H ? layers + 1 : layers;
    int64_t columns = tn_saved_columns(pass->model, kind);
    int64_t stride = pass->stride[kind] = table[kind].fp32 ? columns : tn_stride(columns);
    int64_t bytes =
        tn_region_bytes(pass->limits.rows, stride, table[kind].fp32 ? (int64_t)sizeof(float) : width);
    bool kept = tn_pass_keeps(pass, kind), in_place = kind == TN_SAVED_H_MID && !pass->limits.training;
    void *shared = in_place ? pass->slot[TN_SAVED_H][0] : NULL;
    if (!kept && !in_place) shared = tn_region_take(region, TN_SEGMENT_WORKSPACE, bytes);
    for (int64_t l = 0; l < count; l++)
        pass->slot[kind][l] = kept ? tn_region_take(region, TN_SEGMENT_SAVED, bytes) : shared;
}
