/* quantize.c: `tenon quantize`. */
#include "cli/cli.h"

int cli_quantize(const cli_run *run) { return cli_write_model(run, tn_quantize_model); }
