/* thread.c: thread count and clock. */
#include "base/thread.h"

#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

static int wanted;

static void *pass_gate(void *gate) {
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

/* How many of `count` threads this process may have at a time, itself among them; a container's limit is known
 * by trying alone. About 20 us each. */
static int try_threads(int count) {
    static pthread_t threads[TN_MOST_THREADS];
    static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    int started = 1;
    pthread_mutex_lock(&gate);
    while (started < count && pthread_create(&threads[started], NULL, pass_gate, &gate) == 0) started++;
    pthread_mutex_unlock(&gate);
    for (int i = 1; i < started; i++) pthread_join(threads[i], NULL);
    return started;
}

tn_status tn_threads_set(int threads) {
    static int tried;
    wanted = threads;
    if (threads > 0) omp_set_num_threads(threads);
    else if (!getenv("OMP_NUM_THREADS")) omp_set_num_threads(omp_get_num_procs());
    int count = tn_threads();
    if (count > TN_MOST_THREADS) {
        tn_fail(TN_USAGE, "%d threads are asked for%s, and at most %d can be", count,
                threads > 0 ? "" : " by OMP_NUM_THREADS", TN_MOST_THREADS);
        return tn_remedy("set OMP_NUM_THREADS to the number of cores (%d here), or give --threads",
                         omp_get_num_procs());
    }
    if (count <= tried) return TN_OK;
    tried = try_threads(count);
    if (tried == count) return TN_OK;
    tn_fail(TN_USAGE, "the system starts %d threads for this process, and %d are wanted", tried, count);
    return tn_remedy(
        "give --threads %d or fewer, or raise the limit on processes (ulimit -u, a container's pids)",
        tried > 1 ? tried - 1 : 1);
}

int tn_threads(void) { return wanted > 0 ? wanted : omp_get_max_threads(); }

double tn_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
