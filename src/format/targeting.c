/* targeting.c: which modules an adapter touches: PEFT's rules (tuners/tuners_utils.py), with Python's re
 * semantics through PCRE2. Expressions are put together from exactly the pieces PEFT uses, capture groups
 * included, so that alternatives and back references in a user's pattern bind the way they do there.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "format/peft_config.h"

typedef struct matcher {
    pcre2_code *code;
    pcre2_match_data *data;
} matcher;

typedef struct matchers {
    matcher *each;
    int64_t count;
} matchers;

struct tn_targeting {
    const tn_peft_config *config;
    tn_arena arena;
    matcher target, exclude; /* where the rule is a regular expression */
    matchers inside_full;    /* for each modules_to_save entry: the module itself and what is in it */
    matchers rank, alpha;    /* patterns */
    matchers layer;          /* for each layers_pattern, or the default: captures the layer number as "idx" */
    pcre2_match_context *limits;
    /* What the questions so far have shown: entries that named a module, and an expression that used up its
     * steps, after which no answer is to be trusted. */
    bool *target_used, *full_used, *rank_used, *alpha_used, *exclude_used, *gave_up;
};

enum { MOST_STEPS = 1000000 }; /* of one match: names of modules are short, so only a runaway needs more */

/* ---- Expressions --------------------------------------------------------------------------------- */

/* re.match and re.fullmatch. */
static const uint32_t match = PCRE2_ANCHORED, fullmatch = PCRE2_ANCHORED | PCRE2_ENDANCHORED;

