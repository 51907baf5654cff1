/* tokenizer_lines.c: our half of tests/parity/fuzz_tokenizers.py (not part of the suite).
 *
 *   tokenizer_lines TOKENIZER.json|MODEL.gguf < JSON strings or arrays of ids, one a line
 *
 * For each line: {"ids", "special" (with what the post-processor adds), "text" and "plain" (decoded without
 * and with special tokens skipped), "spans", "streamed" (does streaming give "text" too?)}, or {"error"}. An
 * array of ids is only decoded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/gguf.h"
#include "text/tokenizer.h"

static void put_ids(tn_json_writer *w, const char *key, const tn_ids *ids) {
    tn_json_key(w, key);
    tn_json_begin(w, '[');
    for (int64_t i = 0; i < ids->count; i++) tn_json_put_integer(w, ids->ids[i]);
    tn_json_end(w, ']');
}

static tn_status stream(const tn_text *text, const tn_ids *ids, tn_str *out) {
    tn_status status = TN_OK;
    tn_text_stream *s = NULL;
    TN_TRY(tn_text_stream_new(text, false, &s));
    for (int64_t i = 0; i < ids->count; i++) TN_TRY(tn_text_stream_push(s, ids->ids[i], out));
    status = tn_text_stream_end(s, out);
done:
    tn_text_stream_free(s);
    return status;
}

static void put_spans(tn_json_writer *w, const tn_spans *spans) {
    tn_json_key(w, "spans");
    tn_json_begin(w, '[');
    for (int64_t i = 0; i < 2 * spans->count; i++) tn_json_put_integer(w, spans->starts_ends[i]);
    tn_json_end(w, ']');
}

static tn_status put_decoded(const tn_text *text, const tn_ids *ids, tn_json_writer *w) {
    tn_status status = TN_OK;
    tn_str decoded = {0}, plain = {0}, streamed = {0};
    TN_TRY(tn_text_decode(text, ids->ids, ids->count, false, &decoded));
    TN_TRY(tn_text_decode(text, ids->ids, ids->count, true, &plain));
    TN_TRY(stream(text, ids, &streamed));
    tn_json_key(w, "text");
    tn_json_put_string(w, tn_str_text(&decoded), decoded.length);
    tn_json_key(w, "plain");
    tn_json_put_string(w, tn_str_text(&plain), plain.length);
    tn_json_boolean_member(
        w, "streamed",
        streamed.length == decoded.length &&
            memcmp(tn_str_text(&streamed), tn_str_text(&decoded), (size_t)decoded.length) == 0);
done:
    tn_str_free(&decoded);
    tn_str_free(&plain);
    tn_str_free(&streamed);
    return status;
}

static tn_status read_ids(const tn_json *line, tn_ids *ids) {
    tn_status status = TN_OK;
    for (int64_t i = 0; i < line->count && status == TN_OK; i++)
        status = tn_ids_push(ids, (int32_t)tn_json_integer(&line->items[i], -1));
    return status;
}

static tn_status answer(const tn_text *text, const tn_json *line, tn_json_writer *w) {
    tn_status status = TN_OK;
    tn_ids ids = {0}, special = {0};
    tn_spans spans = {0};
    if (line->type == TN_JSON_ARRAY) {
        TN_TRY(read_ids(line, &ids));
    } else {
        TN_TRY(tn_text_encode(text, line->string, line->count, false, &ids, &spans));
        TN_TRY(tn_text_encode(text, line->string, line->count, true, &special, NULL));
        put_ids(w, "ids", &ids);
        put_ids(w, "special", &special);
        put_spans(w, &spans);
    }
    status = put_decoded(text, &ids, w);
done:
    tn_ids_free(&ids);
    tn_ids_free(&special);
    free(spans.starts_ends);
    return status;
}

static void answer_line(const tn_text *text, const char *line, int64_t length) {
    tn_arena arena = {0};
    tn_str out = {0};
    const tn_json *root;
    tn_json_writer w = tn_json_write_to(&out, 0);
    tn_json_begin(&w, '{');
    tn_status status = tn_json_parse(&arena, line, length, TN_JSON_DEFAULT, "line", &root);
    if (status == TN_OK) status = answer(text, root, &w);
    if (status != TN_OK) tn_json_string_member(&w, "error", tn_error_message());
    tn_json_end(&w, '}');
    printf("%s\n", tn_str_text(&out));
    fflush(stdout);
    tn_str_free(&out);
    tn_arena_free(&arena);
}

static tn_status open_text(const char *path, tn_text **text) {
    if (!tn_ends_with(path, ".gguf")) return tn_text_from_json(path, text);
    tn_gguf *file;
    tn_status status = tn_gguf_open(path, &file);
    if (status != TN_OK) return status;
    status = tn_text_from_gguf(tn_gguf_metadata(file), path, text);
    tn_gguf_close(file);
    return status;
}

int main(int argc, char **argv) {
    tn_text *text;
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    if (argc != 2 || open_text(argv[1], &text) != TN_OK) {
        fprintf(stderr, "%s\n", argc == 2 ? tn_error_message() : "usage: tokenizer_lines FILE");
        return 1;
    }
    while ((length = getline(&line, &room, stdin)) > 0) answer_line(text, line, length);
    free(line);
    tn_text_free(text);
    return 0;
}
