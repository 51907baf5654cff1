/* env.c: `tenon env`. */
#include "cli/cli.h"

int cli_env(const cli_run *run) {
    tn_doc *doc = NULL;
    tn_status status = tn_env(run->config, &doc);
    return cli_put_answer(run, status, doc);
}
