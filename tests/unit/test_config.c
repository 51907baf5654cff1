/* test_config.c: what product.md promises of keys: names and aliases, kinds, precedence, conflicts, and that
 * what was used can be written down and read back. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "train/config_foreign.h"
#include "train/config_table.h"

static tn_config *new_config(const char *verb) {
    tn_config *config = NULL;
    assert_int_equal(tn_config_new(verb, &config), TN_OK);
    return config;
}

static void assert_message(const char *part) {
    if (!strstr(tn_error_message(), part)) fail_msg("'%s' lacks '%s'", tn_error_message(), part);
}

static void set(tn_config *config, const char *key, const char *value) {
    if (tn_config_set(config, key, value) != TN_OK) fail_msg("%s=%s: %s", key, value, tn_error_message());
}

static tn_config *training(void) {
    tn_config *config = new_config("train");
    set(config, "model", "m");
    set(config, "dataset", "d.jsonl");
    set(config, "output_dir", "o");
    return config;
}

static const tn_settings *resolve(tn_config *config) {
    const tn_settings *settings = NULL;
    if (tn_config_resolve(config, &settings) != TN_OK) fail_msg("%s", tn_error_message());
    return settings;
}

/* Writes a configuration file and loads it. */
static tn_status load(tn_config *config, const char *text) {
    char path[] = "/tmp/tenon-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    tn_status status = tn_config_load(config, path);
    unlink(path);
    return status;
}

static void defaults_are_those_of_the_product(void **state) {
    (void)state;
    tn_config *config = training();
    const tn_settings *s = resolve(config);
    assert_int_equal(s->max_length, 2048);
    assert_string_equal(s->dtype, "auto");
    assert_string_equal(s->stage, "sft");
    assert_int_equal(s->lora_r, 16);
    assert_true(s->lora_alpha == 32 && s->lora_dropout == 0);
    assert_string_equal(s->target_modules, "all-linear");
    assert_null(s->modules_to_save);
    assert_true(s->learning_rate == 2e-4 && s->embedding_learning_rate == 2e-4 / 10);
    assert_true(s->adam_beta1 == 0.9 && s->adam_beta2 == 0.999 && s->adam_epsilon == 1e-8);
    assert_true(s->max_grad_norm == 1.0 && s->weight_decay == 0 && s->warmup_ratio == 0.03);
    assert_int_equal(s->warmup_steps, -1);
    assert_int_equal(s->max_steps, -1);
    assert_true(s->seed == 3407 && s->num_train_epochs == 1);
    assert_int_equal(s->per_device_train_batch_size, 2);
    assert_int_equal(s->gradient_accumulation_steps, 4);
    assert_true(s->packing && s->train_on_responses_only && s->shuffle && !s->load_in_4bit);
    assert_string_equal(s->gradient_checkpointing, "auto");
    assert_int_equal(s->save_steps, 500);
    assert_int_equal(s->save_total_limit, 3);
    assert_true(isnan(s->eval_split) && s->memory_limit == -1 && s->eval_steps == -1);
    tn_config_free(config);
}

static void every_alias_is_accepted(void **state) {
    static const char *const pairs[][2] = {{"model_name_or_path", "model"},
                                           {"base_model", "model"},
                                           {"model_name", "model"},
                                           {"adapter_name_or_path", "adapter"},
                                           {"lora_model_dir", "adapter"},
                                           {"dataset_name", "dataset"},
                                           {"data", "dataset"},
                                           {"train_file", "dataset"},
                                           {"max_seq_length", "max_length"},
                                           {"cutoff_len", "max_length"},
                                           {"sequence_len", "max_length"},
                                           {"r", "lora_r"},
                                           {"lora_rank", "lora_r"},
                                           {"embedding_lr", "embedding_learning_rate"},
                                           {"random_state", "seed"},
                                           {"batch_size", "per_device_train_batch_size"},
                                           {"micro_batch_size", "per_device_train_batch_size"},
                                           {"sample_packing", "packing"},
                                           {"lora_target_modules", "target_modules"},
                                           {"num_epochs", "num_train_epochs"},
                                           {"assistant_only_loss", "train_on_responses_only"},
                                           {"completion_only_loss", "train_on_responses_only"}};
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        tn_config *config = new_config("train");
        set(config, pairs[i][0], tn_config_is_boolean(config, pairs[i][0]) ? "false" : "7");
        assert_string_equal(tn_config_get(config, pairs[i][0]), tn_config_get(config, pairs[i][1]));
        assert_int_equal(tn_config_setter(config, pairs[i][1]), TN_SET_FLAG);
        tn_config_free(config);
    }
}

