/* gguf_names.c: the tables. A new family is a row here (docs/add-a-family.md). */
#include "format/gguf_names.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"

static const tn_gguf_family families[] = {
    {"llama", "LlamaForCausalLM", true},     {"qwen2", "Qwen2ForCausalLM", false},
    {"qwen3", "Qwen3ForCausalLM", false},    {"granite", "GraniteForCausalLM", true},
    {"smollm3", "SmolLM3ForCausalLM", true},
};
enum { FAMILIES = sizeof families / sizeof *families };

const tn_gguf_family *tn_gguf_find_family(const char *name) {
    for (int i = 0; i < FAMILIES; i++)
        if (strcmp(name, families[i].name) == 0) return &families[i];
    return NULL;
}

const tn_gguf_family *tn_gguf_family_of(const char *model_type) {
    return tn_gguf_find_family(strcmp(model_type, "mistral") == 0 ? "llama" : model_type);
}

const char *tn_gguf_family_names(char out[256]) {
    *out = '\0';
    for (int i = 0, used = 0; i < FAMILIES && used < 256; i++)
        used += snprintf(out + used, 256 - (size_t)used, "%s%s", i ? ", " : "", families[i].name);
    return out;
}

/* ---- Tensors ------------------------------------------------------------------------------------- */

typedef struct name_pair {
    const char *gguf, *hf;
} name_pair;

/* In a layer, up to the word behind the last dot. */
static const name_pair layer[] = {
    {"attn_norm.", "input_layernorm."},
    {"attn_q.", "self_attn.q_proj."},
    {"attn_k.", "self_attn.k_proj."},
    {"attn_v.", "self_attn.v_proj."},
    {"attn_output.", "self_attn.o_proj."},
    {"attn_q_norm.", "self_attn.q_norm."},
    {"attn_k_norm.", "self_attn.k_norm."},
    {"ffn_gate.", "mlp.gate_proj."},
    {"ffn_up.", "mlp.up_proj."},
    {"ffn_down.", "mlp.down_proj."},
    {"ffn_norm.", "post_attention_layernorm."},
};
static const name_pair whole[] = {{"token_embd.weight", "model.embed_tokens.weight"},
                                  {"output_norm.weight", "model.norm.weight"},
                                  {"output.weight", "lm_head.weight"}};
static const name_pair layers = {"blk.", "model.layers."};

static const char *side(const name_pair *pair, bool gguf) { return gguf ? pair->gguf : pair->hf; }

/* The name on the other side. */
static bool translate(const char *name, bool from_gguf, char out[128]) {
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (strcmp(name, side(&whole[i], from_gguf)) == 0)
            return snprintf(out, 128, "%s", side(&whole[i], !from_gguf)) < 128;
    if (!tn_starts_with(name, side(&layers, from_gguf))) return false;
    const char *number = name + strlen(side(&layers, from_gguf));
    const int digits = (int)strspn(number, "0123456789");
    if (digits == 0 || digits > 6 || number[digits] != '.') return false;
    const char *rest = number + digits + 1;
    for (size_t i = 0; i < sizeof layer / sizeof *layer; i++)
        if (tn_starts_with(rest, side(&layer[i], from_gguf)))
            return snprintf(out, 128, "%s%.*s.%s%s", side(&layers, !from_gguf), digits, number,
                            side(&layer[i], !from_gguf), rest + strlen(side(&layer[i], from_gguf))) < 128;
    return false;
}

bool tn_gguf_hf_name(const char *name, char out[128]) { return translate(name, true, out); }
bool tn_gguf_own_name(const char *hf_name, char out[128]) { return translate(hf_name, false, out); }

/* ---- Metadata ------------------------------------------------------------------------------------ */

const tn_gguf_number tn_gguf_numbers[] = {
    {"context_length", "max_position_embeddings", true, false},
    {"embedding_length", "hidden_size", true, false},
    {"block_count", "num_hidden_layers", true, false},
    {"feed_forward_length", "intermediate_size", true, false},
    {"attention.head_count", "num_attention_heads", true, false},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, true},
    {"attention.sliding_window", "sliding_window", false, false},
    {"embedding_scale", "embedding_multiplier", false, true},
    {"residual_scale", "residual_multiplier", false, true},
    {"logit_scale", "logits_scaling", false, true},
    {"attention.scale", "attention_multiplier", false, true},
};
const int tn_gguf_number_count = sizeof tn_gguf_numbers / sizeof *tn_gguf_numbers;
const tn_gguf_number tn_gguf_kv_heads = {"attention.head_count_kv", "num_key_value_heads", true, false};
const tn_gguf_number tn_gguf_head_dim = {"attention.key_length", "head_dim", false, false};
const tn_gguf_number tn_gguf_rope_base = {"rope.freq_base", "rope_theta", false, true};
const tn_gguf_number tn_gguf_rope_factor = {"rope.scaling.factor", "factor", false, true};
const tn_gguf_number tn_gguf_rope_length = {"rope.scaling.original_context_length",
                                            "original_max_position_embeddings", false, false};
const tn_gguf_number tn_gguf_rope_attention = {"rope.scaling.attn_factor", "attention_factor", false, true};
