/* load.c: from mapped tensors to device memory.
 *
 * Values travel through a ring of pinned buffers: threads copy rows out of the mapping (converted to the
 * compute dtype and put in order on the way), and a second stream moves one buffer to the device while the next
 * is filled. Layout of a linear's region, where S = in + border rounded up to 16 elements:
 *
 *   all parts plain   [out + border, S]: W top left, block-diagonal scale·B top right, A bottom left
 *   otherwise         the parts as they are (none for shared ones; scales apart behind their codes), then
 *                     B [out, border] and A [border, in]
 *
 * Behind either lie DoRA's norms and ratios, where the linear has DoRA.
 *
 * `fused` is the region in the first case, else the address of the copy of B (NULL without LoRA).
 */
#include "op/cuda/load.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "op/cuda/dora.h"
#include "op/source.h"
#include "quant/quant.h"

enum { BUFFERS = 4, BUFFER_BYTES = 32 << 20, CHUNK = 256, DIRECT_BYTES = 4 << 20 };

typedef struct tn_cuda_ring {
    char *memory; /* pinned, BUFFERS · BUFFER_BYTES */
    cudaEvent_t moved[BUFFERS];
    int next;
} tn_cuda_ring;

/* ---- The ring ---------------------------------------------------------------------------------------- */

static tn_status open_ring(tn_cuda_device *cuda) {
    tn_status status = TN_OK;
    if (cuda->ring) return TN_OK;
    cudaSetDevice(cuda->base.index);
    TN_TRY(tn_alloc(&cuda->ring, 1, sizeof *cuda->ring, "transfer buffers"));
    TN_TRY(tn_cuda_check(
        cudaHostAlloc((void **)&cuda->ring->memory, (size_t)BUFFERS * BUFFER_BYTES, cudaHostAllocDefault),
        "pinning transfer buffers"));
    for (int i = 0; i < BUFFERS; i++)
        TN_TRY(tn_cuda_check(cudaEventCreateWithFlags(&cuda->ring->moved[i], cudaEventDisableTiming),
                             "creating an event"));
done:
    return status;
}

void tn_cuda_ring_close(tn_cuda_device *cuda) {
    if (!cuda->ring) return;
    cudaStreamSynchronize(cuda->copies);
    for (int i = 0; i < BUFFERS; i++)
        if (cuda->ring->moved[i]) cudaEventDestroy(cuda->ring->moved[i]);
    if (cuda->ring->memory) cudaFreeHost(cuda->ring->memory);
    free(cuda->ring);
    cuda->ring = NULL;
}

/* The next buffer, once its last journey is over. */
static tn_status take_buffer(tn_cuda_ring *ring, char **buffer) {
    *buffer = ring->memory + (int64_t)ring->next * BUFFER_BYTES;
    return tn_cuda_check(cudaEventSynchronize(ring->moved[ring->next]), "copying to the GPU");
}

/* Sends `rows` rows of `bytes` each, `pitch` bytes apart on the device. */
static tn_status send_buffer(tn_cuda_device *cuda, void *to, int64_t pitch, int64_t bytes, int64_t rows) {
    tn_cuda_ring *ring = cuda->ring;
    const char *from = ring->memory + (int64_t)ring->next * BUFFER_BYTES;
    cudaError_t error = cudaMemcpy2DAsync(to, (size_t)pitch, from, (size_t)bytes, (size_t)bytes, (size_t)rows,
                                          cudaMemcpyHostToDevice, cuda->copies);
    if (error == cudaSuccess) error = cudaEventRecord(ring->moved[ring->next], cuda->copies);
    ring->next = (ring->next + 1) % BUFFERS;
    return tn_cuda_check(error, "copying to the GPU");
}

