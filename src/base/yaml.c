/* yaml.c: YAML text to the tree of base/json.h. libyaml scans and gives events; this file walks them, resolves
 * plain scalars (YAML 1.2, core schema, section 10.3.2) and expands aliases. Invariants:
 *   - an alias shares the items of its anchor, so it costs no memory; but whoever walks the tree pays for
 *     it, so all that aliases stand for together (nodes and bytes) is bounded, and so is the depth they reach;
 *   - a node can be named only when it is finished, so the tree has no cycles. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/json_keys.h"

/* 1 Mi nodes and bytes: far beyond any configuration, and still walked in an instant. */
enum { MAX_EXPANDED = 1 << 20, MAX_ANCHORS = 1024 };

typedef struct node {
    tn_json value;
    int64_t weight; /* nodes and bytes of text, aliases counted as what they stand for */
    int64_t height; /* containers from here to the deepest leaf */
} node;

/* A value that waits for the end of its container. Items of sequences have no key. */
typedef struct entry {
    tn_member member;
    int64_t line;
} entry;

typedef struct anchor {
    const char *name;
    node node;
    bool finished;
} anchor;

typedef struct parser {
    yaml_parser_t yaml;
    tn_arena *arena;
    const char *name;
    entry *stack;
    int64_t entries, capacity;
    anchor *anchors;
    int64_t anchor_count, anchor_capacity;
    int64_t expanded;
} parser;

static int64_t line_of(yaml_mark_t mark) { return (int64_t)mark.line + 1; }

static tn_status fail_at(const parser *p, yaml_mark_t mark, const char *reason) {
    return tn_fail(TN_BAD_DATA, "%s: not valid YAML at line %lld, column %lld: %s", p->name,
                   (long long)line_of(mark), (long long)mark.column + 1, reason);
}

static tn_status next_event(parser *p, yaml_event_t *event) {
    if (yaml_parser_parse(&p->yaml, event)) return TN_OK;
    if (p->yaml.error == YAML_MEMORY_ERROR) return tn_fail_memory(0, p->name);
    return fail_at(p, p->yaml.problem_mark, p->yaml.problem ? p->yaml.problem : "cannot be read");
}

/* ---- Scalars ---- */

static bool is_one_of(const char *text, const char *const *words) {
    for (; *words; words++)
        if (strcmp(text, *words) == 0) return true;
    return false;
}

/* 0x1F, 0o17; false where it is none or does not fit. */
static bool parse_based(const char *text, int64_t *integer) {
    int base = text[0] != '0' ? 0 : text[1] == 'x' ? 16 : text[1] == 'o' ? 8 : 0;
    if (base == 0 || text[2] == '\0') return false;
    int64_t sum = 0;
    for (const char *p = text + 2; *p; p++) {
        int digit = *p >= '0' && *p <= '9' ? *p - '0' : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10 : *p - 'A' + 10;
        if (digit < 0 || digit >= base || !((*p >= '0' && *p <= '9') || digit >= 10)) return false;
        if (__builtin_mul_overflow(sum, (int64_t)base, &sum) ||
            __builtin_add_overflow(sum, (int64_t)digit, &sum))
            return false;
    }
    *integer = sum;
    return true;
}

static bool resolve_special_real(const char *text, double *real) {
    static const char *const inf[] = {".inf", ".Inf", ".INF", NULL}, *const nan[] = {".nan", ".NaN", ".NAN",
                                                                                     NULL};
    bool sign = text[0] == '-' || text[0] == '+';
    if (is_one_of(text + sign, inf)) *real = text[0] == '-' ? -INFINITY : INFINITY;
    else if (is_one_of(text, nan)) *real = NAN;
    else return false;
    return true;
}

