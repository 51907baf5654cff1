/* fuzz_records.c: any bytes through every reader and every record shape, without a tokenizer. Build and run by
 * hand:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude -Isrc -D_DEFAULT_SOURCE
 * tests/fuzz/fuzz_records.c \ src/data/readers.c src/data/records.c src/base/[a-z]*.c -lyajl -lyaml -lxxhash
 * -fopenmp -lm -o fuzz_records
 *   ./fuzz_records -max_total_time=60 corpus/
 *
 * The first byte picks the kind of file. Beside not crashing: every slice lies inside the file, slices come in
 * order, and what a converted record points to can be read to its end. */
#include <stdlib.h>
#include <string.h>

#include "data/readers.h"
#include "data/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned char sink;

static void touch(const void *bytes, int64_t length) {
    for (int64_t i = 0; i < length; i++) sink ^= ((const unsigned char *)bytes)[i];
}

static void convert_all(tn_arena *arena, const tn_json *tree) {
    tn_shape found;
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 0);
    (void)tn_shape_detect(tree, &found);
    for (int shape = 0; shape <= TN_SHAPE_INPUT_IDS; shape++) {
        for (int choice = 0; choice < 4; choice++) {
            tn_record record;
            if (tn_record_convert(arena, tree, (tn_shape)shape, choice & 1, choice & 2, &record) != TN_OK)
                continue;
            for (int64_t i = 0; i < record.picture_count; i++)
                touch(record.pictures[i], (int64_t)strlen(record.pictures[i]));
            touch(record.text, record.bytes);
            if (record.prompt_bytes > record.bytes) abort();
            if (record.chat) tn_json_put(&w, record.chat);
            if (record.ids) tn_json_put(&w, record.ids);
        }
    }
    tn_str_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"f.jsonl", "f.json", "f.csv", "f.txt"};
    tn_reader *reader;
    tn_slice slice;
    bool found;
    int64_t length = (int64_t)size - 1, end = 0;
    if (size < 1 || tn_reader_open_memory(names[data[0] % 4], data + 1, length, &reader) != TN_OK) return 0;
    while (tn_reader_next(reader, &slice, &found) == TN_OK && found) {
        tn_arena arena = {0};
        const tn_json *tree;
        if (slice.start < end || slice.length < 1 || slice.length > length - slice.start || slice.line < 1)
            abort();
        end = slice.start + slice.length;
        if (tn_reader_parse(reader, slice, &arena, NULL, &tree) == TN_OK) convert_all(&arena, tree);
        tn_arena_free(&arena);
    }
    tn_reader_free(reader);
    return 0;
}