tn_status tn_cuda_upload(tn_device *device, void *to, const void *from, int64_t bytes) {
    tn_cuda_device *cuda = tn_cuda(device);
    tn_status status;
    if (bytes == 0) return TN_OK;
    if (bytes < DIRECT_BYTES || !cuda->ring)
        return tn_cuda_check(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyHostToDevice, cuda->stream),
                             "copying to the GPU");
    TN_TRY(tn_cuda_order(cuda->stream, cuda->copies));
    for (int64_t first = 0; first < bytes; first += BUFFER_BYTES) {
        int64_t count = bytes - first < BUFFER_BYTES ? bytes - first : BUFFER_BYTES;
        char *buffer;
        TN_TRY(take_buffer(cuda->ring, &buffer));
#pragma omp parallel for schedule(static)
        for (int64_t piece = 0; piece < count; piece += 1 << 20)
            memcpy(buffer + piece, (const char *)from + first + piece,
                   (size_t)(count - piece < 1 << 20 ? count - piece : 1 << 20));
        TN_TRY(send_buffer(cuda, (char *)to + first, count, count, 1));
    }
    TN_TRY(tn_cuda_order(cuda->copies, cuda->stream));
done:
    return status;
}

tn_status tn_cuda_load_finish(tn_device *device) {
    tn_cuda_device *cuda = tn_cuda(device);
    tn_status status = tn_cuda_check(cudaStreamSynchronize(cuda->copies), "copying to the GPU");
    if (status == TN_OK) status = tn_cuda_check(cudaStreamSynchronize(cuda->stream), "loading");
    tn_cuda_ring_close(cuda);
    return status;
}

/* ---- One matrix -------------------------------------------------------------------------------------- */

/* One row of the source in its held form. */
static void fetch_row(const tn_source *source, int64_t row, int64_t cols, tn_dtype held, int64_t bytes,
                      char *out) {
    const tn_tensor_info *tensor = source->tensor;
    int64_t from = tn_source_row(source, row);
    if (tensor->dtype == held) {
        memcpy(out, (const char *)tensor->data + from * bytes, (size_t)bytes);
        return;
    }
    for (int64_t first = 0; first < cols; first += CHUNK) {
        float values[CHUNK];
        int64_t count = cols - first < CHUNK ? cols - first : CHUNK;
        tn_source_values(source, row, cols, first, count, values);
        tn_quantize(held, values, count, out + first * tn_cuda_size(held));
    }
}

/* Random numbers are made on the device, many times faster, into the pinned buffers, which it can write;
 * *values become the caller's to free. */
static tn_status random_values(tn_cuda_device *cuda, const tn_source *source, int64_t count, float **values) {
    enum { PIECE = BUFFER_BYTES / (int)sizeof(float), SHARE = 1 << 18 };
    tn_status status;
    TN_TRY(tn_alloc_aligned(values, count * (int64_t)sizeof **values, "random weights"));
    for (int64_t first = 0; first < count; first += PIECE) {
        int64_t some = count - first < PIECE ? count - first : PIECE;
        char *buffer;
        TN_TRY(take_buffer(cuda->ring, &buffer));
        TN_TRY(tn_cuda_random_values(&cuda->base, source, first, some, (float *)(void *)buffer));
        TN_TRY(tn_cuda_check(cudaStreamSynchronize(cuda->stream), "making random weights"));
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < some; i += SHARE)
            memcpy(*values + first + i, buffer + i * (int64_t)sizeof(float),
                   (size_t)(some - i < SHARE ? some - i : SHARE) * sizeof(float));
    }
done:
    return status;
}

/* The layout's image of a matrix that is quantised, on the host. */
static tn_status encode(tn_cuda_device *cuda, const tn_source *source, int64_t rows, int64_t cols,
                        const tn_scaled_layout *l, void *image, float *offset) {
    tn_source given = *source;
    tn_tensor_info made = {
        .name = "(random)", .file = "", .rank = 2, .shape = {rows, cols}, .elements = rows * cols};
    float *values = NULL;
    tn_status status;
    if (!source->tensor) {
        TN_TRY(random_values(cuda, source, rows * cols, &values));
        made.data = values, made.bytes = rows * cols * (int64_t)sizeof(float);
        given.tensor = &made;
    }
    status = tn_source_encode(&given, rows, cols, l, image, offset);
done:
    free(values);
    return status;
}

