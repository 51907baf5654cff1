/* verb_merge.c: base + adapter to a model directory. It is written beside its final name and renamed when it is
 * whole, flushed, and has given the logits that base and adapter give: until then there is no output.
 */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "export/merge.h"
#include "export/model_write.h"
#include "train/probe.h"

/* ‖merged − base with adapter‖ / ‖base with adapter‖ of the logits beyond which something else than rounding
 * lies between them: 16-bit weights bring some 0.01. */
static const double farthest = 0.1;

/* A verb's run on another model with the same device. */
typedef struct other {
    tn_config *config;
    tn_engine engine;
} other;

typedef struct merge {
    tn_arena arena;
    const tn_settings *settings;
    other base, result;
    const char *bare /* output_dir without slashes behind it */, *temporary, *digits;
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

/* An empty directory is no output. */
static tn_status check_output(merge *m) {
    const char *path = m->settings->output_dir, **names;
    char *end;
    int64_t count = 0;
    tn_status status = TN_OK;
    if (tn_is_directory(path)) status = tn_list_directory(&m->arena, path, &names, &count);
    else count = access(path, F_OK) == 0;
    if (status == TN_OK && count > 0) {
        tn_fail(TN_USAGE, "%s is there already", path);
        return tn_remedy("choose another output_dir, or remove this one; nothing is overwritten");
    }
    char *bare = tn_arena_printf(&m->arena, "%s", path);
    if (!bare) return tn_fail_memory(256, "a path");
    for (end = bare + strlen(bare); end > bare + 1 && end[-1] == '/';) *--end = '\0';
    m->bare = bare;
    m->temporary = tn_arena_printf(&m->arena, "%s.tmp-merge", bare);
    return m->temporary ? status : tn_fail_memory(256, "a path");
}

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
static tn_status check_same_shape(const tn_arch *a, const tn_arch *b, const tn_settings *s) {
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
                 {"tie_word_embeddings", a->tied, b->tied}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].trained != sizes[i].merged) {
            tn_fail(TN_USAGE, "%s is another model than %s: %s is %lld, not %lld", s->base_for_merge, s->model,
                    sizes[i].key, (long long)sizes[i].merged, (long long)sizes[i].trained);
            return tn_remedy("base_for_merge is the same model in a better precision");
        }
    return TN_OK;
}

/* What merging into another base than the adapter was trained on does to the answers. */
static tn_status compare_with_model(merge *m, tn_config *config) {
    other trained = {0};
    tn_probe probe = {0};
    double relative;
    tn_status status;
    TN_TRY(open_other(config, m->settings->model, TRAINED_ON, &trained));
    TN_TRY(check_same_shape(&trained.engine.arch, &m->base.engine.arch, m->settings));
    TN_TRY(tn_probe_run(&trained.engine, &probe));
    if (probe.logits && m->with_adapter.logits)
        m->from_model = tn_probe_difference(&m->with_adapter, &probe, &relative);
done:
    tn_probe_free(&probe);
    close_other(&trained);
    return status;
}

/* ---- Writing ------------------------------------------------------------------------------------- */

static tn_status write_files(merge *m) {
    static const char *const older[] = {"added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model"};
    const tn_engine *e = &m->base.engine;
    const char *path = tn_model_files_path(e->files);
    tn_merged merged = {0};
    tn_status status;
    TN_TRY(tn_merged_open(&e->arch, e->files, e->adapter, e->adapter_directory, &merged));
    TN_TRY(tn_make_directories(m->temporary));
    TN_TRY(tn_merge_weights(&merged, m->digits, m->temporary));
    TN_TRY(tn_merge_config(&merged, e->rope_scaling, m->temporary));
    if (e->chat) TN_TRY(tn_chat_save(e->chat, m->temporary));
    /* they are of the base's tokenizer, not of one that the adapter brought */
    if (!tn_is_file(tn_path_join(&m->arena, e->adapter_directory, "tokenizer.json")) && tn_is_directory(path))
        TN_TRY(tn_copy_files(path, m->temporary, older, sizeof older / sizeof *older));
    status = tn_sync_directory(m->temporary);
done:
    tn_merged_close(&merged);
    return status;
}

static tn_status count_bytes(merge *m, const char *directory) {
    const char **names;
    int64_t count;
    tn_status status = tn_list_directory(&m->arena, directory, &names, &count);
    for (int64_t i = 0; status == TN_OK && i < count; i++) {
        const char *path = tn_path_join(&m->arena, directory, names[i]);
        if (!path) return tn_fail_memory(256, "a path");
        if (tn_is_directory(path)) status = count_bytes(m, path);
        else m->bytes += tn_file_size(path);
    }
    return status;
}

static tn_status compare(merge *m, const tn_config *config) {
    double relative;
    tn_status status;
    TN_TRY(open_other(config, m->temporary, RESULT, &m->result));
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

tn_status tn_merge(tn_config *config, tn_doc **doc) {
    merge m = {.difference = NAN, .from_model = NAN};
    bool begun = false;
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_config_resolve(config, &m.settings));
    TN_TRY(check_output(&m));
    const char *base = m.settings->base_for_merge ? m.settings->base_for_merge : m.settings->model;
    TN_TRY(open_other(config, base, MERGED_INTO, &m.base));
    TN_TRY(check_not_merged(&m));
    TN_TRY(tn_probe_run(&m.base.engine, &m.with_adapter));
    if (trained_on_another(m.settings)) TN_TRY(compare_with_model(&m, config));
    begun = true;
    TN_TRY(tn_remove_tree(m.temporary)); /* of a merge that was killed */
    TN_TRY(write_files(&m));
    TN_TRY(compare(&m, config));
    TN_TRY(count_bytes(&m, m.temporary));
    close_other(&m.result);
    TN_TRY(tn_rename(m.temporary, m.bare));
    status = answer(&m, doc);
done:
    close_other(&m.result);
    close_other(&m.base);
    if (status != TN_OK && begun) status = tn_discard_tree(status, m.temporary);
    tn_probe_free(&m.with_adapter);
    tn_probe_free(&m.merged);
    tn_arena_free(&m.arena);
    return status;
}
