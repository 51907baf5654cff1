/* lora_config.c: LoRA settings from keys or from the adapter that is continued. */
#include "train/lora_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static tn_status copy_text(tn_arena *arena, const char *text, const char **out) {
    *out = text ? tn_arena_text(arena, text, (int64_t)strlen(text)) : NULL;
    return text && !*out ? tn_fail_memory((int64_t)strlen(text), "a setting") : TN_OK;
}

/* Words for lists of modules. Saved adapters carry the list, as PEFT's do: not every reader knows the words. */
static const char *module_names(const char *text) {
    if (strcasecmp(text, "all-linear") == 0) return "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj";
    if (strcmp(text, "attention") == 0) return "q_proj,k_proj,v_proj,o_proj";
    if (strcmp(text, "mlp") == 0) return "gate_proj,up_proj,down_proj";
    /* A list would reach into the vision tower as well, whose MLP has the same names. */
    if (strcmp(text, "language") == 0)
        return ".*\\.language_model\\..*\\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)";
    return text;
}

/* `most` 0: alphas, any positive number; else ranks, whole numbers up to it. */
static tn_status patterns(tn_arena *arena, const tn_json *map, const char *key, double most, tn_pattern **out,
                          int64_t *count) {
    if (tn_json_is_null(map)) return TN_OK;
    if (map->type != TN_JSON_OBJECT) return tn_fail(TN_USAGE, "%s must be a map of patterns to numbers", key);
    *out = tn_arena_take(arena, (map->count + 1) * (int64_t)sizeof **out);
    if (!*out) return tn_fail_memory(map->count * 16, key);
    for (int64_t i = 0; i < map->count; i++) {
        const tn_member *m = &map->members[i];
        double value = tn_json_number(&m->value, NAN);
        if (!(value > 0 && isfinite(value)) || (most > 0 && (value != floor(value) || value > most))) {
            tn_fail(TN_USAGE, "%s: the value of \"%s\" is not a %s", key, m->key,
                    most > 0 ? "rank" : "positive number");
            return tn_remedy(most > 0 ? "a rank is a whole number from 1 to 1,000,000"
                                      : "for example --alpha_pattern q_proj=16");
        }
        (*out)[i].value = value;
        if (copy_text(arena, m->key, &(*out)[i].pattern) != TN_OK) return TN_FAILED;
    }
    *count = map->count;
    return TN_OK;
}

static tn_status layers(tn_peft_config *c, const char *text) {
    if (!text) return TN_OK;
    int64_t most = (int64_t)strlen(text) / 2 + 1;
    c->layers_to_transform = tn_arena_take(&c->arena, most * (int64_t)sizeof *c->layers_to_transform);
    if (!c->layers_to_transform) return tn_fail_memory(most * 8, "layers_to_transform");
    for (const char *p = text; *p;) {
        char *end;
        long value = strtol(p, &end, 10);
        if (end > p && value < 0) {
            tn_fail(TN_USAGE, "layers_to_transform: there is no layer %ld; the first is 0", value);
            return tn_remedy(
                "the last of 32 layers is 31: negative numbers do not count from the end, in PEFT neither");
        }
        if (end == p || c->layers_count >= most) {
            tn_fail(TN_USAGE, "layers_to_transform: \"%s\" is not a list of layer numbers", text);
            return tn_remedy("for example --layers_to_transform 0,1,2");
        }
        c->layers_to_transform[c->layers_count++] = value;
        p = end + strspn(end, ", ");
    }
    return TN_OK;
}

/* Ids with commas between them, or JSON: a list, or an object of lists. */
static tn_status token_rules(tn_arena *arena, const char *text, tn_token_rule *embed, tn_token_rule *head) {
    static const char key[] = "trainable_token_indices";
    const tn_json *node;
    const char *other = NULL;
    if (!text) return TN_OK;
    const char *json = *text == '{' || *text == '[' ? text : tn_arena_printf(arena, "[%s]", text);
    if (!json) return tn_fail_memory((int64_t)strlen(text), key);
    tn_status status = tn_json_parse(arena, json, (int64_t)strlen(json), TN_JSON_DEFAULT, key, &node);
    if (status == TN_OK) status = tn_token_rules_read(arena, node, key, TN_USAGE, embed, head, &other);
    else tn_fail(TN_USAGE, "%s: \"%s\" is no list of token ids", key, text);
    if (status == TN_OK && other) tn_fail(TN_USAGE, "%s: %s has no rows of tokens", key, other);
    if (status == TN_OK && !other) return TN_OK;
    tn_remedy(
        "ids of embed_tokens, --trainable_token_indices 128011,128012, or by module: "
        "'{\"embed_tokens\":[…],\"lm_head\":[…]}'");
    return TN_USAGE;
}

static tn_status check_init(const char *kind) {
    if (!kind || strcmp(kind, "true") == 0 || strcmp(kind, "gaussian") == 0) return TN_OK;
    tn_fail(TN_USAGE, "init_lora_weights: %s is not in this version", kind);
    return tn_remedy("use true (the default) or gaussian");
}

