/* merge_config.c: config.json of a merged model: the base's, but for what merging has changed. A head that left
 * its embedding is no longer tied, rope that was stretched for training stays stretched, a base that
 * was quantised is so no more, and a GGUF base, whose configuration was made from its metadata, gets
 * its rope divisors in words that Transformers knows.
 */
#include <string.h>

#include "base/file.h"
#include "export/merge.h"
#include "export/model_write.h"

static const char quantisation[] = "quantization_config";

typedef struct edit {
    const tn_merged *merged;
    const tn_json *rope_scaling; /* replaces the base's, or NULL */
    const tn_json *divisors;     /* of a GGUF, or NULL */
    bool untie;
    bool plain; /* a base that says it is quantised, and whose weights are written plain */
    tn_json_writer *w;
    bool tie_written, rope_written;
} edit;

/* Divisors of the frequencies are LongRoPE with the same factors at every length and no scaling of its own
 * (transformers: modeling_rope_utils.py, _compute_longrope_parameters). */
static void put_divisors(edit *e) {
    tn_json_begin(e->w, '{');
    tn_json_string_member(e->w, "rope_type", "longrope");
    tn_json_real_member(e->w, "factor", 1.0);
    tn_json_real_member(e->w, "attention_factor", 1.0);
    tn_json_integer_member(e->w, "original_max_position_embeddings", e->merged->arch->max_positions);
    tn_json_key(e->w, "long_factor");
    tn_json_put(e->w, e->divisors);
    tn_json_key(e->w, "short_factor");
    tn_json_put(e->w, e->divisors);
    tn_json_end(e->w, '}');
}

/* The new scaling; in Transformers 5's spelling rope_theta stands among its members. */
static void put_rope(edit *e, const tn_json *old) {
    const tn_json *scaling = e->rope_scaling, *theta = tn_json_get(old, "rope_theta");
    e->rope_written = true;
    if (!scaling) {
        put_divisors(e);
        return;
    }
    tn_json_begin(e->w, '{');
    for (int64_t i = 0; i < scaling->count; i++) {
        tn_json_key(e->w, scaling->members[i].key);
        tn_json_put(e->w, &scaling->members[i].value);
    }
    if (theta && !tn_json_get(scaling, "rope_theta")) {
        tn_json_key(e->w, "rope_theta");
        tn_json_put(e->w, theta);
    }
    tn_json_end(e->w, '}');
}

static void put_members(edit *e, const tn_json *object);

static void put_member(edit *e, const tn_json *object, const tn_member *m) {
    const bool rope = e->rope_scaling || e->divisors;
    const bool both = tn_json_get(object, "rope_scaling") && tn_json_get(object, "rope_parameters");
    if (strcmp(m->key, "tenon_rope_divisors") == 0) return;
    if (strcmp(m->key, quantisation) == 0) return;
    if (rope && both && strcmp(m->key, "rope_scaling") == 0) return; /* one of the two says it */
    tn_json_key(e->w, m->key);
    if (e->untie && strcmp(m->key, "tie_word_embeddings") == 0) {
        tn_json_put_boolean(e->w, false);
        e->tie_written = true;
    } else if (rope && (strcmp(m->key, "rope_scaling") == 0 || strcmp(m->key, "rope_parameters") == 0))
        put_rope(e, &m->value);
    else if (strcmp(m->key, "text_config") == 0 && m->value.type == TN_JSON_OBJECT) {
        tn_json_begin(e->w, '{');
        put_members(e, &m->value);
        tn_json_end(e->w, '}');
    } else tn_json_put(e->w, &m->value);
}

static void put_members(edit *e, const tn_json *object) {
    for (int64_t i = 0; i < object->count; i++) put_member(e, object, &object->members[i]);
}

/* The dtype of the matrices that a GGUF's blocks become. */
static const char *gguf_dtype(const tn_merged *m) {
    for (int64_t i = 0; i < m->count; i++)
        if (m->tensors[i].rank == 2)
            return tn_dtype_name(tn_dtype_is_block(m->tensors[i].base->dtype) ? TN_DTYPE_BF16
                                                                              : m->tensors[i].base->dtype);
    return "bfloat16";
}

static tn_status write_edited(edit *e, bool gguf, const char *path) {
    const tn_json *config = tn_model_files_config(e->merged->files);
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 2);
    e->w = &w;
    tn_json_begin(&w, '{');
    put_members(e, config);
    if (e->untie && !tn_json_get(config, "tie_word_embeddings"))
        tn_json_boolean_member(&w, "tie_word_embeddings", false);
    if ((e->rope_scaling || e->divisors) && !e->rope_written) {
        tn_json_key(&w, "rope_scaling");
        put_rope(e, NULL);
    }
    if (gguf) tn_json_string_member(&w, "torch_dtype", gguf_dtype(e->merged));
    tn_json_end(&w, '}');
    e->w = NULL;
    tn_str_putc(&text, '\n');
    tn_status status = tn_str_check(&text, "config.json");
    if (status == TN_OK) status = tn_save_text(path, text.data, text.length);
    tn_str_free(&text);
    return status;
}

tn_status tn_merge_config(const tn_merged *merged, const tn_json *rope_scaling, const char *directory) {
    static const char config_name[] = "config.json", *const whole[] = {config_name, "generation_config.json"};
    const bool gguf = tn_model_files_get_kind(merged->files) == TN_MODEL_GGUF;
    const tn_json *config = tn_model_files_config(merged->files);
    edit e = {.merged = merged, .rope_scaling = rope_scaling, .untie = merged->head_apart};
    tn_arena arena = {0};
    tn_status status = TN_OK;
    e.plain = !tn_json_is_null(tn_json_get(config, quantisation));
    if (!rope_scaling && merged->arch->rope.kind == TN_ROPE_DIVISORS)
        e.divisors = tn_json_get(config, "tenon_rope_divisors");
    const bool edited = gguf || e.untie || rope_scaling || e.divisors || e.plain;
    const char *path = tn_path_join(&arena, directory, config_name);
    if (!path) TN_THROW(TN_FAILED, "out of memory for a path");
    if (!gguf)
        TN_TRY(tn_copy_files(tn_model_files_path(merged->files), directory, edited ? whole + 1 : whole,
                             edited ? 1 : 2));
    if (edited) status = write_edited(&e, gguf, path);
done:
    tn_arena_free(&arena);
    return status;
}
