/* eval.c: `tenon eval`. */
#include <math.h>

#include "cli/cli.h"

int cli_eval(const cli_run *run) {
    cli_progress progress;
    tn_hooks hooks;
    tn_doc *doc = NULL;
    char tokens[32], records[32];
    cli_progress_start(&progress, run, &hooks);
    tn_status status = tn_eval(run->config, &hooks, &doc);
    cli_progress_end(&progress);
    if (status != TN_OK) return cli_fail(run->json, status);
    if (run->json) cli_put_document(doc);
    else
        printf("loss %.6f, perplexity %.4f over %s labelled tokens of %s records\n",
               tn_doc_number(doc, "loss", NAN), tn_doc_number(doc, "perplexity", NAN),
               cli_count(tn_doc_integer(doc, "tokens", 0), tokens),
               cli_count(tn_doc_integer(doc, "records", 0), records));
    tn_doc_free(doc);
    return CLI_OK;
}
