/* model_write.c: see model_write.h. The index is Transformers' (model.safetensors.index.json): total bytes of
 * the tensors, and the file of each.
 */
#include "export/model_write.h"

#include <stdlib.h>
#include <string.h>

typedef struct tensor {
    const char *name;
    tn_dtype dtype;
    int rank;
    int64_t shape[TN_MAX_RANK], bytes;
    int64_t file; /* index into the files */
} tensor;

struct tn_model_writer {
    tn_arena arena;
    tensor *list;
    int64_t count, capacity;
    const char **files;
    int64_t file_count, file_capacity, last_bytes; /* bytes in the last file, where they are filled in order */
    bool numbered;                                 /* files get their names at the end */
    struct {
        const char *key, *value;
    } metadata[4];
    int metadata_count;
    /* of the file in hand: declared index → index in the list */
    int64_t *chosen;
    tn_tensor_source *data;
    void *user;
};

static const char single[] = "model.safetensors";
static const int64_t most_bytes = 5000000000; /* of a file, as Transformers' save_pretrained has it */

tn_status tn_model_writer_new(tn_model_writer **writer) {
    *writer = calloc(1, sizeof **writer);
    return *writer ? TN_OK : tn_fail_memory((int64_t)sizeof **writer, "a model's writer");
}

void tn_model_writer_free(tn_model_writer *w) {
    if (!w) return;
    free(w->list);
    free(w->files);
    tn_arena_free(&w->arena);
    free(w);
}

static tn_status new_file(tn_model_writer *w, const char *name) {
    tn_status status =
        tn_grow(&w->files, &w->file_capacity, w->file_count + 1, (int64_t)sizeof *w->files, "files");
    if (status == TN_OK) w->files[w->file_count++] = name;
    w->last_bytes = 0;
    return status;
}

/* The file that a tensor of so many bytes goes into. */
static tn_status choose_file(tn_model_writer *w, const char *name, int64_t bytes, int64_t *file) {
    w->numbered = !name;
    if (!name) {
        const bool full = w->last_bytes > 0 && w->last_bytes + bytes > most_bytes;
        tn_status status = w->file_count == 0 || full ? new_file(w, NULL) : TN_OK;
        w->last_bytes += bytes;
        *file = w->file_count - 1;
        return status;
    }
    for (*file = 0; *file < w->file_count; ++*file)
        if (strcmp(w->files[*file], name) == 0) return TN_OK;
    const char *copy = tn_arena_printf(&w->arena, "%s", name);
    return copy ? new_file(w, copy) : tn_fail_memory(128, "a file's name");
}

tn_status tn_model_writer_add(tn_model_writer *w, const char *name, tn_dtype dtype, int rank,
                              const int64_t *shape, const char *file) {
    tensor t = {.dtype = dtype, .rank = rank};
    int64_t elements = 1;
    tn_status status = tn_grow(&w->list, &w->capacity, w->count + 1, (int64_t)sizeof t, "tensors");
    if (status != TN_OK) return status;
    for (int i = 0; i < rank; i++) {
        t.shape[i] = shape[i];
        if (!tn_mul(elements, shape[i], &elements)) return tn_fail(TN_FAILED, "tensor %s is too large", name);
    }
    if (!tn_dtype_bytes(dtype, elements, &t.bytes)) return tn_fail(TN_FAILED, "tensor %s is too large", name);
    t.name = tn_arena_printf(&w->arena, "%s", name);
    if (!t.name) return tn_fail_memory(128, "a name");
    status = choose_file(w, file, t.bytes, &t.file);
    if (status == TN_OK) w->list[w->count++] = t;
    return status;
}

tn_status tn_model_writer_metadata(tn_model_writer *w, const char *key, const char *value) {
    const int most = (int)(sizeof w->metadata / sizeof *w->metadata);
    if (w->metadata_count == most) return tn_fail(TN_FAILED, "too many members of __metadata__");
    key = tn_arena_printf(&w->arena, "%s", key);
    value = tn_arena_printf(&w->arena, "%s", value);
    if (!key || !value) return tn_fail_memory(256, "metadata");
    w->metadata[w->metadata_count].key = key;
    w->metadata[w->metadata_count++].value = value;
    return TN_OK;
}