static void names_of_optimizers_and_schedules_are_those_of_other_programs(void **state) {
    static const char *const same[][3] = {{"optim", "adamw_torch", "adamw"},
                                          {"optimizer", "adamw_torch_fused", "adamw"},
                                          {"optimizer", "adamw_bnb_8bit", "adamw_8bit"},
                                          {"optim", "lion_32bit", "lion"},
                                          {"lr_scheduler", "linear", "linear"},
                                          {"val_set_size", "0.05", "0.05"},
                                          {"val_size", "0.1", "0.1"}};
    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        tn_config *config = new_config("train");
        set(config, same[i][0], same[i][1]);
        assert_string_equal(tn_config_get(config, same[i][0]), same[i][2]);
        tn_config_free(config);
    }
}

/* The keys of LLaMA-Factory's and axolotl's LoRA examples. What changes the meaning is refused. */
static void files_of_other_programs_are_read_or_refused_by_name(void **state) {
    static const char factory[] =
        "model_name_or_path: m\ntrust_remote_code: true\nstage: sft\ndo_train: true\n"
        "finetuning_type: lora\nlora_rank: 8\nlora_target: all\ndataset: d.jsonl\ncutoff_len: 1024\n"
        "preprocessing_num_workers: 4\ndataloader_num_workers: 2\noutput_dir: o\nlogging_steps: 10\n"
        "save_steps: 50\nplot_loss: true\nsave_only_model: false\nper_device_train_batch_size: 1\n"
        "learning_rate: 1.0e-4\nnum_train_epochs: 3.0\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\n"
        "ddp_timeout: 180000000\nresume_from_checkpoint: null\nval_size: 0.1\n";
    static const char axolotl[] =
        "base_model: m\nload_in_8bit: false\nstrict: false\ndataset: d.jsonl\noutput_dir: o\nlora_model_dir:\n"
        "val_set_size: 0.1\nsequence_len: 512\nsample_packing: true\npad_to_sequence_len: true\nlora_r: 16\n"
        "lora_fan_in_fan_out:\nlora_target_modules:\n  - q_proj\n  - v_proj\nwandb_project:\nnum_epochs: 2\n"
        "micro_batch_size: 2\noptimizer: adamw_torch\nlr_scheduler: linear\ntrain_on_inputs: false\nbf16: "
        "auto\n"
        "fp16:\ntf32: false\nflash_attention: true\nwarmup_steps: 10\ndeepspeed:\nfsdp:\nspecial_tokens:\n";
    static const char *const refused[][2] = {{"pure_bf16: true\n", "dtype"},
                                             {"finetuning_type: oft\n", "full_finetuning"},
                                             {"neftune_noise_alpha: 5\n", "noise"},
                                             {"lora_bias: all\n", "biases"},
                                             {"special_tokens:\n  bos_token: <s>\n", "tokenizer"},
                                             {"plugins:\n  - mine.Plugin\n", "kernels"},
                                             {"datasets:\n  - path: a\n    type: my.prompts\n", "messages"},
                                             {"datasets:\n  - path: a\n    field_messages: talk\n", "messages"},
                                             {"datasets:\n  - path: a\n    split: train[:10%]\n", "messages"},
                                             {"loss_type: dft\n", "cross-entropy"},
                                             {"packing_strategy: wrapped\n", "packing"},
                                             {"load_best_model_at_end: true\n", "checkpoints"},
                                             {"deepspeed: z.json\n", "--gpus N"}};
    (void)state;
    tn_config *config = new_config("train");
    if (load(config, factory) != TN_OK) fail_msg("%s", tn_error_message());
    assert_int_equal(resolve(config)->lora_r, 8);
    assert_int_equal(resolve(config)->max_length, 1024);
    tn_config_free(config);
    config = new_config("train");
    if (load(config, axolotl) != TN_OK) fail_msg("%s", tn_error_message());
    assert_string_equal(resolve(config)->target_modules, "q_proj,v_proj");
    assert_string_equal(resolve(config)->optim, "adamw");
    tn_config_free(config);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        config = new_config("train");
        assert_int_equal(load(config, refused[i][0]), TN_USAGE);
        if (!strstr(tn_error_remedy(), refused[i][1])) fail_msg("%s: %s", refused[i][0], tn_error_remedy());
        tn_config_free(config);
    }
}

