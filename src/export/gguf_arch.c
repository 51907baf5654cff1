/* gguf_arch.c: see gguf_arch.h. Which graph takes which rope: llama.cpp, src/llama-model.cpp. llama3's scaling
 * is no scaling there, but a tensor of divisors of the frequencies, for every other kind there are metadata
 * keys.
 */
#include "export/gguf_arch.h"

#include <math.h>
#include <string.h>

#include "base/log.h"

static tn_status refuse(const char *name, const char *what) {
    tn_fail(TN_USAGE, "%s: %s cannot be said in a GGUF file", name, what);
    return tn_remedy("merge writes a model directory instead, which vLLM and Transformers load");
}

static bool is(const tn_gguf_family *family, const char *name) { return strcmp(family->name, name) == 0; }

/* smollm3's graph turns all layers but every fourth, and is told nothing. */
static bool is_pattern_known(const tn_arch *arch, const tn_gguf_family *family) {
    if (!is(family, "smollm3")) return !arch->layer_rope;
    for (int64_t i = 0; i < arch->layers; i++)
        if ((!arch->layer_rope || arch->layer_rope[i]) != ((i + 1) % 4 != 0)) return false;
    return true;
}

/* Of yarn's settings the file has factor and original length; the others must be what they are by default. */
static bool is_plain_yarn(const tn_rope *rope) {
    const double usual = rope->factor > 1 ? 0.1 * log(rope->factor) + 1 : 1;
    const bool attention = fabs((double)tn_rope_scaling(rope) - usual) < 1e-6;
    return attention && rope->beta_fast == 32 && rope->beta_slow == 1 && rope->truncate;
}

static tn_status check(const tn_arch *arch, const tn_gguf_family *family, const char *name) {
    const tn_rope_kind kind = arch->rope.kind;
    const bool divides = is(family, "llama") || is(family, "granite"); /* has tensors for rope */
    if (arch->activation != TN_SILU) return refuse(name, "an activation other than silu");
    if (!is_pattern_known(arch, family)) return refuse(name, "which layers have no rope");
    if (kind == TN_ROPE_DYNAMIC) return refuse(name, "dynamic rope");
    if (kind == TN_ROPE_YARN && !is_plain_yarn(&arch->rope))
        return refuse(name, "yarn with other than its usual attention factor, betas and rounding");
    if ((kind == TN_ROPE_LLAMA3 || kind == TN_ROPE_DIVISORS || kind == TN_ROPE_LONGROPE) && !divides) {
        char what[96];
        snprintf(what, sizeof what, "this kind of scaled rope in the %s family", family->name);
        return refuse(name, what);
    }
    if (arch->window > 0)
        tn_warn(
            "%s: its sliding window cannot be said in a GGUF file: beyond %lld tokens the exported model "
            "attends "
            "to all of them",
            name, (long long)arch->window);
    return TN_OK;
}

/* What the default frequencies are divided by. */
static const float *divisors_of(tn_arena *arena, const tn_rope *rope) {
    float *out = tn_arena_take(arena, 2 * rope->half * (int64_t)sizeof *out);
    if (!out) return NULL;
    tn_rope plain = *rope;
    plain.kind = TN_ROPE_DEFAULT;
    float *scaled = out + rope->half;
    tn_rope_inv_freq(&plain, 1, out);
    tn_rope_inv_freq(rope, 1, scaled);
    for (int64_t i = 0; i < rope->half; i++) out[i] = (float)((double)out[i] / (double)scaled[i]);
    return out;
}

static tn_status find_factors(tn_arena *arena, const tn_rope *rope, tn_gguf_arch *out) {
    const char *const names[] = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"};
    if (rope->kind == TN_ROPE_LONGROPE) {
        out->factor_count = 2;
        out->factors[0].name = names[1], out->factors[0].values = rope->long_factor;
        out->factors[1].name = names[2], out->factors[1].values = rope->short_factor;
    } else if (rope->kind == TN_ROPE_LLAMA3 || rope->kind == TN_ROPE_DIVISORS) {
        out->factor_count = 1;
        out->factors[0].name = names[0];
        out->factors[0].values = rope->kind == TN_ROPE_DIVISORS ? rope->divisors : divisors_of(arena, rope);
        if (!out->factors[0].values) return tn_fail_memory(rope->half * 8, "rope factors");
    }
    return TN_OK;
}

