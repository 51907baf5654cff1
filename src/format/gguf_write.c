/* gguf_write.c: see gguf_write.h. Keys and tensor entries are kept as the bytes that the file gets; the data
 * section has every tensor at a multiple of 32 bytes, in the order of the entries.
 */
#include "format/gguf_write.h"

#include <stdlib.h>
#include <string.h>

#include "format/gguf.h"

enum { ALIGNMENT = 32 /* what readers take where general.alignment is silent */, VERSION = 3, MOST_RANK = 4 };

struct tn_gguf_writer {
    tn_str keys, entries;
    int64_t key_count, count, capacity;
    int64_t *bytes; /* of each tensor */
    int64_t end;    /* of the data section so far */
};

tn_status tn_gguf_writer_new(tn_gguf_writer **writer) {
    *writer = calloc(1, sizeof **writer);
    return *writer ? TN_OK : tn_fail_memory((int64_t)sizeof **writer, "a GGUF writer");
}

void tn_gguf_writer_free(tn_gguf_writer *w) {
    if (!w) return;
    tn_str_free(&w->keys);
    tn_str_free(&w->entries);
    free(w->bytes);
    free(w);
}

/* ---- Metadata ------------------------------------------------------------------------------------ */

static void put_integer(tn_str *out, uint64_t value, int width) {
    for (int i = 0; i < width; i++) tn_str_putc(out, (char)(value >> (8 * i)));
}

static void put_text(tn_str *out, const char *text, int64_t length) {
    if (length < 0) length = (int64_t)strlen(text);
    put_integer(out, (uint64_t)length, 8);
    tn_str_add(out, text, length);
}

static void begin_key(tn_gguf_writer *w, const char *key, int type) {
    put_text(&w->keys, key, -1);
    put_integer(&w->keys, (uint64_t)type, 4);
    w->key_count++;
}

void tn_gguf_put_string(tn_gguf_writer *w, const char *key, const char *text, int64_t length) {
    begin_key(w, key, TN_GGUF_STRING);
    put_text(&w->keys, text, length);
}

void tn_gguf_put_u32(tn_gguf_writer *w, const char *key, int64_t value) {
    begin_key(w, key, TN_GGUF_U32);
    put_integer(&w->keys, (uint64_t)value, 4);
}

void tn_gguf_put_f32(tn_gguf_writer *w, const char *key, double value) {
    begin_key(w, key, TN_GGUF_F32);
    tn_gguf_add_f32(w, (float)value);
}

void tn_gguf_put_bool(tn_gguf_writer *w, const char *key, bool value) {
    begin_key(w, key, TN_GGUF_BOOL);
    put_integer(&w->keys, value, 1);
}

void tn_gguf_begin_array(tn_gguf_writer *w, const char *key, int type, int64_t count) {
    begin_key(w, key, TN_GGUF_ARRAY);
    put_integer(&w->keys, (uint64_t)type, 4);
    put_integer(&w->keys, (uint64_t)count, 8);
}

void tn_gguf_add_string(tn_gguf_writer *w, const char *text, int64_t length) {
    put_text(&w->keys, text, length);
}

void tn_gguf_add_i32(tn_gguf_writer *w, int32_t value) { put_integer(&w->keys, (uint32_t)value, 4); }

void tn_gguf_add_f32(tn_gguf_writer *w, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_integer(&w->keys, bits, 4);
}

/* ---- Tensors ------------------------------------------------------------------------------------- */

static int64_t padded(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

tn_status tn_gguf_declare(tn_gguf_writer *w, const char *name, tn_dtype dtype, int rank, const int64_t *shape) {
    int64_t elements = 1, bytes;
    tn_status status = tn_grow(&w->bytes, &w->capacity, w->count + 1, (int64_t)sizeof *w->bytes, "tensors");
    if (status != TN_OK) return status;
    if (strlen(name) >= TN_GGUF_NAME_BYTES) {
        tn_fail(TN_USAGE, "the name %s is too long for a GGUF file", name);
        return tn_remedy("GGUF's names have at most %d bytes", TN_GGUF_NAME_BYTES - 1);
    }
    for (int i = 0; i < rank; i++)
        if (!tn_mul(elements, shape[i], &elements)) return tn_fail(TN_FAILED, "tensor %s is too large", name);
    const bool whole = rank > 0 && rank <= MOST_RANK && shape[rank - 1] % tn_dtype_block(dtype) == 0;
    if (!whole || tn_gguf_type(dtype) < 0 || !tn_dtype_bytes(dtype, elements, &bytes))
        return tn_fail(TN_FAILED, "tensor %s cannot be written as %s", name, tn_dtype_name(dtype));
    put_text(&w->entries, name, -1);
    put_integer(&w->entries, (uint64_t)rank, 4);
    for (int i = rank - 1; i >= 0; i--) put_integer(&w->entries, (uint64_t)shape[i], 8); /* fastest first */
    put_integer(&w->entries, (uint64_t)tn_gguf_type(dtype), 4);
    put_integer(&w->entries, (uint64_t)w->end, 8);
    w->bytes[w->count++] = bytes;
    w->end += padded(bytes);
    return TN_OK;
}

static void write_padding(FILE *file, int64_t at) {
    static const char zeros[ALIGNMENT];
    fwrite(zeros, 1, (size_t)(padded(at) - at), file); /* a failure is found at commit */
}

static tn_status write_tensors(const tn_gguf_writer *w, FILE *file, const char *path, tn_tensor_source *data,
                               void *user) {
    for (int64_t i = 0; i < w->count; i++) {
        const size_t size = (size_t)w->bytes[i];
        const void *bytes = NULL;
        tn_status status = data(user, i, &bytes);
        if (status != TN_OK) return status;
        if (size > 0 && fwrite(bytes, 1, size, file) != size) return tn_fail_errno("write", path);
        write_padding(file, w->bytes[i]);
    }
    return TN_OK;
}

tn_status tn_gguf_write(tn_gguf_writer *w, const char *path, tn_tensor_source *data, void *user) {
    tn_save save = {0};
    tn_str header = {0};
    tn_status status;
    TN_TRY(tn_str_check(&w->keys, "metadata"));
    TN_TRY(tn_str_check(&w->entries, "tensor entries"));
    tn_str_puts(&header, "GGUF");
    put_integer(&header, VERSION, 4);
    put_integer(&header, (uint64_t)w->count, 8);
    put_integer(&header, (uint64_t)w->key_count, 8);
    TN_TRY(tn_str_check(&header, "a header"));
    TN_TRY(tn_save_begin(&save, path));
    fwrite(header.data, 1, (size_t)header.length, save.file);
    fwrite(tn_str_text(&w->keys), 1, (size_t)w->keys.length, save.file);
    fwrite(tn_str_text(&w->entries), 1, (size_t)w->entries.length, save.file);
    write_padding(save.file, header.length + w->keys.length + w->entries.length);
    TN_TRY(write_tensors(w, save.file, path, data, user));
    status = tn_save_commit(&save);
done:
    tn_save_abort(&save);
    tn_str_free(&header);
    return status;
}
