/* probe.h: a model's logits on a short sequence that only depends on its vocabulary: what two forms of one
 * model are compared by.
 */
#ifndef TN_TRAIN_PROBE_H
#define TN_TRAIN_PROBE_H

#include "train/engine.h"

typedef struct tn_probe {
    float *logits; /* [count]; NULL where the model does not fit the device */
    int64_t count;
} tn_probe;

/* Brings the files of `engine` (tn_engine_open_files) to the device, runs the sequence and gives the memory
 * back. dtype auto computes in float32, and where that does not fit in what auto means elsewhere; where that
 * does not fit either it is said, and there are no logits. */
tn_status tn_probe_run(tn_engine *engine, tn_probe *probe);
void tn_probe_free(tn_probe *probe);
/* Largest difference between two logits; `*relative` gets ‖a−b‖ / ‖b‖. */
double tn_probe_difference(const tn_probe *a, const tn_probe *b, double *relative);

#endif
