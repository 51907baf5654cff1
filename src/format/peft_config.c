/* peft_config.c: adapter_config.json, read and written. Reading is strict about the type of every value that
 * decides what is trained or how strongly it acts: a silently taken default would be another adapter than the
 * file's.
 */
#include "format/peft_config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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
    c->task_type = "CAUSAL_LM";
    return TN_OK;
}

void tn_peft_config_free(tn_peft_config *config) {
    if (!config) return;
    tn_arena_free(&config->arena);
    free(config);
}

/* ---- Rules --------------------------------------------------------------------------------------- */

/* A list of strings; `path` and `key` stand in messages. */
static tn_status take_names(tn_arena *arena, const tn_json *list, const char *path, const char *key,
                            tn_status wrong, tn_name_rule *rule) {
    rule->names = tn_arena_take(arena, (list->count + 1) * (int64_t)sizeof *rule->names);
    if (!rule->names) return tn_fail_memory(list->count * (int64_t)sizeof *rule->names, key);
    for (int64_t i = 0; i < list->count; i++) {
        rule->names[i] = tn_json_string(&list->items[i], "");
        if (!*rule->names[i])
            return tn_fail(wrong, "%s: %s[%lld] is not the name of a module", path, key, (long long)i);
    }
    rule->count = list->count;
    return TN_OK;
}

/* `[` also opens a character class: only with a string or nothing in it is it a list. */
static bool is_json_list(const char *text) {
    if (*text != '[') return false;
    text += 1 + strspn(text + 1, " \t\n");
    return *text == '"' || *text == ']';
}

static tn_status split_names(tn_arena *arena, const char *text, tn_name_rule *rule) {
    static const char between[] = ", \t\n";
    const int64_t most = (int64_t)strlen(text) / 2 + 1;
    rule->names = tn_arena_take(arena, most * (int64_t)sizeof *rule->names);
    if (!rule->names) return tn_fail_memory(most * (int64_t)sizeof *rule->names, "module names");
    for (text += strspn(text, between); *text; text += strspn(text, between)) {
        const size_t length = strcspn(text, between);
        char *name = tn_arena_text(arena, text, (int64_t)length);
        if (!name) return tn_fail_memory((int64_t)length, "a module name");
        rule->names[rule->count++] = name;
        text += length;
    }
    return TN_OK;
}

tn_status tn_name_rule_parse(tn_arena *arena, const char *text, tn_name_rule *rule) {
    const tn_json *list;
    *rule = (tn_name_rule){0};
    text += strspn(text, " \t\n");
    if (is_json_list(text)) {
        tn_status status =
            tn_json_parse(arena, text, (int64_t)strlen(text), TN_JSON_DEFAULT, "a list of modules", &list);
        if (status == TN_OK) status = take_names(arena, list, text, "the list", TN_USAGE, rule);
        return status == TN_BAD_DATA ? tn_fail(TN_USAGE, "%s", tn_error_message()) : status;
    }
    if (!strpbrk(text, "^$*+?()[]{}|\\")) return split_names(arena, text, rule);
    rule->regex = tn_arena_text(arena, text, (int64_t)strlen(text));
    return rule->regex ? TN_OK : tn_fail_memory((int64_t)strlen(text), "a regular expression");
}

/* ---- Reading ------------------------------------------------------------------------------------- */

/* What the readers of single keys share. An absent or null key leaves the default in place. */
typedef struct reader {
    tn_peft_config *config;
    const tn_json *root;
    const char *path;
} reader;

static tn_status wrong(const reader *r, const char *key, const char *wanted) {
    return tn_fail(TN_BAD_DATA, "%s: %s is %s; %s was expected", r->path, key,
                   tn_json_type_name(tn_json_get(r->root, key)), wanted);
}

static tn_status read_number(const reader *r, const char *key, double least, double most, double *value) {
    const tn_json *node = tn_json_get(r->root, key);
    if (tn_json_is_null(node)) return TN_OK;
    if (node->type != TN_JSON_INTEGER && node->type != TN_JSON_REAL) return wrong(r, key, "a number");
    *value = tn_json_number(node, NAN);
    if (*value >= least && *value <= most) return TN_OK;
    return tn_fail(TN_BAD_DATA, "%s: %s is %g; it must be from %g to %g", r->path, key, *value, least, most);
}

