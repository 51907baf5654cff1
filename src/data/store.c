/* store.c: writing and believing files of samples. */
#include "data/store.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "data/labels.h"

static const char magic[8] = "tnTOKENS";

/* The last bytes of a file of samples; all fields little-endian, no padding. */
typedef struct trailer {
    char magic[8];
    int64_t version, records, samples, tokens, labelled, cut, mended, repeated, unlabelled, longest;
    char format[32], key[40], content_hash[40];
    char hash[40]; /* of the fields above */
} trailer;

static void seal(const trailer *t, char digits[33]) { tn_hash_memory(t, offsetof(trailer, hash), digits); }

/* ---- Reading ---- */

void tn_store_close(tn_store *store) {
    tn_map_close(&store->map);
    if (store->held) fclose(store->held);
    free(store->memory);
    free(store->pictures);
    free(store->picture_starts);
    free(store->paths);
    *store = (tn_store){0};
}

tn_sample tn_store_at(const tn_store *store, int64_t index) {
    int64_t length = store->offsets[index + 1] - store->offsets[index];
    const int32_t *ids = store->samples + 2 * store->offsets[index];
    tn_sample sample = {.ids = ids, .labels = ids + length, .length = length, .paths = store->paths};
    if (store->picture_starts) {
        sample.pictures = store->pictures + store->picture_starts[index];
        sample.picture_count = store->picture_starts[index + 1] - store->picture_starts[index];
    }
    return sample;
}

/* Bytes of samples and offsets, false where the counts cannot be. */
static bool content_bytes(const trailer *t, int64_t *bytes) {
    int64_t ids, offsets;
    return tn_mul(t->tokens, 8, &ids) && tn_add(t->samples, 1, &offsets) && tn_mul(offsets, 8, &offsets) &&
           tn_add(ids, offsets, bytes);
}

static bool read_trailer(const char *bytes, int64_t length, const char *key, trailer *t) {
    char digits[33];
    int64_t content;
    if (length < (int64_t)sizeof *t) return false;
    memcpy(t, bytes + length - (int64_t)sizeof *t, sizeof *t);
    seal(t, digits);
    if (memcmp(t->magic, magic, sizeof magic) != 0 || t->version != TN_STORE_VERSION) return false;
    if (memcmp(t->hash, digits, sizeof digits) != 0 || memcmp(t->key, key, 33) != 0) return false;
    return content_bytes(t, &content) && content == length - (int64_t)sizeof *t;
}

/* Points the store into the bytes. The format's name is copied to the constant it came from. */
static bool attach(tn_store *store, const char *bytes, int64_t length, const char *key) {
    static const char *const formats[] = {"messages",        "conversations", "alpaca",    "prompt_completion",
                                          "question_answer", "text",          "input_ids", "alpaca_prompt"};
    trailer t;
    char digits[33];
    if (!read_trailer(bytes, length, key, &t)) return false;
    tn_hash_memory(bytes, length - (int64_t)sizeof t, digits);
    if (memcmp(t.content_hash, digits, sizeof digits) != 0) return false;
    store->samples = (const int32_t *)(const void *)bytes;
    store->offsets = (const int64_t *)(const void *)(bytes + 8 * t.tokens);
    store->stats = (tn_dataset_stats){.records = t.records,
                                      .samples = t.samples,
                                      .tokens = t.tokens,
                                      .labelled = t.labelled,
                                      .cut = t.cut,
                                      .mended = t.mended,
                                      .repeated = t.repeated,
                                      .unlabelled = t.unlabelled,
                                      .longest = t.longest,
                                      .format = ""};
    memcpy(store->stats.hash, key, 33);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(t.format, formats[i]) == 0) store->stats.format = formats[i];
    return true;
}

