/* vocab.c: ids by string and strings by id. The index is a table of hashes by open addressing, built once,
 * after all entries are known. Hash and length alone tell a string of up to 8 bytes (tn_hash_short), so most
 * look-ups touch one cache line; longer strings are compared.
 */
#include <stdlib.h>

#include "text/pipeline.h"

struct tn_slot {
    uint64_t hash;
    int32_t length;
    int32_t id; /* -1: empty */
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

/* Slot of a string: where it is, or where it would go. */
static struct tn_slot *find_slot(const tn_vocab *vocab, const char *text, int64_t length, uint64_t hash) {
    uint64_t mask = (uint64_t)(vocab->slot_count - 1);
    for (uint64_t at = hash & mask;; at = (at + 1) & mask) {
        struct tn_slot *slot = &vocab->slots[at];
        if (slot->id < 0) return slot;
        if (slot->hash != hash || slot->length != length) continue;
        if (length <= 8 || memcmp(vocab->entries[slot->id].text, text, (size_t)length) == 0) return slot;
    }
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
        *find_slot(vocab, entry->text, entry->length, hash) =
            (struct tn_slot){hash, entry->length, (int32_t)id};
    }
    return TN_OK;
}

int32_t tn_vocab_find(const tn_vocab *vocab, const char *text, int64_t length) {
    if (!vocab->slots) return -1;
    return find_slot(vocab, text, length, tn_hash_short(text, length))->id;
}

void tn_vocab_free(tn_vocab *vocab) {
    free(vocab->entries);
    free(vocab->slots);
    *vocab = (tn_vocab){0};
}
