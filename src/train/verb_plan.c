/* verb_plan.c: everything `train` would do short of loading weights. */
#include <string.h>

#include "base/log.h"
#include "train/engine.h"

/* Batches of the shape a full step has: rows of max_length, one document each; packing puts no more tokens into
 * them. */
static tn_status plan_full_rows(tn_engine *e) {
    int64_t rows = e->settings->per_device_train_batch_size;
    const tn_vision_arch *v = e->arch.vision;
    if (v) e->patches = e->max_length * v->merge * v->merge; /* a larger picture is cut off with its record */
    tn_status status = tn_engine_plan(e, tn_engine_row_tokens(e), rows, e->max_length, 0);
    return status == TN_OK ? tn_engine_longest(e) : status;
}

/* Measured steps of DoRA over LoRA's (docs/speed.md): one product more a linear, and three with dropout. */
static double dora_work(const tn_engine *e) {
    const tn_peft_config *config = e->adapter->config;
    if (!config || !config->use_dora) return 1;
    return config->lora_dropout > 0 ? 2.7 : 1.5;
}

/* From the measured product rate and what each policy recomputes; a step reaches about 0.6 of that rate. */
static tn_status expected_speed(const tn_engine *e, double *tokens_per_second) {
    const int64_t tokens = tn_engine_row_tokens(e);
    static const double recompute[TN_POLICIES] = {1.0, 1.2, 1.45, 1.4, 1.45};
    double ceiling;
    tn_status status = tn_device_ceiling(e->device, &ceiling);
    double flops = tn_engine_step_flops(e, tokens, e->max_length, tokens) * recompute[e->plan.limits.policy] *
                   dora_work(e);
    *tokens_per_second = status == TN_OK ? 0.6 * ceiling * (double)tokens / flops : 0;
    /* Of several processes the one with most micro-batches sets the pace; on the CPU they share the cores. */
    const int64_t split = e->settings->gradient_accumulation_steps;
    const int64_t most = (split + e->processes - 1) / e->processes;
    *tokens_per_second *= (double)split / (double)(most * (tn_engine_on_host(e) ? e->processes : 1));
    return status;
}

tn_status tn_plan(tn_config *config, tn_doc **doc) {
    tn_engine e;
    tn_str text = {0}, banner = {0};
    double speed;
    *doc = NULL;
    tn_status status = tn_engine_open(config, TN_USE_TRAIN, false, NULL, &e);
    if (status != TN_OK) return status;
    if (e.settings->datasets > 0)
        tn_info("dataset: not read; the plan is for full rows of max_length, whatever the records are");
    TN_TRY(plan_full_rows(&e));
    TN_TRY(expected_speed(&e, &speed));
    TN_TRY(tn_engine_describe(&e, &banner));
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_begin(&w, '{');
    tn_engine_write_params(&e, &w);
    tn_engine_write_memory(&e, &w);
    tn_json_boolean_member(&w, "fits", e.plan.fits);
    tn_json_integer_member(&w, "longest_context", e.plan.longest_context);
    tn_json_real_member(&w, "tokens_per_second", speed);
    tn_json_string_member(&w, "gradient_checkpointing", tn_policy_name(e.plan.limits.policy));
    tn_json_string_member(&w, "device", e.device->name);
    tn_json_string_member(&w, "dtype", tn_dtype_name(e.device->dtype));
    tn_json_integer_member(&w, "max_length", e.max_length);
    tn_json_integer_member(&w, "processes", e.processes);
    tn_json_string_member(&w, "text", tn_str_text(&banner));
    tn_json_end(&w, '}');
    status = tn_doc_from(&text, doc);
done:
    tn_str_free(&text);
    tn_str_free(&banner);
    tn_engine_close(&e);
    return status;
}
