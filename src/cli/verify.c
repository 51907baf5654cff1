/* verify.c: `tenon verify`: exit code 1 where an adapter is not whole. */
#include "cli/cli.h"

static void print_names(const tn_doc *doc, const char *list) {
    char path[96];
    int64_t count = tn_doc_count(doc, list);
    for (int64_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s[%lld]", list, (long long)i);
        printf("%s: %s\n", list, tn_doc_string(doc, path, "?"));
    }
}

static void print_changes(const tn_doc *doc) {
    char path[96];
    int64_t count = tn_doc_count(doc, "tensors");
    for (int64_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "tensors[%lld].relative_change", (long long)i);
        double change = tn_doc_number(doc, path, 0);
        snprintf(path, sizeof path, "tensors[%lld].name", (long long)i);
        printf("%-90s %.3e%s\n", tn_doc_string(doc, path, "?"), change, change == 0 ? "  unchanged" : "");
    }
}

static void print_params(const tn_doc *doc) {
    char path[96], count[32], all[32];
    int64_t groups = tn_doc_count(doc, "params.groups");
    for (int64_t i = 0; i < groups; i++) {
        snprintf(path, sizeof path, "params.groups[%lld].name", (long long)i);
        printf("%-20s ", tn_doc_string(doc, path, "?"));
        snprintf(path, sizeof path, "params.groups[%lld].count", (long long)i);
        printf("%18s parameters\n", cli_count(tn_doc_integer(doc, path, 0), count));
    }
    printf("trainable params: %s", cli_count(tn_doc_integer(doc, "params.trainable", 0), count));
    int64_t total = tn_doc_integer(doc, "params.all", 0); /* known with --model alone */
    if (total > 0) printf(" || all params: %s", cli_count(total, all));
    putchar('\n');
}

int cli_verify(const cli_run *run) {
    static const char *const lists[] = {"missing", "unexpected", "mismatched", "nonfinite"};
    tn_doc *doc = NULL;
    tn_status status = tn_verify(run->config, &doc);
    if (status != TN_OK) return cli_fail(run->json, status);
    bool ok = tn_doc_boolean(doc, "ok", false);
    if (run->json) {
        cli_put_document(doc);
    } else {
        if (*tn_config_get(run->config, "reference")) print_changes(doc);
        for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) print_names(doc, lists[i]);
        print_names(doc, "base_copies");
        print_params(doc);
        fputs(ok ? "ok: every tensor is accounted for\n" : "NOT ok\n", stdout);
    }
    tn_doc_free(doc);
    return ok ? CLI_OK : CLI_FAILED;
}