tn_status tn_store_open(const char *path, const char *key, tn_store *store, bool *found) {
    *store = (tn_store){0};
    *found = false;
    if (!tn_is_file(path)) return TN_OK;
    if (tn_map_open(path, &store->map) != TN_OK) {
        tn_warn("the token cache cannot be read and is made again: %s", tn_error_message());
        return TN_OK;
    }
    *found = attach(store, (const char *)store->map.data, store->map.bytes, key);
    store->stats.from_cache = *found;
    if (*found) {
        tn_store_hold(store, path);
        return TN_OK;
    }
    tn_warn("the token cache %s is damaged and is made again", path);
    tn_store_close(store);
    return TN_OK;
}

/* ---- Writing ---- */

tn_status tn_store_begin(const char *path, tn_store_writer *w) {
    *w = (tn_store_writer){0};
    tn_status status;
    TN_TRY(tn_hash_begin(&w->hasher));
    if (path) TN_TRY(tn_save_begin(&w->save, path));
    w->file = path ? w->save.file : open_memstream(&w->memory, &w->memory_bytes);
    if (!w->file) TN_THROW(TN_FAILED, "out of memory for samples");
    TN_TRY(tn_grow(&w->offsets, &w->capacity, 1, (int64_t)sizeof *w->offsets, "sample offsets"));
    w->offsets[0] = 0;
done:
    if (status != TN_OK) tn_store_abort(w);
    return status;
}

static void put(tn_store_writer *w, const void *bytes, int64_t length) {
    tn_hash_add(&w->hasher, bytes, length);
    if (length > 0) fwrite(bytes, 1, (size_t)length, w->file); /* failures are found at the end */
}

/* The first sample with a picture makes the list of where each one's pictures begin. */
static tn_status add_pictures(tn_store_writer *w, tn_sample sample) {
    const int64_t index = w->stats.samples;
    tn_status status = TN_OK;
    if (sample.picture_count == 0 && !w->picture_starts) return TN_OK;
    bool fresh = !w->picture_starts;
    TN_TRY(tn_grow(&w->picture_starts, &w->start_capacity, index + 2, (int64_t)sizeof *w->picture_starts,
                   "pictures"));
    if (fresh) memset(w->picture_starts, 0, (size_t)(index + 1) * sizeof *w->picture_starts);
    TN_TRY(tn_grow(&w->pictures, &w->picture_capacity, w->picture_count + sample.picture_count,
                   (int64_t)sizeof *w->pictures, "pictures"));
    for (int64_t i = 0; i < sample.picture_count; i++) {
        const char *path = sample.paths + sample.pictures[i].path;
        w->pictures[w->picture_count] = sample.pictures[i];
        w->pictures[w->picture_count++].path = w->paths.length;
        const int64_t tokens = sample.pictures[i].rows * sample.pictures[i].columns;
        if (tokens > w->stats.largest_picture) w->stats.largest_picture = tokens;
        tn_str_add(&w->paths, path, (int64_t)strlen(path) + 1);
    }
    w->picture_starts[index + 1] = w->picture_count;
    status = tn_str_check(&w->paths, "paths of pictures");
done:
    return status;
}

tn_status tn_store_add(tn_store_writer *w, tn_sample sample) {
    tn_dataset_stats *s = &w->stats;
    int64_t labelled = 0;
    tn_status status =
        tn_grow(&w->offsets, &w->capacity, s->samples + 2, (int64_t)sizeof *w->offsets, "sample offsets");
    if (status == TN_OK) status = add_pictures(w, sample);
    if (status != TN_OK) return status;
    for (int64_t i = 1; i < sample.length; i++) labelled += sample.labels[i] != TN_NO_LABEL;
    put(w, sample.ids, sample.length * (int64_t)sizeof *sample.ids);
    put(w, sample.labels, sample.length * (int64_t)sizeof *sample.labels);
    s->tokens += sample.length;
    s->labelled += labelled;
    s->unlabelled += labelled == 0;
    if (sample.length > s->longest) s->longest = sample.length;
    w->offsets[++s->samples] = s->tokens;
    return TN_OK;
}

