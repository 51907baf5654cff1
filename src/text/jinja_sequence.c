/* jinja_sequence.c: the filters over sequences: map, select, sort, join and their kin. What Jinja makes a
 * generator is an iterator here too (true, without a length, read once), though computed at once.
 */
#include <string.h>

#include "text/jinja_string.h"

#define NATIVE(name)                                                                             \
    static tn_status name(jinja_run *run, const jinja_value *self, const jinja_value *arguments, \
                          const jinja_call *call, jinja_value *out)
#define UNUSED (void)run, (void)self, (void)arguments, (void)call

static bool is_given(const jinja_value *argument) {
    return argument->kind != JINJA_MISSING && argument->kind != JINJA_NONE;
}

/* ---- Attributes by path: "a.b.0" ---- */

static tn_status path_part(jinja_run *run, const char *text, int64_t length, jinja_value *key) {
    int64_t number = 0;
    bool digits = length > 0 && length < 10;
    for (int64_t i = 0; i < length && digits; i++) {
        digits = text[i] >= '0' && text[i] <= '9';
        number = number * 10 + (text[i] - '0');
    }
    *key = JINJA_MAKE_INTEGER(number);
    return digits ? TN_OK : jinja_make_view(run, text, length, key);
}

/* The item itself where `attribute` is not given; `otherwise` (if given) stands in for what is undefined. */
static tn_status get_path(jinja_run *run, const jinja_value *item, const jinja_value *attribute,
                          const jinja_value *otherwise, jinja_value *out) {
    tn_status status = TN_OK;
    *out = *item;
    if (!is_given(attribute)) return TN_OK;
    if (attribute->kind != JINJA_STRING) return jinja_get_item(run, item, attribute, out);
    const jinja_string *path = attribute->string;
    for (int64_t from = 0, to; from <= path->length; from = to + 1) {
        const char *dot =
            from < path->length ? memchr(path->data + from, '.', (size_t)(path->length - from)) : NULL;
        to = dot ? dot - path->data : path->length;
        jinja_value key, object = *out;
        TN_TRY(path_part(run, path->data + from, to - from, &key));
        TN_TRY(jinja_get_item(run, &object, &key, out));
        if (otherwise && is_given(otherwise) && out->kind == JINJA_UNDEFINED) *out = *otherwise;
    }
done:
    return status;
}

static tn_status ignore_case(jinja_run *run, bool case_sensitive, jinja_value *key) {
    if (case_sensitive || key->kind != JINJA_STRING) return TN_OK;
    return jinja_case(run, key->string, JINJA_LOWER, key);
}

/* What sort compares: the value at `attribute`, or a list of values where it names several with commas. */
static tn_status sort_key(jinja_run *run, const jinja_value *item, const jinja_value *attribute,
                          bool case_sensitive, jinja_value *key) {
    tn_status status = TN_OK;
    jinja_builder list = {0};
    bool several = attribute->kind == JINJA_STRING &&
                   memchr(attribute->string->data, ',', (size_t)attribute->string->length) != NULL;
    if (!several) {
        TN_TRY(get_path(run, item, attribute, NULL, key));
        return ignore_case(run, case_sensitive, key);
    }
    const char *at = attribute->string->data, *end = at + attribute->string->length;
    while (at <= end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        jinja_value one, value;
        TN_TRY(jinja_make_view(run, at, (comma ? comma : end) - at, &one));
        TN_TRY(get_path(run, item, &one, NULL, &value));
        TN_TRY(ignore_case(run, case_sensitive, &value));
        TN_TRY(jinja_push(run, &list, value));
        at = (comma ? comma : end) + 1;
    }
    TN_TRY(jinja_make_list(run, JINJA_LIST, list.items, list.count, key));
done:
    return status;
}

/* ---- Sorting and grouping ---- */

/* Items with their keys, sorted. */
static tn_status sorted(jinja_run *run, const jinja_value *self, const jinja_value *attribute,
                        bool case_sensitive, bool reverse, jinja_pair **pairs, int64_t *count) {
    tn_status status = TN_OK;
    jinja_list items;
    TN_TRY(jinja_iterate(run, self, &items));
    TN_TRY(jinja_take(run, pairs, items.count, sizeof **pairs));
    for (int64_t i = 0; i < items.count; i++) {
        (*pairs)[i].value = items.items[i];
        TN_TRY(sort_key(run, &items.items[i], attribute, case_sensitive, &(*pairs)[i].key));
    }
    TN_TRY(jinja_sort(run, *pairs, items.count, reverse));
    *count = items.count;
done:
    return status;
}

