/* arch.c: the table of families and the reading of config.json. Defaults: those of
 * Transformers' configuration_*.py, which a config.json may leave out, and of what modeling_*.py makes of them.
 * To add a dense family, add a row to `families` (docs/add-a-family.md); what its config does beyond the row
 * goes into its `adjust`. Names and shapes of the tensors are in module.c.
 */
#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

typedef struct reader {
    tn_arena *arena;
    const tn_json *config; /* text_config where there is one */
    const char *name;
} reader;

struct tn_family {
    const char *name, *architecture; /* model_type and architectures[0] */
    int64_t vocab, hidden, intermediate, layers, heads, kv_heads /* 0 = heads */,
        head_dim /* 0 = hidden/heads */;
    int64_t max_positions;
    double norm_eps, theta;
    bool tied, qkv_bias, qk_norm;
    bool bias_by_config; /* attention_bias and mlp_bias are read */
    bool vision;         /* the class has a vision tower too */
    int64_t window;
    bool window_by_flag; /* window only where use_sliding_window is true, in layers from max_window_layers on */
    tn_status (*adjust)(const reader *r, tn_arch *arch);
};

static tn_status adjust_smollm3(const reader *r, tn_arch *arch);
static tn_status adjust_granite(const reader *r, tn_arch *arch);
static tn_status adjust_seed_oss(const reader *r, tn_arch *arch);

/* clang-format off */
static const tn_family families[] = {
    /* vocab, hidden, intermediate, layers, heads, kv_heads, head_dim, max_positions, norm_eps, theta; flags */
    {"llama",    "LlamaForCausalLM",    32000, 4096, 11008, 32, 32,  0,   0,   2048, 1e-6, 1e4,
     .bias_by_config = true},
    {"mistral",  "MistralForCausalLM",  32000, 4096, 14336, 32, 32,  8,   0, 131072, 1e-6, 1e4,
     .window = 4096},
    {"qwen2",    "Qwen2ForCausalLM",   151936, 4096, 22016, 32, 32, 32,   0,  32768, 1e-6, 1e4,
     .qkv_bias = true, .window = 4096, .window_by_flag = true},
    {"qwen3",    "Qwen3ForCausalLM",   151936, 4096, 22016, 32, 32, 32, 128,  32768, 1e-6, 1e4,
     .qk_norm = true, .bias_by_config = true, .window = 4096, .window_by_flag = true},
    {"qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", 152064, 8192, 29568, 80, 64, 8, 0, 32768, 1e-5, 1e6,
     .qkv_bias = true, .window = 4096, .window_by_flag = true, .vision = true},
    {"granite",  "GraniteForCausalLM",  32000, 4096, 11008, 32, 32,  0,   0,   2048, 1e-6, 1e4,
     .bias_by_config = true, .adjust = adjust_granite},
    {"smollm3",  "SmolLM3ForCausalLM", 128256, 2048, 11008, 36, 16,  4,   0,  32768, 1e-6, 2e6,
     .tied = true, .bias_by_config = true, .adjust = adjust_smollm3},
    {"seed_oss", "SeedOssForCausalLM", 155136, 4096, 27648, 64, 80,  8, 128, 524288, 1e-6, 1e4,
     .bias_by_config = true, .adjust = adjust_seed_oss},
};
/* clang-format on */
enum { FAMILIES = sizeof families / sizeof *families };

const char *tn_family_name(const tn_family *family) { return family->name; }

static int64_t integer(const reader *r, const char *key, int64_t otherwise) {
    const tn_json *value = tn_json_get(r->config, key);
    return tn_json_is_null(value) ? otherwise : tn_json_integer(value, INT64_MIN);
}

/* Where the key is absent the family's own value, if it has one; null asks for what follows from the other
 * sizes. */
static int64_t derived(const reader *r, const char *key, int64_t own, int64_t following) {
    return own && !tn_json_get(r->config, key) ? own : following;
}

static double number(const reader *r, const char *key, double otherwise) {
    const tn_json *value = tn_json_get(r->config, key);
    return tn_json_is_null(value) ? otherwise : tn_json_number(value, NAN);
}

static bool boolean(const reader *r, const char *key, bool otherwise) {
    return tn_json_boolean(tn_json_get(r->config, key), otherwise);
}

