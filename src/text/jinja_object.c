/* jinja_object.c: attributes, items and slices of values, the methods of all but strings, and the global
 * functions. What would change a list or dict is refused, as transformers' immutable sandbox refuses it.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "text/jinja_run.h"
#include "text/jinja_string.h"

#define NATIVE(name)                                                                             \
    static tn_status name(jinja_run *run, const jinja_value *self, const jinja_value *arguments, \
                          const jinja_call *call, jinja_value *out)
#define UNUSED (void)run, (void)self, (void)arguments, (void)call

/* ---- Methods ---- */

static tn_status make_dict_view(jinja_run *run, const jinja_value *self, int part, jinja_value *out) {
    jinja_view *view;
    tn_status status = jinja_take(run, &view, 1, sizeof *view);
    if (status != TN_OK) return status;
    *view = (jinja_view){self->dict, part};
    *out = (jinja_value){.kind = JINJA_VIEW, .view = view};
    return TN_OK;
}

NATIVE(dict_keys) { return UNUSED, make_dict_view(run, self, JINJA_KEYS, out); }
NATIVE(dict_values) { return UNUSED, make_dict_view(run, self, JINJA_VALUES, out); }
NATIVE(dict_items) { return UNUSED, make_dict_view(run, self, JINJA_ITEMS, out); }

NATIVE(dict_get) {
    jinja_value *found;
    UNUSED;
    tn_status status = jinja_dict_get(run, self->dict, arguments[0], &found);
    if (status == TN_OK)
        *out = found ? *found : arguments[1].kind == JINJA_MISSING ? JINJA_MAKE_NONE : arguments[1];
    return status;
}

static tn_status merge(jinja_run *run, jinja_dict *dict, const jinja_pair *pairs, int64_t count) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < count; i++) TN_TRY(jinja_dict_set(run, dict, pairs[i].key, pairs[i].value));
done:
    return status;
}

NATIVE(dict_copy) {
    UNUSED;
    tn_status status = jinja_make_dict(run, out);
    return status == TN_OK ? merge(run, out->dict, self->dict->pairs, self->dict->count) : status;
}

NATIVE(list_copy) {
    UNUSED;
    *out = *self; /* nothing can change it */
    return TN_OK;
}

NATIVE(list_count) {
    tn_status status = TN_OK;
    bool equal;
    UNUSED;
    *out = JINJA_MAKE_INTEGER(0);
    for (int64_t i = 0; i < self->list->count; i++) {
        TN_TRY(jinja_equal(run, &self->list->items[i], &arguments[0], &equal));
        out->integer += equal;
    }
done:
    return status;
}

NATIVE(list_index) {
    tn_status status = TN_OK;
    bool equal = false;
    UNUSED;
    for (int64_t i = 0; i < self->list->count && !equal; i++) {
        TN_TRY(jinja_equal(run, &self->list->items[i], &arguments[0], &equal));
        *out = JINJA_MAKE_INTEGER(i);
    }
    if (!equal) status = jinja_fail(run, "the value is not in the list");
done:
    return status;
}

NATIVE(float_is_integer) {
    UNUSED;
    double value = jinja_real(self);
    *out = JINJA_MAKE_BOOLEAN(value - value == 0 &&
                              (value >= 9e15 || value <= -9e15 || value == (double)(int64_t)value));
    return TN_OK;
}

NATIVE(loop_cycle) {
    UNUSED;
    if (call->count == 0) return jinja_fail(run, "no items for cycling given");
    *out = call->positional[self->loop->index0 % call->count];
    return TN_OK;
}

NATIVE(loop_changed) {
    tn_status status = TN_OK;
    jinja_value *items, now;
    bool equal = false;
    UNUSED;
    TN_TRY(jinja_take(run, &items, call->count, sizeof *items));
    if (call->count > 0) memcpy(items, call->positional, (size_t)call->count * sizeof *items);
    TN_TRY(jinja_make_list(run, JINJA_TUPLE, items, call->count, &now));
    if (self->loop->has_changed) TN_TRY(jinja_equal(run, &self->loop->changed, &now, &equal));
    self->loop->has_changed = true;
    self->loop->changed = now;
    *out = JINJA_MAKE_BOOLEAN(!equal);
done:
    return status;
}

