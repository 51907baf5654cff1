/* records.c: from the keys of a record to a conversation, a text or ids. Trees built here point into the record
 * they were made from; only what is new is allocated, in the arena of the record. */
#include "data/records.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/record_pictures.h"

#define ACCEPTED                                                                                      \
    "messages, conversations, instruction/input/output, prompt/completion, question/answer, text or " \
    "input_ids (with optional labels)"

static const struct {
    const char *name, *keys[2]; /* the keys that must be there */
} shapes[] = {
    [TN_SHAPE_MESSAGES] = {"messages", {"messages", NULL}},
    [TN_SHAPE_CONVERSATIONS] = {"conversations", {"conversations", NULL}},
    [TN_SHAPE_ALPACA] = {"alpaca", {"instruction", "output"}},
    [TN_SHAPE_PROMPT_COMPLETION] = {"prompt_completion", {"prompt", "completion"}},
    [TN_SHAPE_QUESTION_ANSWER] = {"question_answer", {"question", "answer"}},
    [TN_SHAPE_TEXT] = {"text", {"text", NULL}},
    [TN_SHAPE_INPUT_IDS] = {"input_ids", {"input_ids", NULL}},
    [TN_SHAPE_ALPACA_PROMPT] = {"alpaca_prompt", {"instruction", "output"}},
};
enum { SHAPES = sizeof shapes / sizeof *shapes, DETECTED = TN_SHAPE_ALPACA_PROMPT };

const char *tn_shape_name(tn_shape shape) { return shapes[shape].name; }

tn_status tn_shape_from_name(const char *name, tn_shape *shape) {
    for (int s = 0; s < SHAPES; s++)
        if (strcmp(name, shapes[s].name) == 0) return *shape = (tn_shape)s, TN_OK;
    tn_fail(TN_USAGE, "dataset_format \"%s\" is not known", name);
    return tn_remedy(
        "one of messages, conversations, alpaca, alpaca_prompt, prompt_completion, question_answer, text, "
        "input_ids");
}

static bool has(const tn_json *record, const char *key) { return !tn_json_is_null(tn_json_get(record, key)); }

static tn_status fail_keys(const tn_json *record, const char *problem) {
    tn_str keys = {0};
    for (int64_t i = 0; i < record->count && keys.length < 400; i++)
        tn_str_printf(&keys, "%s%s", i ? ", " : "", record->members[i].key);
    tn_fail(TN_BAD_DATA, "%s; the record has the keys: %s", problem,
            record->count ? tn_str_text(&keys) : "(none)");
    tn_str_free(&keys);
    return tn_remedy("accepted records: " ACCEPTED);
}

static tn_status require_object(const tn_json *record) {
    if (record->type == TN_JSON_OBJECT) return TN_OK;
    tn_fail(TN_BAD_DATA, "a record must be an object, this is %s", tn_json_type_name(record));
    return tn_remedy("accepted records: " ACCEPTED);
}

tn_status tn_shape_detect(const tn_json *record, tn_shape *shape) {
    /* Ready-made ids first, and text last: data sets often carry a rendered copy beside the conversation. */
    static const tn_shape order[DETECTED] = {
        TN_SHAPE_INPUT_IDS, TN_SHAPE_MESSAGES,        TN_SHAPE_CONVERSATIONS, TN_SHAPE_PROMPT_COMPLETION,
        TN_SHAPE_ALPACA,    TN_SHAPE_QUESTION_ANSWER, TN_SHAPE_TEXT};
    tn_status status = require_object(record);
    if (status != TN_OK) return status;
    for (int i = 0; i < DETECTED; i++) {
        const char *const *keys = shapes[order[i]].keys;
        if (has(record, keys[0]) && (!keys[1] || has(record, keys[1]))) return *shape = order[i], TN_OK;
    }
    return fail_keys(record, "the shape of the record is not known");
}

/* ---- Small trees ---- */

static tn_status fail_room(void) { return tn_fail_memory(256, "a record"); }

static tn_json string_node(const char *text) {
    return (tn_json){.type = TN_JSON_STRING, .count = (int64_t)strlen(text), .string = text};
}

static void set_member(tn_member *member, const char *key, tn_json value) {
    *member = (tn_member){.key = key, .key_length = (int64_t)strlen(key), .value = value};
}

