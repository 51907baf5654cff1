/* engine.c: opening in order, and allocation. Planning is in plan.c. */
#include "train/engine.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/thread.h"
#include "data/pictures.h"
#include "train/base_format.h"
#include "train/find_data.h"
#include "train/lora_config.h"
#include "train/ranks.h"

/* ---- Opening ------------------------------------------------------------------------------------- */

static tn_status check_supported(const tn_settings *s) {
    if (strcmp(s->optim, "paged_adamw_8bit") == 0)
        tn_info("optim paged_adamw_8bit is adamw_8bit here: its state stays on the device, as plan counts it");
    if (strcmp(s->bias, "none") != 0) {
        tn_fail(TN_USAGE,
                "bias %s, which trains biases of the base beside LoRA, is not supported by this version",
                s->bias);
        return tn_remedy(
            "leave it out, or name modules in modules_to_save, whose weight and bias then train in full");
    }
    return TN_OK;
}

/* The tree of config.json: from the model's files, or of a well-known shape where `model` is its name. */
static tn_status open_model(tn_engine *e, bool weights, const tn_json **config) {
    const char *model = e->settings->model, *shape;
    if (!model) {
        tn_fail(TN_USAGE, "no model is given");
        return tn_remedy("--model DIRECTORY or --model FILE.gguf");
    }
    shape = tn_is_directory(model) || tn_is_file(model) ? NULL : tn_shape_config(model);
    if (shape && weights) {
        tn_fail(TN_USAGE, "%s is the name of a shape, not a model with weights", model);
        return tn_remedy("shapes work with plan, bench and init");
    }
    if (shape) return tn_json_parse(&e->arena, shape, (int64_t)strlen(shape), TN_JSON_DEFAULT, model, config);
    tn_status status = tn_model_files_open(model, weights, &e->files);
    if (status == TN_USAGE && !weights)
        tn_remedy("a model directory, a config.json, a .gguf file, or one of: %s", tn_shape_names());
    if (status != TN_OK) return status;
    *config = tn_model_files_config(e->files);
    return tn_model_files_hash(e->files, e->base_hash);
}

/* rope_scaling: the key, else what the adapter's run recorded, else the model's own. */
static tn_status find_rope_scaling(tn_engine *e, const tn_json **scaling) {
    *scaling = e->settings->rope_scaling;
    if (*scaling) return tn_rope_check_key(*scaling);
    if (!e->adapter_directory) return TN_OK;
    const char *path = tn_path_join(&e->arena, e->adapter_directory, "run.json");
    const tn_json *run;
    if (!path || !tn_is_file(path)) return TN_OK;
    tn_status status = tn_json_read_file(&e->arena, path, TN_JSON_DEFAULT, &run);
    if (status != TN_OK) return status;
    const tn_json *found = tn_json_path(run, "config.rope_scaling");
    if (found && found->type == TN_JSON_OBJECT) *scaling = found;
    return TN_OK;
}

static tn_status set_max_length(tn_engine *e) {
    e->max_length = e->settings->max_length;
    if (e->max_length <= e->arch.trained_length) return TN_OK;
    if (tn_config_setter(e->config, "max_length") == TN_SET_DEFAULT) {
        e->max_length = e->arch.trained_length;
        /* else nobody will use it */
        if (tn_config_get(e->config, "max_length") && e->use != TN_USE_FILES)
            tn_info("max_length is lowered from %lld to the model's trained length of %lld",
                    (long long)e->settings->max_length, (long long)e->max_length);
        return TN_OK;
    }
    if (e->settings->rope_scaling) return TN_OK;
    tn_fail(TN_USAGE, "max_length %lld is beyond the model's trained length of %lld", (long long)e->max_length,
            (long long)e->arch.trained_length);
    return tn_remedy(
        "lower max_length, or stretch the model with --rope_scaling '{\"rope_type\":\"yarn\",\"factor\":4}'");
}