static tn_status pair_values(jinja_run *run, const jinja_pair *pairs, int64_t count, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_builder list = {0};
    for (int64_t i = 0; i < count; i++) TN_TRY(jinja_push(run, &list, pairs[i].value));
    TN_TRY(jinja_make_list(run, JINJA_LIST, list.items, list.count, out));
done:
    return status;
}

NATIVE(filter_sort) {
    jinja_pair *pairs;
    int64_t count;
    UNUSED;
    tn_status status = sorted(run, self, &arguments[2], jinja_truth(&arguments[1]), jinja_truth(&arguments[0]),
                              &pairs, &count);
    return status == TN_OK ? pair_values(run, pairs, count, out) : status;
}

static tn_status make_pair(jinja_run *run, jinja_value first, jinja_value second, jinja_value *out) {
    jinja_value *two;
    tn_status status = jinja_take(run, &two, 2, sizeof *two);
    if (status != TN_OK) return status;
    two[0] = first, two[1] = second;
    return jinja_make_list(run, JINJA_TUPLE, two, 2, out);
}

NATIVE(filter_dictsort) {
    tn_status status = TN_OK;
    UNUSED;
    bool by_value = jinja_is_text(&arguments[1], "value");
    if (self->kind == JINJA_UNDEFINED) return jinja_fail_undefined(run, self);
    if (self->kind != JINJA_DICT)
        return jinja_fail(run, "'%s' object has no attribute 'items'", jinja_type_name(self));
    if (!by_value && arguments[1].kind != JINJA_MISSING && !jinja_is_text(&arguments[1], "key"))
        return jinja_fail(run, "You can only sort by either \"key\" or \"value\"");
    const jinja_dict *dict = self->dict;
    jinja_pair *pairs;
    TN_TRY(jinja_take(run, &pairs, dict->count, sizeof *pairs));
    for (int64_t i = 0; i < dict->count; i++) {
        pairs[i].key = by_value ? dict->pairs[i].value : dict->pairs[i].key;
        TN_TRY(ignore_case(run, jinja_truth(&arguments[0]), &pairs[i].key));
        TN_TRY(make_pair(run, dict->pairs[i].key, dict->pairs[i].value, &pairs[i].value));
    }
    TN_TRY(jinja_sort(run, pairs, dict->count, jinja_truth(&arguments[2])));
    TN_TRY(pair_values(run, pairs, dict->count, out));
done:
    return status;
}

/* Pairs of a key and the list of its items, by key; the key shows the first item's case. */
NATIVE(filter_groupby) {
    tn_status status = TN_OK;
    jinja_list items;
    jinja_pair *pairs;
    jinja_builder groups = {0};
    bool case_sensitive = jinja_truth(&arguments[2]), same;
    UNUSED;
    TN_TRY(jinja_iterate(run, self, &items));
    TN_TRY(jinja_take(run, &pairs, items.count, sizeof *pairs));
    for (int64_t i = 0; i < items.count; i++) {
        pairs[i].value = items.items[i];
        TN_TRY(get_path(run, &items.items[i], &arguments[0], &arguments[1], &pairs[i].key));
        TN_TRY(ignore_case(run, case_sensitive, &pairs[i].key));
    }
    TN_TRY(jinja_sort(run, pairs, items.count, false));
    for (int64_t i = 0, end; i < items.count; i = end) {
        jinja_value key, list, group;
        for (end = i + 1, same = true; end < items.count; end++) {
            TN_TRY(jinja_equal(run, &pairs[i].key, &pairs[end].key, &same));
            if (!same) break;
        }
        TN_TRY(pair_values(run, pairs + i, end - i, &list));
        TN_TRY(get_path(run, &pairs[i].value, &arguments[0], &arguments[1], &key));
        TN_TRY(make_pair(run, key, list, &group));
        TN_TRY(jinja_push(run, &groups, group));
    }
    TN_TRY(jinja_make_list(run, JINJA_LIST, groups.items, groups.count, out));
done:
    return status;
}

