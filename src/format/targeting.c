/* targeting.c: which modules an adapter touches: PEFT's rules (formats.md section 6.4), with Python's re semantics through PCRE2.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "format/peft_config.h"

typedef struct matcher {
    pcre2_code *code;
    pcre2_match_data *data;
} matcher;

struct tn_targeting {
    const tn_peft_config *config;
    tn_arena arena;
    matcher target, exclude;     /* where the rule is a regular expression */
    matcher *full;               /* one for each modules_to_save entry */
    matcher *rank, *alpha;       /* patterns */
    matcher *layer;              /* how a layer number is found: one for each layers_pattern, or the default */
    int64_t layer_count;
    bool *target_used, *full_used;
};

/* `prefix` and `suffix` anchor the expression as fullmatch or as PEFT's own wrapping does. */
static tn_status compile(const char *prefix, const char *pattern, const char *suffix, const char *what, matcher *m) {
    tn_str text = {0};
    int error;
    PCRE2_SIZE at;
    tn_str_printf(&text, "%s%s%s", prefix, pattern, suffix);
    tn_status status = tn_str_check(&text, what);
    if (status != TN_OK) return status;
    m->code = pcre2_compile((PCRE2_SPTR)text.data, (PCRE2_SIZE)text.length, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    if (!m->code) {
        PCRE2_UCHAR reason[256];
        pcre2_get_error_message(error, reason, sizeof reason);
        status = tn_fail(TN_USAGE, "%s: the regular expression \"%s\" does not compile: %s", what, pattern, (const char *)reason);
    } else if (!(m->data = pcre2_match_data_create_from_pattern(m->code, NULL))) status = tn_fail_memory(1024, what);
    tn_str_free(&text);
    return status;
}

static void release(matcher *m) {
    pcre2_match_data_free(m->data);
    pcre2_code_free(m->code);
}

static bool matches(const matcher *m, const char *name) {
    return pcre2_match(m->code, (PCRE2_SPTR)name, PCRE2_ZERO_TERMINATED, 0, PCRE2_ANCHORED, m->data, NULL) > 0;
}

static tn_status compile_patterns(tn_targeting *t, const tn_pattern *patterns, int64_t count, const char *what, matcher **out) {
    *out = tn_arena_take(&t->arena, (count + 1) * (int64_t)sizeof **out);
    if (!*out) return tn_fail_memory(count * 16, what);
    for (int64_t i = 0; i < count; i++) {
        tn_status status = compile("(?:.*\\.)?(?:", patterns[i].pattern, ")$", what, &(*out)[i]);
        if (status != TN_OK) return status;
    }
    return TN_OK;
}

static tn_status compile_full(tn_targeting *t) {
    const tn_name_rule *rule = &t->config->modules_to_save;
    if (rule->regex) return tn_fail(TN_USAGE, "modules_to_save must be a list of names, not \"%s\"", rule->regex);
    t->full = tn_arena_take(&t->arena, (rule->count + 1) * (int64_t)sizeof *t->full);
    if (!t->full) return tn_fail_memory(rule->count * 16, "modules_to_save");
    for (int64_t i = 0; i < rule->count; i++) {
        tn_status status = compile("(?:^|.*\\.)", rule->names[i], "(?:$|\\..*)", "modules_to_save", &t->full[i]);
        if (status != TN_OK) return status;
    }
    return TN_OK;
}

static tn_status compile_layers(tn_targeting *t) {
    const tn_peft_config *c = t->config;
    const tn_name_rule *rule = &c->layers_pattern;
    tn_status status = TN_OK;
    if (c->layers_count == 0) return TN_OK;
    if (c->target_modules.regex || c->all_linear) {
        tn_fail(TN_USAGE, "layers_to_transform needs target_modules as a list, not as a regular expression or all-linear");
        return tn_remedy("for example --target_modules q_proj,v_proj");
    }
    int64_t count = rule->regex ? 1 : rule->count;
    t->layer = tn_arena_take(&t->arena, (count + 1) * (int64_t)sizeof *t->layer);
    if (!t->layer) return tn_fail_memory(count * 16, "layers_pattern");
    if (count == 0) {
        t->layer_count = 1;
        return compile("", ".*?\\.[^.]*\\.(\\d+)\\.", "", "layers_pattern", &t->layer[0]);
    }
    for (int64_t i = 0; i < count && status == TN_OK; i++, t->layer_count++)
        status = compile("(?:^|.*?\\.)", rule->regex ? rule->regex : rule->names[i], "\\.(\\d+)\\.", "layers_pattern", &t->layer[i]);
    return status;
}

tn_status tn_targeting_new(const tn_peft_config *config, tn_targeting **targeting) {
    tn_targeting *t = calloc(1, sizeof *t);
    tn_status status;
    *targeting = NULL;
    if (!t) return tn_fail_memory((int64_t)sizeof *t, "module rules");
    t->config = config;
    TN_TRY(compile_full(t));
    if (config->target_modules.regex) TN_TRY(compile("(?:", config->target_modules.regex, ")\\z", "target_modules", &t->target));
    if (config->exclude_modules.regex) TN_TRY(compile("(?:", config->exclude_modules.regex, ")\\z", "exclude_modules", &t->exclude));
    TN_TRY(compile_patterns(t, config->rank_pattern, config->rank_patterns, "rank_pattern", &t->rank));
    TN_TRY(compile_patterns(t, config->alpha_pattern, config->alpha_patterns, "alpha_pattern", &t->alpha));
    TN_TRY(compile_layers(t));
    t->target_used = tn_arena_take(&t->arena, config->target_modules.count + 1);
    t->full_used = tn_arena_take(&t->arena, config->modules_to_save.count + 1);
    if (!t->target_used || !t->full_used) TN_THROW(TN_FAILED, "out of memory for module rules");
    *targeting = t;
    t = NULL;
done:
    tn_targeting_free(t);
    return status;
}

void tn_targeting_free(tn_targeting *t) {
    if (!t) return;
    release(&t->target);
    release(&t->exclude);
    for (int64_t i = 0; t->full && i < t->config->modules_to_save.count; i++) release(&t->full[i]);
    for (int64_t i = 0; t->rank && i < t->config->rank_patterns; i++) release(&t->rank[i]);
    for (int64_t i = 0; t->alpha && i < t->config->alpha_patterns; i++) release(&t->alpha[i]);
    for (int64_t i = 0; i < t->layer_count; i++) release(&t->layer[i]);
    tn_arena_free(&t->arena);
    free(t);
}

/* Index of the list entry that `name` equals or ends with behind a dot; -1. */
static int64_t listed(const tn_name_rule *rule, const char *name) {
    size_t length = strlen(name);
    for (int64_t i = 0; i < rule->count; i++) {
        size_t n = strlen(rule->names[i]);
        if (length == n ? strcmp(name, rule->names[i]) == 0
                        : length > n && name[length - n - 1] == '.' && strcmp(name + length - n, rule->names[i]) == 0)
            return i;
    }
    return -1;
}

static bool excluded(const tn_targeting *t, const char *name) {
    if (t->exclude.code) return matches(&t->exclude, name);
    return listed(&t->config->exclude_modules, name) >= 0;
}

bool tn_targeting_full(const tn_targeting *t, const char *name) {
    bool any = false;
    for (int64_t i = 0; i < t->config->modules_to_save.count; i++)
        if (matches(&t->full[i], name)) any = t->full_used[i] = true;
    return any;
}

/* Is the layer number in `name` one of layers_to_transform? */
static bool in_layers(const tn_targeting *t, const char *name) {
    for (int64_t i = 0; i < t->layer_count; i++) {
        if (!matches(&t->layer[i], name)) continue;
        long long layer = strtoll(name + pcre2_get_ovector_pointer(t->layer[i].data)[2], NULL, 10);
        for (int64_t j = 0; j < t->config->layers_count; j++)
            if (t->config->layers_to_transform[j] == layer) return true;
        return false;
    }
    return false;
}

static bool targeted(const tn_targeting *t, const char *name, bool is_output) {
    const tn_peft_config *c = t->config;
    if (excluded(t, name) || tn_targeting_full(t, name)) return false;
    if (c->all_linear) return !is_output && strcmp(name, "model.embed_tokens") != 0;
    if (t->target.code) return matches(&t->target, name);
    int64_t entry = listed(&c->target_modules, name);
    if (entry < 0) return false;
    t->target_used[entry] = true;
    /* a name listed in full is targeted in every layer */
    return c->layers_count == 0 || strcmp(name, c->target_modules.names[entry]) == 0 || in_layers(t, name);
}

bool tn_targeting_lora(const tn_targeting *t, const char *name, bool is_output, int64_t *r, double *alpha) {
    const tn_peft_config *c = t->config;
    if (!targeted(t, name, is_output)) return false;
    *r = c->r;
    *alpha = c->lora_alpha;
    for (int64_t i = 0; i < c->rank_patterns; i++)
        if (matches(&t->rank[i], name)) {
            *r = (int64_t)c->rank_pattern[i].value;
            break;
        }
    for (int64_t i = 0; i < c->alpha_patterns; i++)
        if (matches(&t->alpha[i], name)) {
            *alpha = c->alpha_pattern[i].value;
            break;
        }
    return true;
}

const char *tn_targeting_unmatched(const tn_targeting *t) {
    for (int64_t i = 0; i < t->config->target_modules.count; i++)
        if (!t->target_used[i]) return t->config->target_modules.names[i];
    for (int64_t i = 0; i < t->config->modules_to_save.count; i++)
        if (!t->full_used[i]) return t->config->modules_to_save.names[i];
    return NULL;
}
