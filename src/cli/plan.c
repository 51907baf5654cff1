/* plan.c: `tenon plan`: parameters, memory, context and speed as tables. */
#include <math.h>

#include "cli/cli.h"

static void print_memory(const tn_doc *doc) {
    static const char *const places[] = {"device", "pinned", "host", "disk"};
    char path[96], bytes[32];
    int64_t processes = tn_doc_integer(doc, "processes", 1);
    if (processes > 1) printf("\nmemory of each of %lld processes\n", (long long)processes);
    else fputs("\nmemory\n", stdout);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "memory.%s", places[i]);
        int64_t size = tn_doc_integer(doc, path, -1);
        if (size >= 0) printf("  %-26s %14s\n", places[i], cli_bytes(size, bytes));
    }
    int64_t segments = tn_doc_count(doc, "memory.segments");
    if (segments > 0) fputs("of which\n", stdout);
    for (int64_t i = 0; i < segments; i++) {
        snprintf(path, sizeof path, "memory.segments[%lld].name", (long long)i);
        printf("  %-26s ", tn_doc_string(doc, path, "?"));
        snprintf(path, sizeof path, "memory.segments[%lld].bytes", (long long)i);
        printf("%14s\n", cli_bytes(tn_doc_integer(doc, path, 0), bytes));
    }
}

int cli_plan(const cli_run *run) {
    tn_doc *doc = NULL;
    char text[32];
    tn_status status = tn_plan(run->config, &doc);
    if (status != TN_OK) return cli_fail(run->json, status);
    if (run->json) {
        cli_put_document(doc);
    } else {
        double speed = tn_doc_number(doc, "tokens_per_second", NAN);
        fputs(tn_doc_string(doc, "text", ""), stdout); /* the banner that train would show */
        print_memory(doc);
        printf("\nfits: %s; longest context that fits: %s tokens\n",
               tn_doc_boolean(doc, "fits", false) ? "yes" : "NO",
               cli_count(tn_doc_integer(doc, "longest_context", 0), text));
        if (!isnan(speed)) printf("expected speed: %s tokens/s\n", cli_count((int64_t)speed, text));
    }
    tn_doc_free(doc);
    return CLI_OK;
}
