/* jinja_value.c: making values, dicts, and Python's truth, length and iteration. */
#include "text/jinja_value.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "text/jinja_run.h"

/* ---- Making values ---- */

tn_status jinja_make_view(jinja_run *run, const char *data, int64_t length, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_string *string;
    TN_TRY(jinja_take(run, &string, 1, sizeof *string));
    *string = (jinja_string){data, length, -1};
    *out = (jinja_value){.kind = JINJA_STRING, .string = string};
done:
    return status;
}

tn_status jinja_make_text(jinja_run *run, const char *data, int64_t length, jinja_value *out) {
    tn_status status = TN_OK;
    char *copy;
    TN_TRY(jinja_take(run, &copy, length, 1));
    if (length > 0) memcpy(copy, data, (size_t)length);
    TN_TRY(jinja_make_view(run, copy, length, out));
done:
    return status;
}

tn_status jinja_make_from(jinja_run *run, tn_str *text, jinja_value *out) {
    tn_status status = text->failed ? jinja_fail(run, "a text longer than %d MiB", JINJA_MAX_TEXT >> 20)
                                    : jinja_make_text(run, text->data, text->length, out);
    tn_str_free(text);
    return status;
}

tn_status jinja_make_list(jinja_run *run, jinja_kind kind, const jinja_value *items, int64_t count,
                          jinja_value *out) {
    tn_status status = TN_OK;
    jinja_list *list;
    TN_TRY(jinja_take(run, &list, 1, sizeof *list));
    *list = (jinja_list){items, count};
    *out = (jinja_value){.kind = kind, .list = list};
done:
    return status;
}

tn_status jinja_make_iterator(jinja_run *run, jinja_list list, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_iterator *iterator;
    TN_TRY(jinja_take(run, &iterator, 1, sizeof *iterator));
    iterator->list = list;
    *out = (jinja_value){.kind = JINJA_ITERATOR, .iterator = iterator};
done:
    return status;
}

/* How Jinja's messages name an object: "dict object", but "None". */
static const char *owner_name(const jinja_value *owner, char name[64]) {
    if (owner->kind == JINJA_NONE) return "None";
    const char *type = jinja_type_name(owner);
    size_t n = strlen(type);
    memcpy(name, type, n);
    memcpy(name + n, " object", 8);
    return name;
}

tn_status jinja_make_undefined(jinja_run *run, const char *hint, const jinja_value *owner,
                               const jinja_value *name, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_undefined *undefined;
    char buffer[64];
    TN_TRY(jinja_take(run, &undefined, 1, sizeof *undefined));
    undefined->hint = hint;
    if (owner) {
        const char *text = owner_name(owner, buffer);
        char *copy;
        TN_TRY(jinja_take(run, &copy, (int64_t)strlen(text) + 1, 1));
        memcpy(copy, text, strlen(text));
        undefined->owner = copy;
    }
    if (name) {
        jinja_value *copy;
        TN_TRY(jinja_take(run, &copy, 1, sizeof *copy));
        *copy = *name;
        undefined->name = copy;
    }
    *out = (jinja_value){.kind = JINJA_UNDEFINED, .undefined = undefined};
done:
    return status;
}

tn_status jinja_make_dict(jinja_run *run, jinja_value *out) {
    jinja_dict *dict;
    tn_status status = jinja_take(run, &dict, 1, sizeof *dict);
    if (status == TN_OK) *out = (jinja_value){.kind = JINJA_DICT, .dict = dict};
    return status;
}

static tn_status json_dict(jinja_run *run, const tn_json *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_value key, value;
    TN_TRY(jinja_make_dict(run, out));
    for (int64_t i = 0; i < node->count; i++) {
        TN_TRY(jinja_make_view(run, node->members[i].key, node->members[i].key_length, &key));
        TN_TRY(jinja_make_json(run, &node->members[i].value, &value));
        TN_TRY(jinja_dict_set(run, out->dict, key, value));
    }
done:
    return status;
}

