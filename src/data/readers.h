/* readers.h: files of records as slices of a mapped file. Finding the next slice is a short scan in order;
 * parsing one is a pure function, so that many threads parse different records of one file at a time and
 * nothing but the records in work is in memory.
 *
 *   .jsonl  one JSON value a line; blank lines are skipped
 *   .json   an array of records, {"data": [...]}, one object, or values one behind another (JSON lines)
 *   .csv    RFC 4180 with a header row: every field is a string under its column's name
 *   .txt    the whole file is one document: the record {"text": ...}. Stage cpt splits it at max_length,
 *           sft cuts it.
 *
 * A UTF-8 byte order mark is skipped, LF and CRLF end lines. Bytes that are not UTF-8 are TN_BAD_DATA.
 */
#ifndef TN_DATA_READERS_H
#define TN_DATA_READERS_H

#include "base/file.h"
#include "base/json.h"

typedef struct tn_reader tn_reader;

/* The bytes of one record, and the line (from 1) they begin in. */
typedef struct tn_slice {
    int64_t start, length, line;
} tn_slice;

/* The kind is the suffix of `path`. Errors: TN_USAGE (missing, unknown suffix), TN_BAD_DATA (a bad header). */
tn_status tn_reader_open(const char *path, tn_reader **reader);
/* The same over memory that stays the caller's; `path` names it and gives the kind. */
tn_status tn_reader_open_memory(const char *path, const void *bytes, int64_t length, tn_reader **reader);
void tn_reader_free(tn_reader *reader);
/* The next record; *found is false behind the last. Errors: TN_BAD_DATA with file and line. */
tn_status tn_reader_next(tn_reader *reader, tn_slice *slice, bool *found);
/* The record as a tree in the arena; safe from several threads. `notes` (may be NULL): as in json.h. Errors:
 * TN_BAD_DATA with file and line. */
tn_status tn_reader_parse(const tn_reader *reader, tn_slice slice, tn_arena *arena, tn_json_notes *notes,
                          const tn_json **record);
const char *tn_reader_path(const tn_reader *reader);
/* The mapped bytes, for hashing, and what else decides how they are read. */
tn_map tn_reader_bytes(const tn_reader *reader);
const char *tn_reader_kind(const tn_reader *reader);

#endif