static tn_status adjust_granite(const reader *r, tn_arch *arch) {
    arch->embed_scale = (float)number(r, "embedding_multiplier", 1.0);
    arch->residual_scale = (float)number(r, "residual_multiplier", 1.0);
    arch->logit_scale = (float)number(r, "logits_scaling", 1.0);
    arch->attention_scale = (float)number(r, "attention_multiplier", 1.0);
    if (arch->embed_scale > 0 && arch->residual_scale > 0 && arch->logit_scale > 0 && arch->attention_scale > 0)
        return TN_OK;
    return tn_fail(TN_BAD_DATA, "%s: granite's multipliers must be positive numbers", r->name);
}

/* attention_bias (on by default) is of q, k and v alone; the output projection has a key of its own. */
static tn_status adjust_seed_oss(const reader *r, tn_arch *arch) {
    arch->qkv_bias = boolean(r, "attention_bias", true);
    arch->o_bias = boolean(r, "attention_out_bias", false);
    return TN_OK;
}

/* Whether layer_types puts the window on this layer; without a list, `otherwise`. */
static bool is_windowed(const tn_json *list, int64_t layer, bool otherwise) {
    return list ? tn_json_is_string(tn_json_at(list, layer), "sliding_attention") : otherwise;
}

static const tn_json *layer_types(const reader *r) {
    const tn_json *types = tn_json_get(r->config, "layer_types");
    return tn_json_is_null(types) ? NULL : types;
}

/* A list that does not speak of every layer leaves open which layer each entry is of. */
static tn_status check_layer_types(const reader *r, const tn_arch *arch) {
    const tn_json *types = layer_types(r);
    if (!types) return TN_OK;
    if (types->type != TN_JSON_ARRAY || types->count != arch->layers) {
        tn_fail(TN_BAD_DATA, "%s: layer_types needs one entry for each of the %lld layers, and has %lld",
                r->name, (long long)arch->layers, (long long)(types->type == TN_JSON_ARRAY ? types->count : 0));
        return tn_remedy("make layer_types and num_hidden_layers agree, or remove layer_types");
    }
    for (int64_t i = 0; i < types->count; i++) {
        const tn_json *kind = tn_json_at(types, i);
        if (tn_json_is_string(kind, "full_attention") || tn_json_is_string(kind, "sliding_attention")) continue;
        tn_fail(TN_USAGE, "%s: layer_types[%lld] \"%s\" is not supported", r->name, (long long)i,
                tn_json_string(kind, "?"));
        return tn_remedy("known: full_attention, sliding_attention");
    }
    return TN_OK;
}

/* With use_sliding_window the layers without rope are the windowed ones, unless layer_types says otherwise. */
static tn_status window_smollm3(const reader *r, const bool *turns, tn_arch *arch) {
    int64_t window = integer(r, "sliding_window", 0);
    if (!boolean(r, "use_sliding_window", false) || window == 0) return TN_OK;
    if (window < 0)
        return tn_fail(TN_BAD_DATA, "%s: sliding_window must be a positive number or null", r->name);
    bool *windowed = tn_arena_take(r->arena, arch->layers);
    if (!windowed) return tn_fail_memory(arch->layers, "layer kinds");
    for (int64_t i = 0; i < arch->layers; i++) windowed[i] = is_windowed(layer_types(r), i, !turns[i]);
    arch->window = window;
    arch->layer_windowed = windowed;
    return TN_OK;
}

/* Every n-th layer has no rope; an explicit list (1 = uses rope) wins over the interval. */
static tn_status adjust_smollm3(const reader *r, tn_arch *arch) {
    const tn_json *list = tn_json_get(r->config, "no_rope_layers");
    int64_t interval = integer(r, "no_rope_layer_interval", 4);
    bool *turns = tn_arena_take(r->arena, arch->layers);
    if (!turns) return tn_fail_memory(arch->layers, "layer kinds");
    if (interval < 1) return tn_fail(TN_BAD_DATA, "%s: no_rope_layer_interval must be positive", r->name);
    for (int64_t i = 0; i < arch->layers; i++)
        turns[i] =
            tn_json_is_null(list) ? (i + 1) % interval != 0 : tn_json_integer(tn_json_at(list, i), 1) != 0;
    arch->layer_rope = turns;
    return window_smollm3(r, turns, arch);
}

/* A text_config names its own half: "qwen2_5_vl_text". */
static bool is_type(const char *type, const char *family) {
    const size_t length = strlen(family);
    return strncmp(type, family, length) == 0 && (!type[length] || strcmp(type + length, "_text") == 0);
}

