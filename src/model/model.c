/* model.c: builds the layers from architecture, files and adapter, and gives every weight its place. Each
 * loaded piece (a linear group, a vector, the embedding) is a tn_placement: where its values come from and
 * which region they go to. Placing walks the list to count or to hand out memory; loading walks it again to
 * fill it.
 */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/base_values.h"
#include "model/model_internal.h"
#include "op/dora.h"
#include "op/source.h"

void tn_find_tensor(tn_finder *f, const char *name, int64_t rows, int64_t cols, float std, tn_source *source) {
    tn_model *model = f->model;
    char shape[128];
    *source = (tn_source){.std = std, .seed = model->seed ^ tn_random_name(name)};
    if (!model->files) return;
    const tn_tensor_info *t = tn_model_files_find(model->files, name);
    bool matrix = t && t->rank >= 2 && t->shape[0] == rows && t->elements == rows * cols; /* or a kernel's */
    bool fits = t && (cols ? matrix : t->rank == 1 && t->shape[0] == rows);
    if (fits && !tn_dtype_is_float(t->dtype) && !tn_dtype_is_block(t->dtype)) fits = false;
    if (fits) {
        source->tensor = t;
        f->found++;
        if (tn_model_files_permuted(model->files, t)) source->permuted_head_dim = model->arch->head_dim;
        if (tn_dtype_is_block(t->dtype)) model->block_weights = true;
        return;
    }
    if (f->missing++ >= 4) return;
    tn_str_printf(&f->problems, "%s%s is ", f->problems.length ? "; " : "", name);
    if (!t) tn_str_puts(&f->problems, "missing");
    else {
        tn_str_printf(&f->problems, "%s %s, %lld", tn_dtype_name(t->dtype), tn_shape_text(t, shape),
                      (long long)rows);
        if (cols) tn_str_printf(&f->problems, " x %lld", (long long)cols);
        tn_str_puts(&f->problems, " was expected");
    }
}

static void find_matrix(tn_finder *f, tn_module module, int64_t layer, tn_source *source) {
    const tn_arch *arch = f->model->arch;
    char name[128];
    int64_t rows, cols;
    tn_module_shape(arch, module, &rows, &cols);
    tn_find_tensor(f, tn_tensor_name(module, layer, false, name), rows, cols,
                   tn_tensor_std(arch, module, false), source);
    if (module >= TN_MODULES_PER_LAYER) return; /* the tables stay as they are, as bitsandbytes leaves them */
    source->quantise_to = f->model->quantise_to;
    if (source->quantise_to) f->model->block_weights = true;
}

tn_status tn_new_placement(tn_model *model, tn_placement **out) {
    tn_status status = tn_grow(&model->placements, &model->placement_capacity, model->placement_count + 1,
                               (int64_t)sizeof **out, "placements");
    if (status != TN_OK) return status;
    *out = &model->placements[model->placement_count++];
    **out = (tn_placement){0};
    return TN_OK;
}

/* A norm's weight or a linear's bias. */
static tn_status add_vector(tn_finder *f, tn_module module, int64_t layer, tn_param_kind kind,
                            const void **vector, float **gradient) {
    const bool bias = kind == TN_PARAM_BIAS;
    tn_placement *p;
    char name[128];
    int64_t cols, width;
    tn_status status = tn_new_placement(f->model, &p);
    if (status != TN_OK) return status;
    tn_tensor_name(module, layer, bias, name);
    tn_module_shape(f->model->arch, module, &cols, &width);
    *p = (tn_placement){.vector = vector,
                        .cols = cols,
                        .param = tn_adapter_find(f->model->adapter, module, layer, kind),
                        .gradient = gradient};
    tn_find_tensor(f, name, cols, 0, tn_tensor_std(f->model->arch, module, bias), &p->source[0]);
    return TN_OK;
}

/* Stands for "trained in full" until tn_model_bind_adapter knows the place: backends size a weight by whether
 * it has a master. */
static const float unbound_master = 0;

