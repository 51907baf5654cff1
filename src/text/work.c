/* work.c: workspaces and their pool. */
#include "text/work.h"

#include <pthread.h>
#include <stdlib.h>

#include "text/cache.h"

enum {
    JIT_STACK_FIRST = 32 << 10,
    JIT_STACK_LARGEST = 8 << 20,
    HEAP_LIMIT_KIB = 1 << 20,
    KEPT_BYTES = 64 << 20
};

struct tn_pool {
    pthread_mutex_t lock;
    tn_work *free;
};

tn_status tn_work_new(tn_work **work) {
    tn_status status = TN_OK;
    tn_work *made = NULL;
    TN_TRY(tn_alloc(&made, 1, sizeof *made, "tokenizer workspace"));
    TN_TRY(tn_cache_new(&made->cache));
    made->match = pcre2_match_data_create(1, NULL);
    made->context = pcre2_match_context_create(NULL);
    made->jit_stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_LARGEST, NULL);
    if (!made->match || !made->context) TN_THROW(TN_FAILED, "out of memory: tokenizer workspace");
    if (made->jit_stack)
        pcre2_jit_stack_assign(made->context, NULL, made->jit_stack); /* NULL: PCRE2 without JIT */
    pcre2_set_heap_limit(made->context, HEAP_LIMIT_KIB);
    *work = made;
    made = NULL;
done:
    tn_work_free(made);
    return status;
}

void tn_work_free(tn_work *work) {
    if (!work) return;
    pcre2_match_data_free(work->match);
    pcre2_match_context_free(work->context);
    pcre2_jit_stack_free(work->jit_stack);
    tn_buffer_free(&work->input);
    for (int i = 0; i < 2; i++) {
        tn_buffer_free(&work->normal[i]);
        tn_buffer_free(&work->pre[i]);
        free(work->pieces[i].ranges);
    }
    free(work->tokens.tokens);
    tn_str_free(&work->word);
    free(work->symbols);
    free(work->heap);
    tn_cache_free(work->cache);
    free(work);
}

tn_status tn_pool_new(tn_pool **pool) {
    tn_status status = tn_alloc(pool, 1, sizeof **pool, "tokenizer");
    if (status == TN_OK) pthread_mutex_init(&(*pool)->lock, NULL);
    return status;
}

void tn_pool_free(tn_pool *pool) {
    if (!pool) return;
    while (pool->free) {
        tn_work *next = pool->free->next;
        tn_work_free(pool->free);
        pool->free = next;
    }
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

tn_status tn_pool_take(tn_pool *pool, tn_work **work) {
    pthread_mutex_lock(&pool->lock);
    *work = pool->free;
    if (*work) pool->free = (*work)->next;
    pthread_mutex_unlock(&pool->lock);
    return *work ? TN_OK : tn_work_new(work);
}

/* One huge text must not hold its memory for ever. */
static bool is_swollen(const tn_work *work) {
    int64_t bytes = work->symbol_capacity * 24 + work->heap_capacity * 8 + work->input.text.capacity;
    for (int i = 0; i < 2; i++)
        bytes += (work->normal[i].map_capacity + work->pre[i].map_capacity + work->pieces[i].capacity) * 16 +
                 work->normal[i].text.capacity + work->pre[i].text.capacity;
    return bytes + work->tokens.capacity * 8 > KEPT_BYTES;
}

void tn_pool_give(tn_pool *pool, tn_work *work) {
    if (!work) return;
    if (is_swollen(work)) {
        tn_work_free(work);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    work->next = pool->free;
    pool->free = work;
    pthread_mutex_unlock(&pool->lock);
}
