/* Datasets of ids, the token cache, and the loader: what a run sees of its data, and that it sees all of it. */
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "data/batch.h"
#include "data/show.h"
#include "data/store.h"
#include "testing.h"

/* Twelve records of 3, 4, … tokens; record 5 has no label. */
enum { RECORDS = 12, MASKED = 5, LONGEST = RECORDS + 2, TOKENS = RECORDS * (3 + LONGEST) / 2 };

static const char *write_ids(const char *name) {
    tn_str text = {0};
    for (int r = 0; r < RECORDS; r++) {
        tn_str_puts(&text, "{\"input_ids\": [");
        for (int i = 0; i < r + 3; i++) tn_str_printf(&text, "%s%d", i ? ", " : "", 100 * r + i);
        tn_str_puts(&text, "], \"labels\": [-100");
        for (int i = 1; i < r + 3; i++)
            tn_str_printf(&text, ", %d", i == 1 || r == MASKED ? -100 : 100 * r + i);
        tn_str_puts(&text, "]}\n");
    }
    const char *path = write_scratch(name, text.data, text.length);
    tn_str_free(&text);
    return path;
}

static const char *write_text(const char *name, const char *text) {
    return write_scratch(name, text, (int64_t)strlen(text));
}

/* Options of a single file; the file name is copied. */
static tn_dataset_options options_for(const char *path) {
    static char kept[512];
    static const char *paths[1] = {kept};
    snprintf(kept, sizeof kept, "%s", path);
    return (tn_dataset_options){
        .paths = paths, .count = 1, .max_length = 64, .train_on_responses_only = true, .cache_directory = ""};
}

static tn_dataset *open_ids(void) {
    tn_dataset_options options = options_for(write_ids("ids.jsonl"));
    tn_dataset *dataset;
    must(tn_dataset_open(&options, NULL, &dataset));
    return dataset;
}

static tn_loader *open_loader(const tn_dataset *dataset, tn_loader_options options) {
    tn_loader *loader;
    must(tn_loader_new(dataset, &options, &loader));
    return loader;
}

static tn_status open_text(const char *name, const char *text, tn_dataset **dataset) {
    tn_dataset_options options = options_for(write_text(name, text));
    options.vocab_size = 1000;
    return tn_dataset_open(&options, NULL, dataset);
}

/* ---- Datasets ---- */

static void ids_and_labels_are_taken_as_they_are(void **state) {
    (void)state;
    tn_dataset *dataset = open_ids();
    tn_dataset_stats stats;
    tn_dataset_get_stats(dataset, &stats);
    assert_int_equal(stats.records, RECORDS);
    assert_int_equal(stats.samples, RECORDS);
    assert_int_equal(stats.tokens, TOKENS);
    assert_int_equal(stats.labelled, TOKENS - 2 * RECORDS - (MASKED + 1));
    assert_int_equal(stats.unlabelled, 1);
    assert_int_equal(stats.longest, LONGEST);
    assert_string_equal(stats.format, "input_ids");
    tn_sample sample = tn_dataset_at(dataset, 2);
    const int32_t ids[] = {200, 201, 202, 203, 204}, labels[] = {-100, -100, 202, 203, 204};
    assert_int_equal(sample.length, 5);
    must_match(sample.ids, ids, sizeof ids);
    must_match(sample.labels, labels, sizeof labels);
    tn_dataset_free(dataset);
}

static void ids_without_labels_train_on_every_token(void **state) {
    (void)state;
    tn_dataset *dataset;
    must(open_text("a.jsonl", "{\"input_ids\": [7, 8, 9]}\n", &dataset));
    tn_sample sample = tn_dataset_at(dataset, 0);
    must_match(sample.labels, sample.ids, 12);
    tn_dataset_free(dataset);
}

