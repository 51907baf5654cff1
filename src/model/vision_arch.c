/* vision_arch.c: reading vision_config. */
#include "model/vision_arch.h"

static tn_status check(const tn_vision_arch *v, int64_t channels, int64_t window, const char *name) {
    const struct {
        const char *key;
        int64_t value, most;
    } sizes[] = {{"depth", v->depth, 1 << 12},
                 {"hidden_size", v->hidden, 1 << 20},
                 {"intermediate_size", v->intermediate, 1 << 22},
                 {"num_heads", v->heads, 1 << 16},
                 {"out_hidden_size", v->out, 1 << 20},
                 {"patch_size", v->patch, 1 << 10},
                 {"temporal_patch_size", v->temporal, 1 << 6},
                 {"spatial_merge_size", v->merge, 1 << 6},
                 {"window_size", window, 1 << 16}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].most)
            return tn_fail(TN_BAD_DATA, "%s: vision_config: %s is not an integer or out of range", name,
                           sizes[i].key);
    if (v->hidden % v->heads != 0 || v->hidden / v->heads % 4 != 0)
        return tn_fail(TN_BAD_DATA, "%s: vision_config: %lld columns make no %lld heads of a multiple of 4",
                       name, (long long)v->hidden, (long long)v->heads);
    if (channels != 3) return tn_fail(TN_BAD_DATA, "%s: vision_config: in_channels is not 3", name);
    if (v->window < 1)
        return tn_fail(TN_BAD_DATA, "%s: vision_config: window_size holds no merged patch", name);
    return TN_OK;
}

static tn_status read_full(tn_arena *arena, const tn_json *list, const char *name, tn_vision_arch *v) {
    static const int64_t usual[] = {7, 15, 23, 31};
    const int64_t count = list ? list->count : 4;
    bool *full = tn_arena_take(arena, v->depth);
    if (!full) return tn_fail_memory(v->depth, "block kinds");
    for (int64_t i = 0; i < count; i++) {
        const int64_t block = list ? tn_json_integer(tn_json_at(list, i), -1) : usual[i];
        if (block < 0)
            return tn_fail(TN_BAD_DATA, "%s: vision_config: fullatt_block_indexes holds no block numbers",
                           name);
        if (block < v->depth) full[block] = true;
    }
    v->full = full;
    return TN_OK;
}

tn_status tn_vision_arch_read(tn_arena *arena, const tn_json *config, const char *name, tn_vision_arch *v) {
    const struct {
        const char *key;
        int64_t otherwise;
        int64_t *value;
    } keys[] = {{"depth", 32, &v->depth},
                {"hidden_size", 3584, &v->hidden},
                {"intermediate_size", 3420, &v->intermediate},
                {"num_heads", 16, &v->heads},
                {"out_hidden_size", 3584, &v->out},
                {"patch_size", 14, &v->patch},
                {"temporal_patch_size", 2, &v->temporal},
                {"spatial_merge_size", 2, &v->merge}};
    const int64_t window = tn_json_integer(tn_json_get(config, "window_size"), 112);
    const tn_json *list = tn_json_get(config, "fullatt_block_indexes");
    const char *act = tn_json_string(tn_json_get(config, "hidden_act"), "silu");
    *v = (tn_vision_arch){.activation = TN_SILU, .norm_eps = 1e-6f};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const tn_json *given = tn_json_get(config, keys[i].key);
        *keys[i].value = tn_json_is_null(given) ? keys[i].otherwise : tn_json_integer(given, -1);
    }
    if (v->patch > 0 && v->merge > 0) v->window = window / v->merge / v->patch;
    tn_status status = check(v, tn_json_integer(tn_json_get(config, "in_channels"), 3), window, name);
    if (status != TN_OK) return status;
    if (!tn_starts_with(act, "silu")) {
        tn_fail(TN_USAGE, "%s: vision_config: hidden_act \"%s\" is not supported", name, act);
        return tn_remedy("known: silu");
    }
    return read_full(arena, tn_json_is_null(list) ? NULL : list, name, v);
}

int64_t tn_vision_parameters(const tn_vision_arch *v) {
    const int64_t d = v->hidden, f = v->intermediate, wide = v->merge * v->merge * d;
    const int64_t attention = 3 * d * (d + 1) + d * (d + 1), mlp = 2 * f * (d + 1) + d * (f + 1), norms = 2 * d;
    const int64_t merger = d + wide * (wide + 1) + v->out * (wide + 1);
    return d * tn_vision_values(v) + v->depth * (attention + mlp + norms) + merger;
}
