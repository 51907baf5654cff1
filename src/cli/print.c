/* print.c: numbers, tables and documents for the eye, and JSON text for programs. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

enum { OUTLINE_ITEMS = 8, OUTLINE_TEXT = 160, OUTLINE_DEPTH = 32, INPUT_LIMIT = 64 << 20 };

void cli_put_document(const tn_doc *doc) {
    fputs(tn_doc_text(doc), stdout);
    fputc('\n', stdout);
}

int cli_put_answer(const cli_run *run, tn_status status, tn_doc *doc) {
    if (status != TN_OK) return cli_fail(run->json, status);
    if (run->json) cli_put_document(doc);
    else cli_print_outline(stdout, tn_doc_text(doc), NULL);
    tn_doc_free(doc);
    return CLI_OK;
}

int cli_write_model(const cli_run *run, cli_writing *verb) {
    const tn_hooks hooks = {.should_stop = cli_should_stop};
    tn_doc *doc = NULL;
    cli_catch_signals();
    tn_status status = verb(run->config, &hooks, &doc);
    return cli_put_answer(run, status, doc);
}

/* Bytes of the UTF-8 character at `text`, which ends with a NUL; 0 where there is none (an error message may
 * quote any path). */
static int character_bytes(const unsigned char *text) {
    int bytes = text[0] < 0x80 ? 1 : text[0] >= 0xF0 ? 4 : text[0] >= 0xE0 ? 3 : 2;
    if (bytes == 1) return 1;
    if (text[0] < 0xC2 || text[0] > 0xF4) return 0;
    for (int i = 1; i < bytes; i++)
        if ((text[i] & 0xC0) != 0x80) return 0;
    bool overlong = (text[0] == 0xE0 && text[1] < 0xA0) || (text[0] == 0xF0 && text[1] < 0x90);
    bool outside = (text[0] == 0xED && text[1] > 0x9F) || (text[0] == 0xF4 && text[1] > 0x8F);
    return overlong || outside ? 0 : bytes;
}

bool cli_is_text(const char *text, int64_t bytes) {
    for (int64_t at = 0; at < bytes;) {
        int length = character_bytes((const unsigned char *)text + at); /* the NUL behind the text ends it */
        if (length == 0 || text[at] == '\0') return false;
        at += length;
    }
    return true;
}

void cli_put_json_string(FILE *file, const char *text) {
    fputc('"', file);
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        int bytes = character_bytes(at);
        if (*at == '"' || *at == '\\') fprintf(file, "\\%c", *at);
        else if (*at == '\n') fputs("\\n", file);
        else if (*at < 0x20) fprintf(file, "\\u%04x", *at);
        else if (bytes == 0) fputs("\xEF\xBF\xBD", file); /* U+FFFD */
        else fwrite(at, 1, (size_t)bytes, file);
        at += bytes ? bytes : 1;
    }
    fputc('"', file);
}

const char *cli_count(int64_t count, char out[32]) {
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)count), to = 0;
    for (int i = 0; i < length; i++) {
        if (i > 0 && digits[i - 1] != '-' && (length - i) % 3 == 0) out[to++] = ',';
        out[to++] = digits[i];
    }
    out[to] = '\0';
    return out;
}

const char *cli_bytes(int64_t bytes, char out[32]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && unit < 5; unit++) value /= 1024;
    snprintf(out, 32, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
    return out;
}

const char *cli_duration(double seconds, char out[32]) {
    if (!(seconds >= 0 && seconds < 1e8)) return strcpy(out, "-");
    long whole = lround(seconds), hours = whole / 3600, minutes = whole / 60 % 60;
    if (hours > 0) snprintf(out, 32, "%ld:%02ld:%02ld", hours, minutes, whole % 60);
    else snprintf(out, 32, "%ld:%02ld", minutes, whole % 60);
    return out;
}

/* ---- outline: the tenth of a YAML printer that reports need -------------------------------------- */

static const char *skip_space(const char *at) { return at + strspn(at, " \t\r\n"); }

/* Behind the value at `at`. */
static const char *value_end(const char *at) {
    int depth = 0;
    bool quoted = false;
    for (; *at; at++) {
        if (quoted) {
            if (*at == '\\' && at[1]) at++;
            else if (*at == '"') quoted = false;
        } else if (*at == '"') {
            quoted = true;
        } else if (*at == '{' || *at == '[') {
            depth++;
        } else if (*at == '}' || *at == ']' || *at == ',') {
            if (depth == 0) return at;
            if (*at != ',') depth--;
        }
        if (depth == 0 && !quoted && strchr("}]\"", *at)) return at + 1;
    }
    return at;
}

