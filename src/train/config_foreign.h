/* config_foreign.h: configuration files as people bring them from LLaMA-Factory, axolotl, TRL and Unsloth. A
 * key of theirs that is none of ours is either mapped to the key of ours that means the same, or ignored aloud
 * where it cannot change what is trained, or refused with what to write instead. docs/coming-from.md is written
 * from these rows (test_config compares). Private to train/config*.c and that test.
 */
#ifndef TN_TRAIN_CONFIG_FOREIGN_H
#define TN_TRAIN_CONFIG_FOREIGN_H

#include "train/config.h"

enum { TN_FACTORY = 1, TN_AXOLOTL = 2, TN_TRL = 4, TN_UNSLOTH = 8, TN_PROGRAMS = 4 };

/* Why a value may be ignored. */
typedef enum tn_reason {
    TN_BECAUSE_DONE,
    TN_BECAUSE_NETWORK,
    TN_BECAUSE_KERNELS,
    TN_BECAUSE_READING,
    TN_BECAUSE_REPORT,
    TN_BECAUSE_PATH,
    TN_BECAUSE_PADDING,
    TN_BECAUSE_MEMORY,
    TN_BECAUSE_TEXT,
    TN_BECAUSE_RESULT,
    TN_BECAUSE_FINITE,
    TN_BECAUSE_STEPS,
    TN_REASONS
} tn_reason;
extern const char *const tn_reason_texts[TN_REASONS];

/* How a value is read: a word (or one in a list), or a tree of its own. */
typedef enum tn_foreign_kind {
    TN_FOREIGN_WORD,
    TN_FOREIGN_DATASETS,       /* axolotl's list of data sets */
    TN_FOREIGN_EVAL_DATASETS,  /* the same for evaluation */
    TN_FOREIGN_PAD_ONLY,       /* a map of special tokens in which pad_token alone has a value */
    TN_FOREIGN_PLUGINS,        /* a list of modules that bring kernels */
    TN_FOREIGN_MIN_LR,         /* a map of the schedule's arguments */
    TN_FOREIGN_ALL_FALSE,      /* a map whose values are all false or null */
    TN_FOREIGN_LINEAR_TARGETS, /* true = every linear module, beside a list of some of them */
} tn_foreign_kind;

/* `words`, comma-separated: "false" = ignored for `reason`; "true=dtype:bfloat16" = our key and its value;
 * "*=dataset" = any other value is that of our key; "*" = any other value is ignored; the rest is refused with
 * `remedy`. A key that is ours as well is read as ours where no word fits. Null asks for nothing. */
typedef struct tn_foreign_key {
    const char *name;
    int programs; /* bits: whose files have it */
    const char *words;
    tn_reason reason;
    const char *remedy;
    tn_foreign_kind kind;
} tn_foreign_key;
extern const tn_foreign_key tn_foreign_keys[];
extern const int tn_foreign_key_count;

/* A program: its name, keys that only its files have (two of them tell it), keys that are ours under its name
 * or under both names, and defaults of its that differ from ours. */
typedef struct tn_program {
    const char *name, *marks, *keys;
    struct {
        const char *key, *value;
    } defaults[12];
} tn_program;
extern const tn_program tn_programs[TN_PROGRAMS];

/* Takes every key of a file. Errors: TN_USAGE. */
tn_status tn_config_take_file(struct tn_config *config, const tn_json *root);
/* axolotl's `datasets` (config_datasets.c): files into `dataset` or `eval_dataset`, their type into
 * `dataset_format`, their chat template into `chat_template`; `spelling` is the key's name. */
tn_status tn_config_take_datasets(struct tn_config *config, const char *spelling, const char *key,
                                  const tn_json *list);

#endif
