/* gguf_tokens.c: a tokenizer from a GGUF's tokenizer.ggml.* keys (llama.cpp: src/llama-vocab.cpp).
 *
 * The keys are turned into the tokenizer.json that Hugging Face has for the same model, which is then read
 * like any other: one pipeline, and an adapter trained on a GGUF can be saved with a real tokenizer.json.
 * Model "gpt2" is byte-level BPE whose pre-tokenizer goes by name (`pre`). Model "llama" is SentencePiece's
 * BPE, which has scores in place of merges: every way to make a token of two others becomes a merge.
 */
#include <stdlib.h>

#include "base/log.h"
#include "text/gguf_merges.h"
#include "text/gguf_pre.h"
#include "text/work.h"

/* ---- Reading the keys ---- */

static const tn_json *get(const gguf_keys *k, const char *name) {
    char key[80];
    snprintf(key, sizeof key, "tokenizer.ggml.%s", name);
    return tn_json_get(k->metadata, key);
}

static int32_t get_id(const gguf_keys *k, const char *name) {
    const tn_json *given = get(k, name);
    int64_t id = tn_json_integer(given, -1);
    if (id >= 0 && id < k->count) return (int32_t)id;
    if (given)
        tn_warn("%s: tokenizer.ggml.%s is no id of its %lld tokens and is not used", k->path, name,
                (long long)k->count);
    return -1;
}

/* A string that stands twice would have the last id only. */
static tn_status refuse_repeated(const gguf_keys *k) {
    tn_status status = TN_OK;
    tn_vocab vocab = {0};
    for (int64_t id = 0; id < k->count; id++)
        TN_TRY(tn_vocab_set(&vocab, id, k->tokens->items[id].string, k->tokens->items[id].count));
    TN_TRY(tn_vocab_index(&vocab));
    for (int64_t id = 0; id < k->count; id++) {
        int32_t last = tn_vocab_find(&vocab, vocab.entries[id].text, vocab.entries[id].length);
        if (last != id)
            TN_THROW(TN_BAD_DATA, "tokenizer.ggml.tokens holds \"%.60s\" twice, as %lld and %d",
                     vocab.entries[id].text, (long long)id, last);
    }
done:
    tn_vocab_free(&vocab);
    return status;
}

/* A list beside the tokens may be missing, but not of another length. */
static tn_status check_length(const gguf_keys *k, const char *name) {
    const tn_json *list = get(k, name);
    if (!list || (list->type == TN_JSON_ARRAY && list->count == k->count)) return TN_OK;
    return tn_fail(TN_BAD_DATA, "tokenizer.ggml.%s has %lld entries for %lld tokens", name,
                   (long long)list->count, (long long)k->count);
}

static tn_status read_keys(gguf_keys *k) {
    const tn_json *types = get(k, "token_type");
    k->tokens = get(k, "tokens");
    k->scores = get(k, "scores");
    if (!k->tokens || k->tokens->type != TN_JSON_ARRAY)
        return tn_fail(TN_BAD_DATA, "there is no tokenizer.ggml.tokens");
    k->count = k->tokens->count;
    if (k->count >= TN_LARGEST_ID) return tn_fail(TN_BAD_DATA, "%lld tokens are too many", (long long)k->count);
    tn_status status = check_length(k, "token_type");
    if (status == TN_OK) status = check_length(k, "scores");
    if (status == TN_OK) status = tn_alloc(&k->types, k->count, sizeof *k->types, "token types");
    for (int64_t i = 0; i < k->count && status == TN_OK; i++) {
        if (k->tokens->items[i].type != TN_JSON_STRING)
            return tn_fail(TN_BAD_DATA, "tokenizer.ggml.tokens[%lld] is no string", (long long)i);
        k->types[i] = (char)tn_json_integer(tn_json_at(types, i), GGUF_NORMAL);
    }
    return status == TN_OK ? refuse_repeated(k) : status;
}

