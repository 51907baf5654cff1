/* ranks.h: what the environment says of a run of several processes: this one's rank, where they meet, and which
 * GPU it takes. Nothing here talks to anybody (that is links.h). tn_ranks and tn_ranks_read are in tenon.h.
 */
#ifndef TN_TRAIN_RANKS_H
#define TN_TRAIN_RANKS_H

#include "base/status.h"

/* Where the processes of a run find each other: rank 0 listens there. */
typedef struct tn_meeting {
    tn_ranks ranks;
    char host[256];
    int port;     /* the first to try; a few behind it are tried as well */
    bool here;    /* all processes are on this machine: 127.0.0.1 will do */
    uint64_t run; /* tells this run from others that meet at the same port */
} tn_meeting;
/* Errors: TN_USAGE where processes are on several machines and nothing says which has rank 0. */
tn_status tn_meeting_read(tn_meeting *meeting);

/* May so many micro-batches be dealt out? `world` processes run; the key says `processes`, -1 nothing. Errors:
 * TN_USAGE where the two differ, or a process would have none. */
tn_status tn_ranks_check(int world, int64_t processes, int64_t micro_batches);
/* TN_USAGE where the key asks for more processes than run: the program starts them, and the library does not.
 */
tn_status tn_ranks_check_started(int world, int64_t processes);

enum { TN_RANKS_DEVICE = 32 };
/* The device of this process for what the key `device` says: of several processes each takes the GPU of its
 * local rank (the only one where it sees one alone). Errors: TN_USAGE where the key names one GPU for all. */
tn_status tn_ranks_device(const char *device, char out[TN_RANKS_DEVICE]);

#endif