NATIVE(filter_unique) {
    tn_status status = TN_OK;
    jinja_list items;
    jinja_value seen, key, *found;
    jinja_builder list = {0};
    UNUSED;
    TN_TRY(jinja_iterate(run, self, &items));
    TN_TRY(jinja_make_dict(run, &seen));
    for (int64_t i = 0; i < items.count; i++) {
        TN_TRY(get_path(run, &items.items[i], &arguments[1], NULL, &key));
        TN_TRY(ignore_case(run, jinja_truth(&arguments[0]), &key));
        TN_TRY(jinja_dict_get(run, seen.dict, key, &found));
        if (found) continue;
        TN_TRY(jinja_dict_set(run, seen.dict, key, key));
        TN_TRY(jinja_push(run, &list, items.items[i]));
    }
    TN_TRY(jinja_make_iterator(run, (jinja_list){list.items, list.count}, out));
done:
    return status;
}

static tn_status extreme(jinja_run *run, const jinja_value *self, const jinja_value *arguments,
                         const char *better, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_list items;
    jinja_value best = {0}, key;
    TN_TRY(jinja_iterate(run, self, &items));
    if (items.count == 0)
        return jinja_make_undefined(run, "No aggregated item, sequence was empty.", NULL, NULL, out);
    for (int64_t i = 0; i < items.count; i++) {
        bool replaces = true;
        TN_TRY(get_path(run, &items.items[i], &arguments[1], NULL, &key));
        TN_TRY(ignore_case(run, jinja_truth(&arguments[0]), &key));
        if (i > 0) TN_TRY(jinja_order(run, better, &key, &best, &replaces));
        if (replaces) best = key, *out = items.items[i];
    }
done:
    return status;
}

NATIVE(filter_min) { return UNUSED, extreme(run, self, arguments, "<", out); }
NATIVE(filter_max) { return UNUSED, extreme(run, self, arguments, ">", out); }

NATIVE(filter_sum) {
    tn_status status = TN_OK;
    jinja_list items;
    UNUSED;
    TN_TRY(jinja_iterate(run, self, &items));
    *out = arguments[1].kind == JINJA_MISSING ? JINJA_MAKE_INTEGER(0) : arguments[1];
    if (out->kind == JINJA_STRING) return jinja_fail(run, "sum() can't sum strings [use ''.join(seq) instead]");
    for (int64_t i = 0; i < items.count; i++) {
        jinja_value item, total = *out;
        TN_TRY(get_path(run, &items.items[i], &arguments[0], NULL, &item));
        TN_TRY(jinja_binary(run, '+', &total, &item, out));
    }
done:
    return status;
}

/* ---- map, select, reject ---- */

static jinja_call call_without(const jinja_call *call, int64_t count) {
    jinja_call rest = *call;
    rest.positional += count, rest.count -= count;
    return rest;
}

static const jinja_value *keyword(const jinja_call *call, const char *name) {
    for (int64_t i = 0; i < call->keyword_count; i++)
        if (jinja_is_text(&call->keywords[i].key, name)) return &call->keywords[i].value;
    return NULL;
}

NATIVE(filter_map) {
    tn_status status = TN_OK;
    jinja_list items = {0};
    jinja_builder list = {0};
    jinja_value item;
    const jinja_value *attribute = keyword(call, "attribute"), *otherwise = keyword(call, "default");
    UNUSED;
    if (jinja_truth(self)) TN_TRY(jinja_iterate(run, self, &items));
    bool by_attribute = call->count == 0 && attribute;
    if (!by_attribute && call->count == 0) return jinja_fail(run, "map requires a filter argument");
    if (by_attribute && call->keyword_count > 1 + (otherwise != NULL))
        return jinja_fail(run, "map() got an unexpected keyword argument");
    const jinja_string *name = NULL;
    if (!by_attribute) TN_TRY(jinja_argument_text(run, &call->positional[0], "map", &name));
    jinja_call rest = by_attribute ? *call : call_without(call, 1);
    for (int64_t i = 0; i < items.count; i++) {
        if (by_attribute) TN_TRY(get_path(run, &items.items[i], attribute, otherwise, &item));
        else TN_TRY(jinja_apply_filter(run, name, &items.items[i], &rest, &item));
        TN_TRY(jinja_push(run, &list, item));
    }
    TN_TRY(jinja_make_iterator(run, (jinja_list){list.items, list.count}, out));
done:
    return status;
}