/* Keys of other programs that have a counterpart: what a file says, and what it becomes here. */
static void keys_of_other_programs_become_ours(void **state) {
    static const char *const rows[][3] = {
        {"bf16: true\n", "dtype", "bfloat16"},
        {"dtype: auto\nbf16: true\n", "dtype", "bfloat16"},
        {"bf16: auto\nfp16: false\n", "dtype", "auto"},
        {"torch_dtype: float16\n", "dtype", "float16"},
        {"finetuning_type: full\n", "full_finetuning", "true"},
        {"use_peft: false\n", "full_finetuning", "true"},
        {"training:\n  training_type: full\n", "full_finetuning", "true"},
        {"lora_target: all\n", "target_modules", "all-linear"},
        {"lora_target: q_proj,v_proj\n", "target_modules", "q_proj,v_proj"},
        {"lora_target_linear: true\nlora_target_modules: [q_proj, up_proj]\n", "target_modules", "all-linear"},
        {"train_on_inputs: true\n", "train_on_responses_only", "false"},
        {"train_on_prompt: false\n", "train_on_responses_only", "true"},
        {"quantization_bit: 4\n", "load_in_4bit", "true"},
        {"adapter: qlora\n", "load_in_4bit", "true"},
        {"adapter: lora\n", "adapter", ""},
        {"adapter: runs/old\n", "adapter", "runs/old"},
        {"stage: pt\n", "stage", "cpt"},
        {"max_samples: 10\n", "max_samples", "10"},
        {"max_steps: -1\n", "max_steps", ""},
        {"val_set_size: 0.0\n", "eval_split", ""},
        {"val_size: 200\n", "eval_split", "200.0"},
        {"save_strategy: 'no'\n", "save_steps", "500"},
        {"save_strategy: epoch\n", "saves_per_epoch", "1"},
        {"eval_strategy: epoch\n", "evals_per_epoch", "1"},
        {"report_to: none\n", "report_to", "jsonl"},
        {"report_to: [wandb]\n", "report_to", "jsonl"},
        {"report_to: [tensorboard]\n", "report_to", "tensorboard"},
        {"optim: paged_adamw_32bit\n", "optim", "adamw"},
        {"optimizer: paged_adamw_8bit\n", "optim", "paged_adamw_8bit"},
        {"lr_scheduler_kwargs:\n  min_lr_rate: 0.1\n", "min_lr_rate", "0.1"},
        {"template: llama3\n", "chat_template", "llama3"},
        {"datasets:\n  - path: a.jsonl\n    type: alpaca\n  - path: json\n    data_files: [b.json]\n",
         "dataset", "a.jsonl,b.json"},
        {"datasets:\n  - path: a.jsonl\n    type: alpaca\n", "dataset_format", "alpaca_prompt"},
        {"datasets:\n  - path: a\n    type: chat_template\n    roles:\n      user: [human]\n    "
         "roles_to_train: [assistant]\n",
         "dataset", "a"},
        {"test_datasets:\n  - path: e.jsonl\n", "eval_dataset", "e.jsonl"},
        {"data:\n  local_dataset: [x.json]\n  format_type: raw\n", "stage", "cpt"},
        {"data:\n  dataset: x.json\ntraining:\n  random_seed: 7\nlora:\n  lora_r: 64\n", "lora_r", "64"},
        {"special_tokens:\n  pad_token: <|end|>\nplugins:\n  - axolotl.integrations.liger.LigerPlugin\n",
         "lora_r", "16"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tn_config *config = new_config("train");
        if (load(config, rows[i][0]) != TN_OK) fail_msg("%s: %s", rows[i][0], tn_error_message());
        const char *got = tn_config_get(config, rows[i][1]);
        if (strcmp(got, rows[i][2]) != 0)
            fail_msg("%s: %s is %s, not %s", rows[i][0], rows[i][1], got, rows[i][2]);
        tn_config_free(config);
    }
    tn_config *config = new_config("train");
    assert_int_equal(load(config, "bf16: true\nfp16: true\n"), TN_USAGE); /* one key, two values */
    assert_message("bf16 and fp16");
    tn_config_free(config);
}

static tn_str heard;
static void hear(void *user, tn_log_level level, const char *line) {
    (void)user, (void)level;
    tn_str_printf(&heard, "%s\n", line);
}

/* What is ignored is named with the reason, what is mapped with what it became, and defaults that differ. */
static void what_is_not_ours_is_said(void **state) {
    static const char *const parts[] = {"ignored: flash_attention (the device", "bf16 = dtype: bfloat16",
                                        "those of axolotl would be packing: false",
                                        "wandb_project (nothing leaves"};
    (void)state;
    tn_config *config = new_config("train");
    tn_log_set(hear, NULL);
    tn_status status = load(config,
                            "base_model: m\nmicro_batch_size: 1\nbf16: true\nflash_attention: true\n"
                            "wandb_project: p\nwandb_entity:\n");
    tn_log_set(NULL, NULL);
    assert_int_equal(status, TN_OK);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(tn_str_text(&heard), parts[i])) fail_msg("'%s' lacks '%s'", tn_str_text(&heard), parts[i]);
    assert_null(strstr(tn_str_text(&heard), "wandb_entity")); /* blank: it asks for nothing */
    tn_str_free(&heard);
    tn_config_free(config);
}

