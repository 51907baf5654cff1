/* json.h: one tree for JSON and YAML, its reader, and a writer that streams into a tn_str.
 *
 * The tree lives in an arena and is read only; scanning is yajl's work (base/json.c) and libyaml's
 * (base/yaml.c). Numbers keep integers exact: a 64-bit one is INTEGER, a longer one BIG with its digits,
 * everything else REAL. Strings may hold NUL bytes, so they carry a length; they are also terminated.
 */
#ifndef TN_BASE_JSON_H
#define TN_BASE_JSON_H

#include "base/mem.h"
#include "base/number.h"
#include "base/str.h"

typedef enum tn_json_type {
    TN_JSON_NULL,
    TN_JSON_BOOLEAN,
    TN_JSON_INTEGER,
    TN_JSON_REAL,
    TN_JSON_BIG, /* an integer beyond 64 bits; its digits in `string` */
    TN_JSON_STRING,
    TN_JSON_ARRAY,
    TN_JSON_OBJECT,
} tn_json_type;

typedef struct tn_json {
    tn_json_type type;
    int64_t count; /* bytes of a string or BIG, items of an array, members of an object */
    union {
        bool boolean;
        int64_t integer;
        double real;
        const char *string;
        const struct tn_json *items;
        const struct tn_member *members; /* in the order of the file */
    };
} tn_json;

typedef struct tn_member {
    const char *key;
    int64_t key_length;
    tn_json value;
} tn_member;

typedef enum tn_json_flags {
    TN_JSON_DEFAULT = 0,
    TN_JSON_UNIQUE_KEYS = 1, /* a key twice in one object is an error (without it the last one counts) */
    TN_JSON_EXTENSIONS = 2,  /* NaN, Infinity, -Infinity as Python writes them */
} tn_json_flags;

/* Nesting deeper than this is refused. */
enum { TN_JSON_MAX_DEPTH = 256 };

/* Parses one document; text behind it is an error. `name` stands in messages (a path, a line number).
 * Errors: TN_BAD_DATA with position and reason. */
tn_status tn_json_parse(tn_arena *arena, const char *text, int64_t length, int flags, const char *name,
                        const tn_json **root);
/* The same, noting what was read all the same: a \uD800 … \uDFFF without its other half, for which U+FFFD
 * stands, and a key twice in one object. */
typedef struct tn_json_notes {
    bool lone_surrogate, repeated_key;
} tn_json_notes;
tn_status tn_json_parse_noting(tn_arena *arena, const char *text, int64_t length, int flags, const char *name,
                               tn_json_notes *notes, const tn_json **root);
tn_status tn_json_read_file(tn_arena *arena, const char *path, int flags, const tn_json **root);
/* The same tree from YAML (of one document). Plain scalars resolve by YAML 1.2's core rules, which
 * are JSON's plus ~, True/False and .inf/.nan, plus 2e-4 style reals; anchors and aliases are expanded within
 * bounds, and so is the merge key <<. Keys are the text of scalars. Errors: TN_BAD_DATA with the position;
 * TN_USAGE for a key that stands twice, with its line. */
tn_status tn_yaml_parse(tn_arena *arena, const char *text, int64_t length, const char *name,
                        const tn_json **root);

/* Reading. All accept a NULL node and answer as if it were absent. */
const tn_json *tn_json_get(const tn_json *object,
                           const char *key); /* NULL where absent; the last of equal keys */
const tn_json *tn_json_at(const tn_json *array, int64_t index);
bool tn_json_is_null(const tn_json *node); /* absent or null */
bool tn_json_is_string(const tn_json *node, const char *text);
const char *tn_json_string(const tn_json *node, const char *otherwise);
double tn_json_number(const tn_json *node, double otherwise);
int64_t tn_json_integer(const tn_json *node, int64_t otherwise); /* also a REAL with an integral value */
bool tn_json_boolean(const tn_json *node, bool otherwise);
/* Value by path: "a.b[2].c". */
const tn_json *tn_json_path(const tn_json *root, const char *path);
const char *tn_json_type_name(const tn_json *node);

/* Writing. `indent` 0 = one line with ", " and ": " (as Python's json.dumps); else that many spaces. */
typedef struct tn_json_writer {
    tn_str *out;
    int indent, depth;
    bool first, after_key;
} tn_json_writer;
tn_json_writer tn_json_write_to(tn_str *out, int indent);
void tn_json_begin(tn_json_writer *w, char bracket); /* '{' or '[' */
void tn_json_end(tn_json_writer *w, char bracket);   /* '}' or ']' */
void tn_json_key(tn_json_writer *w, const char *key);
void tn_json_put_string(tn_json_writer *w, const char *text, int64_t length); /* length -1: strlen */
void tn_json_put_integer(tn_json_writer *w, int64_t value);
/* The shortest decimal that reads back as the same double; NaN and Inf become null. */
void tn_json_put_real(tn_json_writer *w, double value);
/* The same for a float: reads back as the same float. */
void tn_json_put_float(tn_json_writer *w, float value);
void tn_json_put_boolean(tn_json_writer *w, bool value);
void tn_json_put_null(tn_json_writer *w);
void tn_json_put(tn_json_writer *w, const tn_json *node);
/* Key and value in one call. */
void tn_json_string_member(tn_json_writer *w, const char *key, const char *text);
void tn_json_integer_member(tn_json_writer *w, const char *key, int64_t value);
void tn_json_real_member(tn_json_writer *w, const char *key, double value);
void tn_json_boolean_member(tn_json_writer *w, const char *key, bool value);
/* A list of `count` token ids or labels. */
void tn_json_ids_member(tn_json_writer *w, const char *key, const int32_t *ids, int64_t count);

/* Appends `text` as a quoted JSON string; only what JSON demands is escaped (ensure_ascii=False).
 * Bytes that are not UTF-8 become U+FFFD, so that the output is valid whatever a file name held. */
void tn_json_quote(tn_str *out, const char *text, int64_t length);
/* Wraps finished JSON text as a public document; takes over `text`'s memory. */
tn_status tn_doc_from(tn_str *text, tn_doc **doc);

#endif
