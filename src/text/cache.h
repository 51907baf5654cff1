/* cache.h: pre-token → ids, remembered within one workspace (so one thread at a time). It holds a bounded
 * number of entries and starts over when it is full: text repeats itself locally, so it refills at once.
 */
#ifndef TN_TEXT_CACHE_H
#define TN_TEXT_CACHE_H

#include "text/pipeline.h"

enum { TN_CACHE_LONGEST = 64 /* bytes of a pre-token worth remembering */ };

typedef struct tn_cache tn_cache;
typedef struct tn_cache_place {
    uint64_t hash;
    int64_t slot;
    bool found;
} tn_cache_place;

tn_status tn_cache_new(tn_cache **cache);
void tn_cache_free(tn_cache *cache);
/* Appends the tokens of `text` (at most TN_CACHE_LONGEST bytes) to `out` where they are known. */
tn_status tn_cache_find(const tn_cache *cache, const char *text, int64_t length, tn_cache_place *place,
                        tn_tokens *out);
/* Remembers them at the place a failed search gave. */
void tn_cache_put(tn_cache *cache, const tn_cache_place *place, const char *text, int64_t length,
                  const tn_token *tokens, int64_t count);

#endif
