/* event_file.h: the scalars of a run as TensorBoard reads them. An event file is a row of framed
 * protocol-buffer messages, to which a run only ever appends.
 */
#ifndef TN_FORMAT_EVENT_FILE_H
#define TN_FORMAT_EVENT_FILE_H

#include "base/status.h"

typedef struct tn_event_file tn_event_file;

typedef struct tn_scalar {
    const char *tag; /* "train/loss" */
    double value;    /* kept as a float */
} tn_scalar;

/* A new file in `directory`, which is made. What other files there say of steps behind `last` no longer counts.
 * Errors: TN_USAGE where something else has the directory's name, TN_STORAGE. */
tn_status tn_event_file_open(const char *directory, int64_t last, tn_event_file **file);
/* Values of one step; they are in the file when the call returns. Errors: TN_STORAGE. */
tn_status tn_event_file_add(tn_event_file *file, int64_t step, const tn_scalar *scalars, int count);
/* NULL is harmless. */
void tn_event_file_close(tn_event_file *file);

#endif
