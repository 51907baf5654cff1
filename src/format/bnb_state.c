/* bnb_state.c: groups of tensors become weights with scales. Everything a state claims is held against the
 * tensors beside it, so that no later code has to doubt a count: codes and scales are as long as shape and
 * block size say.
 */
#include "format/bnb_state.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/json.h"

static const char state_mark[] = ".quant_state.bitsandbytes__";

typedef struct fold {
    tn_arena *arena;
    const tn_name_table *names;
    tn_tensor_info *tensors;
    bool *taken; /* companions, by index */
} fold;

static tn_status damaged(const tn_tensor_info *t, const char *what) {
    tn_fail(TN_BAD_DATA, "%s: tensor %s: %s", t->file, t->name, what);
    return tn_remedy("the checkpoint is damaged or incomplete; fetch it again, all files of it");
}

/* The tensor called `stem` + `suffix`, which leaves the list; NULL where absent. */
static const tn_tensor_info *take(const fold *f, const char *stem, const char *suffix) {
    const char *name = tn_arena_printf(f->arena, "%s%s", stem, suffix);
    const tn_tensor_info *t = name ? tn_name_table_find(f->names, name) : NULL;
    if (t) f->taken[t - f->tensors] = true;
    return t;
}

/* A companion of `weight` that must be there with `count` elements (any shape). */
static tn_status need(const fold *f, const tn_tensor_info *weight, const char *stem, const char *suffix,
                      tn_dtype dtype, int64_t count, const void **data) {
    const tn_tensor_info *t = take(f, stem, suffix);
    tn_status status = TN_OK;
    if (!t) {
        tn_fail(TN_BAD_DATA, "%s: tensor %s is quantised, and %s%s, which belongs to it, is missing",
                weight->file, weight->name, stem, suffix);
        return tn_remedy("fetch all files of the checkpoint again");
    }
    if (t->dtype != dtype || t->elements != count) {
        tn_fail(TN_BAD_DATA, "%s: tensor %s holds %lld values of %s where %s needs %lld of %s", t->file,
                t->name, (long long)t->elements, tn_dtype_name(t->dtype), weight->name, (long long)count,
                tn_dtype_name(dtype));
        return tn_remedy("the checkpoint is damaged, or its parts are not of one model; fetch it again");
    }
    *data = t->data;
    if (dtype != TN_DTYPE_F32 || (uintptr_t)t->data % sizeof(float) == 0) return status;
    void *copy = tn_arena_take(f->arena, t->bytes); /* tensors may lie at odd addresses */
    if (!copy) return tn_fail_memory(t->bytes, t->name);
    memcpy(copy, t->data, (size_t)t->bytes);
    *data = copy;
    return status;
}

/* ---- Four bits ----------------------------------------------------------------------------------------- */

static tn_status read_state(const fold *f, const tn_tensor_info *weight, const tn_tensor_info *text,
                            const tn_json **state) {
    if (text->dtype != TN_DTYPE_U8) return damaged(text, "a quant_state is JSON in bytes (uint8)");
    tn_status status = tn_json_parse(f->arena, text->data, text->bytes, TN_JSON_EXTENSIONS, text->name, state);
    if (status == TN_OK && (*state)->type != TN_JSON_OBJECT) return damaged(text, "it is no JSON object");
    return status == TN_OK ? status : tn_context(status, "%s: the quant_state of %s", text->file, weight->name);
}

/* Format and shape, and that the codes are as many bytes as both say. */
static tn_status read_shape(const tn_json *state, const char *kind, tn_tensor_info *t) {
    const tn_json *shape = tn_json_get(state, "shape");
    int64_t bytes;
    t->dtype = strcmp(kind, "nf4") == 0 ? TN_DTYPE_NF4 : TN_DTYPE_FP4;
    if (strcmp(kind, "nf4") != 0 && strcmp(kind, "fp4") != 0) {
        tn_fail(TN_USAGE, "%s: tensor %s is quantised by bitsandbytes as %s, which is not supported", t->file,
                t->name, kind);
        return tn_remedy("nf4, fp4 and int8 are; or take the 16-bit model with load_in_4bit");
    }
    if (!tn_json_is_string(tn_json_get(state, "quant_type"), kind))
        return damaged(t, "the quant_type of its quant_state is not the one in the state's name");
    if (!shape || shape->type != TN_JSON_ARRAY || shape->count != 2)
        return damaged(t, "the shape in its quant_state is no pair of sizes");
    t->rank = 2, t->elements = 1;
    for (int i = 0; i < 2; i++) {
        t->shape[i] = shape->items[i].type == TN_JSON_INTEGER ? shape->items[i].integer : 0;
        if (t->shape[i] <= 0 || !tn_mul(t->elements, t->shape[i], &t->elements))
            return damaged(t, "the shape in its quant_state is no pair of sizes");
    }
    if (!tn_dtype_bytes(t->dtype, t->elements, &bytes) || bytes != t->bytes)
        return damaged(t, "its codes are not as many as the shape in its quant_state says");
    return TN_OK;
}

static bool is_code_book(tn_dtype dtype, const float *values) {
    const float *book = tn_dtype_code_book(dtype);
    bool same = true;
    for (int i = 0; i < 16; i++) same = same && fabsf(values[i] - book[i]) <= 1e-5f;
    return same;
}

