/* verb_data.c: shows how samples become tokens and labels, with the tokenizer and settings a run would use. No
 * weights, no device.
 */
#include <string.h>

#include "base/log.h"
#include "data/show.h"
#include "train/engine.h"

static tn_status write_sample(tn_json_writer *w, const tn_engine *e, tn_sample sample) {
    tn_str text = {0};
    tn_status status = TN_OK;
    tn_json_begin(w, '{');
    tn_json_ids_member(w, "ids", sample.ids, sample.length);
    tn_json_ids_member(w, "labels", sample.labels, sample.length);
    if (e->chat) {
        status = tn_show_sample(e->chat, sample, &text);
        tn_json_key(w, "text");
        tn_json_put_string(w, tn_str_text(&text), text.length);
    }
    tn_json_end(w, '}');
    tn_str_free(&text);
    return status;
}

/* Tokens over the room of the rows that packing fills: 1 = no row has space left. */
static tn_status packing_rate(const tn_engine *e, const tn_dataset *dataset, double *rate) {
    const tn_settings *s = e->settings;
    tn_loader_options options = {.batch_size = 1,
                                 .max_length = e->max_length,
                                 .packing = true,
                                 .shuffle = s->shuffle,
                                 .skip_unlabelled = true,
                                 .seed = s->seed};
    tn_loader *loader = NULL;
    tn_dataset_stats stats;
    int64_t rows;
    tn_status status;
    tn_dataset_get_stats(dataset, &stats);
    *rate = 0;
    if (stats.labelled == 0) { /* shown all the same: this verb is where one looks for the reason */
        tn_warn("no token of these samples carries a loss: train refuses them");
        return TN_OK;
    }
    TN_TRY(tn_loader_new(dataset, &options, &loader));
    TN_TRY(tn_loader_epoch_batches(loader, 0, &rows));
    *rate = rows ? (double)stats.tokens / ((double)rows * (double)e->max_length) : 0;
done:
    tn_loader_free(loader);
    return status;
}

static tn_status report(const tn_engine *e, const tn_dataset *dataset, tn_doc **doc) {
    tn_dataset_stats stats;
    tn_str text = {0};
    double rate;
    tn_status status;
    tn_dataset_get_stats(dataset, &stats);
    TN_TRY(packing_rate(e, dataset, &rate));
    tn_json_writer w = tn_json_write_to(&text, 0);
    tn_json_begin(&w, '{');
    tn_json_key(&w, "samples");
    tn_json_begin(&w, '[');
    for (int64_t i = 0; i < stats.samples && (e->settings->samples <= 0 || i < e->settings->samples); i++)
        TN_TRY(write_sample(&w, e, tn_dataset_at(dataset, i)));
    tn_json_end(&w, ']');
    tn_json_integer_member(&w, "records", stats.records);
    tn_json_integer_member(&w, "tokens", stats.tokens);
    tn_json_integer_member(&w, "labelled", stats.labelled);
    tn_json_integer_member(&w, "cut", stats.cut);
    tn_json_integer_member(&w, "unlabelled", stats.unlabelled);
    tn_json_integer_member(&w, "longest", stats.longest);
    tn_json_real_member(&w, "packing_rate", rate);
    tn_json_string_member(&w, "format", stats.format);
    tn_json_end(&w, '}');
    status = tn_doc_from(&text, doc);
done:
    tn_str_free(&text);
    return status;
}

tn_status tn_data(tn_config *config, tn_doc **doc) {
    tn_engine e;
    tn_dataset *dataset = NULL;
    *doc = NULL;
    tn_status status = tn_engine_open_data(config, &e);
    if (status != TN_OK) return status;
    TN_TRY(tn_engine_dataset(&e, e.settings->dataset, e.settings->datasets, true, &dataset));
    status = report(&e, dataset, doc);
done:
    tn_dataset_free(dataset);
    tn_engine_close(&e);
    return status;
}
