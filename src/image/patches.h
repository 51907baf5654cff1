/* patches.h: from a picture to what the vision tower reads: its size brought to multiples of patch × merge
 * within min_pixels and max_pixels, its values normalised, and its pixels laid out as one row a patch, in the
 * order of Qwen2-VL's processor. Settings are those of preprocessor_config.json.
 */
#ifndef TN_IMAGE_PATCHES_H
#define TN_IMAGE_PATCHES_H

#include "base/json.h"
#include "image/picture.h"

typedef struct tn_image_processor {
    int64_t min_pixels, max_pixels;
    int64_t patch, temporal, merge; /* patch_size, temporal_patch_size, merge_size */
    float value[3][256];            /* of each channel: what a byte becomes */
} tn_image_processor;

/* Patches of one picture: grid.h × grid.w of them, for `t` pairs of frames (1). */
typedef struct tn_grid {
    int64_t t, h, w;
} tn_grid;
static inline int64_t tn_grid_patches(tn_grid grid) { return grid.t * grid.h * grid.w; }

/* Floats of one patch: channels × temporal × patch × patch. */
static inline int64_t tn_patch_values(const tn_image_processor *p) {
    return 3 * p->temporal * p->patch * p->patch;
}

/* `config` is preprocessor_config.json, or image_processor of processor_config.json; absent keys have the
 * defaults of Qwen2VLImageProcessor. Errors: TN_USAGE for a setting that asks for something else than is done
 * here. */
tn_status tn_image_processor_read(const tn_json *config, const char *name, tn_image_processor *processor);
/* The grid of a picture of this size ("smart_resize"). Errors: TN_BAD_DATA (200 times as long as wide). */
tn_status tn_image_grid(const tn_image_processor *p, int64_t width, int64_t height, const char *name,
                        tn_grid *grid);
/* rows [tn_grid_patches, tn_patch_values]: channel, frame, y, x; merge × merge neighbours in a square follow
 * one another. The single frame stands for all. */
tn_status tn_image_patches(const tn_image_processor *p, const tn_picture *picture, tn_grid grid, float *rows);

#endif