/* Recursion is bounded by the JSON reader's own bound on nesting. */
tn_status jinja_make_json(jinja_run *run, const tn_json *node, jinja_value *out) {
    tn_status status = TN_OK;
    jinja_builder list = {0};
    jinja_value item;
    switch (node->type) {
        case TN_JSON_NULL: *out = JINJA_MAKE_NONE; break;
        case TN_JSON_BOOLEAN: *out = JINJA_MAKE_BOOLEAN(node->boolean); break;
        case TN_JSON_INTEGER: *out = JINJA_MAKE_INTEGER(node->integer); break;
        case TN_JSON_REAL: *out = JINJA_MAKE_FLOAT(node->real); break;
        case TN_JSON_OBJECT: TN_TRY(json_dict(run, node, out)); break;
        case TN_JSON_BIG:
        case TN_JSON_STRING:
            TN_TRY(jinja_make_view(run, node->string, node->count, out));
            if (node->type == TN_JSON_BIG) out->kind = JINJA_BIG;
            break;
        case TN_JSON_ARRAY:
            for (int64_t i = 0; i < node->count; i++) {
                TN_TRY(jinja_make_json(run, &node->items[i], &item));
                TN_TRY(jinja_push(run, &list, item));
            }
            TN_TRY(jinja_make_list(run, JINJA_LIST, list.items, list.count, out));
    }
done:
    return status;
}

tn_status jinja_push(jinja_run *run, jinja_builder *builder, jinja_value value) {
    tn_status status = jinja_step(run, 1);
    if (status != TN_OK) return status;
    if (builder->count == builder->capacity) {
        int64_t capacity = builder->capacity ? builder->capacity * 2 : 8;
        jinja_value *items;
        TN_TRY(jinja_take(run, &items, capacity, sizeof *items));
        if (builder->count > 0) memcpy(items, builder->items, (size_t)builder->count * sizeof *items);
        builder->items = items, builder->capacity = capacity;
    }
    builder->items[builder->count++] = value;
done:
    return status;
}

/* ---- Dicts: insertion order, with a hash table over the pairs once there are more than a few ---- */

enum { LINEAR_DICT = 8 };

bool jinja_hashable(const jinja_value *key) {
    if (key->kind == JINJA_TUPLE) {
        for (int64_t i = 0; i < key->list->count;
             i++) /* a tuple in a tuple is no key, which bounds the depth */
            if (key->list->items[i].kind == JINJA_TUPLE || !jinja_hashable(&key->list->items[i])) return false;
        return true;
    }
    return key->kind <= JINJA_STRING || key->kind > JINJA_VIEW;
}

/* Equal keys hash alike, whatever their types: 1, 1.0 and True are one key. */
static uint64_t hash_key(const jinja_value *key) {
    if (key->kind == JINJA_STRING) return tn_hash64(key->string->data, key->string->length);
    double real = jinja_is_number(key) ? jinja_real(key) : 0; /* beyond 2^53 neighbours share a hash, no more */
    if (real == 0) real = 0;                                  /* -0.0 too */
    return jinja_is_number(key) ? tn_hash64(&real, sizeof real) : (uint64_t)key->kind;
}

static tn_status same_key(jinja_run *run, const jinja_value *a, const jinja_value *b, bool *same) {
    *same = false;
    if (a->kind == JINJA_STRING && b->kind == JINJA_STRING) {
        *same = a->string->length == b->string->length &&
                memcmp(a->string->data, b->string->data, (size_t)a->string->length) == 0;
        return TN_OK;
    }
    return jinja_equal(run, a, b, same);
}

tn_status jinja_dict_get(jinja_run *run, const jinja_dict *dict, jinja_value key, jinja_value **found) {
    tn_status status = TN_OK;
    bool same;
    *found = NULL;
    if (!jinja_hashable(&key)) return jinja_fail(run, "unhashable type: '%s'", jinja_type_name(&key));
    TN_TRY(jinja_step(run, 1));
    if (!dict->slots) {
        for (int64_t i = 0; i < dict->count && !*found; i++) {
            TN_TRY(same_key(run, &dict->pairs[i].key, &key, &same));
            if (same) *found = &dict->pairs[i].value;
        }
        goto done;
    }
    int64_t mask = dict->slot_count - 1;
    for (int64_t at = (int64_t)(hash_key(&key) & (uint64_t)mask); dict->slots[at] >= 0; at = (at + 1) & mask) {
        TN_TRY(jinja_step(run, 1));
        TN_TRY(same_key(run, &dict->pairs[dict->slots[at]].key, &key, &same));
        if (same) {
            *found = &dict->pairs[dict->slots[at]].value;
            goto done;
        }
    }
done:
    return status;
}

