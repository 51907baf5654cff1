/* str.c: growing strings and UTF-8. */
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void tn_str_add(tn_str *s, const char *bytes, int64_t length) {
    if (s->failed || length < 0 ||
        tn_grow(&s->data, &s->capacity, s->length + length + 1, 1, "text") != TN_OK) {
        s->failed = true;
        return;
    }
    if (length > 0) memcpy(s->data + s->length, bytes, (size_t)length);
    s->length += length;
    s->data[s->length] = '\0';
}

void tn_str_puts(tn_str *s, const char *text) { tn_str_add(s, text, (int64_t)strlen(text)); }
void tn_str_putc(tn_str *s, char c) { tn_str_add(s, &c, 1); }

void tn_str_vprintf(tn_str *s, const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    if (length < 0 || s->failed ||
        tn_grow(&s->data, &s->capacity, s->length + length + 1, 1, "text") != TN_OK) {
        s->failed = true;
    } else {
        vsnprintf(s->data + s->length, (size_t)length + 1, format, again);
        s->length += length;
    }
    va_end(again);
}

void tn_str_printf(tn_str *s, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    tn_str_vprintf(s, format, arguments);
    va_end(arguments);
}

void tn_str_code_point(tn_str *s, uint32_t c) {
    char b[4];
    if (c < 0x80) {
        b[0] = (char)c;
        tn_str_add(s, b, 1);
    } else if (c < 0x800) {
        b[0] = (char)(0xC0 | (c >> 6)), b[1] = (char)(0x80 | (c & 63));
        tn_str_add(s, b, 2);
    } else if (c < 0x10000) {
        b[0] = (char)(0xE0 | (c >> 12)), b[1] = (char)(0x80 | ((c >> 6) & 63)), b[2] = (char)(0x80 | (c & 63));
        tn_str_add(s, b, 3);
    } else {
        b[0] = (char)(0xF0 | (c >> 18)), b[1] = (char)(0x80 | ((c >> 12) & 63));
        b[2] = (char)(0x80 | ((c >> 6) & 63)), b[3] = (char)(0x80 | (c & 63));
        tn_str_add(s, b, 4);
    }
}

void tn_str_clear(tn_str *s) {
    s->length = 0;
    s->failed = false;
    if (s->data) s->data[0] = '\0';
}

void tn_str_free(tn_str *s) {
    free(s->data);
    *s = (tn_str){0};
}

tn_status tn_str_check(const tn_str *s, const char *what) {
    return s->failed ? tn_fail_memory(s->length, what) : TN_OK;
}

const char *tn_str_text(const tn_str *s) { return s->data ? s->data : ""; }

/* Length of the valid prefix of a character at `text` in *prefix when it is not a whole valid one. */
static int decode(const char *text, int64_t length, uint32_t *code_point, int *prefix) {
    const unsigned char *p = (const unsigned char *)text;
    uint32_t c = p[0], low = 0x80, high = 0xBF;
    int need;
    *prefix = 1;
    if (c < 0x80) {
        *code_point = c;
        return 1;
    }
    if (c >= 0xC2 && c <= 0xDF) need = 1, c &= 0x1F;
    else if (c >= 0xE0 && c <= 0xEF) {
        if (c == 0xE0) low = 0xA0;
        if (c == 0xED) high = 0x9F;
        need = 2, c &= 0x0F;
    } else if (c >= 0xF0 && c <= 0xF4) {
        if (c == 0xF0) low = 0x90;
        if (c == 0xF4) high = 0x8F;
        need = 3, c &= 0x07;
    } else return 0;
    for (int i = 1; i <= need; i++) {
        if (i >= length || p[i] < low || p[i] > high) return 0;
        c = (c << 6) | (p[i] & 0x3Fu);
        low = 0x80, high = 0xBF;
        *prefix = i + 1;
    }
    *code_point = c;
    return need + 1;
}

int tn_utf8_decode(const char *text, int64_t length, uint32_t *code_point) {
    int prefix;
    return decode(text, length, code_point, &prefix);
}

int64_t tn_utf8_valid_prefix(const char *text, int64_t length) {
    uint32_t c;
    int64_t i = 0;
    while (i < length) {
        uint64_t eight;
        if (length - i >= 8) { /* ASCII fast path */
            memcpy(&eight, text + i, 8);
            if (!(eight & 0x8080808080808080u)) {
                i += 8;
                continue;
            }
        }
        int n = tn_utf8_decode(text + i, length - i, &c);
        if (n == 0) break;
        i += n;
    }
    return i;
}

bool tn_utf8_valid(const char *text, int64_t length) { return tn_utf8_valid_prefix(text, length) == length; }

const char *tn_utf8_remedy(const char *text, int64_t length) {
    bool marked = length >= 2 && (memcmp(text, "\xFF\xFE", 2) == 0 || memcmp(text, "\xFE\xFF", 2) == 0);
    return marked ? "the file is UTF-16, as Windows writes it; convert it: iconv -f UTF-16 -t UTF-8 old > new"
                  : "convert the file to UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8 old > new";
}

void tn_utf8_lossy(tn_str *out, const char *text, int64_t length) {
    uint32_t c;
    int prefix;
    int64_t start = 0;
    if (tn_utf8_valid(text, length)) {
        tn_str_add(out, text, length);
        return;
    }
    for (int64_t i = 0; i < length;) {
        int n = decode(text + i, length - i, &c, &prefix);
        if (n > 0) {
            i += n;
            continue;
        }
        tn_str_add(out, text + start, i - start);
        tn_str_puts(out, "\xEF\xBF\xBD");
        i += prefix;
        start = i;
    }
    tn_str_add(out, text + start, length - start);
}

int tn_utf8_incomplete_tail(const char *text, int64_t length) {
    uint32_t c;
    int prefix;
    for (int back = 1; back <= 3 && back <= length; back++) {
        unsigned char lead = (unsigned char)text[length - back];
        if ((lead & 0xC0) == 0x80) continue;
        if (lead < 0xC2 || lead > 0xF4) return 0;
        if (decode(text + length - back, back, &c, &prefix) > 0) return 0;
        int need = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        return prefix == back && back < need ? back : 0;
    }
    return 0;
}

bool tn_starts_with(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

bool tn_ends_with(const char *text, const char *suffix) {
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

int tn_edit_distance(const char *a, const char *b) {
    enum { LONGEST = 64 };
    int row[3][LONGEST + 1]; /* three rows: transpositions look two back */
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST) return 1000;
    for (size_t j = 0; j <= m; j++) row[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *now = row[i % 3], *before = row[(i + 2) % 3], *earlier = row[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = before[j - 1] + (a[i - 1] != b[j - 1]);
            if (before[j] + 1 < best) best = before[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && earlier[j - 2] + 1 < best)
                best = earlier[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

const char *tn_bytes_text(int64_t bytes, char out[32]) {
    static const char *units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 1024 && unit < 5) value /= 1024, unit++;
    snprintf(out, 32, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
    return out;
}

const char *tn_count_text(int64_t count, char out[32]) {
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)count), at = 0;
    for (int i = 0; i < n; i++) {
        out[at++] = digits[i];
        if (digits[i] != '-' && i + 1 < n && (n - 1 - i) % 3 == 0) out[at++] = ',';
    }
    out[at] = '\0';
    return out;
}