static void longer_records_are_cut_or_split_by_stage(void **state) {
    (void)state;
    tn_dataset_options options = options_for(write_ids("ids.jsonl"));
    tn_dataset *dataset;
    tn_dataset_stats stats;
    options.max_length = 5;
    must(tn_dataset_open(&options, NULL, &dataset));
    tn_dataset_get_stats(dataset, &stats);
    assert_int_equal(stats.cut, RECORDS - 3);
    assert_int_equal(stats.samples, RECORDS);
    assert_int_equal(stats.longest, 5);
    tn_dataset_free(dataset);

    options.stage = TN_STAGE_CPT;
    must(tn_dataset_open(&options, NULL, &dataset));
    tn_dataset_get_stats(dataset, &stats);
    assert_int_equal(stats.cut, 0);
    assert_int_equal(stats.tokens, TOKENS);
    assert_int_equal(stats.records, RECORDS);
    int64_t last = stats.samples - 1; /* 14 tokens: 5 + 5 + 4 */
    assert_int_equal(tn_dataset_at(dataset, last).length, 4);
    assert_int_equal(tn_dataset_at(dataset, last).ids[0], 100 * (RECORDS - 1) + 10);
    tn_dataset_free(dataset);
}

static void bad_records_are_named_by_file_and_line(void **state) {
    (void)state;
    tn_dataset *dataset;
    must_fail(open_text("v.jsonl", "{\"input_ids\": [1]}\n{\"input_ids\": [1, 1000]}\n", &dataset), TN_BAD_DATA,
              "v.jsonl:2");
    must_fail(open_text("v.jsonl", "{\"input_ids\": [1, 1000]}\n", &dataset), TN_BAD_DATA,
              "vocabulary of 1000");
    must_fail(open_text("v.jsonl", "{\"input_ids\": [-1, 2]}\n", &dataset), TN_BAD_DATA, "id -1");
    must_fail(open_text("v.jsonl", "{\"input_ids\": [1, 2.5]}\n", &dataset), TN_BAD_DATA, "input_ids[1]");
    must_fail(open_text("v.jsonl", "{\"input_ids\": [1, 2], \"labels\": [-100, -5]}\n", &dataset), TN_BAD_DATA,
              "label -5");
    must_fail(open_text("v.jsonl", "{\"input_ids\": [1, 2], \"labels\": [1]}\n", &dataset), TN_BAD_DATA,
              "v.jsonl:1");
    must_fail(open_text("v.jsonl", "{\"input_ids\": [1, 2]}\n\n{\"text\": 1}\n", &dataset), TN_BAD_DATA,
              "v.jsonl:3");
    must_fail(open_text("v.jsonl", "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1", &dataset), TN_BAD_DATA,
              "v.jsonl:2");
    must_fail(open_text("v.jsonl", "{\"foo\": 1}\n", &dataset), TN_BAD_DATA, "keys: foo");
    assert_null(dataset);
}

/* More records than one batch holds; those in lines 700 and 900 are bad where that is asked for. */
static const char *write_many(bool bad) {
    tn_str text = {0};
    for (int line = 1; line <= 1500; line++)
        tn_str_printf(
            &text,
            bad && (line == 700 || line == 900) ? "{\"input_ids\": [%d, -1]}\n" : "{\"input_ids\": [%d, 7]}\n",
            line);
    const char *path = write_scratch("many.jsonl", text.data, text.length);
    tn_str_free(&text);
    return path;
}

static void the_number_of_threads_changes_nothing(void **state) {
    (void)state;
    tn_dataset *dataset;
    for (int threads = 1; threads <= 4; threads++) {
        must(tn_threads_set(threads));
        tn_dataset_options options = options_for(write_many(true));
        must_fail(tn_dataset_open(&options, NULL, &dataset), TN_BAD_DATA, "many.jsonl:700"); /* the first one */
        options = options_for(write_many(false));
        must(tn_dataset_open(&options, NULL, &dataset));
        assert_int_equal(tn_dataset_samples(dataset), 1500);
        for (int32_t i = 0; i < 1500; i++) assert_int_equal(tn_dataset_at(dataset, i).ids[0], i + 1);
        tn_dataset_free(dataset);
    }
    must(tn_threads_set(0));
}

