/* config_resolve.c: the settings as a whole: what two keys together must not say, what a verb cannot do
 * without, and the texts that record what was used.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "train/config_table.h"

static bool is_word(const char *text, const char *word) { return text && strcmp(text, word) == 0; }
static bool is_verb(const tn_config *config, const char *verb) { return is_word(config->verb, verb); }

/* Did a flag or the file say it? */
static bool is_explicit(const tn_config *config, const char *key) {
    return tn_config_setter(config, key) >= TN_SET_FILE;
}

/* Both verbs that know the key write GGUF types; other words are of one of them. */
static tn_status check_to(const char *to, bool quantize) {
    const char *verb = quantize ? "quantize" : "export";
    if (to && strncmp(to, "gguf:", strlen("gguf:")) == 0) return TN_OK;
    if (to && (is_word(to, "nf4") || is_word(to, "int8")) == quantize) return TN_OK;
    if (to) tn_fail(TN_USAGE, "to: %s does not write %s", verb, to);
    else tn_fail(TN_USAGE, "%s needs to: what to write", verb);
    return tn_remedy(
        quantize ? "add --to nf4, --to int8 or --to gguf:TYPE (f32, f16, bf16, q8_0, q4_0, q4_k, q6_k)"
                 : "add --to gguf:TYPE (f32, f16, bf16, q8_0, q4_0, q4_k, q6_k), --to gguf or --to lora-gguf");
}

static tn_status check_required(const tn_config *config, const tn_settings *s) {
    bool trains = is_verb(config, "train") && !s->dry_run, data = is_verb(config, "data");
    bool eval = is_verb(config, "eval"), init = is_verb(config, "init"), verify = is_verb(config, "verify");
    bool merge = is_verb(config, "merge"), export = is_verb(config, "export");
    bool quantize = is_verb(config, "quantize");
    bool needs_model = tn_config_get(config, "model") && !verify; /* every verb that knows the key */
    const struct {
        bool missing;
        const char *key, *what;
    } required[] = {
        {needs_model && !s->model, "model", "a model directory or a GGUF file"},
        {(trains || data || eval) && s->datasets == 0, "dataset", "a .jsonl, .json, .csv or .txt file"},
        {(trains || init || merge || quantize) && !s->output_dir, "output_dir", "a directory to write to"},
        {export && !s->output, "output", "the file to write"},
        {(verify || merge) && !s->adapter, "adapter", "the directory of an adapter"},
    };
    for (size_t i = 0; i < sizeof required / sizeof *required; i++)
        if (required[i].missing) {
            tn_fail(TN_USAGE, "%s needs %s: %s", config->verb, required[i].key, required[i].what);
            return tn_remedy("add --%s PATH, or a line '%s: PATH' in the configuration file", required[i].key,
                             required[i].key);
        }
    return export || quantize ? check_to(s->to, quantize) : TN_OK;
}

static tn_status check_precision(const tn_settings *s) {
    const char *names[3];
    int count = 0;
    if (s->load_in_4bit) names[count++] = "load_in_4bit";
    if (s->load_in_8bit) names[count++] = "load_in_8bit";
    if (s->load_in_fp8) names[count++] = "load_in_fp8";
    if (count > 1) {
        tn_fail(TN_USAGE, "%s and %s exclude each other: the base is held in one format", names[0], names[1]);
        return tn_remedy("set one of them to false");
    }
    if (count == 1 && s->full_finetuning) {
        tn_fail(TN_USAGE, "full_finetuning trains every weight, and %s freezes them in a quantised format",
                names[0]);
        return tn_remedy("leave out %s, or train a LoRA adapter (full_finetuning: false)", names[0]);
    }
    return TN_OK;
}

/* A full fine-tune has no LoRA whose keys it could honour. */
static tn_status check_full(const tn_config *config, const tn_settings *s) {
    static const char *const lora_keys[] = {
        "lora_r",   "lora_alpha",        "lora_dropout",   "target_modules",      "use_rslora",
        "use_dora", "init_lora_weights", "rank_pattern",   "alpha_pattern",       "exclude_modules",
        "bias",     "modules_to_save",   "layers_pattern", "layers_to_transform", "trainable_token_indices"};
    if (!s->full_finetuning) return TN_OK;
    for (size_t i = 0; i < sizeof lora_keys / sizeof *lora_keys; i++)
        if (is_explicit(config, lora_keys[i])) {
            tn_fail(TN_USAGE, "%s has no meaning with full_finetuning, which trains every weight",
                    lora_keys[i]);
            return tn_remedy("leave out %s or full_finetuning", lora_keys[i]);
        }
    return TN_OK;
}

