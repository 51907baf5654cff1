/* chat.h: tokenizer + chat template + special tokens of one model, as found on disk: what turns a
 * conversation into text and ids. This is what the public tn_tokenizer holds.
 */
#ifndef TN_TEXT_CHAT_H
#define TN_TEXT_CHAT_H

#include "format/gguf_write.h"
#include "text/template.h"
#include "text/tokenizer.h"

typedef struct tn_chat tn_chat;

/* `path`: a directory (tokenizer.json, tokenizer_config.json, special_tokens_map.json, chat_template.jinja or
 * .json), a tokenizer.json, or a GGUF file. */
tn_status tn_chat_open(const char *path, tn_chat **chat);
void tn_chat_free(tn_chat *chat);
const tn_text *tn_chat_text(const tn_chat *chat);
/* Files to copy beside a saved adapter: writes tokenizer.json (made from GGUF keys where there was none),
 * tokenizer_config.json and chat_template.jinja into `directory`. */
tn_status tn_chat_save(const tn_chat *chat, const char *directory);
/* The same as GGUF metadata. `rows` of the embedding, up to which the vocabulary is filled; `stops` are the
 * model's end-of-text ids. Warns of a pre-tokenizer that has no name there. Errors: TN_USAGE for a kind of
 * tokenizer that GGUF does not have, and for ids beyond the rows. */
tn_status tn_chat_put_gguf(const tn_chat *chat, int64_t rows, const int32_t *stops, int64_t stop_count,
                           tn_gguf_writer *writer);
/* Another template instead of those of the files; before tn_chat_set_date. Errors: TN_BAD_DATA where it does
 * not compile. */
tn_status tn_chat_set_template(tn_chat *chat, const char *source, int64_t length, const char *name);
bool tn_chat_has_template(const tn_chat *chat);
const char *tn_chat_template_source(const tn_chat *chat); /* NULL where none */
const char *tn_chat_template_name(const tn_chat *chat);   /* where it came from, for messages */
/* Is the template that would render `record` one that does not compile? Then no conversation is at fault. */
bool tn_chat_template_broken(const tn_chat *chat, const tn_json *record);
/* Templates that ask for the date are told midnight of `date` ("2026-11-26") from now on, not the clock's time.
 * Errors: TN_USAGE (no such day). */
tn_status tn_chat_set_date(tn_chat *chat, const char *date);
/* XXH128 over everything that changes ids or renderings (for the token cache). */
void tn_chat_hash(const tn_chat *chat, char digits[33]);
/* Ids of the special tokens named in tokenizer_config.json (or GGUF), -1 where absent. */
int32_t tn_chat_bos(const tn_chat *chat);
int32_t tn_chat_eos(const tn_chat *chat);
int32_t tn_chat_pad(const tn_chat *chat);

/* Renders a record: `record` is an object with "messages" and optionally "tools", "documents",
 * "add_generation_prompt", "kwargs" (further variables). Special tokens as strings are added. A rejected
 * conversation: TN_BAD_DATA with *rejected true. ranges/count as in tn_template_render (may be NULL). */
tn_status tn_chat_render(const tn_chat *chat, const tn_json *record, tn_str *out, bool *rejected,
                         tn_text_range **ranges, int64_t *count);

#endif
