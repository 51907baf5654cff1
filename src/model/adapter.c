/* adapter.c: from a PEFT configuration to the list of parameters; placing and first values. Saving and loading
 * are in adapter_file.c.
 */
#include "model/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "quant/dynamic_map.h"

const char *tn_group_name(tn_group group) {
    static const char *const names[TN_GROUPS] = {"lora", "full", "embed_tokens", "lm_head"};
    return names[group];
}

typedef struct builder {
    const tn_arch *arch;
    const char *name; /* the adapter's, for messages */
    tn_adapter *adapter;
    tn_targeting *targeting;
    tn_dtype full_dtype;
    int64_t capacity;
} builder;

static tn_status add_param(builder *b, tn_param param, const char *suffix) {
    tn_adapter *adapter = b->adapter;
    char path[96];
    tn_status status =
        tn_grow(&adapter->params, &b->capacity, adapter->param_count + 1, (int64_t)sizeof param, "parameters");
    if (status != TN_OK) return status;
    param.name = tn_arena_printf(&adapter->arena, "%s%s.%s", adapter->full ? "" : "base_model.model.",
                                 tn_module_peft_path(b->arch, param.module, param.layer, path), suffix);
    if (!param.name) return tn_fail_memory(128, "a parameter's name");
    param.count = param.shape[0] * param.shape[1];
    adapter->params[adapter->param_count++] = param;
    return TN_OK;
}

static tn_group full_group(const tn_adapter *adapter, tn_module module) {
    if (adapter->full) return TN_GROUP_FULL;
    return module == TN_MODULE_EMBED  ? TN_GROUP_EMBED
           : module == TN_MODULE_HEAD ? TN_GROUP_HEAD
                                      : TN_GROUP_FULL;
}

/* Norms and biases are not decayed, as in Transformers' Trainer. */
static tn_status add_full(void *user, tn_module module, int64_t layer, bool bias) {
    builder *b = user;
    tn_param param = {.kind = bias ? TN_PARAM_BIAS : TN_PARAM_WEIGHT,
                      .module = module,
                      .layer = layer,
                      .group = full_group(b->adapter, module),
                      .rank = bias || tn_module_is_norm(module) ? 1 : 2,
                      .dtype = b->full_dtype};
    param.decay = param.rank == 2;
    tn_module_shape(b->arch, module, &param.shape[0], &param.shape[1]);
    if (bias) param.shape[1] = 1;
    return add_param(b, param, bias ? "bias" : "weight");
}

static tn_status add_lora(builder *b, tn_module module, int64_t layer, const char *path) {
    tn_param param = {.module = module, .layer = layer, .group = TN_GROUP_LORA, .decay = true, .rank = 2};
    int64_t rows, cols, r;
    double alpha;
    tn_status status = TN_OK;
    if (!tn_targeting_lora(b->targeting, path, module == TN_MODULE_HEAD, &r, &alpha)) return TN_OK;
    if (module == TN_MODULE_EMBED) {
        tn_fail(TN_USAGE, "LoRA on the embedding (embed_tokens in target_modules) is not supported yet");
        return tn_remedy("put embed_tokens into modules_to_save, which trains it in full");
    }
    tn_module_shape(b->arch, module, &rows, &cols);
    param.dtype = TN_DTYPE_F32;
    param.scale = alpha / (b->adapter->config->use_rslora ? sqrt((double)r) : (double)r);
    param.kind = TN_PARAM_LORA_A, param.shape[0] = r, param.shape[1] = cols;
    TN_TRY(add_param(b, param, "lora_A.weight"));
    param.kind = TN_PARAM_LORA_B, param.shape[0] = rows, param.shape[1] = r;
    TN_TRY(add_param(b, param, "lora_B.weight"));
    if (!b->adapter->config->use_dora) goto done;
    param.kind = TN_PARAM_MAGNITUDE, param.rank = 1, param.shape[1] = 1;
    status = add_param(b, param, "lora_magnitude_vector");
done:
    return status;
}

/* What a tensor of the base gets: its own copy that trains, where modules_to_save holds its module; else LoRA,
 * where it is the weight of a linear module that is targeted. */
