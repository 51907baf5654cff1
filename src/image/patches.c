/* patches.c: the image processor of Qwen2-VL (image_processing_pil_qwen2_vl.py of Transformers). */
#include "image/patches.h"

#include <math.h>

#include "image/resize.h"

/* ---- Settings ------------------------------------------------------------------------------------ */

static tn_status fail_setting(const char *name, const char *key, const char *known) {
    tn_fail(TN_USAGE, "%s: %s is not what this program does with pictures", name, key);
    return tn_remedy("known: %s", known);
}

/* Settings that this file does not look at must say what it does. */
static tn_status check_fixed(const tn_json *config, const char *name) {
    static const char *const steps[] = {"do_resize", "do_rescale", "do_normalize", "do_convert_rgb"};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (!tn_json_boolean(tn_json_get(config, steps[i]), true)) return fail_setting(name, steps[i], "true");
    if (tn_json_integer(tn_json_get(config, "resample"), 3) != 3)
        return fail_setting(name, "resample", "3 (bicubic)");
    return TN_OK;
}

/* min_pixels and max_pixels, or their newer names in `size`. */
static int64_t pixels(const tn_json *config, const char *key, const char *edge, int64_t otherwise) {
    const tn_json *value = tn_json_get(config, key);
    if (tn_json_is_null(value)) value = tn_json_get(tn_json_get(config, "size"), edge);
    return tn_json_is_null(value) ? otherwise : tn_json_integer(value, -1);
}

static double channel(const tn_json *config, const char *key, int c, double otherwise) {
    const tn_json *list = tn_json_get(config, key);
    return tn_json_is_null(list) ? otherwise : tn_json_number(tn_json_at(list, c), NAN);
}

/* In double and float as the processor's two steps have it, so that the values are the same to the bit. */
static tn_status read_values(const tn_json *config, const char *name, tn_image_processor *p) {
    static const double means[] = {0.48145466, 0.4578275, 0.40821073},
                        stds[] = {0.26862954, 0.26130258, 0.27577711};
    const double factor = tn_json_number(tn_json_get(config, "rescale_factor"), 1.0 / 255);
    for (int c = 0; c < 3; c++) {
        const float mean = (float)channel(config, "image_mean", c, means[c]);
        const float std = (float)channel(config, "image_std", c, stds[c]);
        if (!isfinite(mean) || !isfinite(factor) || !(std > 0) || isinf(std))
            return tn_fail(
                TN_BAD_DATA,
                "%s: rescale_factor, image_mean and image_std need numbers, three each of the last two", name);
        for (int byte = 0; byte < 256; byte++) p->value[c][byte] = ((float)(byte * factor) - mean) / std;
    }
    return TN_OK;
}

tn_status tn_image_processor_read(const tn_json *config, const char *name, tn_image_processor *p) {
    enum { MOST = 1 << 12 };
    tn_status status = check_fixed(config, name);
    if (status != TN_OK) return status;
    *p = (tn_image_processor){.min_pixels = pixels(config, "min_pixels", "shortest_edge", 56 * 56),
                              .max_pixels = pixels(config, "max_pixels", "longest_edge", 28 * 28 * 1280),
                              .patch = tn_json_integer(tn_json_get(config, "patch_size"), 14),
                              .temporal = tn_json_integer(tn_json_get(config, "temporal_patch_size"), 2),
                              .merge = tn_json_integer(tn_json_get(config, "merge_size"), 2)};
    if (p->patch < 1 || p->patch > MOST || p->merge < 1 || p->merge > MOST || p->temporal < 1 ||
        p->temporal > MOST)
        return tn_fail(TN_BAD_DATA, "%s: patch_size, temporal_patch_size and merge_size need to be positive",
                       name);
    if (p->min_pixels < 1 || p->max_pixels < p->min_pixels || p->max_pixels > TN_PICTURE_MAX_PIXELS)
        return tn_fail(TN_BAD_DATA, "%s: min_pixels %lld and max_pixels %lld bound no picture", name,
                       (long long)p->min_pixels, (long long)p->max_pixels);
    return read_values(config, name, p);
}

/* ---- Size ---------------------------------------------------------------------------------------- */

/* nearbyint rounds halves to even, as Python does. */
tn_status tn_image_grid(const tn_image_processor *p, int64_t width, int64_t height, const char *name,
                        tn_grid *grid) {
    const double factor = (double)(p->patch * p->merge), w = (double)width, h = (double)height;
    if ((w > h ? w / h : h / w) > 200) {
        tn_fail(TN_BAD_DATA, "%s: a picture of %lld × %lld pixels is more than 200 times as long as wide", name,
                (long long)width, (long long)height);
        return tn_remedy("cut it into pieces, or leave its record out");
    }
    double columns = nearbyint(w / factor), rows = nearbyint(h / factor);
    const double area = columns * factor * rows * factor;
    if (area > (double)p->max_pixels) {
        const double shrink = sqrt(h * w / (double)p->max_pixels);
        rows = fmax(1, floor(h / shrink / factor));
        columns = fmax(1, floor(w / shrink / factor));
    } else if (area < (double)p->min_pixels) {
        const double stretch = sqrt((double)p->min_pixels / (h * w));
        rows = ceil(h * stretch / factor);
        columns = ceil(w * stretch / factor);
    }
    if (rows < 1 || columns < 1)
        return tn_fail(TN_BAD_DATA, "%s: a picture of %lld × %lld pixels leaves no patch", name,
                       (long long)width, (long long)height);
    *grid = (tn_grid){1, (int64_t)rows * p->merge, (int64_t)columns * p->merge};
    return TN_OK;
}

/* ---- Rows ---------------------------------------------------------------------------------------- */

static void put_patch(const tn_image_processor *p, const tn_picture *sized, int64_t top, int64_t left,
                      float *row) {
    for (int c = 0; c < 3; c++)
        for (int64_t frame = 0; frame < p->temporal; frame++)
            for (int64_t y = 0; y < p->patch; y++) {
                const unsigned char *from = sized->rgb + ((top + y) * sized->width + left) * 3 + c;
                for (int64_t x = 0; x < p->patch; x++) *row++ = p->value[c][from[3 * x]];
            }
}

tn_status tn_image_patches(const tn_image_processor *p, const tn_picture *picture, tn_grid grid, float *rows) {
    const int64_t values = tn_patch_values(p), patch = p->patch, merge = p->merge;
    tn_picture sized;
    tn_status status = tn_resize_bicubic(picture, grid.w * patch, grid.h * patch, &sized);
    if (status != TN_OK) goto done;
#pragma omp parallel for schedule(static)
    for (int64_t y = 0; y < grid.h; y += merge) {
        float *row = rows + y * grid.w * values;
        for (int64_t x = 0; x < grid.w; x += merge)
            for (int64_t i = 0; i < merge * merge; i++, row += values)
                put_patch(p, &sized, (y + i / merge) * patch, (x + i % merge) * patch, row);
    }
done:
    tn_picture_free(&sized);
    return status;
}
