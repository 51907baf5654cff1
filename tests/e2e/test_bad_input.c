/* test_bad_input.c: what people bring that is broken, one row each: how the shell makes it out of good files,
 * the command, the exit code of the contract, and what the message must say. Every message also has a remedy.
 * $TENON names the program; rows run in a scratch folder that holds
 *
 *   c.json    a tiny llama's configuration     m/  that model     t/  the same with a tokenizer
 *   d.jsonl   two records of ids               a/  an adapter with checkpoint-2 and checkpoint-4
 *   g.gguf    keys and one tensor */
#include <sys/wait.h>
#include <unistd.h>

#include "gguf_builder.h"
#include "testing.h"

typedef struct row {
    const char *make, *words;
    int code;
    const char *part;
} row;

static tn_str output;

/* What the shell says to this in the scratch folder; stdout and stderr are in `output`. */
static int shell(const char *make, const char *words) {
    tn_str command = {0};
    tn_str_printf(&command,
                  "cd '%s' && { set -e; export LC_ALL=C OMP_NUM_THREADS=1 XDG_CACHE_HOME=\"$PWD/x.cache\"; rm "
                  "-rf x x.* p; %s\n} >log 2>&1 || "
                  "exit 99; timeout 60 \"$TENON\" %s >log 2>&1 </dev/null",
                  scratch(""), make, words);
    int status = system(tn_str_text(&command));
    tn_str_free(&command);
    tn_str_clear(&output);
    must(tn_read_file(scratch("log"), 1 << 22, &output));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The line behind "tenon: MESSAGE" is the remedy. */
static bool has_remedy(const char *text) {
    const char *message = strstr(text, "tenon: ");
    const char *end = message ? strchr(message, '\n') : NULL;
    return end && end[1] == ' ' && end[2] == ' ';
}

static void run_rows(const row *rows, size_t count) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) {
        int code = shell(rows[i].make, rows[i].words);
        const char *text = tn_str_text(&output);
        bool says = strstr(text, rows[i].part) && (code == 0 || has_remedy(text));
        if (code == rows[i].code && says) continue;
        wrong++;
        print_error("%s; tenon %s\n  exit code %d, %d was expected; \"%s\" was expected in: %s\n", rows[i].make,
                    rows[i].words, code, rows[i].code, rows[i].part, text);
    }
    if (wrong) fail_msg("%d of %zu rows", wrong, count);
}
#define RUN(rows) run_rows(rows, sizeof(rows) / sizeof *(rows))

/* x/ becomes the model with config.json or weights changed by sed; lengths stay. */
#define CONFIG(edit) "cp -r m x; sed -i '" edit "' x/config.json"
#define WEIGHTS(edit) "cp -r m x; sed -i '" edit "' x/model.safetensors"
#define EVAL_X "eval --model x --dataset d.jsonl"

#define STRETCHED "--device cpu --rope_scaling '{\"rope_type\":\"linear\",\"factor\":2}' --max_length "

#define TRAIN_X "train --model m --dataset d.jsonl --output_dir x --max_steps 1 --device cpu"

/* Sizes that 64 bits do not hold, or the host's memory: counted all the same, never wrapped round. */
static void absurd_sizes(void **state) {
    static const row rows[] = {
        {"", "plan --model llama-3.1-8b --batch_size 1 " STRETCHED "2000000000", 0, "fits: NO"},
        {"", "plan --model llama-3.1-8b " STRETCHED "2000000000", 2, "at most 2147483647 tokens"},
        {"", "plan --model llama-3.1-8b " STRETCHED "4611686018427387904", 2, "at most 2147483647 tokens"},
        {"", "bench --model m --batch_size 1000000 " STRETCHED "9000000000000000000", 2, "at most 2147483647"},
        {"", "bench --model m --batch_size 1 " STRETCHED "2000000000", 4, "tokens would fit"},
        {"cp -r t x", "generate --model x --prompt ab " STRETCHED "1152921504606846976", 2,
         "at most 2147483647"},
        {"cp -r t x", "generate --model x --prompt ab " STRETCHED "2000000000", 4, "iB needed on"},
        {"sed "
         "'s/\"\\(hidden\\|intermediate\\)_size\":[0-9]*/\"\\1_size\":1048576/g;s/layers\":2/layers\":4096/;"
         "s/heads\":[24]/heads\":1024/g' c.json >x.json",
         "plan --model x.json --batch_size 1 --lora_r 1000000 --save_total_limit 1000000 " STRETCHED
         "2000000000",
         0, "fits: NO"},
    };
    (void)state;
    RUN(rows);
}

