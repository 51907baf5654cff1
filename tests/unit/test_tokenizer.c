/* test_tokenizer.c: promises of text/tokenizer.h: known ids of published tokenizers, small tokenizers for every
 * rule, streaming, spans, bad input, GGUF keys. (Golden lines: tests/parity/test_tokenizer_golden.c.)
 */
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* cmocka.h needs what stands above it. */
/* clang-format off */
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */

#include "base/file.h"
#include "base/thread.h"
#include "text/tokenizer.h"
#include "text/work.h"

/* ---- Helpers ---- */

static tn_text *from_text(const char *json) {
    tn_text *text;
    if (tn_text_from_json_text(json, (int64_t)strlen(json), "test", &text) != TN_OK)
        fail_msg("%s", tn_error_message());
    return text;
}

static tn_text *from_file(const char *name) {
    char path[200];
    tn_text *text;
    snprintf(path, sizeof path, "build/data/tokenizers/%s/tokenizer.json", name);
    if (!tn_is_file(path) && tn_is_file("../shared/data/unpack.sh") &&
        system("sh ../shared/data/unpack.sh build/data > /dev/null") != 0)
        printf("unpack.sh failed\n");
    if (!tn_is_file(path)) {
        printf("SKIP: %s is not there\n", path);
        skip();
    }
    assert_int_equal(tn_text_from_json(path, &text), TN_OK);
    return text;
}

/* Ids as "1,2,3". */
static const char *ids_of(const tn_text *text, const char *input, int64_t length, bool special) {
    static char out[4096];
    tn_ids ids = {0};
    int at = 0;
    if (tn_text_encode(text, input, length, special, &ids, NULL) != TN_OK) fail_msg("%s", tn_error_message());
    out[0] = '\0';
    for (int64_t i = 0; i < ids.count && at < 4000; i++)
        at += snprintf(out + at, sizeof out - (size_t)at, "%s%d", i ? "," : "", ids.ids[i]);
    tn_ids_free(&ids);
    return out;
}

static void expect(const tn_text *text, const char *input, const char *ids) {
    assert_string_equal(ids_of(text, input, (int64_t)strlen(input), false), ids);
}

static void expect_decoded(const tn_text *text, const int32_t *ids, int64_t count, bool skip_special,
                           const char *decoded) {
    tn_str out = {0};
    assert_int_equal(tn_text_decode(text, ids, count, skip_special, &out), TN_OK);
    assert_string_equal(tn_str_text(&out), decoded);
    tn_str_free(&out);
}

static void expect_refused(const char *json, const char *word) {
    tn_text *text;
    assert_int_equal(tn_text_from_json_text(json, (int64_t)strlen(json), "test", &text), TN_BAD_DATA);
    assert_null(text);
    if (!strstr(tn_error_message(), word)) fail_msg("\"%s\" does not name %s", tn_error_message(), word);
}

/* A word-level tokenizer is the plainest way to see pieces: every id is a piece. */
#define WORDS                                                                                                \
    "\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\":1,\"b\":2,\"ab\":3,\"a-" \
    "\":4,\"-b\":5,\"-\":6,\"--\":7,\" \":8,\"▁a\":9,\"▁b\":10}}"
#define CHARS                                                    \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\" " \
    "\":2,\"t\":3,\"o\":4,\"k\":5,\"<\":6,\"ab\":7},\"merges\":[\"a b\"]}"

/* ---- Published vectors ---- */

static void published_ids_of_llama3_2(void **state) {
    (void)state;
    tn_text *t = from_file("llama3_2");
    expect(t, "Hello world", "9906,1917");
    expect(t, "  two  spaces\n\n\n x", "220,1403,220,12908,1432,865");
    expect(t, "don't DON'T I'LL", "15357,956,45373,17773,358,6,4178");
    expect(t, "1234567 3.14", "4513,10961,22,220,18,13,975");
    expect(t, "e\xCC\x81 vs \xC3\xA9", "68,54939,6296,4046");
    expect(t, "tab\tend \r\n", "6323,6379,2591");
    assert_string_equal(ids_of(t, "Hello", 5, true), "128000,9906");
    /* A rendered chat brings its own BOS: asked for special tokens too, it has two. */
    assert_string_equal(ids_of(t, "<|begin_of_text|>Hello", 22, true), "128000,128000,9906");
    tn_text_free(t);
}