static tn_status read_flag(const reader *r, const char *key, bool *value) {
    const tn_json *node = tn_json_get(r->root, key);
    if (tn_json_is_null(node)) return TN_OK;
    if (node->type != TN_JSON_BOOLEAN) return wrong(r, key, "true or false");
    *value = node->boolean;
    return TN_OK;
}

static tn_status read_text(const reader *r, const char *key, const char **value) {
    const tn_json *node = tn_json_get(r->root, key);
    if (tn_json_is_null(node)) return TN_OK;
    if (node->type != TN_JSON_STRING) return wrong(r, key, "a string");
    *value = node->string;
    return TN_OK;
}

static tn_status read_rule(const reader *r, const char *key, tn_name_rule *rule) {
    const tn_json *node = tn_json_get(r->root, key);
    if (tn_json_is_null(node)) return TN_OK;
    if (node->type == TN_JSON_ARRAY)
        return take_names(&r->config->arena, node, r->path, key, TN_BAD_DATA, rule);
    if (node->type != TN_JSON_STRING) return wrong(r, key, "a list of names or a string");
    rule->regex = node->string;
    return TN_OK;
}

static tn_status read_targets(const reader *r) {
    tn_peft_config *c = r->config;
    const tn_json *node = tn_json_get(r->root, "target_modules");
    if (tn_json_is_null(node)) {
        tn_fail(TN_BAD_DATA, "%s: target_modules is missing", r->path);
        return tn_remedy("list the modules that have lora_A and lora_B in adapter_model.safetensors");
    }
    c->all_linear = strcasecmp(tn_json_string(node, ""), "all-linear") == 0;
    return c->all_linear ? TN_OK : read_rule(r, "target_modules", &c->target_modules);
}

static tn_status read_patterns(const reader *r, const char *key, bool ranks, tn_pattern **out, int64_t *count) {
    const tn_json *node = tn_json_get(r->root, key);
    if (tn_json_is_null(node)) return TN_OK;
    if (node->type != TN_JSON_OBJECT) return wrong(r, key, "an object");
    *out = tn_arena_take(&r->config->arena, (node->count + 1) * (int64_t)sizeof **out);
    if (!*out) return tn_fail_memory(node->count * (int64_t)sizeof **out, key);
    for (int64_t i = 0; i < node->count; i++) {
        const tn_member *m = &node->members[i];
        const double value = tn_json_number(&m->value, NAN);
        const bool good = ranks ? value >= 1 && value == floor(value) && value <= 1 << 20 : isfinite(value);
        if (!good)
            return tn_fail(TN_BAD_DATA, "%s: the value of \"%s\" in %s is not a %s", r->path, m->key, key,
                           ranks ? "rank" : "number");
        (*out)[i] = (tn_pattern){m->key, value};
    }
    *count = node->count;
    return TN_OK;
}

/* One number or a list of them. */
static tn_status read_integers(const reader *r, const char *key, int64_t **out, int64_t *count) {
    const tn_json *node = tn_json_get(r->root, key);
    if (tn_json_is_null(node)) return TN_OK;
    const tn_json *items = node->type == TN_JSON_ARRAY ? node->items : node;
    const int64_t n = node->type == TN_JSON_ARRAY ? node->count : 1;
    *out = tn_arena_take(&r->config->arena, (n + 1) * (int64_t)sizeof **out);
    if (!*out) return tn_fail_memory(n * (int64_t)sizeof **out, key);
    for (int64_t i = 0; i < n; i++) {
        if (items[i].type != TN_JSON_INTEGER)
            return tn_fail(TN_BAD_DATA, "%s: %s holds something that is no number", r->path, key);
        (*out)[i] = items[i].integer;
    }
    *count = n;
    return TN_OK;
}

