/* agreement.h: whether the processes of a run are about to train the same thing. */
#ifndef TN_TRAIN_AGREEMENT_H
#define TN_TRAIN_AGREEMENT_H

#include "train/engine.h"
#include "train/team.h"

/* Compares build, kind of device, base, data, configuration and the step that is resumed from, before the first
 * step. Errors: TN_USAGE naming the first rank and thing that differ. */
tn_status tn_agree(tn_team *team, const tn_engine *engine, const char *data_hash, int64_t step);

#endif