static void published_ids_of_qwen2_5(void **state) {
    (void)state;
    tn_text *t = from_file("qwen2_5");
    expect(t, "Hello world", "9707,1879");
    expect(t, "1234567 3.14", "16,17,18,19,20,21,22,220,18,13,16,19");
    expect(t, "e\xCC\x81 vs \xC3\xA9", "963,6165,3958");
    expect(t, "<|im_start|>user\nhi<|im_end|>\n", "151644,872,198,6023,151645,198");
    int32_t beyond[] = {9707, 151665, 151935, 1 << 30, -1, 1879};
    expect_decoded(t, beyond, 6, false, "Hello world");
    int32_t chat[] = {151644, 872, 151645};
    expect_decoded(t, chat, 3, true, "user");
    assert_int_equal(tn_text_id(t, "<|im_end|>"), 151645);
    assert_true(tn_text_is_special(t, 151645));
    assert_false(tn_text_is_special(t, tn_text_id(t, "<tool_call>")));
    assert_int_equal(tn_text_vocab_size(t), 151665);
    tn_text_free(t);
}

static void published_ids_of_mistral_nemo_and_gpt2(void **state) {
    (void)state;
    tn_text *t = from_file("mistral_nemo");
    expect(t, "don't DON'T I'LL", "21797,2405,119801,1039,1084,1362,1039,23947");
    expect(t, "\xEF\xAC\x81 ligature \xC3\x85", "1239,1172,1129,7215,2558,28086");
    tn_text_free(t);
    t = from_file("gpt2");
    expect(t, "  two  spaces\n\n\n x", "220,734,220,9029,628,198,2124");
    expect(t, "\xEF\xAC\x81 ligature \xC3\x85", "171,105,223,26106,1300,6184,227");
    tn_text_free(t);
}

static void published_ids_of_gemma3(void **state) {
    (void)state;
    tn_text *t = from_file("gemma3");
    expect(t, "Hello world", "9259,1902");
    expect(t, "  two  spaces\n\n\n x", "138,13498,138,35220,109,1123");
    expect(t, "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE3\x83\x86\xE3\x82\xAD\xE3\x82\xB9\xE3\x83\x88",
           "94951,95830");
    assert_string_equal(ids_of(t, "", 0, true), "2");
    tn_text_free(t);
}

static void a_megabyte_without_a_break_is_not_quadratic(void **state) {
    (void)state;
    tn_text *t = from_file("gemma3");
    enum { LENGTH = 1000000 };
    char *input = malloc(LENGTH);
    unsigned seed = 1;
    for (int i = 0; i < LENGTH; i++)
        input[i] = (char)('a' + ((seed = seed * 1664525u + 1013904223u) >> 16) % 26);
    tn_ids ids = {0};
    double start = tn_seconds();
    assert_int_equal(tn_text_encode(t, input, LENGTH, false, &ids, NULL), TN_OK);
    assert_true(tn_seconds() - start < 10); /* measured 0.3 s; a quadratic loop takes minutes */
    tn_str back = {0};
    assert_int_equal(tn_text_decode(t, ids.ids, ids.count, false, &back), TN_OK);
    assert_int_equal(back.length, LENGTH);
    assert_memory_equal(back.data, input, LENGTH);
    tn_str_free(&back);
    tn_ids_free(&ids);
    free(input);
    tn_text_free(t);
}

static const char mixed[] = "The quick brown fox, 1234567 <|im_end|> caf\xC3\xA9";

/* Encodes the same text often; NULL where the ids were the same every time. */
static void *encode_often(void *text) {
    tn_ids first = {0};
    bool same =
        tn_text_encode(text, mixed, (int64_t)strlen(mixed), true, &first, NULL) == TN_OK && first.count > 10;
    for (int i = 0; i < 300 && same; i++) {
        tn_ids ids = {0};
        same = tn_text_encode(text, mixed, (int64_t)strlen(mixed), true, &ids, NULL) == TN_OK &&
               ids.count == first.count && memcmp(ids.ids, first.ids, (size_t)ids.count * sizeof *ids.ids) == 0;
        tn_ids_free(&ids);
    }
    tn_ids_free(&first);
    return same ? NULL : text;
}

