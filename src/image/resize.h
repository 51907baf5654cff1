/* resize.h: bicubic resampling of RGB bytes, bit for bit Pillow's.
 */
#ifndef TN_IMAGE_RESIZE_H
#define TN_IMAGE_RESIZE_H

#include "image/picture.h"

/* `out` is the whole of `in` at another size; freed with tn_picture_free. */
tn_status tn_resize_bicubic(const tn_picture *in, int64_t width, int64_t height, tn_picture *out);

#endif