tn_status tn_lora_config_fresh(const tn_settings *s, const char *targets, tn_peft_config **config) {
    tn_peft_config *c = NULL;
    tn_status status;
    *config = NULL;
    TN_TRY(check_init(s->init_lora_weights));
    TN_TRY(tn_peft_config_new(&c));
    c->r = s->lora_r;
    c->lora_alpha = s->lora_alpha;
    c->lora_dropout = s->lora_dropout;
    c->use_rslora = s->use_rslora;
    c->use_dora = s->use_dora;
    if (!targets) targets = s->target_modules ? s->target_modules : "all-linear";
    TN_TRY(tn_name_rule_parse(&c->arena, module_names(targets), &c->target_modules));
    if (s->modules_to_save) TN_TRY(tn_name_rule_parse(&c->arena, s->modules_to_save, &c->modules_to_save));
    if (s->exclude_modules) TN_TRY(tn_name_rule_parse(&c->arena, s->exclude_modules, &c->exclude_modules));
    if (s->layers_pattern) TN_TRY(tn_name_rule_parse(&c->arena, s->layers_pattern, &c->layers_pattern));
    TN_TRY(layers(c, s->layers_to_transform));
    TN_TRY(patterns(&c->arena, s->rank_pattern, "rank_pattern", 1e6, &c->rank_pattern, &c->rank_patterns));
    TN_TRY(patterns(&c->arena, s->alpha_pattern, "alpha_pattern", 0, &c->alpha_pattern, &c->alpha_patterns));
    TN_TRY(copy_text(&c->arena, s->init_lora_weights ? s->init_lora_weights : "true", &c->init_lora_weights));
    TN_TRY(copy_text(&c->arena, s->model, &c->base_model));
    TN_TRY(token_rules(&c->arena, s->trainable_token_indices, &c->embed_tokens, &c->head_tokens));
    *config = c;
    c = NULL;
done:
    tn_peft_config_free(c);
    return status;
}

/* ---- Continuing ---------------------------------------------------------------------------------- */

static void rule_text(const tn_name_rule *rule, bool all_linear, tn_str *out) {
    if (all_linear) tn_str_puts(out, "all-linear");
    else if (rule->regex) tn_str_puts(out, rule->regex);
    for (int64_t i = 0; i < rule->count; i++) tn_str_printf(out, "%s%s", i ? "," : "", rule->names[i]);
}

/* The same set of names in another order is no disagreement. */
static bool same_rule(const char *text, const tn_name_rule *rule, bool all_linear) {
    tn_arena arena = {0};
    tn_name_rule asked = {0};
    bool same;
    if (all_linear) return strcasecmp(text, "all-linear") == 0;
    same = tn_name_rule_parse(&arena, module_names(text), &asked) == TN_OK && asked.count == rule->count &&
           !asked.regex == !rule->regex;
    if (same && asked.regex) same = strcmp(asked.regex, rule->regex) == 0;
    for (int64_t i = 0; same && i < asked.count; i++) {
        bool found = false;
        for (int64_t j = 0; j < rule->count; j++) found = found || strcmp(asked.names[i], rule->names[j]) == 0;
        same = found;
    }
    tn_arena_free(&arena);
    return same;
}

static bool same_tokens(const tn_token_rule *a, const tn_token_rule *b) {
    return a->count == b->count &&
           (a->count == 0 || memcmp(a->ids, b->ids, (size_t)a->count * sizeof *a->ids) == 0);
}

static void tokens_text(const tn_token_rule *rule, tn_str *out) {
    for (int64_t i = 0; i < rule->count; i++)
        tn_str_printf(out, "%s%lld", i ? "," : "", (long long)rule->ids[i]);
}

static bool overridden(const tn_settings *s, const char *key) {
    return tn_json_get(s->override_settings, key) != NULL;
}

/* Rank and targets are in the adapter's tensors. */
static bool can_override(const char *key) {
    return strcmp(key, "lora_alpha") == 0 || strcmp(key, "lora_dropout") == 0;
}

/* Explicit keys that differ are errors; everything else is taken over from the adapter. */
static tn_status agree(tn_config *run, const char *key, bool same, const char *theirs) {
    if (!tn_config_get(run, key)) return TN_OK; /* a verb without this key cannot contradict */
    if (tn_config_setter(run, key) >= TN_SET_FILE && !same) {
        tn_fail(TN_USAGE, "%s is %s here and %s in the adapter that is continued", key, tn_config_get(run, key),
                theirs);
        if (can_override(key))
            return tn_remedy(
                "the adapter's own configuration decides; leave %s out, or change it on purpose "
                "with --override %s=…",
                key, key);
        return tn_remedy("the adapter's own configuration decides, and its tensors hold to it; leave %s out",
                         key);
    }
    return tn_config_inherit(run, key, theirs, TN_SET_ADAPTER);
}

