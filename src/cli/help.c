/* help.c: the manual. The overview lists the verbs; `help VERB` prints its keys from the library's table, in
 * the sections and the order of the table. */
#include <string.h>

#include "cli/cli.h"

enum { HELP_COLUMN = 34, WIDTH = 110 };

/* A section begins at its first key in the list of `train`; keys that train does not know are a verb's own. */
static const struct {
    const char *first_key, *title;
} sections[] = {
    {"model", "Model"},        {"dataset", "Data"}, {"lora_r", "Adapter"}, {"learning_rate", "Optimisation"},
    {"output_dir", "The run"},
};

void cli_print_version(void) { printf("tenon %s\n", TENON_VERSION); }

static const char *section_of(const char *key) {
    tn_key_info info;
    const char *title = NULL;
    for (int64_t i = 0; tn_config_key("train", i, &info); i++) {
        for (size_t s = 0; s < sizeof sections / sizeof *sections; s++)
            if (strcmp(info.name, sections[s].first_key) == 0) title = sections[s].title;
        if (strcmp(info.name, key) == 0) return title;
    }
    return "Of this verb";
}

/* Wraps at spaces between HELP_COLUMN and WIDTH; the cursor stands at HELP_COLUMN. */
static void put_wrapped(const char *text) {
    int column = HELP_COLUMN;
    for (; *text; text += *text == ' ') {
        int word = (int)strcspn(text, " ");
        if (column + 1 + word > WIDTH) {
            printf("\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        column += printf("%s%.*s", column > HELP_COLUMN ? " " : "", word, text);
        text += word;
    }
    putchar('\n');
}

static void put_key(const tn_key_info *info) {
    char left[96], text[1024];
    snprintf(left, sizeof left, "  --%s %s", info->name, strcmp(info->kind, "boolean") == 0 ? "" : info->kind);
    printf("%-*s", HELP_COLUMN, left);
    if (strlen(left) >= HELP_COLUMN) printf("\n%*s", HELP_COLUMN, "");
    const char *separator = *info->default_value ? "; default " : "";
    snprintf(text, sizeof text, "%s%s%s%s%s", info->help, separator, info->default_value,
             *info->aliases ? "; also " : "", "");
    size_t used = strlen(text);
    for (const char *at = info->aliases; *at && used + 3 < sizeof text; at++) {
        text[used++] = *at;
        if (*at == ',') text[used++] = ' ';
    }
    text[used] = '\0';
    put_wrapped(text);
}

static void put_keys(const char *verb) {
    tn_key_info info;
    const char *before = "";
    for (int64_t i = 0; tn_config_key(verb, i, &info); i++) {
        const char *title = section_of(info.name);
        if (strcmp(title, before) != 0) printf("\n%s\n", title);
        before = title;
        put_key(&info);
    }
}

static void put_overview(void) {
    printf("tenon %s: fine-tunes large language models\n\n", TENON_VERSION);
    printf("  tenon VERB [config.yaml] [--key value | --key=value ...]\n\n");
    for (int i = 0; i < cli_verb_count; i++) printf("  %-10s %s\n", cli_verbs[i].name, cli_verbs[i].summary);
    printf("  %-10s %s\n  %-10s %s\n\n", "version", "the version", "help VERB",
           "what a verb does, and all its keys");
    printf(
        "The file holds lines of 'key: value' (YAML); flags win over it. A boolean key may stand alone:\n"
        "--packing means true. Lists are separated by commas, maps are JSON, sizes take GB and GiB.\n"
        "Answers go to stdout, with --json as one JSON document; progress, warnings and errors to stderr.\n\n"
        "A first run:\n\n"
        "  tenon plan  --model DIR --dataset chats.jsonl\n"
        "  tenon train --model DIR --dataset chats.jsonl --output_dir out\n"
        "  tenon chat  --model DIR --adapter out\n\n"
        "Exit codes: 0 success, 1 run-time failure, 2 usage or configuration, 3 damaged file or no data,\n"
        "4 does not fit, 5 NaN or Inf, 6 storage, 130/143 interrupted after a checkpoint.\n");
}

static void put_verb(const cli_verb *verb) {
    printf("tenon %s [config.yaml] [--key value ...]: %s\n\n%s\nExamples\n", verb->name, verb->summary,
           verb->about);
    for (const char *line = verb->example; *line;) {
        int length = (int)strcspn(line, "\n");
        printf("  %.*s\n", length, line);
        line += length + (line[length] == '\n');
    }
    put_keys(verb->name);
}

int cli_help(const char *name, bool json) {
    const cli_verb *verb = NULL;
    for (int i = 0; name && i < cli_verb_count; i++)
        if (strcmp(cli_verbs[i].name, name) == 0) verb = &cli_verbs[i];
    if (json)
        return cli_error(true, CLI_USAGE, "leave out --json",
                         "help is text for people, it has no JSON document");
    if (verb) put_verb(verb);
    else put_overview();
    return CLI_OK;
}
