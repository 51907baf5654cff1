/* generate.c: `tenon generate`: text to stdout as it comes, or the document. */
#include <stdlib.h>

#include "cli/cli.h"

bool cli_stream_text(void *user, const char *text, int64_t bytes) {
    const cli_run *run = user;
    if (!run->json) fwrite(text, 1, (size_t)bytes, stdout);
    return !cli_should_stop(NULL) && (run->json || (fflush(stdout) == 0 && !ferror(stdout)));
}

static int generate(const cli_run *run, tn_generator *generator, const char *messages) {
    tn_doc *doc = NULL;
    void *user = (void *)(uintptr_t)run; /* the callback only reads it */
    tn_status status = messages ? tn_generate_chat(generator, messages, cli_stream_text, user, &doc)
                                : tn_generate_text(generator, tn_config_get(run->config, "prompt"),
                                                   cli_stream_text, user, &doc);
    if (status == TN_BAD_DATA && messages)
        return cli_error(run->json, CLI_BAD_DATA, tn_error_remedy(), "%s: %s",
                         tn_config_get(run->config, "messages"), tn_error_message());
    if (status != TN_OK) return cli_fail(run->json, status);
    if (run->json) cli_put_document(doc);
    else fputc('\n', stdout);
    tn_doc_free(doc);
    return cli_signal() ? CLI_SIGNAL + cli_signal() : CLI_OK;
}

int cli_generate(const cli_run *run) {
    const char *path = tn_config_get(run->config, "messages");
    char *messages = NULL;
    int code = CLI_OK;
    tn_generator *generator = NULL;
    if (*path && !(messages = cli_read_file(path, run->json, &code))) return code;
    tn_status status = tn_generator_open(run->config, &generator);
    cli_catch_signals();
    code = status == TN_OK ? generate(run, generator, messages) : cli_fail(run->json, status);
    tn_generator_free(generator);
    free(messages);
    return code;
}