NATIVE(cycler_next) {
    UNUSED;
    jinja_cycler *cycler = self->cycler;
    *out = cycler->list.items[cycler->next];
    cycler->next = (cycler->next + 1) % cycler->list.count;
    return TN_OK;
}

NATIVE(cycler_reset) {
    UNUSED;
    self->cycler->next = 0;
    *out = JINJA_MAKE_NONE;
    return TN_OK;
}

static const jinja_builtin *find_method(const jinja_value *self, const jinja_string *name) {
    static const jinja_builtin dict_methods[] = {{"copy", dict_copy, ""},     {"get", dict_get, "key ?default"},
                                                 {"items", dict_items, ""},   {"keys", dict_keys, ""},
                                                 {"values", dict_values, ""}, {0}};
    static const jinja_builtin list_methods[] = {
        {"copy", list_copy, ""}, {"count", list_count, "value"}, {"index", list_index, "value"}, {0}};
    static const jinja_builtin float_methods[] = {{"is_integer", float_is_integer, ""}, {0}};
    static const jinja_builtin loop_methods[] = {
        {"cycle", loop_cycle, "*"}, {"changed", loop_changed, "*"}, {0}};
    static const jinja_builtin cycler_methods[] = {{"next", cycler_next, ""}, {"reset", cycler_reset, ""}, {0}};
    switch (self->kind) {
        case JINJA_STRING: return jinja_string_method(name->data, name->length);
        case JINJA_DICT: return jinja_find(dict_methods, name->data, name->length);
        case JINJA_TUPLE: return jinja_find(list_methods + 1, name->data, name->length);
        case JINJA_LIST: return jinja_find(list_methods, name->data, name->length);
        case JINJA_FLOAT: return jinja_find(float_methods, name->data, name->length);
        case JINJA_LOOP: return jinja_find(loop_methods, name->data, name->length);
        case JINJA_CYCLER: return jinja_find(cycler_methods, name->data, name->length);
        default: return NULL;
    }
}

/* ---- Attributes ---- */

static bool is_name(const jinja_string *name, const char *text) {
    return name->length == (int64_t)strlen(text) && memcmp(name->data, text, (size_t)name->length) == 0;
}

static tn_status loop_neighbour(jinja_run *run, jinja_loop *loop, int64_t index, jinja_value *out) {
    if (index >= 0 && index < loop->list.count) {
        *out = loop->list.items[index];
        return TN_OK;
    }
    return jinja_make_undefined(run, index < 0 ? "there is no previous item" : "there is no next item", NULL,
                                NULL, out);
}

static tn_status loop_attribute(jinja_run *run, jinja_loop *loop, const jinja_string *name, jinja_value *out,
                                bool *found) {
    int64_t index0 = loop->index0;
    bool to_next = is_name(name, "last") || is_name(name, "nextitem");
    bool to_end = is_name(name, "length") || is_name(name, "revindex") || is_name(name, "revindex0");
    tn_status status = to_next || to_end ? jinja_loop_read(run, loop, to_end ? INT64_MAX : index0 + 2) : TN_OK;
    int64_t length = loop->list.count;
    *found = status == TN_OK;
    if (status != TN_OK) return status;
    if (is_name(name, "index")) *out = JINJA_MAKE_INTEGER(index0 + 1);
    else if (is_name(name, "index0")) *out = JINJA_MAKE_INTEGER(index0);
    else if (is_name(name, "first")) *out = JINJA_MAKE_BOOLEAN(index0 == 0);
    else if (is_name(name, "last")) *out = JINJA_MAKE_BOOLEAN(index0 + 1 == length);
    else if (is_name(name, "length")) *out = JINJA_MAKE_INTEGER(length);
    else if (is_name(name, "revindex")) *out = JINJA_MAKE_INTEGER(length - index0);
    else if (is_name(name, "revindex0")) *out = JINJA_MAKE_INTEGER(length - index0 - 1);
    else if (is_name(name, "depth")) *out = JINJA_MAKE_INTEGER(loop->depth0 + 1);
    else if (is_name(name, "depth0")) *out = JINJA_MAKE_INTEGER(loop->depth0);
    else if (is_name(name, "previtem")) return loop_neighbour(run, loop, index0 - 1, out);
    else if (is_name(name, "nextitem")) return loop_neighbour(run, loop, index0 + 1, out);
    else *found = false;
    return TN_OK;
}

