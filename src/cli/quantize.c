/* quantize.c: `tenon quantize`. */
#include "cli/cli.h"

int cli_quantize(const cli_run *run) {
    tn_doc *doc = NULL;
    tn_status status = tn_quantize_model(run->config, &doc);
    return cli_put_answer(run, status, doc);
}
