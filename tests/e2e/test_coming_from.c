/* test_coming_from.c: configuration files of the shape that LLaMA-Factory, axolotl, TRL and Unsloth publish
 * train two steps of the embedded model, and say what they read and what they ignored. $TENON names the
 * program.
 */
#include <sys/wait.h>

#include "base/json.h"
#include "testing.h"

static tn_str err;

/* Runs `tenon` with these words in the scratch folder, where models/islands is `islands`. */
static int tenon(const char *words) {
    tn_str command = {0};
    tn_str_printf(
        &command,
        "ln -sfn \"$PWD/models/islands\" '%s/islands'; cd '%s' && \"$TENON\" %s >out 2>err </dev/null",
        scratch(""), scratch(""), words);
    int status = system(tn_str_text(&command));
    tn_str_free(&command);
    tn_str_clear(&err);
    must(tn_read_file(scratch("err"), 1 << 22, &err));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void file(const char *name, const char *text) { write_scratch(name, text, (int64_t)strlen(text)); }

static void must_say(const char *part) {
    if (!strstr(tn_str_text(&err), part)) fail_msg("'%s' is not said: %s", part, tn_str_text(&err));
}

/* The value of a key in config.resolved.yaml. */
static void must_use(const char *directory, const char *line) {
    char name[256], wanted[256];
    tn_str text = {0};
    snprintf(name, sizeof name, "%s/config.resolved.yaml", directory);
    snprintf(wanted, sizeof wanted, "\n%s\n", line);
    must(tn_read_file(scratch(name), 1 << 20, &text));
    if (!strstr(tn_str_text(&text), wanted))
        fail_msg("%s: no line '%s' in %s", directory, line, tn_str_text(&text));
    tn_str_free(&text);
}

static int64_t lines_of(const char *name) {
    tn_str text = {0};
    int64_t lines = 0;
    must(tn_read_file(scratch(name), 1 << 20, &text));
    for (int64_t i = 0; i < text.length; i++) lines += text.data[i] == '\n';
    tn_str_free(&text);
    return lines;
}

static void must_train(const char *words) {
    if (tenon(words) != 0) fail_msg("%s: %s", words, tn_str_text(&err));
}

static void llama_factory(void **state) {
    (void)state;
    file("dataset_info.json",
         "{\"keepers\": {\"file_name\": \"alpaca.json\"}, \"far\": {\"hf_hub_url\": \"a/b\"}, "
         "\"odd\": {\"file_name\": \"alpaca.json\", \"columns\": {\"prompt\": \"question\"}}}");
    file(
        "factory.yaml",
        "### model\nmodel_name_or_path: islands\ntrust_remote_code: true\n### method\nstage: sft\ndo_train: "
        "true\n"
        "finetuning_type: lora\nlora_rank: 4\nlora_target: all\n### dataset\ndataset: keepers\ndataset_dir: .\n"
        "template: qwen3\ncutoff_len: 128\nmax_samples: 3\noverwrite_cache: true\npreprocessing_num_workers: "
        "16\n"
        "dataloader_num_workers: 4\n### output\noutput_dir: factory\nlogging_steps: 1\nsave_steps: "
        "500\nplot_loss: true\n"
        "overwrite_output_dir: true\nsave_only_model: false\nreport_to: none\n### train\n"
        "per_device_train_batch_size: 1\ngradient_accumulation_steps: 2\nlearning_rate: "
        "1.0e-4\nnum_train_epochs: 1.0\n"
        "lr_scheduler_type: cosine\nwarmup_ratio: 0.1\nbf16: true\nddp_timeout: "
        "180000000\nresume_from_checkpoint: null\n"
        "packing: false\n");
    for (int again = 0; again < 2;
         again++) { /* overwrite_output_dir: the second run takes the place of the first */
        must_train("train factory.yaml --device cpu");
        assert_int_equal(lines_of("factory/train_log.jsonl"), 2); /* 3 records in steps of 2 */
    }
    must_say("the run that factory held is removed");
    must_say("bf16 = dtype: bfloat16");
    must_say("lora_target = target_modules: all-linear");
    must_say("dataset: keepers is ./alpaca.json");
    must_say("chat_template qwen3: the tokenizer's own template is used");
    must_say("those of LLaMA-Factory would be");
    must_use("factory", "dtype: \"bfloat16\"");
    must_use("factory", "max_samples: 3");
    assert_int_equal(tenon("train factory.yaml --device cpu --dataset far"), 2);
    must_say("download it beforehand");
    assert_int_equal(tenon("train factory.yaml --device cpu --dataset odd"), 2);
    must_say("rename the column");
    assert_int_equal(tenon("train factory.yaml --device cpu --chat_template llama3"), 2);
    must_say("not known to be llama3");
    assert_int_equal(lines_of("factory/train_log.jsonl"), 2); /* what was refused removed nothing */
}

static void axolotl(void **state) {
    (void)state;
    file("axolotl.yml",
         "base_model: islands\nmodel_type: LlamaForCausalLM\ntokenizer_type: AutoTokenizer\nload_in_8bit: "
         "false\n"
         "load_in_4bit: false\nstrict: false\ndatasets:\n  - path: alpaca.json\n    type: alpaca\n"
         "dataset_prepared_path: last_run_prepared\nval_set_size: 0.25\noutput_dir: ./axolotl\nadapter: lora\n"
         "lora_model_dir:\nsequence_len: 128\nsample_packing: false\neval_sample_packing: "
         "true\npad_to_sequence_len: true\n"
         "lora_r: 4\nlora_alpha: 8\nlora_dropout: 0.05\nlora_target_linear: "
         "true\nlora_fan_in_fan_out:\nwandb_project:\n"
         "wandb_entity:\nwandb_watch:\nwandb_name:\nwandb_log_model:\ngradient_accumulation_steps: 1\n"
         "micro_batch_size: 1\nnum_epochs: 1\noptimizer: adamw_torch_fused\nlr_scheduler: cosine\n"
         "learning_rate: 0.0002\ntrain_on_inputs: false\ngroup_by_length: false\nbf16: auto\nfp16:\ntf32: "
         "false\n"
         "gradient_checkpointing: "
         "true\nearly_stopping_patience:\nresume_from_checkpoint:\nlocal_rank:\nlogging_steps: 1\n"
         "xformers_attention:\nflash_attention: true\nloss_watchdog_threshold: 5.0\nloss_watchdog_patience: 3\n"
         "warmup_steps: 1\nevals_per_epoch: 3\nsaves_per_epoch: 1\ndebug:\ndeepspeed:\nweight_decay: "
         "0.0\nfsdp:\n"
         "fsdp_config:\nspecial_tokens:\n  pad_token: \"<|end_of_text|>\"\n");
    must_train("train axolotl.yml --device cpu");
    must_say("ignored: loss_watchdog_threshold, loss_watchdog_patience (a run stops");
    must_say("flash_attention");
    must_say("checkpoint-3");
    assert_int_equal(lines_of("axolotl/train_log.jsonl"),
                     6); /* 3 steps of 4 records less 1, an evaluation behind each */
    must_use("axolotl", "dataset_format: \"alpaca_prompt\"");
    must_use("axolotl", "target_modules: \"all-linear\"");
    must_train("train axolotl.yml --device cpu --output_dir fp8 --load_in_fp8 true");
    must_say("base weights quantised to fp8, decoded for its products");
    must_train("train axolotl.yml --device cpu --output_dir qlora --load_in_4bit true");
    must_say("base weights quantised to nf4");
}

static void trl(void **state) {
    (void)state;
    file("trl.yaml",
         "model_name_or_path: islands\nmodel_revision: main\ntorch_dtype: float32\nattn_implementation: "
         "flash_attention_2\n"
         "use_peft: true\nlora_r: 4\nlora_alpha: 8\nlora_dropout: 0.05\nlora_task_type: CAUSAL_LM\n"
         "lora_target_modules:\n- q_proj\n- v_proj\ndataset_name: chats.jsonl\ndataset_train_split: train\n"
         "dataset_num_proc: 12\nassistant_only_loss: true\nbf16: false\ndo_eval: true\neval_strategy: 'no'\n"
         "gradient_accumulation_steps: 1\ngradient_checkpointing: true\ngradient_checkpointing_kwargs:\n"
         "  use_reentrant: false\nhub_model_id: sft\nhub_strategy: every_save\nlearning_rate: "
         "2.0e-04\nlog_level: info\n"
         "logging_steps: 1\nlogging_strategy: steps\nlr_scheduler_type: "
         "cosine_with_min_lr\nlr_scheduler_kwargs:\n"
         "  min_lr_rate: 0.1\nmax_length: 128\nmax_steps: -1\nnum_train_epochs: 1\noutput_dir: trl\n"
         "overwrite_output_dir: true\npacking: false\nper_device_eval_batch_size: "
         "8\nper_device_train_batch_size: 1\n"
         "push_to_hub: true\nreport_to:\n- wandb\nsave_strategy: steps\nsave_steps: 100\nsave_total_limit: "
         "1\nseed: 42\n"
         "warmup_ratio: 0.1\n");
    must_train("train trl.yaml --device cpu");
    must_say("(nothing leaves this machine; the losses are in train_log.jsonl)");
    assert_int_equal(lines_of("trl/train_log.jsonl"), 2);
    must_use("trl", "min_lr_rate: 0.1");
    must_use("trl", "target_modules: \"q_proj,v_proj\"");
    assert_int_equal(tenon("train trl.yaml --device cpu --dataset_name stanfordnlp/imdb"), 2);
    must_say("dataset: stanfordnlp/imdb is no file");
    must_say("hf download --repo-type dataset stanfordnlp/imdb");
}

static void unsloth(void **state) {
    (void)state;
    file(
        "unsloth.yaml",
        "model: islands\ndata:\n  dataset: chats.jsonl\n  format_type: auto\ntraining:\n  training_type: lora\n"
        "  max_seq_length: 128\n  load_in_4bit: false\n  output_dir: unsloth\n  num_epochs: 1\n  "
        "learning_rate: 0.0002\n"
        "  batch_size: 1\n  gradient_accumulation_steps: 1\n  warmup_steps: 1\n  max_steps: 0\n  save_steps: "
        "0\n"
        "  weight_decay: 0.01\n  random_seed: 3407\n  packing: false\n  train_on_completions: true\n"
        "  gradient_checkpointing: \"unsloth\"\n  optim: adamw_torch\nlora:\n  lora_r: 4\n  lora_alpha: 16\n"
        "  lora_dropout: 0.0\n  target_modules: \"q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj\"\n"
        "  vision_all_linear: false\n  use_rslora: false\n  use_loftq: false\n  finetune_vision_layers: true\n"
        "  finetune_language_layers: true\n  finetune_attention_modules: true\n  finetune_mlp_modules: true\n"
        "logging:\n  enable_wandb: false\n  wandb_project: unsloth-training\n  enable_tensorboard: false\n"
        "  tensorboard_dir: runs\n");
    must_train("train unsloth.yaml --device cpu");
    assert_int_equal(lines_of("unsloth/train_log.jsonl"), 2);
    must_say("finetune_vision_layers (a vision tower stays frozen, where there is one)");
    must_say("which gives the same result");
    must_use("unsloth", "seed: 3407");
    assert_int_equal(tenon("train unsloth.yaml --device cpu --output_dir x --optim paged_adamw_8bit"), 0);
    must_say("paged_adamw_8bit is adamw_8bit here");
}

/* The file that trained is given to the verbs that go on with what came of it. */
static void the_file_of_a_run_serves_what_follows(void **state) {
    static const char *const runs[][2] = {{"factory.yaml", "factory"},
                                          {"axolotl.yml", "axolotl"},
                                          {"trl.yaml", "trl"},
                                          {"unsloth.yaml", "unsloth"}};
    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        char words[256];
        snprintf(words, sizeof words, "eval %s --device cpu --adapter %s", runs[i][0], runs[i][1]);
        must_train(words);
        must_say("(keys of train; what a run has made is given by --adapter");
        snprintf(words, sizeof words, "generate %s --device cpu --adapter %s --prompt Who --max_new_tokens 2",
                 runs[i][0], runs[i][1]);
        must_train(words);
        must_say("(keys of train; what a run has made");
        snprintf(words, sizeof words, "export %s --device cpu --adapter %s --to lora-gguf --output %s.gguf",
                 runs[i][0], runs[i][1], runs[i][1]);
        must_train(words);
        must_say("(keys of train; what a run has made");
        snprintf(words, sizeof words, "merge %s --device cpu --adapter %s", runs[i][0], runs[i][1]);
        assert_int_equal(tenon(words), 2); /* its output_dir is that of the run */
        must_say("is there already");
        snprintf(words, sizeof words, "merge %s --device cpu --adapter %s --output_dir %s-merged", runs[i][0],
                 runs[i][1], runs[i][1]);
        must_train(words);
    }
}

static int open_folder(void **state) {
    (void)state;
    file("alpaca.json",
         "[{\"instruction\":\"Who keeps it?\",\"input\":\"the lighthouse\",\"output\":\"Maren.\"},"
         "{\"instruction\":\"Where is it?\",\"input\":\"\",\"output\":\"On the skerry.\"},"
         "{\"instruction\":\"Who is Una?\",\"output\":\"A weaver.\"},"
         "{\"instruction\":\"Where does she live?\",\"output\":\"In Brinmouth.\"}]");
    file("chats.jsonl",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"Who keeps it?\"},"
         "{\"role\":\"assistant\",\"content\":\"Maren.\"}]}\n"
         "{\"messages\":[{\"role\":\"user\",\"content\":\"Where?\"},"
         "{\"role\":\"assistant\",\"content\":\"On the skerry.\"}]}\n");
    return 0;
}

static int close_folder(void **state) {
    (void)state;
    tn_str_free(&err);
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(llama_factory), cmocka_unit_test(axolotl),
                                       cmocka_unit_test(trl), cmocka_unit_test(unsloth),
                                       cmocka_unit_test(the_file_of_a_run_serves_what_follows)};
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
