/* gguf_save.c: a tokenizer and its chat template as GGUF metadata (llama.cpp: gguf-py/gguf/vocab.py): the way
 * back of gguf_tokens.c. It works on tokenizer.json itself, where every part still has its name.
 *
 * Byte-level BPE is model "gpt2": tokens, merges and the name of its pre-tokenizer. BPE with byte fallback is
 * SentencePiece's, model "llama": tokens with scores, from which readers make the merges again.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "text/chat_files.h"
#include "text/gguf_merges.h"
#include "text/gguf_pre.h"

/* Scores of what no merge makes (llama.cpp: convert_hf_to_gguf.py, _create_vocab_sentencepiece). */
static const float added_score = -1000.0f, filler_score = -10000.0f;

typedef struct saved_token {
    const char *text; /* NULL: no such id */
    int64_t length;
    int type;
    float score;
} saved_token;

typedef struct saver {
    tn_arena arena;
    const tn_chat *chat;
    tn_gguf_writer *w;
    const char *path; /* of the tokenizer, for messages */
    const tn_json *root, *model;
    bool sentencepiece;
    saved_token *tokens; /* [rows] */
    int64_t rows;
} saver;

/* ---- Reading tokenizer.json ---------------------------------------------------------------------- */

static tn_status read_tokenizer(saver *s) {
    int64_t length;
    const char *json = tn_text_json(s->chat->text, &length);
    const chat_file *file = &s->chat->files[TN_CHAT_TOKENIZER];
    s->path = json ? "the tokenizer" : "tokenizer.json";
    if (!json) json = file->text, length = file->length;
    return tn_json_parse(&s->arena, json, length, TN_JSON_DEFAULT, s->path, &s->root);
}

static tn_status refuse_model(const saver *s, const char *what) {
    tn_fail(TN_USAGE, "%s: %s cannot be written into a GGUF file", s->path, what);
    return tn_remedy(
        "GGUF has byte-level BPE (GPT-2, Llama 3, Qwen) and SentencePiece's BPE (Llama 2, Mistral)");
}

static tn_status check_model(saver *s) {
    const char *suffix, *prefix;
    s->model = tn_json_get(s->root, "model");
    const char *type = tn_json_string(tn_json_get(s->model, "type"), "BPE");
    const tn_json *vocab = tn_json_get(s->model, "vocab"), *merges = tn_json_get(s->model, "merges");
    if (strcmp(type, "BPE") != 0 || !vocab || vocab->type != TN_JSON_OBJECT || !merges ||
        merges->type != TN_JSON_ARRAY)
        return refuse_model(s, type);
    suffix = tn_json_string(tn_json_get(s->model, "end_of_word_suffix"), "");
    prefix = tn_json_string(tn_json_get(s->model, "continuing_subword_prefix"), "");
    if (*suffix || *prefix) return refuse_model(s, "BPE with marks at the ends of words");
    s->sentencepiece = tn_json_boolean(tn_json_get(s->model, "byte_fallback"), false);
    return TN_OK;
}

static tn_status set_token(saver *s, int64_t id, const char *text, int64_t length, int type, float score) {
    if (id < 0 || id >= s->rows) {
        tn_fail(TN_USAGE, "%s: token \"%.60s\" has id %lld, and the model's embedding has %lld rows", s->path,
                text, (long long)id, (long long)s->rows);
        return tn_remedy(
            "model and tokenizer do not belong together, or tokens were added without rows for them");
    }
    s->tokens[id] = (saved_token){text, length, type, score};
    return TN_OK;
}

static bool is_byte(const char *text) {
    unsigned byte;
    char behind;
    return strlen(text) == 6 && sscanf(text, "<0x%2X%c", &byte, &behind) == 2 && behind == '>';
}

/* The vocabulary. Without merges for it a token of SentencePiece comes after all others. */
static tn_status read_vocab(saver *s) {
    const tn_json *vocab = tn_json_get(s->model, "vocab");
    const char *unknown = tn_json_string(tn_json_get(s->model, "unk_token"), "");
    const float last = -(float)tn_json_get(s->model, "merges")->count - 1;
    tn_status status = TN_OK;
    for (int64_t i = 0; i < vocab->count; i++) {
        const tn_member *m = &vocab->members[i];
        int type = GGUF_NORMAL;
        if (s->sentencepiece && is_byte(m->key)) type = GGUF_BYTE;
        if (s->sentencepiece && strcmp(m->key, unknown) == 0) type = GGUF_UNKNOWN;
        TN_TRY(set_token(s, tn_json_integer(&m->value, -1), m->key, m->key_length, type, last));
    }
done:
    return status;
}

