/* readers.c: finds the records of a file. Invariants: `at` is the first byte not yet looked at, `line` the line
 * it is in; no slice reaches beyond the file whatever the bytes are. What is inside a slice is judged when it
 * is parsed, so a damaged record is reported with the place it stands at. */
#include "data/readers.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef enum reader_kind { JSONL, JSON, CSV, TEXT, KINDS } reader_kind;
static const char *const suffixes[KINDS] = {".jsonl", ".json", ".csv", ".txt"};

struct tn_reader {
    char *path;
    reader_kind kind;
    tn_map map;
    bool mapped; /* the map is ours */
    const char *text;
    int64_t length, at, line;
    bool in_array, wrapped; /* JSON: records are items of a list; of the list in {"data": [...]} */
    bool behind_value;      /* a record was read: a comma or the end must follow */
    tn_arena arena;         /* CSV: the names of the columns */
    const char **columns;
    int64_t column_count;
};

static tn_status fail_line(const tn_reader *r, int64_t line, const char *reason) {
    return tn_fail(TN_BAD_DATA, "%s:%lld: %s", r->path, (long long)line, reason);
}

static int64_t count_lines(const char *text, int64_t length) {
    int64_t lines = 0;
    for (const char *end = text + length; text < end; text++) {
        text = memchr(text, '\n', (size_t)(end - text));
        if (!text) break;
        lines++;
    }
    return lines;
}

static void advance(tn_reader *r, int64_t to) {
    r->line += count_lines(r->text + r->at, to - r->at);
    r->at = to;
}

/* ---- JSON ---- */

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static int64_t skip_space(const tn_reader *r, int64_t at) {
    while (at < r->length && is_space(r->text[at])) at++;
    return at;
}

static int64_t string_end(const tn_reader *r, int64_t at) {
    for (at++; at < r->length; at++) {
        if (r->text[at] == '\\') at++;
        else if (r->text[at] == '"') return at + 1;
    }
    return r->length;
}

/* End of the value at `at`: brackets are counted, not matched; the parser sees to that. At least one byte. */
static int64_t value_end(const tn_reader *r, int64_t at) {
    int64_t depth = 0, start = at;
    while (at < r->length) {
        char c = r->text[at];
        if (c == '"') {
            at = string_end(r, at);
        } else if (c == '{' || c == '[') {
            depth++, at++;
        } else if (c == '}' || c == ']') {
            depth--, at++;
        } else if (depth == 0) { /* a bare word or number */
            while (at < r->length && !is_space(r->text[at]) && !strchr(",:]}[{\"", r->text[at])) at++;
            return at > start ? at : start + 1;
        } else {
            at++;
            continue;
        }
        if (depth <= 0) break;
    }
    return at;
}

/* Where the list of {"data": [...]} begins, or -1. */
static int64_t find_data_array(const tn_reader *r, int64_t at) {
    for (at = skip_space(r, at + 1); at < r->length && r->text[at] == '"';) {
        int64_t key = at, key_end = string_end(r, at);
        at = skip_space(r, key_end);
        if (at >= r->length || r->text[at] != ':') return -1;
        at = skip_space(r, at + 1);
        if (at >= r->length) return -1;
        if (r->text[at] == '[' && key_end - key == 6 && memcmp(r->text + key, "\"data\"", 6) == 0) return at;
        at = skip_space(r, value_end(r, at));
        if (at < r->length && r->text[at] == ',') at = skip_space(r, at + 1);
    }
    return -1;
}

static void start_json(tn_reader *r) {
    int64_t at = skip_space(r, r->at);
    if (at < r->length && r->text[at] == '{') {
        bool alone = skip_space(r, value_end(r, at)) == r->length;
        int64_t list = alone ? find_data_array(r, at) : -1;
        r->wrapped = list >= 0;
        if (r->wrapped) at = list;
    }
    advance(r, at);
    if (at < r->length && r->text[at] == '[') {
        r->in_array = true;
        r->at++;
    }
}

