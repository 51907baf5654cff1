/* staging.h: an output that appears when it is whole. It is written into a directory beside its final name
 * (NAME.tmp-tenon) and renamed; where NAME is an empty directory already, which may be the root of a disk or
 * lie behind a link, into a directory in it, and moved up. The directory is locked, so two runs never share
 * one, and what a killed run has left in it goes when the next run of the same name begins.
 */
#ifndef TN_EXPORT_STAGING_H
#define TN_EXPORT_STAGING_H

#include "base/file.h"

typedef struct tn_staging {
    tn_arena arena;
    const char *directory; /* where the files go until they are committed */
    const char *file;      /* of tn_staging_file: the path to write to; else NULL */
    const char *target;
    const tn_hooks *hooks; /* may be NULL */
    bool inside;           /* `directory` lies in `target` */
    int lock;              /* -1 before tn_staging_begin, and where a device or a pipe is written to */
} tn_staging;

/* May a directory, or a file, be made at `path`? An empty one is none. `key` is the setting that names it.
 * TN_USAGE where something is there. tn_staging_end has to follow, whatever is returned. */
tn_status tn_staging_directory(tn_staging *staging, const char *path, const char *key, const tn_hooks *hooks);
tn_status tn_staging_file(tn_staging *staging, const char *path, const char *key, const tn_hooks *hooks);
/* Makes the directory, or empties it. TN_USAGE where another process is writing to it. */
tn_status tn_staging_begin(tn_staging *staging);
/* TN_INTERRUPTED where the caller wants to stop; asked between tensors. */
tn_status tn_staging_go_on(const tn_staging *staging);
/* Bytes of all files written so far. */
tn_status tn_staging_bytes(tn_staging *staging, int64_t *bytes);
/* Flushes and gives everything its final name; of a model directory config.json last. */
tn_status tn_staging_commit(tn_staging *staging);
/* Removes what was not committed, and frees; `status` stays what is reported. Harmless on a zeroed one. */
tn_status tn_staging_end(tn_status status, tn_staging *staging);

#endif
