/* plan.c: what a run will need and do, before a byte is allocated: the placing code is run over a counting
 * region for each recompute policy until one fits. Also the work of a step in floating-point operations, and
 * the text of the banner.
 */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "train/engine.h"

enum { HEAD_ROWS = 1024, LONGEST_TRIED = 1 << 24 };

tn_moments tn_optimizer_moments(const tn_settings *s) {
    if (strcmp(s->optim, "sgd") == 0) return (tn_moments){.arrays = s->momentum > 0 ? 1 : 0};
    return (tn_moments){.arrays = strcmp(s->optim, "lion") == 0 ? 1 : 2,
                        .in_8_bits = tn_ends_with(s->optim, "adamw_8bit")};
}

static void count(tn_engine *e, tn_region *region, tn_region *pinned) {
    *region = *pinned = (tn_region){0};
    tn_model_place(e->model, region);
    tn_adapter_place(e->adapter, region, e->use == TN_USE_TRAIN, tn_optimizer_moments(e->settings));
    tn_pass_place(e->pass, region, pinned);
}

/* Policies worth trying for the setting, best first. Where the device's memory is the host's own, nothing is
 * moved out of it: offload is full there. */
static int candidates(const tn_engine *e, tn_policy out[TN_POLICIES]) {
    const char *setting = e->settings->gradient_checkpointing;
    const int last = e->device->pinnable > 0 ? TN_POLICY_OFFLOAD_INPUTS : TN_POLICY_FULL;
    int first = 0, count = 0;
    while (first < TN_POLICIES && strcmp(setting, tn_policy_name((tn_policy)first)) != 0) first++;
    if (first < TN_POLICY_OFFLOAD) {
        out[count++] = (tn_policy)first;
        return count;
    }
    if (first == TN_POLICIES) first = 0; /* auto */
    if (first > last) first = last;
    for (int p = first; p <= last; p++) out[count++] = (tn_policy)p;
    return count;
}

/* What the driver takes beside our block. */
static int64_t context_bytes(const tn_engine *e, const tn_memory_plan *plan) {
    const int64_t share = e->device->pinned_share;
    const tn_reducer *reducer = e->processes > 1 ? e->device->backend->reducer : NULL;
    return e->device->context_bytes + (reducer ? reducer->device_bytes : 0) +
           (share ? (plan->pinned.used + share - 1) / share : 0);
}

bool tn_engine_on_host(const tn_engine *e) { return e->device->pinnable == 0; }

int64_t tn_engine_pinnable(const tn_engine *e) { return e->device->pinnable / e->processes_here; }

/* Bytes of the device for this process. A GPU is its own; the host's memory is shared with the others. */
static int64_t available_bytes(const tn_engine *e) {
    if (e->settings->memory_limit >= 0) return e->settings->memory_limit;
    return e->device->memory_free / (tn_engine_on_host(e) ? e->processes_here : 1) + e->device->context_bytes;
}

static tn_status plan_with(tn_engine *e, const tn_pass_limits *limits, tn_memory_plan *plan) {
    tn_pass_free(e->pass);
    e->pass = NULL;
    tn_status status = tn_pass_new(e->model, limits, &e->pass);
    if (status != TN_OK) return status;
    plan->limits = *limits;
    count(e, &plan->region, &plan->pinned);
    plan->device_bytes = plan->region.used + context_bytes(e, plan);
    plan->available = available_bytes(e);
    plan->fits = plan->device_bytes <= plan->available && plan->pinned.used <= tn_engine_pinnable(e);
    return TN_OK;
}

