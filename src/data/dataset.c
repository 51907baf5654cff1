/* dataset.c: files to samples. Records are found in order by one thread, encoded by all in batches, and stored
 * in order, so that the result does not depend on the number of threads. The first record of a file decides its
 * shape. */
#include "data/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"
#include "data/encode.h"
#include "data/pictures.h"
#include "data/readers.h"
#include "data/show.h"
#include "data/store.h"

struct tn_dataset {
    tn_store store;
    const tn_picture_tokens *pictures;
};

/* Records encoded at a time, and the bytes at which a batch is full before that. */
enum { BATCH_RECORDS = 512, BATCH_BYTES = 4 << 20 };

typedef struct job {
    tn_slice slice;
    tn_encoding encoding;
    tn_json_notes notes;
    tn_status status;
} job;

typedef struct building {
    const tn_dataset_options *options;
    tn_encoder encoder;
    tn_reader **readers; /* [options->count] */
    job *jobs;           /* [BATCH_RECORDS] */
    tn_store_writer writer;
    char first_mended[256], first_repeated[256]; /* places, " (first FILE:LINE)"; "" where the cache is read */
} building;

/* ---- One batch of records ---- */

static tn_status encode_slice(const building *b, const tn_reader *reader, tn_shape shape, job *j) {
    tn_arena arena = {0};
    const tn_json *record;
    j->notes = (tn_json_notes){0};
    /* names file and line itself */
    tn_status status = tn_reader_parse(reader, j->slice, &arena, &j->notes, &record);
    if (status == TN_OK) {
        status = tn_encode(&b->encoder, &arena, record, shape, tn_reader_path(reader), &j->encoding);
        tn_context(status, "%s:%lld", tn_reader_path(reader), (long long)j->slice.line);
    }
    tn_arena_free(&arena);
    return status;
}

/* Cuts a record's tokens into samples: one, or in stage cpt as many pieces of max_length as it takes. */
static tn_status store_record(building *b, const tn_encoding *e) {
    const int64_t most = b->options->max_length;
    int64_t start = 0;
    b->writer.stats.records++;
    b->writer.stats.cut += e->cut;
    do {
        int64_t length = e->ids.count - start < most ? e->ids.count - start : most;
        tn_sample piece = {e->ids.ids + start, e->labels + start, length,
                           e->pictures,        e->picture_count,  tn_str_text(&e->paths)};
        if (e->ids.count == 0) piece = (tn_sample){0};
        tn_status status = tn_store_add(&b->writer, piece);
        if (status != TN_OK) return status;
        start += length;
    } while (start < e->ids.count);
    return TN_OK;
}

static void count_note(bool noted, const tn_reader *reader, int64_t line, int64_t *count, char first[256]) {
    if (noted && (*count)++ == 0)
        snprintf(first, 256, " (the first is %s:%lld)", tn_reader_path(reader), (long long)line);
}

static void count_notes(building *b, const tn_reader *reader, const job *j) {
    tn_dataset_stats *s = &b->writer.stats;
    count_note(j->notes.lone_surrogate, reader, j->slice.line, &s->mended, b->first_mended);
    count_note(j->notes.repeated_key, reader, j->slice.line, &s->repeated, b->first_repeated);
}

static tn_status encode_batch(building *b, const tn_reader *reader, tn_shape shape, int64_t count) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(tn_threads())
    for (int64_t i = 0; i < count; i++) b->jobs[i].status = encode_slice(b, reader, shape, &b->jobs[i]);
    for (int64_t i = 0; i < count; i++) {
        /* Messages belong to the thread that failed: the record is done again here, where the caller reads
         * them. */
        tn_status status = b->jobs[i].status == TN_OK ? TN_OK : encode_slice(b, reader, shape, &b->jobs[i]);
        if (status == TN_OK) status = store_record(b, &b->jobs[i].encoding);
        if (status != TN_OK) return status;
        count_notes(b, reader, &b->jobs[i]);
    }
    return TN_OK;
}

/* ---- Files ---- */

static tn_status find_shape(building *b, const tn_reader *reader, tn_slice first, tn_shape *shape) {
    tn_arena arena = {0};
    const tn_json *record;
    tn_status status;
    if (b->options->format && b->options->format[0]) {
        TN_TRY(tn_shape_from_name(b->options->format, shape));
    } else {
        TN_TRY(tn_reader_parse(reader, first, &arena, NULL, &record));
        status = tn_context(tn_shape_detect(record, shape), "%s:%lld", tn_reader_path(reader),
                            (long long)first.line);
        if (status != TN_OK) goto done;
    }
    status = tn_encoder_prepare(&b->encoder, *shape);
    if (!b->writer.stats.format) b->writer.stats.format = tn_shape_name(*shape);
done:
    tn_arena_free(&arena);
    return status;
}