/* {"role": role, "content": content} */
static tn_status make_message(tn_arena *arena, const char *role, tn_json content, tn_json *message) {
    tn_member *members = tn_arena_take(arena, 2 * (int64_t)sizeof *members);
    if (!members) return fail_room();
    set_member(&members[0], "role", string_node(role));
    set_member(&members[1], "content", content);
    *message = (tn_json){.type = TN_JSON_OBJECT, .count = 2, .members = members};
    return TN_OK;
}

/* A list or object that may have come as a string of JSON. An absent, null or empty one gives NULL. */
static tn_status get_tree(tn_arena *arena, const tn_json *record, const char *key, const tn_json **node) {
    *node = tn_json_get(record, key);
    if (*node && (*node)->type == TN_JSON_STRING) {
        const tn_json *text = *node;
        *node = NULL;
        if (text->count == 0) return TN_OK;
        char name[80];
        snprintf(name, sizeof name, "the JSON in column \"%s\"", key);
        tn_status status = tn_json_parse(arena, text->string, text->count, TN_JSON_EXTENSIONS, name, node);
        if (status != TN_OK) return status;
    }
    if (tn_json_is_null(*node)) *node = NULL;
    if (*node && ((*node)->type == TN_JSON_ARRAY || (*node)->type == TN_JSON_OBJECT) && (*node)->count == 0)
        *node = NULL;
    return TN_OK;
}

static tn_status get_list(tn_arena *arena, const tn_json *record, const char *key, const tn_json **list) {
    tn_status status = get_tree(arena, record, key, list);
    if (status != TN_OK || !*list || (*list)->type == TN_JSON_ARRAY) return status;
    return tn_fail(TN_BAD_DATA, "\"%s\" is %s, a list was expected", key, tn_json_type_name(*list));
}

static tn_status get_string(const tn_json *record, const char *key, const tn_json **text) {
    *text = tn_json_get(record, key);
    if (*text && (*text)->type == TN_JSON_STRING) return TN_OK;
    return tn_fail(TN_BAD_DATA, "\"%s\" is %s, a string was expected", key, tn_json_type_name(*text));
}

/* ---- Conversations ---- */

/* Messages on their way to the template. */
typedef struct dialogue {
    tn_arena *arena;
    tn_json *messages; /* [capacity], in the arena */
    bool *silent;      /* [capacity] the message says itself that it carries no loss */
    int64_t count, capacity, calls /* tool calls so far */;
    char call_id[16]; /* of the last one: an observation answers it */
} dialogue;

static tn_status open_dialogue(dialogue *d, tn_arena *arena, int64_t capacity) {
    *d = (dialogue){.arena = arena, .capacity = capacity};
    d->messages = tn_arena_take(arena, capacity * (int64_t)sizeof *d->messages);
    d->silent = tn_arena_take(arena, capacity * (int64_t)sizeof *d->silent);
    return d->messages && d->silent ? TN_OK : fail_room();
}

static tn_status say(dialogue *d, const char *role, tn_json content) {
    return make_message(d->arena, role, content, &d->messages[d->count++]);
}

/* Role of ShareGPT's "from". */
static const char *role_of(const char *from) {
    static const char *const roles[][2] = {
        {"human", "user"},
        {"user", "user"},
        {"gpt", "assistant"},
        {"assistant", "assistant"},
        {"model", "assistant"},
        {"bot", "assistant"},
        {"chatgpt", "assistant"},
        {"system", "system"},
        {"observation", "tool"},
        {"tool", "tool"},
        {"function_response", "tool"},
        {"function", "tool"},
    };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(from, roles[i][0]) == 0) return roles[i][1];
    return NULL;
}

/* {"type": "function", "id": ..., "function": {"name", "arguments"}}. Mistral's templates want ids of nine
 * characters. */
static tn_status make_call(dialogue *d, tn_json function, tn_json *call) {
    tn_member *members = tn_arena_take(d->arena, 3 * (int64_t)sizeof *members);
    if (!members) return fail_room();
    snprintf(d->call_id, sizeof d->call_id, "call%05lld", (long long)(++d->calls % 100000));
    char *id = tn_arena_text(d->arena, d->call_id, (int64_t)strlen(d->call_id));
    if (!id) return fail_room();
    set_member(&members[0], "type", string_node("function"));
    set_member(&members[1], "id", string_node(id));
    set_member(&members[2], "function", function);
    *call = (tn_json){.type = TN_JSON_OBJECT, .count = 3, .members = members};
    return TN_OK;
}