/* ---- docs/coming-from.md ---- */

static void put_words(tn_str *out, const tn_foreign_key *key) {
    const char *at = key->words ? key->words : "";
    if (key->kind != TN_FOREIGN_WORD) {
        static const char *const trees[] = {
            [TN_FOREIGN_DATASETS] =
                "path, data_files → `dataset`; type → `dataset_format`; chat_template → "
                "`chat_template`",
            [TN_FOREIGN_EVAL_DATASETS] = "the same → `eval_dataset`",
            [TN_FOREIGN_PAD_ONLY] = "pad_token: ignored",
            [TN_FOREIGN_PLUGINS] = "liger, cut_cross_entropy: ignored",
            [TN_FOREIGN_MIN_LR] = "min_lr → `min_lr`; min_lr_rate → `min_lr_rate`",
            [TN_FOREIGN_ALL_FALSE] = "all false: ignored",
            [TN_FOREIGN_LINEAR_TARGETS] = "true → `target_modules: all-linear`; false: ignored"};
        tn_str_puts(out, trees[key->kind]);
    }
    for (size_t length; *at; at += length + (at[length] == ',')) {
        length = strcspn(at, ",");
        int word = (int)strcspn(at, "=,"), rest = (int)length - word - 1;
        const char *name = word == 1 && *at == '*' ? "any value" : "";
        tn_str_printf(out, "%s%s%.*s", at == key->words ? "" : "; ", name, *name ? 0 : word, at);
        if (rest < 0) tn_str_puts(out, ": ignored");
        else if (memchr(at + word, ':', (size_t)rest)) {
            int key_length = (int)strcspn(at + word + 1, ":");
            tn_str_printf(out, " → `%.*s: %.*s`", key_length, at + word + 1, rest - key_length - 1,
                          at + word + 2 + key_length);
        } else tn_str_printf(out, " → `%.*s`", rest, at + word + 1);
    }
}

static void put_program(tn_str *out, int which) {
    const tn_program *p = &tn_programs[which];
    tn_str_printf(out, "\n## %s\n\nThe same under our name or one of its aliases:", p->name);
    for (const char *at = p->keys; *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ',')) {
        char name[64] = "";
        memcpy(name, at, strcspn(at, ","));
        int row = tn_config_row(name);
        if (row < 0) fail_msg("%s of %s is no key", name, p->name);
        const char *ours = tn_config_keys[row].name;
        if (strcmp(ours, name) == 0) tn_str_printf(out, " `%s`", name);
        else tn_str_printf(out, " `%s` (`%s`)", name, ours);
        tn_str_puts(out, at[strcspn(at, ",")] ? "," : ".");
    }
    tn_str_puts(out, "\n\nDefaults that differ, said at the start where the file leaves the key out:");
    for (int i = 0; p->defaults[i].key; i++)
        tn_str_printf(out, "%s `%s` %s", i ? "," : "", p->defaults[i].key, p->defaults[i].value);
    tn_str_puts(out, ".\n\n| key | here | why, or what to write instead |\n|---|---|---|\n");
    for (int i = 0; i < tn_foreign_key_count; i++) {
        const tn_foreign_key *key = &tn_foreign_keys[i];
        if (!(key->programs >> which & 1)) continue;
        tn_str_printf(out, "| `%s` | ", key->name);
        put_words(out, key);
        bool all = key->words && strstr(key->words, "*"), own = tn_config_row(key->name) >= 0;
        bool some = key->kind || *key->words;
        if (!all) tn_str_printf(out, "%s%s", some ? "; else " : "", own ? "as ours" : "refused");
        bool ignores = key->kind || strcmp(key->words, "*") == 0;
        tn_str_printf(out, " | %s%s%s |\n", ignores ? tn_reason_texts[key->reason] : "",
                      ignores && key->remedy ? "; " : "", key->remedy ? key->remedy : "");
    }
}

