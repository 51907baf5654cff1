/* batch_internal.h: putting a batch together document by document (batch.c, loader.c). */
#ifndef TN_DATA_BATCH_INTERNAL_H
#define TN_DATA_BATCH_INTERNAL_H

#include "data/batch.h"

void tn_batch_begin(tn_batch *batch);
/* Appends a sample as a document of its own; `pictures` says how its pictures are read (NULL: it has none). */
tn_status tn_batch_add(tn_batch *batch, tn_sample sample, const tn_picture_tokens *pictures, int64_t index);

#endif