static void threads_share_a_tokenizer(void **state) {
    (void)state;
    tn_text *t = from_file("qwen3");
    pthread_t threads[4];
    void *bad;
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, encode_often, t), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &bad);
        assert_null(bad);
    }
    tn_text_free(t);
}

/* ---- Input ---- */

static void invalid_utf8_reads_as_replacement_characters(void **state) {
    (void)state;
    tn_text *t = from_file("llama3_2");
    static const char *const pairs[][2] = {{"a\xFF"
                                            "b",
                                            "a\xEF\xBF\xBD"
                                            "b"},
                                           {"\xE6\x97", "\xEF\xBF\xBD"},
                                           {"\xF0\x9F\x91 \xC0\x80", "\xEF\xBF\xBD \xEF\xBF\xBD\xEF\xBF\xBD"},
                                           {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}};
    for (size_t i = 0; i < 4; i++) {
        char *mended = strdup(ids_of(t, pairs[i][1], (int64_t)strlen(pairs[i][1]), false));
        expect(t, pairs[i][0], mended);
        free(mended);
    }
    assert_string_equal(ids_of(t, "a\0b", 3, false), "64,188,65"); /* NUL is a character like any other */
    tn_text_free(t);
}

static void spans_are_the_bytes_a_token_came_from(void **state) {
    (void)state;
    tn_text *t = from_file("qwen3");
    const char *input = "Hi <|im_end|>e\xCC\x81x \xFF!"; /* NFC joins e and the accent; \xFF is mended */
    tn_ids ids = {0};
    tn_spans spans = {0};
    assert_int_equal(tn_text_encode(t, input, (int64_t)strlen(input), true, &ids, &spans), TN_OK);
    assert_int_equal(ids.count, spans.count);
    int64_t end = 0;
    for (int64_t i = 0; i < spans.count; i++) {
        const int64_t *span = spans.starts_ends + 2 * i;
        assert_true(span[0] >= 0 && span[0] < span[1] && span[1] >= end);
        end = span[1];
        if (ids.ids[i] == 151645) assert_true(span[0] == 3 && span[1] == 13);
    }
    assert_int_equal(end, strlen(input));
    assert_int_equal(spans.starts_ends[0], 0);
    assert_int_equal(spans.starts_ends[1], 2);
    tn_ids_free(&ids);
    free(spans.starts_ends);
    tn_text_free(t);
}

/* ---- Pre-tokenizers and normalizers, seen through whole words ---- */

static void expect_split(const char *behavior, const char *ids) {
    char json[1200];
    snprintf(json, sizeof json,
             "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"-\"},\"behavior\":\"%s\","
             "\"invert\":false}," WORDS "}",
             behavior);
    tn_text *t = from_text(json);
    expect(t, "a-b", ids);
    tn_text_free(t);
}

static void every_split_behavior(void **state) {
    (void)state;
    expect_split("Removed", "1,2");
    expect_split("Isolated", "1,6,2");
    expect_split("MergedWithPrevious", "4,2");
    expect_split("MergedWithNext", "1,5");
    expect_split("Contiguous", "1,6,2");
    tn_text *t = from_text(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[ab]\"},\"behavior\":\"Contiguous\","
        "\"invert\":true}," WORDS "}");
    expect(t, "ab--b", "3,7,2");
    tn_text_free(t);
}

static void white_space_is_unicodes(void **state) {
    (void)state;
    tn_text *t = from_text(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\s\"},\"behavior\":\"Removed\"}"
        "," WORDS "}");
    expect(t,
           "a\xC2\x85"
           "b\xE3\x80\x80"
           "a",
           "1,2,1");
    expect(t,
           "a\xE1\xA0\x8E"
           "b",
           "0"); /* U+180E no longer is white space */
    tn_text_free(t);
    t = from_text(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:s)\"},\"behavior\":\"Removed\"}"
        "," WORDS "}");
    expect(t,
           "a\xC5\xBF"
           "b",
           "1,2"); /* long s folds to s */
    tn_text_free(t);
}

