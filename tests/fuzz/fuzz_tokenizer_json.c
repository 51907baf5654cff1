/* fuzz_tokenizer_json.c: any bytes as tokenizer.json: loading may fail, but loading, encoding and decoding
 * never crash, and what is decoded is UTF-8.
 *
 *   clang -fsanitize=fuzzer,address,undefined … tests/fuzz/fuzz_tokenizer_json.c src/base/….c src/text/….c
 *   mkdir corpus && python3 tests/fuzz/seed_tokenizer_json.py corpus && ./fuzz_tokenizer_json corpus
 */
#include <stdlib.h>

#include "text/pipeline.h"
#include "text/work.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char sample[] =
    "  Hello wörld, don't I'LL 1234567\r\n\n\t<s>tok</s> <|x|>e\xCC\x81 \xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E "
    "\xED\x95\x9C\xEA\xB8\x80 \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 \xC4\xB0\xEF\xAC\x81 \xFF\xC3 "
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\0end ";

static void check_decoding(const tn_text *text, const tn_ids *ids, bool skip_special) {
    tn_str decoded = {0};
    if (tn_text_decode(text, ids->ids, ids->count, skip_special, &decoded) == TN_OK &&
        !tn_utf8_valid(tn_str_text(&decoded), decoded.length))
        abort();
    tn_str_free(&decoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tn_text *text;
    tn_ids ids = {0};
    tn_spans spans = {0};
    if (tn_text_from_json_text((const char *)data, (int64_t)size, "fuzz", &text) != TN_OK) return 0;
    if (tn_text_encode(text, sample, (int64_t)sizeof sample - 1, true, &ids, &spans) == TN_OK) {
        if (spans.count != ids.count) abort();
        for (int64_t i = 0; i < spans.count; i++) {
            const int64_t *span = spans.starts_ends + 2 * i;
            if (span[0] < 0 || span[1] < span[0] || span[1] > (int64_t)sizeof sample - 1) abort();
        }
        check_decoding(text, &ids, false);
        check_decoding(text, &ids, true);
    }
    tn_ids_free(&ids);
    free(spans.starts_ends);
    tn_text_free(text);
    return 0;
}
