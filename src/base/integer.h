/* integer.h: the lesser and the greater of two counts, for everybody. */
#ifndef TN_BASE_INTEGER_H
#define TN_BASE_INTEGER_H

#include <stdint.h>

static inline int64_t tn_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t tn_max(int64_t a, int64_t b) { return a > b ? a : b; }

#endif