static tn_status find_family(const reader *r, const tn_json *whole, const tn_family **family) {
    const char *type = tn_json_string(tn_json_get(r->config, "model_type"), NULL);
    const char *class = tn_json_string(tn_json_at(tn_json_get(whole, "architectures"), 0), "");
    for (int i = 0; i < FAMILIES; i++)
        if (type ? is_type(type, families[i].name) : strcmp(class, families[i].architecture) == 0) {
            *family = &families[i];
            return TN_OK;
        }
    char known[256] = "";
    for (int i = 0, used = 0; i < FAMILIES && used < (int)sizeof known; i++)
        used += snprintf(known + used, sizeof known - (size_t)used, "%s%s", i ? ", " : "", families[i].name);
    tn_fail(TN_USAGE, "%s: model family \"%s\" is not supported", r->name, type ? type : class);
    return tn_remedy("supported model_type values: %s", known);
}

/* Which layers are windowed: all, or where the family has a flag those of layer_types, else the upper ones. */
static tn_status read_window(const reader *r, tn_arch *arch) {
    const tn_family *family = arch->family;
    const tn_json *given = tn_json_get(r->config, "sliding_window");
    int64_t window = given && given->type == TN_JSON_NULL ? 0 : integer(r, "sliding_window", family->window);
    bool any = false;
    if (window < 0)
        return tn_fail(TN_BAD_DATA, "%s: sliding_window must be a positive number or null", r->name);
    if (!family->window || (family->window_by_flag && !boolean(r, "use_sliding_window", false))) window = 0;
    if (window == 0) return TN_OK;
    bool *windowed = tn_arena_take(r->arena, arch->layers);
    if (!windowed) return tn_fail_memory(arch->layers, "layer kinds");
    for (int64_t i = 0; i < arch->layers; i++) {
        /* mistral's window is that of every layer: Transformers' class does not read layer_types. */
        windowed[i] =
            !family->window_by_flag || is_windowed(layer_types(r), i, i >= integer(r, "max_window_layers", 28));
        any = any || windowed[i];
    }
    arch->window = any ? window : 0;
    arch->layer_windowed = any ? windowed : NULL;
    return TN_OK;
}

/* No class of these families in Transformers turns a part of a head: the default rope does not read
 * partial_rotary_factor, and every other kind fails over the shapes. */
static tn_status check_partial(const reader *r, const tn_json *const places[], int count, const tn_arch *arch) {
    double partial = number(r, "partial_rotary_factor", 1.0);
    for (int i = count - 1; i >= 0; i--) {
        const tn_json *value = tn_json_get(places[i], "partial_rotary_factor");
        if (!tn_json_is_null(value)) partial = tn_json_number(value, NAN);
    }
    if (!(partial > 0) || partial > 1)
        return tn_fail(TN_BAD_DATA, "%s: partial_rotary_factor must be in (0, 1]", r->name);
    if ((int64_t)((double)arch->head_dim * partial) == arch->head_dim) return TN_OK;
    const char *family = arch->family->name;
    if (arch->rope.kind == TN_ROPE_DEFAULT) {
        tn_warn(
            "%s: partial_rotary_factor %g is not used: the %s family turns whole heads, here as in "
            "Transformers",
            r->name, partial, family);
        return TN_OK;
    }
    tn_fail(TN_USAGE,
            "%s: partial_rotary_factor %g: the %s family turns whole heads, and with scaled rope "
            "Transformers runs no such model either",
            r->name, partial, family);
    return tn_remedy("remove partial_rotary_factor if the model was trained without it");
}

/* Of the two generations' keys the old one wins where both stand, as in Transformers; {} is as good as absent.
 */
static const tn_json *rope_of(const reader *r) {
    const tn_json *scaling = tn_json_get(r->config, "rope_scaling");
    bool given = !tn_json_is_null(scaling) && !(scaling->type == TN_JSON_OBJECT && scaling->count == 0);
    return given ? scaling : tn_json_get(r->config, "rope_parameters");
}

