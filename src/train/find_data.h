/* find_data.h: what a configuration names that is no file of its own: data sets registered as LLaMA-Factory
 * does, and chat templates.
 */
#ifndef TN_TRAIN_FIND_DATA_H
#define TN_TRAIN_FIND_DATA_H

#include "text/chat.h"

/* The file of `name`: itself where there is one, else what DIRECTORY/dataset_info.json registers under it.
 * `key` is named in messages. Errors: TN_USAGE where it is neither, or where the entry says that its records
 * are not as we read them. */
tn_status tn_find_dataset(tn_arena *arena, const char *key, const char *name, const char *directory,
                          const char **path);
/* Applies the key chat_template: a file, a folder or a template's text replaces the tokenizer's template; a
 * name must be that of the tokenizer's own, told by how it marks its turns. `chat` may be NULL (no tokenizer,
 * so no chats). */
tn_status tn_choose_template(tn_chat *chat, const char *wanted);

#endif
