/* args.c: the words behind the verb: one optional configuration file, and keys with values. A boolean key may
 * stand alone; the next word is its value only where it is "true" or "false". */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

enum { LONGEST_KEY = 64 };

static bool is_truth(const char *word) { return strcmp(word, "true") == 0 || strcmp(word, "false") == 0; }

bool cli_wants_json(int count, char **words) {
    bool wants = false;
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], "--json") == 0) wants = i + 1 == count || strcmp(words[i + 1], "false") != 0;
        if (strncmp(words[i], "--json=", 7) == 0) wants = strcmp(words[i] + 7, "true") == 0;
    }
    return wants;
}

static int missing_value(const cli_run *run, const char *key, const char *next) {
    if (!next) return cli_error(run->json, CLI_USAGE, "", "--%s needs a value", key);
    return cli_error(run->json, CLI_USAGE, "a value that starts with -- is given as --key=value",
                     "--%s needs a value, and '%s' looks like a key", key, next);
}

/* Does `key` stand among the words as a flag? Values that begin with -- are behind a '=', so these are keys. */
static bool stands_in(int count, char **words, const char *key) {
    size_t length = strlen(key);
    for (int i = 0; i < count; i++)
        if (strncmp(words[i], "--", 2) == 0 && strncmp(words[i] + 2, key, length) == 0 &&
            (!words[i][2 + length] || words[i][2 + length] == '='))
            return true;
    return false;
}

/* The later of two equal flags counts, which is how a script's settings are changed by words behind them. The
 * configuration file is not read yet: what is in force was given by flags. */
static tn_status set_key(cli_run *run, const char *key, const char *value, bool again) {
    const char *before = again ? tn_config_get(run->config, key) : NULL;
    tn_status status = tn_config_set(run->config, key, value);
    const char *now = status == TN_OK ? tn_config_get(run->config, key) : before;
    if (before && now && strcmp(before, now) != 0)
        fprintf(stderr, "warning: --%s is given twice: %s counts, and not %s\n", key, *now ? now : "none",
                *before ? before : "none");
    return status;
}

/* One key at words[*at]; moves *at to its last word. */
static int read_key(cli_run *run, int count, char **words, int *at) {
    const int first = *at;
    const char *word = words[*at] + 2, *equals = strchr(word, '='), *value;
    char key[LONGEST_KEY];
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    if (length == 0 || length >= sizeof key)
        return cli_error(run->json, CLI_USAGE, "keys are written --key value or --key=value",
                         "'%s' is not a key", words[*at]);
    memcpy(key, word, length);
    key[length] = '\0';
    const char *next = *at + 1 < count ? words[*at + 1] : NULL;
    if (equals) {
        value = equals + 1;
    } else if (tn_config_is_boolean(run->config, key)) {
        bool given = next && is_truth(next);
        value = given ? next : "true";
        *at += given;
    } else {
        bool known =
            tn_config_get(run->config, key) != NULL; /* an unknown key is reported as such, not as valueless */
        if (known && (!next || strncmp(next, "--", 2) == 0)) return missing_value(run, key, next);
        value = known ? next : "";
        *at += known;
    }
    tn_status status = set_key(run, key, value, stands_in(first, words, key));
    return status == TN_OK ? CLI_OK : cli_fail(run->json, status);
}

static bool is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int cli_read_arguments(cli_run *run, int count, char **words) {
    const char *file = NULL;
    int code = CLI_OK;
    for (int i = 0; i < count && code == CLI_OK; i++) {
        if (strncmp(words[i], "--", 2) == 0) {
            code = read_key(run, count, words, &i);
        } else if (words[i][0] == '-' && words[i][1]) {
            code = cli_error(run->json, CLI_USAGE, "keys are written with two dashes: --key value",
                             "'%s' is not a key", words[i]);
        } else if (file) {
            const char *remedy = "a value belongs behind its key (--key value); booleans are true or false";
            code = cli_error(run->json, CLI_USAGE, remedy,
                             "unexpected '%s': the configuration file is already '%s'", words[i], file);
        } else {
            file = words[i];
        }
    }
    if (code != CLI_OK || !file) return code;
    if (access(file, F_OK) != 0) {
        const char *remedy = "a value belongs behind its key (--key value); booleans are true or false";
        return cli_error(run->json, CLI_USAGE, remedy, "there is no configuration file '%s'", file);
    }
    if (is_directory(file)) {
        const char *remedy =
            "a model, adapter or checkpoint belongs behind its key: --model DIR, --adapter DIR";
        return cli_error(run->json, CLI_USAGE, remedy, "'%s' is a directory, and no configuration file", file);
    }
    tn_status status = tn_config_load(run->config, file);
    return status == TN_OK ? CLI_OK : cli_fail(run->json, status);
}