static tn_status plan_shape(tn_engine *e, int64_t rows, int64_t documents, int64_t longest,
                            int64_t cache_length, tn_memory_plan *plan) {
    tn_policy policies[TN_POLICIES];
    int n = candidates(e, policies);
    tn_status status = TN_OK;
    for (int i = 0; i < n; i++) {
        tn_pass_limits limits = {.rows = rows,
                                 .documents = documents,
                                 .longest = longest,
                                 .head_rows = rows < HEAD_ROWS ? rows : HEAD_ROWS,
                                 .training = e->use == TN_USE_TRAIN,
                                 .policy = policies[i],
                                 .dropout = e->adapter->config && e->adapter->config->lora_dropout > 0,
                                 .patches = e->patches,
                                 .cache_length = cache_length};
        if (e->use == TN_USE_GENERATE) limits.head_rows = 1;
        status = plan_with(e, &limits, plan);
        if (status != TN_OK || plan->fits || !limits.training) return status;
    }
    return status;
}

static tn_status ensure_model(tn_engine *e) {
    if (e->model) return TN_OK;
    const tn_model_files *files = e->files && tn_model_files_count(e->files) > 0 ? e->files : NULL;
    tn_status status = tn_model_new(&e->arch, e->device, files, e->adapter, e->settings->seed, e->quantise_to,
                                    e->patches > 0, &e->model);
    if (status == TN_OK && e->settings->load_in_fp8) tn_model_multiply_in_fp8(e->model);
    return status;
}

/* Optimizer state beside the adapter, with the masters at most, in save_total_limit checkpoints and one being
 * written. */
static int64_t disk_bytes(const tn_engine *e) {
    int64_t adapter = 0, kept = e->settings->save_total_limit > 0 ? e->settings->save_total_limit : 1;
    for (int64_t i = 0; i < e->adapter->param_count; i++)
        adapter += e->adapter->params[i].count * tn_dtype_block_bytes(e->adapter->params[i].dtype);
    int64_t state =
        e->plan.region.segment[TN_SEGMENT_OPTIMIZER] + e->adapter->elements * (int64_t)sizeof(float);
    int64_t checkpoint = adapter + state;
    return adapter + tn_region_bytes(kept + 1, checkpoint, 1);
}

/* Rows and positions are counted in 32 bits on every device. */
static tn_status check_rows(const tn_engine *e, int64_t rows, int64_t longest) {
    const tn_settings *s = e->settings;
    if (e->use == TN_USE_GENERATE && longest > INT32_MAX) {
        tn_fail(TN_USAGE, "a context of %lld tokens: it holds at most %d tokens", (long long)longest,
                INT32_MAX);
        return tn_remedy("lower max_length");
    }
    if (rows <= INT32_MAX) return TN_OK;
    tn_fail(TN_USAGE, "a micro-batch of %lld rows of up to %lld tokens: a batch holds at most %d tokens",
            (long long)(e->use == TN_USE_EVAL ? s->per_device_eval_batch_size : s->per_device_train_batch_size),
            (long long)e->max_length, INT32_MAX);
    return tn_remedy("lower max_length or the batch size; gradient_accumulation_steps adds up micro-batches");
}

int64_t tn_engine_row_tokens(const tn_engine *e) {
    int64_t tokens;
    return tn_mul(e->settings->per_device_train_batch_size, e->max_length, &tokens) ? tokens : INT64_MAX;
}

/* Of a step's micro-batches, were every token a picture's. */
static int64_t pixel_bytes(const tn_engine *e, int64_t rows) {
    const tn_vision_arch *v = e->arch.vision;
    if (!e->patches) return 0;
    const int64_t batches = e->use == TN_USE_TRAIN ? e->settings->gradient_accumulation_steps : 1;
    return tn_region_bytes(tn_region_bytes(rows, batches, v->merge * v->merge), tn_vision_values(v),
                           (int64_t)sizeof(float));
}

tn_status tn_engine_plan(tn_engine *e, int64_t rows, int64_t documents, int64_t longest, int64_t cache_length) {
    int64_t largest = 0;
    tn_status status;
    TN_TRY(check_rows(e, rows, longest));
    TN_TRY(ensure_model(e));
    TN_TRY(plan_shape(e, rows, documents, longest, cache_length, &e->plan));
    for (int64_t i = 0; i < e->adapter->param_count; i++)
        if (e->adapter->params[i].count > largest) largest = e->adapter->params[i].count;
    e->plan.host_bytes = largest * 6 + 64 * rows + pixel_bytes(e, cache_length > rows ? cache_length : rows);
    e->plan.disk_bytes = e->use == TN_USE_TRAIN ? disk_bytes(e) : 0;
done:
    return status;
}