/* The page is what the tables say; TENON_WRITE_DOCS=1 writes it anew. */
static void coming_from_is_what_the_tables_say(void **state) {
    static const char path[] = "docs/coming-from.md", mark[] = "<!-- tables: written by test_config -->\n";
    tn_str page = {0}, file = {0};
    (void)state;
    assert_int_equal(tn_read_file(path, 1 << 20, &file), TN_OK);
    const char *end = strstr(tn_str_text(&file), mark);
    assert_non_null(end);
    tn_str_add(&page, tn_str_text(&file), end + strlen(mark) - tn_str_text(&file));
    for (int i = 0; i < TN_PROGRAMS; i++) put_program(&page, i);
    if (getenv("TENON_WRITE_DOCS"))
        assert_int_equal(tn_save_text(path, tn_str_text(&page), page.length), TN_OK);
    else if (strcmp(tn_str_text(&page), tn_str_text(&file)) != 0)
        fail_msg("%s is not what the tables say; TENON_WRITE_DOCS=1 build/tests/test_config writes it", path);
    tn_str_free(&page);
    tn_str_free(&file);
}

static void an_unknown_key_names_the_nearest_and_the_verbs(void **state) {
    (void)state;
    tn_config *config = new_config("train");
    assert_int_equal(tn_config_set(config, "lerning_rate", "1"), TN_USAGE);
    assert_message("learning_rate");
    assert_int_equal(tn_config_set(config, "learning-rate", "1"), TN_USAGE);
    assert_message("learning_rate");
    assert_int_equal(tn_config_set(config, "prompt", "x"), TN_USAGE);
    assert_message("not a key of train");
    assert_message("generate");
    assert_null(tn_config_get(config, "prompt"));
    assert_null(tn_config_get(config, "nothing"));
    tn_config_free(config);
    assert_int_equal(tn_config_new("trian", &config), TN_USAGE);
    assert_null(config);
}

static void a_bad_value_names_key_value_and_form(void **state) {
    static const char *const bad[][3] = {{"lora_r", "0", "from 1 to 1,000,000"},
                                         {"save_steps", "0", "at least 1"},
                                         {"lora_r", "8x", "whole number"},
                                         {"r", "1.5", "lora_r"},
                                         {"lora_r", "", "is empty"},
                                         {"adapter", " ", "is empty"},
                                         {"lora_r", "99999999999999999999", "whole number"},
                                         {"lora_dropout", "1", "not including, 1"},
                                         {"learning_rate", "-1e-4", "at least 0"},
                                         {"learning_rate", "nan", "number"},
                                         {"learning_rate", "inf", "number"},
                                         {"learning_rate", "1e-4 x", "number"},
                                         {"learning_rate", "0,1", "number"},
                                         {"learning_rate", "0x1", "number"},
                                         {"learning_rate", "1e999", "number"},
                                         {"packing", "yes", "true or false"},
                                         {"dtype", "int4", "bfloat16"},
                                         {"device", "cuda:", "cuda:N"},
                                         {"device", "gpu", "cpu"},
                                         {"memory_limit", "16 elephants", "16GB"},
                                         {"memory_limit", "-1", "size"},
                                         {"max_steps", "0", "or none"},
                                         {"rope_scaling", "[1]", "map"},
                                         {"rope_scaling", "{\"a\":", "map"},
                                         {"gradient_checkpointing", "maybe", "offload"},
                                         {"warmup_ratio", "1.1", "0 to 1"},
                                         {"dataset_format", "parquet", "messages"},
                                         {"seed", "-1", "at least 0"},
                                         {"optim", "adam", "adamw_8bit"}};
    (void)state;
    tn_config *config = new_config("train");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (tn_config_set(config, bad[i][0], bad[i][1]) != TN_USAGE)
            fail_msg("%s=%s passed", bad[i][0], bad[i][1]);
        assert_message(bad[i][0]);
        assert_message(bad[i][1]);
        assert_message(bad[i][2]);
        assert_int_equal(tn_config_setter(config, bad[i][0]), TN_SET_DEFAULT);
    }
    assert_int_equal(tn_config_set(config, "optim", "\xff"), TN_USAGE);
    tn_config_free(config);
}