/* What a plain scalar means. `text` is terminated and belongs to the arena. */
static tn_json resolve_plain(const char *text, int64_t length) {
    static const char *const nothing[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const yes[] = {"true", "True", "TRUE", NULL}, *const no[] = {"false", "False", "FALSE",
                                                                                    NULL};
    int64_t integer;
    double real;
    if (is_one_of(text, nothing)) return (tn_json){.type = TN_JSON_NULL};
    if (is_one_of(text, yes) || is_one_of(text, no))
        return (tn_json){.type = TN_JSON_BOOLEAN, .boolean = text[0] == 't' || text[0] == 'T'};
    if (tn_parse_integer(text, length, &integer) || parse_based(text, &integer))
        return (tn_json){.type = TN_JSON_INTEGER, .integer = integer};
    if (resolve_special_real(text, &real)) return (tn_json){.type = TN_JSON_REAL, .real = real};
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    if (digits[0] != '\0' &&
        digits[strspn(digits, "0123456789")] == '\0') { /* beyond 64 bits, in JSON's spelling */
        const char *big = text[0] == '+' ? digits : text;
        if (digits[0] != '0')
            return (tn_json){.type = TN_JSON_BIG, .count = length - (big - text), .string = big};
    }
    if (tn_parse_real(text, length, &real)) return (tn_json){.type = TN_JSON_REAL, .real = real};
    return (tn_json){.type = TN_JSON_STRING, .count = length, .string = text};
}

/* Tags may ask for a string, or confirm what the text says anyway. */
static bool resolve_tagged(const char *tag, const char *text, int64_t length, tn_json *value) {
    static const struct {
        const char *tag;
        tn_json_type types[3];
    } known[] = {
        {YAML_NULL_TAG, {TN_JSON_NULL, TN_JSON_NULL, TN_JSON_NULL}},
        {YAML_BOOL_TAG, {TN_JSON_BOOLEAN, TN_JSON_BOOLEAN, TN_JSON_BOOLEAN}},
        {YAML_INT_TAG, {TN_JSON_INTEGER, TN_JSON_BIG, TN_JSON_BIG}},
        {YAML_FLOAT_TAG, {TN_JSON_REAL, TN_JSON_INTEGER, TN_JSON_BIG}},
    };
    *value = (tn_json){.type = TN_JSON_STRING, .count = length, .string = text};
    if (strcmp(tag, "!") == 0 || strcmp(tag, YAML_STR_TAG) == 0) return true;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(tag, known[i].tag) != 0) continue;
        *value = resolve_plain(text, length);
        for (int j = 0; j < 3; j++)
            if (value->type == known[i].types[j]) {
                if (i == 3) *value = (tn_json){.type = TN_JSON_REAL, .real = tn_json_number(value, 0)};
                return true;
            }
    }
    return false;
}

static tn_status read_scalar(parser *p, const yaml_event_t *event, node *out) {
    int64_t length = (int64_t)event->data.scalar.length;
    const char *tag = (const char *)event->data.scalar.tag;
    const char *text = tn_arena_text(p->arena, (const char *)event->data.scalar.value, length);
    if (!text) return tn_fail_memory(length, p->name);
    if (tag && !resolve_tagged(tag, text, length, &out->value))
        return fail_at(p, event->start_mark, "a tag that is not known here, or does not fit its value");
    if (!tag && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) out->value = resolve_plain(text, length);
    else if (!tag) out->value = (tn_json){.type = TN_JSON_STRING, .count = length, .string = text};
    out->weight = 1 + length;
    out->height = 0;
    return TN_OK;
}

/* ---- Anchors ---- */

static tn_status open_anchor(parser *p, yaml_mark_t mark, const yaml_char_t *name, int64_t *index) {
    *index = -1;
    if (!name) return TN_OK;
    if (p->anchor_count == MAX_ANCHORS) return fail_at(p, mark, "more than 1024 anchors");
    tn_status status =
        tn_grow(&p->anchors, &p->anchor_capacity, p->anchor_count + 1, sizeof *p->anchors, "anchors");
    if (status != TN_OK) return status;
    *index = p->anchor_count++;
    const char *text = (const char *)name;
    p->anchors[*index] = (anchor){.name = tn_arena_text(p->arena, text, (int64_t)strlen(text))};
    return p->anchors[*index].name ? TN_OK : tn_fail_memory(64, p->name);
}

