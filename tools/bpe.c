/* bpe.c: trains a byte-level BPE tokenizer on a text and writes the tokenizer.json that Hugging Face's library
 * and tenon both read: the most frequent pair of neighbouring tokens becomes a token, again and again. Ties go
 * to the pair of the older tokens, so the same text gives the same file.
 *
 *   bpe VOCABULARY_SIZE <text >tokenizer.json
 *
 * Tokens 0 and 1 are <|im_start|> and <|im_end|>, then come the 256 bytes, then the merges.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPECIALS = 2, FIRST_MERGE = SPECIALS + 256, LARGEST = 8192, LONGEST = 64, MOST_WORDS = 1 << 17 };

static const char *const specials[SPECIALS] = {"<|im_start|>", "<|im_end|>"};

typedef struct word {
    char text[LONGEST];
    uint16_t tokens[LONGEST];
    int length;
    int64_t count;
} word;

static word *words;
static int word_count;
static char spelled[LARGEST][4 * LONGEST]; /* a token in the byte-level alphabet, UTF-8 */
static int merges[LARGEST][2];
static int64_t *pairs; /* [LARGEST, LARGEST], how often each pair stands side by side */

/* GPT-2's alphabet: printable bytes are themselves, the others follow from U+0100 on. */
static void spell_bytes(void) {
    for (int byte = 0, next = 0x100; byte < 256; byte++) {
        bool plain = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
        int c = plain ? byte : next++;
        char *out = spelled[SPECIALS + byte];
        if (c < 0x80) *out++ = (char)c;
        else *out++ = (char)(0xC0 | c >> 6), *out++ = (char)(0x80 | (c & 0x3F));
        *out = '\0';
    }
}

static uint32_t hash_of(const char *text, int length) { /* FNV-1a */
    uint32_t h = 2166136261u;
    for (int i = 0; i < length; i++) h = (h ^ (unsigned char)text[i]) * 16777619u;
    return h;
}

static void count_word(const char *text, int length) {
    static int table[2 * MOST_WORDS]; /* number of the word + 1 */
    uint32_t slot = hash_of(text, length) % (2 * MOST_WORDS);
    if (length >= LONGEST) return;
    for (; table[slot]; slot = (slot + 1) % (2 * MOST_WORDS)) {
        word *w = &words[table[slot] - 1];
        if (w->length == length && memcmp(w->text, text, (size_t)length) == 0) {
            w->count++;
            return;
        }
    }
    if (word_count == MOST_WORDS) return;
    word *w = &words[word_count++];
    *w = (word){.length = length, .count = 1};
    memcpy(w->text, text, (size_t)length);
    for (int i = 0; i < length; i++) w->tokens[i] = (uint16_t)(SPECIALS + (unsigned char)text[i]);
    table[slot] = word_count;
}

static int class_of(int c) { return isalpha(c) ? 1 : isdigit(c) ? 2 : isspace(c) ? 3 : 4; }

/* Words are what GPT-2's pattern finds in plain English: a space may lead letters, digits or signs. */
static void count_words(const char *text, int64_t length) {
    for (int64_t from = 0; from < length;) {
        int64_t to = from;
        bool led = text[from] == ' ' && from + 1 < length && class_of((unsigned char)text[from + 1]) != 3;
        if (led) to++;
        int class = class_of((unsigned char)text[to]);
        while (to < length && class_of((unsigned char)text[to]) == class) to++;
        if (class == 3 && to < length && to - from > 1) to--; /* the last space leads the next word */
        count_word(text + from, to - from < LONGEST ? (int)(to - from) : LONGEST);
        from = to;
    }
}

static void add_pairs(const word *w, int64_t sign) {
    for (int i = 0; i + 1 < w->length; i++)
        pairs[(int64_t)w->tokens[i] * LARGEST + w->tokens[i + 1]] += sign * w->count;
}