/* A matrix with scales apart, at `to` by its layout: from the mapping, or quantised on the host first. */
static tn_status load_scaled(tn_cuda_device *cuda, const tn_source *source, bool trained, void *to,
                             tn_weight *weight) {
    tn_device *device = &cuda->base;
    tn_scaled_layout l;
    char *image = NULL, *place = to;
    float offset;
    tn_status status;
    TN_TRY(tn_source_check(source, weight->rows, weight->cols));
    if (!tn_source_layout(source, weight->rows, weight->cols, &l))
        TN_THROW(TN_FAILED, "a weight of %lld x %lld is too large", (long long)weight->rows,
                 (long long)weight->cols);
    TN_TRY(open_ring(cuda));
    if (tn_source_is_encoded(source, trained)) {
        TN_TRY(tn_alloc_aligned(&image, l.bytes, "a quantised weight"));
        TN_TRY(encode(cuda, source, weight->rows, weight->cols, &l, image, &offset));
        TN_TRY(tn_cuda_upload(device, place, image, l.bytes));
    } else {
        const tn_scales *own = source->tensor->scales;
        bool nested = !own->absmax;
        offset = own->offset;
        TN_TRY(tn_cuda_upload(device, place, source->tensor->data, source->tensor->bytes));
        TN_TRY(tn_cuda_upload(device, place + l.absmax, nested ? (const void *)own->codes : own->absmax,
                              nested ? l.blocks : 4 * l.blocks));
        if (nested) {
            TN_TRY(tn_cuda_upload(device, place + l.nested, own->nested, 4 * l.nested_blocks));
            TN_TRY(tn_cuda_upload(device, place + l.map, own->map, 256 * 4));
        }
    }
    weight->scales = tn_scaled_at(&l, place, offset);
done:
    free(image);
    return status;
}

/* Puts the matrix at `to`, rows `stride` elements apart (block types: one behind another). */
static tn_status load_matrix(tn_cuda_device *cuda, int64_t rows, int64_t cols, const tn_source *source,
                             bool trained, void *to, int64_t stride, tn_weight *weight) {
    tn_dtype held = tn_source_held(source, cuda->base.dtype, trained);
    int64_t bytes, count, pitch;
    tn_status status;
    *weight = (tn_weight){.data = to, .dtype = held, .rows = rows, .cols = cols, .stride = stride};
    if (tn_dtype_has_scales(held)) return load_scaled(cuda, source, trained, to, weight);
    TN_TRY(tn_source_check(source, rows, cols));
    if (!source->tensor) return tn_cuda_random_rows(&cuda->base, source, rows, cols, to, stride);
    if (!tn_dtype_bytes(held, cols, &bytes) || bytes > BUFFER_BYTES)
        TN_THROW(TN_BAD_DATA, "%s: tensor %s: rows of %lld columns are too long", source->tensor->file,
                 source->tensor->name, (long long)cols);
    pitch = tn_dtype_is_block(held) ? bytes : stride * tn_cuda_size(held);
    TN_TRY(open_ring(cuda));
    TN_TRY(tn_cuda_order(cuda->stream, cuda->copies));
    count = BUFFER_BYTES / bytes;
    for (int64_t first = 0; first < rows; first += count) {
        int64_t some = rows - first < count ? rows - first : count;
        char *buffer;
        TN_TRY(take_buffer(cuda->ring, &buffer));
#pragma omp parallel for schedule(static)
        for (int64_t row = 0; row < some; row++)
            fetch_row(source, first + row, cols, held, bytes, buffer + row * bytes);
        TN_TRY(send_buffer(cuda, (char *)to + first * pitch, pitch, bytes, some));
    }
    TN_TRY(tn_cuda_order(cuda->copies, cuda->stream));
done:
    return status;
}