static tn_status add_part(tn_finder *f, tn_linear *linear, tn_module module, int64_t layer, tn_source *source) {
    tn_model *model = f->model;
    tn_part *part = &linear->part[linear->parts++];
    tn_status status = TN_OK;
    tn_module_shape(model->arch, module, &part->weight.rows, &part->weight.cols);
    linear->in = part->weight.cols;
    linear->out += part->weight.rows;
    const tn_param *a = tn_adapter_find(model->adapter, module, layer, TN_PARAM_LORA_A);
    if (a) {
        part->lora.r = a->shape[0];
        part->lora.scale = (float)a->scale;
        part->lora.dora = tn_adapter_find(model->adapter, module, layer, TN_PARAM_MAGNITUDE) != NULL;
        linear->rank += a->shape[0];
    }
    if (tn_adapter_find(model->adapter, module, layer, TN_PARAM_WEIGHT)) part->master = &unbound_master;
    part->weight.dtype = model->device->dtype;
    if (source) {
        find_matrix(f, module, layer, source);
        part->weight.dtype = tn_source_held(source, model->device->dtype, part->master != NULL);
    }
    if (tn_module_has_bias(model->arch, module))
        status = add_vector(f, module, layer, TN_PARAM_BIAS, &part->bias, &part->dbias);
    return status;
}

static tn_status add_linear(tn_finder *f, tn_linear *linear, const tn_module *modules, int count, int64_t layer,
                            int group, int64_t *border) {
    tn_placement *p;
    tn_source source[TN_MAX_PARTS];
    tn_status status = TN_OK;
    linear->site = (uint32_t)(layer * 8 + group);
    for (int i = 0; i < count; i++) TN_TRY(add_part(f, linear, modules[i], layer, &source[i]));
    linear->border = tn_border(linear->rank);
    if (linear->border > *border) *border = linear->border;
    TN_TRY(tn_new_placement(f->model, &p));
    p->linear = linear;
    memcpy(p->source, source, sizeof source);
done:
    return status;
}

static tn_status add_norm(tn_finder *f, tn_module module, int64_t layer, const void **weight,
                          float **gradient) {
    return add_vector(f, module, layer, TN_PARAM_WEIGHT, weight, gradient);
}

static tn_status build_layer(tn_finder *f, int64_t index) {
    static const tn_module qkv[] = {TN_MODULE_Q, TN_MODULE_K, TN_MODULE_V}, o[] = {TN_MODULE_O};
    static const tn_module gate_up[] = {TN_MODULE_GATE, TN_MODULE_UP}, down[] = {TN_MODULE_DOWN};
    tn_model *m = f->model;
    const tn_arch *a = m->arch;
    tn_layer *layer = &m->layers[index];
    tn_status status;
    layer->turns = !a->layer_rope || a->layer_rope[index];
    layer->window = a->window && (!a->layer_windowed || a->layer_windowed[index]) ? a->window : 0;
    TN_TRY(add_norm(f, TN_MODULE_NORM1, index, &layer->norm1, &layer->dnorm1));
    TN_TRY(add_norm(f, TN_MODULE_NORM2, index, &layer->norm2, &layer->dnorm2));
    if (a->qk_norm) {
        TN_TRY(add_norm(f, TN_MODULE_Q_NORM, index, &layer->q_norm, &layer->dq_norm));
        TN_TRY(add_norm(f, TN_MODULE_K_NORM, index, &layer->k_norm, &layer->dk_norm));
    }
    TN_TRY(add_linear(f, &layer->qkv, qkv, 3, index, 0, &m->border_qkv));
    TN_TRY(add_linear(f, &layer->o, o, 1, index, 1, &m->border_o));
    TN_TRY(add_linear(f, &layer->gate_up, gate_up, 2, index, 2, &m->border_gate_up));
    status = add_linear(f, &layer->down, down, 1, index, 3, &m->border_down);
done:
    return status;
}

/* The head of a tied model is the embedding's weight itself, unless one of the two trains on its own (in full
 * fine-tuning they train as one). */