static void nothing_to_train_on_is_refused(void **state) {
    (void)state;
    tn_dataset *dataset;
    must_fail(open_text("e.jsonl", "", &dataset), TN_BAD_DATA, "e.jsonl holds no records");
    must_fail(open_text("e.json", "[]", &dataset), TN_BAD_DATA, "no records");
    must_fail(open_text("e.csv", "text\n", &dataset), TN_BAD_DATA, "no records");
    must_fail(open_text("e.jsonl", "{\"input_ids\": [11, 22], \"labels\": [11, -100]}\n", &dataset),
              TN_BAD_DATA, "22");
    must_fail(open_text("e.jsonl", "{\"text\": \"x\"}\n", &dataset), TN_USAGE, "tokenizer");
    assert_null(dataset);
}

static void a_sample_is_shown_with_its_masked_part_marked(void **state) {
    (void)state;
    const int32_t ids[] = {1, 2, 3, 4}, labels[] = {-100, -100, 3, -100};
    tn_str text = {0};
    must(tn_show_sample(NULL, (tn_sample){.ids = ids, .labels = labels, .length = 4}, &text));
    assert_string_equal(text.data, "⟦1 2⟧ 3 ⟦4⟧");
    tn_str_free(&text);
}

/* ---- The cache ---- */

static int64_t warnings;
static void count_warnings(void *user, tn_log_level level, const char *line) {
    (void)user, (void)line;
    warnings += level == TN_LOG_WARNING;
}

static tn_dataset *open_cached(const tn_dataset_options *options, bool hit) {
    tn_dataset *dataset;
    tn_dataset_stats stats;
    must(tn_dataset_open(options, NULL, &dataset));
    tn_dataset_get_stats(dataset, &stats);
    assert_int_equal(stats.from_cache, hit);
    return dataset;
}

static void same_samples(const tn_dataset *a, const tn_dataset *b) {
    assert_int_equal(tn_dataset_samples(a), tn_dataset_samples(b));
    for (int64_t i = 0; i < tn_dataset_samples(a); i++) {
        tn_sample x = tn_dataset_at(a, i), y = tn_dataset_at(b, i);
        assert_int_equal(x.length, y.length);
        must_match(x.ids, y.ids, x.length * 4);
        must_match(x.labels, y.labels, x.length * 4);
    }
}

/* A cache directory of its own with the twelve records in it. */
static tn_dataset_options cached_options(const char *directory) {
    tn_dataset_options options = options_for(write_ids("cached.jsonl"));
    options.cache_directory = directory;
    must(tn_remove_tree(directory));
    tn_dataset_free(open_cached(&options, false));
    return options;
}

static void a_cache_hit_gives_the_same_data(void **state) {
    (void)state;
    tn_dataset_options options = cached_options(scratch("cache"));
    tn_dataset *fresh = open_ids(), *cached = open_cached(&options, true);
    tn_dataset_stats stats, fresh_stats;
    same_samples(fresh, cached);
    tn_dataset_get_stats(cached, &stats);
    tn_dataset_get_stats(fresh, &fresh_stats);
    assert_int_equal(stats.labelled, fresh_stats.labelled);
    assert_int_equal(stats.longest, fresh_stats.longest);
    assert_string_equal(stats.hash, fresh_stats.hash);
    assert_string_equal(stats.format, "input_ids");
    tn_dataset_free(fresh);
    tn_dataset_free(cached);
}