/* ShareGPT's function_call: its value is JSON, one {"name", "arguments"} or a list of them. */
static tn_status say_call(dialogue *d, const tn_json *value) {
    const tn_json *functions;
    tn_status status =
        tn_json_parse(d->arena, value->string, value->count, TN_JSON_EXTENSIONS, "a function_call", &functions);
    if (status != TN_OK) return status;
    bool list = functions->type == TN_JSON_ARRAY;
    int64_t count = list ? functions->count : 1;
    tn_json *calls = tn_arena_take(d->arena, count * (int64_t)sizeof *calls);
    tn_member *members = tn_arena_take(d->arena, 3 * (int64_t)sizeof *members);
    if (!calls || !members) return fail_room();
    for (int64_t i = 0; i < count; i++) {
        const tn_json *function = list ? &functions->items[i] : functions;
        if (!tn_json_string(tn_json_get(function, "name"), NULL))
            return tn_fail(TN_BAD_DATA, "a function_call without a \"name\"");
        status = make_call(d, *function, &calls[i]);
        if (status != TN_OK) return status;
    }
    set_member(&members[0], "role", string_node("assistant"));
    set_member(&members[1], "content", string_node(""));
    set_member(&members[2], "tool_calls", (tn_json){.type = TN_JSON_ARRAY, .count = count, .items = calls});
    d->messages[d->count++] = (tn_json){.type = TN_JSON_OBJECT, .count = 3, .members = members};
    return TN_OK;
}

static tn_status say_observation(dialogue *d, tn_json content) {
    tn_member *members = tn_arena_take(d->arena, 3 * (int64_t)sizeof *members);
    char *id = tn_arena_text(d->arena, d->call_id, (int64_t)strlen(d->call_id));
    if (!members || !id) return fail_room();
    set_member(&members[0], "role", string_node("tool"));
    set_member(&members[1], "content", content);
    set_member(&members[2], "tool_call_id", string_node(id));
    d->messages[d->count++] = (tn_json){.type = TN_JSON_OBJECT, .count = d->calls ? 3 : 2, .members = members};
    return TN_OK;
}

static tn_status say_sharegpt(dialogue *d, const tn_json *turn, int64_t number) {
    const char *from = tn_json_string(tn_json_get(turn, "from"), NULL);
    const tn_json *value = tn_json_get(turn, "value");
    if (!from || !value || value->type != TN_JSON_STRING)
        return tn_fail(TN_BAD_DATA,
                       "turn %lld needs \"from\" and \"value\" (or \"role\" and \"content\") as strings",
                       (long long)number);
    if (strcmp(from, "function_call") == 0) return say_call(d, value);
    const char *role = role_of(from);
    if (!role) {
        tn_fail(TN_BAD_DATA, "turn %lld is from \"%s\", which is no role we know", (long long)number, from);
        return tn_remedy("human, gpt, system, function_call, observation, or OpenAI's user, assistant, tool");
    }
    return strcmp(role, "tool") == 0 ? say_observation(d, *value) : say(d, role, *value);
}

static bool is_answer(const tn_json *message) {
    return tn_json_is_string(tn_json_get(message, "role"), "assistant");
}

/* What a message says itself of the loss of the one that was just made of it. Only the assistant's have one. */
static tn_status read_mark(dialogue *d, const tn_json *given, int64_t number) {
    static const char *const switches[] = {"train", "training", "loss"}, *const parts = "train_detail";
    const tn_json *weight = tn_json_get(given, "weight"), *detail = tn_json_get(given, parts);
    bool *silent = &d->silent[d->count - 1];
    if (!is_answer(&d->messages[d->count - 1])) return TN_OK;
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        if (!tn_json_boolean(tn_json_get(given, switches[i]), true)) *silent = true;
    if (detail && detail->type == TN_JSON_ARRAY && detail->count > 0) {
        tn_fail(TN_BAD_DATA, "message %lld has \"%s\", and parts of a message cannot be left out",
                (long long)number, parts);
        return tn_remedy("\"train\": false leaves out the whole message; ids with labels can say every token");
    }
    if (tn_json_is_null(weight)) return TN_OK;
    double value = weight->type == TN_JSON_BOOLEAN ? weight->boolean : tn_json_number(weight, NAN);
    if (value == 0) *silent = true;
    if (value == 0 || value == 1) return TN_OK;
    tn_fail(TN_BAD_DATA, "the \"weight\" of message %lld is neither 0 nor 1", (long long)number);
    return tn_remedy("a message carries its loss (1) or none (0); leave the key out otherwise");
}

