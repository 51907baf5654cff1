/* mem.c: checked allocation and the growing arena. */
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool tn_mul(int64_t a, int64_t b, int64_t *product) {
    return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, product);
}

bool tn_add(int64_t a, int64_t b, int64_t *sum) {
    return a >= 0 && b >= 0 && !__builtin_add_overflow(a, b, sum);
}

tn_status tn_alloc(void *pointer, int64_t count, int64_t bytes, const char *what) {
    int64_t total;
    if (!tn_mul(count, bytes, &total))
        return tn_fail(TN_FAILED, "size overflow: %lld x %lld bytes for %s", (long long)count, (long long)bytes,
                       what);
    void *taken = calloc(1, total > 0 ? (size_t)total : 1);
    memcpy(pointer, &taken, sizeof taken);
    return taken ? TN_OK : tn_fail_memory(total, what);
}

tn_status tn_alloc_aligned(void *pointer, int64_t bytes, const char *what) {
    void *taken = NULL;
    if (bytes < 0 || posix_memalign(&taken, 64, bytes > 0 ? (size_t)bytes : 64) != 0)
        return tn_fail_memory(bytes, what);
    memcpy(pointer, &taken, sizeof taken);
    return TN_OK;
}

tn_status tn_grow(void *pointer, int64_t *capacity, int64_t needed, int64_t bytes, const char *what) {
    if (needed <= *capacity) return TN_OK;
    int64_t wanted = *capacity > INT64_MAX / 2 ? needed : *capacity * 2, total;
    if (wanted < needed) wanted = needed;
    if (wanted < 16) wanted = 16;
    if (!tn_mul(wanted, bytes, &total))
        return tn_fail(TN_FAILED, "size overflow: %lld x %lld bytes for %s", (long long)wanted,
                       (long long)bytes, what);
    void *old, *taken;
    memcpy(&old, pointer, sizeof old);
    taken = realloc(old, (size_t)total);
    if (!taken) return tn_fail_memory(total, what);
    memcpy(pointer, &taken, sizeof taken);
    *capacity = wanted;
    return TN_OK;
}

struct tn_arena_block {
    struct tn_arena_block *next;
    int64_t used, size;
    _Alignas(16) unsigned char data[];
};

enum { FIRST_BLOCK = 4096, LARGEST_BLOCK = 4 << 20 };

void *tn_arena_take(tn_arena *arena, int64_t bytes) {
    struct tn_arena_block *block = arena->blocks;
    if (bytes < 0 || bytes > INT64_MAX / 4) return NULL;
    bytes = (bytes + 15) & ~(int64_t)15;
    if (!block || block->size - block->used < bytes) {
        int64_t size = block ? block->size * 2 : FIRST_BLOCK;
        if (size > LARGEST_BLOCK) size = LARGEST_BLOCK;
        if (size < bytes) size = bytes;
        block = calloc(1, sizeof *block + (size_t)size);
        if (!block) return NULL;
        block->size = size;
        block->next = arena->blocks;
        arena->blocks = block;
    }
    void *piece = block->data + block->used;
    block->used += bytes;
    arena->bytes += bytes;
    return piece;
}

char *tn_arena_text(tn_arena *arena, const char *text, int64_t length) {
    char *copy = length < 0 ? NULL : tn_arena_take(arena, length + 1);
    if (copy && length > 0) memcpy(copy, text, (size_t)length);
    return copy;
}

char *tn_arena_printf(tn_arena *arena, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    char *text = length < 0 ? NULL : tn_arena_take(arena, length + 1);
    if (text) vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
    return text;
}

void tn_arena_free(tn_arena *arena) {
    while (arena->blocks) {
        struct tn_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
    arena->bytes = 0;
}