static void a_changed_setting_or_byte_misses_the_cache(void **state) {
    (void)state;
    tn_dataset_options options = cached_options(scratch("cache")), changed = options;
    changed.max_length = 63;
    tn_dataset_free(open_cached(&changed, false));
    changed = options, changed.train_on_responses_only = false;
    tn_dataset_free(open_cached(&changed, false));
    changed = options, changed.stage = TN_STAGE_CPT;
    tn_dataset_free(open_cached(&changed, false));
    changed = options, changed.vocab_size = 5000;
    tn_dataset_free(open_cached(&changed, false));
    tn_dataset_free(open_cached(&options, true));
    FILE *file = fopen(options.paths[0], "r+b");
    assert_non_null(file);
    fseek(file, 15, SEEK_SET); /* the first id */
    fputc('7', file);
    fclose(file);
    tn_dataset_free(open_cached(&options, false));
}

static const char *cache_file(const char *directory) {
    tn_arena arena = {0};
    static char path[1024];
    const char **names;
    int64_t count;
    must(tn_list_directory(&arena, directory, &names, &count));
    assert_int_equal(count, 1);
    snprintf(path, sizeof path, "%s/%s", directory, names[0]);
    tn_arena_free(&arena);
    return path;
}

/* A file of 1000 bytes in the folder `full`, last used `age` seconds ago. */
static const char *used_ago(const char *name, int64_t age) {
    static const char zeros[1000];
    char inside[64];
    const struct timespec then = {.tv_sec = time(NULL) - age};
    snprintf(inside, sizeof inside, "full/%s", name);
    const char *path = write_scratch(inside, zeros, sizeof zeros);
    assert_int_equal(utimensat(AT_FDCWD, path, (const struct timespec[2]){then, then}, 0), 0);
    return path;
}

static void a_full_cache_loses_what_was_used_longest_ago_and_nothing_in_use(void **state) {
    (void)state;
    must(tn_make_directories(scratch("full")));
    const char *held = used_ago("tokens-held.bin", 9000), *old = used_ago("tokens-old.bin", 8000);
    const char *own = used_ago("tokens-own.bin", 7000), *next = used_ago("tokens-next.bin", 6000);
    const char *late = used_ago("tokens-late.bin", 5000), *other = used_ago("cublaslt-card.txt", 9999);
    const char *half = used_ago("tokens-dead.bin.tmp-7", 99999), *busy = used_ago("tokens-live.bin.tmp-8", 10);
    tn_store store = {0};
    tn_store_hold(&store, held);
    assert_int_equal(utimensat(AT_FDCWD, held, (const struct timespec[2]){{.tv_sec = 1}, {.tv_sec = 1}}, 0), 0);
    tn_store_trim(own, 5000);
    assert_true(tn_is_file(old) && tn_is_file(next) && tn_is_file(busy) && !tn_is_file(half));
    tn_store_trim(own, 3999);
    assert_true(!tn_is_file(old) && !tn_is_file(next) && tn_is_file(late));
    tn_store_trim(own, 0);
    assert_true(tn_is_file(held) && tn_is_file(own) && !tn_is_file(late) && tn_is_file(other));
    tn_store_close(&store);
    tn_store_trim(own, 0);
    assert_true(!tn_is_file(held) && tn_is_file(own));
    assert_true(tn_store_limit("/") > 0 && tn_store_limit("/") <= (int64_t)4 << 30);
}

/* What is used is not what goes: a hit makes an entry new. */
static void a_hit_renews_a_cached_entry(void **state) {
    (void)state;
    tn_dataset_options options = cached_options(scratch("cache"));
    const char *path = cache_file(options.cache_directory);
    struct stat info;
    assert_int_equal(utimensat(AT_FDCWD, path, (const struct timespec[2]){{.tv_sec = 1}, {.tv_sec = 1}}, 0), 0);
    tn_dataset *dataset = open_cached(&options, true);
    assert_int_equal(stat(path, &info), 0);
    assert_true(info.st_mtim.tv_sec > 1);
    tn_store_trim(scratch("cache/tokens-new.bin"), 0);
    assert_true(tn_is_file(path));
    tn_dataset_free(dataset);
    tn_store_trim(scratch("cache/tokens-new.bin"), 0);
    assert_false(tn_is_file(path));
}

