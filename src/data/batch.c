/* batch.c: growing and filling of micro-batches. */
#include "data/batch.h"

#include <stdlib.h>

#include "data/batch_internal.h"
#include "data/pictures.h"

void tn_batch_free(tn_batch *b) {
    free(b->ids);
    free(b->targets);
    free(b->positions);
    for (int axis = 0; axis < 3; axis++) free(b->axes[axis]);
    free(b->pictures);
    free(b->pixels);
    free(b->cu_seqlens);
    free(b->samples);
    *b = (tn_batch){0};
}

/* tn_grow doubles one capacity for one array; here three arrays share one, so each grows from the old value. */
static tn_status grow_all(tn_batch *b, int64_t tokens, int64_t documents) {
    int64_t a, c, d;
    tn_status status = TN_OK;
    if (tokens > b->capacity_tokens) {
        a = c = d = b->capacity_tokens;
        TN_TRY(tn_grow(&b->ids, &a, tokens, (int64_t)sizeof *b->ids, "a batch"));
        TN_TRY(tn_grow(&b->targets, &c, tokens, (int64_t)sizeof *b->targets, "a batch"));
        TN_TRY(tn_grow(&b->positions, &d, tokens, (int64_t)sizeof *b->positions, "a batch"));
        for (int axis = 0; axis < 3; axis++) {
            c = b->capacity_tokens;
            TN_TRY(tn_grow(&b->axes[axis], &c, tokens, (int64_t)sizeof *b->axes[axis], "a batch"));
        }
        b->capacity_tokens = a;
    }
    if (documents + 1 > b->capacity_documents) {
        a = c = b->capacity_documents;
        TN_TRY(tn_grow(&b->cu_seqlens, &a, documents + 1, (int64_t)sizeof *b->cu_seqlens, "a batch"));
        TN_TRY(tn_grow(&b->samples, &c, documents + 1, (int64_t)sizeof *b->samples, "a batch"));
        b->capacity_documents = a;
    }
done:
    return status;
}

void tn_batch_begin(tn_batch *b) {
    b->tokens = b->documents = b->labelled = b->longest = b->picture_count = b->patches = 0;
}

/* Read again here, so that a sample needs no memory for its pixels. What changed since it was measured is an
 * error. */
static tn_status read_picture(const tn_image_processor *p, const char *path, tn_batch *b,
                              tn_batch_picture *out) {
    tn_picture picture;
    tn_grid grid;
    tn_status status;
    TN_TRY(tn_picture_open(path, &picture));
    TN_TRY(tn_image_grid(p, picture.width, picture.height, path, &grid));
    if (grid.h != out->rows * p->merge || grid.w != out->columns * p->merge)
        TN_THROW(TN_BAD_DATA, "%s: the picture is of another size than when the data was read", path);
    out->patch = b->patches;
    b->patch_values = tn_patch_values(p);
    TN_TRY(tn_grow(&b->pixels, &b->capacity_values, (b->patches + tn_grid_patches(grid)) * tn_patch_values(p),
                   (int64_t)sizeof *b->pixels, "pixels"));
    TN_TRY(tn_image_patches(p, &picture, grid, b->pixels + b->patches * tn_patch_values(p)));
    b->patches += tn_grid_patches(grid);
done:
    tn_picture_free(&picture);
    return status;
}

static tn_status add_pictures(tn_batch *b, tn_sample sample, const tn_picture_tokens *tokens) {
    tn_status status;
    TN_TRY(tn_grow(&b->pictures, &b->capacity_pictures, b->picture_count + sample.picture_count,
                   (int64_t)sizeof *b->pictures, "pictures"));
    for (int64_t i = 0; i < sample.picture_count; i++) {
        const tn_sample_picture *p = &sample.pictures[i];
        tn_batch_picture *out = &b->pictures[b->picture_count];
        *out = (tn_batch_picture){.first = b->tokens + p->first, .rows = p->rows, .columns = p->columns};
        TN_TRY(read_picture(&tokens->processor, sample.paths + p->path, b, out));
        b->picture_count++;
    }
done:
    return status;
}

/* The target of a token is the label of the one after it; a document's last token has none. */
tn_status tn_batch_add(tn_batch *b, tn_sample sample, const tn_picture_tokens *tokens, int64_t index) {
    tn_status status = grow_all(b, b->tokens + sample.length, b->documents + 1);
    if (status == TN_OK && sample.picture_count > 0) status = add_pictures(b, sample, tokens);
    if (status != TN_OK) return status;
    int64_t at = b->tokens;
    for (int64_t i = 0; i < sample.length; i++) {
        int32_t target = i + 1 < sample.length ? sample.labels[i + 1] : -100;
        b->ids[at + i] = sample.ids[i];
        b->positions[at + i] = (int32_t)i;
        b->targets[at + i] = target < 0 ? -100 : target;
        b->labelled += target >= 0;
    }
    tn_picture_positions(&sample, b->axes[0] + at, b->axes[1] + at, b->axes[2] + at);
    b->cu_seqlens[b->documents] = (int32_t)at;
    b->samples[b->documents] = index;
    b->tokens += sample.length;
    b->cu_seqlens[++b->documents] = (int32_t)b->tokens;
    if (sample.length > b->longest) b->longest = sample.length;
    return TN_OK;
}

tn_status tn_batch_set_sample(tn_batch *b, tn_sample sample, const tn_picture_tokens *pictures) {
    tn_batch_begin(b);
    return tn_batch_add(b, sample, pictures, 0);
}

tn_status tn_batch_set(tn_batch *b, const int32_t *ids, const int32_t *labels, int64_t tokens) {
    const tn_sample sample = {.ids = ids, .labels = labels ? labels : ids, .length = tokens};
    return tn_batch_set_sample(b, sample, NULL);
}
