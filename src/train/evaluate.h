/* evaluate.h: loss over a whole dataset, records in file order: the verb `eval` and the evaluations during
 * training.
 */
#ifndef TN_TRAIN_EVALUATE_H
#define TN_TRAIN_EVALUATE_H

#include "train/engine.h"
#include "train/team.h"

typedef struct tn_evaluation {
    double loss_sum; /* Σ −ln p over labelled tokens */
    int64_t labelled, records;
} tn_evaluation;

/* `per_token` may be NULL: a file that gets a JSON line {"ids", "logprobs"} for each record. The loader is
 * unshuffled and unpacked. Of `team`'s ranks (NULL: alone) each takes its share of the batches. */
tn_status tn_evaluate(tn_pass *pass, const tn_dataset *dataset, tn_loader *loader, tn_team *team,
                      tn_save *per_token, tn_evaluation *result);

#endif