static tn_status read_rope(const reader *r, const tn_json *override, tn_arch *arch) {
    const tn_json *parameters = rope_of(r);
    const tn_json *scaling = override ? override : parameters;
    if (tn_json_is_null(scaling)) scaling = NULL;
    if (scaling && scaling->type != TN_JSON_OBJECT)
        return tn_fail(TN_BAD_DATA, "%s: rope_scaling is no object", r->name);
    double theta =
        tn_json_number(tn_json_get(parameters, "rope_theta"), number(r, "rope_theta", arch->family->theta));
    tn_status status = tn_rope_read(r->arena, scaling, tn_json_get(r->config, "tenon_rope_divisors"), theta,
                                    arch->head_dim, integer(r, "original_max_position_embeddings", 0),
                                    arch->max_positions, r->name, &arch->rope);
    if (status != TN_OK) return status;
    const tn_json *const places[] = {scaling, parameters};
    status = check_partial(r, places, 2, arch);
    if (status != TN_OK) return status;
    arch->trained_length = arch->max_positions;
    /* Configs scale in two ways: max_position_embeddings is the original length (then factor stretches it), or
     * already the stretched one. */
    if (scaling && arch->rope.kind != TN_ROPE_DEFAULT && arch->rope.factor > 1) {
        double length = arch->rope.factor * (double)arch->rope.original_length;
        int64_t stretched = (int64_t)fmin(length, (double)((int64_t)1 << 40));
        if (stretched > arch->trained_length) arch->trained_length = stretched;
    }
    return TN_OK;
}

/* The tower, and how the pairs of a head are shared out among frame, row and column. */
static tn_status read_vision(const reader *r, const tn_json *whole, tn_arch *arch) {
    static const int64_t usual[3] = {16, 24, 24};
    const tn_json *sections = tn_json_get(rope_of(r), "mrope_section");
    tn_vision_arch *vision = tn_arena_take(r->arena, (int64_t)sizeof *vision);
    int64_t pairs = 0;
    if (!vision) return tn_fail_memory((int64_t)sizeof *vision, "vision_config");
    for (int i = 0; i < 3; i++) {
        const tn_json *one = tn_json_at(sections, i);
        arch->mrope_section[i] = tn_json_is_null(sections) ? usual[i] : tn_json_integer(one, -1);
        if (arch->mrope_section[i] < 0 || arch->mrope_section[i] > arch->head_dim) pairs = INT32_MIN;
        else pairs += arch->mrope_section[i];
    }
    if (pairs != arch->head_dim / 2) {
        tn_fail(TN_BAD_DATA, "%s: mrope_section shares out %lld pairs, and a head has %lld", r->name,
                (long long)(pairs > 0 ? pairs : 0), (long long)(arch->head_dim / 2));
        return tn_remedy("check rope_scaling in config.json");
    }
    arch->vision = vision;
    tn_status status = tn_vision_arch_read(r->arena, tn_json_get(whole, "vision_config"), r->name, vision);
    if (status == TN_OK && vision->out != arch->hidden)
        return tn_fail(TN_BAD_DATA, "%s: the tower's out_hidden_size %lld is not the hidden_size %lld", r->name,
                       (long long)vision->out, (long long)arch->hidden);
    return status;
}

static tn_status read_activation(const reader *r, tn_arch *arch) {
    const tn_json *value = tn_json_get(r->config, "hidden_activation");
    if (tn_json_is_null(value)) value = tn_json_get(r->config, "hidden_act");
    const char *name = tn_json_string(value, "silu");
    if (!strcmp(name, "silu") || !strcmp(name, "swish")) arch->activation = TN_SILU;
    else if (!strcmp(name, "gelu_pytorch_tanh") || !strcmp(name, "gelu_new")) arch->activation = TN_GELU_TANH;
    else if (!strcmp(name, "gelu")) arch->activation = TN_GELU;
    else {
        tn_fail(TN_USAGE, "%s: activation \"%s\" is not supported", r->name, name);
        return tn_remedy("known: silu, gelu, gelu_pytorch_tanh");
    }
    return TN_OK;
}

static tn_status check_sizes(const reader *r, const tn_arch *a) {
    const struct {
        const char *key;
        int64_t value, most;
    } sizes[] = {{"vocab_size", a->vocab, 1 << 24},
                 {"hidden_size", a->hidden, 1 << 20},
                 {"intermediate_size", a->intermediate, 1 << 22},
                 {"num_hidden_layers", a->layers, 1 << 12},
                 {"num_attention_heads", a->heads, 1 << 16},
                 {"num_key_value_heads", a->kv_heads, 1 << 16},
                 {"head_dim", a->head_dim, 1 << 14},
                 {"max_position_embeddings", a->max_positions, (int64_t)1 << 40}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].most)
            return tn_fail(TN_BAD_DATA, "%s: %s is missing, not an integer or out of range", r->name,
                           sizes[i].key);
    if (a->heads % a->kv_heads != 0)
        return tn_fail(TN_BAD_DATA, "%s: %lld attention heads cannot share %lld key/value heads", r->name,
                       (long long)a->heads, (long long)a->kv_heads);
    if (a->head_dim % 2 != 0)
        return tn_fail(TN_BAD_DATA, "%s: head_dim %lld is odd", r->name, (long long)a->head_dim);
    if (!(a->norm_eps > 0)) return tn_fail(TN_BAD_DATA, "%s: rms_norm_eps must be a positive number", r->name);
    return TN_OK;
}

