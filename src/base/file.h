/* file.h: paths, mapped reading and saving that survives a power cut.
 *
 * Every file tenon writes goes through tn_save_begin … tn_save_commit: written beside its target under a
 * temporary name, flushed to the device, renamed over the target, and the directory flushed. At any
 * instant the target is either the old file or the whole new one.
 */
#ifndef TN_BASE_FILE_H
#define TN_BASE_FILE_H

#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"

/* A read-only mapping of a whole file. */
typedef struct tn_map {
    const unsigned char *data; /* NULL for an empty file */
    int64_t bytes;
} tn_map;
/* Errors: TN_USAGE where the file is missing or a directory, TN_STORAGE otherwise. */
tn_status tn_map_open(const char *path, tn_map *map);
void tn_map_close(tn_map *map);

/* Reads a whole file (up to `limit` bytes) into `out`. Larger: TN_BAD_DATA. */
tn_status tn_read_file(const char *path, int64_t limit, tn_str *out);

typedef struct tn_save {
    FILE *file; /* write here; errors are found at commit */
    char *path, *temporary;
} tn_save;
tn_status tn_save_begin(tn_save *save, const char *path);
/* Flush, fsync, close, rename, fsync of the directory. Any failure leaves the old target in place. */
tn_status tn_save_commit(tn_save *save);
/* Drops an uncommitted save; harmless after commit or on a zeroed one. */
void tn_save_abort(tn_save *save);
tn_status tn_save_text(const char *path, const char *text, int64_t length);

/* Directories. */
tn_status tn_make_directories(const char *path);
tn_status tn_sync_directory(const char *path);
/* Keeps other processes that ask for it out of a directory until it is given back or the process ends, however
 * it ends; there is no file to be left behind. Held by another: TN_USAGE and *lock -1. A file system without
 * locks keeps nobody out. */
tn_status tn_lock_directory(const char *path, int *lock);
void tn_unlock_directory(int *lock);
/* Deletes a directory with the files and directories in it. A missing one is no error. */
tn_status tn_remove_tree(const char *path);
/* Deletes what a failed save has left; the failure stays what is reported, whether or not that works. */
tn_status tn_discard_tree(tn_status failure, const char *path);
/* Renames, and flushes the directory of the new name. */
tn_status tn_rename(const char *from, const char *to);
bool tn_is_directory(const char *path);
bool tn_is_file(const char *path);
int64_t tn_file_size(const char *path); /* -1 where there is none */
/* Names in a directory, sorted, without "." and ".."; strings and array live in the arena. */
tn_status tn_list_directory(tn_arena *arena, const char *path, const char ***names, int64_t *count);

/* directory + "/" + name in the arena. An absolute `name` is returned as it is. */
const char *tn_path_join(tn_arena *arena, const char *directory, const char *name);
/* Part behind the last slash. */
const char *tn_path_base(const char *path);

#endif
