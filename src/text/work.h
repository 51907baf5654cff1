/* work.h: the pool of workspaces of one tokenizer. A call takes one, uses it alone and puts it back, so that
 * threads never share memory in use, yet caches and buffers survive from call to call. Private to src/text.
 */
#ifndef TN_TEXT_WORK_H
#define TN_TEXT_WORK_H

#include "text/pipeline.h"

typedef struct tn_pool tn_pool;
tn_status tn_pool_new(tn_pool **pool);
void tn_pool_free(tn_pool *pool);
tn_status tn_pool_take(tn_pool *pool, tn_work **work);
void tn_pool_give(tn_pool *pool, tn_work *work); /* NULL is allowed */

/* A tokenizer from the text of a tokenizer.json; `name` stands in messages. */
tn_status tn_text_from_json_text(const char *json, int64_t length, const char *name, tn_text **text);

#endif