/* What would change a list or dict, which the sandbox hides. */
static bool is_mutator(const jinja_value *object, const jinja_string *name) {
    static const char *const lists[] = {"append", "clear",  "pop",    "reverse", "insert",
                                        "sort",   "extend", "remove", NULL};
    static const char *const dicts[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    const char *const *names = object->kind == JINJA_LIST ? lists : object->kind == JINJA_DICT ? dicts : NULL;
    for (; names && *names; names++)
        if (is_name(name, *names)) return true;
    return false;
}

tn_status jinja_find_attribute(jinja_run *run, const jinja_value *object, const jinja_string *name,
                               jinja_value *out, bool *found) {
    tn_status status = TN_OK;
    *found = false;
    if (object->kind == JINJA_UNDEFINED) return jinja_fail_undefined(run, object);
    const jinja_builtin *builtin = find_method(object, name);
    if (builtin) {
        jinja_method *method;
        TN_TRY(jinja_take(run, &method, 1, sizeof *method));
        *method = (jinja_method){*object, builtin};
        *out = (jinja_value){.kind = JINJA_METHOD, .method = method};
        *found = true;
    } else if (object->kind == JINJA_LOOP) {
        TN_TRY(loop_attribute(run, object->loop, name, out, found));
    } else if (object->kind == JINJA_NAMESPACE) {
        const jinja_value *value = jinja_dict_find(object->dict, name->data, name->length);
        if (value) *out = *value;
        *found = value != NULL;
    } else if (object->kind == JINJA_CYCLER && is_name(name, "current")) {
        *out = object->cycler->list.items[object->cycler->next];
        *found = true;
    } else if (object->kind == JINJA_MACRO && is_name(name, "name") && object->macro->node->name) {
        const char *text = object->macro->node->name;
        TN_TRY(jinja_make_view(run, text, (int64_t)strlen(text), out));
        *found = true;
    } else if (is_mutator(object, name)) {
        const char *type = jinja_type_name(object);
        char *hint;
        int64_t room = name->length + 80;
        TN_TRY(jinja_take(run, &hint, room, 1));
        snprintf(hint, (size_t)room, "access to attribute '%.*s' of '%s' object is unsafe.", (int)name->length,
                 name->data, type);
        TN_TRY(jinja_make_undefined(run, hint, NULL, NULL, out));
        *found = true;
    }
done:
    return status;
}

/* Sequence element, negative indices from the end. */
static tn_status element(jinja_run *run, const jinja_value *object, int64_t index, jinja_value *out,
                         bool *found) {
    int64_t count;
    tn_status status = jinja_length(run, object, &count);
    if (status != TN_OK) return status;
    if (index < 0) index += count;
    *found = index >= 0 && index < count;
    if (!*found) return TN_OK;
    if (object->kind == JINJA_RANGE) {
        *out = JINJA_MAKE_INTEGER(object->range->start + index * object->range->step);
    } else if (object->kind == JINJA_STRING) {
        int64_t from = jinja_offset(object->string, index), to = jinja_offset(object->string, index + 1);
        TN_TRY(jinja_step(run, to / 64));
        return jinja_make_view(run, object->string->data + from, to - from, out);
    } else {
        *out = object->list->items[index];
    }
done:
    return status;
}

/* object[key] in Python's sense; *found false where Python raises TypeError or LookupError. */
static tn_status item(jinja_run *run, const jinja_value *object, const jinja_value *key, jinja_value *out,
                      bool *found) {
    *found = false;
    if (object->kind == JINJA_UNDEFINED) return jinja_fail_undefined(run, object);
    if (object->kind == JINJA_DICT && jinja_hashable(key)) {
        jinja_value *value;
        tn_status status = jinja_dict_get(run, object->dict, *key, &value);
        if (status == TN_OK && value) *out = *value;
        *found = status == TN_OK && value;
        return status;
    }
    bool sequence = object->kind == JINJA_LIST || object->kind == JINJA_TUPLE || object->kind == JINJA_STRING ||
                    object->kind == JINJA_RANGE;
    return sequence && jinja_is_integer(key) ? element(run, object, jinja_integer(key), out, found) : TN_OK;
}

tn_status jinja_get_attribute(jinja_run *run, const jinja_value *object, const jinja_value *name,
                              jinja_value *out) {
    tn_status status = TN_OK;
    bool found;
    TN_TRY(jinja_find_attribute(run, object, name->string, out, &found));
    if (!found) TN_TRY(item(run, object, name, out, &found));
    if (!found) TN_TRY(jinja_make_undefined(run, NULL, object, name, out));
done:
    return status;
}

tn_status jinja_get_item(jinja_run *run, const jinja_value *object, const jinja_value *key, jinja_value *out) {
    tn_status status = TN_OK;
    bool found;
    TN_TRY(item(run, object, key, out, &found));
    if (!found && key->kind == JINJA_STRING)
        TN_TRY(jinja_find_attribute(run, object, key->string, out, &found));
    if (!found) TN_TRY(jinja_make_undefined(run, NULL, object, key, out));
done:
    return status;
}

/* ---- Slices ---- */

/* Python's slice.indices: start, step and the number of elements. */
static tn_status slice_indices(jinja_run *run, const jinja_value bounds[3], int64_t length, int64_t *start,
                               int64_t *step, int64_t *count) {
    tn_status status = TN_OK;
    int64_t stop;
    TN_TRY(jinja_argument_integer(run, &bounds[2], 1, step));
    if (*step == 0) return jinja_fail(run, "slice step cannot be zero");
    if (*step < -length - 1) *step = -length - 1; /* as good, and safe to negate */
    int64_t lowest = *step < 0 ? -1 : 0, highest = *step < 0 ? length - 1 : length;
    TN_TRY(jinja_argument_integer(run, &bounds[0], *step < 0 ? highest : lowest, start));
    TN_TRY(jinja_argument_integer(run, &bounds[1], 0, &stop));
    int64_t *ends[2] = {start, &stop};
    for (int i = 0; i < 2; i++) {
        if (bounds[i].kind == JINJA_NONE) {
            *ends[i] = (i == 0) == (*step < 0) ? highest : lowest;
            continue;
        }
        if (*ends[i] < 0) *ends[i] = *ends[i] < -length ? lowest : *ends[i] + length;
        if (*ends[i] > highest) *ends[i] = highest;
    }
    int64_t distance = *step > 0 ? stop - *start : *start - stop, stride = *step > 0 ? *step : -*step;
    TN_KNOWN(stride > 0);
    *count = distance <= 0 ? 0 : (distance - 1) / stride + 1;
done:
    return status;
}

static tn_status slice_string(jinja_run *run, jinja_string *string, int64_t start, int64_t step, int64_t count,
                              jinja_value *out) {
    if (count == 0) return jinja_make_view(run, "", 0, out);
    if (step == 1) { /* shares the bytes */
        int64_t from = jinja_offset(string, start), to = jinja_offset(string, start + count);
        return jinja_make_view(run, string->data + from, to - from, out);
    }
    tn_str text = {0};
    int64_t at = jinja_offset(string, start);
    for (int64_t i = 0; i < count; i++) {
        int64_t end = at + 1, steps = step < 0 ? -step : step;
        while (end < string->length && (string->data[end] & 0xC0) == 0x80) end++;
        jinja_put(&text, string->data + at, end - at);
        for (; i + 1 < count && steps > 0; steps--) {
            do at += step < 0 ? -1 : 1;
            while ((string->data[at] & 0xC0) == 0x80);
        }
    }
    return jinja_make_from(run, &text, out);
}

static tn_status slice_list(jinja_run *run, const jinja_value *object, int64_t start, int64_t step,
                            int64_t count, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value *items;
    if (step == 1 || count == 0) /* shares the items */
        return jinja_make_list(run, object->kind, count > 0 ? object->list->items + start : NULL, count, out);
    TN_TRY(jinja_step(run, count));
    TN_TRY(jinja_take(run, &items, count, sizeof *items));
    for (int64_t i = 0; i < count; i++) items[i] = object->list->items[start + i * step];
    TN_TRY(jinja_make_list(run, object->kind, items, count, out));
done:
    return status;
}

static tn_status make_range(jinja_run *run, int64_t start, int64_t stop, int64_t step, int64_t count,
                            jinja_value *out) {
    jinja_range *range;
    tn_status status = jinja_take(run, &range, 1, sizeof *range);
    if (status != TN_OK) return status;
    *range = (jinja_range){start, stop, step, count};
    *out = (jinja_value){.kind = JINJA_RANGE, .range = range};
    return TN_OK;
}

tn_status jinja_get_slice(jinja_run *run, const jinja_value *object, const jinja_value bounds[3],
                          jinja_value *out) {
    tn_status status = TN_OK;
    int64_t length = 0, start = 0, step = 1, count = 0;
    if (object->kind == JINJA_UNDEFINED) return jinja_fail_undefined(run, object);
    bool sequence = object->kind == JINJA_LIST || object->kind == JINJA_TUPLE || object->kind == JINJA_STRING ||
                    object->kind == JINJA_RANGE;
    if (!sequence) return jinja_fail(run, "'%s' object cannot be sliced", jinja_type_name(object));
    TN_TRY(jinja_length(run, object, &length));
    TN_TRY(slice_indices(run, bounds, length, &start, &step, &count));
    if (object->kind == JINJA_STRING) {
        TN_TRY(jinja_step(run, object->string->length / 64));
        TN_TRY(slice_string(run, object->string, start, step, count, out));
    } else if (object->kind == JINJA_RANGE) {
        const jinja_range *range = object->range;
        int64_t first = count > 0 ? range->start + start * range->step : 0,
                stride = count > 1 ? range->step * step : 1;
        int64_t last = first + (count > 0 ? count - 1 : 0) * stride, stop = last;
        if (count > 0 && __builtin_add_overflow(last, stride, &stop))
            stop = last; /* only its text would tell */
        TN_TRY(make_range(run, first, stop, stride, count, out));
    } else {
        TN_TRY(slice_list(run, object, start, step, count, out));
    }
done:
    return status;
}

/* ---- Global functions ---- */

NATIVE(global_range) {
    tn_status status = TN_OK;
    int64_t numbers[3] = {0, 0, 1}, count = 0, distance;
    UNUSED;
    if (call->count < 1 || call->count > 3 || call->keyword_count > 0)
        return jinja_fail(run, "range expected 1 to 3 arguments, got %lld", (long long)call->count);
    for (int64_t i = 0; i < call->count; i++) {
        if (call->positional[i].kind == JINJA_UNDEFINED) return jinja_fail_undefined(run, &call->positional[i]);
        if (!jinja_is_integer(&call->positional[i]))
            return jinja_fail(run, "'%s' object cannot be interpreted as an integer",
                              jinja_type_name(&call->positional[i]));
        numbers[call->count == 1 ? 1 : i] = jinja_integer(&call->positional[i]);
    }
    if (numbers[2] == 0) return jinja_fail(run, "range() arg 3 must not be zero");
    bool up = numbers[2] > 0, overflow = __builtin_sub_overflow(numbers[up], numbers[!up], &distance);
    if (overflow || numbers[2] == INT64_MIN) return jinja_fail(run, "Range too big.");
    if (distance > 0) count = (distance - 1) / (up ? numbers[2] : -numbers[2]) + 1;
    if (count > JINJA_MAX_RANGE)
        return jinja_fail(run, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                          JINJA_MAX_RANGE);
    status = make_range(run, numbers[0], numbers[1], numbers[2], count, out);
    return status;
}

/* dict(mapping or pairs, name=value, …) */
NATIVE(global_dict) {
    tn_status status = TN_OK;
    jinja_list items, pair;
    UNUSED;
    TN_TRY(jinja_make_dict(run, out));
    if (call->count > 1)
        return jinja_fail(run, "dict expected at most 1 argument, got %lld", (long long)call->count);
    if (call->count == 1 && (call->positional[0].kind == JINJA_DICT)) {
        TN_TRY(merge(run, out->dict, call->positional[0].dict->pairs, call->positional[0].dict->count));
    } else if (call->count == 1) {
        if (call->positional[0].kind == JINJA_UNDEFINED) return jinja_fail_undefined(run, &call->positional[0]);
        TN_TRY(jinja_iterate(run, &call->positional[0], &items));
        for (int64_t i = 0; i < items.count; i++) {
            TN_TRY(jinja_iterate(run, &items.items[i], &pair));
            if (pair.count != 2) return jinja_fail(run, "dictionary update sequence needs pairs");
            TN_TRY(jinja_dict_set(run, out->dict, pair.items[0], pair.items[1]));
        }
    }
    TN_TRY(merge(run, out->dict, call->keywords, call->keyword_count));
done:
    return status;
}

NATIVE(global_namespace) {
    tn_status status = global_dict(run, self, arguments, call, out);
    if (status != TN_OK) return status;
    out->kind = JINJA_NAMESPACE;
    for (int64_t i = 0; i < out->dict->count; i++) {
        const jinja_value *key = &out->dict->pairs[i].key;
        if (key->kind == JINJA_STRING && key->string->length > 0 && key->string->data[0] == '_')
            return jinja_fail(run, "a namespace cannot hold an attribute with a leading underscore");
    }
    return TN_OK;
}

NATIVE(global_raise_exception) {
    tn_str message = {0};
    UNUSED;
    (void)out;
    tn_status status = jinja_str(run, &arguments[0], &message);
    if (status == TN_OK) {
        run->rejected = true;
        status = tn_fail(TN_BAD_DATA, "%s", tn_str_text(&message));
    }
    tn_str_free(&message);
    return status;
}

NATIVE(global_strftime_now) {
    tn_status status = TN_OK;
    const jinja_string *format;
    char text[1024], copy[256];
    struct tm now;
    time_t seconds = time(NULL);
    UNUSED;
    TN_TRY(jinja_argument_text(run, &arguments[0], "strftime_now", &format));
    if (format->length >= (int64_t)sizeof copy) return jinja_fail(run, "too long a date format");
    memcpy(copy, format->data, (size_t)format->length);
    copy[format->length] = '\0';
    if (run->now) now = *run->now;
    else if (!localtime_r(&seconds, &now)) return jinja_fail(run, "the time of day is not to be had");
    size_t length = strftime(text, sizeof text, copy, &now);
    TN_TRY(jinja_make_text(run, text, (int64_t)length, out));
done:
    return status;
}

NATIVE(global_cycler) {
    tn_status status = TN_OK;
    jinja_cycler *cycler;
    jinja_value *items;
    UNUSED;
    if (call->count == 0) return jinja_fail(run, "at least one item has to be provided");
    TN_TRY(jinja_take(run, &cycler, 1, sizeof *cycler));
    TN_TRY(jinja_take(run, &items, call->count, sizeof *items));
    memcpy(items, call->positional, (size_t)call->count * sizeof *items);
    cycler->list = (jinja_list){items, call->count};
    *out = (jinja_value){.kind = JINJA_CYCLER, .cycler = cycler};
done:
    return status;
}

NATIVE(global_joiner) {
    tn_status status = TN_OK;
    jinja_joiner *joiner;
    UNUSED;
    TN_TRY(jinja_take(run, &joiner, 1, sizeof *joiner));
    if (arguments[0].kind == JINJA_MISSING) TN_TRY(jinja_make_view(run, ", ", 2, &joiner->separator));
    else joiner->separator = arguments[0];
    *out = (jinja_value){.kind = JINJA_JOINER, .joiner = joiner};
done:
    return status;
}

const jinja_builtin *jinja_global(const char *name) {
    static const jinja_builtin globals[] = {
        {"cycler", global_cycler, "*"},
        {"dict", global_dict, "*"},
        {"joiner", global_joiner, "?sep"},
        {"namespace", global_namespace, "*"},
        {"raise_exception", global_raise_exception, "message"},
        {"range", global_range, "*"},
        {"strftime_now", global_strftime_now, "format"},
        {0},
    };
    return jinja_find(globals, name, (int64_t)strlen(name));
}