tn_status tn_engine_open_device(tn_engine *e, const char *name) {
    tn_dtype dtype = TN_DTYPE_F32;
    bool any = strcmp(name, "auto") == 0;
    if (!any && !tn_dtype_from_name(name, &dtype)) {
        tn_fail(TN_USAGE, "dtype: \"%s\" is not a precision", name);
        return tn_remedy("auto, float32, bfloat16 or float16");
    }
    char device[TN_RANKS_DEVICE];
    snprintf(device, sizeof device, "%s", e->settings->device);
    tn_status status = e->use == TN_USE_TRAIN ? tn_ranks_device(e->settings->device, device) : TN_OK;
    if (status == TN_OK) status = tn_device_open(device, dtype, any, &e->device);
    if (status == TN_OK && e->device->dtype == TN_DTYPE_F16 && strcmp(e->device->backend->name, "cpu") == 0)
        tn_warn(
            "the CPU computes float16 with the plain reference, many times slower than float32 or bfloat16");
    return status;
}

const char *const tn_base_config_names[TN_BASE_CONFIGS] = {"config.json", "generation_config.json"};

static tn_status keep_base_configs(tn_engine *e) {
    tn_status status = TN_OK;
    for (int i = 0; i < TN_BASE_CONFIGS; i++) {
        const char *path = tn_path_join(&e->arena, e->settings->model, tn_base_config_names[i]);
        if (!path) TN_THROW(TN_FAILED, "out of memory for a path");
        if (tn_is_file(path)) TN_TRY(tn_read_file(path, INT64_MAX, &e->base_configs[i]));
    }
done:
    return status;
}

tn_status tn_engine_refuse_vision(const tn_engine *e, const char *what) {
    if (!e->arch.vision) return TN_OK;
    tn_fail(TN_USAGE, "%s: %s is not supported yet for %s: its vision tower would be left out",
            e->settings->model, what, tn_family_name(e->arch.family));
    return tn_remedy("train a LoRA adapter, which merge writes into a model with its tower");
}

/* Every weight trains, so every weight must be at hand in a format that can change, and config.json stays. Each
 * is saved in the dtype it came in, whatever the config says (`dtype`). */
static tn_status open_full(tn_engine *e, tn_dtype dtype) {
    const tn_settings *s = e->settings;
    tn_status status;
    if (e->files && tn_model_files_get_kind(e->files) == TN_MODEL_GGUF) {
        tn_fail(TN_USAGE, "full_finetuning trains every weight, and %s is a GGUF file", s->model);
        return tn_remedy("give the model's directory (config.json, safetensors), or train a LoRA adapter");
    }
    if (e->adapter_directory && e->adapter_directory == s->adapter) { /* else a checkpoint is resumed */
        tn_fail(TN_USAGE, "full_finetuning trains the model itself, and --adapter %s stands on it", s->adapter);
        return tn_remedy("leave out adapter or full_finetuning");
    }
    char model[PATH_MAX], output[PATH_MAX];
    if (s->model && s->output_dir && realpath(s->model, model) && realpath(s->output_dir, output) &&
        strcmp(model, output) == 0) {
        tn_fail(TN_USAGE, "output_dir %s is the model's own directory, whose weights are being read",
                s->output_dir);
        return tn_remedy("give another output_dir");
    }
    if (s->rope_scaling) {
        tn_fail(TN_USAGE, "rope_scaling cannot be changed with full_finetuning yet");
        return tn_remedy("write it into the model's config.json, which the result takes over as it is");
    }
    status = tn_engine_refuse_vision(e, "full_finetuning");
    if (status == TN_OK) status = keep_base_configs(e);
    if (status == TN_OK) status = tn_adapter_new_full(&e->arch, dtype, &e->adapter);
    for (int64_t i = 0; status == TN_OK && e->files && i < e->adapter->param_count; i++) {
        tn_param *p = &e->adapter->params[i];
        const tn_tensor_info *stored = tn_model_files_find(e->files, p->name);
        if (stored && tn_dtype_is_float(stored->dtype)) p->dtype = stored->dtype;
    }
    return status;
}

