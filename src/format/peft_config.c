/* peft_config.c: adapter_config.json, read and written. */
#include "format/peft_config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"

tn_status tn_peft_config_new(tn_peft_config **config) {
    tn_peft_config *c = calloc(1, sizeof *c);
    *config = c;
    if (!c) return tn_fail_memory((int64_t)sizeof *c, "an adapter configuration");
    c->r = 8;
    c->lora_alpha = 8;
    c->bias = "none";
    c->init_lora_weights = "true";
    return TN_OK;
}

void tn_peft_config_free(tn_peft_config *config) {
    if (!config) return;
    tn_arena_free(&config->arena);
    free(config);
}

/* ---- Rules --------------------------------------------------------------------------------------- */

static bool is_regex(const char *text) { return strpbrk(text, "^$*+?()[]{}|\\") != NULL; }

static tn_status push_name(tn_arena *arena, tn_name_rule *rule, const char *text, int64_t length) {
    char *copy = tn_arena_text(arena, text, length);
    if (!copy) return tn_fail_memory(length, "a module name");
    rule->names[rule->count++] = copy;
    return TN_OK;
}

tn_status tn_name_rule_parse(tn_arena *arena, const char *text, tn_name_rule *rule) {
    tn_status status = TN_OK;
    int64_t most = (int64_t)strlen(text) / 2 + 2;
    *rule = (tn_name_rule){0};
    while (*text == ' ') text++;
    if (*text != '[' && is_regex(text)) {
        rule->regex = tn_arena_text(arena, text, (int64_t)strlen(text));
        return rule->regex ? TN_OK : tn_fail_memory((int64_t)strlen(text), "a regular expression");
    }
    rule->names = tn_arena_take(arena, most * (int64_t)sizeof *rule->names);
    if (!rule->names) return tn_fail_memory(most * 8, "module names");
    if (*text == '[') {
        const tn_json *list;
        TN_TRY(tn_json_parse(arena, text, (int64_t)strlen(text), TN_JSON_DEFAULT, "a list of modules", &list));
        for (int64_t i = 0; list->type == TN_JSON_ARRAY && i < list->count; i++) {
            const tn_json *item = tn_json_at(list, i);
            if (item->type != TN_JSON_STRING) TN_THROW(TN_USAGE, "a list of modules holds something that is no name: %s", text);
            TN_TRY(push_name(arena, rule, item->string, item->count));
        }
    } else {
        for (const char *p = text; *p;) {
            p += strspn(p, ", ");
            size_t length = strcspn(p, ", ");
            if (length) TN_TRY(push_name(arena, rule, p, (int64_t)length));
            p += length;
        }
    }
done:
    return status;
}

static tn_status read_rule(tn_peft_config *c, const tn_json *node, const char *key, const char *path, tn_name_rule *rule) {
    *rule = (tn_name_rule){0};
    if (tn_json_is_null(node)) return TN_OK;
    if (node->type == TN_JSON_STRING) {
        rule->regex = node->string;
        return TN_OK;
    }
    if (node->type != TN_JSON_ARRAY) return tn_fail(TN_BAD_DATA, "%s: %s is neither a list nor a string", path, key);
    rule->names = tn_arena_take(&c->arena, (node->count + 1) * (int64_t)sizeof *rule->names);
    if (!rule->names) return tn_fail_memory(node->count * 8, key);
    for (int64_t i = 0; i < node->count; i++) {
        rule->names[i] = tn_json_string(tn_json_at(node, i), NULL);
        if (!rule->names[i]) return tn_fail(TN_BAD_DATA, "%s: %s[%lld] is not a string", path, key, (long long)i);
    }
    rule->count = node->count;
    return TN_OK;
}

