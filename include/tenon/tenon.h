/* tenon.h: the public C interface of tenon, a fine-tuning engine for large language models.
 *
 * The library is the product and this header is its whole face: the command line uses nothing else.
 * It keeps three promises. It never exits, aborts or prints on input: every call returns a tn_status,
 * and the message of the last failure of the calling thread is read with tn_error_message(). It takes
 * all settings through one object, tn_config, whose keys are those of the command line. It answers
 * with a tn_doc, a JSON document that can be read by path or taken as text.
 *
 * Ownership: what a tn_..._new or an out-parameter of type T ** gives is the caller's and goes back
 * through the matching tn_..._free; strings returned as const char * live as long as their object.
 * Threads: objects are not shared between threads without a lock; separate objects may be.
 */
#ifndef TENON_TENON_H
#define TENON_TENON_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TENON_VERSION "0.1.0" /* of this header; of the library that is loaded: tn_version() */

#if defined(__GNUC__)
#define TN_API __attribute__((visibility("default")))
#define TN_PRINTF(format_index, first) __attribute__((format(printf, format_index, first)))
#else
#define TN_API
#define TN_PRINTF(format_index, first)
#endif

TN_API const char *tn_version(void);

/* ---- Status and errors ------------------------------------------------------------------------- */

/* Why a call failed. The command line turns each into its exit code. */
typedef enum tn_status {
    TN_OK = 0,
    TN_FAILED,      /* run-time failure without a better name: out of memory, a library's error */
    TN_USAGE,       /* usage or configuration: unknown key, conflict, a path that does not exist */
    TN_BAD_DATA,    /* a file is damaged, or data with nothing left to train on */
    TN_NO_FIT,      /* what was asked does not fit the memory there is */
    TN_NUMERIC,     /* NaN or Inf in the loss or the gradient norm */
    TN_STORAGE,     /* disk full, read or write error */
    TN_INTERRUPTED, /* the caller asked to stop; a resumable checkpoint was written */
} tn_status;

/* Message of the last failed call of this thread: names the file, tensor or key. Never NULL. */
TN_API const char *tn_error_message(void);
/* What the user can do about it; "" where the message says it all. Never NULL. */
TN_API const char *tn_error_remedy(void);

typedef enum tn_log_level { TN_LOG_INFO, TN_LOG_WARNING } tn_log_level;
/* Receives one line (no newline at its end) of information or warning. Default: nothing is shown. */
typedef void tn_log_function(void *user, tn_log_level level, const char *line);
TN_API void tn_log_set(tn_log_function *function, void *user);

/* ---- Documents: the answers of the verbs --------------------------------------------------------- */

typedef struct tn_doc tn_doc;
/* The document as JSON text, without a newline at its end. */
TN_API const char *tn_doc_text(const tn_doc *doc);
/* Reading by path: "params.groups[0].name". A missing or differently typed value gives `otherwise`. */
TN_API double tn_doc_number(const tn_doc *doc, const char *path, double otherwise);
TN_API int64_t tn_doc_integer(const tn_doc *doc, const char *path, int64_t otherwise);
TN_API bool tn_doc_boolean(const tn_doc *doc, const char *path, bool otherwise);
TN_API const char *tn_doc_string(const tn_doc *doc, const char *path, const char *otherwise);
/* Number of items of an array or members of an object; -1 where there is none. */
TN_API int64_t tn_doc_count(const tn_doc *doc, const char *path);
/* Name of member `index` of the object at `path`; NULL where there is none. */
TN_API const char *tn_doc_key(const tn_doc *doc, const char *path, int64_t index);
TN_API void tn_doc_free(tn_doc *doc);

/* ---- Configuration ------------------------------------------------------------------------------- */

/* The settings of one run. Every key, alias, default and help line comes from one table. */
typedef struct tn_config tn_config;

/* `verb` is a verb of the command line ("train", "eval", …) and decides which keys are known. */
TN_API tn_status tn_config_new(const char *verb, tn_config **config);
TN_API void tn_config_free(tn_config *config);
/* Sets a key (or an alias of it) from text, as on the command line. An unknown key is TN_USAGE, and
 * the message names the nearest known one. Setting a key twice keeps the later value. */
TN_API tn_status tn_config_set(tn_config *config, const char *key, const char *value);
/* Reads a YAML file of keys. Values set by tn_config_set win over it whatever the order. */
TN_API tn_status tn_config_load(tn_config *config, const char *yaml_path);
/* True where `key` is known to this verb and holds a boolean (so that it may stand without a value). */
TN_API bool tn_config_is_boolean(const tn_config *config, const char *key);
/* The value in force as text ("" where none); NULL for an unknown key. */
TN_API const char *tn_config_get(const tn_config *config, const char *key);

/* One row of the table of keys, for help texts. */
typedef struct tn_key_info {
    const char *name, *aliases /* comma-separated, may be "" */, *kind /* "integer", "path", … */;
    const char *default_value, *help;
} tn_key_info;
/* Row `index` of the keys that `verb` knows; false behind the last. */
TN_API bool tn_config_key(const char *verb, int64_t index, tn_key_info *info);

/* ---- Training and its kin ------------------------------------------------------------------------ */

/* What a running job reports. */
typedef enum tn_event_kind {
    TN_EVENT_BANNER, /* doc: what will be trained; `text` is the banner, several lines */
    TN_EVENT_STEP,   /* after an optimizer step; the numbers below */
    TN_EVENT_EVAL,   /* after an evaluation; loss holds eval_loss */
    TN_EVENT_SAVE,   /* a checkpoint or the final adapter was written; `text` is its path */
} tn_event_kind;