static void damaged_caches_are_made_again(void **state) {
    (void)state;
    tn_dataset_options options = cached_options(scratch("cache"));
    const char *path = cache_file(options.cache_directory);
    int64_t bytes = tn_file_size(path);
    tn_dataset *fresh = open_ids();
    for (int64_t at = 0; at < bytes; at += 37) { /* a flipped bit anywhere, or the file cut off there */
        if (at % 2) {
            assert_int_equal(truncate(path, at), 0);
        } else {
            FILE *file = fopen(path, "r+b");
            assert_non_null(file);
            fseek(file, (long)at, SEEK_SET);
            int byte = fgetc(file);
            fseek(file, (long)at, SEEK_SET);
            fputc(byte ^ 4, file);
            fclose(file);
        }
        tn_dataset *again = open_cached(&options, false);
        same_samples(fresh, again);
        tn_dataset_free(again);
    }
    tn_dataset_free(open_cached(&options, true));
    tn_dataset_free(fresh);
}

static void a_cache_that_cannot_be_written_is_said_and_done_without(void **state) {
    (void)state;
    tn_dataset_options options = options_for(write_ids("ids.jsonl"));
    options.cache_directory = write_text("a_file", "x"); /* where a directory should be */
    warnings = 0;
    tn_log_set(count_warnings, NULL);
    tn_dataset *dataset = open_cached(&options, false);
    tn_log_set(NULL, NULL);
    assert_int_equal(warnings, 2); /* and that record 5 has no label */
    tn_dataset *fresh = open_ids();
    same_samples(dataset, fresh);
    tn_dataset_free(dataset);
    tn_dataset_free(fresh);
}

/* ---- The loader ---- */

static void batches_shift_labels_inside_documents(void **state) {
    (void)state;
    tn_dataset *dataset = open_ids();
    tn_loader *loader = open_loader(dataset, (tn_loader_options){.batch_size = 2, .max_length = 64});
    tn_batch batch = {0};
    must(tn_loader_get(loader, 0, 0, &batch));
    const int32_t ids[] = {0, 1, 2, 100, 101, 102, 103}, targets[] = {-100, 2, -100, -100, 102, 103, -100};
    const int32_t positions[] = {0, 1, 2, 0, 1, 2, 3}, cu_seqlens[] = {0, 3, 7};
    assert_int_equal(batch.tokens, 7);
    assert_int_equal(batch.documents, 2);
    assert_int_equal(batch.labelled, 3);
    assert_int_equal(batch.longest, 4);
    must_match(batch.ids, ids, sizeof ids);
    must_match(batch.targets, targets, sizeof targets);
    must_match(batch.positions, positions, sizeof positions);
    must_match(batch.cu_seqlens, cu_seqlens, sizeof cu_seqlens);
    tn_batch_free(&batch);
    tn_loader_free(loader);
    tn_dataset_free(dataset);
}

static void a_batch_from_ids_labels_every_token(void **state) {
    (void)state;
    const int32_t ids[] = {5, 6, 7}, targets[] = {6, 7, -100};
    tn_batch batch = {0};
    must(tn_batch_set(&batch, ids, NULL, 3));
    assert_int_equal(batch.labelled, 2);
    must_match(batch.targets, targets, sizeof targets);
    tn_batch_free(&batch);
}

/* Walks an epoch: counts the samples seen, sums up (token, target) pairs, and checks the limits. */
typedef struct walk {
    int64_t seen[RECORDS], order[RECORDS], documents, batches;
    uint64_t pairs;
} walk;

