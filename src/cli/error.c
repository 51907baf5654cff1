/* error.c: from a failure to what the user sees: a line or two on stderr, the JSON document, the exit code. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static int exit_code(tn_status status) {
    switch (status) {
        case TN_OK: return CLI_OK;
        case TN_FAILED: return CLI_FAILED;
        case TN_USAGE: return CLI_USAGE;
        case TN_BAD_DATA: return CLI_BAD_DATA;
        case TN_NO_FIT: return CLI_NO_FIT;
        case TN_NUMERIC: return CLI_NUMERIC;
        case TN_STORAGE: return CLI_STORAGE;
        case TN_INTERRUPTED: return CLI_SIGNAL + (cli_signal() ? cli_signal() : 2);
    }
    return CLI_FAILED;
}

/* What to do where the failing function knew nothing better than its message. */
static const char *usual_remedy(int code) {
    switch (code) {
        case CLI_USAGE: return "`tenon help VERB` lists the keys and what they take";
        case CLI_BAD_DATA: return "the file is damaged or not what it claims to be: write or fetch it again";
        case CLI_NO_FIT: return "`tenon plan` shows what would fit";
        case CLI_NUMERIC:
            return "look for NaN in the weights; else lower learning_rate, or use --dtype float32";
        case CLI_STORAGE: return "check the disk and its file system, then resume";
        default: return "";
    }
}

static int report(bool json, int code, const char *message, const char *remedy) {
    if (!*remedy) remedy = usual_remedy(code);
    fprintf(stderr, "tenon: %s\n", *message ? message : "failed without a message");
    if (*remedy) fprintf(stderr, "  %s\n", remedy);
    if (json) {
        printf("{\"error\":{\"code\":%d,\"message\":", code);
        cli_put_json_string(stdout, message);
        printf(",\"remedy\":");
        cli_put_json_string(stdout, remedy);
        printf("}}\n");
    }
    return code;
}

int cli_fail(bool json, tn_status status) {
    /* Of several processes rank 0 says it, and the document is its own. */
    if (!cli_is_first() && !*tn_error_message()) return exit_code(status);
    return report(json && cli_is_first(), exit_code(status), tn_error_message(), tn_error_remedy());
}

int cli_error(bool json, int code, const char *remedy, const char *format, ...) {
    char message[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return report(json, code, message, remedy);
}

int cli_close_stdout(int code) {
    errno = 0;
    bool failed = ferror(stdout) != 0;
    if (fclose(stdout) != 0) failed = true;
    if (!failed) return code;
    fprintf(stderr, "tenon: cannot write to stdout%s%s\n", errno ? ": " : "", errno ? strerror(errno) : "");
    return code == CLI_OK ? CLI_STORAGE : code;
}