/* Known only now that targets and modules_to_save have met the model. */
static tn_status check_embedding_rate(const tn_engine *e) {
    int64_t trained =
        tn_adapter_group_count(e->adapter, TN_GROUP_EMBED) + tn_adapter_group_count(e->adapter, TN_GROUP_HEAD);
    if (e->use != TN_USE_TRAIN || trained > 0) return TN_OK;
    const char *reason = e->adapter->full ? "full_finetuning trains every weight at learning_rate"
                                          : "neither embed_tokens nor lm_head trains (modules_to_save, "
                                            "trainable_token_indices)";
    return tn_config_unused(e->config, "embedding_learning_rate", reason);
}

/* all-linear by default means every linear module that can train, and says so where that is not every one. */
static const char *targets_of(const tn_engine *e) {
    if (!e->arch.vision || tn_config_setter(e->config, "target_modules") != TN_SET_DEFAULT) return NULL;
    tn_info("target_modules: the linear modules of the language model; those of the vision tower stay frozen");
    return "language";
}

static tn_status open_adapter(tn_engine *e) {
    const tn_settings *s = e->settings;
    tn_peft_config *config;
    tn_status status;
    tn_dtype dtype = tn_dtype_is_float(e->arch.stored_dtype) ? e->arch.stored_dtype : TN_DTYPE_F32;
    const char *name = e->adapter_directory ? e->adapter_directory : "the adapter";
    if (e->use == TN_USE_TRAIN && s->full_finetuning) return open_full(e, dtype);
    if (e->adapter_directory) status = tn_lora_config_continue(e->config, s, e->adapter_directory, &config);
    else if (e->use == TN_USE_TRAIN) status = tn_lora_config_fresh(s, targets_of(e), &config);
    else return tn_adapter_empty(&e->adapter);
    if (status != TN_OK) return status;
    status = tn_adapter_new(&e->arch, config, dtype, name, &e->adapter);
    if (status != TN_OK) return status;
    return tn_config_resolve(e->config, &e->settings); /* the adapter's values are inherited now */
}

static tn_status open_chat(tn_engine *e) {
    tn_arena *arena = &e->arena;
    const char *model = e->settings->model;
    if (!e->files) return TN_OK;
    if (tn_model_files_get_kind(e->files) == TN_MODEL_CONFIG_ONLY) return TN_OK;
    /* An adapter that brought its own tokenizer (added tokens, another template) is read with it. */
    if (e->adapter_directory && tn_is_file(tn_path_join(arena, e->adapter_directory, "tokenizer.json")))
        model = e->adapter_directory;
    else if (tn_is_directory(model) && !tn_is_file(tn_path_join(arena, model, "tokenizer.json"))) return TN_OK;
    return tn_chat_open(model, &e->chat);
}

/* The template, and its date. A date in the samples is the run's, not the moment's: a run resumed tomorrow sees
 * the same tokens, and the token cache knows one day's from another's. A conversation (generate, chat) is held
 * now. */
static tn_status set_template(tn_engine *e) {
    const char *date = e->settings->template_date;
    char today[16];
    time_t seconds = time(NULL);
    struct tm now;
    tn_status status = tn_choose_template(e->chat, e->settings->chat_template);
    if (status != TN_OK || !e->chat || e->use == TN_USE_GENERATE || e->use == TN_USE_FILES) return status;
    if (strcmp(date, "today") == 0) {
        if (!localtime_r(&seconds, &now)) return tn_fail(TN_FAILED, "the time of day is not to be had");
        strftime(today, sizeof today, "%Y-%m-%d", &now);
        date = today;
    }
    status = tn_context(tn_chat_set_date(e->chat, date), "template_date");
    return status == TN_OK ? tn_config_used(e->config, "template_date", date) : status;
}

