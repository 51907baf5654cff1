/* base_copy.h: the base's embedding or head inside an adapter file. PEFT stores them beside the adapter where
 * they are targets of LoRA ("lm_head.base_layer.weight"), where the vocabulary was resized or where the caller
 * wished it ("lm_head.weight", "lm_head.original_module.weight"), and puts them in the base's place on loading.
 * tenon computes with the base's own tensor, so a copy is accepted only where it says the same.
 */
#ifndef TN_MODEL_BASE_COPY_H
#define TN_MODEL_BASE_COPY_H

#include "base/mem.h"
#include "format/model_files.h"
#include "model/module.h"

/* Where the copies come from. */
typedef struct tn_base {
    const tn_arch *arch;
    const tn_model_files *files; /* may be without weights; NULL where there are none */
} tn_base;

/* Does `name`, without PEFT's prefixes ("lm_head.base_layer.weight"), name the place of the base's embedding or
 * head? Names of modules_to_save look the same where the module is one: the caller knows. */
bool tn_base_copy_module(const char *name, tn_module *module);
/* `*difference` is NULL where `copy` holds the base's values, else text from the arena that names both.
 *
 * Of plain dtypes every value must be equal where the two are held in the less precise of theirs: a base in
 * bf16 was the same when PEFT loaded it as fp32, and one in fp32 was rounded when PEFT loaded it as bf16. A
 * quantised base cannot be equal to what it was made from: a copy within half of its norm is accepted with a
 * warning that tells the distance (two bits a weight are some 0.3 away, another matrix 1.4). A base without
 * weights at hand is not compared beyond the shape, and a warning says so. */
tn_status tn_base_copy_compare(const tn_tensor_info *copy, tn_module module, const tn_base *base,
                               tn_arena *arena, const char **difference);

#endif
