/* record_pictures.c: finding the places of pictures, and giving each its part and its path. */
#include "data/record_pictures.h"

#include <stdio.h>
#include <string.h>

static const char mark[] = "<image>";

typedef struct placing {
    tn_arena *arena;
    const tn_json *list; /* of the record, NULL where it has none */
    int64_t next;        /* how many of the list have a place */
    const char **paths;
    int64_t count;
} placing;

/* ---- Paths --------------------------------------------------------------------------------------- */

/* A path, or an object that holds one. */
static const tn_json *path_in(const tn_json *source) {
    static const char *const keys[] = {"path", "url"};
    for (size_t i = 0; i < 2 && source && source->type == TN_JSON_OBJECT; i++) {
        const tn_json *inner = tn_json_get(source, keys[i]);
        if (!tn_json_is_null(inner)) return inner;
    }
    return source;
}

static tn_status add_path(placing *p, const tn_json *source) {
    const char *path = tn_json_string(path_in(source), NULL);
    if (!path || !*path) {
        tn_fail(TN_BAD_DATA, "picture %lld of the record is no path", (long long)p->count + 1);
        return tn_remedy("a picture is given as the path of a PNG or JPEG file");
    }
    if (tn_starts_with(path, "file://")) path += strlen("file://");
    if (strstr(path, "://") || tn_starts_with(path, "data:")) {
        tn_fail(TN_USAGE,
                "picture %lld of the record is an address (%.40s…), and pictures are read from files alone",
                (long long)p->count + 1, path);
        return tn_remedy("save it as a PNG or JPEG file, and give its path");
    }
    p->paths[p->count++] = path;
    return TN_OK;
}

static tn_status add_listed(placing *p) {
    const tn_json *source = p->list && p->list->type == TN_JSON_ARRAY ? tn_json_at(p->list, p->next)
                            : p->next == 0                            ? p->list
                                                                      : NULL;
    if (source) return p->next++, add_path(p, source);
    tn_fail(TN_BAD_DATA, "the conversation has a place for picture %lld, and \"images\" has %lld",
            (long long)p->next + 1, (long long)p->next);
    return tn_remedy("every <image> and every part of type image needs its entry in \"images\"");
}

/* ---- Parts --------------------------------------------------------------------------------------- */

static void set(tn_member *member, const char *key, const char *text, int64_t length) {
    *member = (tn_member){.key = key, .key_length = (int64_t)strlen(key)};
    member->value = (tn_json){.type = TN_JSON_STRING, .count = length, .string = text};
}

/* {"type": "image"}, or with a text {"type": "text", "text": …}. */
static tn_status make_part(placing *p, const char *text, int64_t length, tn_json *part) {
    tn_member *members = tn_arena_take(p->arena, 2 * (int64_t)sizeof *members);
    if (!members) return tn_fail_memory(128, "a record");
    set(&members[0], "type", text ? "text" : "image", text ? 4 : 5);
    if (text) {
        text = tn_arena_text(p->arena, text, length);
        if (!text) return tn_fail_memory(length, "a record");
        set(&members[1], "text", text, length);
    }
    *part = (tn_json){.type = TN_JSON_OBJECT, .count = text ? 2 : 1, .members = members};
    return TN_OK;
}

/* The message with other content. */
static tn_status give_content(placing *p, tn_json *message, tn_json content) {
    tn_member *members = tn_arena_take(p->arena, message->count * (int64_t)sizeof *members);
    if (!members) return tn_fail_memory(128, "a record");
    for (int64_t i = 0; i < message->count; i++) {
        members[i] = message->members[i];
        if (strcmp(members[i].key, "content") == 0) members[i].value = content;
    }
    message->members = members;
    return TN_OK;
}

/* ---- Places -------------------------------------------------------------------------------------- */

/* A text with <image> in it becomes parts. */
static tn_status split_text(placing *p, tn_json *message, const tn_json *content) {
    const char *at = content->string, *end = at + content->count, *found;
    int64_t most = 1, count = 0;
    for (found = at; (found = strstr(found, mark)); found += strlen(mark)) most += 2;
    if (most == 1) return TN_OK;
    tn_json *parts = tn_arena_take(p->arena, most * (int64_t)sizeof *parts);
    tn_status status = parts ? TN_OK : tn_fail_memory(128, "a record");
    while (status == TN_OK && (found = strstr(at, mark))) {
        if (found > at) status = make_part(p, at, found - at, &parts[count++]);
        if (status == TN_OK) status = add_listed(p);
        if (status == TN_OK) status = make_part(p, NULL, 0, &parts[count++]);
        at = found + strlen(mark);
    }
    if (status == TN_OK && at < end) status = make_part(p, at, end - at, &parts[count++]);
    if (status != TN_OK) return status;
    return give_content(p, message, (tn_json){.type = TN_JSON_ARRAY, .count = count, .items = parts});
}

static bool is_part(const tn_json *part, const char *kind) {
    return tn_json_is_string(tn_json_get(part, "type"), kind) || tn_json_get(part, kind);
}

