/* records.h: the shapes a record can have, told by its keys, and what each becomes: a conversation for the chat
 * template, plain text, a plain prompt with its completion, or ids.
 *
 *   messages           {"messages": [{"role", "content", ...}]}, passed to the template as it is
 *   conversations      {"conversations": [{"from": "human"|"gpt"|"system"|..., "value"}]} (ShareGPT)
 *   alpaca             {"instruction", "input", "output"}; user = instruction, and "\n" + input where there
 *                      is one; "history" ([[question, answer], ...]) comes before it
 *   alpaca_prompt      the same keys as plain text in the wording of Stanford Alpaca, whatever the template;
 *                      only where it is asked for
 *   prompt_completion  {"prompt", "completion"}: strings, or lists of messages
 *   question_answer    {"question", "answer"}
 *   text               {"text"}
 *   input_ids          {"input_ids"} and perhaps {"labels"}; what "attention_mask" marks as padding (0) is left
 *                      out
 *
 * Beside a conversation may stand "images" (record_pictures.h), "system" (a string), "tools", "documents" and
 * "kwargs" (or "chat_template_kwargs"). A message of the assistant's carries no loss where its own "weight" is
 * 0 (OpenAI), or "train", "training" (axolotl) or "loss" (ms-swift) is false. Lists and objects may also be
 * strings that hold JSON, as in a CSV file. Other keys are ignored.
 */
#ifndef TN_DATA_RECORDS_H
#define TN_DATA_RECORDS_H

#include "base/json.h"

typedef enum tn_shape {
    TN_SHAPE_MESSAGES,
    TN_SHAPE_CONVERSATIONS,
    TN_SHAPE_ALPACA,
    TN_SHAPE_PROMPT_COMPLETION,
    TN_SHAPE_QUESTION_ANSWER,
    TN_SHAPE_TEXT,
    TN_SHAPE_INPUT_IDS,
    TN_SHAPE_ALPACA_PROMPT,
} tn_shape;

const char *tn_shape_name(tn_shape shape);
/* Errors: TN_USAGE with the known names. */
tn_status tn_shape_from_name(const char *name, tn_shape *shape);
/* The shape whose keys the record has. Errors: TN_BAD_DATA with the keys found and the accepted shapes. */
tn_status tn_shape_detect(const tn_json *record, tn_shape *shape);

typedef enum tn_record_kind {
    TN_RECORD_CHAT,       /* `chat`: what tn_chat_render takes */
    TN_RECORD_TEXT,       /* `text` */
    TN_RECORD_COMPLETION, /* `text`: prompt and completion one behind the other; the first `prompt_bytes` are
                             the prompt */
    TN_RECORD_IDS,        /* `ids`, and `labels` or NULL: arrays of integers, without padding */
} tn_record_kind;

typedef struct tn_record {
    tn_record_kind kind;
    const tn_json *chat;
    const bool *silent; /* CHAT: [answers] which of the assistant's messages carry no loss; NULL: all do */
    int64_t answers;
    const char *text; /* [bytes], not terminated */
    int64_t bytes, prompt_bytes;
    const tn_json *ids, *labels;
    const char *const
        *pictures; /* CHAT: [picture_count] paths as they stand in the record, in the order of their places */
    int64_t picture_count;
} tn_record;

/* Pictures, video and sound beside a conversation would silently become words of the prompt. Pictures are
 * `allowed` where the model sees. Errors: TN_USAGE. */
tn_status tn_record_refuse_media(const tn_json *record, bool allowed);

/* Converts; everything lives in the arena or in `json`. With `chat_template` false conversations of strings
 * become plain completions; with `pictures` false a record that has some is refused. Errors: TN_BAD_DATA (a key
 * missing or of a wrong type), TN_USAGE (needs a chat template; images). */
tn_status tn_record_convert(tn_arena *arena, const tn_json *json, tn_shape shape, bool chat_template,
                            bool pictures, tn_record *record);

#endif
