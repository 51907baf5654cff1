/* data.c: `tenon data`: samples as training sees them. The masked part stands between ⟦ and ⟧. */
#include <string.h>

#include "cli/cli.h"

static void print_ids(const tn_doc *doc, int64_t sample) {
    char path[96];
    snprintf(path, sizeof path, "samples[%lld].ids", (long long)sample);
    int64_t count = tn_doc_count(doc, path);
    bool masked = false;
    for (int64_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "samples[%lld].labels[%lld]", (long long)sample, (long long)i);
        bool mask = tn_doc_integer(doc, path, -100) < 0;
        snprintf(path, sizeof path, "samples[%lld].ids[%lld]", (long long)sample, (long long)i);
        fprintf(stderr, "%s%s%s%lld", masked && !mask ? "⟧" : "", i ? " " : "", mask && !masked ? "⟦" : "",
                (long long)tn_doc_integer(doc, path, -1));
        masked = mask;
    }
    fputs(masked ? "⟧\n" : "\n", stderr);
}

/* Runs of tokens with and without labels, decoded, where the document has them. */
static bool print_segments(const tn_doc *doc, int64_t sample) {
    char path[96];
    snprintf(path, sizeof path, "samples[%lld].segments", (long long)sample);
    int64_t count = tn_doc_count(doc, path);
    for (int64_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "samples[%lld].segments[%lld].labelled", (long long)sample, (long long)i);
        bool labelled = tn_doc_boolean(doc, path, true);
        snprintf(path, sizeof path, "samples[%lld].segments[%lld].text", (long long)sample, (long long)i);
        fprintf(stderr, labelled ? "%s" : "⟦%s⟧", tn_doc_string(doc, path, ""));
    }
    if (count > 0) fputc('\n', stderr);
    return count > 0;
}

int cli_data(const cli_run *run) {
    tn_doc *doc = NULL;
    char path[64], number[3][32];
    tn_status status = tn_data(run->config, &doc);
    if (status != TN_OK) return cli_fail(run->json, status);
    if (run->json) {
        cli_put_document(doc);
    } else {
        int64_t samples = tn_doc_count(doc, "samples");
        for (int64_t i = 0; i < samples; i++) {
            snprintf(path, sizeof path, "samples[%lld].ids", (long long)i);
            fprintf(stderr, "--- sample %lld: %lld tokens; ⟦…⟧ carries no loss\n", (long long)i + 1,
                    (long long)tn_doc_count(doc, path));
            if (!print_segments(doc, i)) print_ids(doc, i);
        }
        fprintf(stderr, "%s records, %s tokens, %s of them labelled\n",
                cli_count(tn_doc_integer(doc, "records", 0), number[0]),
                cli_count(tn_doc_integer(doc, "tokens", 0), number[1]),
                cli_count(tn_doc_integer(doc, "labelled", 0), number[2]));
        cli_print_outline(tn_doc_text(doc), "samples");
    }
    tn_doc_free(doc);
    return CLI_OK;
}
