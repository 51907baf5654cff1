/* thread.h: how many threads the CPU engine uses, and the clock. Parallel loops themselves are OpenMP
 * pragmas where they stand (one pool for us and for oneDNN). */
#ifndef TN_BASE_THREAD_H
#define TN_BASE_THREAD_H

#include "base/status.h"

enum { TN_MOST_THREADS = 4096 };

/* 0 = OMP_NUM_THREADS, else all cores. Errors: TN_USAGE (more than TN_MOST_THREADS, or than the system starts:
 * OpenMP would end the program). */
tn_status tn_threads_set(int threads);
int tn_threads(void);
/* Monotonic seconds. */
double tn_seconds(void);

#endif