jinja_value *jinja_dict_find(const jinja_dict *dict, const char *key, int64_t length) {
    int64_t mask = dict->slot_count - 1;
    int64_t at = dict->slots ? (int64_t)(tn_hash64(key, length) & (uint64_t)mask) : 0;
    for (;; at = dict->slots ? (at + 1) & mask : at + 1) {
        if (dict->slots ? dict->slots[at] < 0 : at == dict->count) return NULL;
        jinja_pair *pair = &dict->pairs[dict->slots ? dict->slots[at] : at];
        if (pair->key.kind == JINJA_STRING && pair->key.string->length == length &&
            memcmp(pair->key.string->data, key, (size_t)length) == 0)
            return &pair->value;
    }
}

static void add_slot(jinja_dict *dict, int64_t pair) {
    int64_t mask = dict->slot_count - 1, at = (int64_t)(hash_key(&dict->pairs[pair].key) & (uint64_t)mask);
    while (dict->slots[at] >= 0) at = (at + 1) & mask;
    dict->slots[at] = (int32_t)pair;
}

static tn_status grow_dict(jinja_run *run, jinja_dict *dict) {
    tn_status status = TN_OK;
    jinja_pair *pairs;
    int64_t capacity = dict->capacity ? dict->capacity * 2 : 4;
    TN_TRY(jinja_take(run, &pairs, capacity, sizeof *pairs));
    if (dict->count > 0) memcpy(pairs, dict->pairs, (size_t)dict->count * sizeof *pairs);
    dict->pairs = pairs, dict->capacity = capacity;
    if (capacity <= LINEAR_DICT) goto done;
    dict->slot_count = capacity * 2; /* a power of two, at most half full */
    TN_TRY(jinja_take(run, &dict->slots, dict->slot_count, sizeof *dict->slots));
    for (int64_t i = 0; i < dict->slot_count; i++) dict->slots[i] = -1;
    for (int64_t i = 0; i < dict->count; i++) add_slot(dict, i);
done:
    return status;
}

tn_status jinja_dict_set(jinja_run *run, jinja_dict *dict, jinja_value key, jinja_value value) {
    tn_status status = TN_OK;
    jinja_value *found;
    TN_TRY(jinja_dict_get(run, dict, key, &found));
    if (found) {
        *found = value;
        goto done;
    }
    if (dict->count == dict->capacity) TN_TRY(grow_dict(run, dict));
    TN_KNOWN(dict->pairs);
    dict->pairs[dict->count++] = (jinja_pair){key, value};
    if (dict->slots) add_slot(dict, dict->count - 1);
done:
    return status;
}

/* ---- Python's types, truth, length, iteration ---- */

const char *jinja_type_name(const jinja_value *value) {
    static const char *const names[] = {
        [JINJA_MISSING] = "missing",
        [JINJA_UNDEFINED] = "Undefined",
        [JINJA_NONE] = "NoneType",
        [JINJA_BOOLEAN] = "bool",
        [JINJA_INTEGER] = "int",
        [JINJA_BIG] = "int",
        [JINJA_FLOAT] = "float",
        [JINJA_STRING] = "str",
        [JINJA_LIST] = "list",
        [JINJA_TUPLE] = "tuple",
        [JINJA_DICT] = "dict",
        [JINJA_VIEW] = "dict_items",
        [JINJA_RANGE] = "range",
        [JINJA_ITERATOR] = "generator",
        [JINJA_NAMESPACE] = "Namespace",
        [JINJA_LOOP] = "LoopContext",
        [JINJA_CYCLER] = "Cycler",
        [JINJA_JOINER] = "Joiner",
        [JINJA_MACRO] = "Macro",
        [JINJA_FUNCTION] = "function",
        [JINJA_METHOD] = "builtin_function_or_method",
    };
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    return value->kind == JINJA_VIEW ? views[value->view->part] : names[value->kind];
}

bool jinja_is_text(const jinja_value *value, const char *text) {
    return value->kind == JINJA_STRING && value->string->length == (int64_t)strlen(text) &&
           memcmp(value->string->data, text, strlen(text)) == 0;
}

bool jinja_is_integer(const jinja_value *value) {
    return value->kind == JINJA_INTEGER || value->kind == JINJA_BOOLEAN;
}

int64_t jinja_integer(const jinja_value *value) {
    return value->kind == JINJA_BOOLEAN ? value->boolean : value->integer;
}

bool jinja_is_number(const jinja_value *value) { return jinja_is_integer(value) || value->kind == JINJA_FLOAT; }

double jinja_real(const jinja_value *value) {
    return value->kind == JINJA_FLOAT ? value->real : (double)jinja_integer(value);
}