/* select, reject, and the two by an attribute; without a test the truth decides. */
static tn_status choose(jinja_run *run, const jinja_value *self, const jinja_call *call, bool by_attribute,
                        bool wanted, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_list items = {0};
    jinja_builder list = {0};
    const jinja_string *test = NULL;
    jinja_call rest = *call;
    if (jinja_truth(self)) TN_TRY(jinja_iterate(run, self, &items));
    if (by_attribute && call->count == 0) return jinja_fail(run, "Missing parameter for attribute name");
    if (by_attribute) rest = call_without(&rest, 1);
    if (rest.count > 0) {
        TN_TRY(jinja_argument_text(run, &rest.positional[0], "select", &test));
        rest = call_without(&rest, 1);
    }
    for (int64_t i = 0; i < items.count; i++) {
        jinja_value value = items.items[i];
        bool holds;
        if (by_attribute) TN_TRY(get_path(run, &items.items[i], &call->positional[0], NULL, &value));
        if (test) TN_TRY(jinja_apply_test(run, test, &value, &rest, &holds));
        else holds = jinja_truth(&value);
        if (holds == wanted) TN_TRY(jinja_push(run, &list, items.items[i]));
    }
    TN_TRY(jinja_make_iterator(run, (jinja_list){list.items, list.count}, out));
done:
    return status;
}

NATIVE(filter_select) { return UNUSED, choose(run, self, call, false, true, out); }
NATIVE(filter_reject) { return UNUSED, choose(run, self, call, false, false, out); }
NATIVE(filter_selectattr) { return UNUSED, choose(run, self, call, true, true, out); }
NATIVE(filter_rejectattr) { return UNUSED, choose(run, self, call, true, false, out); }

/* ---- The rest ---- */

NATIVE(filter_join) {
    tn_status status = TN_OK;
    jinja_list items;
    jinja_value item;
    tn_str text = {0}, separator = {0};
    UNUSED;
    TN_TRY(jinja_iterate(run, self, &items));
    if (arguments[0].kind != JINJA_MISSING) TN_TRY(jinja_str(run, &arguments[0], &separator));
    for (int64_t i = 0; i < items.count && !text.failed; i++) {
        TN_TRY(jinja_step(run, 1));
        TN_TRY(get_path(run, &items.items[i], &arguments[1], NULL, &item));
        if (i > 0) jinja_put(&text, separator.data, separator.length);
        TN_TRY(jinja_str(run, &item, &text));
    }
    TN_TRY(jinja_make_from(run, &text, out));
done:
    tn_str_free(&text);
    tn_str_free(&separator);
    return status;
}

NATIVE(filter_list) {
    jinja_list items;
    UNUSED;
    tn_status status = jinja_iterate(run, self, &items);
    return status == TN_OK ? jinja_make_list(run, JINJA_LIST, items.items, items.count, out) : status;
}

NATIVE(filter_first) {
    jinja_list items;
    UNUSED;
    if (self->kind == JINJA_ITERATOR && self->iterator->next < self->iterator->list.count) {
        *out = self->iterator->list.items[self->iterator->next++]; /* takes only the one */
        return TN_OK;
    }
    tn_status status = jinja_iterate(run, self, &items);
    if (status != TN_OK) return status;
    if (items.count == 0)
        return jinja_make_undefined(run, "No first item, sequence was empty.", NULL, NULL, out);
    *out = items.items[0];
    return TN_OK;
}

NATIVE(filter_last) {
    jinja_list items;
    UNUSED;
    if (self->kind == JINJA_ITERATOR) return jinja_fail(run, "'generator' object is not reversible");
    tn_status status = jinja_iterate(run, self, &items);
    if (status != TN_OK) return status;
    if (items.count == 0)
        return jinja_make_undefined(run, "No last item, sequence was empty.", NULL, NULL, out);
    *out = items.items[items.count - 1];
    return TN_OK;
}

NATIVE(filter_reverse) {
    tn_status status = TN_OK;
    jinja_list items;
    jinja_value *reversed, none = JINJA_MAKE_NONE, bounds[3] = {none, none, JINJA_MAKE_INTEGER(-1)};
    UNUSED;
    if (self->kind == JINJA_STRING) return jinja_get_slice(run, self, bounds, out);
    TN_TRY(jinja_iterate(run, self, &items));
    TN_TRY(jinja_take(run, &reversed, items.count, sizeof *reversed));
    TN_TRY(jinja_step(run, items.count));
    for (int64_t i = 0; i < items.count; i++) reversed[i] = items.items[items.count - 1 - i];
    TN_TRY(jinja_make_iterator(run, (jinja_list){reversed, items.count}, out));
done:
    return status;
}