/* llama.cpp takes these for special whatever tokenizer.json says (convert_hf_to_gguf.py,
 * does_token_look_special). */
static bool looks_special(const char *text) {
    return strcmp(text, "<pad>") == 0 || strcmp(text, "<mask>") == 0 ||
           (tn_starts_with(text, "<|") && tn_ends_with(text, "|>")) ||
           (tn_starts_with(text, "<｜") && tn_ends_with(text, "｜>")) ||
           (tn_starts_with(text, "<unused") && tn_ends_with(text, ">"));
}

/* SentencePiece's user-defined tokens are written with spaces in place of ▁. */
static const char *with_spaces(saver *s, const char *text, int64_t *length) {
    static const char mark[] = "▁";
    tn_str out = {0};
    if (!strstr(text, mark)) return text;
    for (const char *at = text; *at;) {
        const bool space = tn_starts_with(at, mark);
        tn_str_putc(&out, space ? ' ' : *at);
        at += space ? (int)strlen(mark) : 1;
    }
    const char *copy = out.failed ? NULL : tn_arena_text(&s->arena, out.data, out.length);
    *length = out.length;
    tn_str_free(&out);
    return copy;
}

static tn_status read_added(saver *s) {
    const tn_json *list = tn_json_get(s->root, "added_tokens");
    tn_status status = TN_OK;
    for (int64_t i = 0; list && i < list->count; i++) {
        const tn_json *token = tn_json_at(list, i), *content = tn_json_get(token, "content");
        const int64_t id = tn_json_integer(tn_json_get(token, "id"), -1);
        if (!content || content->type != TN_JSON_STRING) continue;
        const char *text = content->string;
        int64_t length = content->count;
        const bool special = tn_json_boolean(tn_json_get(token, "special"), false) || looks_special(text);
        if (s->sentencepiece && !special) text = with_spaces(s, text, &length);
        if (!text) return tn_fail_memory(length, "a token");
        int type = special ? GGUF_CONTROL : GGUF_USER_DEFINED;
        if (id >= 0 && id < s->rows && s->tokens[id].text && s->tokens[id].type > GGUF_CONTROL)
            type = s->tokens[id].type; /* a byte */
        if (id >= 0 && id < s->rows && s->tokens[id].text && s->tokens[id].type == GGUF_UNKNOWN)
            type = GGUF_UNKNOWN;
        TN_TRY(set_token(s, id, text, length, type, added_score));
    }
done:
    return status;
}

/* The two halves of a merge, written "a b" or ["a", "b"]; false where it is neither. */
static bool halves(const tn_json *merge, const char *half[2], int64_t length[2]) {
    if (merge->type == TN_JSON_ARRAY && merge->count == 2) {
        for (int i = 0; i < 2; i++) {
            if (merge->items[i].type != TN_JSON_STRING) return false;
            half[i] = merge->items[i].string, length[i] = merge->items[i].count;
        }
        return true;
    }
    const char *space = merge->type == TN_JSON_STRING ? strchr(merge->string, ' ') : NULL;
    if (!space) return false;
    half[0] = merge->string, length[0] = space - merge->string;
    half[1] = space + 1, length[1] = merge->count - length[0] - 1;
    return true;
}

/* A token's score is the rank of the first merge that makes it, from 0 down. */
static tn_status rank_tokens(saver *s) {
    const tn_json *merges = tn_json_get(s->model, "merges");
    tn_str text = {0};
    bool *ranked = tn_arena_take(&s->arena, s->rows + 1);
    tn_status status = ranked ? TN_OK : tn_fail_memory(s->rows, "token ranks");
    float rank = 0;
    for (int64_t i = 0; status == TN_OK && i < merges->count; i++) {
        const char *half[2];
        int64_t length[2];
        if (!halves(&merges->items[i], half, length)) continue; /* the loader has refused these */
        tn_str_clear(&text);
        for (int k = 0; k < 2; k++) tn_str_add(&text, half[k], length[k]);
        const int32_t id = tn_vocab_find(&s->chat->text->vocab, tn_str_text(&text), text.length);
        if (id < 0 || id >= s->rows || ranked[id]) continue;
        ranked[id] = true;
        if (s->tokens[id].type == GGUF_NORMAL) s->tokens[id].score = -rank;
        rank++;
    }
    if (status == TN_OK) status = tn_str_check(&text, "a token");
    tn_str_free(&text);
    return status;
}

