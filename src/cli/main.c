/* main.c: the table of verbs, and the way from the command line to one of them. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

const cli_verb cli_verbs[] = {
    {"train", "fine-tune a model: LoRA, or every weight", cli_train,
     "Trains an adapter on a frozen base and writes it to output_dir, with checkpoints on the way.\n"
     "--adapter DIR continues an adapter; --resume_from_checkpoint auto takes up an interrupted run,\n"
     "bit for bit. Ctrl-C stops after the step and writes a checkpoint; a second one stops at once.\n",
     "tenon train --model Qwen2.5-0.5B --dataset chats.jsonl --output_dir out\n"
     "tenon train run.yaml --learning_rate 1e-4 --max_steps 200\n"
     "tenon train run.yaml --resume_from_checkpoint auto\n"
     "tenon train --model SmolLM2.Q4_1.gguf --dataset chats.jsonl --output_dir out\n"},
    {"plan", "what train would do: parameters, memory, context, speed", cli_plan,
     "Says what `train` with the same keys would need and do, without loading weights. The model may be\n"
     "a directory, its config.json, or the name of a shape such as llama-3.1-8b.\n",
     "tenon plan --model llama-3.1-8b --max_length 8192 --memory_limit 24GB\n"
     "tenon plan run.yaml\n"},
    {"eval", "loss and perplexity on a dataset", cli_eval,
     "Loss over the labelled tokens of the whole dataset, records in the order of the file.\n",
     "tenon eval --model Qwen2.5-0.5B --adapter out --dataset test.jsonl\n"},
    {"generate", "continue a text, or answer a conversation", cli_generate,
     "Writes the text to stdout as it comes. --prompt is raw text; --messages is a file with a JSON list\n"
     "of messages, which goes through the chat template; a model that sees takes pictures in them.\n",
     "tenon generate --model Qwen2.5-0.5B --adapter out --messages question.json --max_new_tokens 200\n"
     "tenon generate --model base --prompt \"Once upon a time\" --temperature 0.8 --top_p 0.95 --seed 1\n"},
    {"chat", "talk with base + adapter on the terminal", cli_chat,
     "Reads a line, answers, and keeps the conversation. /reset forgets it, /exit or end of input ends.\n"
     "Ctrl-C stops an answer. /image FILE shows a picture with the next line, to a model that sees.\n",
     "tenon chat --model Qwen2.5-0.5B --adapter out --temperature 0.7\n"},
    {"tokenize", "JSON lines of texts or conversations to token ids", cli_tokenize,
     "Reads {\"text\":...} or {\"messages\":[...]} a line from stdin or --dataset, and writes\n"
     "{\"ids\":[...],\"text\":rendered} a line, or {\"error\":...} where the template rejects a "
     "conversation.\n{\"ids\":[...]} gets its text back.\n",
     "echo '{\"text\":\"Hello\"}' | tenon tokenize --model Qwen2.5-0.5B\n"
     "tenon tokenize --model Qwen2.5-0.5B --dataset chats.jsonl > ids.jsonl\n"},
    {"data", "how samples become tokens and labels", cli_data,
     "Shows the first samples as `train` with the same keys would see them: decoded, with the part that\n"
     "carries no loss marked, and counts over the whole dataset.\n",
     "tenon data --model Qwen2.5-0.5B --dataset chats.jsonl --samples 2\n"},
    {"inspect", "what a model, adapter, checkpoint, safetensors or GGUF file holds", cli_inspect,
     "Lists tensors and metadata. Nothing but headers is read.\n", "tenon inspect --model model.gguf\n"},
    {"verify", "account for every tensor of an adapter", cli_verify,
     "Checks names, shapes and values of an adapter, against its base with --model; --reference DIR shows\n"
     "how far each tensor has moved from an earlier adapter. Exit code 1 where something is wrong.\n",
     "tenon verify --adapter out --model Qwen2.5-0.5B --reference out/checkpoint-500\n"},
    {"merge", "base + adapter to a model of its own", cli_merge,
     "Writes a model directory: weights merged in float32, a tensor at a time, and rounded once to the dtype "
     "that\n"
     "the base is stored in (blocks of a GGUF base become bfloat16), config.json, tokenizer, chat template. "
     "It\n"
     "appears when it is whole and its logits were compared with those of base and adapter. An adapter that "
     "was\n"
     "trained on a quantised base is best merged into the original: --base_for_merge.\n",
     "tenon merge --model Qwen2.5-0.5B --adapter out --output_dir merged\n"
     "tenon merge --model SmolLM2.Q4_1.gguf --adapter out --base_for_merge SmolLM2 --output_dir merged\n"},
    {"export", "a GGUF file of base + adapter, or of the adapter alone", cli_export,
     "--to gguf:TYPE writes the whole model with its tokenizer and chat template; TYPE is f32, f16, bf16, "
     "q8_0,\n"
     "q4_0, q4_k or q6_k for all matrices (norms and biases stay float32), and without one each keeps the "
     "format\n"
     "that the base has it in. --to lora-gguf writes the adapter for llama.cpp's --lora.\n",
     "tenon export --model Qwen2.5-0.5B --adapter out --to gguf:q8_0 --output merged.gguf\n"
     "tenon export --model SmolLM2.Q4_1.gguf --adapter out --to lora-gguf --output adapter.gguf\n"},
    {"quantize", "a model in 4 or 8 bits, for bitsandbytes or as GGUF", cli_quantize,
     "nf4 (double quantisation) and int8 write the linear layers so and everything else as it is, in the "
     "layout "
     "that\n"
     "Transformers loads by itself: training on the result is training with load_in_4bit or load_in_8bit, "
     "without\n"
     "quantising every time. gguf:TYPE writes output_dir/model.gguf, as export does. It appears when it is "
     "whole.\n",
     "tenon quantize --model Qwen2.5-7B --to nf4 --output_dir Qwen2.5-7B-nf4\n"
     "tenon quantize --model Qwen2.5-7B --to gguf:q4_k --output_dir Qwen2.5-7B-q4_k\n"},
    {"init", "write a randomly initialised model", cli_init, "For pre-training from scratch, and for tests.\n",
     "tenon init --model config.json --output_dir fresh --seed 1 --tokenizer Qwen2.5-0.5B\n"},
    {"bench", "time training steps with random weights and tokens", cli_bench,
     "Rows of one document of max_length tokens each, all labelled unless --labelled says otherwise; a step\n"
     "is one micro-batch unless gradient_accumulation_steps is given. The file of `train` can be given as it\n"
     "is: its data, evaluations and checkpoints are left out. The model may be a shape's name: llama-3.1-8b,\n"
     "qwen2.5-7b, llama-3.2-1b, qwen2.5-0.5b, smollm2-135m.\n",
     "tenon bench --model smollm2-135m --max_length 512 --steps 10\n"},
    {"env", "devices, instruction sets, libraries, and what will be used", cli_env,
     "What this machine has, and what tenon would use of it.\n", "tenon env --json\n"},
};
const int cli_verb_count = sizeof cli_verbs / sizeof *cli_verbs;

static const cli_verb *find_verb(const char *name) {
    for (int i = 0; i < cli_verb_count; i++)
        if (strcmp(cli_verbs[i].name, name) == 0) return &cli_verbs[i];
    return NULL;
}

static int unknown_verb(const char *name, bool json) {
    tn_config *config;
    return cli_fail(json, tn_config_new(name, &config)); /* which suggests a verb */
}

