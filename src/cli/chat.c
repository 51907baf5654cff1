/* chat.c: `tenon chat`: a conversation on the terminal. It is kept as the JSON list of messages without its
 * closing bracket, which is what the next turn appends to and the library reads. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* `list` + one message, in new memory; NULL when memory is out. */
static char *with_message(const char *list, const char *role, const char *content) {
    char *text = NULL;
    size_t size;
    FILE *memory = open_memstream(&text, &size);
    if (!memory) return NULL;
    fprintf(memory, "%s%s{\"role\":\"%s\",\"content\":", list, strcmp(list, "[") == 0 ? "" : ",", role);
    cli_put_json_string(memory, content);
    fputc('}', memory);
    if (fclose(memory) == 0) return text;
    free(text);
    return NULL;
}

/* Replaces *list by one with the message behind it. */
static bool append(char **list, const char *role, const char *content) {
    char *longer = with_message(*list, role, content);
    if (!longer) return false;
    free(*list);
    *list = longer;
    return true;
}

/* A turn that failed is taken out of the conversation again. */
static int answer(const cli_run *run, tn_generator *generator, char **list, const char *line) {
    const size_t before = strlen(*list);
    tn_doc *doc = NULL;
    char *messages = NULL;
    int code = CLI_OK;
    size_t size;
    if (!append(list, "user", line)) return cli_error(run->json, CLI_FAILED, "", "out of memory");
    FILE *memory = open_memstream(&messages, &size);
    if (memory) fprintf(memory, "%s]", *list);
    if (!memory || fclose(memory) != 0) return cli_error(run->json, CLI_FAILED, "", "out of memory");
    tn_status status = tn_generate_chat(generator, messages, cli_stream_text, (void *)(uintptr_t)run, &doc);
    if (status != TN_OK) {
        code = cli_fail(run->json, status);
        (*list)[before] = '\0';
    } else {
        if (!run->json) fputc('\n', stdout), fflush(stdout);
        if (!append(list, "assistant", tn_doc_string(doc, "text", "")))
            code = cli_error(run->json, CLI_FAILED, "", "out of memory");
    }
    if (cli_signal()) cli_clear_signal(); /* it was for this answer */
    tn_doc_free(doc);
    free(messages);
    return code;
}

/* What is no text would reach the model as something else than was typed. */
static int take_line(const cli_run *run, tn_generator *generator, char **list, const char *line,
                     int64_t length) {
    if (cli_is_text(line, length)) return answer(run, generator, list, line);
    return cli_error(run->json, CLI_BAD_DATA, "type it again, with the terminal or the file in UTF-8",
                     "the line is not UTF-8 text, and was left out");
}

/* A line that cannot be answered (too long for the context, no text) must not cost the conversation: where
 * there is a reader (no --json, whose answer is one document) it goes on. What is piped in still ends with the
 * code of the turn that failed. */
static bool is_passing(int code) { return code == CLI_NO_FIT || code == CLI_BAD_DATA; }

static int converse(const cli_run *run, tn_generator *generator) {
    bool terminal = isatty(STDIN_FILENO);
    char *line = NULL, *list = strdup("[");
    size_t capacity = 0;
    ssize_t length;
    int code = CLI_OK, turn = CLI_OK;
    if (!list) return cli_error(run->json, CLI_FAILED, "", "out of memory");
    if (terminal) fputs("/reset forgets the conversation, /exit ends\n", stderr);
    while ((turn == CLI_OK || (is_passing(turn) && !run->json)) && !ferror(stdout)) {
        if (terminal) fputs("> ", stderr);
        if ((length = getline(&line, &capacity, stdin)) < 0) break;
        while (length > 0 && strchr("\r\n", line[length - 1])) line[--length] = '\0';
        if (strcmp(line, "/exit") == 0) break;
        turn = CLI_OK;
        if (strcmp(line, "/reset") == 0) list[1] = '\0';
        else if (length > 0) turn = take_line(run, generator, &list, line, length);
        if (turn != CLI_OK && !(terminal && is_passing(turn))) code = turn;
    }
    if (code == CLI_OK && run->json) printf("{\"messages\":%s]}\n", list);
    free(list);
    free(line);
    return code;
}

int cli_chat(const cli_run *run) {
    tn_generator *generator = NULL;
    tn_status status = tn_generator_open(run->config, &generator);
    if (status != TN_OK) return cli_fail(run->json, status);
    cli_catch_signals();
    int code = converse(run, generator);
    tn_generator_free(generator);
    return code;
}
