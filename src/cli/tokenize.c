/* tokenize.c: `tenon tokenize`: JSON lines in, JSON lines out, line for line. A line that is no record ends it:
 * lines in and lines out would no longer belong together. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static int tokenize_file(const cli_run *run, tn_tokenizer *tokenizer, FILE *file, const char *name) {
    bool special = strcmp(tn_config_get(run->config, "add_special_tokens"), "true") == 0;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    int64_t number = 0;
    int code = CLI_OK;
    while (code == CLI_OK && !ferror(stdout) && (length = getline(&line, &capacity, file)) >= 0) {
        tn_doc *doc = NULL;
        number++;
        while (length > 0 && strchr("\r\n", line[length - 1])) length--;
        if (tn_tokenize_record(tokenizer, line, length, special, &doc) == TN_OK) cli_put_document(doc);
        else
            code = cli_error(run->json, CLI_BAD_DATA, tn_error_remedy(), "%s, line %lld: %s", name,
                             (long long)number, tn_error_message());
        tn_doc_free(doc);
    }
    if (code == CLI_OK && ferror(file) && errno == EISDIR)
        code = cli_error(run->json, CLI_USAGE, "give the path of a file", "%s is a directory", name);
    else if (code == CLI_OK && ferror(file))
        code = cli_error(run->json, CLI_STORAGE, "", "cannot read %s: %s", name, strerror(errno));
    free(line);
    return code;
}

static int tokenize_path(const cli_run *run, tn_tokenizer *tokenizer, const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file)
        return cli_error(run->json, CLI_USAGE, "check the path", "cannot open %s: %s", path, strerror(errno));
    int code = tokenize_file(run, tokenizer, file, path);
    fclose(file);
    return code;
}

int cli_tokenize(const cli_run *run) {
    const char *model = tn_config_get(run->config, "model");
    tn_tokenizer *tokenizer = NULL;
    if (!*model) {
        const char *remedy = "add --model PATH: a directory with tokenizer.json, or a GGUF file";
        return cli_error(run->json, CLI_USAGE, remedy, "tokenize needs model");
    }
    tn_status status = tn_tokenizer_open(model, &tokenizer);
    if (status != TN_OK) return cli_fail(run->json, status);
    char *paths = strdup(tn_config_get(run->config, "dataset")), *rest = paths;
    int code = CLI_OK;
    if (!paths) code = cli_error(run->json, CLI_FAILED, "", "out of memory");
    else if (!*paths) code = tokenize_file(run, tokenizer, stdin, "stdin");
    while (code == CLI_OK && rest && *rest) code = tokenize_path(run, tokenizer, strsep(&rest, ","));
    free(paths);
    tn_tokenizer_free(tokenizer);
    return code;
}