bool jinja_truth(const jinja_value *value) {
    switch (value->kind) {
        case JINJA_MISSING:
        case JINJA_UNDEFINED:
        case JINJA_NONE: return false;
        case JINJA_BOOLEAN: return value->boolean;
        case JINJA_INTEGER: return value->integer != 0;
        case JINJA_FLOAT: return value->real != 0;
        case JINJA_STRING: return value->string->length > 0;
        case JINJA_LIST:
        case JINJA_TUPLE: return value->list->count > 0;
        case JINJA_DICT: return value->dict->count > 0;
        case JINJA_VIEW: return value->view->dict->count > 0;
        case JINJA_RANGE: return value->range->count > 0;
        default: return true;
    }
}

int64_t jinja_points(jinja_string *string) {
    if (string->points >= 0) return string->points;
    int64_t points = 0;
    for (int64_t i = 0; i < string->length; i++) points += (string->data[i] & 0xC0) != 0x80;
    return string->points = points;
}

int64_t jinja_offset(jinja_string *string, int64_t index) {
    if (jinja_points(string) == string->length) return index;
    if (index == string->points) return string->length;
    int64_t at = 0;
    for (; index > 0; index--)
        for (at++; (string->data[at] & 0xC0) == 0x80;) at++;
    return at;
}

tn_status jinja_length(jinja_run *run, const jinja_value *value, int64_t *length) {
    switch (value->kind) {
        case JINJA_UNDEFINED: *length = 0; return TN_OK;
        case JINJA_STRING:
            *length = jinja_points(value->string);
            return jinja_step(run, value->string->length / 64);
        case JINJA_LIST:
        case JINJA_TUPLE: *length = value->list->count; return TN_OK;
        case JINJA_DICT: *length = value->dict->count; return TN_OK;
        case JINJA_VIEW: *length = value->view->dict->count; return TN_OK;
        case JINJA_RANGE: *length = value->range->count; return TN_OK;
        case JINJA_LOOP: *length = value->loop->list.count; return TN_OK;
        default: return jinja_fail(run, "object of type '%s' has no len()", jinja_type_name(value));
    }
}

static tn_status characters(jinja_run *run, const jinja_string *string, jinja_builder *list) {
    tn_status status = TN_OK;
    for (int64_t at = 0, end; at < string->length; at = end) {
        jinja_value character;
        for (end = at + 1; end < string->length && (string->data[end] & 0xC0) == 0x80;) end++;
        TN_TRY(jinja_make_view(run, string->data + at, end - at, &character));
        TN_TRY(jinja_push(run, list, character));
    }
done:
    return status;
}

static tn_status view_items(jinja_run *run, const jinja_dict *dict, int part, jinja_builder *list) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < dict->count; i++) {
        jinja_value item = part == JINJA_KEYS ? dict->pairs[i].key : dict->pairs[i].value;
        if (part == JINJA_ITEMS) {
            jinja_value *two;
            TN_TRY(jinja_take(run, &two, 2, sizeof *two));
            two[0] = dict->pairs[i].key, two[1] = dict->pairs[i].value;
            TN_TRY(jinja_make_list(run, JINJA_TUPLE, two, 2, &item));
        }
        TN_TRY(jinja_push(run, list, item));
    }
done:
    return status;
}

tn_status jinja_iterate(jinja_run *run, const jinja_value *value, jinja_list *items) {
    tn_status status = TN_OK;
    jinja_builder list = {0};
    switch (value->kind) {
        case JINJA_UNDEFINED: break;
        case JINJA_LIST:
        case JINJA_TUPLE: *items = *value->list; return TN_OK;
        case JINJA_STRING: TN_TRY(characters(run, value->string, &list)); break;
        case JINJA_DICT: TN_TRY(view_items(run, value->dict, JINJA_KEYS, &list)); break;
        case JINJA_VIEW: TN_TRY(view_items(run, value->view->dict, value->view->part, &list)); break;
        case JINJA_RANGE:
            for (int64_t i = 0; i < value->range->count; i++)
                TN_TRY(
                    jinja_push(run, &list, JINJA_MAKE_INTEGER(value->range->start + i * value->range->step)));
            break;
        case JINJA_ITERATOR: {
            jinja_iterator *iterator = value->iterator;
            int64_t left = iterator->list.count - iterator->next;
            *items = (jinja_list){left > 0 ? iterator->list.items + iterator->next : NULL, left};
            iterator->next = iterator->list.count;
            return TN_OK;
        }
        default: return jinja_fail(run, "'%s' object is not iterable", jinja_type_name(value));
    }
    *items = (jinja_list){list.items, list.count};
done:
    return status;
}
