/* adapter.h: everything that trains, in one list. LoRA pairs, full modules (embedding, head, any linear; in
 * full fine-tuning every weight of the model) and single rows of the embedding or head are parameters with a
 * name, a shape, a group and a place in four flat fp32 arrays on the device: values, gradients and the
 * optimizer's moments. The list decides what is counted, optimised, saved, resumed and verified, so nothing
 * that trains can be forgotten by one of them.
 *
 * Order: small parameters last, and of one (group, decay) pair together, so an optimizer step is one call per
 * span. Each begins at a multiple of 256 elements, the block of an 8-bit moment; small ones at one of 64.
 */
#ifndef TN_MODEL_ADAPTER_H
#define TN_MODEL_ADAPTER_H

#include "format/peft_config.h"
#include "format/safetensors.h"
#include "model/base_copy.h"
#include "model/module.h"
#include "model/region.h"

typedef enum tn_group { TN_GROUP_LORA, TN_GROUP_FULL, TN_GROUP_EMBED, TN_GROUP_HEAD, TN_GROUPS } tn_group;
/* "lora", "full", "embed_tokens", "lm_head" */
const char *tn_group_name(tn_group group);

/* MAGNITUDE: DoRA's lengths of the rows of W + scale·B·A. TOKENS: some rows of a table, values that stand in
 * the base's place (PEFT's trainable_tokens_delta). */
typedef enum tn_param_kind {
    TN_PARAM_LORA_A,
    TN_PARAM_LORA_B,
    TN_PARAM_MAGNITUDE,
    TN_PARAM_WEIGHT,
    TN_PARAM_BIAS,
    TN_PARAM_TOKENS
} tn_param_kind;

typedef struct tn_param {
    const char *name; /* in the file it is saved to */
    tn_param_kind kind;
    tn_module module;
    int64_t layer; /* -1 outside the layers */
    tn_group group;
    bool decay;            /* weight decay applies */
    int rank;              /* of the tensor: 2, or 1 for a norm, bias or magnitude */
    int64_t shape[2];      /* [r, in], [out, r] or [out, in]; [n, 1] */
    int64_t count, offset; /* elements; place in the flat arrays */
    tn_dtype dtype;        /* as it is saved: LoRA fp32, a full module the base's */
    double scale;          /* LoRA: alpha / r (or / sqrt r) */
    const int64_t *ids;    /* TOKENS: [shape[0]] the rows of the table, of the configuration; else NULL */
} tn_param;

static inline bool tn_param_is_lora(const tn_param *p) {
    return p->kind == TN_PARAM_LORA_A || p->kind == TN_PARAM_LORA_B;
}

/* A run of parameters that one optimizer call covers. */
typedef struct tn_span {
    tn_group group;
    bool decay, small; /* small: of parameters whose moments are never kept in 8 bits */
    int64_t offset, count;
} tn_span;

typedef struct tn_adapter {
    tn_arena arena;
    tn_peft_config *config; /* owned; NULL where nothing trains, or everything does */
    bool full;              /* every weight of the model trains, and a whole model is saved */
    tn_param *params;
    int64_t param_count, elements;
    tn_span spans[4 * TN_GROUPS];
    int span_count;
    float *values, *grads; /* on the device, [elements]; grads NULL in inference */
    /* The optimizer's moments, on the device. In 32 bits they begin at element `first_moment` (the small ones
     * of an optimizer of 8 bits; else 0); in 8 bits they are [first_moment] with a scale for each 256. NULL
     * where the optimizer keeps none. */
    float *m, *v;
    int64_t first_moment;
    uint8_t *m_codes, *v_codes;
    float *m_absmax, *v_absmax;
} tn_adapter;

/* What an optimizer keeps beside the gradients: none, one or two arrays. */
typedef struct tn_moments {
    int arrays;
    bool in_8_bits; /* but for parameters of less than 4096 elements, as bitsandbytes has it */
} tn_moments;