static void broken_configurations(void **state) {
    static const row rows[] = {
        {"cp -r m x; rm x/config.json", EVAL_X, 2, "config.json"},
        {"cp -r m x; : >x/config.json", EVAL_X, 3, "x/config.json: not valid JSON"},
        {"cp -r m x; head -c 60 c.json >x/config.json", EVAL_X, 3, "x/config.json: not valid JSON"},
        {"cp -r m x; echo '[]' >x/config.json", EVAL_X, 3, "a JSON object was expected"},
        {"cp -r m x; echo '{}' >x/config.json", EVAL_X, 2, "model family"},
        {"cp -r m x; head -c 100000 /dev/zero | tr '\\0' '[' >x/config.json", EVAL_X, 3, "nested deeper"},
        {"cp -r m x; printf '{\"model_type\":\"\\377\"}' >x/config.json", EVAL_X, 3, "not UTF-8"},
        {"cp -r m x; rm x/config.json; mkdir x/config.json", EVAL_X, 2, "config.json"},
        {CONFIG("s/\"llama\"/\"gpt_j\"/"), EVAL_X, 2, "gpt_j"},
        {CONFIG("s/\"vocab_size\":64/\"vocab_size\":0/"), EVAL_X, 3, "vocab_size"},
        {CONFIG("s/\"vocab_size\":64/\"vocab_size\":\"64\"/"), EVAL_X, 3, "vocab_size"},
        {CONFIG("s/\"vocab_size\":64/\"vocab_size\":9223372036854775808/"), EVAL_X, 3, "vocab_size"},
        {CONFIG("s/\"hidden_size\":32/\"hidden_size\":-32/"), EVAL_X, 3, "hidden_size"},
        {CONFIG("s/\"hidden_size\":32/\"hidden_size\":1e300/"), EVAL_X, 3, "hidden_size"},
        {CONFIG("s/\"num_hidden_layers\":2/\"num_hidden_layers\":1000000000/"), EVAL_X, 3, "num_hidden_layers"},
        {CONFIG("s/\"num_hidden_layers\":2/\"num_hidden_layers\":3/"), EVAL_X, 3,
         "model.layers.2.input_layernorm.weight is missing"},
        {CONFIG("s/\"num_key_value_heads\":2/\"num_key_value_heads\":3/"), EVAL_X, 3, "cannot share 3"},
        {CONFIG("s/\"num_attention_heads\":4/\"num_attention_heads\":0/"), EVAL_X, 3, "num_attention_heads"},
        {CONFIG("s/\"hidden_size\":32/\"hidden_size\":64/"), EVAL_X, 3, "[32], 64 was expected"},
        {CONFIG("s/{/{\"hidden_act\":\"relu9\",/"), EVAL_X, 2, "relu9"},
        {CONFIG("s/{/{\"rms_norm_eps\":\"x\",/"), EVAL_X, 3, "rms_norm_eps"},
        {CONFIG("s/{/{\"rope_theta\":1e999,/"), EVAL_X, 3, "rope"},
        {CONFIG("s/{/{\"rope_scaling\":[1],/"), EVAL_X, 3, "rope_scaling is no object"},
        {CONFIG("s/{/{\"rope_scaling\":{\"type\":\"warp\"},/"), EVAL_X, 2, "warp"},
        {CONFIG("s/{/{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":0},/"), EVAL_X, 3, "impossible rope"},
        {"sed 's/\"\\(vocab\\|hidden\\|intermediate\\)_size\":[0-9]*/\"\\1_size\":1048576/g;"
         "s/layers\":2/layers\":4096/;s/heads\":[24]/heads\":1024/g' c.json >x.json",
         "plan --model x.json --device cpu", 0, "trainable params: 962,072,674,304"},
    };
    (void)state;
    RUN(rows);
}

static void broken_weights(void **state) {
    static const row rows[] = {
        {"cp -r m x; rm x/model.safetensors", EVAL_X, 2, "holds neither model.safetensors"},
        {"cp -r m x; rm x/model.safetensors; mkdir x/model.safetensors", EVAL_X, 2, "holds neither"},
        {"cp -r m x; : >x/model.safetensors", EVAL_X, 3, "x/model.safetensors: shorter than"},
        {"cp -r m x; head -c 1000 /dev/zero >x/model.safetensors", EVAL_X, 3, "x/model.safetensors"},
        {"cp -r m x; truncate -s 100 x/model.safetensors", EVAL_X, 3, "truncated"},
        {"cp -r m x; truncate -s 40000 x/model.safetensors", EVAL_X, 3, "lie outside"},
        {"cp -r m x; echo more >>x/model.safetensors", EVAL_X, 3, "behind the last tensor"},
        {"cp -r m x; printf '\\0\\0\\0\\0\\0\\0\\0\\200' | dd of=x/model.safetensors conv=notrunc", EVAL_X, 3,
         "the header claims"},
        {WEIGHTS("1s/\"F32\"/\"F99\"/"), EVAL_X, 3, "dtype \"F99\" is not supported"},
        {WEIGHTS("1s/\"shape\":.64,32./\"shape\":[64,33]/"), EVAL_X, 3, "data_offsets span 8192"},
        {WEIGHTS("1s/\"shape\":.64,32./\"shape\":[32,64]/"), EVAL_X, 3, "lm_head.weight is float32 [32, 64]"},
        {WEIGHTS("1s/\"shape\":.64,32./\"shape\":[-6,32]/"), EVAL_X, 3, "no size"},
        {WEIGHTS("1s/.64,32.,\"data_offsets\":.0,8192./[9223372036854775807,9,9,9,9]   /"), EVAL_X, 3,
         "lm_head.weight"},
        {WEIGHTS("1s/.0,8192./[9,8192]/"), EVAL_X, 3, "data_offsets"},
        {WEIGHTS("1s/.8192,16384./[0000,16384]/"), EVAL_X, 3, "x/model.safetensors"},
        {WEIGHTS("1s/model.norm.weight/model.horm.weight/"), EVAL_X, 3, "model.norm.weight is missing"},
        {WEIGHTS("1s/lm_head.weight/lm_hea\\xff.weight/"), EVAL_X, 3, "UTF-8"},
        {"cp -r m x; printf '\\0\\0\\300\\177' | dd of=x/model.safetensors conv=notrunc bs=1 seek=$(($(stat -c "
         "%s "
         "m/model.safetensors) - 90752))",
         EVAL_X, 5, "not finite"},
        {"cp -r m x; rm x/model.safetensors; echo '{\"weight_map\":{\"a\":\"../m/model.safetensors\"}}' "
         ">x/model.safetensors.index.json",
         EVAL_X, 3, "not a plain name"},
        {"cp -r m x; rm x/model.safetensors; echo '{\"weight_map\":{\"a\":\"b.safetensors\"}}' "
         ">x/model.safetensors.index.json",
         EVAL_X, 2, "x/b.safetensors is missing"},
        {"cp -r m x; rm x/model.safetensors; echo '{\"weight_map\":[]}' >x/model.safetensors.index.json",
         EVAL_X, 3, "weight_map is an array"},
        {"ln -s x x", EVAL_X, 2, "x does not exist"},
        {"mkfifo x", EVAL_X, 2, "x"},
        {"", "eval --model /dev/null --dataset d.jsonl", 2, "/dev/null"},
    };
    (void)state;
    RUN(rows);
}

/* Byte offsets in g.gguf: 4 version, 8 tensors, 16 keys. */
#define GGUF(offset, bytes) \
    "cp g.gguf x.gguf; printf '" bytes "' | dd of=x.gguf conv=notrunc bs=1 seek=" #offset
#define EVAL_GGUF "inspect --model x.gguf"

static void broken_gguf_files(void **state) {
    static const row rows[] = {
        {"printf GGUF >x.gguf", EVAL_GGUF, 3, "x.gguf"},
        {"printf GGML >x.gguf; tail -c +5 g.gguf >>x.gguf", EVAL_GGUF, 3, "x.gguf"},
        {"head -c 60 g.gguf >x.gguf", EVAL_GGUF, 3, "x.gguf"},
        {"head -c $(($(stat -c %s g.gguf) - 100)) g.gguf >x.gguf", EVAL_GGUF, 3, "token_embd.weight"},
        {GGUF(4, "\\011"), EVAL_GGUF, 3, "version"},
        {GGUF(8, "\\0\\0\\0\\0\\0\\0\\0\\200"), EVAL_GGUF, 3, "x.gguf"},
        {GGUF(16, "\\377\\377\\377\\377\\377\\377\\377\\177"), EVAL_GGUF, 3, "x.gguf"},
        {GGUF(24, "\\377\\377\\377\\377\\377\\377\\377\\377"), EVAL_GGUF, 3, "x.gguf"},
        {"", "eval --model g.gguf --dataset d.jsonl", 3, "no tokenizer.ggml.tokens"},
        {"printf 'x' >x.gguf", "eval --model x.gguf --dataset d.jsonl", 3, "x.gguf"},
    };
    (void)state;
    RUN(rows);
}

#define TOKENIZER(text) "cp -r t x; printf '%s' '" text "' >x/tokenizer.json"
#define TOKENIZE "tokenize --model x --dataset text.jsonl"

static void broken_tokenizers(void **state) {
    static const row rows[] = {
        {"cp -r t x; rm x/tokenizer.json", TOKENIZE, 2, "tokenizer.json"},
        {"cp -r t x; : >x/tokenizer.json", TOKENIZE, 3, "x/tokenizer.json"},
        {"cp -r t x; head -c 60 t/tokenizer.json >x/tokenizer.json", TOKENIZE, 3, "x/tokenizer.json"},
        {TOKENIZER("{}"), TOKENIZE, 3, "x/tokenizer.json"},
        {TOKENIZER("{\"model\":{\"type\":\"Oracle\"}}"), TOKENIZE, 3, "Oracle"},
        {TOKENIZER("{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}"), TOKENIZE, 3, "vocab"},
        {TOKENIZER("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":4294967296},\"merges\":[]}}"), TOKENIZE, 3,
         "x/tokenizer.json"},
        {TOKENIZER("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}"), TOKENIZE, 3,
         "x/tokenizer.json"},
        {TOKENIZER("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}"), TOKENIZE, 3,
         "x/tokenizer.json"},
        {TOKENIZER(
             "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"},"
             "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}"),
         TOKENIZE, 3, "x/tokenizer.json"},
        {"cp -r t x; printf '{{ messages' >x/chat_template.jinja; "
         "echo '{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}' >x.jsonl",
         "tokenize --model x --dataset x.jsonl", 3, "chat_template"},
        {"printf '{\"text\":\"\\377\"}\\n' >x.jsonl", "tokenize --model t --dataset x.jsonl", 3, "x.jsonl"},
        {"printf '\\377\\376{\\0}\\0' >x.json; cp -r t x; cp x.json x/tokenizer_config.json", TOKENIZE, 3,
         "iconv -f UTF-16"},
    };
    (void)state;
    RUN(rows);
}

/* x/ has this template; x.jsonl is a chat and q.json a question. */
#define TEMPLATE(text)                                                \
    "cp -r t x; printf '%s' '" text "' >x/chat_template.jinja; " CHAT \
    "; "                                                              \
    "echo '[{\"role\":\"user\",\"content\":\"a\"}]' >x.q.json"
#define CHAT                                                      \
    "echo '{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}," \
    "{\"role\":\"assistant\",\"content\":\"b\"}]}' >x.jsonl"
#define DATA_X "data --model x --dataset x.jsonl"
#define ASK_X "generate --model x --messages x.q.json --device cpu --max_new_tokens 1"
#define FAULT "the fault is in the chat template"
#define ALTERNATES "{{ raise_exception(\"nothing pleases me\") }}"

static void broken_templates(void **state) {
    static const row rows[] = {
        {TEMPLATE("{{ messages"), DATA_X, 3, "x/chat_template.jinja, line 1: expected 'end of print"},
        {TEMPLATE("{{ messages"), DATA_X, 3, FAULT},
        {TEMPLATE("{{ messages"), ASK_X, 3, FAULT},
        {TEMPLATE("{{ messages"), "tokenize --model x --dataset x.jsonl", 3, FAULT},
        {TEMPLATE("{{ 1/0 }}"), DATA_X, 3, FAULT},
        {TEMPLATE("{{ 1/0 }}"), ASK_X, 3, FAULT},
        {TEMPLATE("{{ 1/0 }}"), "tokenize --model x --dataset x.jsonl", 0,
         "{\"error\": \"x/chat_template.jinja"},
        {TEMPLATE(ALTERNATES), DATA_X, 3,
         "x/chat_template.jinja: the chat template rejects a plain conversation"},
        {TEMPLATE(ALTERNATES), DATA_X, 3, "turns are found: nothing pleases me"},
        {TEMPLATE(ALTERNATES), DATA_X " --train_on_responses_only false", 3, "x.jsonl:1: nothing pleases me"},
        {TEMPLATE(ALTERNATES), DATA_X " --train_on_responses_only false", 3, "look at its roles"},
        {TEMPLATE(ALTERNATES), ASK_X, 3, "look at its roles"},
        {TEMPLATE("hello"), DATA_X, 3, "x/chat_template.jinja: cannot tell the assistant's turns"},
        {"cp -r t x; echo '{\"chat_template\":\"{{ a\"}' >x/tokenizer_config.json; " CHAT, DATA_X, 3,
         "x/tokenizer_config.json: chat_template, line 1"},
        {"cp -r t x; " CHAT, DATA_X " --chat_template '{{ a'", 3, FAULT},
    };
    (void)state;
    RUN(rows);
}