static tn_status read_patterns(tn_peft_config *c, const tn_json *node, const char *key, const char *path, tn_pattern **out, int64_t *count) {
    if (tn_json_is_null(node)) return TN_OK;
    if (node->type != TN_JSON_OBJECT) return tn_fail(TN_BAD_DATA, "%s: %s is not an object", path, key);
    *out = tn_arena_take(&c->arena, (node->count + 1) * (int64_t)sizeof **out);
    if (!*out) return tn_fail_memory(node->count * 16, key);
    for (int64_t i = 0; i < node->count; i++) {
        (*out)[i] = (tn_pattern){node->members[i].key, tn_json_number(&node->members[i].value, NAN)};
        if (!((*out)[i].value > 0)) return tn_fail(TN_BAD_DATA, "%s: %s of \"%s\" is not a positive number", path, key, node->members[i].key);
    }
    *count = node->count;
    return TN_OK;
}

static tn_status read_layers(tn_peft_config *c, const tn_json *node, const char *path) {
    if (tn_json_is_null(node)) return TN_OK;
    int64_t count = node->type == TN_JSON_ARRAY ? node->count : 1;
    c->layers_to_transform = tn_arena_take(&c->arena, (count + 1) * (int64_t)sizeof *c->layers_to_transform);
    if (!c->layers_to_transform) return tn_fail_memory(count * 8, "layers_to_transform");
    for (int64_t i = 0; i < count; i++) {
        c->layers_to_transform[i] = tn_json_integer(node->type == TN_JSON_ARRAY ? tn_json_at(node, i) : node, -1);
        if (c->layers_to_transform[i] < 0) return tn_fail(TN_BAD_DATA, "%s: layers_to_transform holds no layer number", path);
    }
    c->layers_count = count;
    return TN_OK;
}

/* ---- Reading ------------------------------------------------------------------------------------- */

/* Keys whose value changes the arithmetic in a way we do not do: fine while they are at rest. */
static bool at_rest(const tn_json *value) {
    if (tn_json_is_null(value)) return true;
    if (value->type == TN_JSON_BOOLEAN) return !value->boolean;
    return (value->type == TN_JSON_ARRAY || value->type == TN_JSON_OBJECT) && value->count == 0;
}

static void find_unsupported(tn_peft_config *c, const tn_json *root) {
    static const char *const keys[] = {"lora_bias", "fan_in_fan_out", "layer_replication", "target_parameters", "use_qalora", "use_bdlora",
                                       "alora_invocation_tokens", "arrow_config", "kasa_config", "velora_config", "monteclora_config"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !c->unsupported; i++)
        if (!at_rest(tn_json_get(root, keys[i]))) c->unsupported = keys[i];
}

static void warn_unknown(const tn_json *root, const char *path) {
    static const char *const known[] = {
        "peft_type", "task_type", "base_model_name_or_path", "revision", "auto_mapping", "inference_mode", "r", "lora_alpha", "lora_dropout",
        "target_modules", "exclude_modules", "bias", "fan_in_fan_out", "modules_to_save", "init_lora_weights", "layers_to_transform",
        "layers_pattern", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "loftq_config", "megatron_config",
        "megatron_core", "layer_replication", "corda_config", "eva_config", "trainable_token_indices", "target_parameters", "peft_version",
        "alora_invocation_tokens", "use_qalora", "qalora_group_size", "lora_ga_config", "ensure_weight_tying", "use_bdlora", "arrow_config",
        "kasa_config", "velora_config", "monteclora_config"};
    for (int64_t i = 0; i < root->count; i++) {
        size_t k = 0, n = sizeof known / sizeof *known;
        while (k < n && strcmp(root->members[i].key, known[k]) != 0) k++;
        if (k == n) tn_warn("%s: the key %s is not known and left aside", path, root->members[i].key);
    }
}

static const char *init_name(const tn_json *node) {
    if (node && node->type == TN_JSON_BOOLEAN) return node->boolean ? "true" : "false";
    return tn_json_string(node, "true");
}

