/* thread.c: thread count and clock. */
#include "base/thread.h"

#include <omp.h>
#include <stdlib.h>
#include <time.h>

static int wanted;

void tn_threads_set(int threads) {
    wanted = threads;
    if (threads > 0) omp_set_num_threads(threads);
    else if (!getenv("OMP_NUM_THREADS")) omp_set_num_threads(omp_get_num_procs());
}

int tn_threads(void) { return wanted > 0 ? wanted : omp_get_max_threads(); }

double tn_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
