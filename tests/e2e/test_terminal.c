/* test_terminal.c: what a person at a terminal sees of a run: a progress line that is written over and fits the
 * window, a loss curve that fits too and begins where the run began, and plain lines where nothing can be
 * written over. $TENON names the program. */
#define _XOPEN_SOURCE 600 /* posix_openpt */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "testing.h"

static tn_str seen; /* what the program wrote to its terminal */

static void become(const char *terminal, const char *term, char *const words[]) {
    int null = open("/dev/null", O_RDWR);
    setsid();
    int slave = open(terminal, O_RDWR); /* the session's terminal from here on */
    if (slave < 0 || null < 0) _exit(98);
    dup2(null, 0);
    dup2(null, 1);
    dup2(slave, 2);
    unsetenv("COLUMNS");
    setenv("TERM", term, 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    execv(getenv("TENON"), words);
    _exit(99);
}

/* Runs `tenon` with stderr on a terminal of so many columns; its bytes go to `seen`. Returns the exit code. */
static int on_terminal(int columns, const char *term, char *const words[]) {
    struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
    char bytes[4096], name[128];
    int status = 0;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0) skip();
    assert_true(grantpt(master) == 0 && unlockpt(master) == 0);
    snprintf(name, sizeof name, "%s", ptsname(master));
    int slave = open(name, O_RDWR | O_NOCTTY); /* kept open, so that nothing is lost when the program ends */
    assert_true(slave >= 0 && ioctl(slave, TIOCSWINSZ, &size) == 0);
    pid_t child = fork();
    if (child == 0) become(name, term, words);
    tn_str_clear(&seen);
    assert_int_equal(fcntl(master, F_SETFL, O_NONBLOCK), 0);
    for (bool ended = false, empty = false; !ended || !empty;) {
        ssize_t got = read(master, bytes, sizeof bytes);
        empty = got <= 0;
        if (got > 0) tn_str_add(&seen, bytes, got);
        else if (!ended) ended = waitpid(child, &status, WNOHANG) == child;
        if (empty && !ended) usleep(2000);
    }
    close(slave);
    close(master);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int train(int columns, const char *term, const char *steps, const char *more, const char *value) {
    const char *words[] = {"tenon",
                           "train",
                           "--model",
                           "models/islands",
                           "--dataset",
                           "examples/data/islands.jsonl",
                           "--output_dir",
                           scratch("run"),
                           "--max_length",
                           "64",
                           "--device",
                           "cpu",
                           "--batch_size",
                           "1",
                           "--max_steps",
                           steps,
                           more,
                           value,
                           NULL};
    return on_terminal(columns, term, (char *const *)(uintptr_t)words);
}

/* Characters of the longest line that begins with `start` or is part of the curve; a line ends at \r or \n. */
static int widest(const char *start) {
    int most = 0;
    for (const char *at = tn_str_text(&seen); *at;) {
        const char *text = strncmp(at, "\033[K", 3) == 0 ? at + 3 : at;
        int length = (int)strcspn(text, "\r\n"), characters = 0;
        for (int i = 0; i < length; i++) characters += ((unsigned char)text[i] & 0xC0) != 0x80;
        if (strncmp(text, start, strlen(start)) == 0 && characters > most) most = characters;
        at = text + length + (text[length] != '\0');
    }
    return most;
}

static bool shown(const char *part) { return strstr(tn_str_text(&seen), part) != NULL; }
static void forget_run(void) { must(tn_remove_tree(scratch("run"))); }

static void the_progress_line_fits_the_window(void **state) {
    static const int widths[] = {120, 80, 60, 40, 20};
    (void)state;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        assert_int_equal(train(widths[i], "xterm", "3", NULL, NULL), 0);
        forget_run();
        int step = widest("step "), curve = widest("          │");
        if (step == 0 || step >= widths[i]) fail_msg("%d wide on %d columns", step, widths[i]);
        if (curve > widths[i]) fail_msg("a curve %d wide on %d columns", curve, widths[i]);
        assert_true(shown("\r\033[Kstep 1/3  loss "));
        assert_int_equal(shown("of ceiling"), widths[i] >= 120); /* the first to go */
        assert_int_equal(shown(" left"), widths[i] >= 40);       /* the last */
        assert_int_equal(curve > 0, widths[i] >= 40);            /* none is better than a stump */
    }
}

static void nothing_is_written_over_on_a_dumb_terminal(void **state) {
    static const char *const terms[] = {"dumb", ""};
    (void)state;
    for (size_t i = 0; i < sizeof terms / sizeof *terms; i++) {
        assert_int_equal(train(80, terms[i], "3", NULL, NULL), 0);
        forget_run();
        assert_false(shown("\033"));
        assert_true(shown("\nstep 2/3  loss "));
        assert_false(shown("│"));
    }
}

static void the_curve_of_a_resumed_run_begins_with_its_first_step(void **state) {
    (void)state;
    assert_int_equal(train(100, "xterm", "4", "--logging_steps", "2"), 0);
    assert_true(shown("step 1 … 4"));
    assert_int_equal(train(100, "xterm", "6", "--resume_from_checkpoint", "auto"), 0);
    forget_run();
    assert_true(shown("step 1 … 6"));
}

static int clean_up(void **state) {
    (void)state;
    tn_str_free(&seen);
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_progress_line_fits_the_window),
        cmocka_unit_test(nothing_is_written_over_on_a_dumb_terminal),
        cmocka_unit_test(the_curve_of_a_resumed_run_begins_with_its_first_step),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
