/* pipeline.h: the parts of a tokenizer and what flows between them. Private to src/text.
 *
 * Text flows as views: bytes of valid UTF-8 and, where some step changed them, a map that gives for every
 * byte the range of the caller's input it came from (kept only when somebody asked for spans). A view's
 * memory is the caller's input or a buffer of the call's workspace. All parts of a loaded tokenizer are
 * read only; everything that changes during a call lives in tn_work, so threads never meet.
 */
#ifndef TN_TEXT_PIPELINE_H
#define TN_TEXT_PIPELINE_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "text/tokenizer.h"

typedef struct tn_work tn_work;

typedef struct tn_range {
    int64_t start, end;
} tn_range; /* bytes */

/* ---- Text in flight ------------------------------------------------------------------------------ */

typedef struct tn_view {
    const char *text;
    int64_t length;
    const tn_range *map; /* `length` ranges of the input; NULL: byte i is input byte shift + i */
    int64_t shift;
} tn_view;

/* Where a step writes changed text. Running out of memory sets text.failed. */
typedef struct tn_buffer {
    tn_str text;
    tn_range *map;
    int64_t map_capacity;
    bool mapped; /* keep the map */
} tn_buffer;

tn_view tn_view_slice(const tn_view *view, int64_t start, int64_t end);
/* Input range of bytes [start, end) of a view. */
tn_range tn_view_origin(const tn_view *view, int64_t start, int64_t end);
void tn_buffer_clear(tn_buffer *buffer, bool mapped);
/* Appends bytes that all came from `origin`. */
void tn_buffer_put(tn_buffer *buffer, const char *bytes, int64_t length, tn_range origin);
void tn_buffer_put_code_point(tn_buffer *buffer, uint32_t code_point, tn_range origin);
/* Appends bytes [start, end) of a view unchanged. */
void tn_buffer_copy(tn_buffer *buffer, const tn_view *view, int64_t start, int64_t end);
tn_view tn_buffer_view(const tn_buffer *buffer);
void tn_buffer_free(tn_buffer *buffer);

/* Pieces of one view, in order. */
typedef struct tn_pieces {
    tn_view view;
    tn_range *ranges;
    int64_t count, capacity;
} tn_pieces;
tn_status tn_pieces_push(tn_pieces *pieces, int64_t start, int64_t end); /* empty ranges vanish */

typedef struct tn_token {
    int32_t id, length; /* bytes of the text given to the model */
} tn_token;
typedef struct tn_tokens {
    tn_token *tokens;
    int64_t count, capacity;
} tn_tokens;
tn_status tn_tokens_push(tn_tokens *tokens, int32_t id, int64_t length);

/* ---- Characters ---------------------------------------------------------------------------------- */

typedef enum tn_char_class {
    TN_CHAR_WHITE_SPACE,
    TN_CHAR_NUMERIC,
    TN_CHAR_PUNCTUATION,
    TN_CHAR_ONE
} tn_char_class;
/* `one` is the character of TN_CHAR_ONE. */
bool tn_char_is(tn_char_class what, uint32_t code_point, uint32_t one);
bool tn_char_is_word(uint32_t code_point); /* \w of Unicode's UTS 18 */
/* Was the character first assigned after that version of Unicode (8 or 9)? The tokenizers library's tables are
 * as old. Its general category (utf8proc's names) then: CN for one that is younger. */
bool tn_char_is_younger(uint32_t code_point, uint32_t version);
int tn_char_category(uint32_t code_point, uint32_t version);
/* Appends the younger ones as the inside of a set in an expression. */
void tn_younger_characters(uint32_t version, tn_str *out);
/* Decodes at `text`, which must be valid UTF-8. Returns the bytes used. */
int tn_char_at(const char *text, uint32_t *code_point);
/* Start of the character that ends at text[end]. */
int64_t tn_char_before(const char *text, int64_t end);
/* GPT-2's map between bytes and printable characters. The inverse gives -1 where there is none. */
uint32_t tn_byte_to_char(unsigned char byte);
int tn_char_to_byte(uint32_t code_point);
/* Undoes the map over a whole string; false where a character is outside it. */
bool tn_unmap_bytes(const char *text, int64_t length, tn_str *out);