static tn_status add_trained(void *user, tn_module module, int64_t layer, bool bias) {
    builder *b = user;
    char path[96];
    int64_t r;
    double alpha;
    tn_module_peft_path(b->arch, module, layer, path);
    const bool targetable = !bias && !tn_module_is_norm(module);
    if (!tn_targeting_full(b->targeting, path)) return targetable ? add_lora(b, module, layer, path) : TN_OK;
    if (targetable && tn_targeting_lora(b->targeting, path, module == TN_MODULE_HEAD, &r, &alpha)) {
        tn_fail(TN_USAGE, "%s: %s is in target_modules and, by the end of its name, in modules_to_save too",
                b->name, path);
        return tn_remedy("a module whose whole name is in modules_to_save gets no LoRA: lm_head, not head");
    }
    return add_full(user, module, layer, bias);
}

/* ---- Trained rows --------------------------------------------------------------------------------- */

const tn_param *tn_adapter_tokens(const tn_adapter *adapter, const tn_arch *arch, tn_module module) {
    const tn_param *own = tn_adapter_find(adapter, module, -1, TN_PARAM_TOKENS);
    if (own || module != TN_MODULE_HEAD || !arch->tied) return own;
    return tn_adapter_find(adapter, TN_MODULE_EMBED, -1, TN_PARAM_TOKENS);
}

static tn_status add_tokens(builder *b, tn_module module, const tn_token_rule *rule) {
    tn_param param = {.kind = TN_PARAM_TOKENS,
                      .module = module,
                      .layer = -1,
                      .group = full_group(b->adapter, module),
                      .decay = true,
                      .rank = 2,
                      .shape = {rule->count, b->arch->hidden},
                      .dtype = TN_DTYPE_F32, /* as PEFT keeps them beside a base of 16 bits */
                      .ids = rule->ids};
    if (rule->count == 0) return TN_OK;
    for (int64_t i = 0; i < rule->count; i++)
        if (rule->ids[i] >= b->arch->vocab) {
            tn_fail(TN_USAGE, "%s: trainable_token_indices names token %lld, and the model has %lld", b->name,
                    (long long)rule->ids[i], (long long)b->arch->vocab);
            return tn_remedy("ids are the numbers that tenon tokenize prints, from 0");
        }
    return add_param(b, param, "token_adapter.trainable_tokens_delta");
}

/* As PEFT: of a tied model the head's rows are the embedding's where both lists say the same. */
static tn_status add_all_tokens(builder *b) {
    const tn_peft_config *c = b->adapter->config;
    const tn_token_rule *embed = &c->embed_tokens, *head = &c->head_tokens;
    const bool same = embed->count == head->count && head->count > 0 &&
                      memcmp(embed->ids, head->ids, (size_t)head->count * sizeof *head->ids) == 0;
    if (b->arch->tied && c->ensure_weight_tying && embed->count && head->count && !same) {
        tn_fail(TN_USAGE, "%s: ensure_weight_tying, and trainable_token_indices names other tokens of lm_head",
                b->name);
        return tn_remedy("give one list, which is for both");
    }
    tn_status status = add_tokens(b, TN_MODULE_EMBED, embed);
    if (status != TN_OK || (b->arch->tied && same)) return status;
    return add_tokens(b, TN_MODULE_HEAD, head);
}

/* A table is changed in one way: PEFT refuses most of these pairs too. */
static tn_status check_tokens(const builder *b) {
    static const tn_module tables[] = {TN_MODULE_EMBED, TN_MODULE_HEAD};
    static const tn_param_kind others[] = {TN_PARAM_WEIGHT, TN_PARAM_LORA_A};
    for (int i = 0; i < 2; i++) {
        char path[96];
        if (!tn_adapter_tokens(b->adapter, b->arch, tables[i])) continue;
        for (int k = 0; k < 2; k++)
            if (tn_adapter_find(b->adapter, tables[i], -1, others[k])) {
                tn_fail(TN_USAGE, "%s: rows of %s are in trainable_token_indices%s, and it is in %s too",
                        b->name, tn_module_path(tables[i], -1, path),
                        tn_adapter_find(b->adapter, tables[i], -1, TN_PARAM_TOKENS)
                            ? ""
                            : " (by the tied embedding)",
                        k == 0 ? "modules_to_save" : "target_modules");
                return tn_remedy("leave it out of one of the two");
            }
    }
    return TN_OK;
}