static walk walk_epoch(tn_loader *loader, const tn_dataset *dataset, int64_t epoch, int64_t room) {
    walk w = {0};
    tn_batch batch = {0};
    int64_t tokens, documents, longest;
    tn_loader_limits(loader, &tokens, &documents, &longest);
    must(tn_loader_epoch_batches(loader, epoch, &w.batches));
    for (int64_t b = 0; b < w.batches; b++) {
        must(tn_loader_get(loader, epoch, b, &batch));
        assert_in_range(batch.tokens, 1, tokens < room ? tokens : room);
        assert_in_range(batch.documents, 1, documents);
        assert_in_range(batch.longest, 1, longest);
        for (int64_t d = 0; d < batch.documents; d++) {
            tn_sample sample = tn_dataset_at(dataset, batch.samples[d]);
            assert_int_equal(batch.cu_seqlens[d + 1] - batch.cu_seqlens[d], sample.length); /* whole */
            must_match(batch.ids + batch.cu_seqlens[d], sample.ids, 4 * sample.length);
            w.seen[batch.samples[d]]++;
            w.order[w.documents++] = batch.samples[d];
        }
        for (int64_t t = 0; t < batch.tokens; t++) { /* a sum does not know an order */
            uint64_t pair = (uint64_t)(uint32_t)batch.ids[t] << 32 | (uint32_t)batch.targets[t];
            w.pairs += (pair ^ (pair >> 29)) * 0x9E3779B97F4A7C15u;
        }
    }
    tn_batch_free(&batch);
    return w;
}

static void packing_keeps_records_whole_and_in_order(void **state) {
    (void)state;
    tn_dataset *dataset = open_ids();
    tn_loader *loader =
        open_loader(dataset, (tn_loader_options){.batch_size = 1, .max_length = 18, .packing = true});
    walk w = walk_epoch(loader, dataset, 0, 18);
    assert_int_equal(w.documents, RECORDS);
    for (int64_t i = 0; i < RECORDS; i++) assert_int_equal(w.order[i], i);
    /* 3+4+5+6 fill a row to its end, then 7+8, 9, 10, 11, 12, 13, 14 */
    assert_int_equal(w.batches, 8);
    tn_batch batch = {0};
    must(tn_loader_get(loader, 0, 0, &batch));
    assert_int_equal(batch.tokens, 18);
    tn_batch_free(&batch);
    tn_loader_free(loader);
    tn_dataset_free(dataset);
}

static void packing_changes_no_token_and_no_target(void **state) {
    (void)state;
    tn_dataset *dataset = open_ids();
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        tn_loader_options plain = {.batch_size = 3, .max_length = 20, .shuffle = shuffle, .seed = 1},
                          packed = plain;
        packed.packing = true;
        tn_loader *a = open_loader(dataset, plain), *b = open_loader(dataset, packed);
        for (int64_t epoch = 0; epoch < 5; epoch++) {
            walk x = walk_epoch(a, dataset, epoch, 3 * LONGEST), y = walk_epoch(b, dataset, epoch, 3 * 20);
            assert_true(x.pairs == y.pairs);
            assert_memory_equal(x.order, y.order, sizeof x.order);
        }
        tn_loader_free(a);
        tn_loader_free(b);
    }
    tn_dataset_free(dataset);
}

static void shuffling_is_a_permutation_that_differs_per_epoch_and_seed(void **state) {
    (void)state;
    tn_dataset *dataset = open_ids();
    tn_loader_options options = {.batch_size = 2, .max_length = 64, .shuffle = true, .seed = 3407};
    tn_loader *loader = open_loader(dataset, options);
    walk first = walk_epoch(loader, dataset, 0, 64), second = walk_epoch(loader, dataset, 1, 64);
    walk again = walk_epoch(loader, dataset, 0, 64);
    options.seed++;
    tn_loader *other = open_loader(dataset, options);
    walk seeded = walk_epoch(other, dataset, 0, 64);
    for (int64_t i = 0; i < RECORDS; i++) {
        assert_int_equal(first.seen[i], 1);
        assert_int_equal(second.seen[i], 1);
    }
    assert_memory_equal(first.order, again.order, sizeof first.order);
    assert_memory_not_equal(first.order, second.order, sizeof first.order);
    assert_memory_not_equal(first.order, seeded.order, sizeof first.order);
    tn_loader_free(loader);
    tn_loader_free(other);
    tn_dataset_free(dataset);
}

