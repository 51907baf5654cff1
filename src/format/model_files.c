/* model_files.c: opens a directory of safetensors, a GGUF file or a bare config.json behind one interface.
 * Nothing but headers is read; the weights stay in their mappings.
 */
#include "format/model_files.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "format/bnb_state.h"
#include "format/fp8_state.h"
#include "format/gguf_model.h"
#include "format/name_table.h"
#include "format/safetensors.h"

enum { MOST_SHARDS = 4096 };

struct tn_model_files {
    tn_arena arena;
    tn_model_files_kind kind;
    const char *path;
    const tn_json *config, *generation_config;
    tn_safetensors **shards;
    int64_t shard_count;
    tn_gguf *gguf;
    tn_tensor_info *tensors; /* under Hugging Face names */
    int64_t count;
    tn_name_table names;
};

static tn_status read_object(tn_model_files *f, const char *path, const tn_json **root) {
    tn_status status = tn_json_read_file(&f->arena, path, TN_JSON_EXTENSIONS, root);
    if (status == TN_OK && (*root)->type != TN_JSON_OBJECT)
        status = tn_fail(TN_BAD_DATA, "%s is %s; a JSON object was expected", path, tn_json_type_name(*root));
    return status;
}

/* ---- Directories --------------------------------------------------------------------------------- */

static tn_status open_shard(tn_model_files *f, const char *name) {
    const char *path = tn_path_join(&f->arena, f->path, name);
    if (!path) return tn_fail_memory(256, "a path");
    tn_status status = tn_safetensors_open(path, &f->shards[f->shard_count]);
    if (status == TN_OK) f->shard_count++;
    return status;
}

/* The distinct files of an index, in the order of their first mention. The headers of the files say what is in
 * them; the index is not asked which tensor is where, since in edited repositories it lies. */
static tn_status list_shards(tn_model_files *f, const char *path, const char ***names, int64_t *count) {
    const tn_json *root;
    tn_status status = tn_json_read_file(&f->arena, path, TN_JSON_DEFAULT, &root);
    if (status != TN_OK) return status;
    const tn_json *map = tn_json_get(root, "weight_map");
    if (!map || map->type != TN_JSON_OBJECT || map->count == 0)
        return tn_fail(TN_BAD_DATA, "%s: weight_map is %s; an object that names files was expected", path,
                       tn_json_type_name(map));
    *names = tn_arena_take(&f->arena, map->count * (int64_t)sizeof **names);
    if (!*names) return tn_fail_memory(map->count * (int64_t)sizeof **names, path);
    for (int64_t i = 0; i < map->count; i++) {
        const char *name = tn_json_string(&map->members[i].value, "");
        if (!*name || strchr(name, '/'))
            return tn_fail(TN_BAD_DATA, "%s: the file of %s is not a plain name", path, map->members[i].key);
        int64_t j = 0;
        while (j < *count && strcmp((*names)[j], name) != 0) j++;
        if (j < *count) continue;
        if (*count >= MOST_SHARDS)
            return tn_fail(TN_BAD_DATA, "%s names more than %d files", path, MOST_SHARDS);
        (*names)[(*count)++] = name;
    }
    return TN_OK;
}

/* Where weights are not needed, a model whose files are not all there counts as one without weights. */
static tn_status open_index(tn_model_files *f, const char *path, bool need_weights) {
    const char **names;
    int64_t count = 0;
    tn_status status = list_shards(f, path, &names, &count);
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < count; i++) {
        const char *shard = tn_path_join(&f->arena, f->path, names[i]);
        if (!shard) return tn_fail_memory(256, "a path");
        if (tn_is_file(shard)) continue;
        if (!need_weights) {
            tn_warn("%s is missing; the model counts as one without weights", shard);
            return TN_OK;
        }
        tn_fail(TN_USAGE, "%s is missing; %s names it", shard, path);
        return tn_remedy("fetch the model's *.safetensors files, all %lld", (long long)count);
    }
    f->shards = tn_arena_take(&f->arena, count * (int64_t)sizeof *f->shards);
    if (!f->shards) return tn_fail_memory(count * (int64_t)sizeof *f->shards, path);
    for (int64_t i = 0; i < count && status == TN_OK; i++) status = open_shard(f, names[i]);
    return status;
}

static tn_status collect_shards(tn_model_files *f) {
    int64_t total = 0;
    for (int64_t i = 0; i < f->shard_count; i++) total += tn_safetensors_count(f->shards[i]);
    f->tensors = tn_arena_take(&f->arena, (total + 1) * (int64_t)sizeof *f->tensors);
    if (!f->tensors) return tn_fail_memory(total * (int64_t)sizeof *f->tensors, f->path);
    for (int64_t i = 0; i < f->shard_count; i++)
        for (int64_t j = 0; j < tn_safetensors_count(f->shards[i]); j++)
            f->tensors[f->count++] = *tn_safetensors_at(f->shards[i], j);
    total = f->count;
    tn_status status = tn_name_table_build(&f->names, &f->arena, f->tensors, f->count);
    if (status == TN_OK) status = tn_bnb_fold(&f->arena, &f->names, f->tensors, &f->count);
    if (status == TN_OK && f->count != total)
        status = tn_name_table_build(&f->names, &f->arena, f->tensors, f->count);
    total = f->count;
    if (status == TN_OK) status = tn_fp8_fold(&f->arena, f->config, &f->names, f->tensors, &f->count);
    if (status != TN_OK || f->count == total) return status;
    return tn_name_table_build(&f->names, &f->arena, f->tensors, f->count);
}

