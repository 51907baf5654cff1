/* words.c: the models that look whole words up: WordLevel, and WordPiece (greedily the longest piece, the later
 * ones with a prefix).
 */
#include "text/pipeline.h"

tn_status tn_words_load(const tn_json *model, tn_model_kind kind, const tn_vocab *vocab, tn_arena *arena,
                        tn_words *words) {
    const char *unk =
        tn_json_string(tn_json_get(model, "unk_token"), kind == TN_MODEL_WORDLEVEL ? "<unk>" : "[UNK]");
    const char *prefix = tn_json_string(tn_json_get(model, "continuing_subword_prefix"), "##");
    words->unk = tn_vocab_find(vocab, unk, (int64_t)strlen(unk));
    words->longest = tn_json_integer(tn_json_get(model, "max_input_chars_per_word"), 100);
    words->prefix = tn_arena_text(arena, prefix, (int64_t)strlen(prefix));
    return words->prefix ? TN_OK : tn_fail_memory(16, "vocabulary");
}

static tn_status push_unknown(const tn_words *words, int64_t length, tn_tokens *out) {
    if (words->unk >= 0) return tn_tokens_push(out, words->unk, length);
    return tn_fail(TN_BAD_DATA, "a word is not in the vocabulary, which has no unk_token");
}

tn_status tn_wordlevel_encode(const tn_words *words, const tn_vocab *vocab, const char *text, int64_t length,
                              tn_tokens *out) {
    int32_t id = tn_vocab_find(vocab, text, length);
    return id >= 0 ? tn_tokens_push(out, id, length) : push_unknown(words, length, out);
}

tn_status tn_wordpiece_encode(const tn_words *words, const tn_vocab *vocab, tn_work *work, const char *text,
                              int64_t length, tn_tokens *out) {
    int64_t characters = 0, before = out->count;
    for (int64_t i = 0; i < length; i++) characters += ((unsigned char)text[i] & 0xC0) != 0x80;
    if (characters > words->longest) return push_unknown(words, length, out);
    for (int64_t start = 0; start < length;) {
        int32_t id = -1;
        int64_t end = length, decoration = 0;
        tn_str_clear(&work->word);
        if (start > 0) tn_str_puts(&work->word, words->prefix);
        decoration = work->word.length;
        tn_str_add(&work->word, text + start, length - start);
        if (work->word.failed) return tn_str_check(&work->word, "word");
        for (; end > start; end = tn_char_before(text, end)) {
            id = tn_vocab_find(vocab, work->word.data, decoration + end - start);
            if (id >= 0) break;
        }
        if (id < 0) {
            out->count = before;
            return push_unknown(words, length, out);
        }
        tn_status status = tn_tokens_push(out, id, end - start);
        if (status != TN_OK) return status;
        start = end;
    }
    return TN_OK;
}
