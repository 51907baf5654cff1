/* jpeg.c: the one file that knows libjpeg. Its settings are the library's own (accurate integer DCT, smooth
 * chroma), as Pillow's are, so that with the same library the pixels are the same.
 */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
/* jpeglib.h wants stdio.h before it. */
#include <jerror.h>
#include <jpeglib.h>

#include "base/log.h"
#include "image/codecs.h"

/* Scans of a progressive file: more than any encoder writes, and each costs a pass over all coefficients. */
enum { MAX_SCANS = 200 };

/* Everything that must survive a longjmp out of libjpeg is in here, behind a pointer. */
typedef struct decoder {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    tn_picture *picture;
    const char *name;
    bool truncated, warned, open;
    char reason[JMSG_LENGTH_MAX];
} decoder;

static void on_error(j_common_ptr common) {
    decoder *d = common->client_data;
    common->err->format_message(common, d->reason);
    longjmp(d->failed, 1);
}

/* Level −1 is a fault after which the library goes on. Behind the end of the file it would go on with grey. */
static void on_message(j_common_ptr common, int level) {
    decoder *d = common->client_data;
    if (level >= 0) return;
    if (common->err->msg_code == JWRN_JPEG_EOF) {
        d->truncated = true;
        snprintf(d->reason, sizeof d->reason, "the file ends too early");
        longjmp(d->failed, 1);
    }
    if (!d->warned) {
        common->err->format_message(common, d->reason);
        tn_warn("%s: a fault in the JPEG file, some pixels may be wrong (libjpeg: %s)", d->name, d->reason);
    }
    d->warned = true;
}

static void on_progress(j_common_ptr common) {
    decoder *d = common->client_data;
    if (d->jpeg.input_scan_number <= MAX_SCANS) return;
    snprintf(d->reason, sizeof d->reason, "more than %d scans", MAX_SCANS);
    longjmp(d->failed, 1);
}

static tn_status fail_damaged(const decoder *d, const char *name) {
    tn_fail(TN_BAD_DATA, "%s: a damaged JPEG file (libjpeg: %s)", name, d->reason);
    return tn_remedy("copy the file anew, or leave its record out");
}

static tn_status check_kind(const decoder *d, const char *name) {
    const J_COLOR_SPACE space = d->jpeg.jpeg_color_space;
    if (space != JCS_CMYK && space != JCS_YCCK) return TN_OK;
    tn_fail(TN_BAD_DATA, "%s: a JPEG file in CMYK, whose colours depend on a printer's profile", name);
    return tn_remedy("save it as RGB: convert %s -colorspace sRGB picture.png", name);
}

/* False where libjpeg found a fault: `reason` says which. */
static bool read_header(decoder *d, const unsigned char *bytes, int64_t length) {
    if (setjmp(d->failed)) return false;
    jpeg_create_decompress(&d->jpeg);
    d->open = true;
    d->jpeg.progress = &d->progress;
    jpeg_mem_src(&d->jpeg, bytes, (unsigned long)length);
    jpeg_save_markers(&d->jpeg, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&d->jpeg, TRUE);
    return true;
}

static bool read_pixels(decoder *d) {
    if (setjmp(d->failed)) return false;
    d->jpeg.out_color_space = JCS_RGB;
    jpeg_start_decompress(&d->jpeg);
    while (d->jpeg.output_scanline < d->jpeg.output_height) {
        JSAMPROW row = d->picture->rgb + (size_t)d->jpeg.output_scanline * (size_t)d->picture->width * 3;
        jpeg_read_scanlines(&d->jpeg, &row, 1);
    }
    jpeg_finish_decompress(&d->jpeg);
    return true;
}

static int orientation_of(const struct jpeg_decompress_struct *jpeg) {
    for (const struct jpeg_marker_struct *m = jpeg->marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length > 6 && memcmp(m->data, "Exif\0", 6) == 0)
            return tn_exif_orientation(m->data + 6, (int64_t)m->data_length - 6);
    return 1;
}

tn_status tn_jpeg_decode(const unsigned char *bytes, int64_t length, const char *name, tn_picture *picture,
                         int *orientation) {
    decoder d = {.picture = picture, .name = name, .progress = {.progress_monitor = on_progress}};
    tn_status status = TN_OK;
    d.jpeg.err = jpeg_std_error(&d.errors);
    d.jpeg.client_data = &d;
    d.errors.error_exit = on_error;
    d.errors.emit_message = on_message;
    if (!read_header(&d, bytes, length)) {
        status = fail_damaged(&d, name);
        goto done;
    }
    TN_TRY(check_kind(&d, name));
    TN_TRY(tn_picture_allocate(picture, d.jpeg.image_width, d.jpeg.image_height, name));
    *orientation = orientation_of(&d.jpeg); /* decompression may free the markers */
    if (!read_pixels(&d)) status = fail_damaged(&d, name);
done:
    if (d.open) jpeg_destroy_decompress(&d.jpeg);
    return status;
}
