/* resize.c: resampling as Pillow does it (Resample.c): Keys' cubic with a = −½, stretched over the source when
 * the picture shrinks, weights in fixed point, first along rows and then, from bytes again, along columns. The
 * rounding between the two passes is part of the result.
 */
#include "image/resize.h"

#include <math.h>
#include <stdlib.h>

#include "image/codecs.h"

enum { FRACTION_BITS = 22 }; /* of a weight */

/* For each pixel of the output the run of input pixels it is made of. */
typedef struct weights {
    int64_t most; /* room for each */
    int64_t *first, *count;
    int32_t *fixed; /* [size, most] */
} weights;

static double cubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static void weigh_one(const weights *w, double *share, int64_t i, int64_t from, double scale, double stretch) {
    const double support = 2 * stretch, centre = ((double)i + 0.5) * scale;
    int64_t first = (int64_t)(centre - support + 0.5), end = (int64_t)(centre + support + 0.5);
    double sum = 0;
    if (first < 0) first = 0;
    if (end > from) end = from;
    for (int64_t j = first; j < end; j++) {
        share[j - first] = cubic(((double)j - centre + 0.5) * (1 / stretch));
        sum += share[j - first];
    }
    for (int64_t j = 0; j < end - first; j++) {
        const double fixed = (sum != 0 ? share[j] / sum : share[j]) * (1 << FRACTION_BITS);
        w->fixed[i * w->most + j] = (int32_t)(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    }
    w->first[i] = first;
    w->count[i] = end - first;
}

static tn_status weigh(weights *w, int64_t from, int64_t to) {
    const double scale = (double)from / (double)to, stretch = scale < 1 ? 1 : scale;
    double *share = NULL;
    tn_status status;
    w->most = (int64_t)ceil(2 * stretch) * 2 + 1;
    TN_TRY(tn_alloc(&share, w->most, (int64_t)sizeof *share, "resampling weights"));
    TN_TRY(tn_alloc(&w->first, to, (int64_t)sizeof *w->first, "resampling weights"));
    TN_TRY(tn_alloc(&w->count, to, (int64_t)sizeof *w->count, "resampling weights"));
    TN_TRY(tn_alloc(&w->fixed, to * w->most, (int64_t)sizeof *w->fixed, "resampling weights"));
    for (int64_t i = 0; i < to; i++) weigh_one(w, share, i, from, scale, stretch);
done:
    free(share);
    return status;
}

static void free_weights(weights *w) {
    free(w->first);
    free(w->count);
    free(w->fixed);
    *w = (weights){0};
}

/* One value of one channel: neighbours lie `step` bytes apart. */
static unsigned char blend(const int32_t *fixed, int64_t count, const unsigned char *from, int64_t step) {
    int32_t sum = 1 << (FRACTION_BITS - 1);
    for (int64_t j = 0; j < count; j++) sum += fixed[j] * from[j * step];
    const int32_t value = sum < 0 ? -1 : sum >> FRACTION_BITS;
    return (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static tn_status along_rows(const tn_picture *in, int64_t width, tn_picture *out) {
    weights w = {0};
    tn_status status;
    TN_TRY(weigh(&w, in->width, width));
    TN_TRY(tn_picture_allocate(out, width, in->height, "a resized picture"));
    for (int64_t y = 0; y < in->height; y++)
        for (int64_t x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                out->rgb[(y * width + x) * 3 + c] =
                    blend(w.fixed + x * w.most, w.count[x], in->rgb + (y * in->width + w.first[x]) * 3 + c, 3);
done:
    free_weights(&w);
    return status;
}

static tn_status along_columns(const tn_picture *in, int64_t height, tn_picture *out) {
    const int64_t stride = in->width * 3;
    weights w = {0};
    tn_status status;
    TN_TRY(weigh(&w, in->height, height));
    TN_TRY(tn_picture_allocate(out, in->width, height, "a resized picture"));
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < stride; x++)
            out->rgb[y * stride + x] =
                blend(w.fixed + y * w.most, w.count[y], in->rgb + w.first[y] * stride + x, stride);
done:
    free_weights(&w);
    return status;
}

/* A pass at the size that is there already leaves every byte as it is: its weights are 1 and 0. */
tn_status tn_resize_bicubic(const tn_picture *in, int64_t width, int64_t height, tn_picture *out) {
    tn_picture wide = {0};
    *out = (tn_picture){0};
    tn_status status = along_rows(in, width, &wide);
    if (status == TN_OK) status = along_columns(&wide, height, out);
    tn_picture_free(&wide);
    return status;
}