static tn_status compile(const char *prefix, const char *pattern, const char *suffix, const char *what,
                         matcher *m) {
    tn_str text = {0};
    int error;
    PCRE2_SIZE at;
    tn_str_printf(&text, "%s%s%s", prefix, pattern, suffix);
    tn_status status = tn_str_check(&text, what);
    if (status != TN_OK) goto done;
    m->code =
        pcre2_compile((PCRE2_SPTR)text.data, (PCRE2_SIZE)text.length, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    if (!m->code) {
        PCRE2_UCHAR reason[256];
        pcre2_get_error_message(error, reason, sizeof reason);
        tn_fail(TN_USAGE, "%s: the regular expression \"%s\" does not compile: %s", what, pattern,
                (const char *)reason);
        status =
            tn_remedy("write it as for Python's re module; a list of plain names needs commas and no brackets");
        goto done;
    }
    m->data = pcre2_match_data_create_from_pattern(m->code, NULL);
    if (!m->data) status = tn_fail_memory(1024, what);
done:
    tn_str_free(&text);
    return status;
}

static bool matches(const tn_targeting *t, const matcher *m, const char *name, uint32_t anchoring) {
    int found = pcre2_match(m->code, (PCRE2_SPTR)name, PCRE2_ZERO_TERMINATED, 0, anchoring, m->data, t->limits);
    if (found < PCRE2_ERROR_NOMATCH) *t->gave_up = true;
    return found > 0;
}

static tn_status make_room(tn_targeting *t, matchers *list, int64_t count, const char *what) {
    list->each = tn_arena_take(&t->arena, (count + 1) * (int64_t)sizeof *list->each);
    if (!list->each) return tn_fail_memory(count * (int64_t)sizeof *list->each, what);
    list->count = count;
    return TN_OK;
}

static void release(matcher *m) {
    pcre2_match_data_free(m->data);
    pcre2_code_free(m->code);
}

static void release_all(matchers *list) {
    for (int64_t i = 0; i < list->count; i++) release(&list->each[i]);
}

static tn_status compile_patterns(tn_targeting *t, const tn_pattern *patterns, int64_t count, const char *what,
                                  matchers *list) {
    tn_status status = make_room(t, list, count, what);
    for (int64_t i = 0; i < count && status == TN_OK; i++)
        status = compile("(.*\\.)?(", patterns[i].pattern, ")$", what, &list->each[i]);
    return status;
}

static tn_status compile_full(tn_targeting *t) {
    const tn_name_rule *rule = &t->config->modules_to_save;
    if (rule->regex) {
        tn_fail(TN_USAGE, "modules_to_save must be a list of names, not the expression \"%s\"", rule->regex);
        return tn_remedy("for example --modules_to_save embed_tokens,lm_head");
    }
    tn_status status = make_room(t, &t->inside_full, rule->count, "modules_to_save");
    for (int64_t i = 0; i < rule->count && status == TN_OK; i++)
        status = compile("(^|.*\\.)", rule->names[i], "($|\\..*)", "modules_to_save", &t->inside_full.each[i]);
    return status;
}

static tn_status compile_layers(tn_targeting *t) {
    const tn_name_rule *rule = &t->config->layers_pattern;
    const char *what = "layers_pattern";
    if (t->config->layers_count == 0) {
        if (rule->count == 0 && !(rule->regex && *rule->regex)) return TN_OK;
        tn_fail(TN_USAGE, "layers_pattern says where layers_to_transform counts, and that is not there");
        return tn_remedy("give layers_to_transform as well, or leave out layers_pattern");
    }
    if (t->config->target_modules.regex || t->config->all_linear) {
        tn_fail(TN_USAGE, "layers_to_transform needs target_modules as a list, not \"%s\"",
                t->config->all_linear ? "all-linear" : t->config->target_modules.regex);
        return tn_remedy(
            "for example --target_modules q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj");
    }
    const int64_t count = rule->regex ? 1 : rule->count;
    tn_status status = make_room(t, &t->layer, count > 0 ? count : 1, what);
    if (status != TN_OK) return status;
    if (count == 0) return compile("", ".*?\\.[^.]*\\.(?P<idx>\\d+)\\.", "", what, &t->layer.each[0]);
    for (int64_t i = 0; i < count && status == TN_OK; i++)
        status = compile("(?:^|.*?\\.)", rule->regex ? rule->regex : rule->names[i], "\\.(?P<idx>\\d+)\\.",
                         what, &t->layer.each[i]);
    return status;
}

/* Room for what questions will show, and the bound on their work. */
static tn_status prepare(tn_targeting *t) {
    const struct {
        bool **flags;
        int64_t count;
    } wanted[] = {{&t->target_used, t->config->target_modules.count},
                  {&t->full_used, t->config->modules_to_save.count},
                  {&t->rank_used, t->config->rank_patterns},
                  {&t->alpha_used, t->config->alpha_patterns},
                  {&t->exclude_used, 1},
                  {&t->gave_up, 1}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!(*wanted[i].flags = tn_arena_take(&t->arena, wanted[i].count + 1)))
            return tn_fail_memory(wanted[i].count, "module rules");
    t->limits = pcre2_match_context_create(NULL);
    if (!t->limits) return tn_fail_memory(1024, "module rules");
    pcre2_set_match_limit(t->limits, MOST_STEPS);
    return TN_OK;
}

tn_status tn_targeting_new(const tn_peft_config *config, tn_targeting **targeting) {
    tn_targeting *t = calloc(1, sizeof *t);
    tn_status status;
    *targeting = NULL;
    if (!t) return tn_fail_memory((int64_t)sizeof *t, "module rules");
    t->config = config;
    TN_TRY(prepare(t));
    TN_TRY(compile_full(t));
    if (config->target_modules.regex)
        TN_TRY(compile("", config->target_modules.regex, "", "target_modules", &t->target));
    if (config->exclude_modules.regex)
        TN_TRY(compile("", config->exclude_modules.regex, "", "exclude_modules", &t->exclude));
    TN_TRY(compile_patterns(t, config->rank_pattern, config->rank_patterns, "rank_pattern", &t->rank));
    TN_TRY(compile_patterns(t, config->alpha_pattern, config->alpha_patterns, "alpha_pattern", &t->alpha));
    TN_TRY(compile_layers(t));
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
    release_all(&t->inside_full);
    release_all(&t->rank);
    release_all(&t->alpha);
    release_all(&t->layer);
    pcre2_match_context_free(t->limits);
    tn_arena_free(&t->arena);
    free(t);
}

/* ---- Questions ----------------------------------------------------------------------------------- */

/* Is `name` the `entry` itself, or does it end with it behind a dot? */
static bool same_or_suffix(const char *name, const char *entry) {
    const size_t length = strlen(name), n = strlen(entry);
    if (length <= n) return strcmp(name, entry) == 0;
    return name[length - n - 1] == '.' && strcmp(name + length - n, entry) == 0;
}

static bool listed(const tn_name_rule *rule, const char *name) {
    for (int64_t i = 0; i < rule->count; i++)
        if (same_or_suffix(name, rule->names[i])) return true;
    return false;
}

static bool excluded(const tn_targeting *t, const char *name) {
    bool found =
        t->exclude.code ? matches(t, &t->exclude, name, fullmatch) : listed(&t->config->exclude_modules, name);
    if (found) *t->exclude_used = true;
    return found;
}

static bool inside_full(const tn_targeting *t, const char *name) {
    for (int64_t i = 0; i < t->inside_full.count; i++)
        if (matches(t, &t->inside_full.each[i], name, match)) return true;
    return false;
}

/* Is `name`, or a module around it, one whose name ends with `entry`? A dot before it is not asked for here:
 * PEFT saves input_layernorm where modules_to_save says "norm". */
static bool is_full(const char *name, const char *entry) {
    const size_t n = strlen(entry), length = strlen(name);
    for (size_t end = 1; end <= length; end++) {
        if (name[end] != '.' && name[end] != '\0') continue;
        if (end >= n && memcmp(name + end - n, entry, n) == 0) return true;
    }
    return false;
}

/* Remembers which entries have named a module of the model, whatever became of it then. */
static void note(const tn_targeting *t, const char *name) {
    const tn_name_rule *target = &t->config->target_modules, *full = &t->config->modules_to_save;
    for (int64_t i = 0; i < target->count; i++)
        if (same_or_suffix(name, target->names[i])) t->target_used[i] = true;
    for (int64_t i = 0; i < full->count; i++)
        if (is_full(name, full->names[i])) t->full_used[i] = true;
}

bool tn_targeting_full(const tn_targeting *t, const char *name) {
    const tn_name_rule *rule = &t->config->modules_to_save;
    note(t, name);
    for (int64_t i = 0; i < rule->count; i++)
        if (is_full(name, rule->names[i])) return true;
    return false;
}

/* Is the layer number in `name` one of layers_to_transform? The first layers_pattern that matches decides. */
static bool in_layers(const tn_targeting *t, const char *name) {
    for (int64_t i = 0; i < t->layer.count; i++) {
        const matcher *m = &t->layer.each[i];
        PCRE2_UCHAR *digits;
        PCRE2_SIZE length;
        if (!matches(t, m, name, match)) continue;
        if (pcre2_substring_get_byname(m->data, (PCRE2_SPTR) "idx", &digits, &length) != 0) return false;
        const long long layer = strtoll((const char *)digits, NULL, 10);
        pcre2_substring_free(digits);
        for (int64_t j = 0; j < t->config->layers_count; j++)
            if (t->config->layers_to_transform[j] == layer) return true;
        return false;
    }
    return false;
}

static bool targeted(const tn_targeting *t, const char *name, bool is_output) {
    const tn_peft_config *c = t->config;
    if (excluded(t, name) || inside_full(t, name)) return false;
    if (c->all_linear) return !is_output && !same_or_suffix(name, "embed_tokens");
    if (t->target.code) return matches(t, &t->target, name, fullmatch);
    for (int64_t i = 0; i < c->target_modules.count; i++)
        if (strcmp(name, c->target_modules.names[i]) == 0) return true; /* listed in full: in whatever layer */
    return listed(&c->target_modules, name) && (c->layers_count == 0 || in_layers(t, name));
}

static double patterned(const tn_targeting *t, const matchers *list, const tn_pattern *patterns, bool *used,
                        const char *name, double otherwise) {
    for (int64_t i = 0; i < list->count; i++)
        if (matches(t, &list->each[i], name, match)) {
            used[i] = true;
            return patterns[i].value;
        }
    return otherwise;
}

bool tn_targeting_lora(const tn_targeting *t, const char *name, bool is_output, int64_t *r, double *alpha) {
    const tn_peft_config *c = t->config;
    note(t, name);
    if (!targeted(t, name, is_output)) return false;
    *r = (int64_t)patterned(t, &t->rank, c->rank_pattern, t->rank_used, name, (double)c->r);
    *alpha = patterned(t, &t->alpha, c->alpha_pattern, t->alpha_used, name, c->lora_alpha);
    return true;
}

const char *tn_targeting_unmatched(const tn_targeting *t) {
    for (int64_t i = 0; i < t->config->target_modules.count; i++)
        if (!t->target_used[i]) return t->config->target_modules.names[i];
    for (int64_t i = 0; i < t->config->modules_to_save.count; i++)
        if (!t->full_used[i]) return t->config->modules_to_save.names[i];
    return NULL;
}

static void warn_unused(const tn_pattern *patterns, const bool *used, int64_t count, const char *key,
                        const char *name) {
    for (int64_t i = 0; i < count; i++)
        if (!used[i]) tn_warn("%s: \"%s\" in %s applies to no module", name, patterns[i].pattern, key);
}

tn_status tn_targeting_check(const tn_targeting *t, const char *name) {
    const tn_peft_config *c = t->config;
    if (*t->gave_up) {
        tn_fail(TN_USAGE, "%s: a regular expression of its module rules does not come to an end", name);
        return tn_remedy("write it without a repetition inside a repetition, such as (a+)+");
    }
    if ((c->exclude_modules.regex || c->exclude_modules.count) && !*t->exclude_used)
        tn_warn("%s: exclude_modules excludes no module", name);
    warn_unused(c->rank_pattern, t->rank_used, c->rank_patterns, "rank_pattern", name);
    warn_unused(c->alpha_pattern, t->alpha_used, c->alpha_patterns, "alpha_pattern", name);
    return TN_OK;
}