tn_status tn_engine_longest(tn_engine *e) {
    tn_memory_plan kept = e->plan, trial = {0};
    int64_t low = 0, high = LONGEST_TRIED;
    tn_status status = TN_OK;
    while (high - low > (low > 4096 ? low / 256 : 16)) {
        int64_t middle = low + (high - low) / 2;
        TN_TRY(plan_shape(e, middle, 1, middle, 0, &trial));
        if (trial.fits) low = middle;
        else high = middle;
    }
    kept.longest_context = low;
    status = plan_with(e, &kept.limits, &trial); /* back to the pass that was planned */
done:
    e->plan = kept;
    return status;
}

/* ---- Work ---------------------------------------------------------------------------------------- */

double tn_engine_step_flops(const tn_engine *e, int64_t tokens, int64_t length, int64_t labelled) {
    const tn_arch *a = &e->arch;
    double q = (double)tn_arch_q(a), kv = (double)tn_arch_kv(a), d = (double)a->hidden,
           f = (double)a->intermediate;
    double layer = d * q + 2 * d * kv + q * d + 3 * d * f, head = (double)a->vocab * d;
    double trained = (double)tn_adapter_group_count(e->adapter, TN_GROUP_LORA);
    double full = (double)tn_adapter_group_count(e->adapter, TN_GROUP_FULL),
           full_head = (double)tn_adapter_group_count(e->adapter, TN_GROUP_HEAD);
    if (e->adapter->full) { /* a lookup in the embedding is no product, and the head's rows are the labelled */
        full_head = head;
        full -= head * (a->tied ? 1 : 2);
    }
    /* Forward and dX; LoRA three times; dW. Attention is causal: half of 4·q·length, backward 2.5 forwards. */
    double body = 4 * layer * (double)a->layers + 6 * trained + 2 * full;
    double attention = (double)a->layers * 3.5 * 2 * q * (double)length;
    return (double)tokens * (body + attention) + (double)labelled * (4 * head + 2 * full_head);
}

/* ---- Reports ------------------------------------------------------------------------------------- */

double tn_group_learning_rate(const tn_settings *s, tn_group group) {
    if (group != TN_GROUP_EMBED && group != TN_GROUP_HEAD) return s->learning_rate;
    return isnan(s->embedding_learning_rate) ? s->learning_rate / 10 : s->embedding_learning_rate;
}

static int64_t all_parameters(const tn_engine *e, int64_t *trainable) {
    *trainable = 0;
    for (int64_t i = 0; i < e->adapter->param_count; i++) *trainable += e->adapter->params[i].count;
    /* As PEFT counts: full modules beside their frozen originals. */
    return tn_arch_parameters(&e->arch) + (e->adapter->full ? 0 : *trainable);
}

void tn_engine_write_params(const tn_engine *e, tn_json_writer *w) {
    int64_t trainable, all = all_parameters(e, &trainable);
    tn_json_key(w, "params");
    tn_json_begin(w, '{');
    tn_json_integer_member(w, "trainable", trainable);
    tn_json_integer_member(w, "all", all);
    tn_json_key(w, "groups");
    tn_json_begin(w, '[');
    for (int g = 0; g < TN_GROUPS; g++) {
        int64_t n = tn_adapter_group_count(e->adapter, (tn_group)g);
        if (n == 0) continue;
        tn_json_begin(w, '{');
        tn_json_string_member(w, "name", tn_group_name((tn_group)g));
        tn_json_integer_member(w, "count", n);
        tn_json_real_member(w, "learning_rate", tn_group_learning_rate(e->settings, (tn_group)g));
        tn_json_end(w, '}');
    }
    tn_json_end(w, ']');
    tn_json_end(w, '}');
}

