/* png.c: the one file that knows libpng. Gamma and colour profiles are not applied, 16-bit colour keeps its
 * upper bytes, and transparency is dropped, all as in Pillow.
 */
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "image/codecs.h"

/* Everything that must survive a longjmp out of libpng is in here, behind a pointer. */
typedef struct decoder {
    const unsigned char *bytes;
    int64_t left;
    png_structp png;
    png_infop info;
    tn_picture *picture;
    bool animated;
    char reason[160];
} decoder;

static void on_error(png_structp png, png_const_charp message) {
    decoder *d = png_get_error_ptr(png);
    snprintf(d->reason, sizeof d->reason, "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png, (void)message; /* of ancillary chunks, none of which is used */
}

static void read_bytes(png_structp png, png_bytep to, size_t count) {
    decoder *d = png_get_io_ptr(png);
    if ((int64_t)count > d->left) png_error(png, "the file ends too early");
    memcpy(to, d->bytes, count);
    d->bytes += count;
    d->left -= (int64_t)count;
}

/* acTL makes a PNG an animation (APNG). */
static int on_chunk(png_structp png, png_unknown_chunkp chunk) {
    decoder *d = png_get_user_chunk_ptr(png);
    d->animated = d->animated || memcmp(chunk->name, "acTL", 4) == 0;
    return 1;
}

static tn_status fail_damaged(const decoder *d, const char *name) {
    tn_fail(TN_BAD_DATA, "%s: a damaged PNG file (libpng: %s)", name, d->reason);
    return tn_remedy("copy the file anew, or leave its record out");
}

static tn_status check_kind(const decoder *d, const char *name) {
    if (d->animated) {
        tn_fail(TN_BAD_DATA, "%s: an animated PNG file, of which no single picture is meant", name);
        return tn_remedy("save the frame that is meant as a PNG file of its own");
    }
    if (png_get_bit_depth(d->png, d->info) == 16 &&
        !(png_get_color_type(d->png, d->info) & PNG_COLOR_MASK_COLOR)) {
        tn_fail(TN_BAD_DATA, "%s: 16-bit grey, whose range has no agreed meaning as a picture", name);
        return tn_remedy("save it with 8 bits: convert %s -depth 8 picture.png", name);
    }
    return TN_OK;
}

/* False where libpng found a fault: `reason` says which. */
static bool read_header(decoder *d) {
    if (setjmp(png_jmpbuf(d->png))) return false;
    png_set_user_limits(d->png, 0x7fffffff, 0x7fffffff); /* tn_picture_allocate says it with name and remedy */
    png_set_read_fn(d->png, d, read_bytes);
    png_set_read_user_chunk_fn(d->png, d, on_chunk);
    png_read_info(d->png, d->info);
    return true;
}

static bool read_pixels(decoder *d) {
    if (setjmp(png_jmpbuf(d->png))) return false;
    const int passes = png_set_interlace_handling(d->png);
    const size_t stride = (size_t)d->picture->width * 3;
    png_set_expand(d->png);
    png_set_strip_16(d->png);
    png_set_strip_alpha(d->png);
    png_set_gray_to_rgb(d->png);
    png_read_update_info(d->png, d->info);
    if (png_get_rowbytes(d->png, d->info) != stride) png_error(d->png, "rows of another length");
    for (int pass = 0; pass < passes; pass++)
        for (int64_t y = 0; y < d->picture->height; y++)
            png_read_row(d->png, d->picture->rgb + (size_t)y * stride, NULL);
    png_read_end(d->png, d->info); /* EXIF data may stand behind the pixels */
    return true;
}

tn_status tn_png_decode(const unsigned char *bytes, int64_t length, const char *name, tn_picture *picture,
                        int *orientation) {
    decoder d = {.bytes = bytes, .left = length, .picture = picture};
    tn_status status = TN_OK;
    png_bytep exif = NULL;
    png_uint_32 exif_length = 0;
    d.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &d, on_error, on_warning);
    d.info = d.png ? png_create_info_struct(d.png) : NULL;
    if (!d.info) {
        status = tn_fail_memory(length, "a PNG decoder");
        goto done;
    }
    if (!read_header(&d)) {
        status = fail_damaged(&d, name);
        goto done;
    }
    TN_TRY(check_kind(&d, name));
    TN_TRY(tn_picture_allocate(picture, png_get_image_width(d.png, d.info), png_get_image_height(d.png, d.info),
                               name));
    if (!read_pixels(&d)) {
        status = fail_damaged(&d, name);
        goto done;
    }
    if (png_get_eXIf_1(d.png, d.info, &exif_length, &exif))
        *orientation = tn_exif_orientation(exif, exif_length);
done:
    png_destroy_read_struct(&d.png, &d.info, NULL);
    return status;
}
