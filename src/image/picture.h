/* picture.h: picture files as 8-bit RGB, the way Pillow's convert("RGB") gives them: alpha is dropped, grey and
 * palettes become RGB, and the orientation of EXIF is applied. PNG and JPEG, told by their first bytes.
 */
#ifndef TN_IMAGE_PICTURE_H
#define TN_IMAGE_PICTURE_H

#include "base/mem.h"

/* Pixels of the largest picture that is read, Pillow's bound as well: a few bytes of file can ask for any size.
 */
enum { TN_PICTURE_MAX_PIXELS = 178956970 };

typedef struct tn_picture {
    int64_t width, height;
    unsigned char *rgb; /* [height, width, 3] */
} tn_picture;

/* Errors: TN_USAGE (no such file, a kind that is not read), TN_BAD_DATA (damaged, truncated, too large,
 * animated, CMYK, 16-bit grey), all with `path` and a remedy. The picture is freed with tn_picture_free, also
 * after a failure. */
tn_status tn_picture_open(const char *path, tn_picture *picture);
/* The same from memory; `name` stands in messages. */
tn_status tn_picture_decode(const unsigned char *bytes, int64_t length, const char *name, tn_picture *picture);
void tn_picture_free(tn_picture *picture);

#endif
