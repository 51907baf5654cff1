/* bpe_load.c: the tables of a BPE model: merges by pair of ids, ids of single bytes, and the pairs of
 * characters that some merge puts side by side.
 */
#include <stdio.h>
#include <stdlib.h>

#include "text/bpe.h"

typedef struct loader {
    tn_bpe *bpe;
    const tn_vocab *vocab; /* of the file */
    int32_t product;       /* of the merge before */
    tn_str joined;
} loader;

static void put_merge(tn_bpe *bpe, tn_bpe_merge merge) {
    tn_bpe_merge *known = (tn_bpe_merge *)tn_merge_find(bpe, merge.left, merge.right);
    if (known) { /* of equal pairs the last counts */
        *known = merge;
        return;
    }
    uint64_t hash = ((uint64_t)(uint32_t)merge.left << 32 | (uint32_t)merge.right) * 0x9E3779B97F4A7C15u;
    uint64_t mask = (uint64_t)(bpe->slot_count - 1), at = (hash ^ hash >> 29) >> 8 & mask;
    while (bpe->merges[at].left >= 0) at = (at + 1) & mask;
    bpe->merges[at] = merge;
}

/* Splits "a b" or reads [a, b]. */
static bool read_pair(const tn_json *node, tn_entry pair[2]) {
    if (node->type == TN_JSON_ARRAY && node->count == 2 && node->items[0].type == TN_JSON_STRING &&
        node->items[1].type == TN_JSON_STRING) {
        for (int i = 0; i < 2; i++) {
            if (node->items[i].count > INT32_MAX) return false;
            pair[i] = (tn_entry){node->items[i].string, (int32_t)node->items[i].count};
        }
        return true;
    }
    if (node->type != TN_JSON_STRING || node->count > INT32_MAX) return false;
    const char *space = memchr(node->string, ' ', (size_t)node->count);
    if (!space) return false;
    int64_t left = space - node->string, right = node->count - left - 1;
    if (memchr(space + 1, ' ', (size_t)right)) return false;
    pair[0] = (tn_entry){node->string, (int32_t)left};
    pair[1] = (tn_entry){space + 1, (int32_t)right};
    return true;
}

/* Files list merges in the order of what they make: the id is mostly that of the merge before, or the next. */
static int32_t find_product(loader *l) {
    for (int64_t id = l->product; id <= (int64_t)l->product + 1 && id < l->vocab->count; id++) {
        const tn_entry *entry = &l->vocab->entries[id];
        if (entry->text && entry->length == l->joined.length &&
            memcmp(entry->text, l->joined.data, (size_t)entry->length) == 0)
            return l->product = (int32_t)id;
    }
    int32_t id = tn_vocab_find(l->vocab, l->joined.data, l->joined.length);
    if (id >= 0) l->product = id;
    return id;
}

/* As much of it as a message shows. */
static int shown(tn_entry entry) { return entry.length < 40 ? entry.length : 40; }

static tn_status load_merge(loader *l, const tn_json *node, int64_t rank) {
    tn_entry pair[2];
    if (!read_pair(node, pair))
        return tn_fail(TN_BAD_DATA, "merge %lld is neither \"left right\" nor [left, right]", (long long)rank);
    int32_t ids[3];
    for (int i = 0; i < 2; i++) ids[i] = tn_vocab_find(l->vocab, pair[i].text, pair[i].length);
    int32_t cut = (int32_t)strlen(l->bpe->prefix);
    if (cut > pair[1].length) cut = pair[1].length;
    tn_str_clear(&l->joined);
    tn_str_add(&l->joined, pair[0].text, pair[0].length);
    tn_str_add(&l->joined, pair[1].text + cut, pair[1].length - cut);
    if (l->joined.failed) return tn_str_check(&l->joined, "merges");
    ids[2] = find_product(l);
    if (ids[0] < 0 || ids[1] < 0 || ids[2] < 0)
        return tn_fail(TN_BAD_DATA,
                       "merge %lld (\"%.*s\" + \"%.*s\") uses a token that is not in the vocabulary",
                       (long long)rank, shown(pair[0]), pair[0].text, shown(pair[1]), pair[1].text);
    put_merge(l->bpe, (tn_bpe_merge){ids[0], ids[1], (int32_t)rank, ids[2]});
    return TN_OK;
}

static tn_status load_merges(loader *l, const tn_json *merges) {
    tn_status status = TN_OK;
    if (merges && merges->type != TN_JSON_ARRAY) return tn_fail(TN_BAD_DATA, "merges is not an array");
    int64_t count = merges ? merges->count : 0;
    if (count >= INT32_MAX / 4) return tn_fail(TN_BAD_DATA, "%lld merges are too many", (long long)count);
    int64_t slots = 16;
    while (slots * 3 < count * 5) slots *= 2; /* at most 60 % full */
    l->bpe->slot_count = slots;
    TN_TRY(tn_alloc_aligned(&l->bpe->merges, slots * (int64_t)sizeof *l->bpe->merges, "merges"));
    memset(l->bpe->merges, 0xFF, (size_t)slots * sizeof *l->bpe->merges);
    for (int64_t rank = 0; rank < count; rank++)
        if (!tn_starts_with(tn_json_string(&merges->items[rank], ""), "#version"))
            TN_TRY(load_merge(l, &merges->items[rank], rank));
done:
    return status;
}

/* ---- Neighbours ---- */

