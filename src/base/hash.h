/* hash.h: XXH3-128 of memory, streams and files, as 32 hex digits (what `xxhsum -H128` prints). It finds
 * damage and names content (manifests, caches); it is no defence against a forger. */
#ifndef TN_BASE_HASH_H
#define TN_BASE_HASH_H

#include "base/status.h"

typedef struct tn_hasher {
    void *state;
} tn_hasher;
tn_status tn_hash_begin(tn_hasher *hasher);
void tn_hash_add(tn_hasher *hasher, const void *bytes, int64_t length);
/* Writes the digits and frees the state. */
void tn_hash_end(tn_hasher *hasher, char digits[33]);
void tn_hash_memory(const void *bytes, int64_t length, char digits[33]);
tn_status tn_hash_file(const char *path, char digits[33]);
/* 64-bit hash for tables. */
uint64_t tn_hash64(const void *bytes, int64_t length);

#endif