static tn_status read_root(tn_peft_config *c, const tn_json *root, const char *path) {
    tn_status status = TN_OK;
    if (root->type != TN_JSON_OBJECT) TN_THROW(TN_BAD_DATA, "%s is not a JSON object", path);
    if (!tn_json_is_string(tn_json_get(root, "peft_type"), "LORA")) {
        status = tn_fail(TN_USAGE, "%s: peft_type is %s", path, tn_json_string(tn_json_get(root, "peft_type"), "missing"));
        tn_remedy("tenon reads LoRA adapters (peft_type LORA)");
        goto done;
    }
    const tn_json *target = tn_json_get(root, "target_modules"), *tokens = tn_json_get(root, "trainable_token_indices");
    c->r = tn_json_integer(tn_json_get(root, "r"), 8);
    c->lora_alpha = tn_json_number(tn_json_get(root, "lora_alpha"), 8);
    c->lora_dropout = tn_json_number(tn_json_get(root, "lora_dropout"), 0);
    if (c->r < 1 || !(c->lora_alpha > 0) || !(c->lora_dropout >= 0 && c->lora_dropout < 1))
        TN_THROW(TN_BAD_DATA, "%s: r, lora_alpha or lora_dropout is impossible", path);
    c->use_rslora = tn_json_boolean(tn_json_get(root, "use_rslora"), false);
    c->use_dora = tn_json_boolean(tn_json_get(root, "use_dora"), false);
    c->bias = tn_json_string(tn_json_get(root, "bias"), "none");
    c->init_lora_weights = init_name(tn_json_get(root, "init_lora_weights"));
    c->base_model = tn_json_string(tn_json_get(root, "base_model_name_or_path"), NULL);
    c->all_linear = tn_json_is_string(target, "all-linear");
    if (!c->all_linear) TN_TRY(read_rule(c, target, "target_modules", path, &c->target_modules));
    TN_TRY(read_rule(c, tn_json_get(root, "exclude_modules"), "exclude_modules", path, &c->exclude_modules));
    TN_TRY(read_rule(c, tn_json_get(root, "modules_to_save"), "modules_to_save", path, &c->modules_to_save));
    TN_TRY(read_rule(c, tn_json_get(root, "layers_pattern"), "layers_pattern", path, &c->layers_pattern));
    TN_TRY(read_layers(c, tn_json_get(root, "layers_to_transform"), path));
    TN_TRY(read_patterns(c, tn_json_get(root, "rank_pattern"), "rank_pattern", path, &c->rank_pattern, &c->rank_patterns));
    TN_TRY(read_patterns(c, tn_json_get(root, "alpha_pattern"), "alpha_pattern", path, &c->alpha_pattern, &c->alpha_patterns));
    c->trainable_tokens = tn_json_is_null(tokens) ? 0 : tokens->count;
    find_unsupported(c, root);
    warn_unknown(root, path);
done:
    return status;
}

tn_status tn_peft_config_read(const char *directory, tn_peft_config **config) {
    tn_peft_config *c;
    const tn_json *root;
    const char *path;
    *config = NULL;
    tn_status status = tn_peft_config_new(&c);
    if (status != TN_OK) return status;
    path = tn_path_join(&c->arena, directory, "adapter_config.json");
    if (!path) TN_THROW(TN_FAILED, "out of memory reading %s", directory);
    if (!tn_is_file(path)) {
        status = tn_fail(TN_USAGE, "%s is not there", path);
        tn_remedy("give the directory of a PEFT adapter (adapter_config.json and adapter_model.safetensors)");
        goto done;
    }
    TN_TRY(tn_json_read_file(&c->arena, path, TN_JSON_EXTENSIONS, &root));
    TN_TRY(read_root(c, root, path));
    *config = c;
    c = NULL;
done:
    tn_peft_config_free(c);
    return status;
}

/* ---- Writing ------------------------------------------------------------------------------------- */