#define DATA(lines) "printf '" lines "' >x.jsonl"
#define EVAL_DATA "eval --model m --dataset x.jsonl"

static void broken_datasets(void **state) {
    static const row rows[] = {
        {"", EVAL_DATA, 2, "x.jsonl"},
        {": >x.jsonl", EVAL_DATA, 3, "x.jsonl holds no records"},
        {DATA("\\n\\n"), EVAL_DATA, 3, "x.jsonl holds no records"},
        {"mkfifo x.jsonl", EVAL_DATA, 2, "x.jsonl is not a regular file"},
        {"mkdir x.jsonl", EVAL_DATA, 2, "x.jsonl is not a regular file"},
        {"ln -s x.jsonl x.jsonl", EVAL_DATA, 2, "x.jsonl"},
        {"echo a >x.parquette", "eval --model m --dataset x.parquette", 2, "x.parquette"},
        {DATA("{\"input_ids\":[1,2"), EVAL_DATA, 3, "x.jsonl:1"},
        {DATA("{\"input_ids\":[1,2]}\\n[3]\\n"), EVAL_DATA, 3, "x.jsonl:2"},
        {DATA("{\"input_ids\":[1,2]}\\n{\"text\":\"\\377\"}\\n"), EVAL_DATA, 3, "x.jsonl:2"},
        {DATA("{\"input_ids\":[1,64]}"), EVAL_DATA, 3, "id 64 at position 1"},
        {DATA("{\"input_ids\":[1,-1]}"), EVAL_DATA, 3, "id -1"},
        {DATA("{\"input_ids\":[1,2.5]}"), EVAL_DATA, 3, "an integer was expected"},
        {DATA("{\"input_ids\":[1,18446744073709551617]}"), EVAL_DATA, 3, "x.jsonl:1"},
        {DATA("{\"input_ids\":[1,2],\"labels\":[1]}"), EVAL_DATA, 3, "2 input_ids, but 1 labels"},
        {DATA("{\"input_ids\":[1,2],\"labels\":[1,64]}"), EVAL_DATA, 3, "label 64"},
        {DATA("{\"input_ids\":[1,2],\"labels\":[-100,-100]}"), EVAL_DATA, 3, "carries a loss"},
        {DATA("{\"input_ids\":[]}"), EVAL_DATA, 3, "carries a loss"},
        {DATA("{\"poem\":1}"), EVAL_DATA, 3, "x.jsonl:1"},
        {"printf '\\377\\376{\\0}\\0' >x.jsonl", EVAL_DATA, 3, "iconv -f UTF-16"},
        {"printf '\\376\\377\\0{\\0}' >x.json", "eval --model m --dataset x.json", 3, "iconv -f UTF-16"},
        {"printf 'text\\n\\344\\n' >x.csv", "eval --model t --dataset x.csv", 3, "iconv -f WINDOWS-1252"},
        {DATA("{\"text\":\"ab\"}\\n{\"text\":\"ab\\\\ud83d\"}\\n"), "data --model t --dataset x.jsonl", 0,
         "1 of 2 records have half of a surrogate pair"},
        {DATA("{\"text\":\"ab\"}\\n{\"text\":\"ab\\\\udc00 b\"}\\n"), "data --model t --dataset x.jsonl", 0,
         "(the first is x.jsonl:2)"},
        {DATA("{\"text\":\"ab\",\"text\":\"aba\"}\\n{\"text\":\"a\"}\\n"), "data --model t --dataset x.jsonl",
         0, "1 of 2 records have a key twice in one object: the last one counts (the first is x.jsonl:1)"},
        {DATA("{\"text\":\"ab\",\"text\":\"aba\"}\\n{\"text\":\"a\"}\\n") "; \"$TENON\" data --model t "
                                                                          "--dataset x.jsonl", /* and again from
                                                                                                  the cache */
         "data --model t --dataset x.jsonl", 0, "have a key twice"},
        {DATA("{\"text\":\"a\"}"), EVAL_DATA, 2, "tokenizer"},
        {DATA("{\"messages\":[{\"role\":\"user\"}]}"), "eval --model t --dataset x.jsonl", 2,
         "needs a chat template"},
        {"head -c 99999 /dev/zero | tr '\\0' '[' >x.jsonl", EVAL_DATA, 3, "x.jsonl:1"},
        {"printf 'text\\n\"open' >x.csv", "eval --model t --dataset x.csv", 3, "x.csv"},
        {"printf 'text,text\\na,b\\n' >x.csv", "eval --model t --dataset x.csv", 3, "x.csv"},
    };
    (void)state;
    RUN(rows);
}

#define TRAIN "train --model m --dataset d.jsonl --output_dir p --max_steps 1 --device cpu "

#define TRAINS_FILE                                                                                            \
    "printf 'model: m\\ndataset: d.jsonl\\nlora_r: 4\\nbatch_size: 2\\nlearning_rate: 1e-4\\noutput_dir: p\\n" \
    "device: cpu\\nneat_packing: false\\n' >x.yaml; "

