/* chat_files.h: the inside of tn_chat, shared by the reader (chat.c) and the writer (chat_save.c). */
#ifndef TN_TEXT_CHAT_FILES_H
#define TN_TEXT_CHAT_FILES_H

#include "format/gguf.h"
#include "text/chat.h"

typedef struct chat_template {
    const char *source; /* NULL where there is none */
    int64_t length;
    tn_template *compiled;
    const char *name;  /* where it came from */
    const char *error; /* why it did not compile, else NULL */
} chat_template;

/* A file that is handed on with what was trained, as it was when it was read: hours later it may be another
 * one. */
typedef struct chat_file {
    const char *text; /* NULL where there is none */
    int64_t length;
} chat_file;
enum { TN_CHAT_TOKENIZER, TN_CHAT_CONFIG, TN_CHAT_MAP, TN_CHAT_FILES };
extern const char *const tn_chat_file_names[TN_CHAT_FILES];

struct tn_chat {
    tn_arena arena;
    tn_text *text;
    chat_file files[TN_CHAT_FILES]; /* none for a GGUF */
    const tn_json *config;          /* tokenizer_config.json, NULL where there is none */
    chat_template standard, tool_use;
    tn_member *specials; /* template variables: "bos_token" … as strings, null where the files say null */
    int64_t special_count, special_capacity;
    int32_t bos, eos, pad;
    char date[11]; /* "2026-11-26" where one was set, else "" */
    char digits[33];
};

#endif