static tn_status build_head(tn_finder *f) {
    tn_model *m = f->model;
    const tn_adapter *adapter = m->adapter;
    bool apart = !adapter->full && (tn_adapter_find(adapter, TN_MODULE_EMBED, -1, TN_PARAM_WEIGHT) ||
                                    tn_adapter_find(adapter, TN_MODULE_HEAD, -1, TN_PARAM_WEIGHT));
    tn_placement *p;
    tn_source source = {0};
    tn_status status;
    m->head.site = (uint32_t)(m->arch->layers * 8);
    TN_TRY(add_part(f, &m->head, TN_MODULE_HEAD, -1, m->arch->tied ? NULL : &source));
    m->head.border = m->border_head = tn_border(m->head.rank);
    TN_TRY(tn_new_placement(m, &p));
    p->linear = &m->head;
    p->source[0] = source;
    if (!m->arch->tied) goto done;
    p->shared = !apart;
    find_matrix(f, TN_MODULE_EMBED, -1, &p->source[0]);
    m->head.part[0].weight.dtype =
        tn_source_held(&p->source[0], m->device->dtype, m->head.part[0].master != NULL);
done:
    return status;
}

/* Trained rows of the embedding: a small table beside it. */
static tn_status build_embed_rows(tn_model *m) {
    const tn_param *param = tn_adapter_tokens(m->adapter, m->arch, TN_MODULE_EMBED);
    tn_placement *p;
    if (!param) return TN_OK;
    tn_status status = tn_new_placement(m, &p);
    if (status != TN_OK) return status;
    m->embed_rows = (tn_rows){.ids = param->ids, .table = {.rows = param->shape[0], .cols = param->shape[1]}};
    *p = (tn_placement){.table = &m->embed_rows.table,
                        .cols = param->shape[1],
                        .param = param,
                        .gradient = &m->embed_rows.gradient};
    return TN_OK;
}

/* Trained rows of the head: a small linear beside it, which is all master. */
static tn_status build_head_rows(tn_model *m) {
    const tn_param *param = tn_adapter_tokens(m->adapter, m->arch, TN_MODULE_HEAD);
    tn_linear *linear = &m->head_rows.linear;
    tn_placement *p;
    if (!param) return TN_OK;
    tn_status status = tn_new_placement(m, &p);
    if (status != TN_OK) return status;
    m->head_rows.ids = param->ids;
    *linear = (tn_linear){
        .parts = 1,
        .part = {{.weight = {.dtype = m->device->dtype, .rows = param->shape[0], .cols = param->shape[1]},
                  .master = &unbound_master}},
        .in = param->shape[1],
        .out = param->shape[0],
        .site = (uint32_t)(m->arch->layers * 8 + 1)};
    p->linear = linear;
    return TN_OK;
}

static void find_lowest(tn_model *m) {
    m->lowest_trained = m->arch->layers;
    for (int64_t i = 0; i < m->adapter->param_count; i++) {
        const tn_param *p = &m->adapter->params[i];
        if (p->module == TN_MODULE_EMBED) m->lowest_trained = -1;
        else if (p->layer >= 0 && p->layer < m->lowest_trained) m->lowest_trained = p->layer;
    }
}

static bool is_known_extra(const tn_arch *arch, const char *name) {
    if (arch->vision && tn_starts_with(name, "visual."))
        return true; /* left unread where there are no pictures */
    return tn_ends_with(name, "rotary_emb.inv_freq") || strcmp(name, "lm_head.weight") == 0;
}

/* A tensor that nothing reads is said aloud: the model may be of another kind than its config claims. */
static void warn_unused(const tn_model *m, int64_t found) {
    int64_t unused = 0;
    const char *example = NULL;
    if (tn_model_files_count(m->files) <= found) return;
    for (int64_t i = 0; i < tn_model_files_count(m->files); i++) {
        const tn_tensor_info *t = tn_model_files_at(m->files, i);
        bool used = is_known_extra(m->arch, t->name);
        for (int64_t j = 0; j < m->placement_count && !used; j++)
            for (int k = 0; k < TN_MAX_PARTS; k++) used = used || m->placements[j].source[k].tensor == t;
        if (!used && unused++ == 0) example = t->name;
    }
    if (unused > 0)
        tn_warn("%s: %lld tensors of the model are not used (%s, …)", tn_model_files_path(m->files),
                (long long)unused, example);
}