static void broken_settings(void **state) {
    static const row rows[] = {
        {"", "train --model m --dataset d.jsonl --output_dir p --device cuda:99", 2, "device cuda"},
        {"", TRAIN "--device tpu", 2, "tpu"},
        {"", TRAIN "--lora_rnk 3", 2, "lora_rank"},
        {"", TRAIN "--lora_r 0", 2, "lora_r"},
        {"", TRAIN "--lora_r 99999999999999999999", 2, "lora_r"},
        {"", TRAIN "--lora_dropout 1.5", 2, "lora_dropout"},
        {"", TRAIN "--learning_rate fast", 2, "learning_rate"},
        {"", TRAIN "--learning_rate nan", 2, "learning_rate"},
        {"", TRAIN "--learning_rate -1", 2, "learning_rate"},
        {"", TRAIN "--max_length 65", 2, "max_length"},
        {"", TRAIN "--max_steps -4", 2, "max_steps"},
        {"", TRAIN "--per_device_train_batch_size 0", 2, "per_device_train_batch_size"},
        {"", TRAIN "--target_modules nothing", 2, "nothing"},
        {"", "plan --model m --device cpu --target_modules ALL-LINEAR", 0, "trainable params: "},
        {"", TRAIN "--target_modules '(['", 2, "target_modules"},
        {"", TRAIN "--load_in_4bit --load_in_8bit", 2, "load_in_8bit"},
        {"", TRAIN "--load_in_fp8 --load_in_8bit", 2, "load_in_fp8"},
        {"", TRAIN "--load_in_fp8 --full_finetuning", 2, "load_in_fp8"},
        {"", TRAIN "--load_in_4bit --full_finetuning", 2, "load_in_4bit"},
        {"", TRAIN "--r 8 --lora_rank 9", 2, "lora_rank"},
        {"", TRAIN "--lora_r 1000001", 2, "from 1 to 1,000,000"},
        {"", TRAIN "--per_device_train_batch_size 9223372036854775807", 2, "per_device_train_batch_size"},
        {"", TRAIN "--gradient_accumulation_steps 9223372036854775807", 2, "gradient_accumulation_steps"},
        {"", TRAIN "--save_total_limit 9223372036854775807", 2, "save_total_limit"},
        {"", TRAIN "--threads 100000", 2, "threads"},
        {"test \"$OMP_NUM_THREADS\" = 1; export OMP_NUM_THREADS=100000", TRAIN, 2,
         "100000 threads are asked for by OMP"},
        {"", TRAIN "--num_train_epochs 1e300", 2, "num_train_epochs"},
        {"", TRAIN "--rank_pattern q_proj=2.5", 2, "\"q_proj\" is not a rank"},
        {"", TRAIN "--rank_pattern q_proj=1e12", 2, "\"q_proj\" is not a rank"},
        {"", TRAIN "--alpha_pattern q_proj=0", 2, "\"q_proj\" is not a positive number"},
        {"", TRAIN "--target_modules '([a-z_.0-9]+)*[!?]'", 2, "does not come to an end"},
        {"", TRAIN "--rank_pattern zz=3", 0, "\"zz\" in rank_pattern applies to no module"},
        {"", TRAIN "--alpha_pattern zz=3", 0, "\"zz\" in alpha_pattern applies to no module"},
        {"", TRAIN "--exclude_modules zz", 0, "exclude_modules excludes no module"},
        {"", TRAIN "--layers_to_transform 0,-1", 2, "there is no layer -1"},
        {"", TRAIN "--layers_pattern layers", 2, "layers_to_transform"},
        {"", TRAIN "--target_modules lm_head --modules_to_save lm_head", 2, "no module gets LoRA"},
        {"", TRAIN "--target_modules q_proj --exclude_modules q_proj --modules_to_save norm", 2,
         "no module gets LoRA"},
        {"", TRAIN "--target_modules q_proj,lm_head --modules_to_save head", 2,
         "lm_head is in target_modules and"},
        {"", TRAIN "--bias none", 0, "step 1/1"},
        {"", TRAIN "--bias lora_only", 2, "bias lora_only"},
        {"", TRAIN "--bias some", 2, "bias"},
        {"", TRAIN "--layers_to_transform 0,2", 0, "names layer 2, and the model's last is 1"},
        {"", TRAIN "--learning_rate 0 --min_lr 0 --lr_scheduler_type cosine_with_min_lr", 0, "lr 0.00e+00"},
        {"", TRAIN "--rope_scaling '{\"type\"'", 2, "rope_scaling"},
        {"", TRAIN "--rope_scaling '{\"rope_type\":\"yarn\",\"facter\":4}'", 2, "did you mean 'factor'?"},
        {"", TRAIN "--rope_scaling '{\"rope_type\":\"yarn\",\"factor\":\"4\"}'", 2, "factor is a string"},
        {"", TRAIN "--rope_scaling '{\"rope_type\":\"yarn\",\"factor\":0}'", 2, "a positive number"},
        {"", TRAIN "--rope_scaling '{\"rope_type\":\"linear\"}'", 2, "linear without a factor"},
        {"", TRAIN "--rope_scaling '{\"rope_type\":\"yarn\",\"original_max_position_embeddings\":32}'", 0,
         "step 1/1"},
        {"", TRAIN "--memory_limit 1KB", 4, "available by memory_limit"},
        {"", TRAIN "--memory_limit 9999999999999GB --lora_r 3", 2, "memory_limit"},
        {"printf 'model: [m\\n' >x.yaml", "train x.yaml", 2, "x.yaml"},
        {"printf 'lora_r: 8\\nlora_r: 9\\n' >x.yaml", "train x.yaml", 2, "lora_r"},
        {"printf -- '---\\nlora_r: 8\\n---\\nlora_r: 9\\n' >x.yaml", "train x.yaml", 2, "a second document"},
        {"printf 'lora_r: {a: 1}\\n' >x.yaml", "train x.yaml", 2, "lora_r"},
        {"printf 'model: \\377\\n' >x.yaml", "train x.yaml", 2, "x.yaml"},
        {"printf -- '- a\\n' >x.yaml", "train x.yaml", 2, "x.yaml"},
        {"head -c 9999 /dev/zero | tr '\\0' '[' >x.yaml", "train x.yaml", 2, "x.yaml"},
        {"printf 'a: &a [x,x,x,x,x,x,x,x,x]\\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\\nc: &c "
         "[*b,*b,*b,*b,*b,*b,*b,*b]\\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\\nf: &f "
         "[*e,*e,*e,*e,*e,*e,*e,*e]\\n"
         "g: [*f,*f,*f,*f,*f,*f,*f,*f]\\n' >x.yaml",
         "train x.yaml", 2, "x.yaml"},
        {"mkdir x.yaml", "train x.yaml", 2, "x.yaml"},
        {TRAINS_FILE, "eval x.yaml --adapter a", 0,
         "ignored: lora_r, batch_size, learning_rate, output_dir (keys of"},
        {TRAINS_FILE, "eval x.yaml --adapter a", 0, "over 11 labelled tokens of 2 records"},
        {TRAINS_FILE, "generate x.yaml --model t --prompt ab --max_new_tokens 1", 0,
         "ignored: dataset, lora_r"},
        {TRAINS_FILE "echo 'lora_rnk: 3' >>x.yaml", "eval x.yaml", 2, "unknown key 'lora_rnk'"},
        {TRAINS_FILE "echo 'prompt: a' >>x.yaml", "eval x.yaml", 2, "'prompt' is not a key of eval"},
        {"", "eval --model m --dataset d.jsonl --lora_r 4", 2, "'lora_r' is not a key of eval"},
        {TRAINS_FILE, "plan x.yaml", 0, "dataset: not read; the plan is for full rows"},
    };
    (void)state;
    RUN(rows);
}

/* Given as a flag it is a mistake; in a file that several runs may share it is said; the default says nothing.
 */
static void keys_without_effect(void **state) {
    static const row rows[] = {
        {"", TRAIN "--override lora_alpha=16", 2, "override has no effect: "},
        {"echo 'override: {lora_alpha: 16}' >x.yaml", TRAIN "x.yaml", 0, "warning: override has no effect"},
        {"echo 'override: {lora_alpha: 16}' >x.yaml", TRAIN "x.yaml --adapter a", 0, "step 1/1"},
        {"", TRAIN "--adapter a --override lora_alpha=16", 0, "step 1/1"},
        {"", TRAIN "--embedding_learning_rate 1e-5", 2, "neither embed_tokens nor lm_head"},
        {"", TRAIN "--trainable_token_indices 3,3", 2, "names token 3 twice"},
        {"", TRAIN "--trainable_token_indices 3,x", 2, "is no list of token ids"},
        {"", TRAIN "--trainable_token_indices 3,1000000", 2, "names token 1000000"},
        {"", TRAIN "--trainable_token_indices '{\"wte\":[3]}'", 2, "wte has no rows of tokens"},
        {"", TRAIN "--trainable_token_indices 3 --modules_to_save embed_tokens", 2,
         "it is in modules_to_save too"},
        {"", TRAIN "--embedding_learning_rate 1e-5 --full_finetuning", 2, "trains every weight"},
        {"echo 'embedding_lr: 1e-5' >x.yaml", TRAIN "x.yaml", 0, "warning: embedding_learning_rate has no"},
        {"", TRAIN "--embedding_learning_rate 1e-5 --modules_to_save lm_head", 0, "rate 1e-05"},
        {"", TRAIN "--optim sgd --adam_beta1 0.8", 2, "adam_beta1 has no effect: optim is sgd"},
        {"", "plan --model m --init_lora_weights pissa", 2, "init_lora_weights: pissa is not in this version"},
        {"", "inspect m", 2, "'m' is a directory, and no configuration file"},
        {"", TRAIN "--optim sgd --adam_beta2 0.8", 2, "adam_beta2 has no effect: optim is sgd"},
        {"", TRAIN "--optim lion --adam_epsilon 1e-6", 2, "adam_epsilon has no effect: optim is lion"},
        {"", TRAIN "--optim lion --adam_beta2 0.99 --adam_epsilon 1e-8", 0, "step 1/1"},
        {"printf 'adam_beta1: 0.8\noptim: sgd\n' >x.yaml", TRAIN "x.yaml", 0, "warning: adam_beta1 has no"},
        {"", TRAIN "--lora_r 8 --lora_r 4", 0, "warning: --lora_r is given twice: 4 counts, and not 8"},
        {"", TRAIN "--adapter ''", 2, "adapter: the value is empty"},
        {"", TRAIN "--adapter=", 2, "adapter: the value is empty"},
        {"", TRAIN "--max_length ''", 2, "max_length: the value is empty"},
        {"", TRAIN "--eval_steps ' '", 2, "a whole number of at least 1, or none"},
        {"", TRAIN "--eval_dataset ''", 2, "eval_dataset: the value is empty"},
        {"", TRAIN "--modules_to_save ''", 2, "modules_to_save: the value is empty"},
        {"", TRAIN "--chat_template ''", 2, "chat_template: the value is empty"},
        {"", TRAIN "--adapter none --modules_to_save none", 0, "step 1/1"},
        {"printf 'adapter: "
         "\nlora_model_dir:\n' >x.yaml",
         TRAIN "x.yaml", 0, "step 1/1"},
        {"", "generate --model t --prompt '' --max_new_tokens 1", 2, "the prompt"},
        {"", "generate --model t --prompt ab --max_new_tokens 1 --device cpu --min_p 0.5", 0,
         "min_p has no effect"},
    };
    (void)state;
    RUN(rows);
}