static void close_anchor(parser *p, int64_t index, const node *finished) {
    if (index < 0) return;
    p->anchors[index].node = *finished;
    p->anchors[index].finished = true;
}

static tn_status read_alias(parser *p, const yaml_event_t *event, int64_t depth, node *out) {
    const char *name = (const char *)event->data.alias.anchor;
    int64_t i = p->anchor_count - 1; /* an anchor may be given anew: the last one counts */
    while (i >= 0 && strcmp(p->anchors[i].name, name) != 0) i--;
    if (i < 0) return fail_at(p, event->start_mark, "an alias without an anchor before it");
    if (!p->anchors[i].finished) return fail_at(p, event->start_mark, "an alias inside the node it stands for");
    *out = p->anchors[i].node;
    p->expanded += out->weight;
    if (p->expanded > MAX_EXPANDED) return fail_at(p, event->start_mark, "aliases expand to more than 1 MiB");
    if (depth + out->height > TN_JSON_MAX_DEPTH)
        return fail_at(p, event->start_mark, "nested deeper than 256 levels");
    return TN_OK;
}

/* ---- Containers ---- */

static tn_status read_node(parser *p, yaml_event_t *event, int64_t depth, node *out);

static tn_status push(parser *p, const entry *added) {
    tn_status status = tn_grow(&p->stack, &p->capacity, p->entries + 1, sizeof *p->stack, "YAML values");
    if (status == TN_OK) p->stack[p->entries++] = *added;
    return status;
}

/* Adds a child's measure to its container's. */
static void measure(node *out, const node *child) {
    out->weight += child->weight;
    if (child->height >= out->height) out->height = child->height + 1;
}

static tn_status read_sequence(parser *p, int64_t depth, node *out) {
    int64_t start = p->entries, count;
    tn_status status;
    for (;;) {
        yaml_event_t event;
        entry added = {0};
        node item;
        TN_TRY(next_event(p, &event));
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        status = end ? TN_OK : read_node(p, &event, depth, &item);
        yaml_event_delete(&event);
        if (end || status != TN_OK) break;
        measure(out, &item);
        added.member.value = item.value;
        TN_TRY(push(p, &added));
    }
    if (status != TN_OK) goto done;
    count = p->entries - start;
    tn_json *items = tn_arena_take(p->arena, count * (int64_t)sizeof *items);
    if (!items) return tn_fail_memory(count * (int64_t)sizeof *items, p->name);
    for (int64_t i = 0; i < count; i++) items[i] = p->stack[start + i].member.value;
    out->value = (tn_json){.type = TN_JSON_ARRAY, .count = count, .items = items};
done:
    p->entries = start;
    return status;
}

/* The mappings that << brings in: one, or a sequence of them. Sets how many members they have together. */
static tn_status check_merge(const parser *p, const tn_json *merge, int64_t line, int64_t *count) {
    const tn_json *maps = merge->type == TN_JSON_ARRAY ? merge->items : merge;
    int64_t map_count = merge->type == TN_JSON_ARRAY ? merge->count : 1;
    *count = 0;
    for (int64_t i = 0; i < map_count; i++) {
        if (maps[i].type != TN_JSON_OBJECT)
            return tn_fail(TN_BAD_DATA,
                           "%s: not valid YAML at line %lld: << takes a mapping or a list of mappings", p->name,
                           (long long)line);
        *count += maps[i].count;
    }
    return TN_OK;
}