static void metaspace_first_marks_only_the_start(void **state) {
    (void)state;
    tn_text *t = from_text(
        "{\"added_tokens\":[{\"id\":11,\"content\":\"<x>\",\"special\":true}],"
        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"prepend_scheme\":\"first\"}," WORDS
        "}");
    expect(t, "a<x>a b", "9,11,1,10");
    tn_text_free(t);
}

static void normal_forms_and_other_normalizers(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"{\"type\":\"NFC\"}", "e\xCC\x81", "\xC3\xA9"},
        {"{\"type\":\"NFC\"}", "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C"},
        {"{\"type\":\"NFC\"}", "a\xCC\x81\xCC\xA3", "\xE1\xBA\xA1\xCC\x81"},
        {"{\"type\":\"NFD\"}", "\xC3\xA9", "e\xCC\x81"},
        {"{\"type\":\"NFKC\"}", "\xEF\xAC\x81\xE3\x8E\x8F", "fikg"},
        {"{\"type\":\"NFKD\"}", "\xC2\xBD",
         "1\xE2\x81\x84"
         "2"},
        {"{\"type\":\"Lowercase\"}", "\xC4\xB0\xCE\xA3", "i\xCC\x87\xCF\x83"},
        {"{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}", " \t x\xC2\xA0", "x"},
        {"{\"type\":\"StripAccents\"}", "e\xCC\x81", "e"},
        {"{\"type\":\"Prepend\",\"prepend\":\"_\"}", "x", "_x"},
        {"{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+\"},\"content\":\"y\"}", "axxbx", "ayby"},
        {"{\"type\":\"ByteLevel\"}", " \xC3\xA9", "\xC4\xA0\xC3\x83\xC2\xA9"},
        {"{\"type\":\"BertNormalizer\"}", "\xC3\x89\x01\xE6\x97\xA5\t", "e \xE6\x97\xA5  "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[600];
        snprintf(json, sizeof json,
                 "{\"normalizer\":%s,\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,"
                 "\"%s\":1}}}",
                 cases[i][0], cases[i][2]);
        tn_text *t = from_text(json);
        expect(t, cases[i][1], "1");
        tn_text_free(t);
    }
}

/* ---- Added tokens ---- */

static tn_text *with_added(const char *flags) {
    char json[1200];
    snprintf(json, sizeof json,
             "{\"added_tokens\":[{\"id\":8,\"content\":\"tok\",%s},{\"id\":9,\"content\":\"toktok\"},{\"id\":"
             "10,\"content\":\"<|\"}]," CHARS "}",
             flags);
    return from_text(json);
}

static void the_longest_added_token_wins(void **state) {
    (void)state;
    tn_text *t = with_added("\"special\":true");
    expect(t, "atokb", "0,8,1");
    expect(t, "toktoktok", "9,8");
    expect(t, "<<|<|to", "6,10,10,3,4");
    expect(t, "", "");
    tn_text_free(t);
}

static void flags_of_added_tokens(void **state) {
    (void)state;
    tn_text *t = with_added("\"lstrip\":true");
    expect(t, "a  tok b", "0,8,2,1");
    tn_text_free(t);
    t = with_added("\"rstrip\":true");
    expect(t, "a tok  b", "0,2,8,1");
    tn_text_free(t);
    t = with_added("\"single_word\":true");
    expect(t, "atok tok", "0,3,4,5,2,8");
    tn_text_free(t);
    t = from_text(
        "{\"normalizer\":{\"type\":\"Lowercase\"},\"added_tokens\":[{\"id\":8,\"content\":\"TOK\","
        "\"normalized\":true},"
        "{\"id\":9,\"content\":\"A\",\"normalized\":false}]," CHARS "}");
    expect(t, "Toka", "8,0");
    expect(t, "tokA", "8,9");
    tn_text_free(t);
}

/* ---- BPE ---- */

static void merges_may_be_strings_or_pairs(void **state) {
    (void)state;
    tn_text *t = from_text(
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"aba\":3,\"a b\":4,\" b\":5,\" "
        "\":6},"
        "\"merges\":[\"a b\",[\" \",\"b\"],[\"a\",\" b\"],[\"ab\",\"a\"]]}}");
    expect(t, "aba", "3");
    expect(t, "aba b", "2,4"); /* a+" b" ranks before ab+a */
    expect(t, "a b", "4");
    tn_text_free(t);
}

