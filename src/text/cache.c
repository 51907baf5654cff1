/* cache.c: open addressing over 16-byte slots; tokens and long keys lie behind one another in one array.
 * A key of up to 8 bytes is told by its hash and length alone (the hash is one to one there), and a single
 * token of such a key lies in the slot itself: most English words cost one cache line.
 */
#include "text/cache.h"

#include <stdlib.h>

enum { SLOTS = 1 << 16, FULL = SLOTS / 2, STORE = 1 << 18 /* tokens */ };

typedef struct slot {
    uint64_t hash;
    int32_t value;          /* the token's id, or where in the store tokens and key lie */
    uint16_t length, count; /* of the key in bytes (0: empty), of the tokens */
} slot;

struct tn_cache {
    slot slots[SLOTS];
    tn_token store[STORE];
    int64_t entries, stored;
};

tn_status tn_cache_new(tn_cache **cache) { return tn_alloc(cache, 1, sizeof **cache, "pre-token cache"); }
void tn_cache_free(tn_cache *cache) { free(cache); }

static bool is_inline(int64_t length, int64_t count) { return length <= 8 && count == 1; }

tn_status tn_cache_find(const tn_cache *cache, const char *text, int64_t length, tn_cache_place *place,
                        tn_tokens *out) {
    tn_status status = TN_OK;
    place->hash = tn_hash_short(text, length);
    place->found = false;
    for (place->slot = (int64_t)(place->hash % SLOTS);; place->slot = (place->slot + 1) % SLOTS) {
        const slot *s = &cache->slots[place->slot];
        if (s->length == 0) return TN_OK;
        if (s->hash != place->hash || s->length != length) continue;
        if (is_inline(length, s->count)) {
            place->found = true;
            return tn_tokens_push(out, s->value, length);
        }
        const tn_token *tokens = cache->store + s->value;
        if (length > 8 && memcmp(tokens + s->count, text, (size_t)length) != 0) continue;
        place->found = true;
        for (int i = 0; i < s->count && status == TN_OK; i++)
            status = tn_tokens_push(out, tokens[i].id, tokens[i].length);
        return status;
    }
}

void tn_cache_put(tn_cache *cache, const tn_cache_place *place, const char *text, int64_t length,
                  const tn_token *tokens, int64_t count) {
    int64_t key = length > 8 ? (length + (int64_t)sizeof *tokens - 1) / (int64_t)sizeof *tokens : 0;
    int64_t needed = is_inline(length, count) ? 0 : count + key;
    if (length == 0 || count > UINT16_MAX || needed > STORE) return;
    if (cache->entries >= FULL || cache->stored + needed > STORE) {
        memset(cache->slots, 0, sizeof cache->slots);
        cache->entries = cache->stored = 0;
        return; /* the place is gone; the next time it will be remembered */
    }
    int32_t value = needed == 0 ? tokens[0].id : (int32_t)cache->stored;
    if (needed > 0) {
        memcpy(cache->store + cache->stored, tokens, (size_t)count * sizeof *tokens);
        memcpy(cache->store + cache->stored + count, text, key > 0 ? (size_t)length : 0);
        cache->stored += needed;
    }
    cache->slots[place->slot] = (slot){place->hash, value, (uint16_t)length, (uint16_t)count};
    cache->entries++;
}
