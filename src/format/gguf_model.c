/* gguf_model.c: translation of GGUF metadata. The configuration is written as JSON text and parsed
 * like a config.json, so that nothing behind this file can tell the two apart. What the metadata leaves to
 * llama.cpp's defaults is said here: class defaults of Transformers may differ.
 */
#include "format/gguf_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *architecture(const tn_gguf *file) {
    return tn_json_string(tn_gguf_get(file, "general.architecture"), "");
}

bool tn_gguf_permutes(const tn_gguf *file) {
    const tn_gguf_family *family = tn_gguf_find_family(architecture(file));
    return family && family->permuted;
}

/* Keys "<architecture>.<key>". */
static const tn_json *own(const tn_gguf *file, const char *key) {
    char name[160];
    snprintf(name, sizeof name, "%s.%s", architecture(file), key);
    return tn_gguf_get(file, name);
}

/* A float of the file goes out as the shortest decimal that reads back as this float: 1e-05, as people wrote
 * it. Some models have other values in each layer (an array): none of the families here. */
static tn_status put_translated(const tn_gguf *file, const char *path, tn_json_writer *w,
                                const tn_gguf_number *t) {
    const tn_json *value = own(file, t->gguf);
    const char *name = architecture(file);
    if (!value && !t->required) return TN_OK;
    if (!value) return tn_fail(TN_BAD_DATA, "%s: the key %s.%s is missing", path, name, t->gguf);
    if (value->type == TN_JSON_INTEGER) tn_json_integer_member(w, t->hf, value->integer);
    else if (value->type != TN_JSON_REAL)
        return tn_fail(TN_USAGE, "%s: %s.%s is %s; one number for all layers was expected", path, name, t->gguf,
                       tn_json_type_name(value));
    else if (!isfinite(value->real))
        return tn_fail(TN_BAD_DATA, "%s: %s.%s is not finite", path, name, t->gguf);
    else {
        tn_json_key(w, t->hf);
        tn_json_put_float(w, (float)value->real);
    }
    return TN_OK;
}

/* Key/value heads and the size of a head, by llama.cpp's defaults where the file is silent. */
static tn_status put_heads(const tn_gguf *file, const char *path, tn_json_writer *w) {
    const tn_json *heads = own(file, "attention.head_count"), *width = own(file, "embedding_length");
    tn_gguf_number shared = tn_gguf_kv_heads;
    if (!own(file, shared.gguf)) shared.gguf = "attention.head_count";
    tn_status status = put_translated(file, path, w, &shared);
    if (status == TN_OK) status = put_translated(file, path, w, &tn_gguf_head_dim);
    if (status != TN_OK) return status;
    if (tn_json_integer(heads, 0) < 1)
        return tn_fail(TN_BAD_DATA, "%s: %s.attention.head_count is not positive", path, architecture(file));
    const tn_json *given = own(file, tn_gguf_head_dim.gguf), *turned = own(file, "rope.dimension_count");
    int64_t head_dim = tn_json_integer(given, tn_json_integer(width, 0) / tn_json_integer(heads, 1));
    if (!given) tn_json_integer_member(w, tn_gguf_head_dim.hf, head_dim);
    if (!turned || tn_json_integer(turned, -1) == head_dim) return TN_OK;
    return tn_fail(TN_USAGE,
                   "%s: %s.rope.dimension_count is %lld and a head has %lld dimensions; rope that turns "
                   "a part of a head is not supported",
                   path, architecture(file), (long long)tn_json_integer(turned, -1), (long long)head_dim);
}

/* An F32 vector of the file as a list of positive numbers. */
static tn_status put_factors(const tn_gguf *file, tn_json_writer *w, const char *name, const char *key) {
    const tn_tensor_info *t = tn_gguf_find(file, name);
    if (!t) return TN_OK;
    if (t->dtype != TN_DTYPE_F32 || t->rank != 1)
        return tn_fail(TN_BAD_DATA, "%s: tensor %s is not a vector of float32", t->file, t->name);
    tn_json_key(w, key);
    tn_json_begin(w, '[');
    for (int64_t i = 0; i < t->elements; i++) {
        float value;
        memcpy(&value, (const char *)t->data + 4 * i, sizeof value);
        if (!(value > 0) || isinf(value))
            return tn_fail(TN_BAD_DATA, "%s: tensor %s[%lld] is not a positive number", t->file, t->name,
                           (long long)i);
        tn_json_put_float(w, value);
    }
    tn_json_end(w, ']');
    return TN_OK;
}

static tn_status put_rope_scaling(const tn_gguf *file, const char *path, tn_json_writer *w, const char *type) {
    const bool longrope = strcmp(type, "longrope") == 0;
    tn_status status = TN_OK;
    tn_json_key(w, "rope_scaling");
    tn_json_begin(w, '{');
    tn_json_string_member(w, "rope_type", type);
    TN_TRY(put_translated(file, path, w, &tn_gguf_rope_factor));
    TN_TRY(put_translated(file, path, w, &tn_gguf_rope_length));
    if (longrope) {
        TN_TRY(put_translated(file, path, w, &tn_gguf_rope_attention));
        TN_TRY(put_factors(file, w, "rope_factors_long.weight", "long_factor"));
        TN_TRY(put_factors(file, w, "rope_factors_short.weight", "short_factor"));
    }
    tn_json_end(w, '}');
done:
    return status;
}