static void unknown_characters(void **state) {
    (void)state;
    const char *model =
        "{\"model\":{\"type\":\"BPE\",%s\"vocab\":{\"?\":0,\"a\":1,\"<0xC3>\":2,\"<0xA9>\":3},\"merges\":[]}}";
    static const char *const cases[][2] = {{"", "1,1"},
                                           {"\"unk_token\":\"?\",", "1,0,0,1"},
                                           {"\"unk_token\":\"?\",\"fuse_unk\":true,", "1,0,1"},
                                           {"\"byte_fallback\":true,", "1,2,3,1"},
                                           {"\"unk_token\":\"?\",\"byte_fallback\":true,", "1,2,3,0,1"}};
    for (size_t i = 0; i < 5; i++) {
        char json[400];
        snprintf(json, sizeof json, model, cases[i][0]);
        tn_text *t = from_text(json);
        expect(t,
               "a\xC3\xA9\xE6\x97\xA5"
               "a",
               cases[i][1]);
        tn_text_free(t);
    }
}

static void a_long_word_merges_like_a_short_one(void **state) {
    (void)state;
    tn_text *t = from_text(
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1,\"aaa\":2},\"merges\":[\"a a\",\"aa a\"]}}");
    char word[202];
    memset(word, 'a', 201);
    word[201] = '\0';
    tn_ids ids = {0};
    assert_int_equal(tn_text_encode(t, word, 201, false, &ids, NULL), TN_OK);
    assert_int_equal(ids.count, 100); /* 99 times aa, and the odd one out makes the last pair aaa */
    for (int i = 0; i < 99; i++) assert_int_equal(ids.ids[i], 1);
    assert_int_equal(ids.ids[99], 2);
    tn_ids_free(&ids);
    tn_text_free(t);
}

/* ---- Decoding ---- */

static void streaming_holds_back_half_characters(void **state) {
    (void)state;
    tn_text *t = from_file("llama3_2");
    const char *input =
        "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 na\xC3\xAFve \xE6\x97\xA5\xE6\x9C\xAC\xF0\x9F\xA7\xBF";
    tn_ids ids = {0};
    tn_text_stream *stream;
    tn_str out = {0};
    assert_int_equal(tn_text_encode(t, input, (int64_t)strlen(input), false, &ids, NULL), TN_OK);
    assert_int_equal(tn_text_stream_new(t, false, &stream), TN_OK);
    for (int64_t i = 0; i < ids.count; i++) {
        assert_int_equal(tn_text_stream_push(stream, ids.ids[i], &out), TN_OK);
        assert_true(tn_utf8_valid(tn_str_text(&out), out.length));
        assert_memory_equal(input, tn_str_text(&out), (size_t)out.length);
    }
    assert_int_equal(tn_text_stream_end(stream, &out), TN_OK);
    assert_string_equal(out.data, input);
    tn_text_stream_free(stream);
    tn_str_clear(&out);
    assert_int_equal(tn_text_stream_new(t, false, &stream), TN_OK); /* cut in the middle: lossy at the end */
    assert_int_equal(tn_text_stream_push(stream, ids.ids[0], &out), TN_OK);
    assert_string_equal(tn_str_text(&out), "");
    assert_int_equal(tn_text_stream_end(stream, &out), TN_OK);
    assert_string_equal(tn_str_text(&out), "\xEF\xBF\xBD");
    tn_text_stream_free(stream);
    tn_str_free(&out);
    tn_ids_free(&ids);
    tn_text_free(t);
}

#define BYTES_MODEL                                                                                      \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"▁a\":0,\"b\":1,\"<0xC3>\":2,\"<0xA9>\":3,\"<0xE6>\":4}," \
    "\"merges\":[]}"

