/* export.c: `tenon export`. */
#include "cli/cli.h"

int cli_export(const cli_run *run) { return cli_write_model(run, tn_export); }
