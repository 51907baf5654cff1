/* gemm_cache.c: remembers algorithms in memory and on disk. A line is 13 numbers of the key, 8 words of
 * cublasLt's algorithm and a checksum of what stands before it; a line that does not check is skipped. The
 * file is written whole under another name and renamed, after the entries that other processes wrote in the
 * meantime were taken in. Without a writable place everything still works, but is timed again in each run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "op/cuda/gemm.h"

enum { WORDS = 8, CACHE_LIMIT = 16 << 20 };

static uint64_t fnv(const void *bytes, int64_t length) {
    uint64_t hash = 14695981039346656037u;
    for (int64_t i = 0; i < length; i++) hash = (hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211u;
    return hash;
}

const tn_gemm_entry *tn_gemms_find(const tn_cuda_gemms *gemms, const tn_gemm_key *key) {
    uint64_t hash = fnv(key, sizeof *key);
    for (int64_t i = 0; i < gemms->count; i++)
        if (gemms->entries[i].hash == hash && memcmp(&gemms->entries[i].key, key, sizeof *key) == 0)
            return &gemms->entries[i];
    return NULL;
}

static tn_status insert(tn_cuda_gemms *gemms, const tn_gemm_key *key, const cublasLtMatmulAlgo_t *algorithm,
                        bool saved) {
    tn_status status = tn_grow(&gemms->entries, &gemms->capacity, gemms->count + 1, sizeof *gemms->entries,
                               "matrix product algorithms");
    if (status != TN_OK) return status;
    gemms->entries[gemms->count++] =
        (tn_gemm_entry){.hash = fnv(key, sizeof *key), .key = *key, .algorithm = *algorithm, .saved = saved};
    return TN_OK;
}

static void write_line(tn_str *text, const tn_gemm_entry *entry) {
    int64_t start = text->length;
    for (int i = 0; i < TN_GEMM_KEY_NUMBERS; i++)
        tn_str_printf(text, "%lld ", (long long)entry->key.numbers[i]);
    for (int i = 0; i < WORDS; i++) tn_str_printf(text, "%llx ", (unsigned long long)entry->algorithm.data[i]);
    if (text->failed) return;
    tn_str_printf(text, "%llx\n", (unsigned long long)fnv(text->data + start, text->length - start));
}

/* Parses one line [text, end); false where anything is wrong with it. */
static bool read_line(const char *text, const char *end, tn_gemm_entry *entry) {
    const char *p = text;
    char *next;
    *entry = (tn_gemm_entry){.saved = true};
    for (int i = 0; i < TN_GEMM_KEY_NUMBERS; i++, p = next) {
        entry->key.numbers[i] = strtoll(p, &next, 10);
        if (next == p || next >= end) return false;
    }
    for (int i = 0; i < WORDS; i++, p = next) {
        entry->algorithm.data[i] = strtoull(p, &next, 16);
        if (next == p || next >= end) return false;
    }
    p++; /* the space the checksum covers */
    uint64_t sum = strtoull(p, &next, 16);
    return next > p && next == end && sum == fnv(text, p - text);
}

void tn_gemms_read(tn_cuda_gemms *gemms) {
    tn_str text = {0};
    if (gemms->path[0] && tn_is_file(gemms->path) && tn_read_file(gemms->path, CACHE_LIMIT, &text) == TN_OK) {
        const char *line = tn_str_text(&text), *end;
        for (; (end = strchr(line, '\n')); line = end + 1) {
            tn_gemm_entry entry;
            if (read_line(line, end, &entry) && !tn_gemms_find(gemms, &entry.key) &&
                insert(gemms, &entry.key, &entry.algorithm, true) != TN_OK)
                break;
        }
    }
    tn_str_free(&text);
}

static void write_all(tn_cuda_gemms *gemms) {
    tn_str text = {0};
    tn_gemms_read(gemms);
    for (int64_t i = 0; i < gemms->count; i++)
        if (gemms->entries[i].saved) write_line(&text, &gemms->entries[i]);
    if (!text.failed)
        tn_save_text(gemms->path, tn_str_text(&text), text.length); /* a full disk only costs time */
    tn_str_free(&text);
}

tn_status tn_gemms_remember(tn_cuda_gemms *gemms, const cublasLtMatmulAlgo_t *algorithm, bool timed) {
    tn_status status = insert(gemms, &gemms->asked, algorithm, timed);
    if (status == TN_OK && timed && gemms->path[0]) write_all(gemms);
    return status;
}

void tn_gemms_locate(tn_cuda_gemms *gemms, const char *card) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char directory[768], name[128];
    int length = cache && cache[0] ? snprintf(directory, sizeof directory, "%s/tenon", cache)
                                   : snprintf(directory, sizeof directory, "%s/.cache/tenon", home ? home : "");
    if ((!home && !(cache && cache[0])) || length <= 0 || (size_t)length >= sizeof directory) return;
    if (tn_make_directories(directory) != TN_OK) return;
    snprintf(name, sizeof name, "%s", card);
    for (char *c = name; *c; c++)
        if (*c == ' ' || *c == '/') *c = '_';
    snprintf(gemms->path, sizeof gemms->path, "%s/cublaslt-%s-%zu.txt", directory, name, cublasLtGetVersion());
}
