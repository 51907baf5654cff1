/* export.c: `tenon export`. */
#include "cli/cli.h"

int cli_export(const cli_run *run) {
    tn_doc *doc = NULL;
    tn_status status = tn_export(run->config, &doc);
    return cli_put_answer(run, status, doc);
}