static tn_status build(tn_finder *f) {
    tn_model *m = f->model;
    const tn_arch *a = m->arch;
    tn_placement *embed;
    tn_status status;
    TN_TRY(tn_new_placement(m, &embed));
    embed->table = &m->embed;
    embed->cols = a->hidden;
    embed->param = tn_adapter_find(m->adapter, TN_MODULE_EMBED, -1, TN_PARAM_WEIGHT);
    embed->gradient = &m->embed_grad;
    find_matrix(f, TN_MODULE_EMBED, -1, &embed->source[0]);
    m->embed = (tn_weight){.rows = a->vocab, .cols = a->hidden};
    TN_TRY(build_embed_rows(m));
    for (int64_t i = 0; i < a->layers; i++) TN_TRY(build_layer(f, i));
    TN_TRY(add_norm(f, TN_MODULE_FINAL_NORM, -1, &m->final_norm, &m->dfinal_norm));
    TN_TRY(build_head(f));
    TN_TRY(build_head_rows(m));
    if (m->sees) TN_TRY(tn_vision_build(f, a->vision));
    if (f->missing) {
        status = tn_fail(TN_BAD_DATA, "%s: %s%s", tn_model_files_path(m->files), tn_str_text(&f->problems),
                         f->missing > 4 ? "; and more" : "");
        tn_remedy("%lld tensors do not fit config.json; check that weights and configuration belong together",
                  (long long)f->missing);
        goto done;
    }
    find_lowest(m);
    if (m->files) warn_unused(m, f->found);
done:
    return status;
}

tn_status tn_model_new(const tn_arch *arch, tn_device *device, const tn_model_files *files, tn_adapter *adapter,
                       uint64_t seed, tn_dtype quantise_to, bool sees, tn_model **out) {
    tn_status status;
    tn_finder f = {0};
    *out = NULL;
    if (!(f.model = calloc(1, sizeof *f.model))) return tn_fail_memory((int64_t)sizeof *f.model, "a model");
    *f.model = (tn_model){.arch = arch,
                          .device = device,
                          .files = files,
                          .adapter = adapter,
                          .seed = seed,
                          .quantise_to = quantise_to,
                          .sees = sees};
    TN_TRY(tn_alloc(&f.model->layers, arch->layers, (int64_t)sizeof *f.model->layers, "layers"));
    TN_TRY(build(&f));
    *out = f.model;
    f.model = NULL;
done:
    tn_str_free(&f.problems);
    tn_model_free(f.model);
    return status;
}

void tn_model_free(tn_model *model) {
    if (!model) return;
    free(model->layers);
    free(model->vision.blocks);
    free(model->placements);
    free(model);
}

static void sources_of(const tn_placement *p, const tn_source *out[TN_MAX_PARTS]) {
    for (int i = 0; i < TN_MAX_PARTS; i++) out[i] = p->shared ? NULL : &p->source[i];
}

/* A master is what operations read where they compute in fp32; else a rounded copy is. */
static int64_t copy_bytes(const tn_model *m, int64_t count) {
    return m->device->dtype == TN_DTYPE_F32 ? 0 : count * tn_dtype_block_bytes(m->device->dtype);
}

static const void *trained_values(const tn_model *m, const tn_placement *p) {
    return copy_bytes(m, 1) ? p->region : m->adapter->values + p->param->offset;
}

/* A vector is one row, but for a bias whose elements are permuted like the rows of its weight: a column. */
static bool is_column(const tn_placement *p) { return p->vector && p->source[0].permuted_head_dim; }
static int64_t cols_of(const tn_placement *p) { return is_column(p) ? 1 : p->cols; }
static int64_t rows_of(const tn_placement *p) {
    return is_column(p) ? p->cols : p->vector ? 1 : p->table->rows;
}

void tn_model_place(tn_model *model, tn_region *region) {
    const tn_backend *backend = model->device->backend;
    for (int64_t i = 0; i < model->placement_count; i++) {
        tn_placement *p = &model->placements[i];
        const tn_source *sources[TN_MAX_PARTS];
        int64_t bytes;
        sources_of(p, sources);
        if (p->linear) bytes = backend->linear_bytes(model->device, p->linear, sources);
        else if (p->param) bytes = copy_bytes(model, p->param->count);
        else bytes = backend->weight_bytes(model->device, rows_of(p), cols_of(p), sources[0]);
        p->region = tn_region_take(region, TN_SEGMENT_WEIGHTS, bytes);
    }
}

