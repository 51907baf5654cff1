/* json_keys.c: the set of an object's keys: a scan for few of them, an open hash table for many. */
#include "base/json_keys.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { FEW = 8 };

tn_status tn_key_set_begin(tn_key_set *set, const tn_member *members, int64_t count) {
    *set = (tn_key_set){.members = members};
    if (count <= FEW) return TN_OK;
    int64_t slots = 32;
    while (slots / 2 < count) slots *= 2;
    tn_status status = tn_alloc(&set->slots, slots, (int64_t)sizeof *set->slots, "a set of keys");
    if (status == TN_OK) set->slot_count = slots;
    return status;
}

static bool same_key(const tn_member *a, const tn_member *b) {
    return a->key_length == b->key_length && memcmp(a->key, b->key, (size_t)a->key_length) == 0;
}

bool tn_key_set_add(tn_key_set *set, int64_t index) {
    const tn_member *added = &set->members[index];
    if (set->slot_count == 0) {
        for (int64_t i = 0; i < index; i++)
            if (same_key(&set->members[i], added)) return false;
        return true;
    }
    uint64_t last = (uint64_t)set->slot_count - 1, at = tn_hash64(added->key, added->key_length) & last;
    for (; set->slots[at]; at = (at + 1) & last)
        if (same_key(&set->members[set->slots[at] - 1], added)) return false;
    set->slots[at] = index + 1;
    return true;
}

void tn_key_set_end(tn_key_set *set) {
    free(set->slots);
    *set = (tn_key_set){0};
}