/* Messages of either spelling. OpenAI's pass as they are, whatever else they carry. */
static tn_status say_all(dialogue *d, const tn_json *list) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < list->count && status == TN_OK; i++) {
        const tn_json *message = &list->items[i];
        if (message->type != TN_JSON_OBJECT)
            return tn_fail(TN_BAD_DATA, "message %lld is %s, an object was expected", (long long)i + 1,
                           tn_json_type_name(message));
        if (!has(message, "role")) {
            status = say_sharegpt(d, message, i + 1);
            if (status == TN_OK) status = read_mark(d, message, i + 1);
            continue;
        }
        if (!tn_json_string(tn_json_get(message, "role"), NULL))
            return tn_fail(TN_BAD_DATA, "\"role\" of message %lld is not a string", (long long)i + 1);
        if (!tn_json_get(message, "content") && !has(message, "tool_calls"))
            return tn_fail(TN_BAD_DATA, "message %lld has no \"content\"", (long long)i + 1);
        d->messages[d->count++] = *message;
        status = read_mark(d, message, i + 1);
    }
    return status;
}

/* "system" beside the conversation opens it, unless a system message does. */
static tn_status say_system(dialogue *d, const tn_json *record, const tn_json *first) {
    const tn_json *system = tn_json_get(record, "system");
    if (!system || system->type != TN_JSON_STRING || system->count == 0) return TN_OK;
    if (tn_json_is_string(tn_json_get(first, "role"), "system") ||
        tn_json_is_string(tn_json_get(first, "from"), "system"))
        return TN_OK;
    return say(d, "system", *system);
}

/* A part of a message that is a picture. */
static bool has_picture_part(const tn_json *record) {
    const tn_json *messages = tn_json_get(record, "messages");
    for (int64_t i = 0; messages && messages->type == TN_JSON_ARRAY && i < messages->count; i++) {
        const tn_json *content = tn_json_get(&messages->items[i], "content");
        for (int64_t j = 0; content && content->type == TN_JSON_ARRAY && j < content->count; j++) {
            const tn_json *type = tn_json_get(&content->items[j], "type");
            if (tn_json_is_string(type, "image") || tn_json_is_string(type, "image_url")) return true;
        }
    }
    return false;
}

tn_status tn_record_refuse_media(const tn_json *record, bool allowed) {
    static const char *const keys[] = {"images", "image", "videos", "video", "audios"};
    if (!allowed && has_picture_part(record)) {
        tn_fail(TN_USAGE, "a message has a picture, and this model sees none");
        return tn_remedy("give the text alone, or take a model that sees, such as Qwen2.5-VL");
    }
    for (size_t i = allowed ? 2 : 0; i < sizeof keys / sizeof *keys; i++) {
        const tn_json *node = tn_json_get(record, keys[i]);
        if (tn_json_is_null(node) || (node->type == TN_JSON_ARRAY && node->count == 0)) continue;
        tn_fail(TN_USAGE, "the record has \"%s\", which is not read for this model", keys[i]);
        return tn_remedy("leave these records out, or drop the column to train on the text alone");
    }
    return TN_OK;
}

/* The marks of the assistant's messages alone, in place; none where every one carries its loss. */
static void give_marks(dialogue *d, tn_record *out) {
    bool any = false;
    for (int64_t i = 0; i < d->count; i++) {
        if (!is_answer(&d->messages[i])) continue;
        any |= d->silent[i];
        d->silent[out->answers++] = d->silent[i];
    }
    if (any) out->silent = d->silent;
}

