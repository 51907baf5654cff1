/* train.c: `tenon train`. */
#include <string.h>

#include "cli/cli.h"

static void print_summary(const cli_run *run, const tn_doc *doc) {
    bool full = strcmp(tn_config_get(run->config, "full_finetuning"), "true") == 0;
    char tokens[32], time[32];
    fprintf(stderr, "%lld steps, loss %.4f, %s tokens in %s; %s in %s\n",
            (long long)tn_doc_integer(doc, "steps", 0), tn_doc_number(doc, "loss", 0),
            cli_count(tn_doc_integer(doc, "tokens", 0), tokens),
            cli_duration(tn_doc_number(doc, "seconds", 0), time), full ? "model" : "adapter",
            tn_doc_string(doc, "output_dir", "?"));
}

int cli_train(const cli_run *run) {
    cli_progress progress;
    tn_hooks hooks;
    tn_doc *doc = NULL;
    int code;
    if (strcmp(tn_config_get(run->config, "dry_run"), "true") == 0) return cli_plan(run);
    if (cli_launch(run, &code)) return code;
    cli_progress_start(&progress, run, &hooks);
    tn_status status = tn_train(run->config, &hooks, &doc);
    cli_progress_end(&progress);
    if (status != TN_OK) return cli_fail(run->json, status);
    if (!cli_is_first()) return CLI_OK;
    if (run->json) cli_put_document(doc);
    else print_summary(run, doc);
    tn_doc_free(doc);
    return CLI_OK;
}