static void read_dropout(const reader *r, tn_arch *arch) {
    static const char *const keys[] = {"attention_dropout", "residual_dropout", "resid_pdrop", "embd_pdrop"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        arch->dropout = fmax(arch->dropout, number(r, keys[i], 0));
}

static void read_tokens(const reader *r, tn_arch *arch) {
    const tn_json *eos = tn_json_get(r->config, "eos_token_id");
    int64_t bos = tn_json_integer(tn_json_get(r->config, "bos_token_id"), -1);
    arch->bos = bos >= 0 && bos < arch->vocab ? (int32_t)bos : -1;
    int64_t count = tn_json_is_null(eos) ? 0 : eos->type == TN_JSON_ARRAY ? eos->count : 1;
    for (int64_t i = 0; i < count && arch->eos_count < 16; i++) {
        int64_t id = tn_json_integer(eos->type == TN_JSON_ARRAY ? tn_json_at(eos, i) : eos, -1);
        if (id >= 0 && id < arch->vocab) arch->eos[arch->eos_count++] = (int32_t)id;
    }
}

tn_status tn_arch_read(tn_arena *arena, const tn_json *config, const tn_json *rope_scaling, const char *name,
                       tn_arch *arch) {
    const tn_json *text = tn_json_get(config, "text_config");
    reader r = {arena, text && text->type == TN_JSON_OBJECT ? text : config, name};
    const tn_family *f;
    tn_status status;
    *arch = (tn_arch){0};
    if (!config || config->type != TN_JSON_OBJECT)
        return tn_fail(TN_BAD_DATA, "%s: the configuration is not a JSON object", name);
    TN_TRY(find_family(&r, config, &f));
    arch->family = f;
    arch->vocab = integer(&r, "vocab_size", f->vocab);
    arch->hidden = integer(&r, "hidden_size", f->hidden);
    arch->intermediate = integer(&r, "intermediate_size", f->intermediate);
    arch->layers = integer(&r, "num_hidden_layers", f->layers);
    arch->heads = integer(&r, "num_attention_heads", f->heads);
    arch->kv_heads =
        integer(&r, "num_key_value_heads", derived(&r, "num_key_value_heads", f->kv_heads, arch->heads));
    arch->head_dim = integer(
        &r, "head_dim", derived(&r, "head_dim", f->head_dim, arch->heads > 0 ? arch->hidden / arch->heads : 0));
    arch->max_positions = integer(&r, "max_position_embeddings", f->max_positions);
    arch->norm_eps = (float)number(&r, "rms_norm_eps", f->norm_eps);
    TN_TRY(check_sizes(&r, arch));
    TN_TRY(check_layer_types(&r, arch));
    arch->tied = tn_json_boolean(tn_json_get(config, "tie_word_embeddings"),
                                 boolean(&r, "tie_word_embeddings", f->tied));
    bool bias = f->bias_by_config && boolean(&r, "attention_bias", false);
    arch->qkv_bias = f->qkv_bias || bias;
    arch->o_bias = bias;
    arch->mlp_bias = f->bias_by_config && boolean(&r, "mlp_bias", false);
    arch->qk_norm = f->qk_norm;
    arch->attention_scale = 1.0f / sqrtf((float)arch->head_dim);
    arch->embed_scale = arch->residual_scale = arch->logit_scale = 1.0f;
    arch->initializer_range = number(&r, "initializer_range", 0.02);
    TN_TRY(read_activation(&r, arch));
    TN_TRY(read_window(&r, arch));
    TN_TRY(read_rope(&r, rope_scaling, arch));
    if (f->vision) TN_TRY(read_vision(&r, config, arch));
    const char *dtype = tn_json_string(tn_json_get(r.config, "dtype"),
                                       tn_json_string(tn_json_get(r.config, "torch_dtype"), "float32"));
    if (!tn_dtype_from_name(dtype, &arch->stored_dtype)) arch->stored_dtype = TN_DTYPE_F32;
    read_dropout(&r, arch);
    read_tokens(&r, arch);
    if (f->adjust) TN_TRY(f->adjust(&r, arch));
done:
    return status;
}
