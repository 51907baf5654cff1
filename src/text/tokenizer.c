/* tokenizer.c: the pipeline itself: text to ids and ids to text.
 *
 * Encoding: added tokens are found in the raw text; what lies between them is normalised, searched for the
 * normalised added tokens, pre-tokenised, and each pre-token goes through the model.
 */
#include <stdlib.h>

#include "text/decoder.h"
#include "text/work.h"

typedef struct encoder {
    const tn_text *text;
    tn_work *work;
    tn_ids *ids;
    tn_spans *spans; /* NULL: not asked for */
} encoder;

/* ---- Ids and spans ---- */

tn_status tn_ids_push(tn_ids *ids, int32_t id) {
    if (ids->count == ids->capacity) {
        tn_status status = tn_grow(&ids->ids, &ids->capacity, ids->count + 1, sizeof *ids->ids, "ids");
        if (status != TN_OK) return status;
    }
    ids->ids[ids->count++] = id;
    return TN_OK;
}

void tn_ids_free(tn_ids *ids) {
    free(ids->ids);
    *ids = (tn_ids){0};
}

static tn_status push(encoder *e, int32_t id, tn_range range) {
    tn_status status = tn_ids_push(e->ids, id);
    if (status != TN_OK || !e->spans) return status;
    status =
        tn_grow(&e->spans->starts_ends, &e->spans->capacity, e->spans->count + 1, 2 * sizeof(int64_t), "spans");
    if (status != TN_OK) return status;
    e->spans->starts_ends[2 * e->spans->count] = range.start;
    e->spans->starts_ends[2 * e->spans->count + 1] = range.end;
    e->spans->count++;
    return TN_OK;
}

/* ---- Encoding ---- */

static tn_status run_model(const tn_text *text, tn_work *work, const char *piece, int64_t length) {
    switch (text->kind) {
        case TN_MODEL_BPE: return tn_bpe_encode(&text->bpe, work, piece, length, &work->tokens);
        case TN_MODEL_WORDLEVEL:
            return tn_wordlevel_encode(&text->words, &text->vocab, piece, length, &work->tokens);
        case TN_MODEL_WORDPIECE:
            return tn_wordpiece_encode(&text->words, &text->vocab, work, piece, length, &work->tokens);
        case TN_MODEL_UNIGRAM:
            return tn_unigram_encode(&text->unigram, &text->vocab, piece, length, &work->tokens);
    }
    return TN_OK;
}

static tn_status encode_piece(encoder *e, const tn_view *view, tn_range piece) {
    tn_tokens *tokens = &e->work->tokens;
    tokens->count = 0;
    tn_status status = run_model(e->text, e->work, view->text + piece.start, piece.end - piece.start);
    for (int64_t i = 0, at = piece.start; i < tokens->count && status == TN_OK; i++) {
        int64_t end = at + tokens->tokens[i].length;
        if (end > piece.end) end = piece.end;
        tn_range origin = {0, 0};
        if (e->spans) origin = tn_view_origin(view, at, end);
        status = push(e, tokens->tokens[i].id, origin);
        at = end;
    }
    return status;
}

static tn_status encode_pieces(encoder *e, const tn_view *view) {
    const tn_pieces *pieces;
    tn_status status = tn_pretokenizer_run(e->text->pretokenizer, e->work, view, &pieces);
    for (int64_t i = 0; status == TN_OK && i < pieces->count; i++)
        status = encode_piece(e, &pieces->view, pieces->ranges[i]);
    return status;
}

static tn_status encode_normalized(encoder *e, const tn_view *raw);

/* Walks through the added tokens of one set; the text between them goes to `between`. */
static tn_status encode_between(encoder *e, const tn_finder *finder, const tn_view *view,
                                tn_status (*between)(encoder *, const tn_view *)) {
    tn_status status = TN_OK;
    tn_added_cursor cursor = {0};
    const tn_added_token *token;
    tn_range range;
    int64_t done = 0;
    while ((token = tn_added_next(&e->text->added, finder, view, &cursor, &range)) != NULL) {
        tn_view part = tn_view_slice(view, done, range.start);
        if (done < range.start) TN_TRY(between(e, &part));
        TN_TRY(push(e, token->id, tn_view_origin(view, range.start, range.end)));
        done = range.end;
    }
    tn_view rest = tn_view_slice(view, done, view->length);
    if (done < view->length) status = between(e, &rest);
done:
    return status;
}

static tn_status encode_normalized(encoder *e, const tn_view *raw) {
    tn_view view;
    tn_status status = tn_normalizer_run(e->text->normalizer, e->work, raw, &view);
    return status == TN_OK ? encode_between(e, &e->text->added.normalized, &view, encode_pieces) : status;
}

/* Each maximal invalid part becomes one U+FFFD. */
static tn_status mend(tn_work *work, const char *input, int64_t bytes, tn_view *view) {
    tn_view whole = {input, bytes, NULL, 0};
    tn_buffer_clear(&work->input, work->mapped);
    for (int64_t i = 0; i < bytes;) {
        uint32_t c;
        int n = tn_utf8_decode(input + i, bytes - i, &c);
        if (n > 0) {
            tn_buffer_copy(&work->input, &whole, i, i + n);
        } else {
            for (n = 1; n < 3 && i + n < bytes && tn_utf8_incomplete_tail(input + i, n + 1) == n + 1;) n++;
            tn_buffer_put(&work->input, "\xEF\xBF\xBD", 3, (tn_range){i, i + n});
        }
        i += n;
    }
    *view = tn_buffer_view(&work->input);
    return tn_str_check(&work->input.text, "text");
}