static tn_status read_configs(tn_model_files *f) {
    const char *config = tn_path_join(&f->arena, f->path, "config.json");
    const char *generation = tn_path_join(&f->arena, f->path, "generation_config.json");
    if (!config || !generation) return tn_fail_memory(1024, "paths");
    if (!tn_is_file(config)) {
        tn_fail(TN_USAGE, "%s holds no config.json", f->path);
        return tn_remedy("give a Hugging Face model directory or a GGUF file");
    }
    tn_status status = read_object(f, config, &f->config);
    if (status == TN_OK && tn_is_file(generation)) status = read_object(f, generation, &f->generation_config);
    return status;
}

static tn_status open_weights(tn_model_files *f, bool need_weights) {
    const char *single = tn_path_join(&f->arena, f->path, "model.safetensors");
    const char *index = tn_path_join(&f->arena, f->path, "model.safetensors.index.json");
    const char *pickle = tn_path_join(&f->arena, f->path, "pytorch_model.bin");
    if (!single || !index || !pickle) return tn_fail_memory(1024, "paths");
    if (tn_is_file(single)) {
        f->shards = tn_arena_take(&f->arena, (int64_t)sizeof *f->shards);
        return f->shards ? open_shard(f, tn_path_base(single)) : tn_fail_memory(8, "shards");
    }
    if (tn_is_file(index)) return open_index(f, index, need_weights);
    if (!need_weights) return TN_OK;
    tn_fail(TN_USAGE, "%s holds neither model.safetensors nor model.safetensors.index.json", f->path);
    return tn_remedy(
        tn_is_file(pickle)
            ? "its weights are a pickle (.bin), which tenon never reads; fetch the safetensors version"
            : "fetch the model's *.safetensors files");
}

static tn_status open_directory(tn_model_files *f, bool need_weights) {
    tn_status status;
    f->kind = TN_MODEL_DIRECTORY;
    TN_TRY(read_configs(f));
    TN_TRY(open_weights(f, need_weights));
    status = collect_shards(f);
done:
    return status;
}

/* ---- GGUF ---------------------------------------------------------------------------------------- */

/* Rope tensors whose values went into the configuration. */
static bool in_config(const tn_model_files *f, const char *name) {
    if (strcmp(name, "rope_freqs.weight") == 0) return true;
    return tn_starts_with(name, "rope_factors_") && tn_json_path(f->config, "rope_scaling.long_factor");
}

static tn_status open_gguf(tn_model_files *f) {
    tn_str text = {0};
    tn_status status;
    f->kind = TN_MODEL_GGUF;
    TN_TRY(tn_gguf_open(f->path, &f->gguf));
    TN_TRY(tn_gguf_config(f->gguf, f->path, &text));
    TN_TRY(tn_json_parse(&f->arena, text.data, text.length, TN_JSON_DEFAULT, f->path, &f->config));
    f->tensors = tn_arena_take(&f->arena, (tn_gguf_count(f->gguf) + 1) * (int64_t)sizeof *f->tensors);
    if (!f->tensors) TN_THROW(TN_FAILED, "out of memory opening %s", f->path);
    for (int64_t i = 0; i < tn_gguf_count(f->gguf); i++) {
        tn_tensor_info t = *tn_gguf_at(f->gguf, i);
        char name[128];
        if (in_config(f, t.name)) continue;
        if (tn_gguf_hf_name(t.name, name)) t.name = tn_arena_text(&f->arena, name, (int64_t)strlen(name));
        if (!t.name) TN_THROW(TN_FAILED, "out of memory opening %s", f->path);
        f->tensors[f->count++] = t;
    }
    status = tn_name_table_build(&f->names, &f->arena, f->tensors, f->count);
done:
    tn_str_free(&text);
    return status;
}

static bool is_gguf(const char *path) {
    tn_map map;
    bool found = tn_map_open(path, &map) == TN_OK && map.bytes >= 4 && memcmp(map.data, "GGUF", 4) == 0;
    tn_map_close(&map);
    return found;
}

/* ---- Face ---------------------------------------------------------------------------------------- */