/* Ids without a token, up to the embedding's rows. */
static tn_status fill_up(saver *s) {
    for (int64_t id = 0; id < s->rows; id++) {
        if (s->tokens[id].text) continue;
        const char *text = tn_arena_printf(&s->arena, "[PAD%lld]", (long long)id);
        if (!text) return tn_fail_memory(32, "a token");
        s->tokens[id] = (saved_token){text, (int64_t)strlen(text), GGUF_UNUSED, filler_score};
    }
    return TN_OK;
}

/* ---- Writing ------------------------------------------------------------------------------------- */

static void put_tokens(const saver *s) {
    tn_gguf_begin_array(s->w, "tokenizer.ggml.tokens", TN_GGUF_STRING, s->rows);
    for (int64_t i = 0; i < s->rows; i++) tn_gguf_add_string(s->w, s->tokens[i].text, s->tokens[i].length);
    if (s->sentencepiece) {
        tn_gguf_begin_array(s->w, "tokenizer.ggml.scores", TN_GGUF_F32, s->rows);
        for (int64_t i = 0; i < s->rows; i++) tn_gguf_add_f32(s->w, s->tokens[i].score);
    }
    tn_gguf_begin_array(s->w, "tokenizer.ggml.token_type", TN_GGUF_I32, s->rows);
    for (int64_t i = 0; i < s->rows; i++) tn_gguf_add_i32(s->w, s->tokens[i].type);
}

/* A space inside a half, which byte-level tokens do not have, would part it: it becomes GPT-2's letter for it.
 */
static tn_status put_merges(const saver *s) {
    const tn_json *merges = tn_json_get(s->model, "merges");
    tn_str text = {0};
    tn_gguf_begin_array(s->w, "tokenizer.ggml.merges", TN_GGUF_STRING, merges->count);
    for (int64_t i = 0; i < merges->count; i++) {
        const char *half[2];
        int64_t length[2];
        if (!halves(&merges->items[i], half, length))
            return tn_fail(TN_BAD_DATA, "%s: merges[%lld] is no pair", s->path, (long long)i);
        tn_str_clear(&text);
        for (int k = 0; k < 2; k++) {
            if (k) tn_str_putc(&text, ' ');
            for (int64_t c = 0; c < length[k]; c++)
                if (half[k][c] == ' ') tn_str_puts(&text, "Ġ");
                else tn_str_putc(&text, half[k][c]);
        }
        tn_gguf_add_string(s->w, tn_str_text(&text), text.length);
    }
    tn_status status = tn_str_check(&text, "merges");
    tn_str_free(&text);
    return status;
}

static void put_id(const saver *s, const char *key, int64_t id) {
    if (id >= 0 && id < s->rows) tn_gguf_put_u32(s->w, key, id);
}

/* The end of a text is the tokenizer's own, else the model's first; the end of a turn another that stops. */
static void put_special_ids(const saver *s, const int32_t *stops, int64_t stop_count) {
    const tn_chat *chat = s->chat;
    const int32_t eos = chat->eos >= 0 ? chat->eos : stop_count > 0 ? stops[0] : -1;
    const char *unknown = tn_json_string(tn_json_get(s->model, "unk_token"), NULL);
    int32_t turn = -1;
    for (int64_t i = 0; i < stop_count && turn < 0; i++)
        if (stops[i] != eos) turn = stops[i];
    put_id(s, "tokenizer.ggml.bos_token_id", chat->bos);
    put_id(s, "tokenizer.ggml.eos_token_id", eos);
    put_id(s, "tokenizer.ggml.eot_token_id", turn);
    put_id(s, "tokenizer.ggml.padding_token_id", chat->pad);
    if (unknown) put_id(s, "tokenizer.ggml.unknown_token_id", tn_text_id(chat->text, unknown));
}