/* Without such modules the setting changes nothing, nor on a base that is not tied. */
static tn_status check_tying(const builder *b) {
    static const tn_module tables[] = {TN_MODULE_EMBED, TN_MODULE_HEAD};
    if (!b->adapter->config->ensure_weight_tying || !b->arch->tied) return TN_OK;
    for (int i = 0; i < 2; i++)
        if (tn_adapter_find(b->adapter, tables[i], -1, TN_PARAM_WEIGHT) ||
            tn_adapter_find(b->adapter, tables[i], -1, TN_PARAM_LORA_A)) {
            tn_fail(TN_USAGE,
                    "%s: ensure_weight_tying, by which embed_tokens and lm_head train as one, is not "
                    "supported yet",
                    b->name);
            return tn_remedy("make the adapter without it: the two then begin equal and train apart");
        }
    return TN_OK;
}

/* ---- The list ------------------------------------------------------------------------------------- */

enum { SMALLEST_IN_8_BITS = 4096 };
bool tn_param_is_small(const tn_param *p) { return p->count < SMALLEST_IN_8_BITS; }

static int by_group(const void *x, const void *y) {
    const tn_param *a = x, *b = y;
    if (tn_param_is_small(a) != tn_param_is_small(b)) return tn_param_is_small(a) ? 1 : -1;
    if (a->group != b->group) return (int)a->group - (int)b->group;
    if (a->decay != b->decay) return (int)b->decay - (int)a->decay;
    if (a->layer != b->layer) return a->layer < b->layer ? -1 : 1;
    return a->module != b->module ? (int)a->module - (int)b->module : (int)a->kind - (int)b->kind;
}

/* The gaps between tensors are zeros, in gradients and moments too. */
static void lay_out(tn_adapter *adapter) {
    int64_t offset = 0;
    qsort(adapter->params, (size_t)adapter->param_count, sizeof *adapter->params, by_group);
    for (int64_t i = 0; i < adapter->param_count; i++) {
        tn_param *p = &adapter->params[i];
        tn_span *span = adapter->span_count ? &adapter->spans[adapter->span_count - 1] : NULL;
        const bool small = tn_param_is_small(p);
        if (!span || span->group != p->group || span->decay != p->decay || span->small != small) {
            span = &adapter->spans[adapter->span_count++];
            *span = (tn_span){p->group, p->decay, small, offset, 0};
        }
        p->offset = offset;
        const int64_t unit = small ? 64 : TN_DYNAMIC_BLOCK;
        offset += (p->count + unit - 1) / unit * unit;
        span->count = offset - span->offset;
    }
    adapter->elements = offset;
}

static tn_status check_supported(const tn_peft_config *config, const char *name) {
    const char *what = config->unsupported;
    if (!what && strcmp(config->bias, "none") != 0) what = "bias";
    if (!what) return TN_OK;
    tn_fail(TN_USAGE, "%s: the setting %s is not supported yet", name, what);
    return tn_remedy(
        "leave out %s; an adapter that was made with it is not loaded without it, because nothing of "
        "an adapter is ever dropped silently",
        what);
}

static void warn_of_layers(const tn_peft_config *config, int64_t layers, const char *name) {
    for (int64_t i = 0; i < config->layers_count; i++)
        if (config->layers_to_transform[i] < 0 || config->layers_to_transform[i] >= layers)
            tn_warn("%s: layers_to_transform names layer %lld, and the model's last is %lld", name,
                    (long long)config->layers_to_transform[i], (long long)layers - 1);
}

/* A rule that names linear modules of the vision tower asks for more than trains here, and PEFT would build it.
 */
static tn_status check_vision(const builder *b) {
    static const char *const linears[] = {
        "blocks.0.attn.qkv",    "blocks.0.attn.proj",     "blocks.0.mlp.gate_proj",
        "blocks.0.mlp.up_proj", "blocks.0.mlp.down_proj", "merger.mlp.0",
        "merger.mlp.2"};
    for (size_t i = 0; b->arch->vision && i < sizeof linears / sizeof *linears; i++) {
        char path[96];
        int64_t r;
        double alpha;
        snprintf(path, sizeof path, "model.visual.%s", linears[i]);
        if (!tn_targeting_lora(b->targeting, path, false, &r, &alpha) && !tn_targeting_full(b->targeting, path))
            continue;
        tn_fail(TN_USAGE, "%s: the targets reach into the vision tower (%s), which does not train yet", b->name,
                path);
        return tn_remedy(
            "--target_modules language takes the linear modules of the language model alone; so does "
            "\"attention\" its attention");
    }
    return TN_OK;
}