#define ADAPTER(edit) "cp -r a x; sed -i '" edit "' x/adapter_config.json"
#define VERIFY "eval --model m --dataset d.jsonl --adapter x"
#define DORA "\"$TENON\" " TRAIN_X " --use_dora; "

/* x/ becomes a golden model that bitsandbytes quantised, its weights changed by sed; lengths stay. The states
 * are JSON inside the file, which has spaces where the file's own header has none. */
#define QUANTISED(name) "cp -r \"$OLDPWD/tests/parity/golden/" name "/model\" x"
#define LYING(name, edit) QUANTISED(name) "; sed -i '" edit "' x/model.safetensors"
#define PLAN_X "plan --model x --device cpu"

static void broken_quantised_bases(void **state) {
    static const row rows[] = {
        {QUANTISED("bnb_nf4"), PLAN_X " --load_in_4bit", 0, "fits: yes"},
        {QUANTISED("bnb_fp4"), PLAN_X " --load_in_4bit", 0, "fits: yes"},
        {QUANTISED("bnb_nf4"), PLAN_X " --load_in_8bit", 2, "quantised already (nf4)"},
        {QUANTISED("bnb_int8"), PLAN_X " --load_in_4bit", 2, "quantised already (llm_int8)"},
        {QUANTISED("bnb_nf4"), PLAN_X " --full_finetuning", 2, "those of x are quantised (nf4)"},
        {QUANTISED("bnb_nf4") "; sed -i s/bitsandbytes/gptq/ x/config.json", PLAN_X, 2, "quantised by gptq"},
        {CONFIG("s/{/{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"},/"), EVAL_X, 2,
         "quantised by compressed-tensors"},
        {LYING("bnb_nf4", "s/\"blocksize\": 64/\"blocksize\": 63/"), EVAL_X, 3, "blocksize"},
        {LYING("bnb_nf4", "s/\"blocksize\": 64/\"blocksize\": 32/"), EVAL_X, 3, "needs"},
        {LYING("bnb_nf4", "s/\"blocksize\"/\"blackwise\"/"), EVAL_X, 3, "blocksize"},
        {LYING("bnb_nf4", "s/\"quant_type\": \"nf4\"/\"quant_type\": \"fp4\"/"), EVAL_X, 3, "quant_type"},
        {LYING("bnb_nf4", "s/\"shape\": \\[64, 192\\]/\"shape\": [64, 193]/"), EVAL_X, 3, "not as many"},
        {LYING("bnb_nf4", "s/\"shape\": \\[64, 192\\]/\"shape\": [192, 64]/"), EVAL_X, 3,
         "64 x 192 was expected"},
        {LYING("bnb_nf4", "s/\"shape\": \\[64, 192\\]/\"shape\": [-4, 192]/"), EVAL_X, 3, "no pair of sizes"},
        {LYING("bnb_nf4", "s/\"shape\": \\[64, 192\\]/\"shape\": [12288]  /"), EVAL_X, 3, "no pair of sizes"},
        {LYING("bnb_nf4", "s/\"nested_offset\": 0/\"nested_offset\": x/"), EVAL_X, 3, "not valid JSON"},
        {LYING("bnb_nf4", "s/\"nested_offset\"/\"nested_offsex\"/"), EVAL_X, 3, "nested_offset"},
        {LYING("bnb_nf4", "s/\"nested_blocksize\": 256/\"nested_blocksize\": 0.5/"), EVAL_X, 3,
         "nested_blocksize"},
        {LYING("bnb_nf4", "s/\"nested_blocksize\": 256/\"nested_blocksize\": 200/"), EVAL_X, 0, "perplexity"},
        {LYING("bnb_nf4", "s/weight\\.absmax/weight.absmix/"), EVAL_X, 3,
         "absmax, which belongs to it, is missing"},
        {LYING("bnb_nf4", "s/nested_quant_map/nested_quant_mop/g"), EVAL_X, 3, "nested_quant_map, which"},
        {LYING("bnb_nf4", "s/bitsandbytes__nf4/bitsandbytes__nf8/g"), EVAL_X, 2,
         "as nf8, which is not supported"},
        {LYING("bnb_nf4", "s/bitsandbytes__nf4/bitsandwiches_nf4/g"), EVAL_X, 3,
         "uint8 [2048, 1], 64 x 64 was expected"},
        {LYING("bnb_nf4", "s/0.self_attn.q_proj.weight.quant_state/0.self_attn.q_prox.weight.quant_state/"),
         EVAL_X, 3, "the weight that it describes is missing"},
        {LYING("bnb_int8", "s/q_proj.SCB/q_proj.SCX/"), EVAL_X, 3,
         "q_proj.SCB, which belongs to it, is missing"},
        {LYING("bnb_int8", "s/\"dtype\":\"I8\",\"shape\":\\[24,32\\]/\"dtype\":\"I8\",\"shape\":[32,24]/"),
         EVAL_X, 3, "needs 32"},
    };
    (void)state;
    RUN(rows);
}

/* The last byte of the file is a code. */
#define LAST_CODE(byte)                                               \
    "; printf '" byte                                                 \
    "' | dd of=x/model.safetensors conv=notrunc bs=1 seek=$(($(stat " \
    "-c %s x/model.safetensors) - 1)) 2>/dev/null"

static void broken_fp8_bases(void **state) {
    static const row rows[] = {
        {QUANTISED("fp8_tiles"), EVAL_X, 0, "perplexity"},
        {QUANTISED("fp8_tiles"), PLAN_X, 0, "quantised as in the file"},
        {QUANTISED("fp8_tiles"), PLAN_X " --load_in_fp8", 0, "fits: yes"},
        {QUANTISED("fp8_tiles") "; rm x/model.safetensors", PLAN_X, 0, "every linear layer counts as fp8"},
        {QUANTISED("fp8_rows"), "inspect --model x --json", 0, "\"dtype\": \"FP8\""},
        {QUANTISED("fp8_rows"), PLAN_X " --load_in_4bit", 2, "quantised already (fp8)"},
        {QUANTISED("fp8_rows"), PLAN_X " --full_finetuning", 2, "those of x are quantised (fp8)"},
        {QUANTISED("bnb_nf4"), PLAN_X " --load_in_fp8", 2, "load_in_fp8 asks for fp8"},
        {QUANTISED("fp8_rows"), "quantize --model x --to nf4 --output_dir q", 2, "quantised already (fp8)"},
        {LYING("fp8_tiles", "s/0.self_attn.q_proj.weight_scale_inv/0.self_attn.q_proj.weight_scale_ink/"),
         EVAL_X, 3, "are missing"},
        {LYING("fp8_rows", "s/\\[24,1\\]/[8, 3]/"), EVAL_X, 3, "do not fit codes [24, 32]"},
        {QUANTISED("fp8_tiles") "; sed -i 's/ 48,/ -48,/' x/config.json", EVAL_X, 3,
         "x/config.json: weight_block_size is no pair of sizes"},
        {QUANTISED("fp8_tensor") LAST_CODE("\\177"), EVAL_X, 3, "FP8 codes are NaN"},
        {QUANTISED("fp8_tensor") LAST_CODE("\\176"), EVAL_X, 0, "perplexity"},
    };
    (void)state;
    RUN(rows);
}

