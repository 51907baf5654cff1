/* module.h: the tensors of a model, said once. A module is a linear, a norm or a table; a tensor is a module's
 * weight or bias in a layer. What a family has of them follows from its tn_arch, and whoever needs the list
 * (building, full fine-tuning, counting, writing random weights) walks it here.
 */
#ifndef TN_MODEL_MODULE_H
#define TN_MODEL_MODULE_H

#include "model/arch.h"

/* The linear modules of a layer, the two tables outside the layers, and the norms. */
typedef enum tn_module {
    TN_MODULE_Q,
    TN_MODULE_K,
    TN_MODULE_V,
    TN_MODULE_O,
    TN_MODULE_GATE,
    TN_MODULE_UP,
    TN_MODULE_DOWN,
    TN_MODULES_PER_LAYER,
    TN_MODULE_EMBED = TN_MODULES_PER_LAYER,
    TN_MODULE_HEAD,
    TN_MODULE_NORM1, /* before attention */
    TN_MODULE_NORM2, /* before the MLP */
    TN_MODULE_Q_NORM,
    TN_MODULE_K_NORM,
    TN_MODULE_FINAL_NORM,
    TN_MODULES,
} tn_module;

/* "model.layers.3.self_attn.q_proj", "model.embed_tokens", "lm_head", "model.norm" into `out`; the layer of
 * what stands outside the layers is -1. */
const char *tn_module_path(tn_module module, int64_t layer, char out[96]);
/* The path by which Transformers, and so PEFT, knows the module in memory: where there is a vision tower too,
 * the language half is "model.language_model". Files of weights keep the names above. */
const char *tn_module_peft_path(const tn_arch *arch, tn_module module, int64_t layer, char out[96]);
/* The path with ".weight" or ".bias" behind it. */
const char *tn_tensor_name(tn_module module, int64_t layer, bool bias, char out[128]);
/* [out, in] of a module's weight; of a norm [n, 1]. A bias is as long as its weight has rows. */
void tn_module_shape(const tn_arch *arch, tn_module module, int64_t *rows, int64_t *cols);
bool tn_module_is_norm(tn_module module);
bool tn_module_has_bias(const tn_arch *arch, tn_module module);
/* How a fresh tensor begins, as tn_source.std: norms with ones, biases with zeros. */
float tn_tensor_std(const tn_arch *arch, tn_module module, bool bias);

/* Calls `visit` for every tensor of the model, a tied head only as the embedding; stops at the first failure.
 */
typedef tn_status tn_tensor_visit(void *user, tn_module module, int64_t layer, bool bias);
tn_status tn_each_tensor(const tn_arch *arch, tn_tensor_visit *visit, void *user);
/* Parameters of the base model (tied weights once), its vision tower included. */
int64_t tn_arch_parameters(const tn_arch *arch);

#endif