/* ---- Regular expressions ------------------------------------------------------------------------- */

typedef struct tn_regex tn_regex;
/* `pattern` in Oniguruma's syntax (Ruby flavour, Unicode classes), or taken literally. */
tn_status tn_regex_compile(const char *pattern, int64_t length, bool literal, tn_regex **regex);
void tn_regex_free(tn_regex *regex);
/* Appends `pattern` in PCRE2's syntax. Error: TN_BAD_DATA for what it cannot say. */
tn_status tn_regex_translate(const char *pattern, int64_t length, tn_str *out);
/* Position of a search through one text; zero-initialise. */
typedef struct tn_cursor {
    int64_t from, last_end;
    bool matched;
} tn_cursor;
/* Next match from the cursor on, or *found false. Error: TN_BAD_DATA where the engine's limits are met. */
tn_status tn_regex_next(const tn_regex *regex, tn_work *work, const char *text, int64_t length,
                        tn_cursor *cursor, tn_range *match, bool *found);
/* Reads {"String": …} or {"Regex": …}. */
tn_status tn_regex_from_json(const tn_json *pattern, const char *what, tn_regex **regex);

/* ---- Steps --------------------------------------------------------------------------------------- */

typedef struct tn_normalizer tn_normalizer;
tn_status tn_normalizer_load(const tn_json *node, tn_normalizer **normalizer); /* NULL for null */
void tn_normalizer_free(tn_normalizer *normalizer);
/* `in` may come back as `out` unchanged; else `out` lies in the workspace until the next call. */
tn_status tn_normalizer_run(const tn_normalizer *normalizer, tn_work *work, const tn_view *in, tn_view *out);

/* SentencePiece's compiled table of replacements, from base64. Error: TN_BAD_DATA. */
typedef struct tn_charsmap tn_charsmap;
tn_status tn_charsmap_load(const char *base64, int64_t length, tn_charsmap **map);
void tn_charsmap_free(tn_charsmap *map);
/* Returns whether anything was replaced and `out` holds the result. */
bool tn_charsmap_run(const tn_charsmap *map, const tn_view *in, tn_buffer *out);

typedef struct tn_pretokenizer tn_pretokenizer;
tn_status tn_pretokenizer_load(const tn_json *node, tn_pretokenizer **pretokenizer);
void tn_pretokenizer_free(tn_pretokenizer *pretokenizer);
/* Does the byte map stand last, so that a model over raw bytes may take its place? */
bool tn_pretokenizer_maps_bytes(const tn_pretokenizer *pretokenizer);
void tn_pretokenizer_drop_byte_map(tn_pretokenizer *pretokenizer); /* where it stands last */
/* Does a step ask where in the input a piece begins? */
bool tn_pretokenizer_needs_origin(const tn_pretokenizer *pretokenizer);
/* Appends an expression that matches runs of one script, as the pre-tokenizer UnicodeScripts cuts them. */
void tn_scripts_expression(tn_str *out);
tn_status tn_pretokenizer_run(const tn_pretokenizer *pretokenizer, tn_work *work, const tn_view *in,
                              const tn_pieces **pieces);

/* ---- Vocabulary and models ----------------------------------------------------------------------- */

typedef struct tn_entry {
    const char *text;
    int32_t length;
} tn_entry; /* text NULL: no such id */

