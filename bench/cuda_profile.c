/* cuda_profile.c: which kernels a run spends the card's time in. A library that CUDA loads into any program
 * (CUDA_INJECTION64_PATH) and that asks CUPTI for every kernel and copy; at exit it writes one line each, by
 * name: milliseconds in all, count, microseconds of the median, and how long the card had nothing to do.
 *
 *   gcc -O2 -shared -fPIC -I$CUDA/include -o libtenon-profile.so bench/cuda_profile.c -lcupti
 *   CUDA_INJECTION64_PATH=$PWD/libtenon-profile.so TENON_PROFILE=profile.txt sh run tenon bench …
 *
 * TENON_PROFILE_SKIP (seconds of the card's time, default 0) leaves out the start.
 */
#include <cupti.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct event {
    uint64_t start, end;
    const char *name;
} event;

static event *events;
static size_t count, capacity;

static void add(uint64_t start, uint64_t end, const char *name) {
    if (count == capacity) {
        capacity = capacity ? 2 * capacity : 1 << 16;
        events = realloc(events, capacity * sizeof *events);
        if (!events) abort();
    }
    events[count++] = (event){start, end, name};
}

static void CUPTIAPI give_buffer(uint8_t **buffer, size_t *size, size_t *records) {
    *size = 8 << 20;
    *buffer = aligned_alloc(8, *size);
    *records = 0;
}

static void CUPTIAPI take_buffer(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size,
                                 size_t valid) {
    CUpti_Activity *record = NULL;
    (void)context, (void)stream, (void)size;
    while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
            const CUpti_ActivityKernel10 *kernel = (const void *)record;
            add(kernel->start, kernel->end, strdup(kernel->name));
        } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
            const CUpti_ActivityMemcpy6 *copy = (const void *)record;
            add(copy->start, copy->end,
                copy->copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_HTOD ? "copy to the device" : "copy");
        } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
            const CUpti_ActivityMemset4 *set = (const void *)record;
            add(set->start, set->end, "memset");
        }
    }
    free(buffer);
}

static int by_start(const void *a, const void *b) {
    const event *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}
static int by_name(const void *a, const void *b) {
    const event *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    uint64_t p = x->end - x->start, q = y->end - y->start;
    return order ? order : (p > q) - (p < q);
}

static void report(void) {
    const char *path = getenv("TENON_PROFILE"), *skip = getenv("TENON_PROFILE_SKIP");
    cuptiActivityFlushAll(1);
    FILE *out = path ? fopen(path, "w") : stderr;
    if (!out || count == 0) return;
    qsort(events, count, sizeof *events, by_start);
    uint64_t from = events[0].start + (uint64_t)((skip ? atof(skip) : 0) * 1e9), reached = from, idle = 0;
    size_t first = 0;
    while (first < count && events[first].start < from) first++;
    for (size_t i = first; i < count; i++) {
        if (events[i].start > reached) idle += events[i].start - reached;
        if (events[i].end > reached) reached = events[i].end;
    }
    fprintf(out, "%.1f ms, of them %.1f idle, %zu kernels and copies\n", (double)(reached - from) * 1e-6,
            (double)idle * 1e-6, count - first);
    qsort(events + first, count - first, sizeof *events, by_name);
    for (size_t i = first, j; i < count; i = j) {
        double sum = 0;
        for (j = i; j < count && strcmp(events[j].name, events[i].name) == 0; j++)
            sum += (double)(events[j].end - events[j].start);
        const event *median = &events[(i + j) / 2];
        fprintf(out, "%10.2f ms %7zu x %9.1f us  %.150s\n", sum * 1e-6, j - i,
                (double)(median->end - median->start) * 1e-3, events[i].name);
    }
    fclose(out);
}

int InitializeInjection(void) {
    cuptiActivityRegisterCallbacks(give_buffer, take_buffer);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMSET);
    atexit(report);
    return 1;
}