static tn_status find_pre(const gguf_keys *k, const tn_gguf_pre **pre) {
    const char *name = tn_json_string(get(k, "pre"), NULL);
    *pre = tn_gguf_pre_named("default");
    if (!name || strcmp(name, "default") == 0) {
        tn_warn(
            "%s: tokenizer.ggml.pre is %s: GPT-2's pre-tokenizer is used, ids may differ from the model's own",
            k->path, name ? "\"default\"" : "missing");
        return TN_OK;
    }
    *pre = tn_gguf_pre_named(name);
    if (*pre) return TN_OK;
    tn_fail(TN_BAD_DATA, "tokenizer.ggml.pre \"%s\" is not known", name);
    return tn_remedy(
        "use the model's Hugging Face directory; known are llama-bpe, smaug-bpe, qwen2, seed-coder, smollm, "
        "tekken, gpt-4o, gpt-2 and their kin");
}

/* ---- Writing tokenizer.json ---- */

/* "[PAD151700]" fills the vocabulary up to the embedding's rows: no token. */
static bool is_filler(const gguf_keys *k, int64_t id) {
    return k->types[id] == GGUF_UNUSED && tn_starts_with(k->tokens->items[id].string, "[PAD");
}

/* User-defined tokens of the SentencePiece kind were written with spaces in place of ▁. */
static const char *content_of(gguf_keys *k, int64_t id, int64_t *length) {
    const tn_json *token = &k->tokens->items[id];
    *length = token->count;
    if (!k->sentencepiece || k->types[id] != GGUF_USER_DEFINED ||
        !memchr(token->string, ' ', (size_t)token->count))
        return token->string;
    tn_str_clear(&k->text);
    for (int64_t i = 0; i < token->count; i++)
        if (token->string[i] == ' ') tn_str_puts(&k->text, "\xE2\x96\x81");
        else tn_str_putc(&k->text, token->string[i]);
    *length = k->text.length;
    return tn_str_text(&k->text);
}

static void put_added_tokens(gguf_keys *k, tn_json_writer *w) {
    tn_json_key(w, "added_tokens");
    tn_json_begin(w, '[');
    for (int64_t id = 0; id < k->count; id++) {
        int64_t length;
        if (k->types[id] < GGUF_UNKNOWN || k->types[id] > GGUF_USER_DEFINED) continue;
        const char *content = content_of(k, id, &length);
        tn_json_begin(w, '{');
        tn_json_integer_member(w, "id", id);
        tn_json_key(w, "content");
        tn_json_put_string(w, content, length);
        tn_json_boolean_member(w, "single_word", false);
        tn_json_boolean_member(w, "lstrip", false);
        tn_json_boolean_member(w, "rstrip", false);
        tn_json_boolean_member(w, "normalized", false);
        tn_json_boolean_member(w, "special", k->types[id] != GGUF_USER_DEFINED);
        tn_json_end(w, '}');
    }
    tn_json_end(w, ']');
}

static void put_vocab(gguf_keys *k, tn_json_writer *w) {
    tn_json_key(w, "vocab");
    tn_json_begin(w, '{');
    for (int64_t id = 0; id < k->count; id++) {
        int64_t length;
        if (is_filler(k, id)) continue;
        const char *content = content_of(k, id, &length);
        tn_json_key(w, content);
        tn_json_put_integer(w, id);
    }
    tn_json_end(w, '}');
}

static void put_template_part(tn_json_writer *w, const char *kind, const char *id) {
    tn_json_begin(w, '{');
    tn_json_key(w, kind);
    tn_json_begin(w, '{');
    tn_json_string_member(w, "id", id);
    tn_json_integer_member(w, "type_id", 0);
    tn_json_end(w, '}');
    tn_json_end(w, '}');
}

static void put_template_token(const gguf_keys *k, tn_json_writer *w, int32_t id) {
    const char *name = k->tokens->items[id].string;
    tn_json_key(w, name);
    tn_json_begin(w, '{');
    tn_json_string_member(w, "id", name);
    tn_json_key(w, "ids");
    tn_json_begin(w, '[');
    tn_json_put_integer(w, id);
    tn_json_end(w, ']');
    tn_json_key(w, "tokens");
    tn_json_begin(w, '[');
    tn_json_put_string(w, name, -1);
    tn_json_end(w, ']');
    tn_json_end(w, '}');
}