static tn_status check_evaluation(const tn_config *config, const tn_settings *s) {
    bool split = !isnan(s->eval_split);
    if (s->eval_datasets > 0 && split) {
        tn_fail(TN_USAGE, "eval_dataset and eval_split both say what to evaluate on");
        return tn_remedy("leave out one of them");
    }
    if (split && s->eval_split >= 1 && (s->eval_split < 2 || s->eval_split != floor(s->eval_split))) {
        tn_fail(TN_USAGE, "eval_split %g is neither a part below 1 nor a number of records from 2",
                s->eval_split);
        return tn_remedy("0.05 keeps back a twentieth of the records, 200 keeps back 200 of them");
    }
    if (is_explicit(config, "eval_steps") && s->eval_steps > 0 && s->eval_datasets == 0 && !split) {
        tn_fail(TN_USAGE, "eval_steps is given, but nothing to evaluate on");
        return tn_remedy("add eval_dataset or eval_split, or leave out eval_steps");
    }
    return TN_OK;
}

/* So many times an epoch, or every so many steps. */
static tn_status check_intervals(const tn_config *config, const tn_settings *s) {
    const struct {
        int64_t per_epoch;
        const char *name, *steps;
    } pairs[] = {{s->evals_per_epoch, "evals_per_epoch", "eval_steps"},
                 {s->saves_per_epoch, "saves_per_epoch", "save_steps"}};
    for (int i = 0; i < 2; i++)
        if (pairs[i].per_epoch > 0 && is_explicit(config, pairs[i].steps)) {
            tn_fail(TN_USAGE, "%s and %s both say how often", pairs[i].name, pairs[i].steps);
            return tn_remedy("leave out one of them");
        }
    return TN_OK;
}

static tn_status check_schedule(const tn_config *config, const tn_settings *s) {
    bool wants = is_word(s->lr_scheduler_type, "cosine_with_min_lr");
    if (!isnan(s->min_lr) && !isnan(s->min_lr_rate)) {
        tn_fail(TN_USAGE, "min_lr and min_lr_rate both say where the rate ends");
        return tn_remedy("leave out one of them");
    }
    if (wants && isnan(s->min_lr) && isnan(s->min_lr_rate)) {
        tn_fail(TN_USAGE, "lr_scheduler_type cosine_with_min_lr needs min_lr");
        return tn_remedy("add e.g. --min_lr 2e-5");
    }
    const char *unused = is_explicit(config, "min_lr") && !isnan(s->min_lr)             ? "min_lr"
                         : is_explicit(config, "min_lr_rate") && !isnan(s->min_lr_rate) ? "min_lr_rate"
                                                                                        : NULL;
    if (!wants && unused) {
        tn_fail(TN_USAGE, "%s is not used by lr_scheduler_type %s", unused, s->lr_scheduler_type);
        return tn_remedy("choose cosine_with_min_lr, or leave out %s", unused);
    }
    if (!isnan(s->min_lr) && s->min_lr > s->learning_rate) {
        tn_fail(TN_USAGE, "min_lr %g is above learning_rate %g", s->min_lr, s->learning_rate);
        return tn_remedy("min_lr is where the rate ends, a tenth of learning_rate say");
    }
    return TN_OK;
}

static tn_status check_optimizer(tn_config *config, const tn_settings *s) {
    const bool sgd = is_word(s->optim, "sgd"), lion = is_word(s->optim, "lion");
    tn_status status = TN_OK;
    if (sgd || lion)
        TN_TRY(
            tn_config_unused(config, "adam_epsilon", sgd ? "optim is sgd" : "optim is lion, which has none"));
    if (sgd) TN_TRY(tn_config_unused(config, "adam_beta1", "optim is sgd, whose momentum is that of momentum"));
    if (sgd) TN_TRY(tn_config_unused(config, "adam_beta2", "optim is sgd"));
    if (s->momentum <= 0 || sgd || !is_explicit(config, "momentum")) goto done;
    tn_fail(TN_USAGE, "momentum is SGD's, and optim is %s", s->optim);
    status = tn_remedy("leave out momentum (adam_beta1 is that of adamw and lion), or set optim: sgd");
done:
    return status;
}

/* A run that is resumed has the adapter of its checkpoint. */
static tn_status check_override(tn_config *config, const tn_settings *s) {
    if (s->adapter || (s->resume_from_checkpoint && !is_word(s->resume_from_checkpoint, "false"))) return TN_OK;
    return tn_config_unused(config, "override",
                            "it changes settings of an adapter that is continued, and no adapter is given");
}

static tn_status check_prompt(const tn_config *config, const tn_settings *s) {
    if (!is_verb(config, "generate")) return TN_OK;
    if (s->prompt && s->messages) {
        tn_fail(TN_USAGE, "prompt and messages exclude each other");
        return tn_remedy("prompt is raw text; a conversation goes into the file of messages");
    }
    if (s->prompt || s->messages) return TN_OK;
    tn_fail(TN_USAGE, "generate needs prompt or messages");
    return tn_remedy("add --prompt \"raw text\", or --messages FILE with a JSON list of messages");
}

