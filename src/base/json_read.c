/* json_read.c: reading values out of a finished tree. A missing node reads as absent, so that a chain of
 * look-ups needs one check at its end. */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "base/number.h"

static const tn_json *member(const tn_json *object, const char *key, int64_t length) {
    if (!object || object->type != TN_JSON_OBJECT) return NULL;
    for (int64_t i = object->count - 1; i >= 0; i--) {
        const tn_member *m = &object->members[i];
        if (m->key_length == length && memcmp(m->key, key, (size_t)length) == 0) return &m->value;
    }
    return NULL;
}

const tn_json *tn_json_get(const tn_json *object, const char *key) {
    return member(object, key, (int64_t)strlen(key));
}

const tn_json *tn_json_at(const tn_json *array, int64_t index) {
    if (!array || array->type != TN_JSON_ARRAY || index < 0 || index >= array->count) return NULL;
    return &array->items[index];
}

bool tn_json_is_null(const tn_json *node) { return !node || node->type == TN_JSON_NULL; }

bool tn_json_is_string(const tn_json *node, const char *text) {
    return node && node->type == TN_JSON_STRING && node->count == (int64_t)strlen(text) &&
           memcmp(node->string, text, (size_t)node->count) == 0;
}

const char *tn_json_string(const tn_json *node, const char *otherwise) {
    return node && node->type == TN_JSON_STRING ? node->string : otherwise;
}

double tn_json_number(const tn_json *node, double otherwise) {
    double real;
    if (!node) return otherwise;
    if (node->type == TN_JSON_INTEGER) return (double)node->integer;
    if (node->type == TN_JSON_REAL) return node->real;
    return node->type == TN_JSON_BIG && tn_parse_real(node->string, node->count, &real) ? real : otherwise;
}

int64_t tn_json_integer(const tn_json *node, int64_t otherwise) {
    const double limit = 9223372036854775808.0; /* 2^63 */
    if (!node) return otherwise;
    if (node->type == TN_JSON_INTEGER) return node->integer;
    if (node->type != TN_JSON_REAL || !(node->real >= -limit && node->real < limit)) return otherwise;
    return node->real == trunc(node->real) ? (int64_t)node->real : otherwise;
}

bool tn_json_boolean(const tn_json *node, bool otherwise) {
    return node && node->type == TN_JSON_BOOLEAN ? node->boolean : otherwise;
}

const tn_json *tn_json_path(const tn_json *root, const char *path) {
    const tn_json *node = root;
    for (const char *at = path; node && *at;) {
        if (*at == '[') {
            size_t digits = strspn(at + 1, "0123456789");
            int64_t index;
            if (at[1 + digits] != ']' || !tn_parse_integer(at + 1, (int64_t)digits, &index)) return NULL;
            node = tn_json_at(node, index);
            at += digits + 2;
        } else {
            size_t length = strcspn(at, ".[");
            node = member(node, at, (int64_t)length);
            at += length;
        }
        if (*at == '.') {
            if (at[1] == '\0') return NULL;
            at++;
        } else if (*at && *at != '[') {
            return NULL;
        }
    }
    return node;
}

const char *tn_json_type_name(const tn_json *node) {
    static const char *const names[] = {"null",       "a boolean", "an integer", "a number",
                                        "an integer", "a string",  "an array",   "an object"};
    return node ? names[node->type] : "absent";
}
