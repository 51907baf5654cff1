/* fp8_state.c: a weight in FP8 takes its scales to itself, as fp32 whatever the file holds (fp32, a 16-bit
 * float, or E8M0: a power of two in a byte). What the numbers of scales mean is read off their shape: one
 * factor becomes one a row, so that every row of most checkpoints has its own; one a column or a tile stays
 * what it is (tn_scales).
 */
#include "format/fp8_state.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/integer.h"
#include "base/number.h"

typedef struct fold {
    tn_arena *arena;
    const tn_name_table *names;
    tn_tensor_info *tensors;
    bool *taken;        /* companions, by index */
    int64_t rows, cols; /* of a tile, by the configuration; 0 where it names none */
} fold;

enum { USUAL_TILE = 128 };

static int64_t divide_up(int64_t a, int64_t b) { return a / b + (a % b > 0); }

/* ---- Finding the scales -------------------------------------------------------------------------------- */

static const tn_tensor_info *take(const fold *f, const char *name) {
    const tn_tensor_info *t = name ? tn_name_table_find(f->names, name) : NULL;
    if (t) f->taken[t - f->tensors] = true;
    return t;
}

static const tn_tensor_info *find_scale(const fold *f, const tn_tensor_info *t) {
    static const char *const endings[] = {"%s.weight_scale_inv", "%s.weight_scale", "%s_scale_inv", "%s_scale"};
    const bool plain = tn_ends_with(t->name, ".weight");
    const int64_t length = (int64_t)(strlen(t->name) - (plain ? strlen(".weight") : 0));
    const char *stem = tn_arena_text(f->arena, t->name, length);
    const tn_tensor_info *found = NULL;
    for (int i = 0; i < 4 && stem && !found; i++)
        found = take(f, i < 2 ? tn_arena_printf(f->arena, endings[i], stem)
                              : tn_arena_printf(f->arena, endings[i], t->name));
    if (stem) take(f, tn_arena_printf(f->arena, "%s.input_scale", stem)); /* of activations */
    return found;
}

static tn_status misfit(const tn_tensor_info *t, const tn_tensor_info *scale) {
    char own[128], other[128];
    tn_fail(TN_BAD_DATA, "%s: tensor %s: scales %s %s do not fit codes %s", scale->file, scale->name,
            tn_dtype_name(scale->dtype), tn_shape_text(scale, other), tn_shape_text(t, own));
    return tn_remedy(
        "one factor, one a row, one a column or one a tile are known (tiles by weight_block_size of "
        "config.json, "
        "else 128 x 128); fetch the checkpoint again, or take the 16-bit model with load_in_fp8");
}

/* ---- What they mean ------------------------------------------------------------------------------------ */

/* Tiles by the configuration, else the usual ones, else what divides the matrix evenly. False where none fits.
 * A tile is never larger than the matrix, whatever the configuration says: sums with its sides must not
 * overflow.
 */
static bool find_tile(const fold *f, const tn_tensor_info *t, const int64_t grid[2], tn_scales *s) {
    const int64_t *size = t->shape;
    s->tile = tn_min(f->rows ? f->rows : USUAL_TILE, size[0]);
    s->block = tn_min(f->cols ? f->cols : USUAL_TILE, size[1]);
    if (divide_up(size[0], s->tile) == grid[0] && divide_up(size[1], s->block) == grid[1]) return true;
    if (f->rows || grid[0] <= 0 || grid[1] <= 0 || size[0] % grid[0] || size[1] % grid[1]) return false;
    s->tile = size[0] / grid[0], s->block = size[1] / grid[1];
    return true;
}

/* Which element shares a factor with which; *repeat is how often a factor stands in the list. */
static bool read_shape(const fold *f, const tn_tensor_info *t, const tn_tensor_info *scale, tn_scales *s,
                       int64_t *repeat) {
    const int64_t rows = t->shape[0], cols = t->shape[1];
    const bool table = scale->rank == 2;
    *s = (tn_scales){.block = cols, .tile = 1, .cols = cols};
    *repeat = 1;
    if (scale->elements == 1) {
        *repeat = rows;
        return true;
    }
    if (scale->elements == rows && (scale->rank == 1 || (table && scale->shape[0] == rows))) return true;
    if (!table) return false;
    if (scale->shape[0] == 1 && scale->shape[1] == cols) {
        s->block = 1, s->tile = rows;
        return true;
    }
    return find_tile(f, t, scale->shape, s);
}

static bool has_values(tn_dtype dtype) {
    return dtype == TN_DTYPE_U8 || dtype == TN_DTYPE_F8_E8M0 || tn_dtype_is_float(dtype);
}

