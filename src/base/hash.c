/* hash.c: the one file that knows xxHash. */
#include "base/hash.h"

#include <stdio.h>
#include <xxhash.h>

#include "base/file.h"

static void digits_of(XXH128_hash_t hash, char digits[33]) {
    snprintf(digits, 33, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
}

tn_status tn_hash_begin(tn_hasher *hasher) {
    hasher->state = XXH3_createState();
    if (!hasher->state) return tn_fail_memory(576, "a hash");
    XXH3_128bits_reset(hasher->state);
    return TN_OK;
}

void tn_hash_add(tn_hasher *hasher, const void *bytes, int64_t length) {
    if (length > 0) XXH3_128bits_update(hasher->state, bytes, (size_t)length);
}

void tn_hash_end(tn_hasher *hasher, char digits[33]) {
    digits_of(XXH3_128bits_digest(hasher->state), digits);
    XXH3_freeState(hasher->state);
    hasher->state = NULL;
}

void tn_hash_memory(const void *bytes, int64_t length, char digits[33]) {
    digits_of(length > 0 ? XXH3_128bits(bytes, (size_t)length) : XXH3_128bits("", 0), digits);
}

tn_status tn_hash_file(const char *path, char digits[33]) {
    tn_map map;
    tn_status status = tn_map_open(path, &map);
    if (status != TN_OK) return status;
    tn_hash_memory(map.data, map.bytes, digits);
    tn_map_close(&map);
    return TN_OK;
}

uint64_t tn_hash64(const void *bytes, int64_t length) {
    return length > 0 ? XXH3_64bits(bytes, (size_t)length) : XXH3_64bits("", 0);
}