/* The object for tn_chat_render. */
static tn_status finish_chat(dialogue *d, const tn_json *record, tn_record *out) {
    static const char *const names[][2] = {{"tools", "tools"},
                                           {"documents", "documents"},
                                           {"kwargs", "kwargs"},
                                           {"chat_template_kwargs", "kwargs"}};
    enum { NAMES = sizeof names / sizeof *names };
    tn_member *members = tn_arena_take(d->arena, (1 + NAMES) * (int64_t)sizeof *members);
    tn_json *chat = tn_arena_take(d->arena, sizeof *chat);
    if (!members || !chat) return fail_room();
    int64_t count = 0;
    set_member(&members[count++], "messages",
               (tn_json){.type = TN_JSON_ARRAY, .count = d->count, .items = d->messages});
    for (int i = 0; i < NAMES; i++) {
        const tn_json *node;
        tn_status status = get_tree(d->arena, record, names[i][0], &node);
        if (status != TN_OK) return status;
        if (node) set_member(&members[count++], names[i][1], *node);
    }
    *chat = (tn_json){.type = TN_JSON_OBJECT, .count = count, .members = members};
    *out = (tn_record){.kind = TN_RECORD_CHAT, .chat = chat};
    give_marks(d, out);
    return TN_OK;
}

static tn_status convert_messages(tn_arena *arena, const tn_json *record, const char *key, tn_record *out) {
    const tn_json *list;
    dialogue d;
    tn_status status;
    TN_TRY(get_list(arena, record, key, &list));
    if (!list) TN_THROW(TN_BAD_DATA, "\"%s\" is empty", key);
    TN_TRY(open_dialogue(&d, arena, list->count + 1));
    TN_TRY(say_system(&d, record, &list->items[0]));
    TN_TRY(say_all(&d, list));
    status = finish_chat(&d, record, out);
done:
    return status;
}

/* ---- One prompt, one answer ---- */

static tn_status plain(tn_arena *arena, const tn_json *prompt, const tn_json *completion, tn_record *out) {
    int64_t bytes = prompt->count + completion->count;
    char *text = tn_arena_take(arena, bytes + 1);
    if (!text) return tn_fail_memory(bytes, "a record");
    memcpy(text, prompt->string, (size_t)prompt->count);
    memcpy(text + prompt->count, completion->string, (size_t)completion->count);
    *out =
        (tn_record){.kind = TN_RECORD_COMPLETION, .text = text, .bytes = bytes, .prompt_bytes = prompt->count};
    return TN_OK;
}

/* Earlier turns of LLaMA-Factory's alpaca: [[question, answer], ...]. */
static tn_status say_history(dialogue *d, const tn_json *history) {
    tn_status status = TN_OK;
    for (int64_t i = 0; history && i < history->count && status == TN_OK; i++) {
        const tn_json *question = tn_json_at(&history->items[i], 0),
                      *answer = tn_json_at(&history->items[i], 1);
        if (!tn_json_string(question, NULL) || !tn_json_string(answer, NULL))
            return tn_fail(TN_BAD_DATA, "\"history\" must hold pairs of strings");
        status = say(d, "user", *question);
        if (status == TN_OK) status = say(d, "assistant", *answer);
    }
    return status;
}

/* Strings become a user and an assistant message, lists of messages are joined. */
static tn_status exchange(tn_arena *arena, const tn_json *record, const tn_json *prompt,
                          const tn_json *completion, tn_record *out) {
    const tn_json *sides[2] = {prompt, completion}, *history = NULL;
    static const char *const roles[2] = {"user", "assistant"};
    dialogue d;
    int64_t room = 3;
    tn_status status;
    TN_TRY(get_list(arena, record, "history", &history));
    for (int i = 0; i < 2; i++)
        if (sides[i]->type == TN_JSON_ARRAY) room += sides[i]->count;
    TN_TRY(open_dialogue(&d, arena, room + (history ? 2 * history->count : 0)));
    TN_TRY(say_system(&d, record, tn_json_at(prompt, 0)));
    TN_TRY(say_history(&d, history));
    for (int i = 0; i < 2; i++) {
        if (sides[i]->type == TN_JSON_STRING) TN_TRY(say(&d, roles[i], *sides[i]));
        else TN_TRY(say_all(&d, sides[i]));
    }
    status = finish_chat(&d, record, out);
done:
    return status;
}

