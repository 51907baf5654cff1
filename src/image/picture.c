/* picture.c: which reader a picture is for, and what all kinds have in common: the bound on its size and the
 * turning by EXIF's orientation. */
#include "image/picture.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "image/codecs.h"

tn_status tn_picture_allocate(tn_picture *picture, int64_t width, int64_t height, const char *name) {
    if (width < 1 || height < 1 || width > TN_PICTURE_MAX_PIXELS / height) {
        tn_fail(TN_BAD_DATA, "%s: a picture of %lld × %lld pixels is not read, the most is %d pixels", name,
                (long long)width, (long long)height, TN_PICTURE_MAX_PIXELS);
        return tn_remedy(
            "make the picture smaller: the model sees no more than max_pixels of preprocessor_config.json");
    }
    picture->width = width;
    picture->height = height;
    return tn_alloc(&picture->rgb, width * height, 3, "a picture");
}

void tn_picture_free(tn_picture *picture) {
    free(picture->rgb);
    *picture = (tn_picture){0};
}

/* ---- Orientation --------------------------------------------------------------------------------- */

/* EXIF names where row 0 and column 0 of the file belong. From 5 on rows are columns; the two flips are of the
 * file's own rows and columns. */
static tn_status turn(tn_picture *picture, int orientation, const char *name) {
    const bool swapped = orientation >= 5,
               flip_rows = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const bool flip_columns = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const int64_t w = picture->width, h = picture->height;
    tn_picture upright = {0};
    if (orientation == 1) return TN_OK;
    tn_status status = tn_picture_allocate(&upright, swapped ? h : w, swapped ? w : h, name);
    if (status != TN_OK) return status;
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++) {
            const int64_t row = flip_rows ? h - 1 - y : y, column = flip_columns ? w - 1 - x : x;
            const int64_t to = swapped ? column * h + row : row * w + column;
            memcpy(upright.rgb + 3 * to, picture->rgb + 3 * (y * w + x), 3);
        }
    tn_picture_free(picture);
    *picture = upright;
    return TN_OK;
}

/* ---- Kinds --------------------------------------------------------------------------------------- */

static const struct {
    const char *name, *magic;
    int64_t at, length;
    tn_status (*decode)(const unsigned char *bytes, int64_t length, const char *name, tn_picture *picture,
                        int *orientation);
} kinds[] = {
    {"PNG", "\x89PNG\r\n\x1a\n", 0, 8, tn_png_decode},
    {"JPEG", "\xff\xd8\xff", 0, 3, tn_jpeg_decode},
    /* Known, to be named when they are refused. */
    {"WebP", "WEBP", 8, 4, NULL},
    {"GIF", "GIF8", 0, 4, NULL},
    {"BMP", "BM", 0, 2, NULL},
    {"TIFF", "II*\0", 0, 4, NULL},
    {"TIFF", "MM\0*", 0, 4, NULL},
    {"AVIF or HEIC", "ftyp", 4, 4, NULL},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static tn_status fail_kind(const char *name, int kind) {
    if (kind == KINDS)
        tn_fail(TN_USAGE, "%s is no picture: it begins neither as a PNG nor as a JPEG file", name);
    else tn_fail(TN_USAGE, "%s is a %s file: PNG and JPEG are read", name, kinds[kind].name);
    return tn_remedy("convert it to PNG, for example with: convert %s picture.png", name);
}

tn_status tn_picture_decode(const unsigned char *bytes, int64_t length, const char *name, tn_picture *picture) {
    int kind = 0, orientation = 1;
    *picture = (tn_picture){0};
    while (kind < KINDS && (length < kinds[kind].at + kinds[kind].length ||
                            memcmp(bytes + kinds[kind].at, kinds[kind].magic, (size_t)kinds[kind].length) != 0))
        kind++;
    if (kind == KINDS || !kinds[kind].decode) return fail_kind(name, kind);
    tn_status status = kinds[kind].decode(bytes, length, name, picture, &orientation);
    return status == TN_OK ? turn(picture, orientation, name) : status;
}

tn_status tn_picture_open(const char *path, tn_picture *picture) {
    tn_map map;
    *picture = (tn_picture){0};
    tn_status status = tn_map_open(path, &map);
    if (status != TN_OK) return status;
    status = tn_picture_decode(map.data, map.bytes, path, picture);
    tn_map_close(&map);
    return status;
}
