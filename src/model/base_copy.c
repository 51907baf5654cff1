/* base_copy.c: see base_copy.h. Everything is compared in pieces of 1024 values, a multiple of every block. */
#include "model/base_copy.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "quant/quant.h"
#include "quant/scaled.h"

enum { PIECE = 1024 };
static const double farthest_quantised = 0.5; /* ‖copy−base‖ / ‖base‖ */

bool tn_base_copy_module(const char *name, tn_module *module) {
    static const struct {
        const char *path;
        tn_module module;
    } tables[] = {{"embed_tokens", TN_MODULE_EMBED}, {"lm_head", TN_MODULE_HEAD}};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        if (!tn_starts_with(name, tables[i].path)) continue;
        const char *rest = name + strlen(tables[i].path);
        *module = tables[i].module;
        return strcmp(rest, ".base_layer.weight") == 0 || strcmp(rest, ".original_module.weight") == 0 ||
               strcmp(rest, ".token_adapter.base_layer.weight") == 0 || strcmp(rest, ".weight") == 0;
    }
    return false;
}

static float rounded(tn_dtype dtype, float x) {
    return dtype == TN_DTYPE_BF16  ? tn_bf16_to_f32(tn_f32_to_bf16(x))
           : dtype == TN_DTYPE_F16 ? tn_f16_to_f32(tn_f32_to_f16(x))
                                   : x;
}

typedef struct distance {
    int64_t unequal;
    double relative; /* ‖copy−base‖ / ‖base‖ */
} distance;

static distance measure(const tn_tensor_info *copy, const tn_tensor_info *base) {
    float x[PIECE], y[PIECE];
    double apart = 0, norm = 0;
    distance d = {0};
    for (int64_t at = 0; at < copy->elements; at += PIECE) {
        const int64_t n = copy->elements - at < PIECE ? copy->elements - at : PIECE;
        tn_dequantize(copy->dtype, copy->data, at, n, x);
        tn_tensor_values(base, at, n, y);
        for (int64_t i = 0; i < n; i++) {
            apart += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
            norm += (double)y[i] * y[i];
            if (x[i] != y[i] && x[i] != rounded(copy->dtype, y[i]) && y[i] != rounded(base->dtype, x[i]))
                d.unequal++;
        }
    }
    d.relative = norm > 0 ? sqrt(apart / norm) : apart > 0 ? INFINITY : 0;
    return d;
}

/* The base's tensor for a module; NULL where its weights are not at hand. */
static const tn_tensor_info *stored(const tn_base *base, tn_module module) {
    char name[128];
    const bool tied = module == TN_MODULE_HEAD && base->arch->tied;
    tn_tensor_name(tied ? TN_MODULE_EMBED : module, -1, false, name);
    return base->files ? tn_model_files_find(base->files, name) : NULL;
}

static bool is_table(const tn_tensor_info *t, int64_t rows, int64_t cols) {
    return t->rank == 2 && t->shape[0] == rows && t->shape[1] == cols;
}

static tn_status say(const char **text, const char *made) {
    *text = made;
    return made ? TN_OK : tn_fail_memory(256, "an accounting");
}

tn_status tn_base_copy_compare(const tn_tensor_info *copy, tn_module module, const tn_base *base,
                               tn_arena *arena, const char **difference) {
    const tn_tensor_info *own = stored(base, module);
    int64_t rows, cols;
    char shape[128];
    *difference = NULL;
    tn_module_shape(base->arch, module, &rows, &cols);
    if (!is_table(copy, rows, cols) || !tn_dtype_is_float(copy->dtype))
        return say(difference, tn_arena_printf(arena, "%s: %s %s in the file, [%lld, %lld] in the base",
                                               copy->name, tn_dtype_name(copy->dtype),
                                               tn_shape_text(copy, shape), (long long)rows, (long long)cols));
    const bool plain = own && tn_dtype_is_float(own->dtype);
    if (!own || !is_table(own, rows, cols) || !(plain || tn_dtype_is_block(own->dtype))) {
        tn_warn("%s: %s cannot be compared with the base, whose weights are not at hand", copy->file,
                copy->name);
        return TN_OK;
    }
    const distance d = measure(copy, own);
    if (d.unequal > 0 && !(!plain && d.relative <= farthest_quantised))
        return say(
            difference,
            tn_arena_printf(
                arena, "%s: %lld of %lld values are not those of %s in %s (relative difference %.1e)",
                copy->name, (long long)d.unequal, (long long)copy->elements, own->name, own->file, d.relative));
    if (d.unequal > 0)
        tn_warn(
            "%s: %s is a copy of the base's weight, which is quantised here (%s, %.1e away): the base's own is "
            "used",
            copy->file, copy->name, tn_dtype_name(own->dtype), d.relative);
    return TN_OK;
}