static void broken_adapters(void **state) {
    static const row rows[] = {
        {"", VERIFY, 2, "x"},
        {"mkdir x", VERIFY, 2, "adapter_config.json"},
        {"cp -r a x; rm x/adapter_model.safetensors", VERIFY, 2, "adapter_model.safetensors"},
        {"cp -r a x; echo '{' >x/adapter_config.json", VERIFY, 3, "x/adapter_config.json"},
        {"cp -r a x; echo '[]' >x/adapter_config.json", VERIFY, 3, "x/adapter_config.json"},
        {ADAPTER("s/\"LORA\"/\"IA3\"/"), VERIFY, 2, "IA3"},
        {ADAPTER("s/\"r\": 4/\"r\": 0/"), VERIFY, 3, "r"},
        {ADAPTER("s/\"r\": 4/\"r\": \"four\"/"), VERIFY, 3, "r"},
        {ADAPTER("s/\"r\": 4/\"r\": 1e99/"), VERIFY, 3, "r"},
        {ADAPTER("s/\"r\": 4/\"r\": 8/"), VERIFY, 3, "lora_A"},
        {ADAPTER("s/\"layers_to_transform\": null/\"layers_to_transform\": [0, 1, -1]/"), VERIFY, 0,
         "names layer -1"},
        {ADAPTER("s/\"target_modules\": \\[/\"target_modules\": 7, \"was\": [/"), VERIFY, 3, "target_modules"},
        {ADAPTER("s/\"k_proj\"/\"q_proj\"/"), VERIFY, 3, "nothing in adapter_config.json explains"},
        {"cp -r a x; sed -i '1s/lora_A/lora_C/' x/adapter_model.safetensors", VERIFY, 3, "lora_A"},
        {"cp -r a x; truncate -s 3000 x/adapter_model.safetensors", VERIFY, 3, "x/adapter_model.safetensors"},
        {"cp -r m x; sed 's/_size\":64/_size\":128/;s/_size\":32/_size\":64/' c.json >x.json; rm -r x; "
         "\"$TENON\" init --model x.json --output_dir x",
         "eval --model x --adapter a --dataset d.jsonl", 3, "lora_A"},
        {ADAPTER("s/\"target_modules\": \\[/\"target_modules\": \"([\", \"was\": [/"), VERIFY, 2,
         "x: target_modules: the regular expression"},
        {ADAPTER("s/\"lora_alpha\": 32/\"lora_alpha\": 0/"), TRAIN "--adapter x", 3, "an alpha of 0"},
        {ADAPTER("s/\"alpha_pattern\": {/&\"q_proj\": 0/"), TRAIN "--adapter x", 3, "an alpha of 0"},
        {ADAPTER("s/\"lora_alpha\": 32/\"lora_alpha\": 0/"), TRAIN "--adapter x --override lora_alpha=4", 0,
         "step 1/1"},
        {"cp -r a x; printf '\\0\\0\\300\\177' | dd of=x/adapter_model.safetensors conv=notrunc bs=1 "
         "seek=$(($(stat "
         "-c %s a/adapter_model.safetensors) - 4))",
         VERIFY, 3, "take one of its earlier checkpoints"},
        {"", TRAIN "--adapter a --lora_r 8", 2, "its tensors hold to it; leave lora_r out"},
        {"", TRAIN "--adapter a --lora_alpha 8", 2, "--override lora_alpha="},
        {"", TRAIN "--adapter a --use_dora", 2, "leave use_dora out"},
        {DORA
         "sed -i 's/q_proj.lora_magnitude_vector\":{\"dtype\":\"F32\",\"shape\":\\[32/q_proj.lora_magnitude_"
         "vector\":{\"dtype\":\"I32\",\"shape\":[32/' x/adapter_model.safetensors",
         VERIFY, 3, "int32 [32] in the file, [32] expected"},
        {DORA
         "sed -i 's/q_proj.lora_magnitude_vector/q_proj.lora_magnitude_vectox/' x/adapter_model.safetensors",
         VERIFY, 3, "q_proj.lora_magnitude_vector"},
        {"\"$TENON\" " TRAIN_X " --use_dora", "export --model m --adapter x --to lora-gguf --output x.gguf", 2,
         "merge it first"},
        {"", "verify --adapter a/adapter_model.safetensors", 2, "an adapter is a directory"},
        {"", TRAIN "--adapter a --full_finetuning true", 2, "--adapter a stands on it"},
        {"cp -r m x", "train --model m --dataset d.jsonl --output_dir x --full_finetuning", 2,
         "x already holds a model"},
    };
    (void)state;
    RUN(rows);
}

#define RESUME(path)                                                               \
    "train --model m --dataset d.jsonl --output_dir x --max_steps 6 --device cpu " \
    "--resume_from_checkpoint " path

#define FULL                                                                                       \
    "\"$TENON\" train --model m --dataset d.jsonl --output_dir x --max_steps 1 --full_finetuning " \
    "--device cpu"

/* A run with a base that may be changed under it. */
#define OWN_BASE                                                                                             \
    "mkdir x; cp -r m x/m; \"$TENON\" train --model x/m --dataset d.jsonl --output_dir x/run --max_steps 1 " \
    "--device cpu; "
#define ON_OWN_BASE \
    "train --dataset d.jsonl --output_dir x/run --max_steps 2 --device cpu --resume_from_checkpoint auto"

/* Latin 1, which no JSON holds. */
#define ODD_PATH "cp d.jsonl \"$(printf 'x.\\344.jsonl')\"; "
#define ODD_RUN \
    "train --model m --dataset \"$(printf 'x.\\344.jsonl')\" --output_dir x --max_steps 1 --device cpu"
#define ODD_TRAIN "\"$TENON\" " ODD_RUN

static void broken_checkpoints(void **state) {
    static const row rows[] = {
        {"", RESUME("a/checkpoint-9"), 2, "a/checkpoint-9"},
        {"", RESUME("a"), 2, "--resume_from_checkpoint a/checkpoint-4"},
        {"cp -r a x; rm x/checkpoint-4/manifest.json", RESUME("x/checkpoint-4"), 3, "never completed"},
        {"cp -r a x; echo '{}' >x/checkpoint-4/manifest.json", RESUME("x/checkpoint-4"), 3, "lists no files"},
        {"cp -r a x; truncate -s 999 x/checkpoint-4/optimizer.safetensors", RESUME("x/checkpoint-4"), 3,
         "optimizer.safetensors is missing or of another size"},
        {"cp -r a x; printf X | dd of=x/checkpoint-4/optimizer.safetensors conv=notrunc bs=1 seek=9000",
         RESUME("x/checkpoint-4"), 3, "hash differs"},
        {"cp -r a x; sed -i 's/adapter_config/..\\/m\\/config/' x/checkpoint-4/manifest.json",
         RESUME("x/checkpoint-4"), 3, "outside its directory"},
        {"cp -r a x; sed -i 's/adapter_config/y\\/..\\/..\\/m\\/config/' x/checkpoint-4/manifest.json",
         RESUME("x/checkpoint-4"), 3, "outside its directory"},
        {"cp -r a x; rm x/checkpoint-4/run.json", RESUME("x/checkpoint-4"), 3, "run.json is missing"},
        {"cp -r a x; printf X | dd of=x/checkpoint-4/optimizer.safetensors conv=notrunc bs=1 seek=9000",
         RESUME("auto") " --lora_r 5", 2, "lora_r"},
        {"cp -r a x; truncate -s 9 x/checkpoint-4/run.json", RESUME("auto"), 0, "checkpoint-4 is passed over"},
        {OWN_BASE "printf XX | dd of=x/m/model.safetensors conv=notrunc bs=1 seek=$(($(stat -c %s "
                  "m/model.safetensors) - 2))",
         ON_OWN_BASE, 2, "same names and shapes, and other values"},
        /* of a version that kept no values */
        {OWN_BASE
         "(cd x/run/checkpoint-1; sed -i /model_values/d run.json; sed -i '/\"run.json\"/,/}/d' manifest.json)",
         ON_OWN_BASE, 0, "resuming x/run/checkpoint-1"},
        {"cp -r a x", "train --model m --dataset d.jsonl --output_dir x", 2, "already holds a run"},
        {"mkdir -p x/checkpoint-2; echo >x/checkpoint-2/optimizer.pt", TRAIN_X, 2, "x already holds a run"},
        {"cp -r a x; mkdir x/checkpoint-9", TRAIN_X " --overwrite_output_dir", 2,
         "checkpoint-9 was not written by"},
        {"cp -r a x", TRAIN_X " --overwrite_output_dir --adapter x/checkpoint-4", 2, "lies in what"},
        {"cp -r a x; cp d.jsonl x/checkpoint-2/",
         "train --model m --dataset x/checkpoint-2/d.jsonl --output_dir x --max_steps 1 --overwrite_output_dir",
         2, "lies in what"},
        {"", TRAIN_X " --adapter a --init_lora_weights gaussian", 2, "init_lora_weights is gaussian here"},
        {"cp -r a x", RESUME("a/checkpoint-2"), 2, "not that of a/checkpoint-2"},
        {"cp -r a x; echo '{\"step\":' >x/train_log.jsonl", RESUME("auto"), 0, "saved x/checkpoint-6"},
        {"cp -r a x.link; ln -s x.link x", RESUME("x.link/checkpoint-4/"), 0, "saved x/checkpoint-6"},
        {ODD_PATH ODD_TRAIN, ODD_RUN " --max_steps 2 --resume_from_checkpoint auto", 0, "saved x/checkpoint-2"},
        {ODD_PATH "rm -rf x", ODD_RUN, 0, "dataset: the path is not UTF-8"},
        {ODD_PATH ODD_TRAIN, TRAIN_X " --max_steps 2 --resume_from_checkpoint auto", 2,
         "dataset is d.jsonl here"},
        {FULL, RESUME("auto --lora_r 5"), 2, "lora_r"},
        {FULL, RESUME("auto --full_finetuning false"), 2, "from this model with --model x/checkpoint-1"},
        {FULL, RESUME("auto --adapter a"), 0, "the given --adapter a is ignored"},
        {FULL, "inspect --model x/checkpoint-1", 0, "lm_head.weight"},
    };
    (void)state;
    RUN(rows);
}