/* Strings by id and ids by string. */
typedef struct tn_vocab {
    tn_entry *entries;
    int64_t count, capacity; /* largest id + 1 */
    int64_t strings;         /* number of ids that have a string */
    struct tn_slot *slots;
    int64_t slot_count; /* a power of two */
} tn_vocab;
/* Text must outlive the vocabulary. An id far beyond the number of entries is TN_BAD_DATA. */
tn_status tn_vocab_set(tn_vocab *vocab, int64_t id, const char *text, int64_t length);
/* Builds the index; of equal strings the last id counts. */
tn_status tn_vocab_index(tn_vocab *vocab);
int32_t tn_vocab_find(const tn_vocab *vocab, const char *text, int64_t length); /* -1: none */
void tn_vocab_free(tn_vocab *vocab);
/* Largest id a file may use. */
enum { TN_LARGEST_ID = 1 << 24 };

typedef enum tn_model_kind {
    TN_MODEL_BPE,
    TN_MODEL_WORDLEVEL,
    TN_MODEL_WORDPIECE,
    TN_MODEL_UNIGRAM
} tn_model_kind;

/* Merge table entry: open addressing, `left` negative where empty. */
typedef struct tn_bpe_merge {
    int32_t left, right, rank, id;
} tn_bpe_merge;

typedef struct tn_bpe {
    const tn_vocab *vocab; /* the strings that pieces are made of: raw bytes or characters */
    bool raw;              /* start symbols are bytes */
    bool ignore_merges, byte_fallback, fuse_unk;
    int32_t unk;                 /* -1: none */
    int32_t bytes[256];          /* raw: the byte's id; else the id of <0xXX>; -1: none */
    const char *prefix, *suffix; /* of continuing subwords and word ends; "" = none */
    tn_bpe_merge *merges;
    int64_t slot_count; /* a power of two */
    /* Pairs of characters that stand side by side in some merge's product. Between two others no merge
     * can ever reach, so long text is cut there. NULL where that reasoning does not hold. */
    uint64_t *neighbours;
    int64_t neighbour_slots;
    unsigned char ascii_neighbours[128 * 128 / 8];
} tn_bpe;
tn_status tn_bpe_load(const tn_json *model, const tn_vocab *contents, const tn_vocab *pieces, bool raw,
                      tn_arena *arena, tn_bpe *bpe);
void tn_bpe_free(tn_bpe *bpe);
tn_status tn_bpe_encode(const tn_bpe *bpe, tn_work *work, const char *text, int64_t length, tn_tokens *out);

/* WordLevel and WordPiece. */
typedef struct tn_words {
    int32_t unk;
    const char *prefix; /* of continuing pieces */
    int64_t longest;    /* characters of a word, beyond which it is unknown */
} tn_words;
tn_status tn_words_load(const tn_json *model, tn_model_kind kind, const tn_vocab *vocab, tn_arena *arena,
                        tn_words *words);
tn_status tn_wordlevel_encode(const tn_words *words, const tn_vocab *vocab, const char *text, int64_t length,
                              tn_tokens *out);
tn_status tn_wordpiece_encode(const tn_words *words, const tn_vocab *vocab, tn_work *work, const char *text,
                              int64_t length, tn_tokens *out);

typedef struct tn_unigram {
    double *scores; /* by id */
    double lowest;
    int32_t unk; /* -1: none */
    int32_t bytes[256];
    bool byte_fallback;
    int64_t longest; /* bytes of the longest piece */
} tn_unigram;
/* Fills the vocabulary too: a Unigram file gives it as an array. */
tn_status tn_unigram_load(const tn_json *model, tn_vocab *vocab, tn_arena *arena, tn_unigram *unigram);
void tn_unigram_free(tn_unigram *unigram);
tn_status tn_unigram_encode(const tn_unigram *unigram, const tn_vocab *vocab, const char *text, int64_t length,
                            tn_tokens *out);

/* ---- Added tokens -------------------------------------------------------------------------------- */

typedef struct tn_added_token {
    const char *content;
    int64_t length;
    const char *shown; /* what decoding gives for it: the content, normalised where that was asked for */
    int64_t shown_length;
    int32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
    bool skipped; /* by decoding without special tokens: what is shown is the content of a special one */
} tn_added_token;

