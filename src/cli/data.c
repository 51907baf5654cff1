/* data.c: `tenon data`: samples as training sees them. */
#include "cli/cli.h"

/* Decoded, where the document has a text (not for input_ids without a tokenizer), else the ids alone. */
static void print_sample(const tn_doc *doc, int64_t sample) {
    char path[96];
    snprintf(path, sizeof path, "samples[%lld].ids", (long long)sample);
    int64_t count = tn_doc_count(doc, path);
    printf("--- sample %lld: %lld tokens; what stands between ⟦ and ⟧ carries no loss\n", (long long)sample + 1,
           (long long)count);
    snprintf(path, sizeof path, "samples[%lld].text", (long long)sample);
    const char *text = tn_doc_string(doc, path, NULL);
    for (int64_t i = 0; !text && i < count; i++) {
        snprintf(path, sizeof path, "samples[%lld].ids[%lld]", (long long)sample, (long long)i);
        printf("%lld ", (long long)tn_doc_integer(doc, path, -1));
    }
    printf("%s\n", text ? text : "");
}

int cli_data(const cli_run *run) {
    tn_doc *doc = NULL;
    tn_status status = tn_data(run->config, &doc);
    if (status != TN_OK) return cli_fail(run->json, status);
    if (run->json) {
        cli_put_document(doc);
    } else {
        int64_t samples = tn_doc_count(doc, "samples");
        for (int64_t i = 0; i < samples; i++) print_sample(doc, i);
        cli_print_outline(stdout, tn_doc_text(doc), "samples");
    }
    tn_doc_free(doc);
    return CLI_OK;
}