/* The members of the stack from `start` on, then those of `merge` (NULL: none) whose keys are not there yet. */
static tn_status build_object(parser *p, int64_t start, const tn_json *merge, int64_t merge_line,
                              tn_json *out) {
    int64_t own = p->entries - start, merged = 0, kept = own;
    tn_key_set keys = {0};
    tn_status status = TN_OK;
    if (merge) TN_TRY(check_merge(p, merge, merge_line, &merged));
    tn_member *members = tn_arena_take(p->arena, (own + merged) * (int64_t)sizeof *members);
    if (!members) TN_THROW(TN_FAILED, "out of memory: %lld members for %s", (long long)(own + merged), p->name);
    TN_TRY(tn_key_set_begin(&keys, members, own + merged));
    for (int64_t i = 0; i < own; i++) {
        members[i] = p->stack[start + i].member;
        if (!tn_key_set_add(&keys, i))
            TN_THROW(TN_USAGE, "%s: key \"%s\" in line %lld stands twice", p->name, members[i].key,
                     (long long)p->stack[start + i].line);
    }
    const tn_json *maps = merged > 0 && merge->type == TN_JSON_ARRAY ? merge->items : merge;
    for (const tn_json *map = maps; merged > 0; map++)
        for (int64_t i = 0; i < map->count; i++, merged--) {
            members[kept] = map->members[i];
            if (tn_key_set_add(&keys, kept)) kept++;
        }
    *out = (tn_json){.type = TN_JSON_OBJECT, .count = kept, .members = members};
done:
    tn_key_set_end(&keys);
    return status;
}

static tn_status read_key(parser *p, const yaml_event_t *event, entry *out) {
    if (event->type != YAML_SCALAR_EVENT) return fail_at(p, event->start_mark, "a key that is not a scalar");
    int64_t length = (int64_t)event->data.scalar.length, index;
    char *text = tn_arena_text(p->arena, (const char *)event->data.scalar.value, length);
    if (!text) return tn_fail_memory(length, p->name);
    node key = {.value = {.type = TN_JSON_STRING, .count = length, .string = text}, .weight = 1 + length};
    tn_status status = open_anchor(p, event->start_mark, event->data.scalar.anchor, &index);
    if (status == TN_OK) close_anchor(p, index, &key);
    *out = (entry){.member = {.key = text, .key_length = length}, .line = line_of(event->start_mark)};
    return status;
}

static bool is_merge_key(const yaml_event_t *event) {
    return event->type == YAML_SCALAR_EVENT && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           strcmp((const char *)event->data.scalar.value, "<<") == 0;
}

/* One key with its value, `event` being the key. A merge goes to *merge instead of the stack. */
static tn_status read_member(parser *p, const yaml_event_t *event, int64_t depth, node *out, entry *merge) {
    yaml_event_t value_event;
    entry added;
    node value;
    tn_status status = read_key(p, event, &added);
    if (status == TN_OK) status = next_event(p, &value_event);
    if (status != TN_OK) return status;
    status = read_node(p, &value_event, depth, &value);
    yaml_event_delete(&value_event);
    if (status != TN_OK) return status;
    added.member.value = value.value;
    out->weight += added.member.key_length;
    measure(out, &value);
    if (!is_merge_key(event)) return push(p, &added);
    if (merge->line > 0)
        return tn_fail(TN_USAGE, "%s: key \"<<\" in line %lld stands twice", p->name, (long long)added.line);
    *merge = added;
    return TN_OK;
}

static tn_status read_mapping(parser *p, int64_t depth, node *out) {
    int64_t start = p->entries;
    entry merge = {0};
    tn_status status;
    for (;;) {
        yaml_event_t event;
        TN_TRY(next_event(p, &event));
        bool end = event.type == YAML_MAPPING_END_EVENT;
        status = end ? TN_OK : read_member(p, &event, depth, out, &merge);
        yaml_event_delete(&event);
        if (end || status != TN_OK) break;
    }
    if (status == TN_OK)
        status = build_object(p, start, merge.line > 0 ? &merge.member.value : NULL, merge.line, &out->value);
done:
    p->entries = start;
    return status;
}

