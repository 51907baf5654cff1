/* charsmap.c: SentencePiece's table of replacements (the normalizer Precompiled). The table is a double-array
 * trie (Darts) over UTF-8 bytes whose leaves point into a block of NUL-terminated replacements.
 *
 * As in the tokenizers library a grapheme of up to five bytes is looked up whole, else each of its characters,
 * and the shortest entry that begins it counts.
 */
#include <stdlib.h>
#include <utf8proc.h>

#include "text/pipeline.h"

enum { LONGEST_GRAPHEME = 5 /* bytes */ };

struct tn_charsmap {
    uint32_t *units;
    int64_t unit_count;
    tn_str texts; /* the replacements, each ended by a NUL */
};

/* ---- Loading ---- */

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool decode_base64(const char *text, int64_t length, tn_str *out) {
    uint32_t bits = 0;
    int held = 0;
    while (length > 0 && text[length - 1] == '=') length--;
    for (int64_t i = 0; i < length; i++) {
        int value = base64_value(text[i]);
        if (value < 0) return false;
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held < 8) continue;
        held -= 8;
        tn_str_putc(out, (char)(bits >> held & 0xFF));
    }
    return true;
}

/* u32 bytes of the trie; the trie's units; the replacements. Little-endian. */
static tn_status read_table(const tn_str *bytes, tn_charsmap *map) {
    const unsigned char *at = (const unsigned char *)bytes->data;
    int64_t trie = bytes->length < 4 ? -1 : (int64_t)(at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24);
    if (trie < 4 || trie % 4 != 0 || trie > bytes->length - 4 ||
        !tn_utf8_valid(bytes->data + 4 + trie, bytes->length - 4 - trie))
        return tn_fail(TN_BAD_DATA, "normalizer Precompiled: the table is damaged");
    map->unit_count = trie / 4;
    tn_status status = tn_alloc(&map->units, map->unit_count, sizeof *map->units, "normalizer");
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < map->unit_count; i++) {
        const unsigned char *unit = at + 4 + 4 * i;
        map->units[i] = unit[0] | (uint32_t)unit[1] << 8 | (uint32_t)unit[2] << 16 | (uint32_t)unit[3] << 24;
    }
    tn_str_add(&map->texts, bytes->data + 4 + trie, bytes->length - 4 - trie);
    tn_str_putc(&map->texts, '\0');
    return tn_str_check(&map->texts, "normalizer");
}

tn_status tn_charsmap_load(const char *base64, int64_t length, tn_charsmap **map) {
    tn_status status = TN_OK;
    tn_str bytes = {0};
    tn_charsmap *made = NULL;
    TN_TRY(tn_alloc(&made, 1, sizeof *made, "normalizer"));
    if (!decode_base64(base64, length, &bytes))
        TN_THROW(TN_BAD_DATA, "normalizer Precompiled: the table is not base64");
    TN_TRY(tn_str_check(&bytes, "normalizer"));
    TN_TRY(read_table(&bytes, made));
    *map = made;
    made = NULL;
done:
    tn_charsmap_free(made);
    tn_str_free(&bytes);
    return status;
}

void tn_charsmap_free(tn_charsmap *map) {
    if (!map) return;
    free(map->units);
    tn_str_free(&map->texts);
    free(map);
}

/* ---- Looking up ---- */

/* A unit: bit 8 has a leaf, bits 0-7 (and 31) its label, the rest the offset to its children. */
static int64_t offset_of(uint32_t unit) { return (int64_t)(unit >> 10) << ((unit & 1u << 9) >> 6); }

/* Replacement of the shortest entry that begins `text`, NULL: none. */
static const char *find(const tn_charsmap *map, const char *text, int64_t length) {
    int64_t at = offset_of(map->units[0]);
    for (int64_t i = 0; i < length && text[i] != '\0'; i++) {
        unsigned char byte = (unsigned char)text[i];
        at ^= byte;
        if (at >= map->unit_count) return NULL;
        uint32_t unit = map->units[at];
        if ((unit & (1u << 31 | 0xFF)) != byte) return NULL;
        at ^= offset_of(unit);
        if (at >= map->unit_count) return NULL;
        if (!(unit >> 8 & 1)) continue;
        int64_t value = map->units[at] & ~(1u << 31);
        return value < map->texts.length ? map->texts.data + value : NULL;
    }
    return NULL;
}

static bool put_replacement(const tn_charsmap *map, const tn_view *in, int64_t start, int64_t end,
                            tn_buffer *out) {
    const char *text = find(map, in->text + start, end - start);
    if (text) tn_buffer_put(out, text, (int64_t)strlen(text), tn_view_origin(in, start, end));
    return text != NULL;
}

static int64_t grapheme_end(const tn_view *in, int64_t start) {
    utf8proc_int32_t state = 0;
    uint32_t before, c;
    int64_t end = start + tn_char_at(in->text + start, &before);
    while (end < in->length) {
        int n = tn_char_at(in->text + end, &c);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)c, &state)) break;
        before = c;
        end += n;
    }
    return end;
}

bool tn_charsmap_run(const tn_charsmap *map, const tn_view *in, tn_buffer *out) {
    bool changed = false;
    for (int64_t i = 0, end; i < in->length; i = end) {
        end = grapheme_end(in, i);
        if (end - i <= LONGEST_GRAPHEME && put_replacement(map, in, i, end, out)) {
            changed = true;
            continue;
        }
        for (int64_t j = i, n; j < end; j += n) {
            uint32_t c;
            n = tn_char_at(in->text + j, &c);
            if (put_replacement(map, in, j, j + n, out)) changed = true;
            else tn_buffer_copy(out, in, j, j + n);
        }
    }
    return changed;
}
