/* verb_inspect.c: what a model, adapter, checkpoint, safetensors or GGUF file holds, from headers alone. */
#include <string.h>

#include "format/gguf.h"
#include "format/model_files.h"
#include "format/safetensors.h"
#include "train/checkpoint.h"

typedef struct listing {
    tn_json_writer w;
    int64_t parameters;
} listing;

static void put_tensor(listing *l, const tn_tensor_info *t) {
    tn_json_begin(&l->w, '{');
    tn_json_string_member(&l->w, "name", t->name);
    tn_json_string_member(&l->w, "dtype", tn_dtype_code(t->dtype));
    tn_json_key(&l->w, "shape");
    tn_json_begin(&l->w, '[');
    for (int i = 0; i < t->rank; i++) tn_json_put_integer(&l->w, t->shape[i]);
    tn_json_end(&l->w, ']');
    tn_json_integer_member(&l->w, "bytes", t->bytes + tn_tensor_scale_bytes(t));
    tn_json_end(&l->w, '}');
    l->parameters += t->elements;
}

static void begin(listing *l, const char *kind) {
    tn_json_begin(&l->w, '{');
    tn_json_string_member(&l->w, "kind", kind);
    tn_json_key(&l->w, "tensors");
    tn_json_begin(&l->w, '[');
}

static void end(listing *l, const tn_json *metadata) {
    tn_json_end(&l->w, ']');
    tn_json_key(&l->w, "metadata");
    if (tn_json_is_null(metadata)) {
        tn_json_begin(&l->w, '{');
        tn_json_end(&l->w, '}');
    } else tn_json_put(&l->w, metadata);
    tn_json_integer_member(&l->w, "parameters", l->parameters);
    tn_json_end(&l->w, '}');
}

static tn_status list_safetensors(listing *l, const char *path, const char *kind, const tn_json *metadata) {
    tn_safetensors *file;
    tn_status status = tn_safetensors_open(path, &file);
    if (status != TN_OK) return status;
    begin(l, kind);
    for (int64_t i = 0; i < tn_safetensors_count(file); i++) put_tensor(l, tn_safetensors_at(file, i));
    end(l, metadata ? metadata : tn_safetensors_metadata(file));
    tn_safetensors_close(file);
    return TN_OK;
}

/* Metadata of a GGUF without its vocabulary: arrays are told by their length. */
static tn_status gguf_summary(const tn_gguf *file, tn_arena *arena, const tn_json **summary) {
    const tn_json *all = tn_gguf_metadata(file);
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_begin(&w, '{');
    for (int64_t i = 0; i < all->count; i++) {
        const tn_json *value = &all->members[i].value;
        tn_json_key(&w, all->members[i].key);
        if (value->type == TN_JSON_ARRAY && value->count > 16) {
            tn_json_begin(&w, '{');
            tn_json_integer_member(&w, "length", value->count);
            tn_json_end(&w, '}');
        } else tn_json_put(&w, value);
    }
    tn_json_end(&w, '}');
    tn_status status = tn_str_check(&text, "metadata");
    if (status == TN_OK)
        status = tn_json_parse(arena, text.data, text.length, TN_JSON_DEFAULT, "metadata", summary);
    tn_str_free(&text);
    return status;
}

static tn_status list_gguf(listing *l, tn_arena *arena, const char *path) {
    tn_gguf *file;
    const tn_json *metadata;
    tn_status status = tn_gguf_open(path, &file);
    if (status != TN_OK) return status;
    TN_TRY(gguf_summary(file, arena, &metadata));
    begin(l, "gguf");
    for (int64_t i = 0; i < tn_gguf_count(file); i++) put_tensor(l, tn_gguf_at(file, i));
    end(l, metadata);
done:
    tn_gguf_close(file);
    return status;
}

static tn_status list_model(listing *l, const char *path) {
    tn_model_files *files;
    tn_status status = tn_model_files_open(path, false, &files);
    if (status != TN_OK) return status;
    begin(l, "model");
    for (int64_t i = 0; i < tn_model_files_count(files); i++) put_tensor(l, tn_model_files_at(files, i));
    end(l, tn_model_files_config(files));
    tn_model_files_close(files);
    return TN_OK;
}

static tn_status list_adapter(listing *l, tn_arena *arena, const char *path, bool checkpoint) {
    const tn_json *config;
    const char *tensors = tn_path_join(arena, path, "adapter_model.safetensors");
    tn_status status;
    if (checkpoint && !tn_is_file(tensors)) /* of a full fine-tune */
        tensors = tn_path_join(arena, path, "model.safetensors");
    if (checkpoint) TN_TRY(tn_checkpoint_verify(path));
    TN_TRY(tn_json_read_file(arena, tn_path_join(arena, path, checkpoint ? "run.json" : "adapter_config.json"),
                             TN_JSON_DEFAULT, &config));
    status = list_safetensors(l, tensors, checkpoint ? "checkpoint" : "adapter", config);
done:
    return status;
}

static bool has_magic(const char *path, const char *magic) {
    tn_map map;
    bool found = tn_map_open(path, &map) == TN_OK && map.bytes >= 4 && memcmp(map.data, magic, 4) == 0;
    tn_map_close(&map);
    return found;
}

static tn_status list_path(listing *l, tn_arena *arena, const char *path) {
    if (tn_is_directory(path)) {
        bool adapter = tn_is_file(tn_path_join(arena, path, "adapter_config.json"));
        bool manifest = tn_is_file(tn_path_join(arena, path, "manifest.json"));
        if (manifest || adapter) return list_adapter(l, arena, path, manifest);
        return list_model(l, path);
    }
    if (!tn_is_file(path)) {
        tn_fail(TN_USAGE, "%s does not exist", path);
        return tn_remedy(
            "a directory with a model, an adapter or a checkpoint, or a .safetensors or .gguf file");
    }
    if (has_magic(path, "GGUF")) return list_gguf(l, arena, path);
    if (tn_ends_with(path, ".json")) return list_model(l, path);
    return list_safetensors(l, path, "safetensors", NULL);
}

tn_status tn_inspect(tn_config *config, tn_doc **doc) {
    tn_arena arena = {0};
    tn_str text = {0};
    listing l = {.w = tn_json_write_to(&text, 0)};
    const tn_settings *settings;
    tn_status status;
    *doc = NULL;
    TN_TRY(tn_config_resolve(config, &settings));
    TN_TRY(list_path(&l, &arena, settings->model));
    status = tn_doc_from(&text, doc);
done:
    tn_str_free(&text);
    tn_arena_free(&arena);
    return status;
}