/* Lists of other modules than the two tables are marked as unsupported. */
static tn_status read_trainable_tokens(const reader *r) {
    tn_peft_config *c = r->config;
    const char *other;
    tn_status status = tn_token_rules_read(&c->arena, tn_json_get(r->root, "trainable_token_indices"), r->path,
                                           TN_BAD_DATA, &c->embed_tokens, &c->head_tokens, &other);
    if (status == TN_OK && other) c->unsupported = "trainable_token_indices";
    return status;
}

/* Some ways to begin take from the base what A and B begin with (PiSSA, OLoRA, LoftQ, CorDA, LoRA-GA): A and B
 * then fit that changed base alone. */
static tn_status read_init(const reader *r) {
    static const char *const plain[] = {"true", "false", "gaussian", "orthogonal", "eva"};
    const tn_json *node = tn_json_get(r->root, "init_lora_weights");
    if (node && node->type == TN_JSON_BOOLEAN) {
        r->config->init_lora_weights = node->boolean ? "true" : "false";
        return TN_OK;
    }
    tn_status status = read_text(r, "init_lora_weights", &r->config->init_lora_weights);
    if (status != TN_OK) return status;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(r->config->init_lora_weights, plain[i]) == 0) return TN_OK;
    tn_fail(TN_USAGE,
            "%s: init_lora_weights is \"%s\", for which the base was changed when the adapter was made",
            r->path, r->config->init_lora_weights);
    return tn_remedy(
        "save it again in PEFT with path_initial_model_for_weight_conversion, which makes plain LoRA of it; "
        "or, where "
        "the changed base was saved, give that as model and write true for init_lora_weights");
}

/* Absent, null, false or empty: the key changes nothing. */
static bool at_rest(const tn_json *value) {
    if (tn_json_is_null(value)) return true;
    if (value->type == TN_JSON_BOOLEAN) return !value->boolean;
    return (value->type == TN_JSON_ARRAY || value->type == TN_JSON_OBJECT) && value->count == 0;
}

/* What PEFT knows. `changes` marks keys that change the arithmetic or the tensors in a way we do not do. */
static const struct {
    const char *key;
    bool changes;
} known[] = {
    {"peft_type", false},
    {"task_type", false},
    {"base_model_name_or_path", false},
    {"revision", false},
    {"auto_mapping", false},
    {"inference_mode", false},
    {"r", false},
    {"lora_alpha", false},
    {"lora_dropout", false},
    {"target_modules", false},
    {"exclude_modules", false},
    {"bias", false},
    {"modules_to_save", false},
    {"init_lora_weights", false},
    {"layers_to_transform", false},
    {"layers_pattern", false},
    {"rank_pattern", false},
    {"alpha_pattern", false},
    {"use_rslora", false},
    {"use_dora", false},
    {"trainable_token_indices", false},
    {"ensure_weight_tying", false},
    {"peft_version", false},
    {"loftq_config", false},
    {"corda_config", false},
    {"eva_config", false},
    {"lora_ga_config", false},
    {"megatron_core", false},
    {"qalora_group_size", false},
    {"fan_in_fan_out", true},
    {"lora_bias", true},
    {"layer_replication", true},
    {"target_parameters", true},
    {"megatron_config", true},
    {"alora_invocation_tokens", true},
    {"use_qalora", true},
    {"use_bdlora", true},
    {"arrow_config", true},
    {"kasa_config", true},
    {"velora_config", true},
    {"monteclora_config", true},
};
enum { KNOWN = sizeof known / sizeof *known };

static tn_status look_at_other_keys(const reader *r) {
    tn_str unknown = {0};
    for (int64_t i = 0; i < r->root->count; i++) {
        const tn_member *m = &r->root->members[i];
        int k = 0;
        while (k < KNOWN && strcmp(m->key, known[k].key) != 0) k++;
        if (k == KNOWN) tn_str_printf(&unknown, "%s%s", unknown.length ? ", " : "", m->key);
        else if (known[k].changes && !at_rest(&m->value) && !r->config->unsupported)
            r->config->unsupported = known[k].key;
    }
    tn_status status = tn_str_check(&unknown, r->path);
    if (status == TN_OK && unknown.length)
        tn_warn("%s: keys that are not known are left aside: %s", r->path, unknown.data);
    tn_str_free(&unknown);
    return status;
}

