/* test_processes.c: one run in several processes: the same curve and the same files whatever their number,
 * resumed under another number, and stopped together when one of them is killed, interrupted or differs. $TENON
 * names the program.
 *
 * Losses of 1, 2 and 4 processes differ by the order in which gradients are added, in fp32: TOLERANCE allows
 * for twelve steps of that (1e-7 is what is seen).
 */
#include <math.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "testing.h"
#include "train/checkpoint.h"
#include "train/ranks.h"

#define TOLERANCE 2e-6
enum { STEPS = 12, MOST = 32 };

/* ---- Runs ----------------------------------------------------------------------------------------- */

/* A shell's command in the scratch directory, "T" being a training run; stderr goes to `log`. */
static int shell(const char *format, ...) {
    char command[2048], whole[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    snprintf(whole, sizeof whole,
             "cd '%s' && T() { \"$TENON\" train --model m --dataset d.jsonl --device cpu --dtype float32 "
             "--threads 1 "
             "--max_length 64 --packing false --gradient_accumulation_steps 6 --learning_rate 1e-2 "
             "--lora_dropout 0.1 "
             "--lora_r 4 --eval_split 6 --eval_steps 5 --save_steps 6 \"$@\"; }; (%s) >out 2>log",
             scratch(""), command);
    int status = system(whole);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void must_say(const char *part) {
    tn_str log = {0};
    must(tn_read_file(scratch("log"), 1 << 24, &log));
    if (!strstr(tn_str_text(&log), part)) fail_msg("\"%s\" is not in:\n%s", part, tn_str_text(&log));
    tn_str_free(&log);
}

static void must_end(int code, int wanted) {
    tn_str log = {0};
    if (code == wanted) return;
    must(tn_read_file(scratch("log"), 1 << 24, &log));
    fail_msg("exit code %d, not %d:\n%s", code, wanted, tn_str_text(&log));
}

/* The values of `key` in a run's log. */
static int read_curve(const char *run, const char *key, double values[MOST]) {
    char name[64];
    tn_str text = {0};
    tn_arena arena = {0};
    const tn_json *line;
    int count = 0;
    snprintf(name, sizeof name, "%s/train_log.jsonl", run);
    must(tn_read_file(scratch(name), 1 << 24, &text));
    for (char *at = text.data, *end; at && (end = strchr(at, '\n')); at = end + 1) {
        must(tn_json_parse(&arena, at, end - at, TN_JSON_DEFAULT, name, &line));
        if (tn_json_get(line, key) && count < MOST)
            values[count++] = tn_json_number(tn_json_get(line, key), NAN);
    }
    tn_arena_free(&arena);
    tn_str_free(&text);
    return count;
}

static void must_be_same_curve(const char *a, const char *b, double tolerance) {
    static const char *const keys[] = {"loss", "grad_norm", "eval_loss", "tokens", "learning_rate", "epoch"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        double x[MOST], y[MOST];
        int count = read_curve(a, keys[k], x);
        assert_true(count > 0);
        assert_int_equal(read_curve(b, keys[k], y), count);
        for (int i = 0; i < count; i++)
            if (!(fabs(x[i] - y[i]) <= tolerance * fmax(1, fabs(x[i]))))
                fail_msg("%s %d: %.9g in %s, %.9g in %s", keys[k], i, x[i], a, y[i], b);
    }
}

static void must_be_same_file(const char *a, const char *b) {
    tn_map x, y;
    must(tn_map_open(scratch(a), &x));
    must(tn_map_open(scratch(b), &y));
    assert_int_equal(x.bytes, y.bytes);
    must_match(x.data, y.data, x.bytes);
    tn_map_close(&x);
    tn_map_close(&y);
}

/* ---- What the split changes: nothing --------------------------------------------------------------- */

static void the_curve_is_that_of_one_process(void **state) {
    char run[16], once[64], twice[64];
    (void)state;
    must_end(shell("T --max_steps %d --output_dir one", STEPS), 0);
    for (int n = 2; n <= 4;
         n++) { /* 3 and 4 do not divide the step's six micro-batches evenly, or not at all */
        snprintf(run, sizeof run, "of%d", n);
        must_end(shell("T --max_steps %d --output_dir %s --processes %d", STEPS, run, n), 0);
        must_be_same_curve("one", run, TOLERANCE);
        must_say("processes");
    }
    must_end(shell("T --max_steps %d --output_dir again --gpus 4", STEPS), 0); /* the other name of the key */
    must_be_same_curve("of4", "again", 0);
    snprintf(once, sizeof once, "of4/adapter_model.safetensors");
    snprintf(twice, sizeof twice, "again/adapter_model.safetensors");
    must_be_same_file(once, twice);
}

/* The checkpoint knows nothing of who wrote it. */
static void a_run_goes_on_under_another_number(void **state) {
    (void)state;
    must_end(shell("cp -r of4 moved && T --max_steps %d --output_dir moved --resume_from_checkpoint "
                   "moved/checkpoint-6 "
                   "--processes 2",
                   STEPS),
             0);
    must_be_same_curve("one", "moved", TOLERANCE);
    must_end(shell("cp -r of2 alone && T --max_steps %d --output_dir alone --resume_from_checkpoint "
                   "alone/checkpoint-6",
                   STEPS),
             0);
    must_be_same_curve("one", "alone", TOLERANCE);
    must_end(
        shell("cp -r of3 same && T --max_steps %d --output_dir same --resume_from_checkpoint same/checkpoint-6 "
              "--processes 3",
              STEPS),
        0);
    must_be_same_curve("of3", "same", 0);
    must_be_same_file("of3/adapter_model.safetensors", "same/adapter_model.safetensors");
}

/* As torchrun and mpirun start them. */
static void other_launchers_are_understood(void **state) {
    (void)state;
    must_end(
        shell(
            "export WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=23456; RANK=1 LOCAL_RANK=1 T --max_steps %d "
            "--output_dir torch & export WORLD_SIZE=2 MASTER_PORT=23456; RANK=0 LOCAL_RANK=0 T --max_steps %d "
            "--output_dir torch; wait $!",
            STEPS, STEPS),
        0);
    must_be_same_curve("of2", "torch", 0);
    must_end(
        shell("export OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_SIZE=2 MASTER_PORT=23556; "
              "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_LOCAL_RANK=1 T --max_steps 2 --output_dir mpi & "
              "export OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_SIZE=2 MASTER_PORT=23556; "
              "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_LOCAL_RANK=0 T --max_steps 2 --output_dir mpi; wait $!"),
        0);
}

/* ---- Ends ------------------------------------------------------------------------------------------ */

/* Starts T with these words and, once step 2 is logged, runs the shell's `then` with the launcher's pid in $P.
 */
static int disturb(const char *words, const char *then) {
    return shell(
        "rm -rf run; T --max_steps 100000 --save_steps 100000 --output_dir run %s & P=$!; i=0; "
        "while [ $i -lt 400 ] && [ \"$(cat run/train_log.jsonl 2>/dev/null | wc -l)\" -lt 2 ]; do sleep 0.05; "
        "i=$((i+1)); done; P=$(pgrep -P $P -f 'output_dir run' | head -1 || echo $P); "
        "[ -n \"$P\" ] || P=$!; %s; wait $!",
        words, then);
}

static int steps_in_checkpoint(void) {
    tn_arena arena = {0};
    const char *path;
    must(tn_checkpoint_newest(&arena, scratch("run"), &path));
    int step = path ? atoi(strrchr(path, '-') + 1) : 0;
    tn_arena_free(&arena);
    return step;
}

/* The checkpoint is of the last step in the log: nothing is lost. */
static void nothing_is_lost(void) {
    int logged = 0;
    tn_str text = {0};
    must(tn_read_file(scratch("run/train_log.jsonl"), 1 << 24, &text));
    for (const char *at = tn_str_text(&text); (at = strstr(at, "\"loss\"")); at++) logged++;
    tn_str_free(&text);
    assert_true(logged >= 1);
    assert_int_equal(steps_in_checkpoint(), logged);
    must_end(shell("T --max_steps %d --output_dir run --resume_from_checkpoint auto --processes 2", logged + 1),
             0);
}

static void a_killed_rank_stops_all_and_nothing_is_lost(void **state) {
    (void)state;
    must_end(disturb("--processes 4", "kill -9 $(pgrep -P $P | sed -n 3p)"), 1);
    must_say("rank 2 of 4 is gone");
    must_say("which is saved");
    nothing_is_lost();
}

static void rank_0_killed_stops_the_others(void **state) {
    (void)state;
    must_end(disturb("--processes 3", "kill -9 $(pgrep -P $P | head -1)"), 1);
    must_say("rank 0 of 3 is gone");
    must_say("rank 0 was ended by signal 9");
}

static void an_interrupt_leaves_one_checkpoint(void **state) {
    (void)state;
    must_end(disturb("--processes 3", "kill -INT $P"), 130);
    must_say("interrupted after step");
    nothing_is_lost();
}

/* One rank alone is told to stop, as a scheduler may do. */
static void a_signal_to_one_rank_stops_all(void **state) {
    (void)state;
    must_end(disturb("--processes 2", "kill -TERM $(pgrep -P $P | sed -n 2p)"), 130);
    nothing_is_lost();
}

/* ---- What is refused ------------------------------------------------------------------------------- */

static void contradictions_are_refused(void **state) {
    (void)state;
    must_end(shell("RANK=2 WORLD_SIZE=2 T --output_dir bad"), 2);
    must_say("RANK=2 and WORLD_SIZE=2");
    must_end(shell("WORLD_SIZE=2 T --output_dir bad"), 2);
    must_say("WORLD_SIZE without RANK");
    must_end(shell("RANK=x WORLD_SIZE=2 T --output_dir bad"), 2);
    must_say("RANK=x");
    must_end(shell("RANK=0 WORLD_SIZE=2 MASTER_PORT=99999999 T --output_dir bad"), 2);
    must_say("MASTER_PORT");
    must_end(shell("RANK=0 WORLD_SIZE=2 MASTER_PORT=23656 TENON_RENDEZVOUS_SECONDS=1 T --output_dir bad"), 1);
    must_say("1 of 2 processes did not come within 1 s (rank 1)");
    must_end(shell("RANK=1 WORLD_SIZE=2 MASTER_PORT=23656 TENON_RENDEZVOUS_SECONDS=1 T --output_dir bad"), 1);
    must_say("rank 1 found no rank 0 at ");
    must_end(shell("RANK=1 WORLD_SIZE=2 MASTER_ADDR=no.such.host.invalid TENON_RENDEZVOUS_SECONDS=1 T "
                   "--output_dir bad"),
             1);
    must_say("within 1 s: MASTER_ADDR no.such.host.invalid: ");
    must_end(shell("T --output_dir bad --processes 7"), 2);
    must_say("7 processes share the 6 micro-batches");
    must_end(shell("T --output_dir bad --processes 99999999999"), 2);
    must_say("99999999999 processes on one machine");
    must_end(shell("T --output_dir bad --processes 1e1"), 2); /* and not one process */
    must_say("10 processes share the 6 micro-batches");
    must_end(shell("T --output_dir bad --processes 2 --device cuda:0"), 2);
    must_say("names one GPU");
    assert_false(tn_is_directory(scratch("bad")));
}

/* A program that uses the library is alone, whatever its keys say. */
static void the_library_starts_no_processes(void **state) {
    tn_config *config;
    tn_doc *doc;
    (void)state;
    must(tn_config_new("train", &config));
    must(tn_config_set(config, "model", scratch("m")));
    must(tn_config_set(config, "dataset", scratch("d.jsonl")));
    must(tn_config_set(config, "output_dir", scratch("bad")));
    must(tn_config_set(config, "device", "cpu"));
    must(tn_config_set(config, "processes", "2"));
    must_fail(tn_train(config, NULL, &doc), TN_USAGE, "processes says 2, and this process runs alone");
    tn_config_free(config);
    assert_false(tn_is_directory(scratch("bad")));
}

static void ranks_that_differ_are_refused(void **state) {
    (void)state;
    must_end(shell("export WORLD_SIZE=2 MASTER_PORT=23756; RANK=1 T --output_dir bad --learning_rate 1e-3 & "
                   "export WORLD_SIZE=2 MASTER_PORT=23756; RANK=0 T --output_dir bad"),
             2);
    must_say("rank 1 has another learning_rate than rank 0: 0.001, not 0.01");
    must_end(shell("export WORLD_SIZE=2 MASTER_PORT=23856; RANK=1 T --output_dir bad --model nowhere & "
                   "export WORLD_SIZE=2 MASTER_PORT=23856; RANK=0 T --output_dir bad"),
             2);
    must_say("rank 1: ");
    assert_false(tn_is_directory(scratch("bad")));
}

/* A port scanner, or a health check: somebody who connects to rank 0 and says nothing, before rank 1 comes. */
static void strangers_cost_time_alone(void **state) {
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(23956)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    pid_t stranger = fork();
    if (stranger == 0) {
        const struct timespec moment = {.tv_nsec = 2000000};
        for (int reached = 0; reached < 3; nanosleep(&moment, NULL)) {
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) reached++;
            else close(fd);
        }
        for (;;) pause();
    }
    must_end(
        shell("export WORLD_SIZE=2 MASTER_PORT=23956; (sleep 1; RANK=1 T --max_steps 2 --output_dir met) & "
              "RANK=0 T --max_steps 2 --output_dir met && wait $!"),
        0);
    kill(stranger, SIGKILL);
    waitpid(stranger, NULL, 0);
}

static void plan_shows_the_split(void **state) {
    tn_str text = {0};
    (void)state;
    must_end(
        shell("\"$TENON\" plan --model smollm2-135m --device cpu --gpus 4 --gradient_accumulation_steps 8"), 0);
    must(tn_read_file(scratch("out"), 1 << 20, &text));
    assert_non_null(strstr(tn_str_text(&text), "4, each with this memory and 2 of a step's 8 micro-batches"));
    assert_non_null(strstr(tn_str_text(&text), "memory of each of 4 processes"));
    tn_str_free(&text);
}

static double planned(const char *keys, const char *member) {
    tn_str text = {0};
    tn_arena arena = {0};
    const tn_json *plan;
    must_end(shell("\"$TENON\" plan --model m --device cpu --json %s", keys), 0);
    must(tn_read_file(scratch("out"), 1 << 20, &text));
    must(tn_json_parse(&arena, tn_str_text(&text), text.length, TN_JSON_DEFAULT, "plan", &plan));
    const tn_json *memory = tn_json_get(plan, "memory"), *found = tn_json_get(plan, member);
    double value = tn_json_number(found ? found : tn_json_get(memory, member), NAN);
    tn_arena_free(&arena);
    tn_str_free(&text);
    return value;
}

/* Nobody said how many threads or bytes each may take. */
static void the_machine_is_shared_out(void **state) {
    (void)state;
    double alone = planned("", "available"), each = planned("--processes 4", "available");
    assert_true(each < alone / 3 && each > alone / 6); /* what is free changes from call to call */
    assert_true(planned("--processes 4 --memory_limit 1000000", "available") == 1000000);
    must_end(shell("unset OMP_NUM_THREADS; cores=$(nproc) && [ $cores -gt 1 ] || cores=2; "
                   "T --output_dir shared --max_steps 1 --threads auto --processes 2 && "
                   "grep \"^threads: $((cores / 2))$\" shared/config.resolved.yaml"),
             0);
}

/* ---- Launchers' variables --------------------------------------------------------------------------- */

static void the_environment_is_read(void **state) {
    tn_ranks ranks;
    tn_meeting meeting;
    char device[TN_RANKS_DEVICE];
    (void)state;
    must(tn_ranks_read(&ranks));
    assert_int_equal(ranks.world, 1);
    setenv("SLURM_PROCID", "5", 1);
    setenv("SLURM_NTASKS", "8", 1);
    setenv("SLURM_LOCALID", "1", 1);
    setenv("SLURM_JOB_ID", "7", 1);
    must(tn_ranks_read(&ranks)); /* the batch script itself */
    assert_int_equal(ranks.world, 1);
    setenv("SLURM_STEP_ID", "0", 1);
    setenv("SLURM_STEP_NODELIST", "node[07-09,12],other3", 1);
    must(tn_meeting_read(&meeting));
    assert_int_equal(meeting.ranks.rank, 5);
    assert_int_equal(meeting.ranks.local_rank, 1);
    assert_string_equal(meeting.host, "node07");
    must(tn_ranks_device("cuda", device));
    assert_string_equal(device, "cuda:1");
    setenv("CUDA_VISIBLE_DEVICES", "3", 1);
    must(tn_ranks_device("auto", device));
    assert_string_equal(device, "auto:0");
    must_fail(tn_ranks_device("cuda:2", device), TN_USAGE, "names one GPU");
    must(tn_ranks_device("cpu", device));
    assert_string_equal(device, "cpu");
    static const char *const names[] = {"SLURM_PROCID",        "SLURM_NTASKS",  "SLURM_LOCALID",
                                        "SLURM_JOB_ID",        "SLURM_STEP_ID", "SLURM_STEP_NODELIST",
                                        "CUDA_VISIBLE_DEVICES"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unsetenv(names[i]);
}

static int make_files(void **state) {
    static const char config[] =
        "{\"model_type\":\"llama\",\"vocab_size\":64,\"hidden_size\":32,\"intermediate_size\":64,"
        "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
        "\"max_position_embeddings\":64,\"tie_word_embeddings\":false}\n";
    char command[1024], path[512];
    (void)state;
    snprintf(path, sizeof path, "%s", scratch("d.jsonl"));
    FILE *file = fopen(path, "w");
    for (int record = 0, x = 1; file && record < 50;
         record++) { /* lengths from 5 to 47, a third without a label */
        const int length = 5 + record * 17 % 43;
        for (int half = 0; half < 2; half++) {
            fputs(half == 0 ? "{\"input_ids\":[" : "],\"labels\":[", file);
            for (int i = 0; i < length; i++) {
                x = half == 0 ? (x * 1103 + 12345) % 65521 : x;
                fprintf(file, "%s%d", i ? "," : "",
                        half == 0        ? x % 64
                        : i < length / 3 ? -100
                                         : (i * 7 + record) % 64);
            }
        }
        fputs("]}\n", file);
    }
    if (!file || fclose(file) != 0) return 1;
    snprintf(command, sizeof command, "\"$TENON\" init --model '%s' --output_dir '%s' >/dev/null",
             write_scratch("c.json", config, sizeof config - 1), scratch("m"));
    return system(command);
}

static int remove_files(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_environment_is_read),
        cmocka_unit_test(the_curve_is_that_of_one_process),
        cmocka_unit_test(a_run_goes_on_under_another_number),
        cmocka_unit_test(other_launchers_are_understood),
        cmocka_unit_test(a_killed_rank_stops_all_and_nothing_is_lost),
        cmocka_unit_test(rank_0_killed_stops_the_others),
        cmocka_unit_test(an_interrupt_leaves_one_checkpoint),
        cmocka_unit_test(a_signal_to_one_rank_stops_all),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(the_library_starts_no_processes),
        cmocka_unit_test(ranks_that_differ_are_refused),
        cmocka_unit_test(strangers_cost_time_alone),
        cmocka_unit_test(plan_shows_the_split),
        cmocka_unit_test(the_machine_is_shared_out),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
