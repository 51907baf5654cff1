/* arch.h: architectures as data. A family (llama, mistral, qwen2, …) is one row of a table in arch.c: the
 * defaults of its config.json and the few ways in which its block differs. tn_arch is what a particular
 * config.json says, with every default applied: the only description of a model that the rest of the engine
 * reads.
 */
#ifndef TN_MODEL_ARCH_H
#define TN_MODEL_ARCH_H

#include "base/json.h"
#include "model/rope.h"
#include "model/vision_arch.h"
#include "op/op.h"

typedef struct tn_family tn_family;

typedef struct tn_arch {
    const tn_family *family;
    int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim;
    int64_t max_positions;  /* as config.json says */
    int64_t trained_length; /* max_positions, or factor × original length where rope is scaled */
    float norm_eps;
    bool tied; /* lm_head is embed_tokens */
    bool qkv_bias, o_bias, mlp_bias, qk_norm;
    const tn_vision_arch *vision; /* the tower of a model that sees, NULL where there is none */
    int64_t mrope_section[3];     /* pairs that turn by frame, row and column */
    tn_activation activation;
    float attention_scale; /* on q·k */
    float embed_scale, residual_scale,
        logit_scale;            /* granite's multipliers; 1 = none. logits are divided by logit_scale */
    int64_t window;             /* sliding window in tokens, 0 = none in any layer */
    const bool *layer_windowed; /* [layers], NULL = window applies to all */
    const bool *layer_rope;     /* [layers], NULL = all layers turn (smollm3 skips some) */
    tn_rope rope;
    tn_dtype stored_dtype;           /* what the config says the weights are; F32 where it says nothing */
    int32_t bos, eos[16], eos_count; /* of config.json; -1 / 0 where absent */
    double initializer_range;
    double dropout; /* the largest that the config names; none but LoRA's is applied (engine.c says so) */
} tn_arch;

/* Reads a configuration in either generation's spelling (Transformers 4 and 5). `rope_scaling` replaces
 * the config's where not NULL. Memory comes from `arena`. Errors: TN_USAGE for an unknown family (lists the
 * known ones), TN_BAD_DATA for impossible numbers. `name` stands in messages. */
tn_status tn_arch_read(tn_arena *arena, const tn_json *config, const tn_json *rope_scaling, const char *name,
                       tn_arch *arch);
const char *tn_family_name(const tn_family *family);
/* config.json of a well-known shape ("llama-3.1-8b", …) as JSON text; NULL for an unknown name. */
const char *tn_shape_config(const char *name);
/* All shape names, comma-separated. */
const char *tn_shape_names(void);

/* Columns of the fused query|key|value row. */
static inline int64_t tn_arch_q(const tn_arch *a) { return a->heads * a->head_dim; }
static inline int64_t tn_arch_kv(const tn_arch *a) { return a->kv_heads * a->head_dim; }
static inline int64_t tn_arch_qkv(const tn_arch *a) { return (a->heads + 2 * a->kv_heads) * a->head_dim; }

#endif