static void bind_full(const tn_adapter *adapter, tn_part *part, const tn_param *param) {
    part->master = adapter->values + param->offset;
    if (adapter->grads) part->dweight = adapter->grads + param->offset;
}

/* The linear that `module` is a part of, and which. */
static tn_linear *linear_of(const tn_model *m, tn_module module, int64_t layer, int *part) {
    *part = 0;
    if (module == TN_MODULE_HEAD) return &((tn_model *)(uintptr_t)m)->head;
    tn_layer *l = &m->layers[layer];
    if (module == TN_MODULE_O) return &l->o;
    if (module == TN_MODULE_DOWN) return &l->down;
    *part = module <= TN_MODULE_V ? (int)(module - TN_MODULE_Q) : (int)(module - TN_MODULE_GATE);
    return module <= TN_MODULE_V ? &l->qkv : &l->gate_up;
}

static void bind_part(tn_model *m, tn_module module, int64_t layer) {
    tn_adapter *adapter = m->adapter;
    int index;
    tn_linear *linear = linear_of(m, module, layer, &index);
    tn_part *part = &linear->part[index];
    const tn_param *a = tn_adapter_find(adapter, module, layer, TN_PARAM_LORA_A);
    const tn_param *b = tn_adapter_find(adapter, module, layer, TN_PARAM_LORA_B);
    const tn_param *magnitude = tn_adapter_find(adapter, module, layer, TN_PARAM_MAGNITUDE);
    const tn_param *w = tn_adapter_find(adapter, module, layer, TN_PARAM_WEIGHT);
    if (a && b) {
        part->lora.a = adapter->values + a->offset, part->lora.b = adapter->values + b->offset;
        if (adapter->grads)
            part->lora.da = adapter->grads + a->offset, part->lora.db = adapter->grads + b->offset;
    }
    if (magnitude) {
        part->lora.magnitude = adapter->values + magnitude->offset;
        if (adapter->grads) part->lora.dmagnitude = adapter->grads + magnitude->offset;
    }
    if (w) bind_full(adapter, part, w);
}

void tn_model_bind_adapter(tn_model *m) {
    for (int64_t i = 0; i < m->arch->layers; i++)
        for (int module = 0; module < TN_MODULES_PER_LAYER; module++) bind_part(m, (tn_module)module, i);
    bind_part(m, TN_MODULE_HEAD, -1);
    const tn_param *rows = tn_adapter_tokens(m->adapter, m->arch, TN_MODULE_HEAD);
    if (rows) bind_full(m->adapter, &m->head_rows.linear.part[0], rows);
    for (int64_t i = 0; m->adapter->grads && i < m->placement_count; i++)
        if (m->placements[i].param)
            *m->placements[i].gradient = m->adapter->grads + m->placements[i].param->offset;
    if (m->adapter->full && m->arch->tied) m->head.part[0].dweight = m->embed_grad;
}

tn_status tn_model_load(tn_model *m) {
    const tn_backend *backend = m->device->backend;
    tn_status status = TN_OK;
    for (int64_t i = 0; i < m->placement_count; i++) {
        tn_placement *p = &m->placements[i];
        const tn_source *sources[TN_MAX_PARTS];
        tn_weight vector;
        sources_of(p, sources);
        if (p->linear) {
            if (p->shared) p->linear->part[0].weight = m->embed; /* placed first */
            TN_TRY(backend->linear_load(m->device, p->linear, sources, p->region));
        } else if (p->param) { /* the values are the adapter's, now or at tn_model_refresh */
            if (p->vector) *p->vector = trained_values(m, p);
            else
                *p->table = (tn_weight){.data = trained_values(m, p),
                                        .dtype = m->device->dtype,
                                        .rows = p->table->rows,
                                        .cols = p->cols,
                                        .stride = p->cols};
        } else if (p->vector) {
            TN_TRY(backend->weight_load(m->device, rows_of(p), cols_of(p), sources[0], p->region, &vector));
            *p->vector = vector.data;
        } else TN_TRY(backend->weight_load(m->device, rows_of(p), p->cols, sources[0], p->region, p->table));
    }
    status = backend->load_finish(m->device);
done:
    return status;
}

