/* gguf_model.c: translation of GGUF metadata and names. */
#include "format/gguf_model.h"

#include <stdio.h>
#include <string.h>

static const char *architecture(const tn_gguf *file) { return tn_json_string(tn_gguf_get(file, "general.architecture"), ""); }

bool tn_gguf_permutes(const tn_gguf *file) {
    const char *name = architecture(file);
    return strcmp(name, "llama") == 0 || strcmp(name, "granite") == 0 || strcmp(name, "smollm3") == 0;
}

bool tn_gguf_hf_name(const char *name, char out[128]) {
    static const struct {
        const char *gguf, *hf;
    } layer[] = {
        {"attn_norm.", "input_layernorm."},      {"attn_q.", "self_attn.q_proj."},           {"attn_k.", "self_attn.k_proj."},
        {"attn_v.", "self_attn.v_proj."},        {"attn_output.", "self_attn.o_proj."},      {"attn_q_norm.", "self_attn.q_norm."},
        {"attn_k_norm.", "self_attn.k_norm."},   {"ffn_gate.", "mlp.gate_proj."},            {"ffn_up.", "mlp.up_proj."},
        {"ffn_down.", "mlp.down_proj."},         {"ffn_norm.", "post_attention_layernorm."},
    };
    static const struct {
        const char *gguf, *hf;
    } whole[] = {{"token_embd.weight", "model.embed_tokens.weight"}, {"output_norm.weight", "model.norm.weight"}, {"output.weight", "lm_head.weight"}};
    int index, used = 0;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (strcmp(name, whole[i].gguf) == 0) return snprintf(out, 128, "%s", whole[i].hf) < 128;
    if (sscanf(name, "blk.%d.%n", &index, &used) != 1 || used == 0 || index < 0) return false;
    for (size_t i = 0; i < sizeof layer / sizeof *layer; i++)
        if (tn_starts_with(name + used, layer[i].gguf))
            return snprintf(out, 128, "model.layers.%d.%s%s", index, layer[i].hf, name + used + strlen(layer[i].gguf)) < 128;
    return false;
}

/* Keys "<architecture>.<key>". */
static const tn_json *own(const tn_gguf *file, const char *key) {
    char name[160];
    snprintf(name, sizeof name, "%s.%s", architecture(file), key);
    return tn_gguf_get(file, name);
}

static void copy(const tn_gguf *file, tn_json_writer *w, const char *from, const char *to) {
    const tn_json *value = own(file, from);
    if (tn_json_is_null(value)) return;
    tn_json_key(w, to);
    tn_json_put(w, value);
}

static void put_rope(const tn_gguf *file, tn_json_writer *w) {
    const tn_tensor_info *divisors = tn_gguf_find(file, "rope_freqs.weight");
    const char *type = tn_json_string(own(file, "rope.scaling.type"), "none");
    tn_json_real_member(w, "rope_theta", tn_json_number(own(file, "rope.freq_base"), 10000.0));
    if (strcmp(type, "linear") == 0 || strcmp(type, "yarn") == 0) {
        tn_json_key(w, "rope_scaling");
        tn_json_begin(w, '{');
        tn_json_string_member(w, "rope_type", type);
        copy(file, w, "rope.scaling.factor", "factor");
        copy(file, w, "rope.scaling.original_context_length", "original_max_position_embeddings");
        tn_json_end(w, '}');
    }
    if (!divisors || divisors->dtype != TN_DTYPE_F32) return;
    tn_json_key(w, "tenon_rope_divisors");
    tn_json_begin(w, '[');
    for (int64_t i = 0; i < divisors->elements; i++) {
        float value;
        memcpy(&value, (const char *)divisors->data + 4 * i, sizeof value);
        tn_json_put_float(w, value);
    }
    tn_json_end(w, ']');
}

static void put_vocabulary(const tn_gguf *file, tn_json_writer *w) {
    const tn_tensor_info *embedding = tn_gguf_find(file, "token_embd.weight");
    const tn_json *tokens = tn_gguf_get(file, "tokenizer.ggml.tokens");
    int64_t rows = embedding && embedding->rank == 2 ? embedding->shape[0] : tokens ? tokens->count : 0;
    tn_json_integer_member(w, "vocab_size", rows);
    tn_json_boolean_member(w, "tie_word_embeddings", tn_gguf_find(file, "output.weight") == NULL);
    const tn_json *bos = tn_gguf_get(file, "tokenizer.ggml.bos_token_id"), *eos = tn_gguf_get(file, "tokenizer.ggml.eos_token_id");
    const tn_json *turn = tn_gguf_get(file, "tokenizer.ggml.eot_token_id");
    if (bos) tn_json_integer_member(w, "bos_token_id", tn_json_integer(bos, -1));
    if (!eos) return;
    tn_json_key(w, "eos_token_id");
    tn_json_begin(w, '[');
    tn_json_put_integer(w, tn_json_integer(eos, -1));
    if (turn) tn_json_put_integer(w, tn_json_integer(turn, -1));
    tn_json_end(w, ']');
}

tn_status tn_gguf_config(const tn_gguf *file, const char *path, tn_str *json) {
    static const struct {
        const char *name, *class;
    } known[] = {{"llama", "LlamaForCausalLM"}, {"qwen2", "Qwen2ForCausalLM"}, {"qwen3", "Qwen3ForCausalLM"},
                 {"granite", "GraniteForCausalLM"}, {"smollm3", "SmolLM3ForCausalLM"}};
    static const char *const keys[][2] = {
        {"context_length", "max_position_embeddings"}, {"embedding_length", "hidden_size"}, {"block_count", "num_hidden_layers"},
        {"feed_forward_length", "intermediate_size"}, {"attention.head_count", "num_attention_heads"},
        {"attention.head_count_kv", "num_key_value_heads"}, {"attention.key_length", "head_dim"},
        {"attention.layer_norm_rms_epsilon", "rms_norm_eps"}, {"attention.sliding_window", "sliding_window"},
        {"embedding_scale", "embedding_multiplier"}, {"residual_scale", "residual_multiplier"}, {"logit_scale", "logits_scaling"},
        {"attention.scale", "attention_multiplier"}};
    const char *name = architecture(file);
    size_t i = 0, n = sizeof known / sizeof *known;
    while (i < n && strcmp(name, known[i].name) != 0) i++;
    if (i == n) {
        tn_fail(TN_USAGE, "%s: the architecture \"%s\" is not supported", path, name);
        return tn_remedy("supported in GGUF: llama, qwen2, qwen3, granite, smollm3");
    }
    tn_json_writer w = tn_json_write_to(json, 0);
    tn_json_begin(&w, '{');
    tn_json_key(&w, "architectures");
    tn_json_begin(&w, '[');
    tn_json_put_string(&w, known[i].class, -1);
    tn_json_end(&w, ']');
    tn_json_string_member(&w, "model_type", name);
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) copy(file, &w, keys[k][0], keys[k][1]);
    if (tn_gguf_find(file, "blk.0.attn_output.bias")) tn_json_boolean_member(&w, "attention_bias", true);
    if (tn_gguf_find(file, "blk.0.ffn_down.bias")) tn_json_boolean_member(&w, "mlp_bias", true);
    put_rope(file, &w);
    put_vocabulary(file, &w);
    tn_json_end(&w, '}');
    return tn_str_check(json, path);
}