/* What `config` trains on a model of this shape. `full_dtype` is what full modules are saved in. Takes over
 * `config`, also on failure. Errors: TN_USAGE where a named target matches nothing, or something asked for is
 * not supported (named). */
tn_status tn_adapter_new(const tn_arch *arch, tn_peft_config *config, tn_dtype full_dtype, const char *name,
                         tn_adapter **adapter);
/* Every weight of the model trains (a tied head with its embedding, once). */
tn_status tn_adapter_new_full(const tn_arch *arch, tn_dtype dtype, tn_adapter **adapter);
/* An adapter that trains nothing (the base alone). */
tn_status tn_adapter_empty(tn_adapter **adapter);
void tn_adapter_free(tn_adapter *adapter);
/* Parameter of a module, NULL where it has none. */
const tn_param *tn_adapter_find(const tn_adapter *adapter, tn_module module, int64_t layer, tn_param_kind kind);
/* The trained rows of the embedding or the head, NULL where there are none; of a tied model the head's are the
 * embedding's, unless it has its own. */
const tn_param *tn_adapter_tokens(const tn_adapter *adapter, const tn_arch *arch, tn_module module);
int64_t tn_adapter_group_count(const tn_adapter *adapter, tn_group group);

/* Takes the flat arrays from the region (values always; the rest where `training`). */
void tn_adapter_place(tn_adapter *adapter, tn_region *region, bool training, tn_moments moments);
/* Zeros gradients and moments. */
tn_status tn_adapter_clear(tn_adapter *adapter, tn_device *device);
bool tn_param_is_small(const tn_param *p);
/* Initial values on the device: LoRA as PEFT's init_lora_weights says, full modules from the base (`base` gives
 * a module's tensor, decoded), magnitudes last (`base` gives the norms that A and B on the device make). Values
 * depend on the seed and the tensor's name only. */
typedef tn_status tn_base_values(void *user, const tn_param *param, float *values);
tn_status tn_adapter_init(tn_adapter *adapter, tn_device *device, uint64_t seed, tn_base_values *base,
                          void *user);
/* Name of the file with the parameters: adapter_model.safetensors, or model.safetensors of a whole model. */
const char *tn_adapter_file_name(const tn_adapter *adapter);
/* Opens that file of `directory`. Every parameter must be there with its shape, and every tensor of the file
 * must be a parameter or a weight of the base again (base_copy.h): anything else is TN_BAD_DATA that lists
 * both. */
tn_status tn_adapter_open(const tn_adapter *adapter, const tn_base *base, const char *directory,
                          tn_safetensors **file);
/* Opens it and brings the values to the device. */
tn_status tn_adapter_load(tn_adapter *adapter, const tn_base *base, tn_device *device, const char *directory);
/* Writes it, and adapter_config.json of an adapter. */
tn_status tn_adapter_save(const tn_adapter *adapter, tn_device *device, const char *directory);

/* Accounts for a file's tensors against the parameters, both ways, without a device. Copies of the base's
 * weights that say what the base says are no fault; those that do not are among the mismatched or unexpected.
 */
typedef struct tn_accounting {
    const char **missing, **unexpected, **mismatched, **nonfinite, **base_copies; /* in the arena passed */
    int64_t missing_count, unexpected_count, mismatched_count, nonfinite_count, base_copies_count;
    int64_t other_base, other_rows; /* copies of another base; rows of one of another vocabulary, else 0 */
} tn_accounting;
tn_status tn_adapter_account(const tn_adapter *adapter, const tn_base *base, const tn_safetensors *file,
                             tn_arena *arena, tn_accounting *result);
/* No NaN and no Inf in it. */
bool tn_tensor_finite(const tn_tensor_info *tensor);
/* The file's tensor of a parameter under any of the spellings in use (transformers 4 and 5, VLM prefixes); NULL
 * where absent. */
const tn_tensor_info *tn_adapter_tensor(const tn_param *param, const tn_safetensors *file);

#endif