static void apply_merge(word *w, int left, int right, int token) {
    bool found = false;
    for (int i = 0; i + 1 < w->length; i++)
        found = found || (w->tokens[i] == left && w->tokens[i + 1] == right);
    if (!found) return;
    add_pairs(w, -1);
    int n = 0;
    for (int i = 0; i < w->length; i++) {
        bool here = i + 1 < w->length && w->tokens[i] == left && w->tokens[i + 1] == right;
        w->tokens[n++] = (uint16_t)(here ? token : w->tokens[i]);
        i += here;
    }
    w->length = n;
    add_pairs(w, 1);
}

/* Returns the size of the vocabulary reached: `size`, or less where no pair comes twice. */
static int train(int size) {
    int token = FIRST_MERGE;
    for (int i = 0; i < word_count; i++) add_pairs(&words[i], 1);
    for (; token < size; token++) {
        int64_t best = 1;
        int left = -1, right = -1;
        for (int a = SPECIALS; a < token; a++)
            for (int b = SPECIALS; b < token; b++)
                if (pairs[(int64_t)a * LARGEST + b] > best)
                    best = pairs[(int64_t)a * LARGEST + b], left = a, right = b;
        if (left < 0) break;
        merges[token][0] = left, merges[token][1] = right;
        snprintf(spelled[token], sizeof spelled[token], "%s%s", spelled[left], spelled[right]);
        for (int i = 0; i < word_count; i++) apply_merge(&words[i], left, right, token);
    }
    return token;
}

static void quote(const char *text) {
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        putchar(*text);
    }
}

static void write_json(int size) {
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[\n", stdout);
    for (int i = 0; i < SPECIALS; i++)
        printf(
            "{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
            "\"normalized\":false,\"special\":true}%s\n",
            i, specials[i], i + 1 < SPECIALS ? "," : "],");
    fputs(
        "\"normalizer\":null,\n"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_"
        "regex\":true},\n"
        "\"post_processor\":null,\n"
        "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":"
        "true},\n"
        "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
        "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,"
        "\n\"vocab\":{\n",
        stdout);
    for (int i = 0; i < size; i++) {
        putchar('"');
        quote(i < SPECIALS ? specials[i] : spelled[i]);
        printf("\":%d%s", i, i + 1 < size ? ",\n" : "},\n");
    }
    fputs("\"merges\":[\n", stdout);
    for (int i = FIRST_MERGE; i < size; i++) {
        fputs("[\"", stdout);
        quote(spelled[merges[i][0]]);
        fputs("\",\"", stdout);
        quote(spelled[merges[i][1]]);
        fputs(i + 1 < size ? "\"],\n" : "\"]\n", stdout);
    }
    fputs("]}}\n", stdout);
}

static char *read_all(int64_t *length) {
    int64_t capacity = 1 << 20;
    char *text = malloc((size_t)capacity);
    size_t n;
    *length = 0;
    while (text && (n = fread(text + *length, 1, (size_t)(capacity - *length), stdin)) > 0) {
        *length += (int64_t)n;
        if (*length < capacity) continue;
        char *larger = realloc(text, (size_t)(capacity *= 2));
        if (!larger) free(text);
        text = larger;
    }
    return text;
}

int main(int argc, char **argv) {
    int size = argc == 2 ? atoi(argv[1]) : 0;
    int64_t length;
    if (size < FIRST_MERGE || size > LARGEST) return fprintf(stderr, "usage: bpe VOCABULARY_SIZE <text\n"), 2;
    char *text = read_all(&length);
    words = malloc(MOST_WORDS * sizeof *words);
    pairs = calloc((size_t)LARGEST * LARGEST, sizeof *pairs);
    if (!text || !words || !pairs) return fprintf(stderr, "bpe: out of memory\n"), 1;
    spell_bytes();
    count_words(text, length);
    write_json(train(size));
    free(pairs);
    free(words);
    free(text);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
