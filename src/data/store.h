/* store.h: samples as they lie on disk or in memory, and the token cache.
 *
 *   samples   for each: ids [length] int32, labels [length] int32
 *   offsets   [samples + 1] int64: tokens before each sample
 *   trailer   counts, the key, the hash of everything before it, and its own hash
 *
 * The trailer stands at the end, so that a file is written in one go; a file cut off anywhere has none. A
 * cached file is believed only where both hashes, the key and the sizes agree; else it is made again. The key
 * names the contents of the data files and every setting that changes a sample. Where no cache can be written
 * the same bytes stay in memory.
 */
#ifndef TN_DATA_STORE_H
#define TN_DATA_STORE_H

#include "base/file.h"
#include "base/hash.h"
#include "data/dataset.h"

/* Raised whenever the rules of reading, templates or labels change: older caches are then left alone. */
enum { TN_STORE_VERSION = 2 };

typedef struct tn_store {
    tn_map map;   /* of the cached file */
    FILE *held;   /* the same, open and locked while it is in use */
    char *memory; /* or the bytes themselves */
    const int32_t *samples;
    const int64_t *offsets;
    tn_sample_picture *pictures; /* in memory alone: a set with pictures is not cached */
    int64_t *picture_starts;     /* [samples + 1], NULL where no sample has one */
    char *paths;
    tn_dataset_stats stats;
} tn_store;
void tn_store_close(tn_store *store);
tn_sample tn_store_at(const tn_store *store, int64_t index);

/* Opens the cached samples of `key`. *found is false where there is none or it is damaged (a warning). */
tn_status tn_store_open(const char *path, const char *key, tn_store *store, bool *found);

typedef struct tn_store_writer {
    tn_save save;
    FILE *file; /* save.file, or a stream into `memory` */
    char *memory;
    size_t memory_bytes;
    tn_hasher hasher;
    int64_t *offsets, capacity;
    tn_sample_picture *pictures;
    int64_t *picture_starts, picture_count, picture_capacity, start_capacity;
    tn_str paths;
    tn_dataset_stats stats;
} tn_store_writer;
/* `path` NULL: in memory. */
tn_status tn_store_begin(const char *path, tn_store_writer *writer);
/* Appends a sample and counts it; what `stats` says of records is the caller's to count. */
tn_status tn_store_add(tn_store_writer *writer, tn_sample sample);
/* Writes offsets and trailer and opens what was written. */
tn_status tn_store_finish(tn_store_writer *writer, const char *key, tn_store *store);
void tn_store_abort(tn_store_writer *writer);

/* Marks the cached file that the store has mapped as in use, until it is closed. */
void tn_store_hold(tn_store *store, const char *path);
/* What the token cache may take of the disk that `path` is on: 4 GiB, or a tenth of it where that is less. */
int64_t tn_store_limit(const char *path);
/* Removes entries beside `path`, those used longest ago first, until all of them take no more than `limit`
 * bytes; never `path` itself, and none that is in use. What cannot be done is left undone. */
void tn_store_trim(const char *path, int64_t limit);

/* Path of the cache file of `key` in the arena, its directory made; NULL where nothing can be cached (a
 * warning). */
const char *tn_store_path(tn_arena *arena, const char *directory, const char *key);

#endif