static void write_trailer(tn_store_writer *w, const char *key) {
    const tn_dataset_stats *s = &w->stats;
    trailer t;
    memset(&t, 0, sizeof t);
    memcpy(t.magic, magic, sizeof magic);
    t.version = TN_STORE_VERSION;
    t.records = s->records, t.samples = s->samples, t.tokens = s->tokens, t.labelled = s->labelled;
    t.cut = s->cut, t.mended = s->mended, t.repeated = s->repeated;
    t.unlabelled = s->unlabelled, t.longest = s->longest;
    snprintf(t.format, sizeof t.format, "%s", s->format);
    snprintf(t.key, sizeof t.key, "%s", key);
    tn_hash_end(&w->hasher, t.content_hash);
    seal(&t, t.hash);
    fwrite(&t, 1, sizeof t, w->file);
}

/* The bytes in memory become the store's. */
static tn_status keep_memory(tn_store_writer *w, const char *key, tn_store *store) {
    bool failed = ferror(w->file) != 0;
    failed |= fclose(w->file) != 0;
    w->file = NULL;
    if (failed) return tn_fail_memory(w->stats.tokens * 8, "samples");
    store->memory = w->memory;
    w->memory = NULL;
    store->pictures = w->pictures, store->picture_starts = w->picture_starts, store->paths = w->paths.data;
    w->pictures = NULL, w->picture_starts = NULL, w->paths = (tn_str){0};
    if (attach(store, store->memory, (int64_t)w->memory_bytes, key)) {
        store->stats.pictures = w->picture_count;
        store->stats.largest_picture = w->stats.largest_picture;
        return TN_OK;
    }
    return tn_fail(TN_FAILED, "the samples changed in memory while they were written");
}

tn_status tn_store_finish(tn_store_writer *w, const char *key, tn_store *store) {
    tn_status status = TN_OK;
    *store = (tn_store){0};
    put(w, w->offsets, (w->stats.samples + 1) * (int64_t)sizeof *w->offsets);
    write_trailer(w, key);
    if (!w->save.path) {
        status = keep_memory(w, key, store);
        goto done;
    }
    tn_arena arena = {0};
    const char *path = tn_arena_text(&arena, w->save.path, (int64_t)strlen(w->save.path));
    w->file = NULL; /* commit closes it */
    status = path ? tn_save_commit(&w->save) : tn_fail_memory(256, "a path");
    if (status == TN_OK) status = tn_map_open(path, &store->map);
    if (status == TN_OK && !attach(store, (const char *)store->map.data, store->map.bytes, key))
        status = tn_fail(TN_STORAGE, "%s does not hold what was just written to it", path);
    if (status == TN_OK) tn_store_hold(store, path);
    tn_arena_free(&arena);
done:
    tn_store_abort(w);
    if (status != TN_OK) tn_store_close(store);
    return status;
}

void tn_store_abort(tn_store_writer *w) {
    char digits[33];
    if (w->hasher.state) tn_hash_end(&w->hasher, digits);
    if (w->file && w->file != w->save.file) fclose(w->file);
    tn_save_abort(&w->save);
    free(w->memory);
    free(w->offsets);
    free(w->pictures);
    free(w->picture_starts);
    tn_str_free(&w->paths);
    *w = (tn_store_writer){0};
}

/* ---- Where ---- */

const char *tn_store_path(tn_arena *arena, const char *directory, const char *key) {
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (directory && directory[0] == '\0') return NULL;
    if (!directory && xdg && xdg[0] == '/') directory = tn_path_join(arena, xdg, "tenon");
    else if (!directory && home && home[0]) directory = tn_path_join(arena, home, ".cache/tenon");
    if (!directory) {
        tn_warn("no directory for the token cache (HOME is not set): the data is tokenised at every start");
        return NULL;
    }
    if (tn_make_directories(directory) != TN_OK || access(directory, W_OK) != 0) {
        tn_warn("the token cache %s cannot be written: the data is tokenised at every start", directory);
        return NULL;
    }
    return tn_arena_printf(arena, "%s/tokens-%s.bin", directory, key);
}