/* Ids below 0 are not added. */
static void put_post_processor(const gguf_keys *k, tn_json_writer *w, int32_t bos, int32_t eos) {
    tn_json_key(w, "post_processor");
    if (bos < 0 && eos < 0) {
        tn_json_put_null(w);
        return;
    }
    tn_json_begin(w, '{');
    tn_json_string_member(w, "type", "TemplateProcessing");
    for (int pair = 0; pair < 2; pair++) {
        tn_json_key(w, pair ? "pair" : "single");
        tn_json_begin(w, '[');
        for (int i = 0; i <= pair; i++) {
            if (bos >= 0) put_template_part(w, "SpecialToken", k->tokens->items[bos].string);
            put_template_part(w, "Sequence", i ? "B" : "A");
            if (eos >= 0) put_template_part(w, "SpecialToken", k->tokens->items[eos].string);
        }
        tn_json_end(w, ']');
    }
    tn_json_key(w, "special_tokens");
    tn_json_begin(w, '{');
    if (bos >= 0) put_template_token(k, w, bos);
    if (eos >= 0 && eos != bos) put_template_token(k, w, eos);
    tn_json_end(w, '}');
    tn_json_end(w, '}');
}

/* Finished JSON, written as it stands. */
static void put_raw(tn_json_writer *w, const char *key, const char *json) {
    tn_arena arena = {0};
    const tn_json *node;
    tn_json_key(w, key);
    if (tn_json_parse(&arena, json, (int64_t)strlen(json), TN_JSON_DEFAULT, key, &node) == TN_OK)
        tn_json_put(w, node);
    else w->out->failed = true;
    tn_arena_free(&arena);
}

static void put_split(tn_json_writer *w, const char *expression) {
    tn_json_begin(w, '{');
    tn_json_string_member(w, "type", "Split");
    tn_json_key(w, "pattern");
    tn_json_begin(w, '{');
    tn_json_string_member(w, "Regex", expression);
    tn_json_end(w, '}');
    tn_json_string_member(w, "behavior", "Isolated");
    tn_json_boolean_member(w, "invert", false);
    tn_json_end(w, '}');
}

static void put_pre_tokenizer(tn_json_writer *w, const tn_gguf_pre *pre) {
    tn_json_key(w, "pre_tokenizer");
    tn_json_begin(w, '{');
    tn_json_string_member(w, "type", "Sequence");
    tn_json_key(w, "pretokenizers");
    tn_json_begin(w, '[');
    if (pre->single_digits) {
        tn_json_begin(w, '{');
        tn_json_string_member(w, "type", "Digits");
        tn_json_boolean_member(w, "individual_digits", true);
        tn_json_end(w, '}');
    }
    put_split(w, pre->expression);
    tn_json_begin(w, '{');
    tn_json_string_member(w, "type", "ByteLevel");
    tn_json_boolean_member(w, "add_prefix_space", false);
    tn_json_boolean_member(w, "trim_offsets", true);
    tn_json_boolean_member(w, "use_regex", false);
    tn_json_end(w, '}');
    tn_json_end(w, ']');
    tn_json_end(w, '}');
}

static bool wants(const gguf_keys *k, const char *name, bool otherwise) {
    return tn_json_boolean(get(k, name), otherwise);
}

static int32_t or_default(int32_t given, const gguf_keys *k, int32_t otherwise) {
    return given >= 0 ? given : otherwise < k->count ? otherwise : -1;
}

static tn_status put_byte_level(gguf_keys *k, tn_json_writer *w) {
    const tn_gguf_pre *pre;
    const tn_json *merges = get(k, "merges");
    tn_status status = find_pre(k, &pre);
    if (status != TN_OK) return status;
    if (!merges || merges->type != TN_JSON_ARRAY)
        return tn_fail(TN_BAD_DATA, "there is no tokenizer.ggml.merges");
    k->special.add_bos = wants(k, "add_bos_token", pre->add_bos);
    k->special.add_eos = wants(k, "add_eos_token", false);
    put_raw(w, "normalizer", pre->nfc ? "{\"type\":\"NFC\"}" : "null");
    put_pre_tokenizer(w, pre);
    put_post_processor(k, w, k->special.add_bos ? or_default(k->special.bos, k, 11) : -1,
                       k->special.add_eos ? or_default(k->special.eos, k, 11) : -1);
    put_raw(w, "decoder",
            "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true}");
    tn_json_key(w, "model");
    tn_json_begin(w, '{');
    tn_json_string_member(w, "type", "BPE");
    put_raw(w, "unk_token", "null");
    tn_json_boolean_member(w, "fuse_unk", false);
    tn_json_boolean_member(w, "byte_fallback", false);
    tn_json_boolean_member(w, "ignore_merges", pre->ignore_merges);
    put_vocab(k, w);
    tn_json_key(w, "merges");
    tn_json_put(w, merges);
    tn_json_end(w, '}');
    return TN_OK;
}