/* PEFT loads no adapter that has full modules alone. */
static tn_status check_lora(const tn_adapter *adapter, const char *name) {
    for (int64_t i = 0; i < adapter->param_count; i++)
        if (adapter->params[i].kind == TN_PARAM_LORA_A) return TN_OK;
    tn_fail(TN_USAGE, "%s: no module gets LoRA, since every target is in modules_to_save or excluded", name);
    return tn_remedy("name a further module in target_modules: PEFT takes no adapter without LoRA");
}

tn_status tn_adapter_new(const tn_arch *arch, tn_peft_config *config, tn_dtype full_dtype, const char *name,
                         tn_adapter **out) {
    builder b = {.arch = arch, .name = name, .full_dtype = full_dtype};
    tn_status status;
    *out = NULL;
    if (!(b.adapter = calloc(1, sizeof *b.adapter))) {
        tn_peft_config_free(config);
        return tn_fail_memory((int64_t)sizeof *b.adapter, "an adapter");
    }
    b.adapter->config = config;
    TN_TRY(check_supported(config, name));
    status = tn_targeting_new(config, &b.targeting);
    if (status != TN_OK) {
        tn_context(status, "%s", name);
        goto done;
    }
    TN_TRY(tn_each_tensor(arch, add_trained, &b));
    if (arch->tied)
        TN_TRY(add_trained(&b, TN_MODULE_HEAD, -1, false)); /* the embedding's tensor, a module still */
    TN_TRY(add_all_tokens(&b));
    TN_TRY(check_tokens(&b));
    TN_TRY(check_tying(&b));
    TN_TRY(check_vision(&b));
    TN_TRY(tn_targeting_check(b.targeting, name));
    warn_of_layers(config, arch->layers, name);
    const char *unmatched = tn_targeting_unmatched(b.targeting);
    if (unmatched || b.adapter->param_count == 0) {
        status = tn_fail(TN_USAGE, "%s: %s%s matches no module of this model", name,
                         unmatched ? "" : "the target ", unmatched ? unmatched : "rule");
        tn_remedy(
            "linear modules here: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; "
            "modules_to_save takes them, embed_tokens and the norms");
        goto done;
    }
    TN_TRY(check_lora(b.adapter, name));
    lay_out(b.adapter);
    *out = b.adapter;
    b.adapter = NULL;
done:
    tn_targeting_free(b.targeting);
    tn_adapter_free(b.adapter);
    return status;
}

tn_status tn_adapter_new_full(const tn_arch *arch, tn_dtype dtype, tn_adapter **adapter) {
    builder b = {.arch = arch, .full_dtype = dtype};
    tn_status status = tn_adapter_empty(&b.adapter);
    *adapter = NULL;
    if (status != TN_OK) return status;
    b.adapter->full = true;
    TN_TRY(tn_each_tensor(arch, add_full, &b));
    lay_out(b.adapter);
    *adapter = b.adapter;
    b.adapter = NULL;
done:
    tn_adapter_free(b.adapter);
    return status;
}

tn_status tn_adapter_empty(tn_adapter **adapter) {
    *adapter = calloc(1, sizeof **adapter);
    return *adapter ? TN_OK : tn_fail_memory((int64_t)sizeof **adapter, "an adapter");
}

void tn_adapter_free(tn_adapter *adapter) {
    if (!adapter) return;
    tn_peft_config_free(adapter->config);
    free(adapter->params);
    tn_arena_free(&adapter->arena);
    free(adapter);
}

const tn_param *tn_adapter_find(const tn_adapter *adapter, tn_module module, int64_t layer,
                                tn_param_kind kind) {
    for (int64_t i = 0; i < adapter->param_count; i++) {
        const tn_param *p = &adapter->params[i];
        if (p->module == module && p->layer == layer && p->kind == kind) return p;
    }
    return NULL;
}

int64_t tn_adapter_group_count(const tn_adapter *adapter, tn_group group) {
    int64_t count = 0;
    for (int64_t i = 0; i < adapter->param_count; i++)
        if (adapter->params[i].group == group) count += adapter->params[i].count;
    return count;
}

static int64_t large_elements(const tn_adapter *adapter) {
    for (int i = 0; i < adapter->span_count; i++)
        if (adapter->spans[i].small) return adapter->spans[i].offset;
    return adapter->elements;
}

