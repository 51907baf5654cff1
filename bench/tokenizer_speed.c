/* tokenizer_speed.c: how fast tokenizers load and encode, one core.
 *
 *   tokenizer_speed TOKENIZER.json TEXT...
 *
 * Prints the best load time of five and, for each text, MB/s: `cold` the first pass (nothing cached), `warm`
 * the best of the passes that follow within half a second. A text is encoded in pieces of about 4 KiB cut at
 * line ends, as records of a dataset are.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "text/tokenizer.h"

enum { PIECE = 4096, LOADS = 5 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* End of the piece that begins at `at`: behind the last newline within PIECE bytes, else behind the next one.
 */
static int64_t piece_end(const char *text, int64_t length, int64_t at) {
    if (length - at <= PIECE) return length;
    for (int64_t i = at + PIECE; i > at; i--)
        if (text[i - 1] == '\n') return i;
    const char *next = memchr(text + at + PIECE, '\n', (size_t)(length - at - PIECE));
    return next ? next + 1 - text : length;
}

static tn_status encode_all(const tn_text *tokenizer, const tn_map *map, tn_ids *ids) {
    const char *text = (const char *)map->data;
    tn_status status = TN_OK;
    ids->count = 0;
    for (int64_t at = 0, end; at < map->bytes && status == TN_OK; at = end) {
        end = piece_end(text, map->bytes, at);
        status = tn_text_encode(tokenizer, text + at, end - at, false, ids, NULL);
    }
    return status;
}

static tn_status measure(const char *json, const char *path) {
    tn_status status = TN_OK;
    tn_text *tokenizer = NULL;
    tn_map map = {0};
    tn_ids ids = {0};
    TN_TRY(tn_text_from_json(json, &tokenizer)); /* a fresh one: an empty cache */
    TN_TRY(tn_map_open(path, &map));
    double began = now(), cold = 0, warm = 1e9, start, stop;
    do {
        start = now();
        TN_TRY(encode_all(tokenizer, &map, &ids));
        stop = now();
        if (cold == 0) cold = stop - start;
        else if (stop - start < warm) warm = stop - start;
    } while (warm == 1e9 || stop - began < 0.5);
    const char *name = strrchr(path, '/');
    printf("  %-28s %8.2f MB %9lld tokens   cold %6.1f MB/s   warm %6.1f MB/s\n", name ? name + 1 : path,
           (double)map.bytes * 1e-6, (long long)ids.count, (double)map.bytes * 1e-6 / cold,
           (double)map.bytes * 1e-6 / warm);
done:
    tn_ids_free(&ids);
    tn_map_close(&map);
    tn_text_free(tokenizer);
    return status;
}

static tn_status load_time(const char *json) {
    double best = 1e9;
    tn_map map;
    tn_status status = tn_map_open(json, &map);
    if (status != TN_OK) return status;
    double megabytes = (double)map.bytes * 1e-6;
    tn_map_close(&map);
    for (int i = 0; i < LOADS; i++) {
        tn_text *tokenizer;
        double start = now();
        status = tn_text_from_json(json, &tokenizer);
        if (status != TN_OK) return status;
        if (now() - start < best) best = now() - start;
        tn_text_free(tokenizer);
    }
    printf("%s: %.1f MB loads in %.3f s\n", json, megabytes, best);
    return TN_OK;
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: tokenizer_speed TOKENIZER.json TEXT...\n"), 2;
    tn_status status = load_time(argv[1]);
    for (int i = 2; i < argc && status == TN_OK; i++) status = measure(argv[1], argv[i]);
    if (status != TN_OK) fprintf(stderr, "%s\n", tn_error_message());
    return status != TN_OK;
}