static tn_status prompt_and_answer(tn_arena *arena, const tn_json *record, const tn_json *prompt,
                                   const tn_json *completion, bool chat_template, tn_record *out) {
    if (chat_template) return exchange(arena, record, prompt, completion, out);
    if (prompt->type != TN_JSON_STRING || completion->type != TN_JSON_STRING) {
        tn_fail(TN_USAGE, "a prompt of messages needs a chat template, and this tokenizer has none");
        return tn_remedy(
            "put chat_template.jinja beside tokenizer.json, or give prompt and completion as strings");
    }
    return plain(arena, prompt, completion, out);
}

static tn_status convert_alpaca(tn_arena *arena, const tn_json *record, bool chat_template, tn_record *out) {
    const tn_json *instruction, *output, *input = tn_json_get(record, "input");
    tn_json prompt;
    tn_status status;
    TN_TRY(get_string(record, "instruction", &instruction));
    TN_TRY(get_string(record, "output", &output));
    prompt = *instruction;
    if (!tn_json_is_null(input)) TN_TRY(get_string(record, "input", &input));
    if (!tn_json_is_null(input) && input->count > 0) {
        bool both = instruction->count > 0;
        tn_str joined = {0};
        tn_str_add(&joined, instruction->string, instruction->count);
        if (both) tn_str_putc(&joined, '\n');
        tn_str_add(&joined, input->string, input->count);
        const char *text = joined.failed ? NULL : tn_arena_text(arena, tn_str_text(&joined), joined.length);
        prompt = (tn_json){.type = TN_JSON_STRING, .count = joined.length, .string = text};
        tn_str_free(&joined);
        if (!text) return fail_room();
    }
    status = prompt_and_answer(arena, record, &prompt, output, chat_template, out);
done:
    return status;
}

/* The prompt that Stanford Alpaca was trained with, and axolotl's type "alpaca" still gives. */
static tn_status convert_alpaca_prompt(tn_arena *arena, const tn_json *record, tn_record *out) {
    const tn_json *instruction, *output, *input = tn_json_get(record, "input");
    tn_str text = {0};
    tn_status status;
    TN_TRY(get_string(record, "instruction", &instruction));
    TN_TRY(get_string(record, "output", &output));
    if (!tn_json_is_null(input)) TN_TRY(get_string(record, "input", &input));
    bool has_input = !tn_json_is_null(input) && input->count > 0;
    if (has(record, "history") || has(record, "system"))
        TN_THROW(TN_USAGE,
                 "alpaca_prompt has no place for \"history\" or \"system\"; dataset_format alpaca has");
    tn_str_printf(
        &text,
        "Below is an instruction that describes a task%s. Write a response that appropriately completes "
        "the request.\n\n### Instruction:\n",
        has_input ? ", paired with an input that provides further context" : "");
    tn_str_add(&text, instruction->string, instruction->count);
    if (has_input) {
        tn_str_puts(&text, "\n\n### Input:\n");
        tn_str_add(&text, input->string, input->count);
    }
    tn_str_puts(&text, "\n\n### Response:\n");
    TN_TRY(tn_str_check(&text, "a record"));
    tn_json prompt = {.type = TN_JSON_STRING, .count = text.length, .string = tn_str_text(&text)};
    status = plain(arena, &prompt, output, out);
done:
    tn_str_free(&text);
    return status;
}

static tn_status convert_pair(tn_arena *arena, const tn_json *record, tn_shape shape, bool chat_template,
                              tn_record *out) {
    const tn_json *sides[2];
    for (int i = 0; i < 2; i++) {
        const char *key = shapes[shape].keys[i];
        sides[i] = tn_json_get(record, key);
        bool list = sides[i] && sides[i]->type == TN_JSON_ARRAY && shape == TN_SHAPE_PROMPT_COMPLETION;
        tn_status status = list ? TN_OK : get_string(record, key, &sides[i]);
        if (status != TN_OK) return status;
    }
    return prompt_and_answer(arena, record, sides[0], sides[1], chat_template, out);
}

/* ---- Text and ids ---- */

static tn_status convert_text(const tn_json *record, tn_record *out) {
    const tn_json *text;
    tn_status status = get_string(record, "text", &text);
    if (status == TN_OK) *out = (tn_record){.kind = TN_RECORD_TEXT, .text = text->string, .bytes = text->count};
    return status;
}