static void place_moment(const tn_adapter *adapter, tn_region *region, float **wide, uint8_t **codes,
                         float **absmax) {
    const int64_t in_8_bits = adapter->first_moment, rest = adapter->elements - in_8_bits;
    const tn_segment segment = TN_SEGMENT_OPTIMIZER;
    if (rest) *wide = tn_region_take(region, segment, rest * (int64_t)sizeof **wide);
    if (in_8_bits == 0) return;
    *codes = tn_region_take(region, segment, in_8_bits);
    *absmax = tn_region_take(region, segment, in_8_bits / TN_DYNAMIC_BLOCK * (int64_t)sizeof **absmax);
}

void tn_adapter_place(tn_adapter *adapter, tn_region *region, bool training, tn_moments moments) {
    int64_t bytes = adapter->elements * (int64_t)sizeof(float);
    if (bytes == 0) return;
    adapter->values = tn_region_take(region, TN_SEGMENT_ADAPTER, bytes);
    if (!training) return;
    adapter->grads = tn_region_take(region, TN_SEGMENT_GRADIENTS, bytes);
    adapter->first_moment = moments.in_8_bits ? large_elements(adapter) : 0;
    if (moments.arrays > 0) place_moment(adapter, region, &adapter->m, &adapter->m_codes, &adapter->m_absmax);
    if (moments.arrays > 1) place_moment(adapter, region, &adapter->v, &adapter->v_codes, &adapter->v_absmax);
}

tn_status tn_adapter_clear(tn_adapter *adapter, tn_device *device) {
    const int64_t all = adapter->elements, in_8_bits = adapter->first_moment;
    const struct {
        void *memory;
        int64_t bytes;
    } pieces[] = {{adapter->grads, all * 4},
                  {adapter->m, (all - in_8_bits) * 4},
                  {adapter->v, (all - in_8_bits) * 4},
                  {adapter->m_codes, in_8_bits},
                  {adapter->v_codes, in_8_bits},
                  {adapter->m_absmax, in_8_bits / TN_DYNAMIC_BLOCK * 4},
                  {adapter->v_absmax, in_8_bits / TN_DYNAMIC_BLOCK * 4}};
    tn_status status = TN_OK;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        if (pieces[i].memory) TN_TRY(device->backend->zero(device, pieces[i].memory, pieces[i].bytes));
done:
    return status;
}

/* PEFT's initial values (tuners/lora/layer.py, reset_lora_parameters). The stream's site is a hash of the name,
 * so adding a module changes no other. */
static void initial_values(const tn_param *p, const char *kind, uint64_t seed, float *values) {
    uint64_t stream = TN_STREAM(TN_PURPOSE_INIT, 0, tn_hash64(p->name, (int64_t)strlen(p->name)) & 0xFFFFFF);
    float bound = 1.0f / sqrtf((float)p->shape[1]);
    const bool gaussian = strcmp(kind, "gaussian") == 0;
    if (p->kind == TN_PARAM_LORA_B && strcmp(kind, "false") != 0) {
        memset(values, 0, (size_t)p->count * sizeof *values);
        return;
    }
    for (int64_t i = 0; i < p->count; i++)
        values[i] = gaussian ? tn_random_normal(seed, stream, (uint64_t)i) / (float)p->shape[0]
                             : (2 * tn_random_uniform(seed, stream, (uint64_t)i) - 1) * bound;
}

tn_status tn_adapter_init(tn_adapter *adapter, tn_device *device, uint64_t seed, tn_base_values *base,
                          void *user) {
    tn_status status = TN_OK;
    float *values = NULL;
    int64_t largest = 0;
    for (int64_t i = 0; i < adapter->param_count; i++)
        if (adapter->params[i].count > largest) largest = adapter->params[i].count;
    TN_TRY(tn_alloc(&values, largest, (int64_t)sizeof *values, "initial values"));
    for (int64_t i = 0; i < 2 * adapter->param_count; i++) {
        const tn_param *p = &adapter->params[i % adapter->param_count];
        const bool first_round = i < adapter->param_count;
        if ((p->kind == TN_PARAM_MAGNITUDE) == first_round) continue;
        if (!tn_param_is_lora(p)) TN_TRY(base(user, p, values));
        else initial_values(p, adapter->config->init_lora_weights, seed, values);
        TN_TRY(device->backend->upload(device, adapter->values + p->offset, values,
                                       p->count * (int64_t)sizeof *values));
    }
done:
    free(values);
    return status;
}
