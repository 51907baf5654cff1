/* evaluate.c: runs the evaluation batches and the verb `eval`. */
#include "train/evaluate.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

/* One line a record: logprobs[i] = ln p(ids[i] | before), null for the first token and for unlabelled ones. */
static tn_status write_record(tn_save *file, const tn_dataset *dataset, const tn_batch *batch, int64_t document,
                              const float *losses) {
    tn_sample sample = tn_dataset_at(dataset, batch->samples[document]);
    const int64_t first = batch->cu_seqlens[document];
    tn_str line = {0};
    tn_json_writer w = tn_json_write_to(&line, 0);
    tn_json_begin(&w, '{');
    tn_json_ids_member(&w, "ids", sample.ids, sample.length);
    tn_json_key(&w, "logprobs");
    tn_json_begin(&w, '[');
    for (int64_t i = 0; i < sample.length; i++) {
        if (i > 0 && batch->targets[first + i - 1] >= 0) tn_json_put_float(&w, -losses[first + i - 1]);
        else tn_json_put_null(&w);
    }
    tn_json_end(&w, ']');
    tn_json_end(&w, '}');
    tn_str_putc(&line, '\n');
    tn_status status = tn_str_check(&line, "a record");
    if (status == TN_OK) fwrite(line.data, 1, (size_t)line.length, file->file);
    tn_str_free(&line);
    return status;
}

/* The sums of all ranks, in their order. */
static tn_status add_ranks(tn_team *team, tn_status status, tn_evaluation *result) {
    tn_evaluation *all;
    if (!team || team->world <= 1) return status;
    tn_status memory = tn_alloc(&all, team->world, (int64_t)sizeof *all, "ranks");
    status = tn_team_gather(team, status != TN_OK ? status : memory, result, (int64_t)sizeof *result, all);
    *result = (tn_evaluation){0};
    for (int i = 0; status == TN_OK && i < team->world; i++) {
        result->loss_sum += all[i].loss_sum;
        result->labelled += all[i].labelled;
        result->records += all[i].records;
    }
    free(all);
    return status;
}

tn_status tn_evaluate(tn_pass *pass, const tn_dataset *dataset, tn_loader *loader, tn_team *team,
                      tn_save *per_token, tn_evaluation *result) {
    const int64_t first = team ? team->rank : 0, stride = team ? team->world : 1;
    tn_batch batch = {0};
    float *losses = NULL;
    int64_t batches, tokens, documents, longest;
    tn_status status;
    *result = (tn_evaluation){0};
    TN_TRY(tn_loader_epoch_batches(loader, 0, &batches));
    tn_loader_limits(loader, &tokens, &documents, &longest);
    TN_TRY(tn_alloc(&losses, tokens, (int64_t)sizeof *losses, "losses"));
    for (int64_t b = first; b < batches; b += stride) {
        TN_TRY(tn_loader_get(loader, 0, b, &batch));
        TN_TRY(tn_pass_eval(pass, &batch, losses));
        for (int64_t i = 0; i < batch.tokens; i++) result->loss_sum += losses[i]; /* 0 where unlabelled */
        result->labelled += batch.labelled;
        result->records += batch.documents;
        for (int64_t d = 0; per_token && d < batch.documents; d++)
            TN_TRY(write_record(per_token, dataset, &batch, d, losses));
    }
    if (!isfinite(result->loss_sum)) TN_THROW(TN_NUMERIC, "the evaluation loss is not finite");
done:
    free(losses);
    tn_batch_free(&batch);
    return add_ranks(team, status, result);
}

tn_status tn_eval(tn_config *config, const tn_hooks *hooks, tn_doc **doc) {
    tn_engine e;
    tn_dataset *dataset = NULL;
    tn_loader *loader = NULL;
    tn_save per_token = {0};
    tn_evaluation result;
    tn_str text = {0};
    int64_t tokens, documents, longest;
    (void)hooks;
    *doc = NULL;
    tn_status status = tn_engine_open(config, TN_USE_EVAL, true, NULL, &e);
    if (status != TN_OK) return status;
    const tn_settings *s = e.settings;
    TN_TRY(tn_engine_dataset(&e, s->dataset, s->datasets, false, &dataset));
    tn_loader_options options = {.batch_size = s->per_device_eval_batch_size, .max_length = e.max_length};
    TN_TRY(tn_loader_new(dataset, &options, &loader));
    tn_loader_limits(loader, &tokens, &documents, &longest);
    TN_TRY(tn_engine_plan(&e, tokens, documents, longest, 0));
    TN_TRY(tn_engine_allocate(&e));
    if (s->per_token) TN_TRY(tn_save_begin(&per_token, s->per_token));
    TN_TRY(tn_pass_reset_loss(e.pass));
    TN_TRY(tn_evaluate(e.pass, dataset, loader, NULL, s->per_token ? &per_token : NULL, &result));
    if (s->per_token) TN_TRY(tn_save_commit(&per_token));
    if (result.labelled == 0) TN_THROW(TN_BAD_DATA, "nothing in the dataset carries a label");
    tn_json_writer w = tn_json_write_to(&text, 0);
    double loss = result.loss_sum / (double)result.labelled;
    tn_json_begin(&w, '{');
    tn_json_real_member(&w, "loss", loss);
    tn_json_real_member(&w, "perplexity", exp(loss));
    tn_json_integer_member(&w, "tokens", result.labelled);
    tn_json_integer_member(&w, "records", result.records);
    tn_json_end(&w, '}');
    status = tn_doc_from(&text, doc);
done:
    tn_str_free(&text);
    tn_save_abort(&per_token);
    tn_loader_free(loader);
    tn_dataset_free(dataset);
    tn_engine_close(&e);
    return status;
}