static tn_status read_part(placing *p, const tn_json *part) {
    static const char *const keys[] = {"image", "image_url", "path", "url"};
    if (is_part(part, "video") || is_part(part, "audio")) {
        tn_fail(TN_USAGE, "a part of the conversation is video or sound, which is not supported yet");
        return tn_remedy("leave these records out");
    }
    if (!is_part(part, "image") && !is_part(part, "image_url")) return TN_OK;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const tn_json *source = tn_json_get(part, keys[i]);
        if (!tn_json_is_null(source)) return add_path(p, source);
    }
    return add_listed(p);
}

/* Pictures without any place stand in front of the first question. */
static tn_status open_with(placing *p, tn_json *messages, int64_t count) {
    const int64_t pictures = p->list->type == TN_JSON_ARRAY ? p->list->count : 1;
    int64_t i = 0;
    while (i < count && !tn_json_is_string(tn_json_get(&messages[i], "role"), "user")) i++;
    if (i == count)
        return tn_fail(TN_BAD_DATA, "the record has pictures, and no message of the user's to show them");
    const tn_json *content = tn_json_get(&messages[i], "content");
    const bool list = content && content->type == TN_JSON_ARRAY;
    const int64_t rest = list ? content->count : 1;
    tn_json *parts = tn_arena_take(p->arena, (pictures + rest) * (int64_t)sizeof *parts);
    tn_status status = parts ? TN_OK : tn_fail_memory(128, "a record");
    for (int64_t n = 0; n < pictures && status == TN_OK; n++) {
        status = add_listed(p);
        if (status == TN_OK) status = make_part(p, NULL, 0, &parts[n]);
    }
    if (status != TN_OK) return status;
    if (list) memcpy(parts + pictures, content->items, (size_t)rest * sizeof *parts);
    else if (content && content->type == TN_JSON_STRING)
        status = make_part(p, content->string, content->count, &parts[pictures]);
    else return tn_fail(TN_BAD_DATA, "the user's first message has no content to stand behind the pictures");
    if (status != TN_OK) return status;
    return give_content(p, &messages[i],
                        (tn_json){.type = TN_JSON_ARRAY, .count = pictures + rest, .items = parts});
}

static tn_status find_places(placing *p, tn_json *messages, int64_t count) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < count && status == TN_OK; i++) {
        const tn_json *content = tn_json_get(&messages[i], "content");
        if (content && content->type == TN_JSON_STRING && p->list)
            status = split_text(p, &messages[i], content);
        for (int64_t j = 0; content && content->type == TN_JSON_ARRAY && j < content->count && status == TN_OK;
             j++)
            status = read_part(p, &content->items[j]);
    }
    return status;
}

/* A chat with messages of its own, which may change. */
static tn_status copy_chat(tn_arena *arena, tn_record *out, tn_json **messages, int64_t *count) {
    tn_json *chat = tn_arena_take(arena, sizeof *chat);
    tn_member *members = tn_arena_take(arena, out->chat->count * (int64_t)sizeof *members);
    const tn_json *given = tn_json_get(out->chat, "messages");
    *count = given->count;
    *messages = tn_arena_take(arena, (*count + 1) * (int64_t)sizeof **messages);
    if (!chat || !members || !*messages) return tn_fail_memory(*count * 16, "a record");
    memcpy(*messages, given->items, (size_t)*count * sizeof **messages);
    memcpy(members, out->chat->members, (size_t)out->chat->count * sizeof *members);
    for (int64_t i = 0; i < out->chat->count; i++)
        if (strcmp(members[i].key, "messages") == 0) members[i].value.items = *messages;
    *chat = *out->chat;
    chat->members = members;
    out->chat = chat;
    return TN_OK;
}

tn_status tn_record_place_pictures(tn_arena *arena, const tn_json *record, tn_record *out) {
    const tn_json *images = tn_json_get(record, "images"), *image = tn_json_get(record, "image");
    placing p = {.arena = arena, .list = tn_json_is_null(images) ? image : images};
    if (tn_json_is_null(p.list) || (p.list->type == TN_JSON_ARRAY && p.list->count == 0)) p.list = NULL;
    const int64_t listed = !p.list ? 0 : p.list->type == TN_JSON_ARRAY ? p.list->count : 1;
    int64_t room = listed, count;
    tn_json *messages;
    tn_status status = copy_chat(arena, out, &messages, &count);
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < count; i++) {
        const tn_json *content = tn_json_get(&messages[i], "content");
        if (content && content->type == TN_JSON_ARRAY) room += content->count;
    }
    p.paths = tn_arena_take(arena, (room + 1) * (int64_t)sizeof *p.paths);
    if (!p.paths) return tn_fail_memory(room * 8, "a record");
    status = find_places(&p, messages, count);
    if (status == TN_OK && listed > 0 && p.count == 0) status = open_with(&p, messages, count);
    if (status == TN_OK && p.next != listed) {
        tn_fail(TN_BAD_DATA, "the record has %lld pictures, and its conversation places for %lld",
                (long long)listed, (long long)p.next);
        status = tn_remedy("every entry of \"images\" needs its <image>, or none has one");
    }
    out->pictures = p.paths;
    out->picture_count = p.count;
    return status;
}
