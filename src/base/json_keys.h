/* json_keys.h: are the keys of an object different? Asked by the JSON and the YAML reader; linear in the
 * number of keys, so that a file of a million keys is no attack. */
#ifndef TN_BASE_JSON_KEYS_H
#define TN_BASE_JSON_KEYS_H

#include "base/json.h"

/* Numbers of members by the hash of their key. Few members need no table. */
typedef struct tn_key_set {
    const tn_member *members;
    int64_t *slots, slot_count; /* slots hold member number + 1, 0 = empty */
} tn_key_set;

/* A set for up to `count` members of the array `members`, which the caller may still be filling. */
tn_status tn_key_set_begin(tn_key_set *set, const tn_member *members, int64_t count);
/* Adds members[index], behind 0 … index-1 added before; false where one of them has the same key. */
bool tn_key_set_add(tn_key_set *set, int64_t index);
void tn_key_set_end(tn_key_set *set);

#endif