static tn_status agree_number(tn_config *run, const char *key, double ours, double theirs) {
    char text[40];
    tn_real_text(theirs, text);
    if (theirs == floor(theirs) && fabs(theirs) < 1e15) snprintf(text, sizeof text, "%.0f", theirs);
    return agree(run, key, ours == theirs, text);
}

static tn_status agree_rule(tn_config *run, const char *key, const char *ours, const tn_name_rule *rule,
                            bool all_linear) {
    tn_str theirs = {0};
    rule_text(rule, all_linear, &theirs);
    tn_status status = tn_str_check(&theirs, key);
    if (status == TN_OK)
        status = agree(run, key, ours && same_rule(ours, rule, all_linear), tn_str_text(&theirs));
    tn_str_free(&theirs);
    return status;
}

static tn_status agree_tokens(tn_config *run, const char *ours, const tn_peft_config *c) {
    tn_arena arena = {0};
    tn_token_rule embed = {0}, head = {0};
    tn_str theirs = {0};
    tn_status status;
    if (!ours && !c->embed_tokens.count && !c->head_tokens.count) return TN_OK;
    TN_TRY(token_rules(&arena, ours, &embed, &head));
    if (c->head_tokens.count) tn_str_puts(&theirs, "{\"embed_tokens\":[");
    tokens_text(&c->embed_tokens, &theirs);
    if (c->head_tokens.count) {
        tn_str_puts(&theirs, "],\"lm_head\":[");
        tokens_text(&c->head_tokens, &theirs);
        tn_str_puts(&theirs, "]}");
    }
    TN_TRY(tn_str_check(&theirs, "trainable_token_indices"));
    status = agree(run, "trainable_token_indices",
                   same_tokens(&embed, &c->embed_tokens) && same_tokens(&head, &c->head_tokens),
                   theirs.length ? theirs.data : "none");
done:
    tn_str_free(&theirs);
    tn_arena_free(&arena);
    return status;
}

static tn_status apply_overrides(const tn_settings *s, tn_peft_config *c) {
    const tn_json *map = s->override_settings;
    if (tn_json_is_null(map)) return TN_OK;
    for (int64_t i = 0; i < map->count; i++) {
        const tn_member *m = &map->members[i];
        double value =
            m->value.type == TN_JSON_STRING ? strtod(m->value.string, NULL) : tn_json_number(&m->value, NAN);
        if (strcmp(m->key, "lora_alpha") == 0 && value > 0) c->lora_alpha = value;
        else if (strcmp(m->key, "lora_dropout") == 0 && value >= 0 && value < 1) c->lora_dropout = value;
        else {
            tn_fail(TN_USAGE, "override: %s cannot be changed when an adapter is continued", m->key);
            return tn_remedy("lora_alpha and lora_dropout can; rank and targets are in the adapter's tensors");
        }
    }
    return TN_OK;
}

/* Alpha 0 would train nothing, and say nothing. */
static tn_status check_alphas(const tn_peft_config *c, const char *directory) {
    double alpha = c->lora_alpha;
    for (int64_t i = 0; i < c->alpha_patterns && alpha > 0; i++) alpha = c->alpha_pattern[i].value;
    if (alpha > 0) return TN_OK;
    tn_fail(TN_BAD_DATA, "%s/adapter_config.json: an alpha of %g cannot be trained with", directory, alpha);
    return tn_remedy(
        "check lora_alpha and alpha_pattern; --override lora_alpha=… changes the first on purpose");
}

tn_status tn_lora_config_continue(tn_config *run, const tn_settings *s, const char *directory,
                                  tn_peft_config **config) {
    tn_peft_config *c = NULL;
    tn_status status;
    *config = NULL;
    TN_TRY(tn_peft_config_read(directory, &c));
    TN_TRY(apply_overrides(s, c));
    if (tn_config_get(run, "lora_alpha")) TN_TRY(check_alphas(c, directory));
    TN_TRY(agree_number(run, "lora_r", (double)s->lora_r, (double)c->r));
    if (!overridden(s, "lora_alpha")) TN_TRY(agree_number(run, "lora_alpha", s->lora_alpha, c->lora_alpha));
    if (!overridden(s, "lora_dropout"))
        TN_TRY(agree_number(run, "lora_dropout", s->lora_dropout, c->lora_dropout));
    TN_TRY(agree(run, "use_rslora", s->use_rslora == c->use_rslora, c->use_rslora ? "true" : "false"));
    TN_TRY(agree(run, "init_lora_weights", strcmp(s->init_lora_weights, c->init_lora_weights) == 0,
                 c->init_lora_weights));
    TN_TRY(agree(run, "use_dora", s->use_dora == c->use_dora, c->use_dora ? "true" : "false"));
    TN_TRY(agree_rule(run, "target_modules", s->target_modules, &c->target_modules, c->all_linear));
    if (c->modules_to_save.count || s->modules_to_save)
        TN_TRY(agree_rule(run, "modules_to_save", s->modules_to_save, &c->modules_to_save, false));
    TN_TRY(agree_tokens(run, s->trainable_token_indices, c));
    *config = c;
    c = NULL;
done:
    tn_peft_config_free(c);
    return status;
}