#define MERGE "merge --model m --adapter a --device cpu --output_dir "

static void merges_that_are_refused(void **state) {
    static const row rows[] = {
        {"", "merge --model m --adapter a", 2, "merge needs output_dir"},
        {"", "merge --model m --output_dir x", 2, "merge needs adapter"},
        {"", MERGE "m", 2, "m is there already"},
        {"echo kept >x", MERGE "x", 2, "x is there already"},
        {"echo kept >x", MERGE "x/y", 2, "x is a file"},
        {"", MERGE "/proc/nowhere/x", 2, "/proc/nowhere"},
        {"ln -s x x", MERGE "x", 2, "x"},
        {"", MERGE "x --base_for_merge nothing", 2, "nothing does not exist"},
        {"", MERGE "x --base_for_merge c.json", 2, "without weights"},
        {"sed 's/size\":64/size\":128/;s/_size\":32/_size\":64/' c.json >x.json; "
         "\"$TENON\" init --model x.json --output_dir x.m",
         MERGE "x --base_for_merge x.m", 2, "is another model than m"},
        {"", "merge --model llama-3.2-1b --adapter a --output_dir x", 2, "the name of a shape"},
        {"", "merge --model m --adapter m --output_dir x", 2, "adapter_config.json"},
        {"\"$TENON\" " MERGE "x.m", "merge --model x.m --adapter a --output_dir x", 2,
         "merged into it already"},
        {ADAPTER("s/\"r\": 4/\"r\": 8/"), "merge --model m --adapter x --output_dir p", 3, "lora_A"},
        {"cp -r a x; printf '\\0\\0\\300\\177' | dd of=x/adapter_model.safetensors conv=notrunc bs=1 "
         "seek=$(($(stat -c %s a/adapter_model.safetensors) - 4))",
         "merge --model m --adapter x --output_dir p", 3, "NaN"},
        {CONFIG("s/\"num_hidden_layers\":2/\"num_hidden_layers\":3/"),
         "merge --model x --adapter a --output_dir p", 3, "model.layers.2"},
        {"", MERGE "x --memory_limit 1KB", 0, "does not fit"},
        {"", MERGE "x --load_in_4bit", 0, "max_abs_logit_difference_from_model"},
        {"", MERGE "x --load_in_fp8", 0, "max_abs_logit_difference_from_model"},
    };
    (void)state;
    RUN(rows);
    assert_int_equal(shell("", "version; test ! -e p.tmp-tenon"), 0);
}

#define EXPORT "export --model t --to gguf --output "

static void exports_that_are_refused(void **state) {
    static const row rows[] = {
        {"", "export --model t --to gguf", 2, "export needs output"},
        {"", "export --model t --output x.gguf", 2, "export needs to"},
        {"", "export --model t --to gguf:q5_k --output x.gguf", 2, "gguf:q5_k"},
        {"", "export --model t --to safetensors --output x.gguf", 2, "lora-gguf"},
        {"", "export --model m --to gguf --output x.gguf", 2, "has no tokenizer.json"},
        {"", "export --model t --to lora-gguf --output x.gguf", 2, "no adapter is given"},
        {"echo kept >x.gguf", EXPORT "x.gguf", 2, "x.gguf is there already"},
        {"mkdir x", EXPORT "x", 2, "x: it is a directory"},
        {"", EXPORT "x/y.gguf", 2, "x/y.gguf"},
        {"", EXPORT "/dev/full", 6, "/dev/full"},
        {"", "export --model nothing --to gguf --output x.gguf", 2, "nothing does not exist"},
        {"", "export --model t --adapter t --to gguf --output x.gguf", 2, "adapter_config.json"},
        {"cp -r t x; truncate -s 3000 x/model.safetensors", "export --model x --to gguf --output x.gguf", 3,
         "x/model"},
        {"cp -r t x; sed -i 's/\"num_hidden_layers\":2/\"num_hidden_layers\":3/' x/config.json",
         "export --model x --to gguf --output x.gguf", 3, "model.layers.2"},
        {"cp -r t x; sed -i 's/{/{\"hidden_act\":\"gelu\",/' x/config.json",
         "export --model x --to gguf --output x.gguf", 2, "an activation other than silu"},
        {"", EXPORT "x.gguf", 0, "\"default\" is written"},
    };
    (void)state;
    RUN(rows);
}

static void places_that_cannot_be_written(void **state) {
    static const row rows[] = {
        {"echo kept >x", "train --model m --dataset d.jsonl --output_dir x", 2, "x is a file"},
        {"echo kept >x", "train --model m --dataset d.jsonl --output_dir x/y", 2, "x is a file"},
        {"", "train --model m --dataset d.jsonl --output_dir /proc/nowhere/x", 2, "/proc/nowhere"},
        {"mkdir -p x/adapter_model.safetensors", TRAIN_X, 2, "x/adapter_model.safetensors is a directory"},
        {"mkdir -p x/tokenizer.json", TRAIN_X " --model t", 2, "x/tokenizer.json is a directory"},
        {"mkdir -p x/train_log.jsonl", TRAIN_X, 2, "x/train_log.jsonl is a directory"},
        {"mkdir x; echo kept >x/checkpoint-1", TRAIN_X, 2, "x/checkpoint-1 is a file"},
        {"mkdir x; echo kept >x/checkpoint-1", TRAIN_X " --overwrite_output_dir", 2,
         "x/checkpoint-1 is a file"},
        {"cp -r a x; echo kept >x/checkpoint-6", RESUME("auto"), 2, "x/checkpoint-6 is a file"},
        {"mkdir x; echo kept >x/checkpoints", TRAIN_X, 0, "saved x/checkpoint-1"},
        {"ln -s x x", "train --model m --dataset d.jsonl --output_dir x", 2, "x"},
        {"cp -r m x", TRAIN_X, 2, "x already holds a model"},
        {"mkdir x; echo >x/model.safetensors.index.json", TRAIN_X, 2, "x already holds a model"},
        {"cp -r m x", TRAIN_X " --full_finetuning", 2, "x already holds a model"},
        {"mkdir x; cp c.json x/config.json", TRAIN_X " --full_finetuning", 2, "x already holds a model"},
        {"", "init --model c.json --output_dir m", 2, "m already holds a model"},
        {"", "init --model c.json --output_dir /proc/x", 2, "/proc/x"},
        {"", "init --model g.gguf --output_dir x", 2, "g.gguf is no config.json"},
        {"", "init --model nothing --output_dir x", 2, "one of: llama-3.1-8b"},
        {"", "init --model c.json --output_dir x --tokenizer m", 2, "m holds no tokenizer.json"},
        {"! \"$TENON\" init --model c.json --output_dir x --tokenizer m; test ! -e x",
         "init --model c.json --output_dir x --tokenizer t", 0, "parameters"},
        {"", "eval --model m --dataset d.jsonl --per_token /dev/full", 6, "/dev/full"},
        {"mkdir x", "eval --model m --dataset d.jsonl --per_token x", 2, "x: it is a directory"},
        {"", "eval --model m --dataset d.jsonl --per_token x/y", 2, "x/y"},
    };
    (void)state;
    RUN(rows);
    assert_int_equal(access("/dev/full", W_OK), 0);
    assert_int_equal(shell("test -c /dev/full", "version"), 0); /* not replaced by a file */
}

/* A full disk, played by a limit on the size of a file. */
static void a_failed_save_leaves_the_earlier_checkpoint(void **state) {
    (void)state;
    tn_str words = {0};
    tn_str_printf(&words, "version; cd '%s'; cp -r a x; ulimit -f 4; \"$TENON\" %s", scratch(""),
                  RESUME("auto"));
    assert_int_equal(shell("", tn_str_text(&words)), 6);
    tn_str_free(&words);
    assert_non_null(strstr(tn_str_text(&output), "x/checkpoint-6"));
    assert_true(has_remedy(tn_str_text(&output)));
    assert_int_equal(access(scratch("x/checkpoint-6.tmp"), F_OK), -1); /* it may be what fills the disk */
    assert_int_equal(shell("", "inspect --model a/checkpoint-4"), 0);
}