/* Transformers drops base activations in training where config.json says so (granite 3.0, seed_oss: 0.1). */
static void say_dropout(const tn_engine *e) {
    if (e->use == TN_USE_TRAIN && e->arch.dropout > 0)
        tn_warn(
            "%s asks for a dropout of %g inside the base, which is not applied; lora_dropout is the only one",
            e->settings->model, e->arch.dropout);
}

/* Configuration, files and architecture. */
static tn_status open_arch(tn_engine *e, tn_config *config, tn_use use, bool weights, const char *adapter) {
    const tn_json *tree;
    tn_status status;
    *e = (tn_engine){.config = config, .use = use, .processes = 1, .processes_here = 1};
    TN_TRY(tn_config_resolve(config, &e->settings));
    TN_TRY(tn_threads_set((int)e->settings->threads));
    TN_TRY(check_supported(e->settings));
    e->adapter_directory = adapter ? adapter : e->settings->adapter;
    TN_TRY(open_model(e, weights, &tree));
    TN_TRY(tn_base_format(e->settings, e->files, tree, &e->quantise_to));
    TN_TRY(find_rope_scaling(e, &e->rope_scaling));
    TN_TRY(tn_arch_read(&e->arena, tree, e->rope_scaling, e->settings->model, &e->arch));
    say_dropout(e);
    status = set_max_length(e);
done:
    return status;
}

/* How the model takes pictures; their processor and the tower must be of one mind. */
static tn_status open_pictures(tn_engine *e) {
    if (!e->arch.vision || !e->chat || !tn_is_directory(e->settings->model)) return TN_OK;
    e->pictures = tn_arena_take(&e->arena, (int64_t)sizeof *e->pictures);
    if (!e->pictures) return tn_fail_memory((int64_t)sizeof *e->pictures, "picture settings");
    tn_status status =
        tn_picture_tokens_read(&e->arena, e->settings->model, tn_model_files_config(e->files), e->pictures);
    const tn_image_processor *p = &e->pictures->processor;
    const tn_vision_arch *v = e->arch.vision;
    if (status != TN_OK || p->patch == 0) return status;
    if (p->patch == v->patch && p->merge == v->merge && p->temporal == v->temporal) return TN_OK;
    tn_fail(TN_BAD_DATA, "%s: preprocessor_config.json and vision_config disagree about the size of patches",
            e->settings->model);
    return tn_remedy("fetch both from where the model came from");
}

/* How many train together: those that run, or for a plan those that shall. */
static tn_status count_processes(tn_engine *e) {
    tn_ranks ranks;
    if (e->use != TN_USE_TRAIN) return TN_OK;
    tn_status status = tn_ranks_read(&ranks);
    if (status != TN_OK) return status;
    e->processes = ranks.world > 1 || e->settings->processes < 1 ? ranks.world : (int)e->settings->processes;
    e->processes_here = ranks.world == 1 ? e->processes : ranks.local_world > 0 ? ranks.local_world : 1;
    return tn_ranks_check(ranks.world, e->settings->processes, e->settings->gradient_accumulation_steps);
}

tn_status tn_engine_open(tn_config *config, tn_use use, bool weights, const char *adapter, tn_engine *e) {
    tn_status status;
    TN_TRY(open_arch(e, config, use, weights, adapter));
    TN_TRY(count_processes(e));
    TN_TRY(tn_engine_open_device(e, e->settings->dtype));
    TN_TRY(open_adapter(e));
    TN_TRY(check_embedding_rate(e));
    TN_TRY(open_chat(e));
    TN_TRY(open_pictures(e));
    status = set_template(e);
done:
    if (status != TN_OK) tn_engine_close(e);
    return status;
}

tn_status tn_engine_open_data(tn_config *config, tn_engine *e) {
    tn_status status;
    TN_TRY(open_arch(e, config, TN_USE_EVAL, false, NULL));
    TN_TRY(open_chat(e));
    TN_TRY(open_pictures(e));
    status = set_template(e);
done:
    if (status != TN_OK) tn_engine_close(e);
    return status;
}

