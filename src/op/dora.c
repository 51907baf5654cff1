/* dora.c: see dora.h. */
#include "op/dora.h"

#include <stddef.h>

#include "base/integer.h"

enum { ALIGNMENT = 256 };

static int64_t aligned(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }
bool tn_has_dora(const tn_linear *linear) {
    for (int p = 0; p < linear->parts; p++)
        if (linear->part[p].lora.dora) return true;
    return false;
}

int64_t tn_dora_bytes(const tn_linear *linear) {
    return tn_has_dora(linear) ? aligned(2 * linear->out * (int64_t)sizeof(float)) : 0;
}

void tn_dora_place(tn_linear *linear, void *memory) {
    linear->norm = tn_has_dora(linear) ? memory : NULL;
    linear->ratio = linear->norm ? linear->norm + linear->out : NULL;
}

/* ---- Scratch -------------------------------------------------------------------------------------- */

/* Elements from row to row: rows begin on 64-byte boundaries. */
static int64_t stride_of(int64_t columns) { return (columns + 31) / 32 * 32; }

static int64_t bytes_of(const tn_device *device, int64_t rows, int64_t columns) {
    return aligned(rows * stride_of(columns) * tn_dtype_block_bytes(device->dtype));
}

/* Rows of a tile; a linear with more columns never has a larger tile. */
static int64_t tile_rows(int64_t rows, int64_t columns) {
    return tn_min(tn_min(rows, TN_DORA_ROWS), tn_max(1, TN_DORA_ELEMENTS / stride_of(columns)));
}

int64_t tn_dora_scratch(const tn_device *device, const tn_limits *l) {
    const int64_t in = tn_max(tn_max(l->hidden, l->intermediate), l->heads * l->head_dim);
    const int64_t rows = tn_min(l->rows, TN_DORA_ROWS), size = tn_dtype_block_bytes(device->dtype);
    if (l->dora == 0) return 0;
    const int64_t most = tn_max(TN_DORA_ELEMENTS, stride_of(l->dora)) * size;
    const int64_t wide = aligned(tn_min(bytes_of(device, rows, l->dora), most));
    return wide + (l->dropout ? wide + bytes_of(device, rows, in) : 0) + ALIGNMENT;
}

/* Cuts a matrix from the end of the scratch; tn_dora_forward and _backward put the size back. */
static tn_status take(tn_device *device, int64_t rows, int64_t columns, tn_view *view) {
    const int64_t bytes = bytes_of(device, rows, columns);
    char *end = (char *)device->scratch + device->scratch_size;
    const int64_t odd = (int64_t)((uintptr_t)end % ALIGNMENT);
    if (bytes + odd > device->scratch_size)
        return tn_fail(TN_FAILED, "DoRA needs %lld bytes of scratch and %lld are left", (long long)bytes,
                       (long long)device->scratch_size);
    device->scratch_size -= bytes + odd;
    *view = (tn_view){end - odd - bytes, stride_of(columns)};
    return TN_OK;
}

/* ---- A tile of rows ------------------------------------------------------------------------------- */

/* One call's work; z, c and `masked` have room for `tile` rows, and x is that of the tile in hand. */
typedef struct work {
    tn_device *device;
    const tn_dora_steps *steps;
    const tn_linear *linear;
    tn_linear plain;    /* the same without DoRA and biases */
    int64_t tile, rows; /* rows of a tile, and of the one in hand */
    tn_view x, z, c, masked /* [rows, in]; with dropout only, like c */;
    tn_dropout dropout;
} work;

/* Part p's weight alone, frozen. */
static tn_linear weight_of(const work *w, int p) {
    const tn_weight *weight = &w->linear->part[p].weight;
    return (tn_linear){.parts = 1,
                       .part = {{.weight = *weight}},
                       .in = w->linear->in,
                       .out = weight->rows,
                       .site = w->linear->site};
}

static tn_status begin(work *w, tn_device *device, const tn_dora_steps *steps, const tn_linear *linear,
                       int64_t rows, const tn_dropout *dropout) {
    const int64_t columns = linear->out + linear->border, tile = tile_rows(rows, columns);
    tn_status status;
    *w = (work){.device = device, .steps = steps, .linear = linear, .plain = *linear, .tile = tile};
    if (dropout) w->dropout = *dropout;
    w->plain.norm = w->plain.ratio = NULL;
    for (int p = 0; p < linear->parts; p++) {
        w->plain.part[p].bias = NULL;
        w->plain.part[p].lora.dora = false;
        w->plain.part[p].lora.magnitude = NULL, w->plain.part[p].lora.dmagnitude = NULL;
    }
    TN_TRY(take(device, tile, columns, &w->z)); /* the gradient that takes its place has a border */
    if (!tn_drops(dropout)) goto done;
    TN_TRY(take(device, tile, linear->out, &w->c));
    status = take(device, tile, linear->in, &w->masked);
done:
    return status;
}

