/* bench.c: `tenon bench`. */
#include <math.h>

#include "cli/cli.h"

static void print_summary(const tn_doc *doc) {
    char speed[32], device[32], host[32];
    double percent = tn_doc_number(doc, "percent_of_ceiling", NAN);
    printf("%s tokens/s, median step %.4f s, first step %.4f s",
           cli_count((int64_t)tn_doc_number(doc, "tokens_per_second", 0), speed),
           tn_doc_number(doc, "step_seconds", NAN), tn_doc_number(doc, "first_step_seconds", NAN));
    if (isfinite(percent)) printf(", %.1f%% of the ceiling", percent);
    printf("\npeak memory: device %s, host %s\n", cli_bytes(tn_doc_integer(doc, "memory.device", 0), device),
           cli_bytes(tn_doc_integer(doc, "memory.host", 0), host));
}

int cli_bench(const cli_run *run) {
    cli_progress progress;
    tn_hooks hooks;
    tn_doc *doc = NULL;
    int code;
    if (cli_launch(run, &code)) return code;
    cli_progress_start(&progress, run, &hooks);
    tn_status status = tn_bench(run->config, &hooks, &doc);
    cli_progress_end(&progress);
    if (status != TN_OK) return cli_fail(run->json, status);
    if (!cli_is_first()) return CLI_OK;
    if (run->json) cli_put_document(doc);
    else print_summary(doc);
    tn_doc_free(doc);
    return CLI_OK;
}