/* What stands round a text: nothing, or bos before it and eos behind it, in GGUF. */
static void put_post_processor(const saver *s) {
    const tn_ids *round = &s->chat->text->post.special;
    int64_t text = 0;
    while (text < round->count && round->ids[text] != TN_POST_TEXT) text++;
    const int64_t before = text, behind = round->count - text - 1;
    const bool bos = before == 1 && round->ids[0] == s->chat->bos;
    const bool eos = behind == 1 && round->ids[text + 1] == s->chat->eos;
    if (round->count > 0 && (before > bos || behind > eos))
        tn_warn("%s: its post-processor adds other tokens than bos and eos, which a GGUF file cannot say",
                s->path);
    tn_gguf_put_bool(s->w, "tokenizer.ggml.add_bos_token", bos);
    tn_gguf_put_bool(s->w, "tokenizer.ggml.add_eos_token", eos);
}

static bool is_type(const tn_json *node, const char *type) {
    return tn_json_is_string(tn_json_get(node, "type"), type);
}

/* SentencePiece puts a space before a text, said by a step Prepend, or by a Metaspace pre-tokenizer. */
static bool has_space_prefix(const saver *s) {
    const tn_json *normalizer = tn_json_get(s->root, "normalizer"),
                  *pre = tn_json_get(s->root, "pre_tokenizer");
    const tn_json *steps = tn_json_get(normalizer, "normalizers");
    if (is_type(pre, "Metaspace"))
        return !tn_json_is_string(tn_json_get(pre, "prepend_scheme"), "never") &&
               tn_json_boolean(tn_json_get(pre, "add_prefix_space"), true);
    for (int64_t i = 0; steps && i < steps->count; i++)
        if (is_type(tn_json_at(steps, i), "Prepend")) return true;
    return is_type(normalizer, "Prepend");
}

static void put_pre(const saver *s) {
    const tn_gguf_pre *pre = s->sentencepiece ? NULL : tn_gguf_pre_of(s->root);
    char name[64] = "default";
    if (pre) tn_gguf_pre_name(pre, name);
    else if (!s->sentencepiece)
        tn_warn(
            "%s: no name in GGUF stands for its pre-tokenizer: \"default\" is written, and readers may split "
            "some "
            "texts into other tokens",
            s->path);
    tn_gguf_put_string(s->w, "tokenizer.ggml.pre", name, -1);
}

static void put_templates(const saver *s) {
    const chat_template *standard = &s->chat->standard, *tools = &s->chat->tool_use;
    if (standard->source)
        tn_gguf_put_string(s->w, "tokenizer.chat_template", standard->source, standard->length);
    if (!tools->source) return;
    tn_gguf_begin_array(s->w, "tokenizer.chat_templates", TN_GGUF_STRING, 1);
    tn_gguf_add_string(s->w, "tool_use", -1);
    tn_gguf_put_string(s->w, "tokenizer.chat_template.tool_use", tools->source, tools->length);
}

tn_status tn_chat_put_gguf(const tn_chat *chat, int64_t rows, const int32_t *stops, int64_t stop_count,
                           tn_gguf_writer *w) {
    saver s = {.chat = chat, .w = w, .rows = rows};
    tn_status status;
    TN_TRY(read_tokenizer(&s));
    TN_TRY(check_model(&s));
    s.tokens = tn_arena_take(&s.arena, rows * (int64_t)sizeof *s.tokens);
    if (!s.tokens) TN_THROW(TN_FAILED, "out of memory for %lld tokens", (long long)rows);
    TN_TRY(read_vocab(&s));
    if (s.sentencepiece) TN_TRY(rank_tokens(&s));
    TN_TRY(read_added(&s));
    TN_TRY(fill_up(&s));
    tn_gguf_put_string(w, "tokenizer.ggml.model", s.sentencepiece ? "llama" : "gpt2", -1);
    put_pre(&s);
    put_tokens(&s);
    if (!s.sentencepiece) TN_TRY(put_merges(&s));
    put_special_ids(&s, stops, stop_count);
    put_post_processor(&s);
    if (s.sentencepiece) tn_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", has_space_prefix(&s));
    put_templates(&s);
done:
    tn_arena_free(&s.arena);
    return status;
}
