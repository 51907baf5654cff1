/* cli.h: what the files of the command line share. The program stands on <tenon/tenon.h> alone; it is the only
 * place that knows stdout, exit codes, signals and terminals. stdout carries results only: the JSON document,
 * generated text, lines of tokenize, inspect's table, help and version; reports, progress, warnings and errors
 * go to stderr.
 */
#ifndef TN_CLI_H
#define TN_CLI_H

#include <stdio.h>
#include <tenon/tenon.h>

typedef enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_BAD_DATA = 3,
    CLI_NO_FIT = 4,
    CLI_NUMERIC = 5,
    CLI_STORAGE = 6,
    CLI_SIGNAL = 128, /* + the signal's number */
} cli_exit;

/* One run of a verb: its settings, and whether the answer is wanted as JSON. */
typedef struct cli_run {
    tn_config *config;
    bool json;
} cli_run;

/* A row of the table of verbs (main.c). `run` returns the exit code. */
typedef struct cli_verb {
    const char *name, *summary;
    int (*run)(const cli_run *run);
    const char *about, *example; /* for `tenon help NAME` */
} cli_verb;
extern const cli_verb cli_verbs[];
extern const int cli_verb_count;

int cli_train(const cli_run *run);
int cli_plan(const cli_run *run);
int cli_eval(const cli_run *run);
int cli_generate(const cli_run *run);
int cli_chat(const cli_run *run);
int cli_tokenize(const cli_run *run);
int cli_data(const cli_run *run);
int cli_inspect(const cli_run *run);
int cli_verify(const cli_run *run);
int cli_init(const cli_run *run);
int cli_bench(const cli_run *run);
int cli_env(const cli_run *run);
int cli_merge(const cli_run *run);
int cli_quantize(const cli_run *run);
int cli_export(const cli_run *run);

/* args.c: reads `[config.yaml] [--key value | --key=value ...]` into run->config. Returns an exit code. */
int cli_read_arguments(cli_run *run, int count, char **words);
/* Is --json among the words? Asked first, so that errors of the words themselves come as JSON too. */
bool cli_wants_json(int count, char **words);

/* help.c */
int cli_help(const char *verb /* NULL = the overview */, bool json);
void cli_print_version(void);

/* error.c: each reports on stderr, with `json` also as a document on stdout, and returns the exit code. */
int cli_fail(bool json, tn_status status);
int cli_error(bool json, int code, const char *remedy, const char *format, ...) TN_PRINTF(4, 5);
/* Flushes stdout; where writing failed at any time, says so and returns CLI_STORAGE, else `code`. */
int cli_close_stdout(int code);

/* launch.c: where the key `processes` asks for several and no launcher has started this one as one of them,
 * starts them and waits: true, with the exit code. False: this is a process that works, alone or as one of
 * several, of which only rank 0 is heard. */
bool cli_launch(const cli_run *run, int *code);
/* Is this rank 0 of its run? */
bool cli_is_first(void);

/* signal.c: the first SIGINT or SIGTERM asks to stop, the second kills. */
void cli_catch_signals(void);
int cli_signal(void);        /* the signal that came, 0 for none */
void cli_clear_signal(void); /* chat: an answer was stopped, the program goes on */
bool cli_should_stop(void *user);
/* A mapped file that is cut short ends the program with a message and CLI_STORAGE instead of a bare SIGBUS. */
void cli_catch_bus_errors(bool json);

/* A tn_text_function whose user is the cli_run: text to stdout, unless JSON is wanted. A signal or a closed
 * pipe ends the text (generate.c). */
bool cli_stream_text(void *user, const char *text, int64_t bytes);

/* print.c */
void cli_put_document(const tn_doc *doc);
/* The whole answer of a verb without a layout of its own: reports a failure or shows the document; frees it. */
int cli_put_answer(const cli_run *run, tn_status status, tn_doc *doc);
/* The same of a verb that writes a model; a signal stops it, and leaves nothing. */
typedef tn_status cli_writing(tn_config *config, const tn_hooks *hooks, tn_doc **doc);
int cli_write_model(const cli_run *run, cli_writing *verb);
void cli_put_json_string(FILE *file, const char *text);
bool cli_is_text(const char *text, int64_t bytes);      /* UTF-8 without a NUL; one stands behind the `bytes` */
const char *cli_count(int64_t count, char out[32]);     /* 1,218,445,312 */
const char *cli_bytes(int64_t bytes, char out[32]);     /* 16.40 GiB */
const char *cli_duration(double seconds, char out[32]); /* 1:02:03 */
/* A JSON text for the eye, as indented "key: value" lines; the top-level key `skip` is left out. */
void cli_print_outline(FILE *file, const char *json, const char *skip);
char *cli_read_file(const char *path, bool json, int *code); /* "-" = stdin; NULL and *code on failure */

/* progress.c: what the events of a job look like. */
typedef struct cli_progress {
    const tn_config *config; /* for logging_steps, and output_dir, where a resumed run's log is */
    bool terminal, plot, line_open;
    double *losses; /* (count): of one step each, from first_step on */
    int64_t count, capacity, first_step;
} cli_progress;
void cli_progress_start(cli_progress *progress, const cli_run *run, tn_hooks *hooks);
/* Ends the line in progress, draws the loss curve where wanted, frees. */
void cli_progress_end(cli_progress *progress);
/* curve.c: the losses of consecutive steps in braille dots, 10 lines high and with its scale at most `width`
 * characters wide; nothing where that is too narrow for a curve. */
void cli_draw_curve(FILE *file, const double *losses, int64_t count, int64_t first_step, int width);

/* log lines of the library, kept apart from a progress line. */
void cli_show_log(void);

#endif
