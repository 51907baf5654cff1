/* vision_layout.c: the order of windows and the tower's two-dimensional rope (transformers:
 * get_vision_window_index and Qwen2_5_VLVisionRotaryEmbedding). */
#include "model/vision_layout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Windows row by row, merged patches row by row inside each; those at the right and bottom edge are smaller. */
static void set_windows(const tn_vision_arch *a, int64_t rows, int64_t columns, tn_vision_layout *l) {
    const int64_t side = a->window, unit = a->merge * a->merge;
    int64_t at = 0;
    l->windows = 0;
    for (int64_t top = 0; top < rows; top += side)
        for (int64_t left = 0; left < columns; left += side) {
            const int64_t start = at;
            for (int64_t y = top; y < rows && y < top + side; y++)
                for (int64_t x = left; x < columns && x < left + side; x++)
                    l->order[at++] = (int32_t)(y * columns + x);
            l->cu_windows[++l->windows] = (int32_t)(at * unit);
            if ((at - start) * unit > l->longest) l->longest = (at - start) * unit;
        }
}

/* cos and sin of every place along one axis, [places, quarter], behind one another. Angles in fp32, as there.
 */
static void fill_tables(int64_t places, int64_t quarter, float *tables) {
    for (int64_t i = 0; i < quarter; i++) {
        const float inverse = 1 / powf(10000, (float)(2 * i) / (float)(2 * quarter));
        for (int64_t place = 0; place < places; place++) {
            const float angle = (float)place * inverse;
            tables[place * quarter + i] = cosf(angle);
            tables[(places + place) * quarter + i] = sinf(angle);
        }
    }
}

/* A patch turns by its row in the first half of the pairs and by its column in the second. */
static tn_status set_rope(const tn_vision_arch *a, int64_t rows, int64_t columns, tn_vision_layout *l) {
    const int64_t quarter = a->hidden / a->heads / 4, unit = a->merge * a->merge,
                  places = (rows > columns ? rows : columns) * a->merge;
    const size_t bytes = (size_t)quarter * sizeof(float);
    float *tables;
    tn_status status = tn_alloc(&tables, 2 * places * quarter, (int64_t)sizeof *tables, "a picture's rope");
    if (status != TN_OK) return status;
    fill_tables(places, quarter, tables);
    for (int64_t row = 0; row < l->patches; row++) {
        const int64_t merged = l->order[row / unit], inside = row % unit;
        const int64_t place[2] = {merged / columns * a->merge + inside / a->merge,
                                  merged % columns * a->merge + inside % a->merge};
        for (int axis = 0; axis < 2; axis++) {
            const int64_t at = (2 * row + axis) * quarter;
            memcpy(l->cos + at, tables + place[axis] * quarter, bytes);
            memcpy(l->sin + at, tables + (places + place[axis]) * quarter, bytes);
        }
    }
    free(tables);
    return TN_OK;
}

tn_status tn_vision_layout_new(const tn_vision_arch *a, int64_t rows, int64_t columns, tn_vision_layout *l) {
    const int64_t merged = rows * columns, half = a->hidden / a->heads / 2;
    tn_status status;
    *l = (tn_vision_layout){.patches = merged * a->merge * a->merge};
    TN_TRY(tn_alloc(&l->order, merged, (int64_t)sizeof *l->order, "a picture's windows"));
    TN_TRY(tn_alloc(&l->cu_windows, merged + 1, (int64_t)sizeof *l->cu_windows, "a picture's windows"));
    TN_TRY(tn_alloc(&l->cos, l->patches * half, (int64_t)sizeof *l->cos, "a picture's rope"));
    TN_TRY(tn_alloc(&l->sin, l->patches * half, (int64_t)sizeof *l->sin, "a picture's rope"));
    set_windows(a, rows, columns, l);
    status = set_rope(a, rows, columns, l);
done:
    if (status != TN_OK) tn_vision_layout_free(l);
    return status;
}

void tn_vision_layout_free(tn_vision_layout *l) {
    free(l->order);
    free(l->cu_windows);
    free(l->cos);
    free(l->sin);
    *l = (tn_vision_layout){0};
}
