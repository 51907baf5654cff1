/* merge.c: `tenon merge`. */
#include "cli/cli.h"

int cli_merge(const cli_run *run) { return cli_write_model(run, tn_merge); }