static tn_status read_one(building *b, tn_reader *reader) {
    const int64_t most = b->options->max_records;
    int64_t count = 0, bytes = 0, records = 0;
    tn_shape shape = TN_SHAPE_TEXT;
    bool found;
    tn_status status;
    for (;;) {
        job *next = &b->jobs[count];
        found = false;
        if (most == 0 || records < most) TN_TRY(tn_reader_next(reader, &next->slice, &found));
        if (found && records++ == 0) TN_TRY(find_shape(b, reader, next->slice, &shape));
        if (found) count++, bytes += next->slice.length;
        if (found && count < BATCH_RECORDS && bytes < BATCH_BYTES) continue;
        TN_TRY(encode_batch(b, reader, shape, count));
        count = bytes = 0;
        if (!found) break;
    }
    if (records == 0) {
        tn_fail(TN_BAD_DATA, "%s holds no records", tn_reader_path(reader));
        status = tn_remedy("an empty data set cannot be trained on; check the path");
    }
done:
    return status;
}

static tn_status build(building *b, const char *path, const char *key, tn_store *store) {
    tn_status status;
    TN_TRY(tn_store_begin(path, &b->writer));
    for (int64_t i = 0; i < b->options->count; i++) TN_TRY(read_one(b, b->readers[i]));
    status = tn_store_finish(&b->writer, key, store);
done:
    tn_store_abort(&b->writer);
    return status;
}

/* The readers are at the end after a build that failed to be written. */
static tn_status open_readers(building *b) {
    for (int64_t i = 0; i < b->options->count; i++) {
        tn_reader_free(b->readers[i]);
        tn_status status = tn_reader_open(b->options->paths[i], &b->readers[i]);
        if (status != TN_OK) return status;
    }
    return TN_OK;
}

/* ---- The key ---- */

static void hash_text(tn_hasher *hasher, const char *text) {
    tn_hash_add(hasher, text, (int64_t)strlen(text) + 1); /* with its end, so that texts cannot run together */
}

/* Everything that changes a sample: files and their kinds, settings, tokenizer and template, our version. */
static tn_status find_key(const building *b, const tn_chat *chat, char key[33]) {
    const tn_dataset_options *o = b->options;
    const int64_t numbers[] = {TN_STORE_VERSION, o->stage, o->max_length, o->train_on_responses_only,
                               o->vocab_size,    o->count, o->max_records};
    char digits[33] = "";
    tn_hasher hasher;
    tn_status status = tn_hash_begin(&hasher);
    if (status != TN_OK) return status;
    tn_hash_add(&hasher, numbers, sizeof numbers);
    hash_text(&hasher, o->format ? o->format : "");
    if (chat) tn_chat_hash(chat, digits);
    hash_text(&hasher, digits);
    for (int64_t i = 0; i < o->count; i++) {
        tn_map map = tn_reader_bytes(b->readers[i]);
        hash_text(&hasher, tn_reader_kind(b->readers[i]));
        tn_hash_add(&hasher, &map.bytes, sizeof map.bytes);
        tn_hash_add(&hasher, map.data, map.bytes);
    }
    if (o->pictures) {
        tn_hash_add(&hasher, &o->pictures->processor, sizeof o->pictures->processor);
        tn_hash_add(&hasher, o->pictures->silent, sizeof o->pictures->silent);
    }
    tn_hash_end(&hasher, key);
    return TN_OK;
}

/* ---- Opening ---- */

/* What was looked for, and a sample in which it was not found. */
static tn_status fail_unlabelled(building *b, const tn_store *store) {
    enum { SHOWN = 600 };
    tn_shape shape;
    tn_str text = {0};
    int64_t shown = 0;
    if (tn_shape_from_name(store->stats.format, &shape) == TN_OK) tn_encoder_prepare(&b->encoder, shape);
    while (shown + 1 < store->stats.samples && tn_store_at(store, shown).length == 0) shown++;
    tn_sample sample = tn_store_at(store, shown);
    if (sample.length > SHOWN / 2) sample.length = SHOWN / 2;
    tn_show_sample(b->encoder.chat, sample, &text);
    const char *marker = tn_str_text(&b->encoder.markers.assistant);
    tn_fail(TN_BAD_DATA, "no token of the %lld samples carries a loss%s%s%s. Sample %lld: %.*s",
            (long long)store->stats.samples, *marker ? ": the assistant's marker \"" : "", marker,
            *marker ? "\" was not found with an answer behind it" : "", (long long)shown + 1, SHOWN,
            tn_str_text(&text));
    tn_str_free(&text);
    return tn_remedy(
        "check the records, raise max_length if it cuts the answers off, or set train_on_responses_only "
        "to false");
}