static tn_status put_rope(const tn_gguf *file, const char *path, tn_json_writer *w) {
    static const char *const known[] = {"linear", "yarn", "longrope"};
    const char *type = tn_json_string(own(file, "rope.scaling.type"), "none");
    const int kinds = sizeof known / sizeof *known;
    int kind = 0;
    tn_status status;
    TN_TRY(put_translated(file, path, w, &tn_gguf_rope_base));
    if (!own(file, tn_gguf_rope_base.gguf)) tn_json_real_member(w, tn_gguf_rope_base.hf, 10000.0);
    while (kind < kinds && strcmp(type, known[kind]) != 0) kind++;
    if (kind < kinds) TN_TRY(put_rope_scaling(file, path, w, type));
    else if (strcmp(type, "none") != 0) {
        tn_fail(TN_USAGE, "%s: the rope scaling \"%s\" is not supported", path, type);
        return tn_remedy("known in GGUF: none, linear, yarn, longrope");
    }
    status = put_factors(file, w, "rope_freqs.weight", "tenon_rope_divisors");
done:
    return status;
}

static void put_vocabulary(const tn_gguf *file, tn_json_writer *w) {
    const tn_tensor_info *embedding = tn_gguf_find(file, "token_embd.weight");
    const tn_json *tokens = tn_gguf_get(file, "tokenizer.ggml.tokens");
    const tn_json *bos = tn_gguf_get(file, "tokenizer.ggml.bos_token_id");
    const tn_json *eos = tn_gguf_get(file, "tokenizer.ggml.eos_token_id");
    const tn_json *turn = tn_gguf_get(file, "tokenizer.ggml.eot_token_id");
    int64_t rows = tokens && tokens->type == TN_JSON_ARRAY ? tokens->count : 0;
    if (embedding && embedding->rank == 2) rows = embedding->shape[0]; /* padding included */
    tn_json_integer_member(w, "vocab_size", rows);
    tn_json_boolean_member(w, "tie_word_embeddings", tn_gguf_find(file, "output.weight") == NULL);
    if (bos) tn_json_integer_member(w, "bos_token_id", tn_json_integer(bos, -1));
    if (!eos) return;
    const int64_t last = tn_json_integer(eos, -1), end_of_turn = tn_json_integer(turn, last);
    tn_json_key(w, "eos_token_id");
    if (end_of_turn == last) {
        tn_json_put_integer(w, last);
        return;
    }
    tn_json_begin(w, '[');
    tn_json_put_integer(w, last);
    tn_json_put_integer(w, end_of_turn);
    tn_json_end(w, ']');
}

/* Files that are GGUF but no whole model. */
static tn_status check_kind(const tn_gguf *file, const char *path) {
    const char *type = tn_json_string(tn_gguf_get(file, "general.type"), "model");
    const int64_t parts = tn_json_integer(tn_gguf_get(file, "split.count"), 1);
    if (strcmp(type, "model") != 0) {
        tn_fail(TN_USAGE, "%s: its general.type is \"%s\", not \"model\"", path, type);
        return tn_remedy("give the base model's GGUF file here");
    }
    if (parts > 1) {
        tn_fail(TN_USAGE, "%s is one of %lld parts of a split model", path, (long long)parts);
        return tn_remedy("join the parts first (llama-gguf-split --merge)");
    }
    return TN_OK;
}

static tn_status refuse_architecture(const char *path, const char *name) {
    char known[256];
    tn_fail(TN_USAGE, "%s: the architecture \"%s\" is not supported", path, name);
    return tn_remedy("supported in GGUF: %s", tn_gguf_family_names(known));
}

tn_status tn_gguf_config(const tn_gguf *file, const char *path, tn_str *json) {
    const char *name = architecture(file);
    const tn_gguf_family *family = tn_gguf_find_family(name);
    tn_json_writer w = tn_json_write_to(json, 0);
    tn_status status;
    TN_TRY(check_kind(file, path));
    if (!family) return refuse_architecture(path, name);
    /* mistral goes by llama's name; the window is what its own class has beyond llama's */
    const bool mistral = strcmp(name, "llama") == 0 && own(file, "attention.sliding_window");
    tn_json_begin(&w, '{');
    tn_json_key(&w, "architectures");
    tn_json_begin(&w, '[');
    tn_json_put_string(&w, mistral ? "MistralForCausalLM" : family->class, -1);
    tn_json_end(&w, ']');
    tn_json_string_member(&w, "model_type", mistral ? "mistral" : name);
    for (int i = 0; i < tn_gguf_number_count; i++) TN_TRY(put_translated(file, path, &w, &tn_gguf_numbers[i]));
    TN_TRY(put_heads(file, path, &w));
    TN_TRY(put_rope(file, path, &w));
    if (tn_gguf_find(file, "blk.0.attn_output.bias")) tn_json_boolean_member(&w, "attention_bias", true);
    if (tn_gguf_find(file, "blk.0.ffn_down.bias")) tn_json_boolean_member(&w, "mlp_bias", true);
    put_vocabulary(file, &w);
    tn_json_end(&w, '}');
    status = tn_str_check(json, path);
done:
    if (status == TN_BAD_DATA) tn_remedy("the file is damaged or was converted incompletely; fetch it again");
    return status;
}
