/* characters.c: character classes as Rust's standard library and Unicode define them, GPT-2's byte map, and
 * views and buffers of text. Categories come from utf8proc.
 */
#include <stdlib.h>
#include <utf8proc.h>

#include "text/pipeline.h"

static bool is_white_space(uint32_t c) {
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

static bool is_punctuation(uint32_t c) {
    if (c < 0x80)
        return c > ' ' && c < 0x7F && !(c >= '0' && c <= '9') && !((c | 32) >= 'a' && (c | 32) <= 'z');
    int category = tn_char_category(c, 8);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

static bool is_numeric(uint32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9';
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool tn_char_is(tn_char_class what, uint32_t c, uint32_t one) {
    switch (what) {
        case TN_CHAR_WHITE_SPACE: return is_white_space(c);
        case TN_CHAR_NUMERIC: return is_numeric(c);
        case TN_CHAR_PUNCTUATION: return is_punctuation(c);
        case TN_CHAR_ONE: return c == one;
    }
    return false;
}

bool tn_char_is_word(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO:
        case UTF8PROC_CATEGORY_MN:
        case UTF8PROC_CATEGORY_MC:
        case UTF8PROC_CATEGORY_ME:
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_NL:
        case UTF8PROC_CATEGORY_PC: return true;
        default: /* Join_Control, and the circled and squared letters that are Other_Alphabetic */
            return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
                   (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
                   (c >= 0x1F170 && c <= 0x1F189);
    }
}

int tn_char_at(const char *text, uint32_t *c) {
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < 0x80) return *c = p[0], 1;
    if (p[0] < 0xE0) return *c = (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu), 2;
    if (p[0] < 0xF0) return *c = (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu), 3;
    return *c = (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu), 4;
}

int64_t tn_char_before(const char *text, int64_t end) {
    do end--;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80);
    return end;
}

/* Bytes that stand for themselves; the other 68 go, ascending, to U+0100 and up. */
static bool maps_to_itself(uint32_t b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xFF && b != 0xAD);
}

uint32_t tn_byte_to_char(unsigned char byte) {
    if (maps_to_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    return byte == 0xAD ? 0x143u : 0x121u + byte - 0x7Fu;
}

int tn_char_to_byte(uint32_t c) {
    if (c < 0x100) return maps_to_itself(c) ? (int)c : -1;
    if (c <= 0x120) return (int)(c - 0x100);
    if (c <= 0x142) return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

bool tn_unmap_bytes(const char *text, int64_t length, tn_str *out) {
    for (int64_t i = 0; i < length;) {
        uint32_t c;
        i += tn_char_at(text + i, &c);
        int byte = tn_char_to_byte(c);
        if (byte < 0) return false;
        tn_str_putc(out, (char)byte);
    }
    return true;
}

tn_view tn_view_slice(const tn_view *view, int64_t start, int64_t end) {
    return (tn_view){view->text + start, end - start, view->map ? view->map + start : NULL,
                     view->shift + start};
}

tn_range tn_view_origin(const tn_view *view, int64_t start, int64_t end) {
    if (!view->map) return (tn_range){view->shift + start, view->shift + end};
    if (start < end) return (tn_range){view->map[start].start, view->map[end - 1].end};
    return (tn_range){0, 0};
}

void tn_buffer_clear(tn_buffer *buffer, bool mapped) {
    tn_str_clear(&buffer->text);
    buffer->mapped = mapped;
}

/* Room for `length` more map entries; false when memory is out. */
static bool more_map(tn_buffer *buffer, int64_t length) {
    if (!buffer->mapped) return false;
    if (tn_grow(&buffer->map, &buffer->map_capacity, buffer->text.length + length, sizeof *buffer->map,
                "spans") == TN_OK)
        return true;
    buffer->text.failed = true;
    return false;
}

void tn_buffer_put(tn_buffer *buffer, const char *bytes, int64_t length, tn_range origin) {
    if (more_map(buffer, length))
        for (int64_t i = 0; i < length; i++) buffer->map[buffer->text.length + i] = origin;
    tn_str_add(&buffer->text, bytes, length);
}

void tn_buffer_put_code_point(tn_buffer *buffer, uint32_t c, tn_range origin) {
    int64_t before = buffer->text.length;
    if (!more_map(buffer, 4) && buffer->mapped) return;
    tn_str_code_point(&buffer->text, c);
    if (buffer->mapped)
        for (int64_t i = before; i < buffer->text.length; i++) buffer->map[i] = origin;
}

void tn_buffer_copy(tn_buffer *buffer, const tn_view *view, int64_t start, int64_t end) {
    if (start >= end) return;
    if (more_map(buffer, end - start)) {
        tn_range *to = buffer->map + buffer->text.length;
        for (int64_t i = start, n; i < end; i += n) { /* an unmapped character's bytes share its range */
            uint32_t c;
            n = tn_char_at(view->text + i, &c);
            tn_range whole = tn_view_origin(view, i, i + n);
            for (int64_t j = 0; j < n; j++) *to++ = view->map ? view->map[i + j] : whole;
        }
    }
    tn_str_add(&buffer->text, view->text + start, end - start);
}

tn_view tn_buffer_view(const tn_buffer *buffer) {
    return (tn_view){tn_str_text(&buffer->text), buffer->text.length, buffer->mapped ? buffer->map : NULL, 0};
}

void tn_buffer_free(tn_buffer *buffer) {
    tn_str_free(&buffer->text);
    free(buffer->map);
    *buffer = (tn_buffer){0};
}

tn_status tn_pieces_push(tn_pieces *pieces, int64_t start, int64_t end) {
    if (start >= end) return TN_OK;
    if (pieces->count == pieces->capacity) {
        tn_status status =
            tn_grow(&pieces->ranges, &pieces->capacity, pieces->count + 1, sizeof *pieces->ranges, "pieces");
        if (status != TN_OK) return status;
    }
    pieces->ranges[pieces->count++] = (tn_range){start, end};
    return TN_OK;
}

tn_status tn_tokens_push(tn_tokens *tokens, int32_t id, int64_t length) {
    if (tokens->count == tokens->capacity) {
        tn_status status =
            tn_grow(&tokens->tokens, &tokens->capacity, tokens->count + 1, sizeof *tokens->tokens, "tokens");
        if (status != TN_OK) return status;
    }
    tokens->tokens[tokens->count++] = (tn_token){id, (int32_t)length};
    return TN_OK;
}
