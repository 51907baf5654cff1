/* verb_merge.c: base + adapter to a model directory. It is written beside its final name and renamed when it is
 * whole, flushed, and has given the logits that base and adapter give: until then there is no output.
 */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "export/merge.h"
#include "export/model_write.h"
#include "train/probe.h"

/* ‖merged − base with adapter‖ / ‖base with adapter‖ of the logits beyond which something else than rounding
 * lies between them: 16-bit weights bring some 0.01. */
static const double farthest = 0.1;

/* The same between the base and what the adapter was trained on: NF4 brings some 0.2, another model 1 and more.
 */
static const double another = 0.7;

/* A verb's run on another model with the same device. */
typedef struct other {
    tn_config *config;
    tn_engine engine;
} other;

typedef struct merge {
    tn_arena arena;
    const tn_settings *settings;
    other base, trained /* where it is not the base */, result;
    tn_staging staging;
    const char *digits;
    tn_probe with_adapter, merged;
    int64_t bytes;
    double difference, from_model; /* NAN where they were not compared */
} merge;

static tn_status copy_keys(const tn_config *from, tn_config *to, const char *const *keys) {
    tn_status status = TN_OK;
    for (; *keys && status == TN_OK; keys++)
        if (tn_config_setter(from, *keys) >= TN_SET_FILE)
            status = tn_config_set(to, *keys, tn_config_get(from, *keys));
    return status;
}

/* Which keys of the verb a model is loaded with. */
typedef enum role { TRAINED_ON, MERGED_INTO, RESULT } role;

/* The keys of `chat` are all that loading a model can take. The weights that are merged into are those of the
 * file; load_in_4bit and its kind say what the adapter was trained on. */
static tn_status open_other(const tn_config *config, const char *model, role what, other *o) {
    static const char *const always[] = {"device", "dtype", "threads", "memory_limit", NULL};
    static const char *const with_adapter[] = {"adapter", "rope_scaling", "chat_template", NULL};
    static const char *const quantised[] = {"load_in_4bit", "load_in_8bit", "load_in_fp8", NULL};
    tn_status status;
    TN_TRY(tn_config_new("chat", &o->config));
    TN_TRY(tn_config_set(o->config, "model", model));
    TN_TRY(copy_keys(config, o->config, always));
    if (what != RESULT) TN_TRY(copy_keys(config, o->config, with_adapter));
    if (what == TRAINED_ON) TN_TRY(copy_keys(config, o->config, quantised));
    status = tn_engine_open_files(o->config, &o->engine);
done:
    return status;
}

static void close_other(other *o) {
    tn_engine_close(&o->engine);
    tn_config_free(o->config);
    *o = (other){0};
}

/* Is the model that the adapter was trained on another than the one it is merged into? */
static bool trained_on_another(const tn_settings *s) {
    return s->base_for_merge || s->load_in_4bit || s->load_in_8bit || s->load_in_fp8;
}

/* ---- Before anything is written ------------------------------------------------------------------ */

/* A second helping of the same adapter would go unnoticed. */
static tn_status check_not_merged(merge *m) {
    const char *earlier = tn_model_files_metadata(m->base.engine.files, tn_merged_adapters_key);
    const char *path = tn_path_join(&m->arena, m->settings->adapter, "adapter_model.safetensors");
    char *digits = tn_arena_take(&m->arena, 33);
    if (!path || !digits) return tn_fail_memory(256, "a path");
    tn_status status = tn_hash_file(path, digits);
    if (status != TN_OK) return status;
    m->digits = digits;
    if (!earlier || !strstr(earlier, digits)) return TN_OK;
    tn_fail(TN_USAGE, "%s: the adapter %s is merged into it already", m->base.engine.settings->model,
            m->settings->adapter);
    return tn_remedy(
        "the model is finished as it is; give the base that the adapter was trained on to merge anew");
}

/* What the adapter was trained on and what it is merged into must be one architecture. */
static tn_status check_same_model(const tn_arch *a, const tn_arch *b, const tn_settings *s) {
    const struct {
        const char *key;
        int64_t trained, merged;
    } sizes[] = {{"vocab_size", a->vocab, b->vocab},
                 {"hidden_size", a->hidden, b->hidden},
                 {"intermediate_size", a->intermediate, b->intermediate},
                 {"num_hidden_layers", a->layers, b->layers},
                 {"num_attention_heads", a->heads, b->heads},
                 {"num_key_value_heads", a->kv_heads, b->kv_heads},
                 {"head_dim", a->head_dim, b->head_dim},
                 {"tie_word_embeddings", a->tied, b->tied},
                 {"a vision tower", a->vision != NULL, b->vision != NULL}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].trained != sizes[i].merged) {
            tn_fail(TN_USAGE, "%s is another model than %s: %s is %lld, not %lld", s->base_for_merge, s->model,
                    sizes[i].key, (long long)sizes[i].merged, (long long)sizes[i].trained);
            return tn_remedy("base_for_merge is the same model in a better precision");
        }
    return TN_OK;
}