static void values_are_read_by_their_kind(void **state) {
    (void)state;
    tn_config *config = training();
    set(config, "memory_limit", "1.5GiB");
    set(config, "max_steps", "1e3");
    set(config, "threads", "auto");
    set(config, "dtype", "bf16");
    set(config, "device", "cuda:12");
    set(config, "gradient_checkpointing", "unsloth");
    set(config, "dataset", "a.jsonl, b.json");
    set(config, "adapter", "a");
    set(config, "override", "lora_alpha=16,use_rslora=true");
    set(config, "rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":4}");
    set(config, "rank_pattern", "none");
    const tn_settings *s = resolve(config);
    assert_int_equal(s->memory_limit, 3 << 29);
    assert_int_equal(s->max_steps, 1000);
    assert_int_equal(s->threads, 0);
    assert_string_equal(s->dtype, "bfloat16");
    assert_string_equal(s->device, "cuda:12");
    assert_string_equal(s->gradient_checkpointing, "offload");
    assert_int_equal(s->datasets, 2);
    assert_string_equal(s->dataset[1], "b.json");
    assert_int_equal(tn_json_integer(tn_json_get(s->override_settings, "lora_alpha"), 0), 16);
    assert_true(tn_json_boolean(tn_json_get(s->override_settings, "use_rslora"), false));
    assert_int_equal(tn_json_integer(tn_json_get(s->rope_scaling, "factor"), 0), 4);
    assert_null(s->rank_pattern);
    set(config, "memory_limit", "24GB");
    set(config, "gradient_checkpointing", "true");
    s = resolve(config);
    assert_int_equal(s->memory_limit, 24000000000);
    assert_string_equal(s->gradient_checkpointing, "full");
    tn_config_free(config);
}

static void a_prompt_is_taken_to_the_letter(void **state) {
    (void)state;
    tn_config *config = new_config("generate");
    set(config, "model", "m");
    set(config, "prompt", "none");
    assert_string_equal(resolve(config)->prompt, "none");
    set(config, "prompt", "");
    assert_string_equal(resolve(config)->prompt, "");
    set(config, "prompt", " a, b \n");
    assert_string_equal(resolve(config)->prompt, " a, b \n");
    tn_config_free(config);
}

static void flag_beats_file_beats_adapter_beats_checkpoint_beats_default(void **state) {
    (void)state;
    tn_config *config = training();
    assert_string_equal(tn_config_get(config, "lora_r"), "16");
    set(config, "lora_r", "4");
    assert_int_equal(load(config, "lora_r: 5\nlora_alpha: 6\n"), TN_OK);
    assert_int_equal(tn_config_inherit(config, "lora_alpha", "7", TN_SET_ADAPTER), TN_OK);
    assert_int_equal(tn_config_inherit(config, "lora_dropout", "0.25", TN_SET_ADAPTER), TN_OK);
    assert_int_equal(tn_config_inherit(config, "lora_dropout", "0.5", TN_SET_CHECKPOINT), TN_OK);
    assert_int_equal(tn_config_inherit(config, "seed", "9", TN_SET_CHECKPOINT), TN_OK);
    const tn_settings *s = resolve(config);
    assert_int_equal(s->lora_r, 4);
    assert_true(s->lora_alpha == 6 && s->lora_dropout == 0.25 && s->seed == 9);
    assert_int_equal(tn_config_setter(config, "r"), TN_SET_FLAG);
    assert_int_equal(tn_config_setter(config, "lora_alpha"), TN_SET_FILE);
    assert_int_equal(tn_config_setter(config, "lora_dropout"), TN_SET_ADAPTER);
    assert_string_equal(tn_config_given(config, "lora_r", TN_SET_FILE), "5");
    assert_null(tn_config_given(config, "lora_r", TN_SET_CHECKPOINT));
    tn_config_free(config);
}

