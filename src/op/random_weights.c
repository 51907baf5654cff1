/* random_weights.c: the values of a model that has no files (bench, init, tests), the same on every backend. */
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "op/op.h"

void tn_random_weights(uint64_t seed, float std, int64_t count, float *values) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++)
        values[i] = std < 0   ? 1.0f
                    : std > 0 ? tn_random_normal(seed, TN_STREAM(TN_PURPOSE_BENCH, 0, 0), (uint64_t)i) * std
                              : 0.0f;
}

uint64_t tn_random_name(const char *name) { return tn_hash64(name, (int64_t)strlen(name)); }
