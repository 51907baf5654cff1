/* links.h: the sockets between the processes of a run: a star, every rank with one TCP connection to rank 0.
 * They carry what is small (states, losses) and, where no library sums on the device, gradients; and they are
 * how a process that dies is noticed, since the system closes its end.
 */
#ifndef TN_TRAIN_LINKS_H
#define TN_TRAIN_LINKS_H

#include "train/ranks.h"

typedef struct tn_links {
    int rank, world;
    int *sockets; /* (world): rank 0's to each, of another rank [0] alone; -1 = none, or broken */
} tn_links;

/* Meets the other processes, for at most so many seconds; asks `should_stop` (or NULL) on the way. Errors:
 * TN_FAILED naming who is missing, TN_USAGE where two processes claim one rank or disagree about their number,
 * TN_INTERRUPTED. */
tn_status tn_links_open(const tn_meeting *meeting, double seconds, const tn_hooks *hooks, tn_links *links);
void tn_links_close(tn_links *links);

/* Whole messages; false where the other end is gone. It may have sent a last word before: a failed send leaves
 * the socket open for that, a failed receive closes it. `seconds` 0: as long as it takes. */
bool tn_links_send(tn_links *links, int peer, const void *bytes, int64_t length);
bool tn_links_receive(tn_links *links, int peer, void *bytes, int64_t length, double seconds);
/* Looks at what `peer` has sent without taking it: 1 all `length` bytes are there, 0 not yet, -1 it is gone. */
int tn_links_peek(tn_links *links, int peer, void *bytes, int64_t length);
/* Waits until `peer` sends something or goes, at most so long. */
void tn_links_pause(const tn_links *links, int peer, int milliseconds);

#endif
