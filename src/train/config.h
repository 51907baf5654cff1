/* config.h: every setting of every verb, in one table (config_table.c) that drives command-line flags, YAML,
 * aliases, help texts and config.resolved.yaml. A tn_config holds, for each key, the value, and who set it
 * (default, file, flag, adapter, checkpoint), so that conflicts can be told from defaults.
 */
#ifndef TN_TRAIN_CONFIG_H
#define TN_TRAIN_CONFIG_H

#include "base/json.h"

typedef enum tn_setter {
    TN_SET_DEFAULT,
    TN_SET_CHECKPOINT,
    TN_SET_ADAPTER,
    TN_SET_FILE,
    TN_SET_FLAG
} tn_setter;

/* The settings as the engine reads them. Field names are the keys. Strings are NULL where there is none;
 * all memory belongs to the config. Optional numbers are NAN / -1 where not given. */
typedef struct tn_settings {
    /* what and where */
    const char *model, *adapter, *output_dir, *resume_from_checkpoint;
    const char **dataset, **eval_dataset;
    int64_t datasets, eval_datasets;
    double eval_split;   /* a part below 1, a number of records from 2, or NAN */
    int64_t max_samples; /* of each file, -1 all */
    const char *dataset_dir, *chat_template;
    const char *dataset_format, *stage /* "sft", "cpt" */;
    /* base */
    int64_t max_length;
    const tn_json *rope_scaling; /* NULL = from the config */
    bool load_in_4bit, load_in_8bit, load_in_fp8;
    const char *dtype, *device;
    int64_t memory_limit; /* bytes, -1 none */
    int64_t threads;      /* 0 auto */
    int64_t processes;    /* -1 none: as many as there are */
    /* adapter */
    int64_t lora_r;
    double lora_alpha, lora_dropout;
    const char *target_modules, *modules_to_save, *exclude_modules; /* text: list or regex */
    bool use_rslora, use_dora, full_finetuning;
    const char *init_lora_weights, *bias;
    const char *layers_to_transform, *layers_pattern, *trainable_token_indices;
    const tn_json *rank_pattern, *alpha_pattern, *override_settings; /* override */
    /* optimisation */
    double learning_rate, embedding_learning_rate /* learning_rate / 10 where not given */;
    const char *optim;
    double weight_decay, adam_beta1, adam_beta2, adam_epsilon, momentum, max_grad_norm;
    const char *lr_scheduler_type;
    double min_lr /* NAN */, min_lr_rate /* NAN */, warmup_ratio;
    int64_t warmup_steps; /* -1 = by ratio */
    uint64_t seed;
    int64_t per_device_train_batch_size, per_device_eval_batch_size, gradient_accumulation_steps;
    double num_train_epochs;
    int64_t max_steps; /* -1 = by epochs */
    bool packing, train_on_responses_only, shuffle;
    const char *template_date;          /* "2026-11-26", or "today" */
    const char *gradient_checkpointing; /* auto none selective full offload */
    int64_t logging_steps, eval_steps /* -1 */, save_steps, save_total_limit;
    int64_t evals_per_epoch, saves_per_epoch; /* -1 */
    const char *report_to;
    bool dry_run, overwrite_output_dir;
    /* other verbs */
    const char *per_token, *prompt, *messages, *reference, *tokenizer, *output, *to, *base_for_merge;
    int64_t max_new_tokens, top_k;
    double temperature, top_p, min_p, repetition_penalty, labelled;
    bool add_special_tokens, json, plot /* train: draw the loss curve */;
    int64_t samples;       /* data: how many to show */
    int64_t steps, warmup; /* bench */
} tn_settings;

/* Checks what single values cannot tell (two load_in_…, required keys of the verb) and fills the settings. The
 * result belongs to the config and is valid until it changes; call it after the last tn_config_inherit. Errors:
 * TN_USAGE. */
tn_status tn_config_resolve(struct tn_config *config, const tn_settings **settings);
/* Who gave the value in force. */
tn_setter tn_config_setter(const struct tn_config *config, const char *key);
/* A key that has no effect beside the others. Given as a flag with another value than the default it is a
 * mistake (TN_USAGE); in a file, which several runs may share, that is said once; elsewhere it passes. */
tn_status tn_config_unused(struct tn_config *config, const char *key, const char *reason);
/* Sets a key on behalf of a checkpoint or an adapter: does not displace a flag or a file. */
tn_status tn_config_inherit(struct tn_config *config, const char *key, const char *value, tn_setter setter);
/* The same for a value read from YAML or JSON; `node` must live as long as the config where it is a map. */
tn_status tn_config_inherit_node(struct tn_config *config, const char *key, const tn_json *node,
                                 tn_setter setter);
/* What one source gave, "" for none, whether or not another won over it; NULL where it gave nothing. So a key
 * that a flag and a checkpoint both give can be refused with both values. */
const char *tn_config_given(const struct tn_config *config, const char *key, tn_setter setter);
/* Notes what became of a key in this run ("auto" became "cpu"): the write functions show it, nothing else
 * changes. */
tn_status tn_config_used(struct tn_config *config, const char *key, const char *value);
/* A key whose path is not UTF-8, so that no JSON or YAML can hold it; NULL where there is none. */
const char *tn_config_unwritable(const struct tn_config *config);
/* Every key with the value used, as YAML (config.resolved.yaml); as a JSON object (run.json). */
tn_status tn_config_write_yaml(const struct tn_config *config, tn_str *out);
void tn_config_write_json(const struct tn_config *config, tn_json_writer *w);

#endif
