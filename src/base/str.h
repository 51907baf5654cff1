/* str.h: growing byte strings, UTF-8 checks and the few text helpers every module needs.
 *
 * tn_str is a growing buffer that is always terminated. An append that runs out of memory sets
 * `failed` and later appends do nothing, so that a long run of appends is checked once at its end.
 */
#ifndef TN_BASE_STR_H
#define TN_BASE_STR_H

#include <stdarg.h>

#include "base/status.h"

typedef struct tn_str {
    char *data;               /* NULL until the first append; else terminated */
    int64_t length, capacity; /* bytes */
    bool failed;
} tn_str;

void tn_str_add(tn_str *s, const char *bytes, int64_t length);
void tn_str_puts(tn_str *s, const char *text);
void tn_str_putc(tn_str *s, char c);
void tn_str_printf(tn_str *s, const char *format, ...) TN_PRINTF(2, 3);
void tn_str_vprintf(tn_str *s, const char *format, va_list arguments) TN_PRINTF(2, 0);
/* UTF-8 of one code point. */
void tn_str_code_point(tn_str *s, uint32_t code_point);
void tn_str_clear(tn_str *s); /* keeps the memory */
void tn_str_free(tn_str *s);
/* Out-of-memory as a status. */
tn_status tn_str_check(const tn_str *s, const char *what);
/* The text, "" for an empty one. */
const char *tn_str_text(const tn_str *s);

/* Decodes the code point at `text` (length > 0). Returns its bytes, 0 where the bytes are not UTF-8
 * (overlong forms, surrogates and values over U+10FFFF are not). */
int tn_utf8_decode(const char *text, int64_t length, uint32_t *code_point);
bool tn_utf8_valid(const char *text, int64_t length);
/* Bytes before the first one that is not UTF-8; `length` where all are. */
int64_t tn_utf8_valid_prefix(const char *text, int64_t length);
/* What to do about a file that is not UTF-8, by how it begins. */
const char *tn_utf8_remedy(const char *text, int64_t length);
/* Appends `text` with each maximal invalid part replaced by U+FFFD, as Python and Rust do it. */
void tn_utf8_lossy(tn_str *out, const char *text, int64_t length);
/* Bytes at the end of `text` that begin a character whose rest is missing (0 to 3). */
int tn_utf8_incomplete_tail(const char *text, int64_t length);

bool tn_starts_with(const char *text, const char *prefix);
bool tn_ends_with(const char *text, const char *suffix);
/* Number of single-character edits (Damerau) between two short words, for "did you mean". */
int tn_edit_distance(const char *a, const char *b);
/* "16.4 GiB", "512 B" into `out`. */
const char *tn_bytes_text(int64_t bytes, char out[32]);
/* "1,218,445,312" into `out`. */
const char *tn_count_text(int64_t count, char out[32]);

#endif