static void put_rope_scaling(tn_json_writer *w, const tn_rope *rope) {
    const char *type = rope->kind == TN_ROPE_LINEAR     ? "linear"
                       : rope->kind == TN_ROPE_YARN     ? "yarn"
                       : rope->kind == TN_ROPE_LONGROPE ? "longrope"
                                                        : NULL;
    if (!type) return;
    tn_json_key(w, "rope_scaling");
    tn_json_begin(w, '{');
    tn_json_string_member(w, "rope_type", type);
    /* llama.cpp divides positions by it whatever the type; longrope's follows from the two lengths */
    if (rope->kind != TN_ROPE_LONGROPE) tn_json_real_member(w, tn_gguf_rope_factor.hf, rope->factor);
    if (rope->kind != TN_ROPE_LINEAR) tn_json_integer_member(w, tn_gguf_rope_length.hf, rope->original_length);
    if (rope->kind == TN_ROPE_LONGROPE)
        tn_json_real_member(w, tn_gguf_rope_attention.hf, (double)tn_rope_scaling(rope));
    tn_json_end(w, '}');
}

static void put_config(tn_json_writer *w, const tn_arch *a, const tn_gguf_family *family) {
    tn_json_begin(w, '{');
    tn_json_integer_member(w, "max_position_embeddings", a->max_positions);
    tn_json_integer_member(w, "hidden_size", a->hidden);
    tn_json_integer_member(w, "num_hidden_layers", a->layers);
    tn_json_integer_member(w, "intermediate_size", a->intermediate);
    tn_json_integer_member(w, "num_attention_heads", a->heads);
    tn_json_real_member(w, "rms_norm_eps", (double)a->norm_eps);
    if (is(family, "granite")) {
        tn_json_real_member(w, "embedding_multiplier", (double)a->embed_scale);
        tn_json_real_member(w, "residual_multiplier", (double)a->residual_scale);
        tn_json_real_member(w, "logits_scaling", (double)a->logit_scale);
        tn_json_real_member(w, "attention_multiplier", (double)a->attention_scale);
    }
    /* the only one whose window is that of every layer, and comes back (gguf_model.c) */
    if (a->window > 0 && strcmp(tn_family_name(a->family), "mistral") == 0)
        tn_json_integer_member(w, "sliding_window", a->window);
    tn_json_integer_member(w, tn_gguf_kv_heads.hf, a->kv_heads);
    tn_json_integer_member(w, tn_gguf_head_dim.hf, a->head_dim);
    tn_json_real_member(w, tn_gguf_rope_base.hf, a->rope.theta);
    tn_json_integer_member(w, "vocab_size", a->vocab);
    put_rope_scaling(w, &a->rope);
    tn_json_end(w, '}');
}

tn_status tn_gguf_arch_read(tn_arena *arena, const tn_arch *arch, const char *name, tn_gguf_arch *out) {
    const char *family = tn_family_name(arch->family);
    char known[256];
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_status status;
    *out = (tn_gguf_arch){.family = tn_gguf_family_of(family)};
    if (!out->family) {
        tn_fail(TN_USAGE, "%s: models of the %s family are not written as GGUF", name, family);
        return tn_remedy("written are: mistral, %s; merge writes a model directory of every family",
                         tn_gguf_family_names(known));
    }
    TN_TRY(check(arch, out->family, name));
    TN_TRY(find_factors(arena, &arch->rope, out));
    put_config(&w, arch, out->family);
    TN_TRY(tn_str_check(&text, "a configuration"));
    status = tn_json_parse(arena, text.data, text.length, TN_JSON_DEFAULT, name, &out->config);
done:
    tn_str_free(&text);
    return status;
}