static tn_status name_files(tn_model_writer *w) {
    for (int64_t i = 0; w->numbered && i < w->file_count; i++) {
        w->files[i] = w->file_count == 1 ? single
                                         : tn_arena_printf(&w->arena, "model-%05lld-of-%05lld.safetensors",
                                                           (long long)i + 1, (long long)w->file_count);
        if (!w->files[i]) return tn_fail_memory(64, "a file's name");
    }
    return TN_OK;
}

static tn_status give(void *user, int64_t declared, const void **bytes) {
    const tn_model_writer *w = user;
    return w->data(w->user, w->chosen[declared], bytes);
}

static tn_status write_file(tn_model_writer *w, int64_t file, const char *path) {
    tn_safetensors_writer *out = NULL;
    int64_t count = 0;
    tn_status status;
    TN_TRY(tn_safetensors_writer_new(&out));
    TN_TRY(tn_safetensors_metadata_add(out, "format", "pt"));
    for (int i = 0; i < w->metadata_count; i++)
        TN_TRY(tn_safetensors_metadata_add(out, w->metadata[i].key, w->metadata[i].value));
    for (int64_t i = 0; i < w->count; i++) {
        const tensor *t = &w->list[i];
        if (t->file != file) continue;
        TN_TRY(tn_safetensors_declare(out, t->name, t->dtype, t->rank, t->shape));
        w->chosen[count++] = i;
    }
    status = tn_safetensors_write(out, path, give, w);
done:
    tn_safetensors_writer_free(out);
    return status;
}

static tn_status write_index(const tn_model_writer *w, const char *path) {
    tn_str text = {0};
    int64_t total = 0;
    tn_json_writer json = tn_json_write_to(&text, 2);
    for (int64_t i = 0; i < w->count; i++) total += w->list[i].bytes;
    tn_json_begin(&json, '{');
    tn_json_key(&json, "metadata");
    tn_json_begin(&json, '{');
    tn_json_integer_member(&json, "total_size", total);
    tn_json_end(&json, '}');
    tn_json_key(&json, "weight_map");
    tn_json_begin(&json, '{');
    for (int64_t i = 0; i < w->count; i++)
        tn_json_string_member(&json, w->list[i].name, w->files[w->list[i].file]);
    tn_json_end(&json, '}');
    tn_json_end(&json, '}');
    tn_status status = tn_str_check(&text, "an index");
    if (status == TN_OK) status = tn_save_text(path, text.data, text.length);
    tn_str_free(&text);
    return status;
}

tn_status tn_model_writer_save(tn_model_writer *w, const char *directory, tn_tensor_source *data, void *user) {
    tn_status status;
    w->data = data, w->user = user;
    w->chosen = tn_arena_take(&w->arena, (w->count + 1) * (int64_t)sizeof *w->chosen);
    if (!w->chosen) return tn_fail_memory(w->count * 8, "a list of tensors");
    TN_TRY(name_files(w));
    for (int64_t i = 0; i < w->file_count; i++) {
        const char *path = tn_path_join(&w->arena, directory, w->files[i]);
        if (!path) return tn_fail_memory(256, "a path");
        TN_TRY(write_file(w, i, path));
    }
    if (w->file_count == 1 && strcmp(w->files[0], single) == 0) goto done;
    const char *index = tn_path_join(&w->arena, directory, "model.safetensors.index.json");
    status = index ? write_index(w, index) : tn_fail_memory(256, "a path");
done:
    return status;
}

tn_status tn_copy_files(const char *from, const char *to, const char *const *names, int64_t count) {
    tn_arena arena = {0};
    tn_map map = {0};
    tn_status status = TN_OK;
    for (int64_t i = 0; i < count; i++) {
        const char *source = tn_path_join(&arena, from, names[i]);
        const char *target = tn_path_join(&arena, to, names[i]);
        if (!source || !target) TN_THROW(TN_FAILED, "out of memory for a path");
        if (!tn_is_file(source)) continue;
        TN_TRY(tn_map_open(source, &map));
        TN_TRY(tn_save_text(target, (const char *)map.data, map.bytes));
        tn_map_close(&map);
    }
done:
    tn_map_close(&map);
    tn_arena_free(&arena);
    return status;
}
