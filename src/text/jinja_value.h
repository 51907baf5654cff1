/* jinja_value.h: the values a chat template computes with, and Python's rules for them (truth, equality,
 * order, length, arithmetic, text forms).
 *
 * Values are small and copied freely; what they point to lives in the arena of one rendering, or in
 * the JSON tree of its variables, and is never freed singly. Everything but namespaces, cyclers, joiners
 * and the read position of an iterator is immutable, as in transformers' immutable sandbox. All work on
 * values is charged to the rendering (jinja_run), which bounds steps, memory, depth and text length.
 */
#ifndef TN_TEXT_JINJA_VALUE_H
#define TN_TEXT_JINJA_VALUE_H

#include "base/json.h"

typedef struct jinja_run jinja_run;
typedef struct jinja_value jinja_value;

typedef enum jinja_kind {
    JINJA_MISSING, /* an argument that was not given; never seen by a template */
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOLEAN,
    JINJA_INTEGER,
    JINJA_BIG, /* an integer beyond 64 bits, as its digits: printed and compared for equality, no arithmetic */
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_VIEW, /* dict.keys(), .values(), .items() */
    JINJA_RANGE,
    JINJA_ITERATOR, /* what map, select, items, reverse, … give: read once */
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_CYCLER,
    JINJA_JOINER,
    JINJA_MACRO,
    JINJA_FUNCTION, /* a global function */
    JINJA_METHOD,   /* a method bound to its value */
} jinja_kind;

typedef struct jinja_string {
    const char *data; /* valid UTF-8, not necessarily terminated */
    int64_t length;   /* bytes */
    int64_t points;   /* code points, -1 until counted */
} jinja_string;

typedef struct jinja_list {
    const jinja_value *items;
    int64_t count;
} jinja_list;

typedef struct jinja_undefined {
    const char *hint;        /* the whole message, or NULL */
    const char *owner;       /* Python's name for what lacks the attribute; NULL for a variable */
    const jinja_value *name; /* of the variable, attribute or element */
} jinja_undefined;

typedef struct jinja_dict jinja_dict;
typedef struct jinja_view jinja_view;
typedef struct jinja_range jinja_range;
typedef struct jinja_iterator jinja_iterator;
typedef struct jinja_loop jinja_loop;
typedef struct jinja_cycler jinja_cycler;
typedef struct jinja_joiner jinja_joiner;
typedef struct jinja_macro jinja_macro;
typedef struct jinja_method jinja_method;
typedef struct jinja_builtin jinja_builtin;

struct jinja_value {
    jinja_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double real;
        jinja_string *string; /* also BIG's digits */
        const jinja_list *list;
        jinja_dict *dict; /* also a namespace's attributes */
        const jinja_undefined *undefined;
        const jinja_view *view;
        const jinja_range *range;
        jinja_iterator *iterator;
        jinja_loop *loop;
        jinja_cycler *cycler;
        jinja_joiner *joiner;
        const jinja_macro *macro;
        const jinja_builtin *function;
        const jinja_method *method;
    };
};

typedef struct jinja_pair {
    jinja_value key, value;
} jinja_pair;

struct jinja_dict {
    jinja_pair *pairs; /* in order of insertion */
    int64_t count, capacity;
    int32_t *slots; /* open addressing over pairs, -1 = free; NULL while the dict is small */
    int64_t slot_count;
};

enum { JINJA_KEYS, JINJA_VALUES, JINJA_ITEMS };
struct jinja_view {
    jinja_dict *dict;
    int part;
};
struct jinja_range {
    int64_t start, stop, step, count;
};
struct jinja_iterator {
    jinja_list list;
    int64_t next;
};
struct jinja_cycler {
    jinja_list list;
    int64_t next;
};
struct jinja_joiner {
    jinja_value separator;
    bool used;
};
struct jinja_loop {
    jinja_list list;   /* the items read so far: all of them, but for a loop with a test */
    jinja_list source; /* what the test still has to be asked about, from source_next on */
    int64_t source_next;
    int64_t index0, depth0;
    const void *node;    /* the loop's own */
    void *scope;         /* the scope around it */
    bool has_changed;    /* loop.changed() was called … */
    jinja_value changed; /* … with these values */
};
struct jinja_method {
    jinja_value self;
    const jinja_builtin *builtin;
};

/* Arguments of a call as the template gave them. */
typedef struct jinja_call {
    const jinja_value *positional;
    int64_t count;
    const jinja_pair *keywords;
    int64_t keyword_count;
} jinja_call;

/* A filter, test, method or function of ours. `parameters` names the arguments ("old new ?count", ? =
 * optional); they arrive bound in `arguments`, MISSING where not given. "*" leaves the call as it is. */
enum { JINJA_MAX_PARAMETERS = 6 };
typedef tn_status jinja_native(jinja_run *run, const jinja_value *self, const jinja_value *arguments,
                               const jinja_call *call, jinja_value *out);
struct jinja_builtin {
    const char *name;
    jinja_native *native;
    const char *parameters;
};

