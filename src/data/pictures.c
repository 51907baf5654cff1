/* pictures.c: expanding placeholders, and what else pictures change about a sample. */
#include "data/pictures.h"

#include <string.h>

#include "base/file.h"

/* ---- Settings ------------------------------------------------------------------------------------ */

static tn_status read_processor(tn_arena *arena, const char *directory, tn_image_processor *processor) {
    const char *own = tn_path_join(arena, directory, "preprocessor_config.json");
    const char *whole = tn_path_join(arena, directory, "processor_config.json");
    const tn_json *config;
    if (!own || !whole) return tn_fail_memory(512, "paths");
    if (!tn_is_file(own) && !tn_is_file(whole)) return TN_OK;
    const char *path = tn_is_file(own) ? own : whole;
    tn_status status = tn_json_read_file(arena, path, TN_JSON_DEFAULT, &config);
    if (status != TN_OK) return status;
    if (path == whole) config = tn_json_get(config, "image_processor");
    return tn_image_processor_read(config, path, processor);
}

tn_status tn_picture_tokens_read(tn_arena *arena, const char *directory, const tn_json *config,
                                 tn_picture_tokens *tokens) {
    static const struct {
        const char *key;
        int32_t published;
    } ids[] = {{"image_token_id", 151655},
               {"video_token_id", 151656},
               {"vision_token_id", 151654},
               {"vision_start_token_id", 151652},
               {"vision_end_token_id", 151653}};
    *tokens = (tn_picture_tokens){.directory = directory};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        const int64_t id = tn_json_integer(tn_json_get(config, ids[i].key), ids[i].published);
        if (id < 0 || id > INT32_MAX)
            return tn_fail(TN_BAD_DATA, "%s/config.json: %s is no token id", directory, ids[i].key);
        tokens->silent[tokens->silent_count++] = (int32_t)id;
    }
    tokens->image = tokens->silent[0];
    return read_processor(arena, directory, &tokens->processor);
}

/* ---- Expanding ----------------------------------------------------------------------------------- */

static const char *path_of(tn_arena *arena, const char *file, const char *path) {
    const int64_t folder = tn_path_base(file) - file;
    if (path[0] == '/' || folder == 0) return path;
    return tn_arena_printf(arena, "%.*s%s", (int)folder, file, path);
}

/* The picture is read whole, so that a damaged one is found before training and not during it. */
static tn_status measure(const tn_picture_tokens *tokens, const char *path, tn_sample_picture *out) {
    tn_picture picture;
    tn_grid grid;
    tn_status status = tn_picture_open(path, &picture);
    if (status == TN_USAGE)
        tn_remedy("check the path; a relative one starts at the folder of the file that names the picture");
    if (status == TN_OK) status = tn_image_grid(&tokens->processor, picture.width, picture.height, path, &grid);
    if (status == TN_OK) {
        out->rows = grid.h / tokens->processor.merge;
        out->columns = grid.w / tokens->processor.merge;
    }
    tn_picture_free(&picture);
    return status;
}

static tn_status add_picture(const tn_picture_tokens *tokens, const char *path, tn_encoding *out) {
    tn_sample_picture picture = {.path = out->paths.length};
    tn_status status;
    TN_TRY(measure(tokens, path, &picture));
    tn_str_add(&out->paths, path, (int64_t)strlen(path) + 1);
    TN_TRY(tn_str_check(&out->paths, "paths of pictures"));
    TN_TRY(tn_grow(&out->pictures, &out->picture_capacity, out->picture_count + 1, (int64_t)sizeof picture,
                   "pictures"));
    out->pictures[out->picture_count++] = picture;
done:
    return status;
}

static tn_status fail_count(const tn_record *record, int64_t places) {
    tn_fail(TN_BAD_DATA, "the record has %lld pictures, and its rendered conversation places for %lld",
            (long long)record->picture_count, (long long)places);
    return tn_remedy(
        "the chat template must show each picture once; a text may not hold the image token itself");
}