static void byte_tokens_decode_by_runs(void **state) {
    (void)state;
    tn_text *t = from_text(
        "{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"▁\"}"
        ",\"content\":\" \"},"
        "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "
        "\",\"start\":1,\"stop\":0}]}," BYTES_MODEL "}");
    int32_t good[] = {0, 2, 3, 1, 0}, broken[] = {2, 3, 4, 1}, open[] = {1, 2};
    expect_decoded(t, good, 5, false,
                   "a\xC3\xA9"
                   "b a");
    expect_decoded(t, broken, 4, false,
                   "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                   "b");
    expect_decoded(t, open, 2, false, "b\xEF\xBF\xBD");
    tn_text_free(t);
}

static void other_decoders(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"null", "x ##y z</w> z</w>"},
        {"{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}", "xy z</w> z</w>"},
        {"{\"type\":\"BPEDecoder\",\"suffix\":\"</w>\"}", "x##yz z"},
        {"{\"type\":\"CTC\",\"pad_token\":\"##\",\"word_delimiter_token\":\"z\",\"cleanup\":true}", "xy </w>"},
        {"{\"type\":\"Fuse\"}", "x##yz</w>z</w>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[400];
        snprintf(
            json, sizeof json,
            "{\"decoder\":%s,\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"x\":0,\"##y\":1,\"z</w>\":2}}}",
            cases[i][0]);
        tn_text *t = from_text(json);
        int32_t ids[] = {0, 1, 2, 2};
        expect_decoded(t, ids, 4, false, cases[i][1]);
        tn_text_free(t);
    }
}

/* ---- Damaged files ---- */

static void what_is_not_supported_is_named(void **state) {
    (void)state;
    tn_text *text;
    expect_refused("{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"\"}," CHARS "}",
                   "Precompiled");
    expect_refused("{\"pre_tokenizer\":{\"type\":\"Odd\"}," CHARS "}", "Odd");
    expect_refused("{\"decoder\":{\"type\":\"Odd\"}," CHARS "}", "Odd");
    expect_refused("{\"post_processor\":{\"type\":\"Odd\"}," CHARS "}", "Odd");
    expect_refused("{\"model\":{\"type\":\"Odd\"}}", "Odd");
    expect_refused("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a x\"]}}", "merge 0");
    expect_refused("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "merge 0");
    expect_refused("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "-1");
    expect_refused("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999},\"merges\":[]}}", "99999999999");
    expect_refused(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}," CHARS
        "}",
        "regular expression");
    expect_refused("{}", "model");
    expect_refused("[]", "object");
    expect_refused("{\"model\":", "JSON");
    assert_int_equal(tn_text_from_json("/nowhere/tokenizer.json", &text), TN_USAGE);
}

/* ---- GGUF ---- */

static tn_status from_gguf(const char *json, tn_text **text) {
    tn_arena arena = {0};
    const tn_json *root;
    assert_int_equal(tn_json_parse(&arena, json, (int64_t)strlen(json), TN_JSON_DEFAULT, "keys", &root), TN_OK);
    tn_status status = tn_text_from_gguf(root, "x.gguf", text);
    tn_arena_free(&arena);
    return status;
}

static void scores_of_a_gguf_become_merges(void **state) {
    (void)state;
    tn_text *t;
    assert_int_equal(
        from_gguf(
            "{\"tokenizer.ggml.model\":\"llama\",\"tokenizer.ggml.tokens\":[\"<unk>\",\"<s>\",\"</"
            "s>\",\"<0xC3>\",\"<0xA9>\","
            "\"▁\",\"a\",\"b\",\"ab\",\"▁a\",\"ba\",\"  \",\"[PAD12]\"],"
            "\"tokenizer.ggml.scores\":[0,0,0,0,0,-9,-9,-9,-3,-2,-1,-1000,-10000],"
            "\"tokenizer.ggml.token_type\":[2,3,3,6,6,1,1,1,1,1,1,4,5],\"tokenizer.ggml.bos_token_id\":1}",
            &t),
        TN_OK);
    expect(t, "ab", "9,7");     /* ▁a scores higher than ab */
    expect(t, "bab", "5,10,7"); /* ba first */
    assert_string_equal(ids_of(t, "a\xC3\xA9<s>b", 7, true), "1,9,3,4,1,5,7");
    expect(t, "b  b", "5,7,11,7");
    int32_t ids[] = {1, 9, 7, 11, 12};
    expect_decoded(t, ids, 5, true, "ab  ");
    tn_special_ids special;
    tn_text_special_ids(t, &special);
    assert_true(special.bos == 1 && special.eos == -1 && special.add_bos && !special.add_eos);
    int64_t length;
    const char *json = tn_text_json(t, &length);
    tn_text *again;
    assert_int_equal(tn_text_from_json_text(json, length, "saved", &again), TN_OK);
    expect(again, "bab", "5,10,7");
    tn_text_free(again);
    tn_text_free(t);
}

static void gguf_names_its_pre_tokenizer(void **state) {
    (void)state;
    const char *keys =
        "{\"tokenizer.ggml.model\":\"gpt2\",\"tokenizer.ggml.pre\":\"%s\",\"tokenizer.ggml.tokens\":[\"1\","
        "\"2\",\"12\",\"123\",\"3\",\"<|e|>\"],"
        "\"tokenizer.ggml.token_type\":[1,1,1,1,1,3],\"tokenizer.ggml.merges\":[\"1 2\",\"12 3\"]}";
    static const char *const cases[][2] = {{"llama-bpe", "3,0,2,5"},
                                           {"qwen2", "0,1,4,0,0,1,5"},
                                           {"smollm", "0,1,4,0,0,1,5"},
                                           {"seed-coder", "0,1,4,0,0,1,5"},
                                           {"gpt-2", "3,0,2,5"}};
    char json[600];
    tn_text *t;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(json, sizeof json, keys, cases[i][0]);
        assert_int_equal(from_gguf(json, &t), TN_OK);
        expect(t, "123112<|e|>", cases[i][1]);
        tn_text_free(t);
    }
    snprintf(json, sizeof json, keys, "never-heard-of");
    assert_int_equal(from_gguf(json, &t), TN_BAD_DATA);
    assert_non_null(strstr(tn_error_message(), "never-heard-of"));
    assert_int_equal(from_gguf("{\"tokenizer.ggml.model\":\"bert\",\"tokenizer.ggml.tokens\":[]}", &t),
                     TN_BAD_DATA);
    assert_int_equal(from_gguf("{}", &t), TN_BAD_DATA);
}