#define REPLACE(from, to) "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" from "\"},\"content\":\"" to "\"}"

static tn_status put_sentencepiece(gguf_keys *k, tn_json_writer *w) {
    bool prefix = wants(k, "add_space_prefix", true);
    int32_t unk = or_default(k->special.unk, k, 0);
    k->special.add_bos = wants(k, "add_bos_token", true);
    k->special.add_eos = wants(k, "add_eos_token", false);
    put_raw(w, "normalizer",
            prefix
                ? "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"▁\"}," REPLACE(
                      " ", "▁") "]}"
                : REPLACE(" ", "▁"));
    put_raw(w, "pre_tokenizer", "null");
    put_post_processor(k, w, k->special.add_bos ? or_default(k->special.bos, k, 1) : -1,
                       k->special.add_eos ? or_default(k->special.eos, k, 2) : -1);
    put_raw(w, "decoder",
            prefix ? "{\"type\":\"Sequence\",\"decoders\":[" REPLACE("▁", " ") ",{\"type\":\"ByteFallback\"},"
                     "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"
                   : "{\"type\":\"Sequence\",\"decoders\":[" REPLACE("▁", " ") ",{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}");
    tn_json_key(w, "model");
    tn_json_begin(w, '{');
    tn_json_string_member(w, "type", "BPE");
    tn_json_key(w, "unk_token");
    if (unk >= 0) tn_json_put_string(w, k->tokens->items[unk].string, k->tokens->items[unk].count);
    else tn_json_put_null(w);
    tn_json_boolean_member(w, "fuse_unk", true);
    tn_json_boolean_member(w, "byte_fallback", true);
    tn_json_boolean_member(w, "ignore_merges", false);
    put_vocab(k, w);
    tn_status status = tn_gguf_put_merges(k, content_of, w);
    tn_json_end(w, '}');
    return status;
}

static tn_status put_tokenizer(gguf_keys *k, tn_json_writer *w) {
    const char *model = tn_json_string(get(k, "model"), "(none)");
    bool byte_level = strcmp(model, "gpt2") == 0;
    k->sentencepiece = strcmp(model, "llama") == 0;
    if (!byte_level && !k->sentencepiece) {
        tn_fail(TN_BAD_DATA, "tokenizer.ggml.model \"%s\" is not supported (known: gpt2, llama)", model);
        return tn_remedy("use the model's Hugging Face directory");
    }
    if (k->sentencepiece && !k->scores) return tn_fail(TN_BAD_DATA, "there is no tokenizer.ggml.scores");
    tn_json_begin(w, '{');
    tn_json_string_member(w, "version", "1.0");
    put_raw(w, "truncation", "null");
    put_raw(w, "padding", "null");
    put_added_tokens(k, w);
    tn_status status = byte_level ? put_byte_level(k, w) : put_sentencepiece(k, w);
    tn_json_end(w, '}');
    return status == TN_OK ? tn_str_check(w->out, "tokenizer") : status;
}

tn_status tn_text_from_gguf(const tn_json *metadata, const char *path, tn_text **text) {
    tn_status status = TN_OK;
    tn_str json = {0};
    gguf_keys k = {.metadata = metadata, .path = path};
    tn_json_writer w = tn_json_write_to(&json, 0);
    *text = NULL;
    TN_TRY(read_keys(&k));
    k.special = (tn_special_ids){.bos = get_id(&k, "bos_token_id"),
                                 .eos = get_id(&k, "eos_token_id"),
                                 .pad = get_id(&k, "padding_token_id"),
                                 .unk = get_id(&k, "unknown_token_id"),
                                 .eot = get_id(&k, "eot_token_id")};
    TN_TRY(put_tokenizer(&k, &w));
    TN_TRY(tn_text_from_json_text(json.data, json.length, "its tokenizer", text));
    (*text)->special_ids = k.special;
    (*text)->json = json;
    json = (tn_str){0};
done:
    tn_context(status, "%s", path);
    free(k.types);
    tn_str_free(&k.text);
    tn_str_free(&json);
    return status;
}