static int64_t matrix_bytes(const tn_device *device, int64_t rows, int64_t cols, const tn_source *source,
                            bool trained) {
    tn_dtype held = tn_source_held(source, device->dtype, trained);
    tn_scaled_layout layout;
    int64_t bytes, count;
    if (tn_dtype_has_scales(held))
        return tn_source_layout(source, rows, cols, &layout) ? tn_cuda_round(layout.bytes) : 0;
    return tn_mul(rows, cols, &count) && tn_dtype_bytes(held, count, &bytes) ? tn_cuda_round(bytes) : 0;
}

int64_t tn_cuda_weight_bytes(tn_device *device, int64_t rows, int64_t cols, const tn_source *source) {
    return matrix_bytes(device, rows, cols, source, source->trained);
}

tn_status tn_cuda_weight_load(tn_device *device, int64_t rows, int64_t cols, const tn_source *source,
                              void *region, tn_weight *weight) {
    return load_matrix(tn_cuda(device), rows, cols, source, source->trained, region, cols, weight);
}

tn_status tn_cuda_weight_refresh(tn_device *device, int64_t count, const float *master, void *values) {
    return tn_cuda_round_rows(device, 1, count, master, values, count);
}

/* ---- A group of projections -------------------------------------------------------------------------- */

static bool all_plain(const tn_device *device, const tn_linear *linear, const tn_source *const sources[]) {
    for (int i = 0; i < linear->parts; i++)
        if (!sources[i] ||
            tn_dtype_is_block(tn_source_held(sources[i], device->dtype, linear->part[i].master != NULL)))
            return false;
    return true;
}

int64_t tn_cuda_linear_bytes(tn_device *device, const tn_linear *linear, const tn_source *const sources[]) {
    int64_t size = tn_cuda_size(device->dtype), bytes = 0;
    if (all_plain(device, linear, sources))
        return tn_cuda_round((linear->out + linear->border) * tn_cuda_stride(linear) * size) +
               tn_dora_bytes(linear);
    for (int i = 0; i < linear->parts; i++) {
        const tn_part *part = &linear->part[i];
        if (sources[i])
            bytes += matrix_bytes(device, part->weight.rows, linear->in, sources[i], part->master != NULL);
    }
    return bytes + tn_cuda_round(linear->out * linear->border * size) +
           tn_cuda_round(linear->border * linear->in * size) + tn_dora_bytes(linear);
}

tn_status tn_cuda_linear_load(tn_device *device, tn_linear *linear, const tn_source *const sources[],
                              void *region) {
    bool plain = all_plain(device, linear, sources);
    int64_t size = tn_cuda_size(device->dtype), stride = plain ? tn_cuda_stride(linear) : linear->in;
    char *next = region;
    for (int i = 0; i < linear->parts; i++) {
        tn_part *part = &linear->part[i];
        int64_t rows = part->weight.rows;
        if (!sources[i]) continue;
        bool trained = part->master != NULL;
        tn_status status =
            load_matrix(tn_cuda(device), rows, linear->in, sources[i], trained, next, stride, &part->weight);
        if (status != TN_OK) return status;
        next += plain ? rows * stride * size : matrix_bytes(device, rows, linear->in, sources[i], trained);
    }
    linear->fused = plain ? region : linear->border ? next : NULL;
    tn_dora_place(linear,
                  (char *)region + tn_cuda_linear_bytes(device, linear, sources) - tn_dora_bytes(linear));
    return TN_OK;
}

tn_status tn_cuda_linear_refresh(tn_device *device, tn_linear *linear) {
    for (int i = 0; i < linear->parts; i++) {
        const tn_part *part = &linear->part[i];
        if (!part->master) continue;
        /* A trained part lies in the region given at load, which is ours to write. */
        tn_status status = tn_cuda_round_rows(device, part->weight.rows, linear->in, part->master,
                                              (void *)(uintptr_t)part->weight.data, part->weight.stride);
        if (status != TN_OK) return status;
    }
    if (linear->border == 0) return TN_OK;
    tn_cuda_border border = tn_cuda_border_of(device, linear);
    tn_status status = tn_cuda_dora_refresh(device, linear);
    if (status != TN_OK) return status;
    return tn_cuda_refresh_border(device, linear, border.b, border.b_stride, border.a, border.a_stride);
}