static tn_status next_json(tn_reader *r, tn_slice *slice, bool *found) {
    advance(r, skip_space(r, r->at));
    if (r->in_array) {
        char c = r->at < r->length ? r->text[r->at] : '\0';
        if (c == ']') {
            *found = false;
            if (r->wrapped || skip_space(r, r->at + 1) == r->length) return TN_OK;
            return fail_line(r, r->line, "text behind the list of records");
        }
        if (r->behind_value && c == ',') {
            advance(r, skip_space(r, r->at + 1));
            c = r->at < r->length ? r->text[r->at] : '\0';
            if (c == ']' || c == ',') return fail_line(r, r->line, "a comma without a record behind it");
        } else if (r->behind_value && r->at < r->length) {
            return fail_line(r, r->line, "not valid JSON: a comma or ] was expected between records");
        }
        if (r->at >= r->length) {
            fail_line(r, r->line, "the file ends inside the list of records");
            return tn_remedy("the file looks cut off: copy or download it again");
        }
    }
    *found = r->at < r->length;
    if (!*found) return TN_OK;
    *slice = (tn_slice){r->at, value_end(r, r->at) - r->at, r->line};
    advance(r, r->at + slice->length);
    r->behind_value = true;
    return TN_OK;
}

static void next_line(tn_reader *r, tn_slice *slice, bool *found) {
    *found = false;
    while (r->at < r->length && !*found) {
        const char *newline = memchr(r->text + r->at, '\n', (size_t)(r->length - r->at));
        int64_t end = newline ? newline - r->text : r->length, start = r->at;
        while (start < end && is_space(r->text[start])) start++;
        *found = start < end;
        *slice = (tn_slice){start, end - start, r->line};
        r->at = newline ? end + 1 : end;
        r->line += newline != NULL;
    }
}

/* ---- CSV ---- */

static bool ends_row(const tn_reader *r, int64_t at) {
    return at >= r->length || r->text[at] == '\n' || r->text[at] == '\r';
}

/* Reads the field at *at, into `value` where that is given, up to the comma or the end of the row.
 * Returns NULL or what is wrong; *line counts the line ends inside quotes. */
static const char *csv_field(const tn_reader *r, int64_t *at, int64_t *line, tn_str *value) {
    int64_t i = *at, start = i;
    if (i >= r->length || r->text[i] != '"') {
        while (!ends_row(r, i) && r->text[i] != ',') i++;
        if (value) tn_str_add(value, r->text + start, i - start);
        *at = i;
        return NULL;
    }
    for (i++;;) {
        const char *quote = memchr(r->text + i, '"', (size_t)(r->length - i));
        if (!quote) return "a quoted field begins in this row and never ends";
        int64_t end = quote - r->text;
        *line += count_lines(r->text + i, end - i);
        bool doubled = end + 1 < r->length && r->text[end + 1] == '"';
        if (value) tn_str_add(value, r->text + i, end - i + doubled);
        i = end + 1 + doubled;
        if (!doubled) break;
    }
    *at = i;
    if (!ends_row(r, i) && r->text[i] != ',') return "text behind the closing quote of a field";
    return NULL;
}

static int64_t skip_row_end(const tn_reader *r, int64_t at) {
    if (at < r->length && r->text[at] == '\r') at++;
    if (at < r->length && r->text[at] == '\n') at++;
    return at;
}

static tn_status next_row(tn_reader *r, tn_slice *slice, bool *found) {
    while (r->at < r->length && ends_row(r, r->at)) advance(r, skip_row_end(r, r->at));
    *found = r->at < r->length;
    if (!*found) return TN_OK;
    int64_t at = r->at, line = r->line;
    for (;; at++) {
        const char *wrong = csv_field(r, &at, &line, NULL);
        if (wrong) return fail_line(r, r->line, wrong);
        if (ends_row(r, at)) break;
    }
    *slice = (tn_slice){r->at, at - r->at, r->line};
    r->at = at;
    r->line = line;
    advance(r, skip_row_end(r, at));
    return TN_OK;
}

/* The fields of a row as strings in the arena, in `members` where there is room for them; *count is how many
 * there are. */
static tn_status row_fields(const tn_reader *r, tn_slice slice, tn_arena *arena, tn_member *members,
                            int64_t room, int64_t *count) {
    tn_str value = {0};
    tn_status status = TN_OK;
    int64_t at = slice.start, end = slice.start + slice.length, line = slice.line;
    *count = 0;
    for (;; at++) {
        tn_str_clear(&value);
        csv_field(r, &at, &line, &value); /* the same bytes passed in next_row */
        TN_TRY(tn_str_check(&value, "a CSV field"));
        if (*count < room) {
            char *copy = tn_arena_text(arena, tn_str_text(&value), value.length);
            if (!copy)
                TN_THROW(TN_FAILED, "out of memory for a CSV field of %lld bytes", (long long)value.length);
            members[*count].value = (tn_json){.type = TN_JSON_STRING, .count = value.length, .string = copy};
        }
        ++*count;
        if (at >= end) break;
    }
done:
    tn_str_free(&value);
    return status;
}