/* Finds tokens of one set (as they are, or normalised) in text: leftmost, then longest. */
typedef struct tn_finder {
    struct tn_pattern *patterns; /* sorted by bytes */
    int64_t count;
    int64_t first[257]; /* patterns that begin with byte b: first[b] … first[b+1] */
} tn_finder;

typedef struct tn_added {
    tn_added_token *tokens;
    int64_t count;
    int32_t *by_id; /* index into tokens, -1: none */
    int64_t ids;
    tn_finder raw, normalized;
} tn_added;
tn_status tn_added_load(const tn_json *list, const tn_vocab *vocab, const tn_normalizer *normalizer,
                        tn_work *work, tn_arena *arena, tn_added *added);
void tn_added_free(tn_added *added);
const tn_added_token *tn_added_by_id(const tn_added *added, int32_t id); /* NULL: none */

/* Next added token in `text` and the bytes it takes (white space it absorbs included). `from` is where the
 * search goes on, `done` the end of the token before; both start at 0. NULL: no more. */
typedef struct tn_added_cursor {
    int64_t from, done;
} tn_added_cursor;
const tn_added_token *tn_added_next(const tn_added *added, const tn_finder *finder, const tn_view *view,
                                    tn_added_cursor *cursor, tn_range *range);

/* ---- Post-processor and decoder ------------------------------------------------------------------ */

/* What a text becomes with and without special tokens: ids, and TN_POST_TEXT where the text's own stand (nearly
 * always once, but a template may repeat them or leave them out). */
typedef struct tn_post {
    tn_ids special, plain;
} tn_post;
enum { TN_POST_TEXT = -1 };
tn_status tn_post_load(const tn_json *node, tn_post *post);
void tn_post_free(tn_post *post);

typedef struct tn_decoder tn_decoder;
tn_status tn_decoder_load(const tn_json *node, tn_decoder **decoder); /* NULL for null: joined by spaces */
void tn_decoder_free(tn_decoder *decoder);

/* ---- The whole ----------------------------------------------------------------------------------- */

/* Memory of one call; kept between calls in the tokenizer's pool. */
struct tn_work {
    tn_work *next;
    bool mapped; /* this call keeps maps */
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *jit_stack;
    tn_buffer input, normal[2], pre[2];
    tn_pieces pieces[2];
    tn_tokens tokens;
    tn_str word;
    struct tn_symbol *symbols;
    uint64_t *heap;
    int64_t symbol_capacity, heap_capacity;
    struct tn_cache *cache;
};
tn_status tn_work_new(tn_work **work);
void tn_work_free(tn_work *work);

struct tn_text {
    tn_arena arena; /* strings */
    tn_vocab vocab; /* of the model, as in the file */
    tn_vocab raw;   /* the same unmapped to bytes; filled for byte-level models only */
    tn_normalizer *normalizer;
    tn_pretokenizer *pretokenizer;
    tn_model_kind kind;
    tn_bpe bpe;
    tn_words words;
    tn_unigram unigram;
    tn_added added;
    tn_post post;
    tn_decoder *decoder;
    tn_special_ids special_ids;
    tn_str json; /* tokenizer.json made from a GGUF's keys; empty for others */
    struct tn_pool *pool;
};

/* 64-bit hash of a short string; for up to 8 bytes it is one to one (for strings of equal length). */
static inline uint64_t tn_hash_short(const char *text, int64_t length) {
    const uint64_t k = 0x9E3779B97F4A7C15u;
    uint64_t h = 0, part = 0;
    if (length <= 8) {
        memcpy(&h, text, (size_t)length);
    } else {
        h = (uint64_t)length * k;
        for (; length > 8; text += 8, length -= 8) {
            memcpy(&part, text, 8);
            h = (h ^ part) * k;
            h ^= h >> 29;
        }
        part = 0;
        memcpy(&part, text, (size_t)length);
        h ^= part;
    }
    h = (h ^ (h >> 32)) * 0xD6E8FEB86659FD93u;
    h = (h ^ (h >> 29)) * k;
    return h ^ (h >> 32);
}

#endif