tn_status tn_model_refresh(tn_model *m) {
    const tn_backend *backend = m->device->backend;
    tn_status status = TN_OK;
    for (int64_t i = 0; i < m->placement_count; i++) {
        tn_linear *linear = m->placements[i].linear;
        bool trained = linear && linear->rank > 0;
        for (int p = 0; linear && p < linear->parts; p++) trained = trained || linear->part[p].master;
        if (trained) TN_TRY(backend->linear_refresh(m->device, linear));
        const tn_param *param = m->placements[i].param;
        if (param && copy_bytes(m, param->count))
            TN_TRY(backend->weight_refresh(m->device, param->count, m->adapter->values + param->offset,
                                           m->placements[i].region));
    }
done:
    return status;
}

/* A magnitude begins as the norms of its rows, so that the adapter changes nothing at first. */
static tn_status norms_of(tn_model *m, const tn_param *param, float *values) {
    const tn_backend *backend = m->device->backend;
    int part;
    tn_linear *linear = linear_of(m, param->module, param->layer, &part);
    const float *norm = linear->norm;
    for (int p = 0; p < part; p++) norm += linear->part[p].weight.rows;
    tn_status status = backend->linear_refresh(m->device, linear);
    if (status != TN_OK) return status;
    return backend->download(m->device, values, norm, param->count * (int64_t)sizeof *values);
}

tn_status tn_model_base_values(void *user, const tn_param *param, float *values) {
    const tn_model *m = user;
    char name[128];
    if (param->kind == TN_PARAM_MAGNITUDE) return norms_of(user, param, values);
    const bool bias = param->kind == TN_PARAM_BIAS, tied = param->module == TN_MODULE_HEAD && m->arch->tied;
    const tn_module module = tied ? TN_MODULE_EMBED : param->module;
    tn_tensor_name(module, param->layer, bias, name);
    const tn_tensor_info *t = m->files ? tn_model_files_find(m->files, name) : NULL;
    if (t && param->ids)
        for (int64_t i = 0; i < param->shape[0]; i++)
            tn_base_row(m->files, t, m->arch->head_dim, param->ids[i], values + i * param->shape[1]);
    else if (t) tn_base_tensor(m->files, t, m->arch->head_dim, values);
    else
        tn_random_weights(m->seed ^ tn_random_name(name), tn_tensor_std(m->arch, module, bias), param->count,
                          values);
    return TN_OK;
}

void tn_model_multiply_in_fp8(tn_model *m) {
    for (int64_t i = 0; i < m->placement_count; i++) {
        tn_linear *linear = m->placements[i].linear;
        if (linear && linear->site / 8 < m->arch->layers) linear->fp8_products = true;
    }
}

tn_limits tn_model_limits(const tn_model *m, int64_t rows, int64_t documents, int64_t longest,
                          int64_t head_rows, bool backward, bool dropout) {
    const tn_arch *a = m->arch;
    tn_limits limits = {.rows = rows,
                        .documents = documents,
                        .longest = longest,
                        .hidden = a->hidden,
                        .intermediate = a->intermediate,
                        .heads = a->heads,
                        .kv_heads = a->kv_heads,
                        .head_dim = a->head_dim,
                        .vocab = a->vocab,
                        .head_rows = head_rows,
                        .backward = backward,
                        .dropout = dropout,
                        .block_weights = m->block_weights};
    for (int64_t i = 0; i < m->placement_count; i++) {
        const tn_linear *linear = m->placements[i].linear;
        if (!linear) continue;
        if (linear->rank > limits.rank) limits.rank = linear->rank;
        if (tn_has_dora(linear) && linear->out + linear->border > limits.dora)
            limits.dora = linear->out + linear->border;
        if (linear->fp8_products) limits.fp8_products = true;
        if (tn_linear_has_blocks(linear) && linear->in * linear->out > limits.largest_weight)
            limits.largest_weight = linear->in * linear->out;
    }
    return limits;
}
