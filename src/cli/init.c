/* init.c: `tenon init`. */
#include "cli/cli.h"

int cli_init(const cli_run *run) {
    tn_doc *doc = NULL;
    tn_status status = tn_init(run->config, &doc);
    return cli_put_answer(run, status, doc);
}