typedef struct tn_event {
    tn_event_kind kind;
    const char *text;
    int64_t step, steps; /* optimizer steps done and planned */
    double loss, grad_norm, learning_rate, epoch;
    double tokens_per_second, percent_of_ceiling /* NaN where unknown */, seconds_left;
    int64_t tokens; /* trained on so far */
} tn_event;

typedef struct tn_hooks {
    void *user;
    void (*on_event)(void *user, const tn_event *event); /* may be NULL */
    bool (*should_stop)(void *user);                     /* asked between steps, or tensors; may be NULL */
} tn_hooks;

/* The place of this process among those of one run, one a GPU, as torchrun, mpirun, Slurm or the key `gpus` of
 * the program put it into the environment; alone, rank 0 of 1. tn_train and tn_bench go by it. Of several
 * processes rank 0 alone sends events and gets a document (elsewhere *doc is NULL), all get the same status,
 * and where rank 0 says why a run failed the message of the others is empty. */
typedef struct tn_ranks {
    int rank, world;             /* 0 … world - 1 */
    int local_rank, local_world; /* among those of this machine; local_world 0: unknown */
} tn_ranks;
/* TN_USAGE where the environment contradicts itself. */
TN_API tn_status tn_ranks_read(tn_ranks *ranks);

/* Each runs the verb of its name with the keys of `config`; `*doc` becomes its JSON document (see
 * docs/formats.md). `hooks` may be NULL. On failure `*doc` is NULL. */
TN_API tn_status tn_train(tn_config *config, const tn_hooks *hooks, tn_doc **doc);
TN_API tn_status tn_plan(tn_config *config, tn_doc **doc);
TN_API tn_status tn_eval(tn_config *config, const tn_hooks *hooks, tn_doc **doc);
TN_API tn_status tn_bench(tn_config *config, const tn_hooks *hooks, tn_doc **doc);
TN_API tn_status tn_init(tn_config *config, tn_doc **doc);
TN_API tn_status tn_data(tn_config *config, tn_doc **doc);
TN_API tn_status tn_inspect(tn_config *config, tn_doc **doc);
TN_API tn_status tn_verify(tn_config *config, tn_doc **doc);
TN_API tn_status tn_env(tn_config *config, tn_doc **doc);
/* Three that write a model, which appears when it is whole; should_stop is asked between tensors, and then
 * nothing is left. merge: base + adapter to a model directory of its own; compares the logits. */
TN_API tn_status tn_merge(tn_config *config, const tn_hooks *hooks, tn_doc **doc);
/* The verb quantize: a directory in the layout of bitsandbytes, or with a GGUF file. */
TN_API tn_status tn_quantize_model(tn_config *config, const tn_hooks *hooks, tn_doc **doc);
/* Base + adapter, or the adapter alone, to a GGUF file. */
TN_API tn_status tn_export(tn_config *config, const tn_hooks *hooks, tn_doc **doc);

/* ---- Generation ---------------------------------------------------------------------------------- */

typedef struct tn_generator tn_generator;
/* Opens base model, adapter and tokenizer for sampling. `config` is of the verb `chat`, or of `generate`, which
 * insists on a prompt or messages of its own; what to continue comes with the calls below. */
TN_API tn_status tn_generator_open(tn_config *config, tn_generator **generator);
/* Changes how the calls below sample: max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty or
 * seed. The model stays open; any other key is TN_USAGE. */
TN_API tn_status tn_generator_set(tn_generator *generator, const char *key, const char *value);
/* Receives text as it becomes certain (whole UTF-8 characters). Returning false stops with "stop". */
typedef bool tn_text_function(void *user, const char *text, int64_t bytes);
/* Continues raw text. `*doc`: {"text", "ids", "prompt_ids", "finish_reason"}. */
TN_API tn_status tn_generate_text(tn_generator *generator, const char *prompt, tn_text_function *on_text,
                                  void *user, tn_doc **doc);
/* Continues `count` token ids as they are: nothing is put in front of them. TN_BAD_DATA where one is no token.
 */
TN_API tn_status tn_generate_ids(tn_generator *generator, const int32_t *ids, int64_t count,
                                 tn_text_function *on_text, void *user, tn_doc **doc);
/* Answers a conversation: a JSON list of messages or a record with "messages", through the chat template. Its
 * pictures are named as in a data set; paths are relative to the file of the key `messages`, where there is
 * one. */
TN_API tn_status tn_generate_chat(tn_generator *generator, const char *messages_json, tn_text_function *on_text,
                                  void *user, tn_doc **doc);
TN_API void tn_generator_free(tn_generator *generator);

/* ---- Tokenizer ----------------------------------------------------------------------------------- */

typedef struct tn_tokenizer tn_tokenizer;
/* `path`: a directory with tokenizer.json, such a file, or a GGUF file. */
TN_API tn_status tn_tokenizer_open(const char *path, tn_tokenizer **tokenizer);
TN_API void tn_tokenizer_free(tn_tokenizer *tokenizer);
/* One line of the verb `tokenize`: a JSON record in ("text", "messages", or "ids" for the way back), a JSON
 * document {"ids", "text"} out, or {"error"} where the template rejects the conversation. */
TN_API tn_status tn_tokenize_record(tn_tokenizer *tokenizer, const char *record, int64_t bytes,
                                    bool add_special_tokens, tn_doc **doc);

#ifdef __cplusplus
}
#endif
#endif