/* z, and c where something is dropped. */
static tn_status products(work *w) {
    const tn_backend *backend = w->device->backend;
    const tn_view none = {NULL, 0};
    int64_t output = 0;
    tn_status status;
    TN_TRY(backend->linear_forward(w->device, &w->plain, w->rows, w->x, w->z, none, 1.0f, &w->dropout));
    for (int p = 0; w->c.data && p < w->linear->parts; p++) {
        const tn_linear weight = weight_of(w, p);
        TN_TRY(w->steps->mask(w->device, w->linear, p, &w->dropout, w->rows, w->x, w->masked, false));
        TN_TRY(backend->linear_forward(w->device, &weight, w->rows, w->masked,
                                       tn_view_at(w->device, w->c, 0, output), none, 1.0f, NULL));
        output += weight.out;
    }
done:
    return status;
}

/* Tile after tile: rows first … first+count-1 of the call. */
static void set_tile(work *w, int64_t rows, int64_t first, tn_view x, const tn_dropout *dropout) {
    w->rows = tn_min(w->tile, rows - first);
    w->x = tn_view_at(w->device, x, first, 0);
    w->dropout.first_row = (dropout ? dropout->first_row : 0) + first;
}

tn_status tn_dora_forward(tn_device *device, const tn_dora_steps *steps, const tn_linear *linear, int64_t rows,
                          tn_view x, tn_view y, tn_view residual, float alpha, const tn_dropout *dropout) {
    const int64_t size = device->scratch_size;
    work w;
    tn_status status;
    TN_TRY(begin(&w, device, steps, linear, rows, dropout));
    for (int64_t first = 0; first < rows; first += w.tile) {
        set_tile(&w, rows, first, x, dropout);
        TN_TRY(products(&w));
        TN_TRY(steps->finish(device, linear, w.rows, w.z, w.c, tn_view_at(device, y, first, 0),
                             tn_view_at(device, residual, first, 0), alpha));
    }
done:
    device->scratch_size = size;
    return status;
}

/* The gradients of the magnitudes; then z is g·dy, and c is (g−1)·dy. */
static tn_status turn_parts(work *w, tn_view dy, float alpha) {
    int64_t output = 0;
    tn_status status = TN_OK;
    for (int p = 0; p < w->linear->parts; p++) {
        const tn_part *part = &w->linear->part[p];
        TN_TRY(w->steps->turn(w->device, w->rows, part->weight.rows, tn_view_at(w->device, dy, 0, output),
                              tn_view_at(w->device, w->z, 0, output), tn_view_at(w->device, w->c, 0, output),
                              w->linear->norm + output, w->linear->ratio + output, alpha,
                              part->lora.dmagnitude));
        output += part->weight.rows;
    }
done:
    return status;
}

/* dx += alpha·(drop − 1)(c·W), part by part, c as turn_parts left it. */
static tn_status dropped_gradient(work *w, tn_view dx, float alpha) {
    const tn_backend *backend = w->device->backend;
    int64_t output = 0;
    tn_status status = TN_OK;
    for (int p = 0; p < w->linear->parts; p++) {
        const tn_linear weight = weight_of(w, p);
        TN_TRY(backend->linear_backward(w->device, &weight, w->rows, w->x,
                                        tn_view_at(w->device, w->c, 0, output), w->masked, false, alpha, NULL));
        TN_TRY(w->steps->mask(w->device, w->linear, p, &w->dropout, w->rows, w->masked, dx, true));
        output += weight.out;
    }
done:
    return status;
}

tn_status tn_dora_backward(tn_device *device, const tn_dora_steps *steps, const tn_linear *linear, int64_t rows,
                           tn_view x, tn_view dy, tn_view dx, bool accumulate, float alpha,
                           const tn_dropout *dropout) {
    const int64_t size = device->scratch_size;
    work w;
    tn_status status;
    TN_TRY(begin(&w, device, steps, linear, rows, dropout));
    for (int64_t first = 0; first < rows; first += w.tile) {
        const tn_view dx_here = tn_view_at(device, dx, first, 0);
        set_tile(&w, rows, first, x, dropout);
        TN_TRY(products(&w));
        TN_TRY(turn_parts(&w, tn_view_at(device, dy, first, 0), alpha));
        TN_TRY(device->backend->linear_backward(device, &w.plain, w.rows, w.x, w.z, dx_here, accumulate, alpha,
                                                &w.dropout));
        if (w.c.data && dx.data) TN_TRY(dropped_gradient(&w, dx_here, alpha));
    }
done:
    device->scratch_size = size;
    return status;
}
