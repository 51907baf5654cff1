/* tokenizer_load.c: tokenizer.json to a tokenizer. The file's tree is dropped afterwards; strings that stay
 * are copied. A byte-level model (its pre-tokenizer ends with the byte map) is turned to work on raw bytes:
 * the map is taken out of the pre-tokenizer and undone in the vocabulary.
 */
#include <stdlib.h>

#include "base/file.h"
#include "text/work.h"

static tn_status load_vocab(const tn_json *model, tn_text *text) {
    const tn_json *list = tn_json_get(model, "vocab");
    if (!list || list->type != TN_JSON_OBJECT) return tn_fail(TN_BAD_DATA, "model.vocab is not an object");
    for (int64_t i = 0; i < list->count; i++) {
        const tn_member *m = &list->members[i];
        const char *copy = tn_arena_text(&text->arena, m->key, m->key_length);
        if (!copy) return tn_fail_memory(m->key_length, "vocabulary");
        tn_status status = tn_vocab_set(&text->vocab, tn_json_integer(&m->value, -1), copy, m->key_length);
        if (status != TN_OK) return status;
    }
    return tn_vocab_index(&text->vocab);
}

/* Fills text->raw with the strings that are made of mapped bytes. */
static tn_status unmap_vocab(tn_text *text) {
    tn_status status = TN_OK;
    tn_str bytes = {0};
    for (int64_t id = 0; id < text->vocab.count; id++) {
        const tn_entry *entry = &text->vocab.entries[id];
        tn_str_clear(&bytes);
        if (!entry->text || entry->length == 0 || !tn_unmap_bytes(entry->text, entry->length, &bytes)) continue;
        TN_TRY(tn_str_check(&bytes, "vocabulary"));
        const char *copy = tn_arena_text(&text->arena, bytes.data, bytes.length);
        if (!copy) TN_THROW(TN_FAILED, "out of memory: vocabulary");
        TN_TRY(tn_vocab_set(&text->raw, id, copy, bytes.length));
    }
    status = tn_vocab_index(&text->raw);
done:
    tn_str_free(&bytes);
    return status;
}

static bool knows_all_bytes(const tn_vocab *raw) {
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        if (tn_vocab_find(raw, &byte, 1) < 0) return false;
    }
    return true;
}

static tn_status load_bpe(const tn_json *model, tn_text *text) {
    tn_status status = TN_OK;
    bool plain = !*tn_json_string(tn_json_get(model, "continuing_subword_prefix"), "") &&
                 !*tn_json_string(tn_json_get(model, "end_of_word_suffix"), "");
    bool raw = false;
    TN_TRY(load_vocab(model, text));
    if (plain && tn_pretokenizer_maps_bytes(text->pretokenizer)) {
        TN_TRY(unmap_vocab(text));
        raw = knows_all_bytes(&text->raw);
        if (raw) tn_pretokenizer_drop_byte_map(text->pretokenizer);
    }
    status = tn_bpe_load(model, &text->vocab, raw ? &text->raw : &text->vocab, raw, &text->arena, &text->bpe);
done:
    return status;
}

/* Older files leave the type out: what else is there tells. */
static tn_model_kind kind_of(const tn_json *model, bool *known) {
    static const char *const names[] = {"BPE", "WordLevel", "WordPiece", "Unigram"};
    const tn_json *type = tn_json_get(model, "type");
    *known = true;
    for (int i = 0; i < 4; i++)
        if (tn_json_is_string(type, names[i])) return (tn_model_kind)i;
    *known = tn_json_is_null(type);
    if (tn_json_get(model, "merges")) return TN_MODEL_BPE;
    if (tn_json_get(model, "max_input_chars_per_word")) return TN_MODEL_WORDPIECE;
    return tn_json_get(model, "unk_id") ? TN_MODEL_UNIGRAM : TN_MODEL_WORDLEVEL;
}

static tn_status load_model(const tn_json *model, tn_text *text) {
    bool known;
    if (!model || model->type != TN_JSON_OBJECT) return tn_fail(TN_BAD_DATA, "there is no \"model\"");
    text->kind = kind_of(model, &known);
    if (!known)
        return tn_fail(TN_BAD_DATA, "model type \"%s\" is not supported",
                       tn_json_string(tn_json_get(model, "type"), "?"));
    if (text->kind == TN_MODEL_BPE) return load_bpe(model, text);
    if (text->kind == TN_MODEL_UNIGRAM)
        return tn_unigram_load(model, &text->vocab, &text->arena, &text->unigram);
    tn_status status = load_vocab(model, text);
    return status == TN_OK ? tn_words_load(model, text->kind, &text->vocab, &text->arena, &text->words)
                           : status;
}

static tn_status load(const tn_json *root, tn_text *text) {
    tn_status status = TN_OK;
    tn_work *work = NULL;
    if (root->type != TN_JSON_OBJECT) TN_THROW(TN_BAD_DATA, "not a tokenizer: no JSON object");
    TN_TRY(tn_pool_new(&text->pool));
    TN_TRY(tn_normalizer_load(tn_json_get(root, "normalizer"), &text->normalizer));
    TN_TRY(tn_pretokenizer_load(tn_json_get(root, "pre_tokenizer"), &text->pretokenizer));
    TN_TRY(load_model(tn_json_get(root, "model"), text));
    TN_TRY(tn_work_new(&work));
    TN_TRY(tn_added_load(tn_json_get(root, "added_tokens"), &text->vocab, text->normalizer, work, &text->arena,
                         &text->added));
    TN_TRY(tn_post_load(tn_json_get(root, "post_processor"), &text->post));
    TN_TRY(tn_decoder_load(tn_json_get(root, "decoder"), &text->decoder));
done:
    tn_work_free(work);
    return status;
}

tn_status tn_text_from_json_text(const char *json, int64_t length, const char *name, tn_text **text) {
    tn_status status = TN_OK;
    tn_arena arena = {0};
    tn_text *made = NULL;
    const tn_json *root;
    *text = NULL;
    TN_TRY(tn_alloc(&made, 1, sizeof *made, "tokenizer"));
    made->special_ids = (tn_special_ids){.bos = -1, .eos = -1, .pad = -1, .unk = -1, .eot = -1};
    TN_TRY(tn_json_parse(&arena, json, length, TN_JSON_DEFAULT, name, &root));
    status = load(root, made);
    if (status != TN_OK) {
        tn_context(status, "%s", name);
        goto done;
    }
    *text = made;
    made = NULL;
done:
    tn_text_free(made);
    tn_arena_free(&arena);
    return status;
}

tn_status tn_text_from_json(const char *path, tn_text **text) {
    tn_map map;
    *text = NULL;
    tn_status status = tn_map_open(path, &map);
    if (status != TN_OK) return status;
    status = tn_text_from_json_text((const char *)map.data, map.bytes, path, text);
    tn_map_close(&map);
    return status;
}

void tn_text_free(tn_text *text) {
    if (!text) return;
    tn_pool_free(text->pool);
    tn_normalizer_free(text->normalizer);
    tn_pretokenizer_free(text->pretokenizer);
    tn_bpe_free(&text->bpe);
    tn_unigram_free(&text->unigram);
    tn_added_free(&text->added);
    tn_post_free(&text->post);
    tn_decoder_free(text->decoder);
    tn_vocab_free(&text->vocab);
    tn_vocab_free(&text->raw);
    tn_str_free(&text->json);
    tn_arena_free(&text->arena);
    free(text);
}