static void put_rule(tn_json_writer *w, const char *key, const tn_name_rule *rule, bool all_linear) {
    tn_json_key(w, key);
    if (all_linear) tn_json_put_string(w, "all-linear", -1);
    else if (rule->regex) tn_json_put_string(w, rule->regex, -1);
    else if (rule->count == 0) tn_json_put_null(w);
    else {
        tn_json_begin(w, '[');
        for (int64_t i = 0; i < rule->count; i++) tn_json_put_string(w, rule->names[i], -1);
        tn_json_end(w, ']');
    }
}

/* Whole numbers without a point, as PEFT writes them. */
static void put_number(tn_json_writer *w, double value) {
    if (value == floor(value) && fabs(value) < 1e15) tn_json_put_integer(w, (int64_t)value);
    else tn_json_put_real(w, value);
}

static void put_patterns(tn_json_writer *w, const char *key, const tn_pattern *patterns, int64_t count) {
    tn_json_key(w, key);
    tn_json_begin(w, '{');
    for (int64_t i = 0; i < count; i++) {
        tn_json_key(w, patterns[i].pattern);
        put_number(w, patterns[i].value);
    }
    tn_json_end(w, '}');
}

static void put_null(tn_json_writer *w, const char *key) {
    tn_json_key(w, key);
    tn_json_put_null(w);
}

/* Keys in alphabetical order. */
static void put_config(tn_json_writer *w, const tn_peft_config *c) {
    const bool plain = strcmp(c->init_lora_weights, "true") == 0, off = strcmp(c->init_lora_weights, "false") == 0;
    tn_json_begin(w, '{');
    put_patterns(w, "alpha_pattern", c->alpha_pattern, c->alpha_patterns);
    put_null(w, "auto_mapping");
    tn_json_key(w, "base_model_name_or_path");
    if (c->base_model) tn_json_put_string(w, c->base_model, -1);
    else tn_json_put_null(w);
    tn_json_string_member(w, "bias", c->bias);
    put_rule(w, "exclude_modules", &c->exclude_modules, false);
    tn_json_boolean_member(w, "fan_in_fan_out", false);
    tn_json_boolean_member(w, "inference_mode", true);
    tn_json_key(w, "init_lora_weights");
    if (plain || off) tn_json_put_boolean(w, plain);
    else tn_json_put_string(w, c->init_lora_weights, -1);
    put_rule(w, "layers_pattern", &c->layers_pattern, false);
    tn_json_key(w, "layers_to_transform");
    if (c->layers_count == 0) tn_json_put_null(w);
    else {
        tn_json_begin(w, '[');
        for (int64_t i = 0; i < c->layers_count; i++) tn_json_put_integer(w, c->layers_to_transform[i]);
        tn_json_end(w, ']');
    }
    tn_json_key(w, "lora_alpha");
    put_number(w, c->lora_alpha);
    tn_json_real_member(w, "lora_dropout", c->lora_dropout);
    put_rule(w, "modules_to_save", &c->modules_to_save, false);
    tn_json_string_member(w, "peft_type", "LORA");
    tn_json_integer_member(w, "r", c->r);
    put_patterns(w, "rank_pattern", c->rank_pattern, c->rank_patterns);
    put_null(w, "revision");
    put_rule(w, "target_modules", &c->target_modules, c->all_linear);
    tn_json_string_member(w, "task_type", "CAUSAL_LM");
    tn_json_boolean_member(w, "use_dora", c->use_dora);
    tn_json_boolean_member(w, "use_rslora", c->use_rslora);
    tn_json_end(w, '}');
}

tn_status tn_peft_config_write(const tn_peft_config *config, const char *directory) {
    tn_arena arena = {0};
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 2);
    tn_status status;
    const char *path = tn_path_join(&arena, directory, "adapter_config.json");
    if (!path) return tn_fail_memory(256, "a path");
    put_config(&w, config);
    tn_str_putc(&text, '\n');
    TN_TRY(tn_str_check(&text, "adapter_config.json"));
    status = tn_save_text(path, text.data, text.length);
done:
    tn_str_free(&text);
    tn_arena_free(&arena);
    return status;
}