void tn_engine_write_memory(const tn_engine *e, tn_json_writer *w) {
    tn_json_key(w, "memory");
    tn_json_begin(w, '{');
    tn_json_integer_member(w, "device", e->plan.device_bytes);
    tn_json_integer_member(w, "pinned", e->plan.pinned.used);
    tn_json_integer_member(w, "host", e->plan.host_bytes);
    tn_json_integer_member(w, "disk", e->plan.disk_bytes);
    tn_json_integer_member(w, "available", e->plan.available);
    tn_json_key(w, "segments");
    tn_json_begin(w, '[');
    for (int s = 0; s <= TN_SEGMENTS; s++) { /* the context behind the arena's own */
        int64_t bytes = s < TN_SEGMENTS ? e->plan.region.segment[s] : context_bytes(e, &e->plan);
        if (bytes == 0) continue;
        tn_json_begin(w, '{');
        tn_json_string_member(w, "name", s < TN_SEGMENTS ? tn_segment_name((tn_segment)s) : "context");
        tn_json_integer_member(w, "bytes", bytes);
        tn_json_end(w, '}');
    }
    tn_json_end(w, ']');
    tn_json_end(w, '}');
}

/* Micro-batches of a step for the rank that gets most of them. */
static int64_t share_of_step(const tn_engine *e) {
    return (e->settings->gradient_accumulation_steps + e->processes - 1) / e->processes;
}

tn_status tn_engine_describe(const tn_engine *e, tn_str *out) {
    int64_t trainable, all = all_parameters(e, &trainable);
    char text[32], other[32];
    tn_str_printf(out, "model      %s (%s, %s parameters%s%s)\n", e->settings->model,
                  tn_family_name(e->arch.family), tn_count_text(tn_arch_parameters(&e->arch), text),
                  e->base_hash[0] ? ", hash " : "", e->base_hash);
    tn_str_printf(out, "precision  %s on %s", tn_dtype_name(e->device->dtype), e->device->name);
    if (e->quantise_to) tn_str_printf(out, ", base weights quantised to %s", tn_dtype_name(e->quantise_to));
    else if (e->model && e->model->block_weights) tn_str_puts(out, ", base weights quantised as in the file");
    if (e->settings->load_in_fp8)
        tn_str_puts(out, e->device->fp8_products ? ", multiplied in FP8"
                                                 : ", decoded for its products (this device has none in FP8)");
    tn_str_putc(out, '\n');
    if (e->use == TN_USE_TRAIN) {
        const tn_policy policy = e->plan.limits.policy;
        tn_str_printf(out, "recompute  %s; %s of device memory planned", tn_policy_name(policy),
                      tn_bytes_text(e->plan.device_bytes, text));
        if (e->plan.pinned.used)
            tn_str_printf(out, ", %s of pinned host memory", tn_bytes_text(e->plan.pinned.used, text));
        if (policy == TN_POLICY_FULL && strcmp(e->settings->gradient_checkpointing, "offload") == 0)
            tn_str_puts(out, " (for offload, which gives the same result where all memory is the host's)");
        tn_str_putc(out, '\n');
        if (e->processes > 1)
            tn_str_printf(out, "processes  %d, each with this memory and %lld of a step's %lld micro-batches\n",
                          e->processes, (long long)share_of_step(e),
                          (long long)e->settings->gradient_accumulation_steps);
        for (int g = 0; g < TN_GROUPS; g++) {
            int64_t n = tn_adapter_group_count(e->adapter, (tn_group)g);
            if (n)
                tn_str_printf(out, "trains     %-14s %15s parameters at learning rate %g\n",
                              tn_group_name((tn_group)g), tn_count_text(n, text),
                              tn_group_learning_rate(e->settings, (tn_group)g));
        }
        tn_str_printf(out, "trainable params: %s || all params: %s || trainable%%: %.4f\n",
                      tn_count_text(trainable, text), tn_count_text(all, other),
                      100.0 * (double)trainable / (double)all);
    }
    return tn_str_check(out, "a description");
}