static void an_explicit_none_beats_the_file(void **state) {
    (void)state;
    tn_config *config = training();
    assert_int_equal(load(config, "adapter: old\nmax_steps: 5\neval_split: null\n"), TN_OK);
    set(config, "adapter", "none");
    const tn_settings *s = resolve(config);
    assert_null(s->adapter);
    assert_int_equal(s->max_steps, 5);
    tn_config_free(config);
}

static void two_spellings_of_a_key_must_agree(void **state) {
    (void)state;
    tn_config *config = training();
    set(config, "batch_size", "3");
    set(config, "micro_batch_size", "3");
    assert_int_equal(tn_config_set(config, "per_device_train_batch_size", "4"), TN_USAGE);
    assert_message("3 and 4");
    set(config, "lora_r", "1");
    set(config, "lora_r", "2"); /* one spelling twice: the later counts */
    assert_string_equal(tn_config_get(config, "r"), "2");
    assert_int_equal(load(config, "max_seq_length: 10\ncutoff_len: 11\n"), TN_USAGE);
    assert_message("cutoff_len");
    assert_int_equal(load(config, "seed: 10\nseed: 11\n"), TN_USAGE);
    assert_message("seed");
    tn_config_free(config);
}

static void yaml_may_use_its_own_lists_and_maps(void **state) {
    (void)state;
    tn_config *config = new_config("train");
    assert_int_equal(load(config,
                          "model: m\noutput_dir: o\n"
                          "dataset:\n  - a.jsonl\n  - b.jsonl\n"
                          "target_modules: [q_proj, v_proj]\n"
                          "rope_scaling:\n  rope_type: yarn\n  factor: 4.0\n"
                          "learning_rate: 2e-5\npacking: False\nlora_r: 8\n"
                          "gradient_checkpointing: true\ndevice: \"cpu\" # said\n"),
                     TN_OK);
    const tn_settings *s = resolve(config);
    assert_int_equal(s->datasets, 2);
    assert_string_equal(s->dataset[0], "a.jsonl");
    assert_string_equal(s->target_modules, "q_proj,v_proj");
    assert_string_equal(tn_json_string(tn_json_get(s->rope_scaling, "rope_type"), ""), "yarn");
    assert_true(s->learning_rate == 2e-5 && !s->packing && s->lora_r == 8);
    assert_string_equal(s->gradient_checkpointing, "full");
    assert_string_equal(s->device, "cpu");
    tn_config_free(config);
}

static void a_broken_file_is_a_usage_error(void **state) {
    static const char *const broken[] = {"a: [1, 2",          "- 1\n- 2\n",     "just words",
                                         "model: {a: b}",     "lora_r: [1, 2]", "lora_r:\n",
                                         "lerning_rate: 1\n", "dataset: [[a]]", "packing: 1\n"};
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        tn_config *config = new_config("train");
        if (load(config, broken[i]) != TN_USAGE) fail_msg("'%s' passed", broken[i]);
        assert_message("/tmp/tenon-config-");
        tn_config_free(config);
    }
    tn_config *config = new_config("train");
    assert_int_equal(tn_config_load(config, "/nonexistent/x.yaml"), TN_USAGE);
    assert_int_equal(load(config, ""), TN_OK);
    tn_config_free(config);
}

static void contradictions_are_refused(void **state) {
    static const char *const pairs[][4] = {{"load_in_4bit", "true", "load_in_8bit", "true"},
                                           {"load_in_fp8", "true", "load_in_4bit", "true"},
                                           {"full_finetuning", "true", "load_in_4bit", "true"},
                                           {"full_finetuning", "true", "lora_r", "8"},
                                           {"eval_dataset", "e.jsonl", "eval_split", "0.1"},
                                           {"eval_steps", "10", "seed", "1"},
                                           {"lr_scheduler_type", "cosine_with_min_lr", "seed", "1"},
                                           {"min_lr", "1e-5", "lr_scheduler_type", "linear"},
                                           {"momentum", "0.9", "optim", "lion"}};
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        tn_config *config = training();
        const tn_settings *settings;
        set(config, pairs[i][0], pairs[i][1]);
        set(config, pairs[i][2], pairs[i][3]);
        if (tn_config_resolve(config, &settings) != TN_USAGE)
            fail_msg("%s and %s passed", pairs[i][0], pairs[i][2]);
        tn_config_free(config);
    }
}