/* Places [*from, *to) of the tokens that are none of the padding, which lies at the ends. */
static tn_status find_padding(const tn_json *mask, int64_t *from, int64_t *to) {
    if (mask->count != *to)
        return tn_fail(TN_BAD_DATA, "%lld input_ids, but an attention_mask of %lld", (long long)*to,
                       (long long)mask->count);
    while (*from < *to && tn_json_integer(&mask->items[*from], -1) == 0) ++*from;
    while (*to > *from && tn_json_integer(&mask->items[*to - 1], -1) == 0) --*to;
    for (int64_t i = *from; i < *to; i++) {
        if (tn_json_integer(&mask->items[i], -1) == 1) continue;
        tn_fail(TN_BAD_DATA, "attention_mask[%lld] is not 1 between tokens that are no padding", (long long)i);
        return tn_remedy(
            "0 marks padding, at the ends alone; records that were packed before come apart, one a line");
    }
    return TN_OK;
}

static tn_status slice(tn_arena *arena, const tn_json **list, int64_t from, int64_t to) {
    tn_json *part = tn_arena_take(arena, sizeof *part);
    if (!part) return fail_room();
    *part = (tn_json){.type = TN_JSON_ARRAY, .count = to - from, .items = (*list)->items + from};
    *list = part;
    return TN_OK;
}

static tn_status convert_ids(tn_arena *arena, const tn_json *record, tn_record *out) {
    static const tn_json none = {.type = TN_JSON_ARRAY};
    const tn_json *mask;
    tn_status status;
    *out = (tn_record){.kind = TN_RECORD_IDS};
    TN_TRY(get_list(arena, record, "input_ids", &out->ids));
    TN_TRY(get_list(arena, record, "labels", &out->labels));
    TN_TRY(get_list(arena, record, "attention_mask", &mask));
    if (!out->ids) out->ids = &none;
    if (out->labels && out->labels->count != out->ids->count)
        TN_THROW(TN_BAD_DATA, "%lld input_ids, but %lld labels", (long long)out->ids->count,
                 (long long)out->labels->count);
    if (!mask) goto done;
    int64_t from = 0, to = out->ids->count;
    TN_TRY(find_padding(mask, &from, &to));
    TN_TRY(slice(arena, &out->ids, from, to));
    if (out->labels) TN_TRY(slice(arena, &out->labels, from, to));
done:
    return status;
}

static tn_status convert(tn_arena *arena, const tn_json *json, tn_shape shape, bool chat_template,
                         tn_record *record) {
    for (int i = 0; i < 2 && shapes[shape].keys[i]; i++) {
        char problem[80];
        snprintf(problem, sizeof problem, "\"%s\" is missing", shapes[shape].keys[i]);
        if (!tn_json_get(json, shapes[shape].keys[i])) return fail_keys(json, problem);
    }
    if (shape == TN_SHAPE_INPUT_IDS) return convert_ids(arena, json, record);
    if (shape == TN_SHAPE_TEXT) return convert_text(json, record);
    if (shape == TN_SHAPE_ALPACA_PROMPT) return convert_alpaca_prompt(arena, json, record);
    if (shape == TN_SHAPE_ALPACA) return convert_alpaca(arena, json, chat_template, record);
    if (shape != TN_SHAPE_MESSAGES && shape != TN_SHAPE_CONVERSATIONS)
        return convert_pair(arena, json, shape, chat_template, record);
    if (chat_template) return convert_messages(arena, json, shapes[shape].keys[0], record);
    tn_fail(TN_USAGE, "a conversation needs a chat template, and this tokenizer has none");
    return tn_remedy("put chat_template.jinja beside tokenizer.json, or use prompt/completion or text records");
}

tn_status tn_record_convert(tn_arena *arena, const tn_json *json, tn_shape shape, bool chat_template,
                            bool pictures, tn_record *record) {
    const bool conversation = chat_template && shape != TN_SHAPE_TEXT && shape != TN_SHAPE_ALPACA_PROMPT;
    tn_status status;
    TN_TRY(require_object(json));
    if (shape != TN_SHAPE_INPUT_IDS) TN_TRY(tn_record_refuse_media(json, pictures && conversation));
    TN_TRY(convert(arena, json, shape, chat_template, record));
    if (pictures && record->kind == TN_RECORD_CHAT) status = tn_record_place_pictures(arena, json, record);
done:
    return status;
}
