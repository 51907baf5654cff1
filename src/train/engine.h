/* engine.h: everything a verb needs, opened in the right order and planned before it is allocated:
 * configuration → model files and architecture → adapter → device → data → plan → one block of device memory,
 * and of pinned host memory where the plan has some → weights and adapter values in place.
 *
 * Invariants: device memory is taken once (tn_engine_allocate); nothing is loaded before the plan said that it
 * fits; what an adapter's own configuration says wins over defaults, and contradicts explicit keys loudly.
 */
#ifndef TN_TRAIN_ENGINE_H
#define TN_TRAIN_ENGINE_H

#include "data/batch.h"
#include "model/pass.h"
#include "train/config.h"

/* What the verb will do with the model; TN_USE_FILES: read its weights and write them elsewhere. */
typedef enum tn_use { TN_USE_TRAIN, TN_USE_EVAL, TN_USE_GENERATE, TN_USE_FILES } tn_use;

typedef struct tn_memory_plan {
    tn_region region;      /* bytes by segment, counted */
    tn_region pinned;      /* the same of pinned host memory */
    tn_pass_limits limits; /* what the pass was planned for, the chosen policy included */
    int64_t device_bytes;  /* region + the driver's context */
    int64_t available;     /* device bytes it may use */
    int64_t host_bytes, disk_bytes;
    int64_t longest_context; /* tokens of one document that would fit; 0 where not asked */
    bool fits;
} tn_memory_plan;

/* What a saved model takes over from its base, as it was when it was read. */
enum { TN_BASE_CONFIGS = 2 };
extern const char *const tn_base_config_names[TN_BASE_CONFIGS];

typedef struct tn_engine {
    tn_arena arena;
    tn_config *config; /* not owned */
    const tn_settings *settings;
    tn_use use;
    int processes;         /* that train together, each with all that is planned here; 1: alone */
    int processes_here;    /* those of them that share this machine's memory */
    tn_model_files *files; /* NULL: random weights (bench) or a shape's name (plan) */
    tn_dtype quantise_to;  /* of plain base weights while they are loaded; F32: not */
    tn_arch arch;
    const tn_json *rope_scaling; /* what took the place of config.json's; NULL = nothing did */
    int64_t max_length;          /* after lowering a default to the trained length */
    tn_device *device;
    tn_picture_tokens *pictures; /* NULL: pictures are not read */
    int64_t patches;             /* of the largest picture of the data sets that were opened; 0: none has one */
    tn_chat *chat;               /* NULL where the model has no tokenizer */
    tn_adapter *adapter;
    const char *adapter_directory; /* values come from here; NULL = fresh */
    tn_model *model;
    tn_pass *pass;
    tn_memory_plan plan;
    void *memory, *pinned;
    char base_hash[33];   /* of the base's configuration, and names, types and shapes of its tensors */
    char base_values[33]; /* of a sample of its bytes; training alone fills it in */
    tn_str base_configs[TN_BASE_CONFIGS]; /* a full fine-tune's alone; no data where there is no such file */
} tn_engine;

/* Opens configuration, files, architecture, device and adapter; no weights. With `weights` false config.json or
 * a shape's name is enough (plan, bench). `adapter` is the directory the adapter comes from (a checkpoint);
 * NULL = the key `adapter`. */
tn_status tn_engine_open(tn_config *config, tn_use use, bool weights, const char *adapter, tn_engine *engine);
/* Less of it: only configuration, architecture and tokenizer (verb data); configuration, architecture and the
 * existing adapter's parameters (verify). */
tn_status tn_engine_open_data(tn_config *config, tn_engine *engine);
tn_status tn_engine_open_adapter(tn_config *config, tn_engine *engine);
/* Files with their weights, architecture, adapter and tokenizer, but no device (merge, export); and that device
 * in the precision `dtype`, to compute with them after all. */
tn_status tn_engine_open_files(tn_config *config, tn_engine *engine);
/* TN_USAGE for a model with a vision tower: `what` would leave its weights out. */
tn_status tn_engine_refuse_vision(const tn_engine *engine, const char *what);
tn_status tn_engine_open_device(tn_engine *engine, const char *dtype);
/* Gives back device, plan and everything that was allocated; files and adapter stay open. */
void tn_engine_release(tn_engine *engine);
void tn_engine_close(tn_engine *engine);
/* Ids that end a text: every eos_token_id of config and generation_config, the tokenizer's own where neither
 * names one. Returns their number. */
enum { TN_MOST_STOPS = 32 };
int64_t tn_engine_stops(const tn_engine *engine, int32_t stops[TN_MOST_STOPS]);
/* Tokens of a micro-batch whose rows are all full: per_device_train_batch_size x max_length. */
int64_t tn_engine_row_tokens(const tn_engine *engine);
/* Plans for batches within the given bounds. For training, chooses the recompute policy (the fastest that fits,
 * or the one asked for). Sets plan.fits; never an error for lack of memory. `cache_length` as in
 * tn_pass_limits. */
tn_status tn_engine_plan(tn_engine *engine, int64_t rows, int64_t documents, int64_t longest,
                         int64_t cache_length);
/* Longest context (one document a row, batch size 1) that fits, by bisection; into plan.longest_context. */
tn_status tn_engine_longest(tn_engine *engine);
/* Does it compute on the CPU, in memory that processes of one machine share? */
bool tn_engine_on_host(const tn_engine *engine);
/* Pinned host memory that this process may have: its share where several plan on one machine. */
int64_t tn_engine_pinnable(const tn_engine *engine);
/* TN_NO_FIT with what would fit, where the plan does not fit; else allocates, places and loads everything. */
tn_status tn_engine_allocate(tn_engine *engine);
/* The plan's "params" and "memory" members, as `plan` prints them. */
void tn_engine_write_params(const tn_engine *engine, tn_json_writer *w);
void tn_engine_write_memory(const tn_engine *engine, tn_json_writer *w);
/* Floating-point operations of one training step over `tokens` tokens in documents of about `length`,
 * `labelled` of them with a loss: products, attention and LoRA. What is recomputed does not count. */
double tn_engine_step_flops(const tn_engine *engine, int64_t tokens, int64_t length, int64_t labelled);
/* Text for people: model, hash, precision, groups, "trainable params: X || all params: Y || trainable%: Z". */
tn_status tn_engine_describe(const tn_engine *engine, tn_str *out);
/* What the optimizer keeps: AdamW two arrays, Lion and SGD with momentum one, SGD none. */
tn_moments tn_optimizer_moments(const tn_settings *settings);
/* Learning rate of a group at factor 1. */
double tn_group_learning_rate(const tn_settings *settings, tn_group group);

/* Opens the files that `names` stand for (the settings' dataset or eval_dataset) as data for this engine's
 * tokenizer and length. */
tn_status tn_engine_dataset(tn_engine *engine, const char *const *names, int64_t count, bool allow_unlabelled,
                            tn_dataset **dataset);

#endif