static void a_batch_does_not_depend_on_those_before_it(void **state) {
    (void)state;
    tn_dataset *dataset = open_ids();
    tn_loader_options options = {
        .batch_size = 2, .max_length = 20, .packing = true, .shuffle = true, .seed = 5};
    tn_loader *walked = open_loader(dataset, options), *fresh = open_loader(dataset, options);
    tn_batch a = {0}, b = {0};
    walk_epoch(walked, dataset, 0, 40);
    walk_epoch(walked, dataset, 1, 40);
    must(tn_loader_get(walked, 3, 1, &a));
    must(tn_loader_get(fresh, 3, 1, &b));
    assert_int_equal(a.tokens, b.tokens);
    must_match(a.ids, b.ids, 4 * a.tokens);
    must_match(a.targets, b.targets, 4 * a.tokens);
    int64_t batches;
    must(tn_loader_epoch_batches(fresh, 3, &batches));
    must_fail(tn_loader_get(fresh, 3, batches, &b), TN_FAILED, "no batch");
    tn_batch_free(&a);
    tn_batch_free(&b);
    tn_loader_free(walked);
    tn_loader_free(fresh);
    tn_dataset_free(dataset);
}

static void training_leaves_out_what_has_no_label(void **state) {
    (void)state;
    tn_dataset *dataset = open_ids();
    tn_loader_options options = {.batch_size = 4, .max_length = 64, .skip_unlabelled = true};
    tn_loader *loader = open_loader(dataset, options);
    walk w = walk_epoch(loader, dataset, 0, 64);
    assert_int_equal(w.documents, RECORDS - 1);
    assert_int_equal(w.seen[MASKED], 0);
    assert_int_equal(w.batches, 3); /* 4 + 4 + 3: the last, smaller one is kept */
    tn_loader_free(loader);
    const int64_t subset[] = {1, MASKED, 9};
    options.subset = subset, options.subset_count = 3;
    loader = open_loader(dataset, options);
    w = walk_epoch(loader, dataset, 0, 64);
    assert_int_equal(w.documents, 2);
    assert_int_equal(w.seen[1] + w.seen[9], 2);
    tn_loader_free(loader);
    const int64_t masked[] = {MASKED};
    options.subset = masked, options.subset_count = 1;
    must_fail(tn_loader_new(dataset, &options, &loader), TN_BAD_DATA, "loss");
    tn_dataset_free(dataset);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_and_labels_are_taken_as_they_are),
        cmocka_unit_test(ids_without_labels_train_on_every_token),
        cmocka_unit_test(longer_records_are_cut_or_split_by_stage),
        cmocka_unit_test(bad_records_are_named_by_file_and_line),
        cmocka_unit_test(the_number_of_threads_changes_nothing),
        cmocka_unit_test(nothing_to_train_on_is_refused),
        cmocka_unit_test(a_sample_is_shown_with_its_masked_part_marked),
        cmocka_unit_test(a_cache_hit_gives_the_same_data),
        cmocka_unit_test(a_changed_setting_or_byte_misses_the_cache),
        cmocka_unit_test(a_full_cache_loses_what_was_used_longest_ago_and_nothing_in_use),
        cmocka_unit_test(a_hit_renews_a_cached_entry),
        cmocka_unit_test(damaged_caches_are_made_again),
        cmocka_unit_test(a_cache_that_cannot_be_written_is_said_and_done_without),
        cmocka_unit_test(batches_shift_labels_inside_documents),
        cmocka_unit_test(a_batch_from_ids_labels_every_token),
        cmocka_unit_test(packing_keeps_records_whole_and_in_order),
        cmocka_unit_test(packing_changes_no_token_and_no_target),
        cmocka_unit_test(shuffling_is_a_permutation_that_differs_per_epoch_and_seed),
        cmocka_unit_test(a_batch_does_not_depend_on_those_before_it),
        cmocka_unit_test(training_leaves_out_what_has_no_label),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_scratch();
    return failed;
}
