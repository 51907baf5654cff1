/* codecs.h: what the readers of picture files share inside this folder.
 */
#ifndef TN_IMAGE_CODECS_H
#define TN_IMAGE_CODECS_H

#include "image/picture.h"

/* Reads a whole file; `orientation` is EXIF's 1 to 8 and not applied yet. `rgb` may be set after a failure. */
tn_status tn_png_decode(const unsigned char *bytes, int64_t length, const char *name, tn_picture *picture,
                        int *orientation);
tn_status tn_jpeg_decode(const unsigned char *bytes, int64_t length, const char *name, tn_picture *picture,
                         int *orientation);

/* Checks the size and takes memory for the pixels. */
tn_status tn_picture_allocate(tn_picture *picture, int64_t width, int64_t height, const char *name);

/* The orientation that a block of EXIF data (a TIFF file) names; 1, upright, where it names none that exists.
 */
int tn_exif_orientation(const unsigned char *tiff, int64_t length);

#endif