/* Cutting is sound where a symbol's text is the text it stands for: no prefixes or suffixes, nothing dropped,
 * nothing fused, and no merge of byte or unknown tokens. */
static bool can_cut(const tn_bpe *bpe) {
    bool all_bytes = bpe->byte_fallback;
    if (bpe->raw || bpe->prefix[0] || bpe->suffix[0]) return false;
    for (int b = 0; b < 256; b++) all_bytes = all_bytes && bpe->bytes[b] >= 0;
    if (!all_bytes && (bpe->byte_fallback || bpe->unk < 0 || bpe->fuse_unk)) return false;
    for (int64_t i = 0; i < bpe->slot_count; i++) {
        const tn_bpe_merge *m = &bpe->merges[i];
        if (m->left < 0) continue;
        if (m->left == bpe->unk || m->right == bpe->unk) return false;
        const tn_entry *parts[2] = {&bpe->vocab->entries[m->left], &bpe->vocab->entries[m->right]};
        for (int p = 0; p < 2; p++)
            if (parts[p]->length == 6 && memcmp(parts[p]->text, "<0x", 3) == 0) return false;
    }
    return true;
}

static void note_neighbours(tn_bpe *bpe, const tn_entry *entry, int64_t *used) {
    uint32_t before = 0, c;
    for (int64_t i = 0; i < entry->length; before = c) {
        int n = tn_char_at(entry->text + i, &c);
        bool first = i == 0;
        i += n;
        if (first) continue;
        if (before < 128 && c < 128) {
            bpe->ascii_neighbours[(before << 7 | c) >> 3] |= (unsigned char)(1 << (c & 7));
            continue;
        }
        uint64_t pair = tn_neighbour_pair(before, c);
        uint64_t at = tn_neighbour_slot(bpe->neighbours, bpe->neighbour_slots, pair);
        *used += bpe->neighbours[at] == 0;
        bpe->neighbours[at] = pair;
    }
}

static tn_status load_neighbours(tn_bpe *bpe) {
    int64_t characters = 0, used = 0, slots = 16;
    if (!can_cut(bpe)) return TN_OK;
    for (int64_t i = 0; i < bpe->slot_count; i++)
        if (bpe->merges[i].left >= 0) characters += bpe->vocab->entries[bpe->merges[i].id].length;
    while (slots < characters) slots *= 2; /* pairs are fewer than bytes, and most repeat */
    tn_status status = tn_alloc(&bpe->neighbours, slots, sizeof *bpe->neighbours, "merge table");
    if (status != TN_OK) return status;
    bpe->neighbour_slots = slots;
    for (int64_t i = 0; i < bpe->slot_count; i++)
        if (bpe->merges[i].left >= 0) note_neighbours(bpe, &bpe->vocab->entries[bpe->merges[i].id], &used);
    return TN_OK;
}

/* ---- The whole ---- */

static const char *text_of(const tn_json *node, tn_arena *arena) {
    const char *text = tn_json_string(node, "");
    return *text ? tn_arena_text(arena, text, (int64_t)strlen(text)) : "";
}

static tn_status load_unk(const tn_json *model, const tn_vocab *contents, tn_bpe *bpe) {
    const tn_json *unk = tn_json_get(model, "unk_token");
    bpe->unk = -1;
    if (tn_json_is_null(unk)) return TN_OK;
    bpe->unk = unk->type == TN_JSON_STRING ? tn_vocab_find(contents, unk->string, unk->count) : -1;
    if (bpe->unk >= 0) return TN_OK;
    return tn_fail(TN_BAD_DATA, "unk_token \"%s\" is not in the vocabulary", tn_json_string(unk, "?"));
}

tn_status tn_bpe_load(const tn_json *model, const tn_vocab *contents, const tn_vocab *pieces, bool raw,
                      tn_arena *arena, tn_bpe *bpe) {
    tn_status status = TN_OK;
    loader l = {.bpe = bpe, .vocab = contents};
    bpe->vocab = pieces;
    bpe->raw = raw;
    bpe->ignore_merges = tn_json_boolean(tn_json_get(model, "ignore_merges"), false);
    bpe->byte_fallback = tn_json_boolean(tn_json_get(model, "byte_fallback"), false);
    bpe->fuse_unk = tn_json_boolean(tn_json_get(model, "fuse_unk"), false);
    bpe->prefix = text_of(tn_json_get(model, "continuing_subword_prefix"), arena);
    bpe->suffix = text_of(tn_json_get(model, "end_of_word_suffix"), arena);
    if (!bpe->prefix || !bpe->suffix) return tn_fail_memory(16, "BPE model");
    if (tn_json_number(tn_json_get(model, "dropout"), 0) != 0)
        TN_THROW(TN_BAD_DATA, "BPE dropout is not supported (set \"dropout\" to null)");
    TN_TRY(load_unk(model, contents, bpe));
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        char byte = (char)b;
        bpe->bytes[b] = raw ? tn_vocab_find(pieces, &byte, 1) : tn_vocab_find(contents, name, 6);
    }
    TN_TRY(load_merges(&l, tn_json_get(model, "merges")));
    status = load_neighbours(bpe);
done:
    tn_str_free(&l.joined);
    return status;
}

void tn_bpe_free(tn_bpe *bpe) {
    free(bpe->merges);
    free(bpe->neighbours);
    *bpe = (tn_bpe){0};
}