static bool container_tag_is_known(const yaml_event_t *event) {
    bool sequence = event->type == YAML_SEQUENCE_START_EVENT;
    const yaml_char_t *tag = sequence ? event->data.sequence_start.tag : event->data.mapping_start.tag;
    return !tag || strcmp((const char *)tag, sequence ? YAML_SEQ_TAG : YAML_MAP_TAG) == 0;
}

/* The node that `event` begins; `depth` containers stand around it. */
static tn_status read_node(parser *p, yaml_event_t *event, int64_t depth, node *out) {
    bool scalar = event->type == YAML_SCALAR_EVENT, sequence = event->type == YAML_SEQUENCE_START_EVENT;
    const yaml_char_t *name;
    int64_t index;
    tn_status status;
    if (event->type == YAML_ALIAS_EVENT) return read_alias(p, event, depth, out);
    *out = (node){.weight = 1};
    name = scalar     ? event->data.scalar.anchor
           : sequence ? event->data.sequence_start.anchor
                      : event->data.mapping_start.anchor;
    TN_TRY(open_anchor(p, event->start_mark, name, &index));
    if (scalar) {
        TN_TRY(read_scalar(p, event, out));
    } else {
        if (depth == TN_JSON_MAX_DEPTH) return fail_at(p, event->start_mark, "nested deeper than 256 levels");
        if (!container_tag_is_known(event))
            return fail_at(p, event->start_mark, "a tag that is not known here");
        out->height = 1;
        TN_TRY(sequence ? read_sequence(p, depth + 1, out) : read_mapping(p, depth + 1, out));
    }
    close_anchor(p, index, out);
done:
    return status;
}

/* ---- The document ---- */

/* Behind a document comes the end: what a second one says would be lost without a word. */
static tn_status read_end(parser *p) {
    for (;;) {
        yaml_event_t event;
        tn_status status = next_event(p, &event);
        if (status != TN_OK) return status;
        yaml_event_type_t type = event.type;
        yaml_mark_t mark = event.start_mark;
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT) return TN_OK;
        if (type != YAML_DOCUMENT_END_EVENT)
            return fail_at(p, mark, "a second document begins; a file holds one");
    }
}

/* Events up to the first node; a text without a document is null, as an empty file is. */
static tn_status read_document(parser *p, tn_json *root) {
    for (;;) {
        yaml_event_t event;
        node read = {0};
        tn_status status = next_event(p, &event);
        if (status != TN_OK) return status;
        bool before = event.type == YAML_STREAM_START_EVENT || event.type == YAML_DOCUMENT_START_EVENT;
        bool empty = event.type == YAML_STREAM_END_EVENT;
        if (!before && !empty) status = read_node(p, &event, 0, &read);
        yaml_event_delete(&event);
        if (before) continue;
        *root = read.value;
        return status == TN_OK && !empty ? read_end(p) : status;
    }
}

tn_status tn_yaml_parse(tn_arena *arena, const char *text, int64_t length, const char *name,
                        const tn_json **root) {
    parser p = {.arena = arena, .name = name};
    tn_json *kept = tn_arena_take(arena, sizeof *kept);
    *root = NULL;
    if (!kept) return tn_fail_memory((int64_t)sizeof *kept, name);
    int64_t valid = tn_utf8_valid_prefix(text, length);
    if (valid < length)
        return tn_fail(TN_BAD_DATA, "%s: not valid YAML at byte %lld: not UTF-8", name, (long long)valid);
    if (!yaml_parser_initialize(&p.yaml)) return tn_fail_memory((int64_t)sizeof p.yaml, name);
    yaml_parser_set_encoding(&p.yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&p.yaml, (const unsigned char *)text, (size_t)length);
    tn_status status = read_document(&p, kept);
    if (status == TN_OK) *root = kept;
    yaml_parser_delete(&p.yaml);
    free(p.stack);
    free(p.anchors);
    return status;
}
