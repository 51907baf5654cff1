/* token_rules.c: trainable_token_indices, the rows of the embedding or head that train while the others stay
 * (peft: tuners/trainable_tokens). Read alike from an adapter's configuration and from a run's keys.
 */
#include <stdlib.h>
#include <string.h>

#include "format/peft_config.h"

static const char key[] = "trainable_token_indices";

static int by_value(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* The same row twice would have two values. */
static tn_status check_distinct(tn_arena *arena, const tn_token_rule *rule, const char *path, tn_status wrong) {
    int64_t *sorted = tn_arena_take(arena, (rule->count + 1) * (int64_t)sizeof *sorted);
    if (!sorted) return tn_fail_memory(rule->count * (int64_t)sizeof *sorted, key);
    if (rule->count > 0) memcpy(sorted, rule->ids, (size_t)rule->count * sizeof *sorted);
    qsort(sorted, (size_t)rule->count, sizeof *sorted, by_value);
    for (int64_t i = 1; i < rule->count; i++)
        if (sorted[i] == sorted[i - 1])
            return tn_fail(wrong, "%s: %s names token %lld twice", path, key, (long long)sorted[i]);
    return TN_OK;
}

static tn_status read_ids(tn_arena *arena, const tn_json *list, const char *path, tn_status wrong,
                          tn_token_rule *rule) {
    if (list->type != TN_JSON_ARRAY) return tn_fail(wrong, "%s: %s is not a list of token ids", path, key);
    rule->ids = tn_arena_take(arena, (list->count + 1) * (int64_t)sizeof *rule->ids);
    if (!rule->ids) return tn_fail_memory(list->count * (int64_t)sizeof *rule->ids, key);
    for (int64_t i = 0; i < list->count; i++) {
        if (list->items[i].type != TN_JSON_INTEGER || list->items[i].integer < 0)
            return tn_fail(wrong, "%s: %s holds something that is no token id (a number from 0)", path, key);
        rule->ids[i] = list->items[i].integer;
    }
    rule->count = list->count;
    return check_distinct(arena, rule, path, wrong);
}

tn_status tn_token_rules_read(tn_arena *arena, const tn_json *node, const char *path, tn_status wrong,
                              tn_token_rule *embed, tn_token_rule *head, const char **other) {
    tn_status status = TN_OK;
    *other = NULL;
    if (tn_json_is_null(node)) return TN_OK;
    if (node->type != TN_JSON_OBJECT) return read_ids(arena, node, path, wrong, embed);
    for (int64_t i = 0; i < node->count && status == TN_OK; i++) {
        const tn_member *m = &node->members[i];
        tn_token_rule *rule = tn_ends_with(m->key, "embed_tokens") ? embed
                              : tn_ends_with(m->key, "lm_head")    ? head
                                                                   : NULL;
        if (!rule) *other = m->key;
        else if (rule->count) status = tn_fail(wrong, "%s: %s names %s twice", path, key, m->key);
        else status = read_ids(arena, &m->value, path, wrong, rule);
    }
    return status;
}