/* From behind, so that everything moves once and into its place. */
static void spread(const tn_picture_tokens *tokens, bool with_spans, int64_t count, tn_encoding *out) {
    int64_t to = out->ids.count, picture = out->picture_count;
    for (int64_t from = count - 1; from >= 0; from--) {
        const int32_t id = out->ids.ids[from];
        int64_t copies = 1;
        if (id == tokens->image) {
            tn_sample_picture *p = &out->pictures[--picture];
            copies = p->rows * p->columns;
            p->first = to - copies;
        }
        int64_t span[2] = {0, 0};
        if (with_spans) memcpy(span, out->spans.starts_ends + 2 * from, sizeof span);
        for (; copies > 0; copies--) {
            out->ids.ids[--to] = id;
            if (with_spans) memcpy(out->spans.starts_ends + 2 * to, span, sizeof span);
        }
    }
}

tn_status tn_pictures_expand(const tn_picture_tokens *tokens, const tn_record *record, const char *file,
                             bool with_spans, tn_encoding *out) {
    const int64_t count = out->ids.count;
    int64_t places = 0, longer = 0;
    tn_arena arena = {0};
    tn_status status = TN_OK;
    for (int64_t i = 0; i < count; i++) places += out->ids.ids[i] == tokens->image;
    if (places != record->picture_count) return fail_count(record, places);
    if (places > 0 && tokens->processor.patch == 0) {
        tn_fail(TN_USAGE, "%s holds no preprocessor_config.json, by which pictures are brought to size",
                tokens->directory);
        return tn_remedy("fetch it from where the model came from");
    }
    for (int64_t i = 0; i < places; i++) {
        const char *path = path_of(&arena, file, record->pictures[i]);
        if (!path) TN_THROW(TN_FAILED, "out of memory for a path");
        TN_TRY(add_picture(tokens, path, out));
        longer += out->pictures[i].rows * out->pictures[i].columns - 1;
    }
    for (int64_t i = 0; i < longer; i++) TN_TRY(tn_ids_push(&out->ids, 0));
    if (with_spans) {
        TN_TRY(tn_grow(&out->spans.starts_ends, &out->spans.capacity, 2 * out->ids.count,
                       (int64_t)sizeof *out->spans.starts_ends, "spans"));
        out->spans.count = out->ids.count;
    }
    spread(tokens, with_spans, count, out);
done:
    tn_arena_free(&arena);
    return status;
}

void tn_pictures_cut(tn_encoding *out, int64_t most) {
    int64_t kept = 0;
    if (most > out->ids.count) most = out->ids.count;
    for (; kept < out->picture_count && out->pictures[kept].first < most; kept++) {
        const tn_sample_picture *p = &out->pictures[kept];
        if (p->first + p->rows * p->columns > most) {
            most = p->first;
            break;
        }
    }
    out->picture_count = kept;
    out->ids.count = most;
}

void tn_pictures_silence(const tn_picture_tokens *tokens, tn_encoding *out) {
    for (int64_t i = 0; i < out->ids.count; i++)
        for (int32_t s = 0; s < tokens->silent_count; s++)
            if (out->ids.ids[i] == tokens->silent[s]) out->labels[i] = TN_NO_LABEL;
}

/* ---- Positions ----------------------------------------------------------------------------------- */

void tn_picture_positions(const tn_sample *sample, int32_t *frame, int32_t *row, int32_t *column) {
    const int64_t length = sample->length;
    int32_t next = 0;
    for (int64_t i = 0, picture = 0; i < length;) {
        const tn_sample_picture *p = picture < sample->picture_count ? &sample->pictures[picture] : NULL;
        if (!p || i < p->first) {
            frame[i] = row[i] = column[i] = next++;
            i++;
            continue;
        }
        for (int64_t n = 0; n < p->rows * p->columns; n++, i++) {
            frame[i] = next;
            row[i] = next + (int32_t)(n / p->columns);
            column[i] = next + (int32_t)(n % p->columns);
        }
        next += (int32_t)(p->rows > p->columns ? p->rows : p->columns);
        picture++;
    }
}