static void a_verb_names_the_key_it_needs(void **state) {
    static const char *const needs[][2] = {{"train", "model"}, {"eval", "model"},      {"verify", "adapter"},
                                           {"init", "model"},  {"generate", "prompt"}, {"data", "model"},
                                           {"merge", "model"}, {"export", "model"},    {"quantize", "model"}};
    (void)state;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        tn_config *config = new_config(needs[i][0]);
        const tn_settings *settings;
        assert_int_equal(tn_config_resolve(config, &settings), TN_USAGE);
        assert_message(needs[i][1]);
        tn_config_free(config);
    }
    tn_config *config = new_config("train");
    set(config, "model", "m");
    set(config, "dry_run", "true"); /* a plan needs no data and writes nothing */
    resolve(config);
    tn_config_free(config);
}

static void raw_text_trains_on_every_token_unless_asked(void **state) {
    (void)state;
    tn_config *config = training();
    set(config, "stage", "cpt");
    assert_false(resolve(config)->train_on_responses_only);
    set(config, "train_on_responses_only", "true");
    assert_true(resolve(config)->train_on_responses_only);
    tn_config_free(config);
}

static void what_was_used_reads_back_the_same(void **state) {
    (void)state;
    tn_config *config = training(), *again = new_config("train");
    set(config, "dataset", "a: b.jsonl,c.jsonl");
    set(config, "learning_rate", "3.0000000000000001e-5");
    set(config, "rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":4.0}");
    set(config, "memory_limit", "2GiB");
    set(config, "resume_from_checkpoint", "x\"y\\z");
    set(config, "threads", "3");
    assert_int_equal(tn_config_used(config, "device", "cpu"), TN_OK);
    tn_str yaml = {0}, json = {0}, json_again = {0};
    assert_int_equal(tn_config_write_yaml(config, &yaml), TN_OK);
    if (load(again, tn_str_text(&yaml)) != TN_OK) fail_msg("%s", tn_error_message());
    tn_json_writer w = tn_json_write_to(&json, 0), w_again = tn_json_write_to(&json_again, 0);
    tn_config_write_json(config, &w);
    tn_config_write_json(again, &w_again);
    assert_string_equal(tn_str_text(&json), tn_str_text(&json_again));
    assert_non_null(strstr(tn_str_text(&yaml), "device: \"cpu\"\n"));
    assert_string_equal(tn_config_get(config, "device"), "auto");
    assert_true(resolve(again)->learning_rate == 3e-5);
    tn_str_free(&yaml);
    tn_str_free(&json);
    tn_str_free(&json_again);
    tn_config_free(config);
    tn_config_free(again);
}

static void every_row_of_the_table_is_whole(void **state) {
    tn_key_info info;
    (void)state;
    for (int v = 0; v < tn_config_verb_count; v++) {
        tn_config *config = new_config(tn_config_verbs[v]);
        int64_t rows = 0;
        for (; tn_config_key(tn_config_verbs[v], rows, &info); rows++) {
            assert_true(*info.name && *info.kind && *info.help && info.aliases && info.default_value);
            assert_non_null(tn_config_get(config, info.name));
        }
        assert_true(rows >= 2);
        tn_config_free(config);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_product),
        cmocka_unit_test(every_alias_is_accepted),
        cmocka_unit_test(names_of_optimizers_and_schedules_are_those_of_other_programs),
        cmocka_unit_test(files_of_other_programs_are_read_or_refused_by_name),
        cmocka_unit_test(keys_of_other_programs_become_ours),
        cmocka_unit_test(what_is_not_ours_is_said),
        cmocka_unit_test(coming_from_is_what_the_tables_say),
        cmocka_unit_test(an_unknown_key_names_the_nearest_and_the_verbs),
        cmocka_unit_test(a_bad_value_names_key_value_and_form),
        cmocka_unit_test(values_are_read_by_their_kind),
        cmocka_unit_test(a_prompt_is_taken_to_the_letter),
        cmocka_unit_test(flag_beats_file_beats_adapter_beats_checkpoint_beats_default),
        cmocka_unit_test(an_explicit_none_beats_the_file),
        cmocka_unit_test(two_spellings_of_a_key_must_agree),
        cmocka_unit_test(yaml_may_use_its_own_lists_and_maps),
        cmocka_unit_test(a_broken_file_is_a_usage_error),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(a_verb_names_the_key_it_needs),
        cmocka_unit_test(raw_text_trains_on_every_token_unless_asked),
        cmocka_unit_test(what_was_used_reads_back_the_same),
        cmocka_unit_test(every_row_of_the_table_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