tn_status tn_engine_open_adapter(tn_config *config, tn_engine *e) {
    tn_status status;
    TN_TRY(open_arch(e, config, TN_USE_EVAL, false, NULL));
    status = open_adapter(e);
done:
    if (status != TN_OK) tn_engine_close(e);
    return status;
}

tn_status tn_engine_open_files(tn_config *config, tn_engine *e) {
    tn_status status;
    TN_TRY(open_arch(e, config, TN_USE_FILES, true, NULL));
    TN_TRY(open_adapter(e));
    TN_TRY(open_chat(e));
    status = set_template(e);
done:
    if (status != TN_OK) tn_engine_close(e);
    return status;
}

void tn_engine_release(tn_engine *e) {
    tn_pass_free(e->pass);
    tn_model_free(e->model);
    if (e->memory) e->device->backend->release(e->device, e->memory);
    if (e->pinned) e->device->backend->host_release(e->device, e->pinned, e->plan.pinned.used);
    tn_device_close(e->device);
    e->pass = NULL, e->model = NULL, e->memory = NULL, e->pinned = NULL, e->device = NULL;
    e->plan = (tn_memory_plan){0};
}

void tn_engine_close(tn_engine *e) {
    tn_engine_release(e);
    tn_adapter_free(e->adapter);
    tn_chat_free(e->chat);
    tn_model_files_close(e->files);
    for (int i = 0; i < TN_BASE_CONFIGS; i++) tn_str_free(&e->base_configs[i]);
    tn_arena_free(&e->arena);
    *e = (tn_engine){0};
}

static void add_stop(const tn_engine *e, int64_t id, int32_t *stops, int64_t *count) {
    if (id < 0 || id >= e->arch.vocab || *count >= TN_MOST_STOPS) return;
    for (int64_t i = 0; i < *count; i++)
        if (stops[i] == id) return;
    stops[(*count)++] = (int32_t)id;
}

int64_t tn_engine_stops(const tn_engine *e, int32_t stops[TN_MOST_STOPS]) {
    const tn_json *eos = tn_json_get(tn_model_files_generation_config(e->files), "eos_token_id");
    int64_t count = 0;
    for (int i = 0; i < e->arch.eos_count; i++) add_stop(e, e->arch.eos[i], stops, &count);
    if (eos && eos->type == TN_JSON_ARRAY)
        for (int64_t i = 0; i < eos->count; i++)
            add_stop(e, tn_json_integer(tn_json_at(eos, i), -1), stops, &count);
    else add_stop(e, tn_json_integer(eos, -1), stops, &count);
    if (count == 0 && e->chat) add_stop(e, tn_chat_eos(e->chat), stops, &count);
    return count;
}

/* Files of the names in the configuration, in an arena of the caller's. */
static tn_status find_files(const tn_engine *e, tn_arena *arena, const char *key, const char *const *names,
                            int64_t count, const char ***paths) {
    *paths = tn_arena_take(arena, (count + 1) * (int64_t)sizeof **paths);
    if (!*paths) return tn_fail_memory(count * 8, "a list of paths");
    for (int64_t i = 0; i < count; i++) {
        tn_status status = tn_find_dataset(arena, key, names[i], e->settings->dataset_dir, &(*paths)[i]);
        if (status != TN_OK) return status;
    }
    return TN_OK;
}