static tn_status read_keys(const reader *r) {
    tn_peft_config *c = r->config;
    double rank = (double)c->r;
    tn_status status;
    TN_TRY(read_number(r, "r", 1, 1 << 20, &rank));
    if (rank != floor(rank)) TN_THROW(TN_BAD_DATA, "%s: r is %g, which is no whole number", r->path, rank);
    c->r = (int64_t)rank;
    TN_TRY(read_number(r, "lora_alpha", -1e30, 1e30, &c->lora_alpha));
    TN_TRY(read_number(r, "lora_dropout", 0, 0.9999, &c->lora_dropout));
    TN_TRY(read_flag(r, "use_rslora", &c->use_rslora));
    TN_TRY(read_flag(r, "use_dora", &c->use_dora));
    TN_TRY(read_text(r, "bias", &c->bias));
    TN_TRY(read_text(r, "base_model_name_or_path", &c->base_model));
    TN_TRY(read_text(r, "revision", &c->revision));
    c->task_type = NULL;
    TN_TRY(read_text(r, "task_type", &c->task_type));
    TN_TRY(read_init(r));
    TN_TRY(read_targets(r));
    TN_TRY(read_rule(r, "exclude_modules", &c->exclude_modules));
    TN_TRY(read_rule(r, "modules_to_save", &c->modules_to_save));
    TN_TRY(read_rule(r, "layers_pattern", &c->layers_pattern));
    /* PEFT takes negative numbers, which name no layer. */
    TN_TRY(read_integers(r, "layers_to_transform", &c->layers_to_transform, &c->layers_count));
    TN_TRY(read_patterns(r, "rank_pattern", true, &c->rank_pattern, &c->rank_patterns));
    TN_TRY(read_patterns(r, "alpha_pattern", false, &c->alpha_pattern, &c->alpha_patterns));
    TN_TRY(read_trainable_tokens(r));
    TN_TRY(read_flag(r, "ensure_weight_tying", &c->ensure_weight_tying));
    status = look_at_other_keys(r);
done:
    return status;
}

tn_status tn_peft_config_read(const char *directory, tn_peft_config **config) {
    reader r = {0};
    tn_status status;
    *config = NULL;
    TN_TRY(tn_peft_config_new(&r.config));
    r.path = tn_path_join(&r.config->arena, directory, "adapter_config.json");
    if (!r.path) TN_THROW(TN_FAILED, "out of memory reading %s", directory);
    if (!tn_is_file(r.path)) {
        tn_fail(TN_USAGE, "there is no %s", r.path);
        status =
            tn_remedy("give the directory of a PEFT adapter (adapter_config.json, adapter_model.safetensors)");
        goto done;
    }
    TN_TRY(tn_json_read_file(&r.config->arena, r.path, TN_JSON_EXTENSIONS, &r.root));
    if (r.root->type != TN_JSON_OBJECT) TN_THROW(TN_BAD_DATA, "%s is not a JSON object", r.path);
    const tn_json *type = tn_json_get(r.root, "peft_type");
    if (!tn_json_is_string(type, "LORA")) {
        tn_fail(type ? TN_USAGE : TN_BAD_DATA, "%s: peft_type is %s", r.path,
                tn_json_string(type, tn_json_type_name(type)));
        status = tn_remedy("tenon reads LoRA adapters, whose peft_type is LORA");
        goto done;
    }
    TN_TRY(read_keys(&r));
    *config = r.config;
    r.config = NULL;
done:
    tn_peft_config_free(r.config);
    return status;
}

/* ---- Writing ------------------------------------------------------------------------------------- */