static int run_verb(const cli_verb *verb, int count, char **words, bool json) {
    cli_run run = {NULL, json};
    tn_status status = tn_config_new(verb->name, &run.config);
    if (status != TN_OK) return cli_fail(json, status);
    int code = cli_read_arguments(&run, count, words);
    if (code == CLI_OK) {
        run.json = strcmp(tn_config_get(run.config, "json"), "true") == 0;
        code = verb->run(&run);
    }
    tn_config_free(run.config);
    return code;
}

static bool is_word(const char *word, const char *a, const char *b) {
    return strcmp(word, a) == 0 || (b && strcmp(word, b) == 0);
}

static int dispatch(int count, char **words) {
    bool json = cli_wants_json(count, words);
    cli_catch_bus_errors(json);
    if (count == 0) {
        cli_help(NULL, false);
        return CLI_USAGE;
    }
    if (is_word(words[0], "version", "--version")) {
        cli_print_version();
        return CLI_OK;
    }
    bool asks_help = is_word(words[0], "--help", "-h");
    if (asks_help || is_word(words[0], "help", NULL)) {
        const char *verb = !asks_help && count > 1 && strncmp(words[1], "--", 2) != 0 ? words[1] : NULL;
        if (verb && is_word(verb, "help", "version")) verb = NULL; /* the overview says it all */
        if (verb && !find_verb(verb)) return unknown_verb(verb, json);
        return cli_help(verb, json);
    }
    const cli_verb *verb = find_verb(words[0]);
    if (!verb) return unknown_verb(words[0], json);
    for (int i = 1; i < count; i++)
        if (is_word(words[i], "--help", "-h")) return cli_help(verb->name, json);
    return run_verb(verb, count - 1, words + 1, json);
}

/* A closed stdin, stdout or stderr leaves its number to the next file that is opened, a weight file or the log,
 * and what is printed would be written into that. They are opened the wrong way round instead, so that reading
 * and writing fail as they would. */
static void fill_streams(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY); /* lowest free: fd */
}

/* Threads that wait for each other spin, which takes the cores away from the very thread they wait for where
 * something else runs there too: 22 s a step instead of 1.7. OpenMP reads how long they may from the
 * environment before main begins, so the program starts itself once more with a shorter time, unless the user
 * has set one (figures: docs/speed.md). Where it cannot, it goes on as it is. */
static void shorten_spinning(char **argv) {
#ifdef __linux__
    char self[4096], *name, *called = strrchr(argv[0], '/');
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) return;
    self[length] = '\0';
    name = strrchr(self, '/');
    /* another name is a loader's or an emulator's, which was given the program */
    if (!name || strcmp(name + 1, called ? called + 1 : argv[0]) != 0) return;
    if (setenv("GOMP_SPINCOUNT", "5000", 0) == 0) execv(self, argv);
#else
    (void)argv;
#endif
}

int main(int argc, char **argv) {
    if (argc > 0) shorten_spinning(argv);
    fill_streams();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write, which has an exit code of its own */
    signal(SIGXFSZ, SIG_IGN); /* and so is a file beyond the limit on sizes */
    cli_show_log();
    return cli_close_stdout(dispatch(argc - 1, argv + 1));
}
