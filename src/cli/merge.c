/* merge.c: `tenon merge`. */
#include "cli/cli.h"

int cli_merge(const cli_run *run) {
    tn_doc *doc = NULL;
    tn_status status = tn_merge(run->config, &doc);
    return cli_put_answer(run, status, doc);
}