static void put_rule(tn_json_writer *w, const char *key, const tn_name_rule *rule, bool all_linear) {
    tn_json_key(w, key);
    if (all_linear) tn_json_put_string(w, "all-linear", -1);
    else if (rule->regex) tn_json_put_string(w, rule->regex, -1);
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

/* In their order, which decides: the first that matches counts. */
static void put_patterns(tn_json_writer *w, const char *key, const tn_pattern *patterns, int64_t count) {
    tn_json_key(w, key);
    tn_json_begin(w, '{');
    for (int64_t i = 0; i < count; i++) {
        tn_json_key(w, patterns[i].pattern);
        put_number(w, patterns[i].value);
    }
    tn_json_end(w, '}');
}

static void put_text(tn_json_writer *w, const char *key, const char *text) {
    tn_json_key(w, key);
    if (text) tn_json_put_string(w, text, -1);
    else tn_json_put_null(w);
}

static void put_integers(tn_json_writer *w, const char *key, const int64_t *values, int64_t count) {
    tn_json_key(w, key);
    tn_json_begin(w, '[');
    for (int64_t i = 0; i < count; i++) tn_json_put_integer(w, values[i]);
    tn_json_end(w, ']');
}

/* A rule that may be absent. */
static void put_optional_rule(tn_json_writer *w, const char *key, const tn_name_rule *rule) {
    if (rule->regex || rule->count) put_rule(w, key, rule, false);
    else put_text(w, key, NULL);
}

static void put_init(tn_json_writer *w, const char *init) {
    const bool plain = strcmp(init, "true") == 0;
    if (plain || strcmp(init, "false") == 0) tn_json_boolean_member(w, "init_lora_weights", plain);
    else tn_json_string_member(w, "init_lora_weights", init);
}

/* A list where the embedding alone has such rows, which older releases of PEFT read too. */
static void put_tokens(tn_json_writer *w, const tn_peft_config *c) {
    static const char key[] = "trainable_token_indices";
    const tn_token_rule *embed = &c->embed_tokens, *head = &c->head_tokens;
    if (embed->count && !head->count) put_integers(w, key, embed->ids, embed->count);
    if (!head->count) return;
    tn_json_key(w, key);
    tn_json_begin(w, '{');
    if (embed->count) put_integers(w, "embed_tokens", embed->ids, embed->count);
    put_integers(w, "lm_head", head->ids, head->count);
    tn_json_end(w, '}');
}

/* Keys in alphabetical order. Old releases of PEFT stop at a key they do not know, so the younger ones
 * (ensure_weight_tying, exclude_modules, trainable_token_indices) stand there only where they say something. */
static void put_config(tn_json_writer *w, const tn_peft_config *c) {
    tn_json_begin(w, '{');
    put_patterns(w, "alpha_pattern", c->alpha_pattern, c->alpha_patterns);
    put_text(w, "auto_mapping", NULL);
    put_text(w, "base_model_name_or_path", c->base_model);
    tn_json_string_member(w, "bias", c->bias);
    if (c->ensure_weight_tying) tn_json_boolean_member(w, "ensure_weight_tying", true);
    if (c->exclude_modules.regex || c->exclude_modules.count)
        put_rule(w, "exclude_modules", &c->exclude_modules, false);
    tn_json_boolean_member(w, "fan_in_fan_out", false);
    tn_json_boolean_member(w, "inference_mode", true);
    put_init(w, c->init_lora_weights);
    put_optional_rule(w, "layers_pattern", &c->layers_pattern);
    if (c->layers_count) put_integers(w, "layers_to_transform", c->layers_to_transform, c->layers_count);
    else put_text(w, "layers_to_transform", NULL);
    tn_json_key(w, "lora_alpha");
    put_number(w, c->lora_alpha);
    tn_json_real_member(w, "lora_dropout", c->lora_dropout);
    put_optional_rule(w, "modules_to_save", &c->modules_to_save);
    tn_json_string_member(w, "peft_type", "LORA");
    tn_json_integer_member(w, "r", c->r);
    put_patterns(w, "rank_pattern", c->rank_pattern, c->rank_patterns);
    put_text(w, "revision", c->revision);
    put_rule(w, "target_modules", &c->target_modules, c->all_linear);
    put_text(w, "task_type", c->task_type);
    put_tokens(w, c);
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
    if (!path) TN_THROW(TN_FAILED, "out of memory writing %s", directory);
    put_config(&w, config);
    tn_str_putc(&text, '\n');
    TN_TRY(tn_str_check(&text, "adapter_config.json"));
    status = tn_save_text(path, text.data, text.length);
done:
    tn_str_free(&text);
    tn_arena_free(&arena);
    return status;
}