static void gguf_lists_must_agree(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"[\"1\",\"2\",\"1\"],\"tokenizer.ggml.scores\":[0,0,0]", "holds \"1\" twice, as 0 and 2"},
        {"[\"1\",\"2\"],\"tokenizer.ggml.scores\":[0]", "scores has 1 entries for 2 tokens"},
        {"[\"1\",\"2\"],\"tokenizer.ggml.scores\":[0,0],\"tokenizer.ggml.token_type\":[1,1,1]",
         "token_type has 3"},
        {"[\"1\",\"2\"]", "no tokenizer.ggml.scores"},
    };
    char json[300];
    tn_text *t;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(json, sizeof json, "{\"tokenizer.ggml.model\":\"llama\",\"tokenizer.ggml.tokens\":%s}",
                 cases[i][0]);
        assert_int_equal(from_gguf(json, &t), TN_BAD_DATA);
        assert_non_null(strstr(tn_error_message(), cases[i][1]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_ids_of_llama3_2),
        cmocka_unit_test(published_ids_of_qwen2_5),
        cmocka_unit_test(published_ids_of_mistral_nemo_and_gpt2),
        cmocka_unit_test(published_ids_of_gemma3),
        cmocka_unit_test(a_megabyte_without_a_break_is_not_quadratic),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(invalid_utf8_reads_as_replacement_characters),
        cmocka_unit_test(spans_are_the_bytes_a_token_came_from),
        cmocka_unit_test(every_split_behavior),
        cmocka_unit_test(white_space_is_unicodes),
        cmocka_unit_test(metaspace_first_marks_only_the_start),
        cmocka_unit_test(normal_forms_and_other_normalizers),
        cmocka_unit_test(the_longest_added_token_wins),
        cmocka_unit_test(flags_of_added_tokens),
        cmocka_unit_test(merges_may_be_strings_or_pairs),
        cmocka_unit_test(unknown_characters),
        cmocka_unit_test(a_long_word_merges_like_a_short_one),
        cmocka_unit_test(streaming_holds_back_half_characters),
        cmocka_unit_test(byte_tokens_decode_by_runs),
        cmocka_unit_test(other_decoders),
        cmocka_unit_test(what_is_not_supported_is_named),
        cmocka_unit_test(scores_of_a_gguf_become_merges),
        cmocka_unit_test(gguf_names_its_pre_tokenizer),
        cmocka_unit_test(gguf_lists_must_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
