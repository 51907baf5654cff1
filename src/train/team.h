/* team.h: what the processes of one run do together, step by step: give each other small records, sum their
 * gradients, and stop together. Everything is written for any number of them; alone, `world` is 1 and nothing
 * is sent.
 *
 * All exchanges are collective: every rank makes the same calls in the same order, and each brings the status
 * that its own work has ended with. Where one rank fails or is gone, the call of every other returns that too,
 * so that a failure needs no exchange of its own. Rank 0 has the message (of the others tn_error_message() is
 * then empty); the others have one only where rank 0 is gone. After the first failure nothing is exchanged any
 * more.
 */
#ifndef TN_TRAIN_TEAM_H
#define TN_TRAIN_TEAM_H

#include "op/op.h"
#include "train/links.h"

typedef struct tn_team {
    int rank, world;
    tn_links links;
    tn_device *device;         /* of the gradients, once tn_team_enter was called */
    const tn_reducer *reducer; /* what sums on the device; NULL: the sockets do */
    float *chunk, *theirs;     /* (CHUNK): for the sockets */
    bool over;                 /* a failure is known to all */
    bool lost;                 /* it is another rank's, or a rank is gone: this one's state is whole */
} tn_team;

/* Reads the environment and meets the others. Errors: as tn_ranks_read, tn_meeting_read and tn_links_open. */
tn_status tn_team_open(const tn_hooks *hooks, tn_team *team);
/* Tells the others of a failure that they do not know yet. Then ranks beside 0 wait until rank 0 has done its
 * part (a launcher would end everybody where one process ends early) and all connections are closed. */
void tn_team_close(tn_team *team, tn_status status);

/* Each rank gives `status` and `bytes` bytes; all (world x bytes) gets everybody's in the order of ranks.
 * Returns the status of the lowest rank that brings a failure. */
tn_status tn_team_gather(tn_team *team, tn_status status, const void *mine, int64_t bytes, void *all);
/* Only that: nobody has failed. */
tn_status tn_team_meet(tn_team *team, tn_status status);
/* *flag becomes true where it is true for any rank. */
tn_status tn_team_any(tn_team *team, bool *flag);
/* `value` is the same text everywhere; else TN_USAGE naming `what` and both. */
tn_status tn_team_same(tn_team *team, const char *what, const char *value);
/* Called once, with the device open: chooses what sums. */
tn_status tn_team_enter(tn_team *team, tn_device *device);
/* values[count] on the device become the sum of all ranks', added in one order, the same bits everywhere. Waits
 * for everything that the device was given. */
tn_status tn_team_sum(tn_team *team, int64_t count, float *values);

#endif
