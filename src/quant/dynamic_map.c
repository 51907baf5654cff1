/* dynamic_map.c: see dynamic_map.h. A decade of magnitudes below 1 is cut into twice as many pieces as the one
 * below it, and the values are the pieces' middles; 0 and 1 are added.
 */
#include "quant/dynamic_map.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { DECADES = 7 };

static float maps[2][TN_DYNAMIC_VALUES];

static int ascending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* torch.linspace(0.1, 1, pieces + 1) in fp32: from the nearer end, in one rounding. */
static float border(int i, int pieces) {
    const float first = 0.1f, step = (1 - first) / (float)pieces;
    return (float)(i < (pieces + 1) / 2 ? (double)first + (double)step * i : 1 - (double)step * (pieces - i));
}

static void fill(bool has_sign, float *map) {
    int n = 0;
    for (int decade = 0; decade < DECADES; decade++) {
        const int pieces = has_sign ? 1 << decade : 2 << decade;
        const float size = (float)pow(10, decade - (DECADES - 1));
        for (int i = 0; i < pieces; i++) {
            const float middle = (border(i, pieces) + border(i + 1, pieces)) / 2 * size;
            map[n++] = middle;
            if (has_sign) map[n++] = -middle;
        }
    }
    map[n++] = 0;
    map[n++] = 1;
    qsort(map, (size_t)n, sizeof *map, ascending);
}

static void fill_both(void) {
    fill(false, maps[0]);
    fill(true, maps[1]);
}

const float *tn_dynamic_map(bool has_sign) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_both);
    return maps[has_sign];
}

void tn_dynamic_decode(const float *map, const uint8_t *codes, float absmax, int64_t count, float *values) {
    for (int64_t i = 0; i < count; i++) values[i] = map[codes[i]] * absmax;
}

static uint8_t nearest(const float *map, float x) {
    int low = 0, high = TN_DYNAMIC_VALUES - 1;
    for (int step = 0; step < 8; step++) {
        const int middle = (low + high) / 2;
        if (x > map[middle]) low = middle;
        else high = middle;
    }
    const int code = fabsf(x - map[low]) <= fabsf(x - map[high]) ? low : high;
    return (uint8_t)(code == 0 && x > 0 ? 1 : code);
}

void tn_dynamic_encode(const float *map, const float *values, int64_t count, uint8_t *codes, float *absmax) {
    float largest = 0;
    for (int64_t i = 0; i < count; i++) largest = fmaxf(largest, fabsf(values[i]));
    for (int64_t i = 0; i < count; i++) codes[i] = nearest(map, largest > 0 ? values[i] / largest : 0);
    *absmax = largest;
}