tn_status tn_engine_dataset(tn_engine *e, const char *const *names, int64_t count, bool allow_unlabelled,
                            tn_dataset **dataset) {
    const tn_settings *s = e->settings;
    tn_arena arena = {0};
    const char **paths;
    tn_dataset_stats stats;
    tn_status status;
    *dataset = NULL;
    if (count == 0) {
        tn_fail(TN_USAGE, "no dataset is given");
        return tn_remedy("--dataset FILE (.jsonl, .json, .csv or .txt)");
    }
    const char *key = names == s->eval_dataset ? "eval_dataset" : "dataset";
    TN_TRY(find_files(e, &arena, key, names, count, &paths));
    tn_dataset_options options = {.paths = paths,
                                  .count = count,
                                  .format = s->dataset_format,
                                  .stage = strcmp(s->stage, "cpt") == 0 ? TN_STAGE_CPT : TN_STAGE_SFT,
                                  .max_length = e->max_length,
                                  .max_records = s->max_samples > 0 ? s->max_samples : 0,
                                  .train_on_responses_only = s->train_on_responses_only,
                                  .allow_unlabelled = allow_unlabelled,
                                  .pictures = e->pictures,
                                  .vocab_size = e->arch.vocab};
    TN_TRY(tn_dataset_open(&options, e->chat, dataset));
    tn_dataset_get_stats(*dataset, &stats);
    if (stats.pictures > 0) {
        const int64_t patches = stats.largest_picture * e->arch.vision->merge * e->arch.vision->merge;
        if (patches > e->patches) e->patches = patches;
    }
done:
    tn_arena_free(&arena);
    return status;
}

/* ---- Allocation ---------------------------------------------------------------------------------- */

static tn_status refuse(const tn_engine *e) {
    char need[32], have[32];
    const bool device = e->plan.device_bytes > e->plan.available;
    if (device)
        tn_fail(TN_NO_FIT, "%s needed on %s, %s available%s", tn_bytes_text(e->plan.device_bytes, need),
                e->device->name, tn_bytes_text(e->plan.available, have),
                e->settings->memory_limit >= 0 ? " by memory_limit"
                : e->processes_here > 1        ? " to each of the processes on this machine"
                                               : "");
    else
        tn_fail(TN_NO_FIT,
                "gradient_checkpointing offload keeps %s in pinned host memory, and the host has %s left%s",
                tn_bytes_text(e->plan.pinned.used, need), tn_bytes_text(tn_engine_pinnable(e), have),
                e->processes_here > 1 ? " for each of the processes on this machine" : "");
    if (e->plan.longest_context > 0)
        return tn_remedy(
            "one document of up to %lld tokens would fit (--per_device_train_batch_size 1 --max_length %lld)",
            (long long)e->plan.longest_context, (long long)e->plan.longest_context);
    return tn_remedy(device ? "use a smaller model, a quantised one, or a larger device"
                            : "gradient_checkpointing full keeps everything on the device");
}

tn_status tn_engine_allocate(tn_engine *e) {
    const tn_backend *backend = e->device->backend;
    tn_region region = {0}, pinned = {0};
    tn_status status;
    if (!e->plan.fits) {
        if (e->use == TN_USE_TRAIN) TN_TRY(tn_engine_longest(e));
        return refuse(e);
    }
    TN_TRY(tn_pass_stage(e->pass));
    TN_TRY(backend->allocate(e->device, e->plan.region.used, &e->memory));
    if (e->plan.pinned.used > 0) TN_TRY(backend->host_allocate(e->device, e->plan.pinned.used, &e->pinned));
    region.base = e->memory, pinned.base = e->pinned;
    tn_model_place(e->model, &region);
    tn_adapter_place(e->adapter, &region, e->use == TN_USE_TRAIN, tn_optimizer_moments(e->settings));
    tn_pass_place(e->pass, &region, &pinned);
    tn_model_bind_adapter(e->model);
    TN_TRY(tn_model_load(e->model));
    if (e->adapter->elements == 0) goto done;
    int64_t bytes = e->adapter->elements * (int64_t)sizeof(float);
    TN_TRY(backend->zero(e->device, e->adapter->values, bytes)); /* the gaps between tensors too */
    if (e->use == TN_USE_TRAIN) TN_TRY(tn_adapter_clear(e->adapter, e->device));
    const tn_base base = {&e->arch, e->files};
    if (e->adapter_directory) TN_TRY(tn_adapter_load(e->adapter, &base, e->device, e->adapter_directory));
    else TN_TRY(tn_adapter_init(e->adapter, e->device, e->settings->seed, tn_model_base_values, e->model));
    status = tn_model_refresh(e->model);
done:
    return status;
}
