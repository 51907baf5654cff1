/* optimizer_state.c: see optimizer_state.h. A moment in 8 bits is saved as it stands on the device, codes and
 * scales, so that a resumed run goes on with the same bits.
 */
#include "train/optimizer_state.h"

#include <stdlib.h>

#include "quant/dynamic_map.h"

typedef enum state_kind {
    STATE_M,
    STATE_V,
    STATE_MASTER,
    STATE_M_SCALES,
    STATE_V_SCALES,
    STATE_KINDS
} state_kind;
static const char *const state_names[STATE_KINDS] = {"exp_avg", "exp_avg_sq", "master", "exp_avg.absmax",
                                                     "exp_avg_sq.absmax"};

/* One tensor of the file: where it is on the device, and what it is. */
typedef struct state {
    void *memory; /* NULL: the optimizer keeps no such thing of this parameter */
    tn_dtype dtype;
    int rank;
    int64_t shape[2], count;
} state;

static state wide_state(const tn_param *p, float *memory) {
    return (state){memory, TN_DTYPE_F32, p->rank, {p->shape[0], p->shape[1]}, p->count};
}

static state code_state(const tn_param *p, uint8_t *memory) {
    return (state){memory, TN_DTYPE_U8, p->rank, {p->shape[0], p->shape[1]}, p->count};
}

static state scale_state(const tn_param *p, float *memory) {
    const int64_t blocks = (p->count + TN_DYNAMIC_BLOCK - 1) / TN_DYNAMIC_BLOCK;
    return (state){memory, TN_DTYPE_F32, 1, {blocks, 1}, blocks};
}

static state state_of(const tn_adapter *a, const tn_param *p, state_kind kind) {
    const int64_t at = p->offset, block = at / TN_DYNAMIC_BLOCK;
    const bool second = kind == STATE_V || kind == STATE_V_SCALES;
    float *wide = second ? a->v : a->m, *scales = second ? a->v_absmax : a->m_absmax;
    uint8_t *codes = second ? a->v_codes : a->m_codes;
    if (kind == STATE_MASTER) return p->dtype == TN_DTYPE_F32 ? (state){0} : wide_state(p, a->values + at);
    if (at >= a->first_moment) {
        if (kind == STATE_M_SCALES || kind == STATE_V_SCALES || !wide) return (state){0};
        return wide_state(p, wide + (at - a->first_moment));
    }
    if (!codes) return (state){0};
    return kind == STATE_M || kind == STATE_V ? code_state(p, codes + at) : scale_state(p, scales + block);
}

static const char *state_name(tn_arena *arena, const tn_param *p, state_kind kind) {
    return tn_arena_printf(arena, "%s.%s", p->name, state_names[kind]);
}

static int64_t bytes_of(const state *s) { return s->count * tn_dtype_block_bytes(s->dtype); }

typedef struct saver {
    tn_device *device;
    void *bytes;
    state *declared;
} saver;

static tn_status give_state(void *user, int64_t index, const void **bytes) {
    saver *s = user;
    *bytes = s->bytes;
    return s->device->backend->download(s->device, s->bytes, s->declared[index].memory,
                                        bytes_of(&s->declared[index]));
}

static tn_status declare_all(const tn_engine *e, tn_arena *arena, tn_safetensors_writer *writer, saver *s,
                             int64_t *largest) {
    const tn_adapter *adapter = e->adapter;
    int64_t n = 0;
    tn_status status = TN_OK;
    *largest = 1;
    TN_TRY(tn_alloc(&s->declared, STATE_KINDS * adapter->param_count, (int64_t)sizeof *s->declared,
                    "optimizer state"));
    for (int64_t i = 0; i < adapter->param_count; i++)
        for (int kind = 0; kind < STATE_KINDS; kind++) {
            const tn_param *p = &adapter->params[i];
            const state one = state_of(adapter, p, (state_kind)kind);
            if (!one.memory) continue;
            TN_TRY(tn_safetensors_declare(writer, state_name(arena, p, (state_kind)kind), one.dtype, one.rank,
                                          one.shape));
            if (bytes_of(&one) > *largest) *largest = bytes_of(&one);
            s->declared[n++] = one;
        }
done:
    return status;
}

tn_status tn_optimizer_save(const tn_engine *e, const char *directory) {
    tn_arena arena = {0};
    saver s = {.device = e->device};
    tn_safetensors_writer *writer = NULL;
    int64_t largest;
    tn_status status;
    TN_TRY(tn_safetensors_writer_new(&writer));
    TN_TRY(tn_safetensors_metadata_add(writer, "optim", e->settings->optim));
    if (e->adapter->m_codes)
        TN_TRY(tn_safetensors_metadata_add(
            writer, "uint8",
            "index into the dynamic map of bitsandbytes (signed for exp_avg), times the absmax of "
            "its 256 neighbours in row-major order"));
    TN_TRY(declare_all(e, &arena, writer, &s, &largest));
    if (!(s.bytes = malloc((size_t)largest))) {
        status = tn_fail_memory(largest, "optimizer state");
        goto done;
    }
    status =
        tn_safetensors_write(writer, tn_path_join(&arena, directory, "optimizer.safetensors"), give_state, &s);
done:
    free(s.bytes);
    free(s.declared);
    tn_safetensors_writer_free(writer);
    tn_arena_free(&arena);
    return status;
}

tn_status tn_optimizer_load(tn_engine *e, const char *directory) {
    tn_arena arena = {0};
    tn_safetensors *file = NULL;
    const char *path = tn_path_join(&arena, directory, "optimizer.safetensors");
    tn_status status;
    TN_TRY(tn_safetensors_open(path, &file));
    for (int64_t i = 0; i < e->adapter->param_count; i++)
        for (int kind = 0; kind < STATE_KINDS; kind++) {
            const tn_param *p = &e->adapter->params[i];
            const state one = state_of(e->adapter, p, (state_kind)kind);
            if (!one.memory) continue;
            const tn_tensor_info *t = tn_safetensors_find(file, state_name(&arena, p, (state_kind)kind));
            if (!t || t->dtype != one.dtype || t->elements != one.count)
                TN_THROW(TN_BAD_DATA, "%s: the %s of %s is missing or of another size", path, state_names[kind],
                         p->name);
            TN_TRY(e->device->backend->upload(e->device, one.memory, t->data, t->bytes));
        }
done:
    tn_safetensors_close(file);
    tn_arena_free(&arena);
    return status;
}