/* Base and, where it is another, the model that the adapter was trained on: both before either is loaded. */
static tn_status open_models(merge *m, const tn_config *config) {
    const tn_settings *s = m->settings;
    tn_status status;
    TN_TRY(open_other(config, s->base_for_merge ? s->base_for_merge : s->model, MERGED_INTO, &m->base));
    if (!trained_on_another(s)) goto done;
    TN_TRY(open_other(config, s->model, TRAINED_ON, &m->trained));
    status = check_same_model(&m->trained.engine.arch, &m->base.engine.arch, s);
done:
    return status;
}

/* What merging into another base than the adapter was trained on does to the answers. */
static tn_status compare_with_model(merge *m) {
    tn_probe probe = {0};
    double relative;
    tn_status status;
    TN_TRY(tn_probe_run(&m->trained.engine, &probe));
    close_other(&m->trained);
    if (!probe.logits || !m->with_adapter.logits) goto done;
    m->from_model = tn_probe_difference(&m->with_adapter, &probe, &relative);
    if (relative > another)
        tn_warn(
            "the merged model's logits are far from those of the model that the adapter was trained on "
            "(%.1f apart, relatively): are the two bases one model?",
            relative);
done:
    tn_probe_free(&probe);
    return status;
}

/* ---- Writing ------------------------------------------------------------------------------------- */

static tn_status write_files(merge *m) {
    static const char *const older[] = {"added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model"},
                             *const pictures[] = {"preprocessor_config.json", "processor_config.json",
                                                  "video_preprocessor_config.json", "chat_template.json"};
    const tn_engine *e = &m->base.engine;
    const char *path = tn_model_files_path(e->files), *directory = m->staging.directory;
    tn_merged merged = {0};
    tn_status status;
    TN_TRY(tn_merged_open(&e->arch, e->files, e->adapter, e->adapter_directory, &merged));
    TN_TRY(tn_merge_weights(&merged, m->digits, &m->staging));
    TN_TRY(tn_merge_config(&merged, e->rope_scaling, directory));
    if (e->chat) TN_TRY(tn_chat_save(e->chat, directory));
    if (e->arch.vision) TN_TRY(tn_copy_files(path, directory, pictures, sizeof pictures / sizeof *pictures));
    /* they are of the base's tokenizer, not of one that the adapter brought */
    if (!tn_is_file(tn_path_join(&m->arena, e->adapter_directory, "tokenizer.json")) && tn_is_directory(path))
        TN_TRY(tn_copy_files(path, directory, older, sizeof older / sizeof *older));
done:
    tn_merged_close(&merged);
    return status;
}

static tn_status compare(merge *m, const tn_config *config) {
    double relative;
    tn_status status;
    TN_TRY(open_other(config, m->staging.directory, RESULT, &m->result));
    TN_TRY(tn_probe_run(&m->result.engine, &m->merged));
    if (!m->with_adapter.logits || !m->merged.logits) goto done;
    m->difference = tn_probe_difference(&m->merged, &m->with_adapter, &relative);
    if (relative <= farthest) goto done;
    status = tn_fail(TN_FAILED,
                     "the merged model's logits are not those of base and adapter (%.1e apart, relatively)",
                     relative);
    tn_remedy("nothing was written; if the base is float16, try base_for_merge in bfloat16 or float32");
done:
    return status;
}

static void put_difference(tn_json_writer *w, const char *key, double value) {
    tn_json_key(w, key);
    tn_json_put_real(w, value); /* NAN: null */
}

static tn_status answer(const merge *m, tn_doc **doc) {
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_begin(&w, '{');
    tn_json_string_member(&w, "output", m->settings->output_dir);
    tn_json_integer_member(&w, "bytes", m->bytes);
    put_difference(&w, "max_abs_logit_difference", m->difference);
    if (trained_on_another(m->settings))
        put_difference(&w, "max_abs_logit_difference_from_model", m->from_model);
    tn_json_end(&w, '}');
    tn_status status = tn_doc_from(&text, doc);
    tn_str_free(&text);
    return status;
}

tn_status tn_merge(tn_config *config, const tn_hooks *hooks, tn_doc **doc) {
    merge m = {.difference = NAN, .from_model = NAN};
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_config_resolve(config, &m.settings));
    TN_TRY(tn_staging_directory(&m.staging, m.settings->output_dir, "output_dir", hooks));
    TN_TRY(open_models(&m, config));
    TN_TRY(check_not_merged(&m));
    TN_TRY(tn_staging_begin(&m.staging));
    TN_TRY(tn_probe_run(&m.base.engine, &m.with_adapter));
    if (trained_on_another(m.settings)) TN_TRY(compare_with_model(&m));
    TN_TRY(write_files(&m));
    TN_TRY(tn_staging_go_on(&m.staging));
    TN_TRY(compare(&m, config));
    close_other(&m.result);
    TN_TRY(tn_staging_bytes(&m.staging, &m.bytes));
    TN_TRY(tn_staging_commit(&m.staging));
    status = answer(&m, doc);
done:
    close_other(&m.result);
    close_other(&m.trained);
    close_other(&m.base);
    status = tn_staging_end(status, &m.staging);
    tn_probe_free(&m.with_adapter);
    tn_probe_free(&m.merged);
    tn_arena_free(&m.arena);
    return status;
}
