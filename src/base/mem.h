/* mem.h: host memory. tn_arena is a growing region whose pieces are freed together (objects built
 * from a file: a JSON tree, a tokenizer); tn_alloc and tn_grow are the checked faces of malloc for
 * the rest. Device memory and activations never come from here: see model/region.h.
 */
#ifndef TN_BASE_MEM_H
#define TN_BASE_MEM_H

#include <stddef.h>

#include "base/status.h"

/* a·b, a+b for sizes read from files: false on overflow or a negative operand. */
bool tn_mul(int64_t a, int64_t b, int64_t *product);
bool tn_add(int64_t a, int64_t b, int64_t *sum);

/* count·bytes of zeroed memory in *pointer (at least one byte, so never NULL on success). */
tn_status tn_alloc(void *pointer, int64_t count, int64_t bytes, const char *what);
/* 64-byte aligned, not zeroed; freed with free(). */
tn_status tn_alloc_aligned(void *pointer, int64_t bytes, const char *what);
/* Makes *pointer hold at least `needed` elements, doubling; *capacity is updated. New space is not zeroed. */
tn_status tn_grow(void *pointer, int64_t *capacity, int64_t needed, int64_t bytes, const char *what);

/* A growing region. Zero-initialise; pieces are zeroed and aligned to 16 bytes; NULL when memory is out. */
typedef struct tn_arena {
    struct tn_arena_block *blocks;
    int64_t bytes; /* handed out, for statistics */
} tn_arena;
void *tn_arena_take(tn_arena *arena, int64_t bytes);
/* Copy of `length` bytes with a terminator behind them. */
char *tn_arena_text(tn_arena *arena, const char *text, int64_t length);
char *tn_arena_printf(tn_arena *arena, const char *format, ...) TN_PRINTF(2, 3);
void tn_arena_free(tn_arena *arena);

#endif