static tn_status open_path(tn_model_files *f, bool need_weights) {
    if (tn_is_directory(f->path)) return open_directory(f, need_weights);
    if (!tn_is_file(f->path)) {
        tn_fail(TN_USAGE, "the model %s does not exist", f->path);
        if (strchr("/.", f->path[0])) return tn_remedy("give a Hugging Face model directory or a GGUF file");
        return tn_remedy(
            "give a Hugging Face model directory or a GGUF file; a model of the hub is downloaded "
            "beforehand, e.g. `hf download %s --local-dir DIR`",
            f->path);
    }
    if (is_gguf(f->path)) return open_gguf(f);
    if (!tn_ends_with(f->path, ".json")) {
        tn_fail(TN_BAD_DATA, "%s is neither a GGUF file nor a config.json", f->path);
        return tn_remedy("give a Hugging Face model directory or a GGUF file");
    }
    if (need_weights) {
        tn_fail(TN_USAGE, "%s is a configuration without weights", f->path);
        return tn_remedy("give the directory that holds the weights too");
    }
    f->kind = TN_MODEL_CONFIG_ONLY;
    return read_object(f, f->path, &f->config);
}

tn_status tn_model_files_open(const char *path, bool need_weights, tn_model_files **files) {
    tn_model_files *f = calloc(1, sizeof *f);
    tn_status status;
    *files = NULL;
    if (!f) return tn_fail_memory((int64_t)sizeof *f, path);
    f->path = tn_arena_text(&f->arena, path, (int64_t)strlen(path));
    if (!f->path) TN_THROW(TN_FAILED, "out of memory opening %s", path);
    TN_TRY(open_path(f, need_weights));
    *files = f;
    f = NULL;
done:
    tn_model_files_close(f);
    return status;
}

void tn_model_files_close(tn_model_files *f) {
    if (!f) return;
    for (int64_t i = 0; i < f->shard_count; i++) tn_safetensors_close(f->shards[i]);
    tn_gguf_close(f->gguf);
    tn_arena_free(&f->arena);
    free(f);
}

tn_model_files_kind tn_model_files_get_kind(const tn_model_files *f) { return f->kind; }
const char *tn_model_files_path(const tn_model_files *f) { return f->path; }
const tn_json *tn_model_files_config(const tn_model_files *f) { return f->config; }
const tn_json *tn_model_files_generation_config(const tn_model_files *f) { return f->generation_config; }
const char *tn_model_files_metadata(const tn_model_files *f, const char *key) {
    const char *found = NULL;
    for (int64_t i = 0; i < f->shard_count && !found; i++)
        found = tn_json_string(tn_json_get(tn_safetensors_metadata(f->shards[i]), key), NULL);
    return found;
}

int64_t tn_model_files_count(const tn_model_files *f) { return f->count; }
const tn_tensor_info *tn_model_files_at(const tn_model_files *f, int64_t index) { return &f->tensors[index]; }
const tn_tensor_info *tn_model_files_find(const tn_model_files *f, const char *name) {
    return tn_name_table_find(&f->names, name);
}

bool tn_model_files_permuted(const tn_model_files *f, const tn_tensor_info *tensor) {
    return f->gguf && tn_gguf_permutes(f->gguf) &&
           (strstr(tensor->name, ".q_proj.") || strstr(tensor->name, ".k_proj."));
}

tn_status tn_model_files_hash(const tn_model_files *f, char digits[33]) {
    tn_hasher hasher;
    tn_str text = {0};
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_status status = tn_hash_begin(&hasher);
    if (status != TN_OK) return status;
    tn_json_put(&w, f->config);
    tn_hash_add(&hasher, tn_str_text(&text), text.length);
    tn_str_free(&text);
    for (int64_t i = 0; i < f->count; i++) {
        const tn_tensor_info *t = &f->tensors[i];
        int64_t numbers[TN_MAX_RANK + 3] = {t->dtype, t->rank, t->bytes};
        memcpy(numbers + 3, t->shape, sizeof t->shape);
        tn_hash_add(&hasher, t->name, (int64_t)strlen(t->name) + 1);
        tn_hash_add(&hasher, numbers, (int64_t)sizeof numbers);
    }
    tn_hash_end(&hasher, digits);
    return TN_OK;
}

/* Small enough that an 8B model's 300 tensors are sampled from memory in milliseconds, and a fine-tune, which
 * changes every tensor all over, cannot go unnoticed. */
enum { SAMPLE_PAGE = 4096, SAMPLE_PAGES = 6 };

tn_status tn_model_files_sample(const tn_model_files *f, char digits[33]) {
    tn_hasher hasher;
    tn_status status = tn_hash_begin(&hasher);
    if (status != TN_OK) return status;
    for (int64_t i = 0; i < f->count; i++) {
        const tn_tensor_info *t = &f->tensors[i];
        const char *bytes = t->data;
        if (t->bytes <= (int64_t)SAMPLE_PAGES * SAMPLE_PAGE) {
            tn_hash_add(&hasher, bytes, t->bytes);
            continue;
        }
        int64_t stride = (t->bytes - SAMPLE_PAGE) / (SAMPLE_PAGES - 1);
        for (int64_t page = 0; page < SAMPLE_PAGES; page++)
            tn_hash_add(&hasher, bytes + (page + 1 < SAMPLE_PAGES ? page * stride : t->bytes - SAMPLE_PAGE),
                        SAMPLE_PAGE);
    }
    tn_hash_end(&hasher, digits);
    return TN_OK;
}
