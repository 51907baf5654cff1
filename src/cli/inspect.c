/* inspect.c: `tenon inspect`: tensors as a table, metadata as an outline. */
#include "cli/cli.h"

static void print_tensor(const tn_doc *doc, int64_t index) {
    char path[96], bytes[32], shape[128] = "";
    snprintf(path, sizeof path, "tensors[%lld].shape", (long long)index);
    int64_t axes = tn_doc_count(doc, path);
    for (int64_t i = 0, used = 0; i < axes && used < (int64_t)sizeof shape - 24; i++) {
        snprintf(path, sizeof path, "tensors[%lld].shape[%lld]", (long long)index, (long long)i);
        used += snprintf(shape + used, sizeof shape - (size_t)used, "%s%lld", i ? " x " : "",
                         (long long)tn_doc_integer(doc, path, -1));
    }
    snprintf(path, sizeof path, "tensors[%lld].name", (long long)index);
    printf("%-60s ", tn_doc_string(doc, path, "?"));
    snprintf(path, sizeof path, "tensors[%lld].dtype", (long long)index);
    printf("%-9s %-20s ", tn_doc_string(doc, path, "?"), shape);
    snprintf(path, sizeof path, "tensors[%lld].bytes", (long long)index);
    printf("%12s\n", cli_bytes(tn_doc_integer(doc, path, 0), bytes));
}

int cli_inspect(const cli_run *run) {
    tn_doc *doc = NULL;
    tn_status status = tn_inspect(run->config, &doc);
    if (status != TN_OK) return cli_fail(run->json, status);
    if (run->json) {
        cli_put_document(doc);
    } else {
        int64_t tensors = tn_doc_count(doc, "tensors");
        for (int64_t i = 0; i < tensors; i++) print_tensor(doc, i);
        cli_print_outline(stdout, tn_doc_text(doc), "tensors");
    }
    tn_doc_free(doc);
    return CLI_OK;
}
