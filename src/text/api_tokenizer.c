/* api_tokenizer.c: the public tokenizer of tenon.h: a chat's tokenizer and template behind one handle. */
#include <stdlib.h>

#include "text/chat.h"

struct tn_tokenizer {
    tn_chat *chat;
};

tn_status tn_tokenizer_open(const char *path, tn_tokenizer **tokenizer) {
    tn_status status;
    tn_tokenizer *result = NULL;
    *tokenizer = NULL;
    TN_TRY(tn_alloc(&result, 1, sizeof *result, "tokenizer"));
    TN_TRY(tn_chat_open(path, &result->chat));
    *tokenizer = result;
    result = NULL;
done:
    tn_tokenizer_free(result);
    return status;
}

void tn_tokenizer_free(tn_tokenizer *tokenizer) {
    if (!tokenizer) return;
    tn_chat_free(tokenizer->chat);
    free(tokenizer);
}

/* {"ids": […], "text": …}; for a chat's text no special tokens are added, its template has put them in. */
static tn_status encode(const tn_tokenizer *tokenizer, const char *text, int64_t length,
                        bool add_special_tokens, tn_json_writer *w) {
    tn_ids ids = {0};
    tn_status status =
        tn_text_encode(tn_chat_text(tokenizer->chat), text, length, add_special_tokens, &ids, NULL);
    if (status == TN_OK) {
        tn_json_ids_member(w, "ids", ids.ids, ids.count);
        tn_json_key(w, "text");
        tn_json_put_string(w, text, length);
    }
    tn_ids_free(&ids);
    return status;
}

/* A conversation that the template cannot render is an answer, not a failure: the error of its line. A template
 * that cannot render any is none. */
static tn_status encode_chat(const tn_tokenizer *tokenizer, const tn_json *record, tn_json_writer *w) {
    tn_str text = {0};
    tn_status status = tn_chat_render(tokenizer->chat, record, &text, NULL, NULL, NULL);
    if (status == TN_OK) {
        status = encode(tokenizer, tn_str_text(&text), text.length, false, w);
    } else if (status == TN_BAD_DATA && !tn_chat_template_broken(tokenizer->chat, record)) {
        tn_json_string_member(w, "error", tn_error_message());
        status = TN_OK;
    }
    tn_str_free(&text);
    return status;
}

/* The way back: the ids as they came, and their text with special tokens written out. */
static tn_status decode(const tn_tokenizer *tokenizer, const tn_json *list, tn_json_writer *w) {
    tn_str text = {0};
    int32_t *ids = NULL;
    tn_status status;
    TN_TRY(tn_alloc(&ids, list->count + 1, (int64_t)sizeof *ids, "ids"));
    tn_json_key(w, "ids");
    tn_json_begin(w, '[');
    for (int64_t i = 0; i < list->count; i++) {
        const int64_t id = tn_json_integer(tn_json_at(list, i), -1);
        int64_t length;
        if (id < 0 || id > INT32_MAX || !tn_text_token(tn_chat_text(tokenizer->chat), (int32_t)id, &length)) {
            status = tn_fail(TN_BAD_DATA, "\"ids\"[%lld] is no token of this tokenizer", (long long)i);
            tn_remedy("ids are whole numbers that `tokenize` with the same model gave");
            goto done;
        }
        ids[i] = (int32_t)id;
        tn_json_put_integer(w, id);
    }
    tn_json_end(w, ']');
    TN_TRY(tn_text_decode(tn_chat_text(tokenizer->chat), ids, list->count, false, &text));
    tn_json_key(w, "text");
    tn_json_put_string(w, tn_str_text(&text), text.length);
done:
    free(ids);
    tn_str_free(&text);
    return status;
}

tn_status tn_tokenize_record(tn_tokenizer *tokenizer, const char *record, int64_t bytes,
                             bool add_special_tokens, tn_doc **doc) {
    tn_status status;
    tn_arena arena = {0};
    tn_str out = {0};
    tn_json_writer w = tn_json_write_to(&out, 0);
    const tn_json *root;
    *doc = NULL;
    TN_TRY(tn_json_parse(&arena, record, bytes, TN_JSON_EXTENSIONS, "record", &root));
    const tn_json *text = tn_json_get(root, "text"), *ids = tn_json_get(root, "ids");
    bool is_text = text && text->type == TN_JSON_STRING, is_ids = ids && ids->type == TN_JSON_ARRAY;
    if (!is_text && !is_ids && !tn_json_get(root, "messages")) {
        status = tn_fail(TN_BAD_DATA, "a record to tokenize needs \"text\" or \"messages\"");
        tn_remedy("a line is {\"text\": \"…\"}, {\"messages\": […]}, or {\"ids\": […]} for the way back");
        goto done;
    }
    tn_json_begin(&w, '{');
    if (tn_json_get(root, "messages")) TN_TRY(encode_chat(tokenizer, root, &w));
    else if (is_text) TN_TRY(encode(tokenizer, text->string, text->count, add_special_tokens, &w));
    else if (is_ids) TN_TRY(decode(tokenizer, ids, &w));
    tn_json_end(&w, '}');
    TN_TRY(tn_str_check(&out, "tokenized record"));
    TN_TRY(tn_doc_from(&out, doc));
done:
    tn_str_free(&out);
    tn_arena_free(&arena);
    return status;
}