#define JINJA_MAKE_NONE ((jinja_value){.kind = JINJA_NONE})
#define JINJA_MAKE_BOOLEAN(x) ((jinja_value){.kind = JINJA_BOOLEAN, .boolean = (x)})
#define JINJA_MAKE_INTEGER(x) ((jinja_value){.kind = JINJA_INTEGER, .integer = (x)})
#define JINJA_MAKE_FLOAT(x) ((jinja_value){.kind = JINJA_FLOAT, .real = (x)})

/* ---- Making values ---- */
tn_status jinja_make_text(jinja_run *run, const char *data, int64_t length, jinja_value *out); /* copies */
/* Without a copy: `data` must outlive the rendering. */
tn_status jinja_make_view(jinja_run *run, const char *data, int64_t length, jinja_value *out);
/* Copies a finished text and frees it; an overlong one is an error. */
tn_status jinja_make_from(jinja_run *run, tn_str *text, jinja_value *out);
tn_status jinja_make_list(jinja_run *run, jinja_kind kind, const jinja_value *items, int64_t count,
                          jinja_value *out);
tn_status jinja_make_iterator(jinja_run *run, jinja_list list, jinja_value *out);
tn_status jinja_make_undefined(jinja_run *run, const char *hint, const jinja_value *owner,
                               const jinja_value *name, jinja_value *out);
tn_status jinja_make_dict(jinja_run *run, jinja_value *out);
tn_status jinja_make_json(jinja_run *run, const tn_json *node, jinja_value *out);

/* A list under construction, in the arena. */
typedef struct jinja_builder {
    jinja_value *items;
    int64_t count, capacity;
} jinja_builder;
tn_status jinja_push(jinja_run *run, jinja_builder *builder, jinja_value value);

/* ---- Dicts ---- */
/* *found is NULL where there is no such key. An unhashable key is an error. */
tn_status jinja_dict_get(jinja_run *run, const jinja_dict *dict, jinja_value key, jinja_value **found);
jinja_value *jinja_dict_find(const jinja_dict *dict, const char *key, int64_t length);
tn_status jinja_dict_set(jinja_run *run, jinja_dict *dict, jinja_value key, jinja_value value);
bool jinja_hashable(const jinja_value *key);

/* ---- Python's rules ---- */
const char *jinja_type_name(const jinja_value *value);
bool jinja_truth(const jinja_value *value);
bool jinja_is_text(const jinja_value *value, const char *text);
bool jinja_is_integer(const jinja_value *value); /* int or bool, whose value is then in *…_integer */
int64_t jinja_integer(const jinja_value *value);
bool jinja_is_number(const jinja_value *value);
double jinja_real(const jinja_value *value);
/* A string's code points. */
int64_t jinja_points(jinja_string *string);
/* Byte offset of code point `index` (0 … points). */
int64_t jinja_offset(jinja_string *string, int64_t index);
tn_status jinja_length(jinja_run *run, const jinja_value *value, int64_t *length);
/* All that iterating gives; an iterator is used up. */
tn_status jinja_iterate(jinja_run *run, const jinja_value *value, jinja_list *items);
tn_status jinja_equal(jinja_run *run, const jinja_value *a, const jinja_value *b, bool *equal);
/* `operator` is one of < <= > >=. */
tn_status jinja_order(jinja_run *run, const char *operator_text, const jinja_value *a, const jinja_value *b,
                      bool *holds);
/* Stable sort of pairs by their keys; `reverse` keeps equal ones in their order, too. */
tn_status jinja_sort(jinja_run *run, jinja_pair *pairs, int64_t count, bool reverse);
tn_status jinja_contains(jinja_run *run, const jinja_value *container, const jinja_value *item, bool *found);
/* Operators + - * / f (floor division) % p (power). */
tn_status jinja_binary(jinja_run *run, char operation, const jinja_value *a, const jinja_value *b,
                       jinja_value *out);
tn_status jinja_negate(jinja_run *run, const jinja_value *a, jinja_value *out);

/* ---- Text forms (jinja_text.c, jinja_format.c) ---- */
/* Appends; a text beyond the bound only sets out->failed, which jinja_make_from reports. */
void jinja_put(tn_str *out, const char *data, int64_t length);
void jinja_put_times(tn_str *out, const char *data, int64_t length, int64_t times);
tn_status jinja_str(jinja_run *run, const jinja_value *value, tn_str *out);
tn_status jinja_repr(jinja_run *run, const jinja_value *value, tn_str *out);
/* str() as a value; a string is given back as it is. */
tn_status jinja_to_string(jinja_run *run, const jinja_value *value, jinja_value *out);
typedef struct jinja_json_style {
    bool ensure_ascii, sort_keys, has_indent;
    jinja_string indent, item_separator, key_separator;
} jinja_json_style;
tn_status jinja_json(jinja_run *run, const jinja_value *value, const jinja_json_style *style, int depth,
                     tn_str *out);
/* text % value, and text.format(…). */
tn_status jinja_percent(jinja_run *run, const jinja_string *format, const jinja_value *value, jinja_value *out);
tn_status jinja_brace_format(jinja_run *run, const jinja_string *format, const jinja_call *call,
                             jinja_value *out);

/* What Python's str.isspace says of a code point. */
bool jinja_is_space(uint32_t code_point);

#endif