static void print_scalar(FILE *file, const char *at, const char *end) {
    bool text = *at == '"' && end - at >= 2;
    if (text) at++, end--;
    int length = end - at > OUTLINE_TEXT ? OUTLINE_TEXT : (int)(end - at);
    while (length < end - at && length > 0 && ((unsigned char)at[length] & 0xC0) == 0x80) length--;
    fprintf(file, "%.*s%s", length, at, length < end - at ? "…" : "");
}

static bool is_container(const char *at) { return *at == '{' || *at == '['; }

static void print_value(FILE *file, const char *at, int depth, const char *skip);

static void print_object(FILE *file, const char *at, int depth, const char *skip) {
    for (at = skip_space(at + 1); *at == '"';) {
        const char *end = value_end(at), *value = skip_space(end);
        if (*value == ':') value = skip_space(value + 1);
        bool skipped =
            skip && (size_t)(end - at) == strlen(skip) + 2 && memcmp(at + 1, skip, strlen(skip)) == 0;
        if (!skipped) {
            fprintf(file, "%*s", 2 * depth, "");
            print_scalar(file, at, end);
            fputs(":", file);
            print_value(file, value, depth + 1, NULL);
        }
        at = skip_space(value_end(value));
        if (*at == ',') at = skip_space(at + 1);
    }
}

/* Objects one below the other, scalars on the key's line; long arrays are cut, with their length behind. */
static void print_array(FILE *file, const char *at, int depth) {
    int64_t items = 0;
    at = skip_space(at + 1);
    bool block = is_container(at);
    if (block) fputc('\n', file);
    for (; *at && *at != ']'; items++) {
        const char *end = value_end(at);
        if (items < OUTLINE_ITEMS && block) fprintf(file, "%*s-\n", 2 * depth, "");
        if (items < OUTLINE_ITEMS && *at == '{') print_object(file, at, depth + 1, NULL);
        if (items < OUTLINE_ITEMS && !block) fputs(items ? ", " : " ", file), print_scalar(file, at, end);
        at = skip_space(end);
        if (*at == ',') at = skip_space(at + 1);
    }
    if (items > OUTLINE_ITEMS)
        fprintf(file, "%*s… (%lld in all)%s", block ? 2 * depth : 1, "", (long long)items, block ? "\n" : "");
    if (!block) fputc('\n', file);
}

static void print_value(FILE *file, const char *at, int depth, const char *skip) {
    if (depth > OUTLINE_DEPTH) {
        fputs(" …\n", file);
    } else if (*at == '{') {
        if (depth > 0) fputc('\n', file);
        print_object(file, at, depth, skip);
    } else if (*at == '[') {
        print_array(file, at, depth);
    } else {
        fputc(' ', file);
        print_scalar(file, at, value_end(at));
        fputc('\n', file);
    }
}

void cli_print_outline(FILE *file, const char *json, const char *skip) {
    print_value(file, skip_space(json), 0, skip);
}

/* ---- files and log lines ------------------------------------------------------------------------- */

char *cli_read_file(const char *path, bool json, int *code) {
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    char *text = NULL, buffer[4096];
    size_t size = 0, got;
    if (!file) {
        *code = cli_error(json, CLI_USAGE, "check the path", "cannot open %s: %s", path, strerror(errno));
        return NULL;
    }
    FILE *memory = open_memstream(&text, &size);
    while (memory && (got = fread(buffer, 1, sizeof buffer, file)) > 0 && ftell(memory) <= INPUT_LIMIT)
        fwrite(buffer, 1, got, memory);
    int reason = ferror(file) ? errno : 0;
    bool complete = memory && fclose(memory) == 0 && !reason && size <= INPUT_LIMIT;
    if (file != stdin) fclose(file);
    if (complete) return text;
    free(text);
    if (reason == EISDIR)
        *code = cli_error(json, CLI_USAGE, "", "%s is a directory, a file was expected", path);
    else if (reason) *code = cli_error(json, CLI_STORAGE, "", "cannot read %s: %s", path, strerror(reason));
    else *code = cli_error(json, CLI_BAD_DATA, "", "%s is larger than %d MiB", path, INPUT_LIMIT >> 20);
    return NULL;
}