static float value_at(const tn_tensor_info *scale, int64_t i) {
    const uint8_t *bytes = scale->data;
    float value;
    if (tn_dtype_is_float(scale->dtype)) {
        const int64_t size = tn_dtype_block_bytes(scale->dtype);
        uint16_t half;
        memcpy(scale->dtype == TN_DTYPE_F32 ? (void *)&value : &half, bytes + i * size, (size_t)size);
        return scale->dtype == TN_DTYPE_F32    ? value
               : scale->dtype == TN_DTYPE_BF16 ? tn_bf16_to_f32(half)
                                               : tn_f16_to_f32(half);
    }
    return bytes[i] == 255 ? NAN : ldexpf(1, bytes[i] - 127); /* E8M0 */
}

static tn_status fold_weight(const fold *f, tn_tensor_info *t) {
    const tn_tensor_info *scale = find_scale(f, t);
    tn_scales *s = tn_arena_take(f->arena, (int64_t)sizeof *s);
    int64_t repeat, bytes;
    if (!scale) {
        tn_fail(TN_BAD_DATA, "%s: tensor %s is in FP8, and its scales (%s_scale_inv or %s_scale) are missing",
                t->file, t->name, t->name, t->name);
        return tn_remedy("fetch all files of the checkpoint again");
    }
    if (!has_values(scale->dtype) || !read_shape(f, t, scale, s, &repeat)) return misfit(t, scale);
    if (!tn_mul(scale->elements * repeat, (int64_t)sizeof(float), &bytes)) return misfit(t, scale);
    float *values = tn_arena_take(f->arena, bytes);
    if (!s || !values) return tn_fail_memory(bytes, "scales");
    for (int64_t i = 0; i < scale->elements * repeat; i++) {
        values[i] = value_at(scale, i / repeat);
        if (fabsf(values[i]) <= FLT_MAX) continue;
        tn_fail(TN_BAD_DATA, "%s: tensor %s: scale %lld is not finite", scale->file, scale->name,
                (long long)(i / repeat));
        return tn_remedy("the checkpoint is damaged; fetch it again");
    }
    s->absmax = values;
    t->dtype = TN_DTYPE_FP8, t->scales = s;
    return TN_OK;
}

/* ---- The list ------------------------------------------------------------------------------------------ */

/* [128, 128], or "128x128" as older files of compressed-tensors have it. */
static void read_sizes(const tn_json *pair, int64_t *rows, int64_t *cols) {
    const char *text = tn_json_string(pair, NULL), *x = text ? strchr(text, 'x') : NULL;
    if (pair->type == TN_JSON_ARRAY && pair->count == 2) {
        *rows = tn_json_integer(&pair->items[0], 0);
        *cols = tn_json_integer(&pair->items[1], 0);
    } else if (!x || !tn_parse_integer(text, x - text, rows) ||
               !tn_parse_integer(x + 1, (int64_t)strlen(x + 1), cols))
        *rows = *cols = 0;
}

/* The first pair of sizes into the fold; null says nothing. `file` is one beside config.json. */
static tn_status read_tile(fold *f, const char *file, const char *key, const tn_json *pair) {
    if (f->rows || tn_json_is_null(pair)) return TN_OK;
    read_sizes(pair, &f->rows, &f->cols);
    if (f->rows > 0 && f->cols > 0) return TN_OK;
    tn_fail(TN_BAD_DATA, "%.*sconfig.json: %s is no pair of sizes", (int)(tn_path_base(file) - file), file,
            key);
    return tn_remedy("it has the rows and columns of a tile that shares a scale, such as [128, 128]");
}

static tn_status read_tiles(fold *f, const char *file, const tn_json *config) {
    const tn_json *quantisation = tn_json_get(config, "quantization_config");
    const tn_json *groups = tn_json_get(quantisation, "config_groups");
    static const char own[] = "weight_block_size", theirs[] = "weights.block_structure";
    tn_status status = read_tile(f, file, own, tn_json_get(quantisation, own));
    if (!groups || groups->type != TN_JSON_OBJECT) return status;
    for (int64_t i = 0; i < groups->count && status == TN_OK; i++)
        status = read_tile(f, file, theirs, tn_json_path(&groups->members[i].value, theirs));
    return status;
}

static bool is_coded(const tn_tensor_info *t) {
    return t->dtype == TN_DTYPE_F8_E4M3 && t->rank == 2 && t->elements > 0;
}

tn_status tn_fp8_fold(tn_arena *arena, const tn_json *config, const tn_name_table *names,
                      tn_tensor_info *tensors, int64_t *count) {
    fold f = {arena, names, tensors, tn_arena_take(arena, *count + 1), 0, 0};
    int64_t kept = 0;
    tn_status status = TN_OK;
    if (!f.taken) return tn_fail_memory(*count, "a list of tensors");
    for (int64_t i = 0; i < *count; i++) {
        if (!is_coded(&tensors[i])) continue;
        TN_TRY(read_tiles(&f, tensors[i].file, config));
        TN_TRY(fold_weight(&f, &tensors[i]));
    }
    for (int64_t i = 0; i < *count; i++)
        if (!f.taken[i]) tensors[kept++] = tensors[i];
    *count = kept;
done:
    return status;
}
