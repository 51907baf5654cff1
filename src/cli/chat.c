/* chat.c: `tenon chat`: a conversation on the terminal. It is kept as the JSON list of messages without its
 * closing bracket, which is what the next turn appends to and the library reads. Pictures wait, as JSON parts
 * with a comma behind each, for the line that they are shown with. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* Replaces *text by what was written to `memory`, *longer once it is closed; false when memory is out. */
static bool replace(char **text, FILE *memory, char *const *longer) {
    if (fclose(memory) != 0) {
        free(*longer);
        return false;
    }
    free(*text);
    *text = *longer;
    return true;
}

/* A message behind the list, its text behind `pictures`. */
static bool append(char **list, const char *role, const char *pictures, const char *content) {
    char *longer = NULL;
    size_t size;
    FILE *memory = open_memstream(&longer, &size);
    if (!memory) return false;
    fprintf(memory, "%s%s{\"role\":\"%s\",\"content\":", *list, strcmp(*list, "[") == 0 ? "" : ",", role);
    if (*pictures) fprintf(memory, "[%s{\"type\":\"text\",\"text\":", pictures);
    cli_put_json_string(memory, content);
    fputs(*pictures ? "}]}" : "}", memory);
    return replace(list, memory, &longer);
}

static bool append_picture(char **pictures, const char *path) {
    char *longer = NULL;
    size_t size;
    FILE *memory = open_memstream(&longer, &size);
    if (!memory) return false;
    fprintf(memory, "%s{\"type\":\"image\",\"image\":", *pictures);
    cli_put_json_string(memory, path);
    fputs("},", memory);
    return replace(pictures, memory, &longer);
}

typedef struct conversation {
    char *list, *pictures; /* see above */
    bool shown;            /* the last line was shown with pictures */
} conversation;

static int out_of_memory(const cli_run *run) { return cli_error(run->json, CLI_FAILED, "", "out of memory"); }

/* A turn that failed is taken out of the conversation again, with its pictures. */
static int answer(const cli_run *run, tn_generator *generator, conversation *c, const char *line) {
    const size_t before = strlen(c->list);
    tn_doc *doc = NULL;
    char *messages = NULL;
    int code = CLI_OK;
    size_t size;
    if (!append(&c->list, "user", c->pictures, line)) return out_of_memory(run);
    c->shown = c->pictures[0] != '\0';
    c->pictures[0] = '\0';
    FILE *memory = open_memstream(&messages, &size);
    if (memory) fprintf(memory, "%s]", c->list);
    if (!memory || fclose(memory) != 0) return out_of_memory(run);
    tn_status status = tn_generate_chat(generator, messages, cli_stream_text, (void *)(uintptr_t)run, &doc);
    if (status != TN_OK) {
        code = cli_fail(run->json, status);
        c->list[before] = '\0';
    } else {
        if (!run->json) fputc('\n', stdout), fflush(stdout);
        if (!append(&c->list, "assistant", "", tn_doc_string(doc, "text", ""))) code = out_of_memory(run);
    }
    if (cli_signal()) cli_clear_signal(); /* it was for this answer */
    tn_doc_free(doc);
    free(messages);
    return code;
}

/* Said at once where the path is wrong; what is in the file shows when the model looks at it. */
static int show(const cli_run *run, conversation *c, const char *path) {
    static const char remedy[] = "/image wants the path of a PNG or JPEG file";
    path += strspn(path, " ");
    if (!*path) return cli_error(run->json, CLI_BAD_DATA, remedy, "/image without a path");
    if (!cli_is_text(path, (int64_t)strlen(path)))
        return cli_error(run->json, CLI_BAD_DATA, "rename the file", "%s: the path is not UTF-8 text", path);
    if (access(path, R_OK) != 0)
        return cli_error(run->json, CLI_BAD_DATA, remedy, "%s: %s", path, strerror(errno));
    return append_picture(&c->pictures, path) ? CLI_OK : out_of_memory(run);
}

/* What is no text would reach the model as something else than was typed. */
static int take_line(const cli_run *run, tn_generator *generator, conversation *c, const char *line,
                     int64_t length) {
    static const char image[] = "/image";
    const char *behind = line + sizeof image - 1;
    c->shown = false;
    if (strncmp(line, image, sizeof image - 1) == 0 && (*behind == ' ' || !*behind))
        return show(run, c, behind);
    if (cli_is_text(line, length)) return answer(run, generator, c, line);
    return cli_error(run->json, CLI_BAD_DATA, "type it again, with the terminal or the file in UTF-8",
                     "the line is not UTF-8 text, and was left out");
}

/* A line that cannot be answered (too long for the context, no text, shown with a file that is no picture) must
 * not cost the conversation: where there is a reader (no --json, whose answer is one document) it goes on. What
 * is piped in still ends with the code of the turn that failed. */
static bool is_passing(const conversation *c, int code) {
    return code == CLI_NO_FIT || code == CLI_BAD_DATA || (code == CLI_USAGE && c->shown);
}

static int converse(const cli_run *run, tn_generator *generator) {
    bool terminal = isatty(STDIN_FILENO);
    char *line = NULL;
    conversation c = {.list = strdup("["), .pictures = strdup("")};
    size_t capacity = 0;
    ssize_t length;
    int code = CLI_OK, turn = CLI_OK;
    if (!c.list || !c.pictures) {
        free(c.list);
        free(c.pictures);
        return out_of_memory(run);
    }
    if (terminal)
        fputs(
            "/reset forgets the conversation, /exit ends; /image FILE shows a picture with the next line, to a "
            "model that sees\n",
            stderr);
    while ((turn == CLI_OK || (is_passing(&c, turn) && !run->json)) && !ferror(stdout)) {
        if (terminal) fputs("> ", stderr);
        if ((length = getline(&line, &capacity, stdin)) < 0) break;
        while (length > 0 && strchr("\r\n", line[length - 1])) line[--length] = '\0';
        if (strcmp(line, "/exit") == 0) break;
        turn = CLI_OK;
        if (strcmp(line, "/reset") == 0) c.list[1] = c.pictures[0] = '\0';
        else if (length > 0) turn = take_line(run, generator, &c, line, length);
        if (turn != CLI_OK && !(terminal && is_passing(&c, turn))) code = turn;
    }
    if (*c.pictures) fputs("warning: /image shows a picture with the next line, and none came\n", stderr);
    if (code == CLI_OK && run->json) printf("{\"messages\":%s]}\n", c.list);
    free(c.list);
    free(c.pictures);
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