static tn_status read_nested(const fold *f, const tn_json *state, const tn_tensor_info *t, int64_t blocks,
                             tn_scales *s) {
    const tn_json *offset = tn_json_get(state, "nested_offset");
    const double value = tn_json_number(offset, NAN);
    const void *codes, *nested, *map;
    tn_status status;
    s->nested_block = tn_json_integer(tn_json_get(state, "nested_blocksize"), 0);
    if (s->nested_block <= 0) return damaged(t, "the nested_blocksize in its quant_state is no size");
    if (!(fabs(value) <= FLT_MAX)) return damaged(t, "the nested_offset in its quant_state is no number");
    TN_TRY(need(f, t, t->name, ".absmax", TN_DTYPE_U8, blocks, &codes));
    TN_TRY(need(f, t, t->name, ".nested_absmax", TN_DTYPE_F32,
                blocks / s->nested_block + (blocks % s->nested_block > 0), &nested));
    TN_TRY(need(f, t, t->name, ".nested_quant_map", TN_DTYPE_F32, 256, &map));
    s->codes = codes, s->nested = nested, s->map = map, s->offset = (float)value;
done:
    return status;
}

static tn_status fold_four_bits(const fold *f, const tn_tensor_info *text, const char *mark) {
    const char *kind = mark + sizeof state_mark - 1;
    const char *name = tn_arena_text(f->arena, text->name, mark - text->name);
    const tn_tensor_info *found = name ? tn_name_table_find(f->names, name) : NULL;
    tn_scales *s = tn_arena_take(f->arena, (int64_t)sizeof *s);
    const tn_json *state;
    const void *book, *absmax;
    tn_status status;
    if (!name || !s) return tn_fail_memory(256, "a quant_state");
    if (!found) return damaged(text, "the weight that it describes is missing");
    if (found->scales) return damaged(text, "its weight has two quant_states");
    tn_tensor_info *t = &f->tensors[found - f->tensors];
    TN_TRY(read_state(f, t, text, &state));
    TN_TRY(read_shape(state, kind, t));
    TN_TRY(need(f, t, t->name, ".quant_map", TN_DTYPE_F32, 16, &book));
    if (!is_code_book(t->dtype, book)) {
        tn_fail(TN_USAGE, "%s: tensor %s: its quant_map is not the one of %s", t->file, t->name, kind);
        tn_remedy("take the 16-bit model with load_in_4bit");
        status = TN_USAGE;
        goto done;
    }
    s->block = tn_json_integer(tn_json_get(state, "blocksize"), 0);
    if (s->block < 32 || s->block > 4096 || (s->block & (s->block - 1)))
        return damaged(t, "the blocksize in its quant_state is no power of two from 32 to 4096");
    int64_t blocks = t->elements / s->block + (t->elements % s->block > 0);
    if (tn_json_get(state, "nested_blocksize")) TN_TRY(read_nested(f, state, t, blocks, s));
    else {
        TN_TRY(need(f, t, t->name, ".absmax", TN_DTYPE_F32, blocks, &absmax));
        s->absmax = absmax;
    }
    t->scales = s;
    f->taken[text - f->tensors] = true;
done:
    return status;
}

/* ---- Eight bits ---------------------------------------------------------------------------------------- */

static tn_status fold_eight_bits(const fold *f, const tn_tensor_info *weight) {
    tn_tensor_info *t = &f->tensors[weight - f->tensors];
    const char *stem = tn_arena_text(f->arena, t->name, (int64_t)(strlen(t->name) - strlen("weight")));
    tn_scales *s = tn_arena_take(f->arena, (int64_t)sizeof *s);
    const void *absmax;
    tn_status status;
    if (!stem || !s) return tn_fail_memory(256, "scales");
    TN_TRY(need(f, t, stem, "SCB", TN_DTYPE_F32, t->shape[0], &absmax));
    const tn_tensor_info *layout = take(f, stem, "weight_format");
    if (layout && (layout->dtype != TN_DTYPE_U8 || layout->elements != 1))
        return damaged(layout, "it is no single byte");
    if (layout && *(const uint8_t *)layout->data != 0) {
        tn_fail(TN_USAGE, "%s: tensor %s: rows of int8 are reordered (format %d), which is not supported",
                t->file, t->name, *(const uint8_t *)layout->data);
        return tn_remedy("save the model again with a current bitsandbytes, or take the 16-bit one");
    }
    *s = (tn_scales){.block = t->shape[1], .absmax = absmax};
    t->dtype = TN_DTYPE_LLM_INT8, t->scales = s;
done:
    return status;
}

tn_status tn_bnb_fold(tn_arena *arena, const tn_name_table *names, tn_tensor_info *tensors, int64_t *count) {
    fold f = {arena, names, tensors, tn_arena_take(arena, *count + 1)};
    int64_t kept = 0;
    tn_status status = TN_OK;
    if (!f.taken) return tn_fail_memory(*count, "a list of tensors");
    for (int64_t i = 0; i < *count; i++) {
        const tn_tensor_info *t = &tensors[i];
        const char *mark = strstr(t->name, state_mark);
        if (mark) TN_TRY(fold_four_bits(&f, t, mark));
        else if (t->dtype == TN_DTYPE_I8 && t->rank == 2 && t->shape[1] > 0 && tn_ends_with(t->name, ".weight"))
            TN_TRY(fold_eight_bits(&f, t));
    }
    for (int64_t i = 0; i < *count; i++)
        if (!f.taken[i]) tensors[kept++] = tensors[i];
    *count = kept;
done:
    return status;
}