/* Defaults that hang on other keys. */
static void derive(const tn_config *config, tn_settings *s) {
    bool cpt = is_word(s->stage, "cpt");
    if (cpt && tn_config_setter(config, "train_on_responses_only") == TN_SET_DEFAULT)
        s->train_on_responses_only = false;
    if (s->per_device_eval_batch_size < 0) s->per_device_eval_batch_size = s->per_device_train_batch_size;
    if (!isnan(s->min_lr_rate)) s->min_lr = s->min_lr_rate * s->learning_rate;
    if (isnan(s->embedding_learning_rate)) s->embedding_learning_rate = s->learning_rate / 10;
    if (is_verb(config, "bench") && s->max_steps > 0 && !is_explicit(config, "steps")) s->steps = s->max_steps;
}

tn_status tn_config_resolve(tn_config *config, const tn_settings **settings) {
    tn_status status = TN_OK;
    tn_settings *s = &config->settings;
    *s = (tn_settings){0};
    for (int i = 0; i < tn_config_key_count; i++) /* keys of other verbs too: their fields hold the defaults */
        TN_TRY(tn_value_store(&config->arena, &tn_config_keys[i], tn_config_value(config, i), s));
    TN_TRY(check_precision(s));
    TN_TRY(check_full(config, s));
    TN_TRY(check_evaluation(config, s));
    TN_TRY(check_intervals(config, s));
    TN_TRY(check_schedule(config, s));
    TN_TRY(check_optimizer(config, s));
    TN_TRY(check_override(config, s));
    TN_TRY(check_prompt(config, s));
    TN_TRY(check_required(config, s));
    derive(config, s);
    *settings = s;
done:
    return status;
}

/* The canonical text of a key as the engine used it; NULL = none. */
static const char *used_text(const tn_config *config, int row) {
    const tn_entry *e = &config->entries[row];
    if (e->used) return *e->used ? e->used : NULL;
    return tn_config_value(config, row)->text;
}

static void put_paths(tn_json_writer *w, const char *text) {
    tn_json_begin(w, '[');
    for (size_t length; *text; text += length + (text[length] == ',')) {
        length = strcspn(text, ",");
        tn_json_put_string(w, text, (int64_t)length);
    }
    tn_json_end(w, ']');
}

/* Typed as JSON; the same text is YAML's flow style. */
static void put_value(const tn_config *config, int row, tn_json_writer *w) {
    const tn_key *key = &tn_config_keys[row];
    const char *text = used_text(config, row);
    int64_t integer, length = text ? (int64_t)strlen(text) : 0;
    double real;
    if (!text) tn_json_put_null(w);
    else if (key->kind == TN_KEY_BOOLEAN) tn_json_put_boolean(w, strcmp(text, "true") == 0);
    else if ((key->kind == TN_KEY_INTEGER || key->kind == TN_KEY_SIZE) &&
             tn_parse_integer(text, length, &integer))
        tn_json_put_integer(w, integer);
    else if (key->kind == TN_KEY_REAL && tn_parse_real(text, length, &real)) tn_json_put_real(w, real);
    else if (key->kind == TN_KEY_PATHS) put_paths(w, text);
    else if (key->kind == TN_KEY_MAP && tn_config_value(config, row)->node)
        tn_json_put(w, tn_config_value(config, row)->node);
    else tn_json_put_string(w, text, length);
}

const char *tn_config_unwritable(const tn_config *config) {
    for (int i = 0; i < tn_config_key_count; i++) {
        const char *text = tn_config_keys[i].verbs & config->verb_bit ? used_text(config, i) : NULL;
        if (text && !tn_utf8_valid(text, (int64_t)strlen(text))) return tn_config_keys[i].name;
    }
    return NULL;
}

void tn_config_write_json(const tn_config *config, tn_json_writer *w) {
    tn_json_begin(w, '{');
    for (int i = 0; i < tn_config_key_count; i++) {
        if (!(tn_config_keys[i].verbs & config->verb_bit)) continue;
        tn_json_key(w, tn_config_keys[i].name);
        put_value(config, i, w);
    }
    tn_json_end(w, '}');
}

tn_status tn_config_write_yaml(const tn_config *config, tn_str *out) {
    for (int i = 0; i < tn_config_key_count; i++) {
        if (!(tn_config_keys[i].verbs & config->verb_bit)) continue;
        tn_json_writer w = tn_json_write_to(out, 0);
        tn_str_printf(out, "%s: ", tn_config_keys[i].name);
        put_value(config, i, &w);
        tn_str_putc(out, '\n');
    }
    return tn_str_check(out, "config.resolved.yaml");
}
