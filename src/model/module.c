/* module.c: names, shapes and order of a model's tensors. A family with another name, bias or norm is told here
 * (docs/add-a-family.md), and built into a layer in model.c.
 */
#include "model/module.h"

#include <stdio.h>
#include <string.h>

const char *tn_module_path(tn_module module, int64_t layer, char out[96]) {
    static const char *const outside[TN_MODULES] = {[TN_MODULE_EMBED] = "model.embed_tokens",
                                                    [TN_MODULE_HEAD] = "lm_head",
                                                    [TN_MODULE_FINAL_NORM] = "model.norm"};
    static const char *const in_layer[TN_MODULES] = {[TN_MODULE_Q] = "self_attn.q_proj",
                                                     [TN_MODULE_K] = "self_attn.k_proj",
                                                     [TN_MODULE_V] = "self_attn.v_proj",
                                                     [TN_MODULE_O] = "self_attn.o_proj",
                                                     [TN_MODULE_GATE] = "mlp.gate_proj",
                                                     [TN_MODULE_UP] = "mlp.up_proj",
                                                     [TN_MODULE_DOWN] = "mlp.down_proj",
                                                     [TN_MODULE_NORM1] = "input_layernorm",
                                                     [TN_MODULE_NORM2] = "post_attention_layernorm",
                                                     [TN_MODULE_Q_NORM] = "self_attn.q_norm",
                                                     [TN_MODULE_K_NORM] = "self_attn.k_norm"};
    if (outside[module]) snprintf(out, 96, "%s", outside[module]);
    else snprintf(out, 96, "model.layers.%lld.%s", (long long)layer, in_layer[module]);
    return out;
}

const char *tn_module_peft_path(const tn_arch *arch, tn_module module, int64_t layer, char out[96]) {
    char path[96];
    tn_module_path(module, layer, path);
    if (arch->vision && module != TN_MODULE_HEAD)
        snprintf(out, 96, "model.language_model.%.70s", path + strlen("model."));
    else snprintf(out, 96, "%s", path);
    return out;
}

const char *tn_tensor_name(tn_module module, int64_t layer, bool bias, char out[128]) {
    char path[96];
    snprintf(out, 128, "%s.%s", tn_module_path(module, layer, path), bias ? "bias" : "weight");
    return out;
}

void tn_module_shape(const tn_arch *a, tn_module module, int64_t *rows, int64_t *cols) {
    const int64_t q = tn_arch_q(a), kv = tn_arch_kv(a);
    const int64_t shapes[TN_MODULES][2] = {
        [TN_MODULE_Q] = {q, a->hidden},
        [TN_MODULE_K] = {kv, a->hidden},
        [TN_MODULE_V] = {kv, a->hidden},
        [TN_MODULE_O] = {a->hidden, q},
        [TN_MODULE_GATE] = {a->intermediate, a->hidden},
        [TN_MODULE_UP] = {a->intermediate, a->hidden},
        [TN_MODULE_DOWN] = {a->hidden, a->intermediate},
        [TN_MODULE_EMBED] = {a->vocab, a->hidden},
        [TN_MODULE_HEAD] = {a->vocab, a->hidden},
        [TN_MODULE_NORM1] = {a->hidden, 1},
        [TN_MODULE_NORM2] = {a->hidden, 1},
        [TN_MODULE_Q_NORM] = {a->head_dim, 1},
        [TN_MODULE_K_NORM] = {a->head_dim, 1},
        [TN_MODULE_FINAL_NORM] = {a->hidden, 1},
    };
    *rows = shapes[module][0];
    *cols = shapes[module][1];
}

bool tn_module_is_norm(tn_module module) { return module >= TN_MODULE_NORM1; }

bool tn_module_has_bias(const tn_arch *a, tn_module module) {
    if (module >= TN_MODULES_PER_LAYER) return false;
    return module <= TN_MODULE_V ? a->qkv_bias : module == TN_MODULE_O ? a->o_bias : a->mlp_bias;
}

float tn_tensor_std(const tn_arch *arch, tn_module module, bool bias) {
    if (bias) return 0;
    return tn_module_is_norm(module) ? -1 : (float)arch->initializer_range;
}

static tn_status visit_module(const tn_arch *arch, tn_module module, int64_t layer, tn_tensor_visit *visit,
                              void *user) {
    tn_status status = visit(user, module, layer, false);
    if (status != TN_OK || !tn_module_has_bias(arch, module)) return status;
    return visit(user, module, layer, true);
}

static tn_status visit_layer(const tn_arch *arch, int64_t layer, tn_tensor_visit *visit, void *user) {
    tn_status status;
    TN_TRY(visit_module(arch, TN_MODULE_NORM1, layer, visit, user));
    TN_TRY(visit_module(arch, TN_MODULE_NORM2, layer, visit, user));
    if (arch->qk_norm) {
        TN_TRY(visit_module(arch, TN_MODULE_Q_NORM, layer, visit, user));
        TN_TRY(visit_module(arch, TN_MODULE_K_NORM, layer, visit, user));
    }
    for (int m = 0; m < TN_MODULES_PER_LAYER; m++) TN_TRY(visit_module(arch, (tn_module)m, layer, visit, user));
done:
    return status;
}

tn_status tn_each_tensor(const tn_arch *arch, tn_tensor_visit *visit, void *user) {
    tn_status status;
    TN_TRY(visit_module(arch, TN_MODULE_EMBED, -1, visit, user));
    for (int64_t layer = 0; layer < arch->layers; layer++) TN_TRY(visit_layer(arch, layer, visit, user));
    TN_TRY(visit_module(arch, TN_MODULE_FINAL_NORM, -1, visit, user));
    if (!arch->tied) TN_TRY(visit_module(arch, TN_MODULE_HEAD, -1, visit, user));
done:
    return status;
}

typedef struct counter {
    const tn_arch *arch;
    int64_t parameters;
} counter;

static tn_status count(void *user, tn_module module, int64_t layer, bool bias) {
    counter *c = user;
    int64_t rows, cols;
    (void)layer;
    tn_module_shape(c->arch, module, &rows, &cols);
    c->parameters += bias ? rows : rows * cols;
    return TN_OK;
}

int64_t tn_arch_parameters(const tn_arch *arch) {
    counter c = {arch, 0};
    tn_each_tensor(arch, count, &c);
    return c.parameters + (arch->vision ? tn_vision_parameters(arch->vision) : 0);
}