/* `line`, where $TRAIN is a run into x, as the shell does it behind a program call of no interest. */
static int shell_line(const char *make, const char *line) {
    tn_str words = {0};
    tn_str_printf(&words, "version >/dev/null; cd '%s'; TRAIN=\"$TENON " TRAIN_X "\"; { %s; }", scratch(""),
                  line);
    int code = shell(make, tn_str_text(&words));
    tn_str_free(&words);
    return code;
}

/* The number of a closed stream is that of the next file opened: nothing printed may end up in it. */
static void closed_streams_write_into_no_file(void **state) {
    static const char *const closed[] = {"2>&-", ">&- 2>&-", "<&- >&- 2>&-"};
    (void)state;
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        tn_str line = {0};
        tn_str_printf(&line, "$TRAIN %s && cat x/train_log.jsonl && \"$TENON\" verify --adapter x", closed[i]);
        assert_int_equal(shell_line("", tn_str_text(&line)), 0);
        tn_str_free(&line);
        assert_non_null(strstr(tn_str_text(&output), "{\"step\": 1,"));
        assert_null(strstr(tn_str_text(&output), "precision"));
    }
    assert_int_equal(shell_line("", "$TRAIN --json >&-"), 6);
}

static void two_runs_in_one_directory_are_kept_apart(void **state) {
    (void)state;
    assert_int_equal(shell_line("mkdir x", "flock x $TRAIN"), 2);
    assert_non_null(strstr(tn_str_text(&output), "another process is writing to x"));
    assert_int_equal(shell_line("mkdir x", "flock x true; $TRAIN"), 0);
}

/* Chat templates beyond the first lie in a folder of their own, which belongs to the checkpoint. */
static void a_checkpoint_holds_every_template(void **state) {
    static const char make[] =
        "cp -r t x.t; echo '{\"chat_template\":[{\"name\":\"default\",\"template\":\"a\"},"
        "{\"name\":\"tool_use\",\"template\":\"b\"}]}' >x.t/tokenizer_config.json";
    (void)state;
    assert_int_equal(shell_line(make,
                                "$TRAIN --model x.t && \"$TENON\" inspect --model x/checkpoint-1 && "
                                "cat x/checkpoint-1/additional_chat_templates/tool_use.jinja && "
                                "echo >x/checkpoint-1/additional_chat_templates/tool_use.jinja; "
                                "\"$TENON\" inspect --model x/checkpoint-1"),
                     3);
    assert_non_null(strstr(tn_str_text(&output), "tool_use.jinja is damaged"));
}

/* Waits for a run's first line, a minute at most. */
#define HAS_BEGUN "n=0; until test -s x/train_log.jsonl; do sleep 0.05; n=$((n + 1)); test $n -lt 1200; done; "
/* A run that goes on until it is told to stop, and what happens to its files when it has begun. */
#define UNDER_A_RUN(train, happening)                                               \
    "timeout 120 " train " --max_steps 99999999 >x.log 2>&1 & " HAS_BEGUN happening \
    " kill $!; wait $! || cat x.log; "

/* What is handed on with the weights is what the run began with. */
static void a_tokenizer_that_goes_or_changes_under_a_run_is_saved_as_it_was(void **state) {
    (void)state;
    assert_int_equal(
        shell_line("cp -r t x.t",
                   UNDER_A_RUN("$TRAIN --model x.t",
                               "rm x.t/tokenizer.json;") "cmp x/checkpoint-*/tokenizer.json tokenizer"),
        0);
    assert_int_equal(
        shell_line(
            "cp -r t x.t",
            UNDER_A_RUN(
                "$TRAIN --model x.t --full_finetuning",
                "echo '{}' >x.t/tokenizer.json; rm x.t/config.json;") "cmp x/checkpoint-*/tokenizer.json "
                                                                      "tokenizer && "
                                                                      "cmp x/checkpoint-*/config.json "
                                                                      "t/config.json"),
        0);
    /* the tokenizer of a run that is taken up comes from a checkpoint, which the next one pushes out */
    assert_int_equal(
        shell_line("",
                   "$TRAIN --model t --save_total_limit 1 && $TRAIN --model t --save_total_limit 1 "
                   "--max_steps 2 --resume_from_checkpoint auto && test ! -e x/checkpoint-1 && "
                   "cmp x/checkpoint-2/tokenizer.json tokenizer && cmp x/tokenizer.json tokenizer"),
        0);
}

static void an_output_dir_that_goes_under_a_run_is_made_anew_and_said(void **state) {
    static const char *const ways[] = {"mv x x.moved", "rm -r x || true", "rm x/train_log.jsonl"};
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        tn_str line = {0};
        tn_str_printf(&line,
                      UNDER_A_RUN("$TRAIN", "%s; " HAS_BEGUN)
                      "\"$TENON\" inspect --model x/checkpoint-*[0-9] && test -s x/config.resolved.yaml && "
                      "$TRAIN --max_steps 1 --resume_from_checkpoint auto",
                      ways[i]);
        int code = shell_line("", tn_str_text(&line));
        tn_str_free(&line);
        if (code != 0 || !strstr(tn_str_text(&output), "was moved or removed under the run"))
            fail_msg("%s: %d: %s", ways[i], code, tn_str_text(&output));
    }
}

static void write_gguf(void) {
    static const float zeros[64 * 32];
    static const char *const keys[] = {"context_length",       "embedding_length",
                                       "block_count",          "feed_forward_length",
                                       "attention.head_count", "attention.head_count_kv"};
    static const uint32_t values[] = {64, 32, 2, 64, 4, 2};
    static const int64_t shape[] = {32, 64};
    gguf_builder b = {0};
    tn_str bytes = {0};
    char key[64];
    add_string(&b, "general.architecture", "llama");
    for (int i = 0; i < 6; i++) {
        snprintf(key, sizeof key, "llama.%s", keys[i]);
        add_u32(&b, key, values[i]);
    }
    add_f32(&b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    add_tensor(&b, "token_embd.weight", 2, shape, 0, zeros, sizeof zeros);
    build_gguf(&b, &bytes);
    write_scratch("g.gguf", bytes.data, bytes.length);
    tn_str_free(&bytes);
}

static int make_files(void **state) {
    static const char config[] =
        "{\"model_type\":\"llama\",\"vocab_size\":64,\"hidden_size\":32,\"intermediate_size\":64,"
        "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
        "\"max_position_embeddings\":64,\"tie_word_embeddings\":false}\n";
    static const char records[] = "{\"input_ids\":[1,2,3,4,5,6,7]}\n{\"input_ids\":[1,9,3,8,5,6]}\n";
    static const char tokenizer[] =
        "{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a "
        "b\"]}}";
    (void)state;
    write_scratch("c.json", config, sizeof config - 1);
    write_scratch("d.jsonl", records, sizeof records - 1);
    write_scratch("text.jsonl", "{\"text\":\"ab\"}\n", 14);
    write_scratch("tokenizer", tokenizer, sizeof tokenizer - 1);
    write_gguf();
    if (shell("", "init --model c.json --output_dir m") != 0) fail_msg("%s", tn_str_text(&output));
    if (shell("cp -r m t; cp tokenizer t/tokenizer.json",
              "train --model m --dataset d.jsonl --output_dir a "
              "--lora_r 4 --max_steps 4 --save_steps 2 --device cpu") != 0)
        fail_msg("%s", tn_str_text(&output));
    return 0;
}

static int remove_files(void **state) {
    (void)state;
    tn_str_free(&output);
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absurd_sizes),
        cmocka_unit_test(broken_configurations),
        cmocka_unit_test(broken_weights),
        cmocka_unit_test(broken_gguf_files),
        cmocka_unit_test(broken_tokenizers),
        cmocka_unit_test(broken_templates),
        cmocka_unit_test(broken_datasets),
        cmocka_unit_test(broken_settings),
        cmocka_unit_test(keys_without_effect),
        cmocka_unit_test(broken_quantised_bases),
        cmocka_unit_test(broken_fp8_bases),
        cmocka_unit_test(broken_adapters),
        cmocka_unit_test(broken_checkpoints),
        cmocka_unit_test(merges_that_are_refused),
        cmocka_unit_test(exports_that_are_refused),
        cmocka_unit_test(places_that_cannot_be_written),
        cmocka_unit_test(a_failed_save_leaves_the_earlier_checkpoint),
        cmocka_unit_test(closed_streams_write_into_no_file),
        cmocka_unit_test(two_runs_in_one_directory_are_kept_apart),
        cmocka_unit_test(a_checkpoint_holds_every_template),
        cmocka_unit_test(a_tokenizer_that_goes_or_changes_under_a_run_is_saved_as_it_was),
        cmocka_unit_test(an_output_dir_that_goes_under_a_run_is_made_anew_and_said),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