/* Said at every start, cached or not. */
static void warn_of_losses(const building *b, const tn_dataset_stats *s) {
    const tn_chat *chat = b->encoder.chat;
    bool text = strcmp(s->format, "text") == 0 || strcmp(s->format, "alpaca_prompt") == 0;
    bool pair = strcmp(s->format, "alpaca") == 0 || strcmp(s->format, "prompt_completion") == 0 ||
                strcmp(s->format, "question_answer") == 0;
    bool plain = pair && chat && !tn_chat_has_template(chat);
    if (plain)
        tn_warn(
            "the tokenizer has no chat template: prompt and completion are joined with nothing between them");
    if ((plain || text) && chat && tn_chat_eos(chat) < 0)
        tn_warn("the tokenizer names no eos_token: the samples end without one");
    if (s->mended > 0)
        tn_warn(
            "%lld of %lld records have half of a surrogate pair (\\ud83d without its other half), which is no "
            "character: U+FFFD stands for it%s",
            (long long)s->mended, (long long)s->records, b->first_mended);
    if (s->repeated > 0)
        tn_warn("%lld of %lld records have a key twice in one object: the last one counts%s",
                (long long)s->repeated, (long long)s->records, b->first_repeated);
    if (s->unlabelled > 0 && s->labelled > 0)
        tn_warn("%lld of %lld samples have no token with a loss: training leaves them out",
                (long long)s->unlabelled, (long long)s->samples);
    if (s->cut > 0)
        tn_warn("%lld of %lld records are longer than max_length %lld and were cut: they lose their end",
                (long long)s->cut, (long long)s->records, (long long)b->options->max_length);
}

static tn_status open_store(building *b, const tn_chat *chat, tn_store *store) {
    tn_arena arena = {0};
    char key[33];
    bool found = false;
    tn_status status;
    TN_TRY(open_readers(b));
    TN_TRY(find_key(b, chat, key));
    /* Pictures are read anew at every start: the key does not know their contents. */
    const char *path = b->options->pictures ? NULL : tn_store_path(&arena, b->options->cache_directory, key);
    if (path) TN_TRY(tn_store_open(path, key, store, &found));
    if (found) goto done;
    status = build(b, path, key, store);
    if (status == TN_OK && path) tn_store_trim(path, tn_store_limit(path));
    if (status == TN_STORAGE && path) {
        tn_warn("the token cache could not be written, the samples stay in memory: %s", tn_error_message());
        TN_TRY(open_readers(b));
        status = build(b, NULL, key, store);
    }
done:
    tn_arena_free(&arena);
    return status;
}

static void close_building(building *b) {
    for (int64_t i = 0; b->readers && i < b->options->count; i++) tn_reader_free(b->readers[i]);
    for (int64_t i = 0; b->jobs && i < BATCH_RECORDS; i++) tn_encoding_free(&b->jobs[i].encoding);
    tn_encoder_free(&b->encoder);
    free(b->readers);
    free(b->jobs);
}

tn_status tn_dataset_open(const tn_dataset_options *options, const tn_chat *chat, tn_dataset **dataset) {
    building b = {.options = options, .encoder = {.chat = chat, .options = options}};
    tn_dataset *d = NULL;
    tn_status status;
    *dataset = NULL;
    if (options->count < 1) TN_THROW(TN_USAGE, "no dataset was given");
    if (options->max_length < 1) TN_THROW(TN_USAGE, "max_length must be at least 1");
    TN_TRY(tn_alloc(&d, 1, sizeof *d, "a dataset"));
    TN_TRY(tn_alloc(&b.readers, options->count, (int64_t)sizeof *b.readers, "readers"));
    TN_TRY(tn_alloc(&b.jobs, BATCH_RECORDS, (int64_t)sizeof *b.jobs, "records"));
    d->pictures = options->pictures;
    TN_TRY(open_store(&b, chat, &d->store));
    warn_of_losses(&b, &d->store.stats);
    if (d->store.stats.labelled == 0 && !options->allow_unlabelled) status = fail_unlabelled(&b, &d->store);
done:
    close_building(&b);
    if (status == TN_OK) *dataset = d;
    else tn_dataset_free(d);
    return status;
}

void tn_dataset_free(tn_dataset *dataset) {
    if (!dataset) return;
    tn_store_close(&dataset->store);
    free(dataset);
}

int64_t tn_dataset_samples(const tn_dataset *dataset) { return dataset->store.stats.samples; }
tn_sample tn_dataset_at(const tn_dataset *dataset, int64_t index) {
    return tn_store_at(&dataset->store, index);
}
const tn_picture_tokens *tn_dataset_pictures(const tn_dataset *dataset) { return dataset->pictures; }
void tn_dataset_get_stats(const tn_dataset *dataset, tn_dataset_stats *stats) { *stats = dataset->store.stats; }