NATIVE(filter_items) {
    tn_status status = TN_OK;
    jinja_list items = {0};
    UNUSED;
    if (self->kind == JINJA_DICT) {
        jinja_view view = {self->dict, JINJA_ITEMS};
        jinja_value value = {.kind = JINJA_VIEW, .view = &view};
        TN_TRY(jinja_iterate(run, &value, &items));
    } else if (self->kind != JINJA_UNDEFINED) {
        return jinja_fail(run, "Can only get item pairs from a mapping.");
    }
    TN_TRY(jinja_make_iterator(run, items, out));
done:
    return status;
}

/* One list of `count` items from `from` on, filled up to `full` with `fill` where that is given. */
static tn_status push_row(jinja_run *run, jinja_builder *rows, const jinja_list *items, int64_t from,
                          int64_t count, int64_t full, const jinja_value *fill) {
    tn_status status = TN_OK;
    jinja_builder row = {0};
    jinja_value value;
    for (int64_t i = 0; i < count; i++) TN_TRY(jinja_push(run, &row, items->items[from + i]));
    while (is_given(fill) && row.count < full) TN_TRY(jinja_push(run, &row, *fill));
    TN_TRY(jinja_make_list(run, JINJA_LIST, row.items, row.count, &value));
    TN_TRY(jinja_push(run, rows, value));
done:
    return status;
}

NATIVE(filter_batch) {
    tn_status status = TN_OK;
    jinja_list items;
    jinja_builder rows = {0};
    int64_t size;
    UNUSED;
    TN_TRY(jinja_argument_integer(run, &arguments[0], 1, &size));
    TN_TRY(jinja_iterate(run, self, &items));
    if (size < 1) return jinja_fail(run, "a batch of %lld items", (long long)size);
    for (int64_t at = 0; at < items.count; at += size) {
        int64_t count = items.count - at < size ? items.count - at : size;
        TN_TRY(push_row(run, &rows, &items, at, count, size, &arguments[1]));
        if (count < size) break;
    }
    TN_TRY(jinja_make_iterator(run, (jinja_list){rows.items, rows.count}, out));
done:
    return status;
}

NATIVE(filter_slice) {
    tn_status status = TN_OK;
    jinja_list items;
    jinja_builder rows = {0};
    int64_t slices, at = 0;
    UNUSED;
    TN_TRY(jinja_argument_integer(run, &arguments[0], 1, &slices));
    TN_TRY(jinja_iterate(run, self, &items));
    if (slices < 1) return jinja_fail(run, "%lld slices", (long long)slices);
    int64_t each = items.count / slices, longer = items.count % slices;
    for (int64_t i = 0; i < slices; i++) {
        int64_t count = each + (i < longer);
        TN_TRY(push_row(run, &rows, &items, at, count, i < longer ? count : each + 1, &arguments[1]));
        at += count;
    }
    TN_TRY(jinja_make_iterator(run, (jinja_list){rows.items, rows.count}, out));
done:
    return status;
}

const jinja_builtin *jinja_sequence_filter(const jinja_string *name) {
    static const jinja_builtin filters[] = {
        {"batch", filter_batch, "linecount ?fill_with"},
        {"dictsort", filter_dictsort, "?case_sensitive ?by ?reverse"},
        {"first", filter_first, ""},
        {"groupby", filter_groupby, "attribute ?default ?case_sensitive"},
        {"items", filter_items, ""},
        {"join", filter_join, "?d ?attribute"},
        {"last", filter_last, ""},
        {"list", filter_list, ""},
        {"map", filter_map, "*"},
        {"max", filter_max, "?case_sensitive ?attribute"},
        {"min", filter_min, "?case_sensitive ?attribute"},
        {"reject", filter_reject, "*"},
        {"rejectattr", filter_rejectattr, "*"},
        {"reverse", filter_reverse, ""},
        {"select", filter_select, "*"},
        {"selectattr", filter_selectattr, "*"},
        {"slice", filter_slice, "slices ?fill_with"},
        {"sort", filter_sort, "?reverse ?case_sensitive ?attribute"},
        {"sum", filter_sum, "?attribute ?start"},
        {"unique", filter_unique, "?case_sensitive ?attribute"},
        {0},
    };
    return jinja_find(filters, name->data, name->length);
}