static tn_status parse_row(const tn_reader *r, tn_slice slice, tn_arena *arena, const tn_json **record) {
    int64_t count, n = r->column_count;
    tn_member *members = tn_arena_take(arena, n * (int64_t)sizeof *members);
    tn_json *row = tn_arena_take(arena, sizeof *row);
    if (!members || !row) return tn_fail_memory(n * (int64_t)sizeof *members, "a CSV row");
    tn_status status = row_fields(r, slice, arena, members, n, &count);
    if (status != TN_OK) return status;
    if (count != n) {
        tn_fail(TN_BAD_DATA, "%s:%lld: %lld fields, the header row has %lld", r->path, (long long)slice.line,
                (long long)count, (long long)n);
        return tn_remedy("put fields that hold commas, quotes or line breaks in double quotes");
    }
    for (int64_t i = 0; i < n; i++) {
        members[i].key = r->columns[i];
        members[i].key_length = (int64_t)strlen(r->columns[i]);
    }
    *row = (tn_json){.type = TN_JSON_OBJECT, .count = n, .members = members};
    *record = row;
    return TN_OK;
}

static tn_status check_utf8(const tn_reader *r, tn_slice slice);

static tn_status start_csv(tn_reader *r) {
    tn_slice header;
    bool found;
    int64_t count;
    tn_status status = next_row(r, &header, &found);
    if (status != TN_OK || !found) return status;
    status = check_utf8(r, header);
    if (status == TN_OK) status = row_fields(r, header, &r->arena, NULL, 0, &r->column_count);
    if (status != TN_OK) return status;
    tn_member *members = tn_arena_take(&r->arena, r->column_count * (int64_t)sizeof *members);
    r->columns = tn_arena_take(&r->arena, r->column_count * (int64_t)sizeof *r->columns);
    if (!members || !r->columns)
        return tn_fail_memory(r->column_count * (int64_t)sizeof *members, "CSV columns");
    status = row_fields(r, header, &r->arena, members, r->column_count, &count);
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < count; i++) {
        r->columns[i] = members[i].value.string;
        for (int64_t j = 0; j < i; j++)
            if (r->columns[i][0] && strcmp(r->columns[i], r->columns[j]) == 0)
                return tn_fail(TN_BAD_DATA, "%s:%lld: column \"%s\" stands twice in the header row", r->path,
                               (long long)header.line, r->columns[i]);
    }
    return TN_OK;
}

/* ---- Text ---- */

static void next_text(tn_reader *r, tn_slice *slice, bool *found) {
    *found = skip_space(r, r->at) < r->length; /* white space alone is no document */
    *slice = (tn_slice){r->at, r->length - r->at, 1};
    r->at = r->length;
}

static tn_status parse_text(const tn_reader *r, tn_slice slice, tn_arena *arena, const tn_json **record) {
    tn_json *object = tn_arena_take(arena, sizeof *object);
    tn_member *member = tn_arena_take(arena, sizeof *member);
    if (!object || !member) return tn_fail_memory((int64_t)sizeof *member, "a document");
    /* Not a copy: the mapping outlives the record. Its end is not terminated: readers go by the length. */
    *member = (tn_member){.key = "text", .key_length = 4};
    member->value = (tn_json){.type = TN_JSON_STRING, .count = slice.length, .string = r->text + slice.start};
    *object = (tn_json){.type = TN_JSON_OBJECT, .count = 1, .members = member};
    *record = object;
    return TN_OK;
}

/* ---- All kinds ---- */