tn_status tn_text_encode(const tn_text *text, const char *input, int64_t bytes, bool add_special_tokens,
                         tn_ids *out, tn_spans *spans) {
    tn_status status = TN_OK;
    encoder e = {.text = text, .ids = out, .spans = spans};
    int64_t ids_before = out->count, spans_before = spans ? spans->count : 0;
    tn_view view = {input, bytes, NULL, 0};
    const tn_ids *parts = add_special_tokens ? &text->post.special : &text->post.plain;
    TN_TRY(tn_pool_take(text->pool, &e.work));
    e.work->mapped = spans != NULL || tn_pretokenizer_needs_origin(text->pretokenizer);
    if (!tn_utf8_valid(input, bytes)) TN_TRY(mend(e.work, input, bytes, &view));
    for (int64_t i = 0; i < parts->count; i++) {
        if (parts->ids[i] == TN_POST_TEXT)
            TN_TRY(encode_between(&e, &text->added.raw, &view, encode_normalized));
        else TN_TRY(push(&e, parts->ids[i], (tn_range){0, 0}));
    }
done:
    tn_pool_give(text->pool, e.work);
    if (status != TN_OK) {
        out->count = ids_before;
        if (spans) spans->count = spans_before;
    }
    return status;
}

/* ---- Decoding ---- */

struct tn_text_stream {
    const tn_text *text;
    tn_work *work;
    tn_decoding *decoding;
    bool skip_special;
};

tn_status tn_text_stream_new(const tn_text *text, bool skip_special, tn_text_stream **stream) {
    tn_status status = TN_OK;
    tn_text_stream *made = NULL;
    TN_TRY(tn_alloc(&made, 1, sizeof *made, "decoding"));
    made->text = text;
    made->skip_special = skip_special;
    TN_TRY(tn_pool_take(text->pool, &made->work));
    TN_TRY(tn_decoding_new(text->decoder, made->work, &made->decoding));
    *stream = made;
    made = NULL;
done:
    tn_text_stream_free(made);
    return status;
}

tn_status tn_text_stream_push(tn_text_stream *stream, int32_t id, tn_str *out) {
    const tn_added_token *added = tn_added_by_id(&stream->text->added, id);
    if (added) {
        if (stream->skip_special && added->skipped) return TN_OK;
        return tn_decoding_push(stream->decoding, added->shown, added->shown_length, out);
    }
    int64_t length;
    const char *token = tn_text_token(stream->text, id, &length);
    return token ? tn_decoding_push(stream->decoding, token, length, out) : TN_OK;
}

tn_status tn_text_stream_end(tn_text_stream *stream, tn_str *out) {
    return tn_decoding_end(stream->decoding, out);
}

void tn_text_stream_free(tn_text_stream *stream) {
    if (!stream) return;
    tn_decoding_free(stream->decoding);
    tn_pool_give(stream->text->pool, stream->work);
    free(stream);
}

tn_status tn_text_decode(const tn_text *text, const int32_t *ids, int64_t count, bool skip_special,
                         tn_str *out) {
    tn_text_stream *stream;
    tn_status status = tn_text_stream_new(text, skip_special, &stream);
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < count && status == TN_OK; i++) status = tn_text_stream_push(stream, ids[i], out);
    if (status == TN_OK) status = tn_text_stream_end(stream, out);
    tn_text_stream_free(stream);
    return status;
}

/* ---- Questions ---- */

int32_t tn_text_vocab_size(const tn_text *text) { return (int32_t)text->added.ids; }

int32_t tn_text_id(const tn_text *text, const char *content) {
    int64_t length = (int64_t)strlen(content);
    int32_t id = tn_vocab_find(&text->vocab, content, length);
    for (int64_t i = 0; id < 0 && i < text->added.count; i++) {
        const tn_added_token *token = &text->added.tokens[i];
        if (token->length == length && memcmp(token->content, content, (size_t)length) == 0) id = token->id;
    }
    return id;
}

const char *tn_text_token(const tn_text *text, int32_t id, int64_t *length) {
    const tn_added_token *added = tn_added_by_id(&text->added, id);
    if (added) return *length = added->length, added->content;
    if (id < 0 || id >= text->vocab.count || !text->vocab.entries[id].text) return *length = 0, NULL;
    return *length = text->vocab.entries[id].length, text->vocab.entries[id].text;
}

bool tn_text_is_special(const tn_text *text, int32_t id) {
    const tn_added_token *token = tn_added_by_id(&text->added, id);
    return token && token->special;
}

void tn_text_special_ids(const tn_text *text, tn_special_ids *ids) { *ids = text->special_ids; }

const char *tn_text_json(const tn_text *text, int64_t *length) {
    *length = text->json.length;
    return text->json.data;
}
