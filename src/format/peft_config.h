/* peft_config.h: adapter_config.json of PEFT LoRA adapters, read and written (peft: tuners/lora/config.py),
 * and the rules that say which modules an adapter touches, so that they are written down once.
 */
#ifndef TN_FORMAT_PEFT_CONFIG_H
#define TN_FORMAT_PEFT_CONFIG_H

#include "base/json.h"

/* A list of names, or one regular expression (PEFT allows both for targets). */
typedef struct tn_name_rule {
    const char *regex; /* NULL where it is a list */
    const char **names;
    int64_t count;
} tn_name_rule;

/* rank_pattern / alpha_pattern: first matching pattern in order wins. */
typedef struct tn_pattern {
    const char *pattern;
    double value;
} tn_pattern;

/* Rows of a table that train while the others stay, in the order of their tensor's rows. */
typedef struct tn_token_rule {
    int64_t *ids, count; /* 0 = none */
} tn_token_rule;

typedef struct tn_peft_config {
    tn_arena arena; /* owns all strings and arrays below */
    int64_t r;
    double lora_alpha, lora_dropout;
    tn_name_rule target_modules, exclude_modules, modules_to_save;
    bool all_linear; /* target_modules was the word "all-linear" */
    bool use_rslora, use_dora;
    const char *bias;                           /* "none", "all", "lora_only" */
    const char *init_lora_weights;              /* "true", "false", "gaussian", … */
    const char *base_model;                     /* base_model_name_or_path, may be NULL */
    const char *task_type, *revision;           /* handed on as they were read; may be NULL */
    int64_t *layers_to_transform, layers_count; /* 0 = all layers */
    tn_name_rule layers_pattern;
    tn_pattern *rank_pattern, *alpha_pattern;
    int64_t rank_patterns, alpha_patterns;
    tn_token_rule embed_tokens, head_tokens; /* trainable_token_indices: of embed_tokens, of lm_head */
    bool ensure_weight_tying;
    const char *unsupported; /* first key whose value we cannot honour ("lora_bias"), else NULL */
} tn_peft_config;

/* Defaults of PEFT where a key is absent. Unknown keys: a warning naming them. Errors: TN_USAGE (missing),
 * TN_BAD_DATA. */
tn_status tn_peft_config_read(const char *directory, tn_peft_config **config);
tn_status tn_peft_config_new(tn_peft_config **config);
/* JSON, indent 2, sorted keys, inference_mode true: the stable subset older PEFT releases read. */
tn_status tn_peft_config_write(const tn_peft_config *config, const char *directory);
void tn_peft_config_free(tn_peft_config *config);

/* Parses a target_modules-like value: a JSON list of strings, a comma-separated list, or a regular expression
 * (anything else with a character that no module name has). Fills `rule` from `arena`. */
tn_status tn_name_rule_parse(tn_arena *arena, const char *text, tn_name_rule *rule);

/* trainable_token_indices: a list of ids for embed_tokens, or an object of lists for embed_tokens and lm_head.
 * Fills both rules from the arena. `*other` is the first name of another module, NULL where there is none.
 * Errors: `wrong`, for what is no such value or names an id twice; `path` stands in messages. */
tn_status tn_token_rules_read(tn_arena *arena, const tn_json *node, const char *path, tn_status wrong,
                              tn_token_rule *embed, tn_token_rule *head, const char **other);

/* Compiled form of the rules for asking about many modules; not for two threads at once. The configuration must
 * outlive it. */
typedef struct tn_targeting tn_targeting;
/* Errors: TN_USAGE for a regular expression that does not compile or layers_to_transform with a regex. */
tn_status tn_targeting_new(const tn_peft_config *config, tn_targeting **targeting);
/* Does LoRA go on the linear module `name` ("model.layers.0.self_attn.q_proj")? `is_output` marks lm_head,
 * which all-linear leaves out. `*r` and `*alpha` get the module's own values after the patterns. */
bool tn_targeting_lora(const tn_targeting *targeting, const char *name, bool is_output, int64_t *r,
                       double *alpha);
/* Is the module, or one around it, trained in full (modules_to_save)? */
bool tn_targeting_full(const tn_targeting *targeting, const char *name);
/* First name of a target or modules_to_save list that named no module asked about so far (an excluded one
 * counts as named); NULL where all did. */
const char *tn_targeting_unmatched(const tn_targeting *targeting);
/* When all modules of a model were asked about: TN_USAGE where an expression ran away on one of them; warnings
 * for patterns and exclusions that named none, as PEFT gives them. `name` (an adapter's directory) stands in
 * messages. */
tn_status tn_targeting_check(const tn_targeting *targeting, const char *name);
void tn_targeting_free(tn_targeting *targeting);

#endif
