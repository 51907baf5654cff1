/* vocab.c: ids by string and strings by id. The index is a table of (tag, id) by open addressing, so that
 * a look-up touches one slot and one string. It is built once, after all entries are known.
 */
#include <stdlib.h>

#include "text/pipeline.h"

struct tn_slot {
    uint32_t tag; /* upper half of the hash */
    int32_t id;   /* -1: empty */
};

tn_status tn_vocab_set(tn_vocab *vocab, int64_t id, const char *text, int64_t length) {
    if (id < 0 || id >= TN_LARGEST_ID || length < 0 || length > INT32_MAX)
        return tn_fail(TN_BAD_DATA, "token \"%.60s\" has id %lld; ids go from 0 to %d", text, (long long)id,
                       TN_LARGEST_ID - 1);
    tn_status status = tn_grow(&vocab->entries, &vocab->capacity, id + 1, sizeof *vocab->entries, "vocabulary");
    if (status != TN_OK) return status;
    if (id >= vocab->count) {
        memset(vocab->entries + vocab->count, 0, (size_t)(id + 1 - vocab->count) * sizeof *vocab->entries);
        vocab->count = id + 1;
    }
    vocab->strings += vocab->entries[id].text == NULL;
    vocab->entries[id] = (tn_entry){text, (int32_t)length};
    return TN_OK;
}

static bool same(const tn_entry *entry, const char *text, int64_t length) {
    return entry->length == length && memcmp(entry->text, text, (size_t)length) == 0;
}

tn_status tn_vocab_index(tn_vocab *vocab) {
    int64_t slots = 16;
    while (slots < vocab->strings * 2) slots *= 2;
    tn_status status = tn_alloc(&vocab->slots, slots, sizeof *vocab->slots, "vocabulary index");
    if (status != TN_OK) return status;
    vocab->slot_count = slots;
    memset(vocab->slots, 0xFF, (size_t)slots * sizeof *vocab->slots);
    for (int64_t id = 0; id < vocab->count; id++) {
        const tn_entry *entry = &vocab->entries[id];
        if (!entry->text) continue;
        uint64_t hash = tn_hash_short(entry->text, entry->length);
        uint32_t tag = (uint32_t)(hash >> 32);
        uint64_t at = hash & (uint64_t)(slots - 1);
        while (vocab->slots[at].id >= 0 &&
               !(vocab->slots[at].tag == tag &&
                 same(&vocab->entries[vocab->slots[at].id], entry->text, entry->length)))
            at = (at + 1) & (uint64_t)(slots - 1);
        vocab->slots[at] = (struct tn_slot){tag, (int32_t)id};
    }
    return TN_OK;
}

int32_t tn_vocab_find(const tn_vocab *vocab, const char *text, int64_t length) {
    if (!vocab->slots) return -1;
    uint64_t hash = tn_hash_short(text, length), mask = (uint64_t)(vocab->slot_count - 1);
    uint32_t tag = (uint32_t)(hash >> 32);
    for (uint64_t at = hash & mask; vocab->slots[at].id >= 0; at = (at + 1) & mask)
        if (vocab->slots[at].tag == tag && same(&vocab->entries[vocab->slots[at].id], text, length))
            return vocab->slots[at].id;
    return -1;
}

void tn_vocab_free(tn_vocab *vocab) {
    free(vocab->entries);
    free(vocab->slots);
    *vocab = (tn_vocab){0};
}