static tn_status check_utf8(const tn_reader *r, tn_slice slice) {
    const char *text = r->text + slice.start;
    uint32_t code_point;
    int64_t at = 0;
    if (tn_utf8_valid(text, slice.length)) return TN_OK;
    for (int n; at < slice.length && (n = tn_utf8_decode(text + at, slice.length - at, &code_point)) > 0;)
        at += n;
    tn_fail(TN_BAD_DATA, "%s:%lld: not UTF-8 at byte %lld of the file (0x%02X)", r->path,
            (long long)(slice.line + count_lines(text, at)), (long long)(text + at - (const char *)r->map.data),
            (unsigned)(unsigned char)text[at]);
    return tn_remedy("%s", tn_utf8_remedy((const char *)r->map.data, r->map.bytes));
}

static tn_status parse_json(const tn_reader *r, tn_slice slice, tn_arena *arena, tn_json_notes *notes,
                            const tn_json **record) {
    char *name = tn_arena_printf(arena, "%s:%lld", r->path, (long long)slice.line);
    if (!name) return tn_fail_memory(256, "a file name");
    tn_status status = tn_json_parse_noting(arena, r->text + slice.start, slice.length, TN_JSON_EXTENSIONS,
                                            name, notes, record);
    if (status == TN_BAD_DATA && slice.start + slice.length == r->length)
        tn_remedy("it is the last record: the file may be cut off");
    return status;
}

tn_status tn_reader_parse(const tn_reader *r, tn_slice slice, tn_arena *arena, tn_json_notes *notes,
                          const tn_json **record) {
    tn_status status = check_utf8(r, slice);
    if (status != TN_OK) return status;
    if (r->kind == CSV) return parse_row(r, slice, arena, record);
    if (r->kind == TEXT) return parse_text(r, slice, arena, record);
    return parse_json(r, slice, arena, notes, record);
}

tn_status tn_reader_next(tn_reader *r, tn_slice *slice, bool *found) {
    *slice = (tn_slice){0};
    if (r->kind == JSON) return next_json(r, slice, found);
    if (r->kind == CSV) return next_row(r, slice, found);
    if (r->kind == JSONL) next_line(r, slice, found);
    else next_text(r, slice, found);
    return TN_OK;
}

static tn_status find_kind(const char *path, reader_kind *kind) {
    const char *name = tn_path_base(path), *suffix = strrchr(name, '.');
    for (int k = 0; suffix && k < KINDS; k++)
        if (strcasecmp(suffix, suffixes[k]) == 0) return *kind = (reader_kind)k, TN_OK;
    tn_fail(TN_USAGE, "%s: a dataset is a .jsonl, .json, .csv or .txt file", path);
    return tn_remedy("convert it to JSON lines, or rename the file by what it holds");
}

static tn_status start(tn_reader *r) {
    r->text = r->map.data ? (const char *)r->map.data : "";
    r->length = r->map.bytes;
    r->line = 1;
    if (r->length >= 3 && memcmp(r->text, "\xEF\xBB\xBF", 3) == 0) r->at = 3;
    if (r->kind == JSON) start_json(r);
    return r->kind == CSV ? start_csv(r) : TN_OK;
}

static tn_status open_reader(const char *path, const tn_map *memory, tn_reader **reader) {
    tn_reader *r;
    tn_status status = tn_alloc(&r, 1, sizeof *r, "a reader");
    if (status != TN_OK) return status;
    TN_TRY(find_kind(path, &r->kind));
    r->path = strdup(path);
    if (!r->path) TN_THROW(TN_FAILED, "out of memory for a path");
    if (memory) r->map = *memory;
    else TN_TRY(tn_map_open(path, &r->map));
    r->mapped = !memory;
    TN_TRY(start(r));
done:
    if (status != TN_OK) tn_reader_free(r);
    *reader = status == TN_OK ? r : NULL;
    return status;
}

tn_status tn_reader_open(const char *path, tn_reader **reader) { return open_reader(path, NULL, reader); }

tn_status tn_reader_open_memory(const char *path, const void *bytes, int64_t length, tn_reader **reader) {
    tn_map memory = {bytes, length};
    return open_reader(path, &memory, reader);
}

void tn_reader_free(tn_reader *r) {
    if (!r) return;
    if (r->mapped) tn_map_close(&r->map);
    tn_arena_free(&r->arena);
    free(r->path);
    free(r);
}

const char *tn_reader_path(const tn_reader *r) { return r->path; }
tn_map tn_reader_bytes(const tn_reader *r) { return r->map; }
const char *tn_reader_kind(const tn_reader *r) { return suffixes[r->kind]; }
