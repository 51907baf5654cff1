/* output_dir.h: the directory a run writes to. Nothing that is there already is written over, neither another
 * run nor a model, unless overwrite_output_dir asks for it; two runs never share one.
 */
#ifndef TN_TRAIN_OUTPUT_DIR_H
#define TN_TRAIN_OUTPUT_DIR_H

#include "train/engine.h"

typedef struct tn_output {
    int lock;          /* two runs in a directory would cut and delete each other's files; -1 = not yet */
    bool replaces;     /* it holds another run, which goes before the first step */
    bool begins_again; /* it holds the log of a run that ended before its first checkpoint, which is cut */
} tn_output;

/* May the run that is opened, resumed from `checkpoint` or NULL, write to its output_dir? Locks it where it is
 * there. Errors: TN_USAGE (holds a run or a model, in use, something of the wrong kind where a file or a
 * checkpoint goes). */
tn_status tn_output_check(const tn_engine *e, const char *checkpoint, tn_output *output);
/* Removes the run that is replaced, if any. */
tn_status tn_output_clear(const tn_engine *e, const tn_output *output);

#endif
