/* config_table.c: every key of every verb, one row each: name, aliases, kind, which verbs know it, default,
 * help. Flags, YAML, aliases, help texts and config.resolved.yaml all come from here; the order is that of
 * help.
 */
#include "train/config_table.h"

#include <stddef.h>

const char *const tn_config_verbs[] = {"train",    "plan", "bench",    "data",    "eval",
                                       "generate", "chat", "tokenize", "inspect", "verify",
                                       "init",     "env",  "merge",    "export",  "quantize"};
const int tn_config_verb_count = sizeof tn_config_verbs / sizeof *tn_config_verbs;

enum {
    TRAIN = 1 << 0,
    PLAN = 1 << 1,
    BENCH = 1 << 2,
    DATA = 1 << 3,
    EVAL = 1 << 4,
    GENERATE = 1 << 5,
    CHAT = 1 << 6,
    TOKENIZE = 1 << 7,
    INSPECT = 1 << 8,
    VERIFY = 1 << 9,
    INIT = 1 << 10,
    ENV = 1 << 11,
    MERGE = 1 << 12,
    EXPORT = 1 << 13,
    QUANTIZE = 1 << 14,
    ALL = -1,                               /* of any verb */
    TRAINING = TRAIN | PLAN | BENCH | DATA, /* data shows what train would see, so it takes train's file */
    LOADING = TRAINING | EVAL | GENERATE | CHAT | MERGE | EXPORT,
    SAMPLING = GENERATE | CHAT,
};

#define ROW(key, aliases, field, kind, range, verbs, standard, words, help) \
    { key, aliases, offsetof(tn_settings, field), 0, TN_KEY_##kind, TN_##range, verbs, standard, words, help }
#define PATHS(key, aliases, field, count, verbs, help)                                                         \
    {                                                                                                          \
        key, aliases, offsetof(tn_settings, field), offsetof(tn_settings, count), TN_KEY_PATHS, TN_ANY, verbs, \
            "", NULL, help                                                                                     \
    }

/* clang-format off */
const tn_key tn_config_keys[] = {
    /* model */
    ROW("model", "model_name_or_path,base_model,model_name", model, PATH, ANY,
        LOADING | TOKENIZE | INSPECT | VERIFY | INIT | QUANTIZE, "", NULL,
        "the base: a Hugging Face model directory or a GGUF file; plan, bench and init also take a "
        "config.json or a shape's name"),
    ROW("adapter", "adapter_name_or_path,lora_model_dir", adapter, PATH, ANY, LOADING | VERIFY, "", NULL,
        "directory of a PEFT adapter; train continues it"),
    ROW("max_length", "max_seq_length,cutoff_len,sequence_len", max_length, INTEGER, AT_LEAST_ONE, LOADING,
        "2048", NULL,
        "longest record, and the length of a packed row, in tokens"),
    ROW("rope_scaling", "", rope_scaling, MAP, ANY, LOADING, "", NULL,
        "stretches the context, e.g. '{\"rope_type\":\"yarn\",\"factor\":4}'; none = as in the model's "
        "config, else the adapter's"),
    ROW("load_in_4bit", "", load_in_4bit, BOOLEAN, ANY, LOADING, "false", NULL,
        "hold the base's linear layers in NF4 with double quantisation (QLoRA)"),
    ROW("load_in_8bit", "", load_in_8bit, BOOLEAN, ANY, LOADING, "false", NULL,
        "hold the base's linear layers in 8-bit integers with a scale a row (LLM.int8)"),
    ROW("load_in_fp8", "", load_in_fp8, BOOLEAN, ANY, LOADING, "false", NULL,
        "hold the base's linear layers in FP8 with a scale a row, and multiply in FP8 on GPUs that can (Hopper)"),
    ROW("dtype", "torch_dtype", dtype, CHOICE, ANY, LOADING | INIT, "auto",
        "auto,float32,bfloat16,float16,fp32=float32,bf16=bfloat16,fp16=float16",
        "float32, bfloat16 or float16: what plain base weights are held in and the base computes in; LoRA, "
        "optimizer and loss stay fp32"),
    ROW("device", "", device, CHOICE, ANY, LOADING | ENV, "auto", "auto,cpu,cuda,cuda:N",
        "cpu, cuda or cuda:N; auto falls back to the CPU and says so"),
    ROW("threads", "", threads, INTEGER, THREADS, ALL, "auto", "auto=0",
        "CPU threads; auto = OMP_NUM_THREADS, else all cores; a resumed run keeps its number"),
    ROW("processes", "gpus,num_processes,nproc_per_node", processes, INTEGER, AT_LEAST_ONE, TRAINING, "", NULL,
        "train with so many processes on this machine, one a GPU (on the CPU: threads shared out); a step's micro-batches are "
        "dealt out over them; torchrun, mpirun and Slurm start them too"),
    ROW("memory_limit", "", memory_limit, SIZE, ANY, LOADING, "", NULL, "device memory the plan may use; of several processes each"),

    /* data */
    PATHS("dataset", "dataset_name,data,train_file", dataset, datasets, TRAINING | EVAL | TOKENIZE,
          "one or more files: .jsonl, .json, .csv, .txt (one record; stage cpt cuts it into pieces of max_length); or names "
          "in dataset_dir's dataset_info.json"),
    ROW("dataset_dir", "", dataset_dir, PATH, ANY, TRAINING | EVAL, "data", NULL,
        "folder of LLaMA-Factory's dataset_info.json, for a dataset that is no file"),
    ROW("max_samples", "", max_samples, INTEGER, AT_LEAST_ONE, TRAINING | EVAL, "", NULL,
        "take only so many records of each file, the first ones"),
    ROW("dataset_format", "", dataset_format, CHOICE, ANY, TRAINING | EVAL, "",
        "messages,conversations,alpaca,alpaca_prompt,prompt_completion,question_answer,text,input_ids,"
        "openai=messages,sharegpt=conversations,"
        "instruction/input/output=alpaca,prompt/completion=prompt_completion,question/answer=question_answer",
        "shape of the records: messages, conversations, alpaca, alpaca_prompt (alpaca in its own wording, no chat), "
        "prompt_completion, question_answer, text or input_ids; none = found by looking"),
    ROW("chat_template", "template,chat_template_path,chat_template_jinja", chat_template, TEXT, ANY, LOADING, "", NULL,
        "a .jinja file, a folder that has one, or the template itself, instead of the tokenizer's; a template's name "
        "(llama3, chatml) checks that the tokenizer's is of that kind"),
    PATHS("eval_dataset", "", eval_dataset, eval_datasets, TRAINING, "files to evaluate on while training"),
    ROW("eval_split", "val_set_size,val_size", eval_split, REAL, POSITIVE, TRAINING, "", NULL,
        "or: the part of the dataset kept back for evaluation, e.g. 0.05, or how many records, e.g. 200"),
    ROW("stage", "", stage, CHOICE, ANY, TRAINING | EVAL, "sft", "sft,cpt,pt=cpt",
        "sft = instruction tuning, cpt = continued pre-training on raw text"),
    ROW("packing", "sample_packing", packing, BOOLEAN, ANY, TRAINING | EVAL, "true", NULL,
        "fill rows with several records, without attention across them"),
    ROW("train_on_responses_only", "assistant_only_loss,completion_only_loss,train_on_completions", train_on_responses_only,
        BOOLEAN, ANY, TRAINING | EVAL, "true", NULL,
        "loss on the assistant's tokens only (cpt: false)"),
    ROW("template_date", "", template_date, TEXT, ANY, TRAINING | EVAL, "today", NULL,
        "the day that chat templates are told, like 2026-11-26; a resumed run keeps the day it began on"),
    ROW("shuffle", "", shuffle, BOOLEAN, ANY, TRAINING, "true", NULL, "false = the order of the file"),
    ROW("seed", "random_state,random_seed", seed, INTEGER, NOT_NEGATIVE, TRAINING | SAMPLING | INIT, "3407", NULL,
        "of every random number"),

    /* adapter */
    ROW("lora_r", "r,lora_rank", lora_r, INTEGER, TO_A_MILLION, TRAINING, "16", NULL,
        "rank of the LoRA matrices"),
    ROW("lora_alpha", "", lora_alpha, REAL, POSITIVE, TRAINING, "32", NULL, "LoRA is scaled by alpha / r"),
    ROW("lora_dropout", "", lora_dropout, REAL, UNIT_OPEN_TOP, TRAINING, "0", NULL,
        "dropout in front of LoRA's A"),
    ROW("target_modules", "lora_target_modules", target_modules, LIST, ANY, TRAINING, "all-linear", NULL,
        "which linear modules get LoRA: all-linear, attention, mlp, language (of a model that sees), a list of names "
        "or a regular expression"),
    ROW("exclude_modules", "", exclude_modules, LIST, ANY, TRAINING, "", NULL,
        "modules left out of target_modules"),
    ROW("modules_to_save", "additional_target,lora_modules_to_save", modules_to_save, LIST, ANY, TRAINING, "", NULL,
        "modules trained in full, e.g. embed_tokens,lm_head"),
    ROW("use_rslora", "peft_use_rslora", use_rslora, BOOLEAN, ANY, TRAINING, "false", NULL, "scale by alpha / sqrt(r)"),
    ROW("use_dora", "peft_use_dora", use_dora, BOOLEAN, ANY, TRAINING, "false", NULL, "weight-decomposed LoRA: the lengths of the rows train apart from their directions"),
    ROW("init_lora_weights", "", init_lora_weights, CHOICE, ANY, TRAINING, "true",
        "true,gaussian,pissa,olora,loftq", "how A and B start: true or gaussian; pissa, olora and loftq are not in this version"),
    ROW("bias", "", bias, CHOICE, ANY, TRAINING, "none", "none,all,lora_only", "none: the biases of the base do not train"),
    ROW("layers_to_transform", "", layers_to_transform, LIST, ANY, TRAINING, "", NULL,
        "numbers of the layers that get LoRA; none = all"),
    ROW("layers_pattern", "", layers_pattern, LIST, ANY, TRAINING, "", NULL,
        "name of the list of layers, as in PEFT"),
    ROW("rank_pattern", "", rank_pattern, MAP, ANY, TRAINING, "", NULL,
        "ranks of single modules: a map from pattern to r"),
    ROW("alpha_pattern", "", alpha_pattern, MAP, ANY, TRAINING, "", NULL,
        "alphas of single modules: a map from pattern to alpha"),
    ROW("trainable_token_indices", "", trainable_token_indices, LIST, ANY, TRAINING, "", NULL,
        "tokens whose rows of the embedding train (of a tied model, the head's too); or by module: "
        "'{\"embed_tokens\":[…],\"lm_head\":[…]}'"),
    ROW("full_finetuning", "", full_finetuning, BOOLEAN, ANY, TRAINING, "false", NULL,
        "train every weight instead of LoRA"),
    ROW("override", "", override_settings, MAP, ANY, TRAINING, "", NULL,
        "settings of a continued adapter that are changed on purpose, e.g. lora_alpha=16"),

    /* optimisation */
    ROW("learning_rate", "lr", learning_rate, REAL, NOT_NEGATIVE, TRAINING, "2e-4", NULL,
        "highest rate, for LoRA"),
    ROW("embedding_learning_rate", "embedding_lr", embedding_learning_rate, REAL, NOT_NEGATIVE, TRAINING, "",
        NULL,
        "for embed_tokens and lm_head; none = learning_rate / 10"),
    ROW("optim", "optimizer", optim, CHOICE, ANY, TRAINING, "adamw",
        "adamw,adamw_8bit,paged_adamw_8bit,sgd,lion,"
        "adamw_torch=adamw,adamw_torch_fused=adamw,paged_adamw=adamw,paged_adamw_32bit=adamw,"
        "adamw_bnb_8bit=adamw_8bit,lion_32bit=lion,paged_lion_32bit=lion",
        "adamw (or adamw_torch, adamw_torch_fused), sgd or lion; adamw_8bit keeps its state in 8 bits, as bitsandbytes does"),
    ROW("weight_decay", "", weight_decay, REAL, NOT_NEGATIVE, TRAINING, "0", NULL,
        "on all that trains but biases and norms"),
    ROW("adam_beta1", "", adam_beta1, REAL, UNIT_OPEN_TOP, TRAINING, "0.9", NULL,
        "decay of the mean of gradients"),
    ROW("adam_beta2", "", adam_beta2, REAL, UNIT_OPEN_TOP, TRAINING, "0.999", NULL,
        "decay of the mean of their squares"),
    ROW("adam_epsilon", "", adam_epsilon, REAL, NOT_NEGATIVE, TRAINING, "1e-8", NULL,
        "added to the root of the squares"),
    ROW("momentum", "", momentum, REAL, UNIT_OPEN_TOP, TRAINING, "0", NULL,
        "of sgd: how much of the last update stays in the next; 0 = plain SGD"),
    ROW("max_grad_norm", "", max_grad_norm, REAL, NOT_NEGATIVE, TRAINING, "1.0", NULL,
        "gradients are clipped to this norm; 0 = never"),
    ROW("lr_scheduler_type", "lr_scheduler", lr_scheduler_type, CHOICE, ANY, TRAINING, "cosine",
        "cosine,linear,constant,constant_with_warmup,cosine_with_min_lr",
        "how the rate falls: cosine, linear, constant, constant_with_warmup or cosine_with_min_lr"),
    ROW("min_lr", "", min_lr, REAL, NOT_NEGATIVE, TRAINING, "", NULL, "where cosine_with_min_lr ends"),
    ROW("min_lr_rate", "", min_lr_rate, REAL, UNIT, TRAINING, "", NULL, "or: as a part of learning_rate"),
    ROW("warmup_ratio", "", warmup_ratio, REAL, UNIT, TRAINING, "0.03", NULL,
        "part of the steps in which the rate rises"),
    ROW("warmup_steps", "", warmup_steps, INTEGER, NOT_NEGATIVE, TRAINING, "", NULL,
        "or their number, which wins over the ratio"),
    ROW("per_device_train_batch_size", "batch_size,micro_batch_size,per_device_batch_size", per_device_train_batch_size, INTEGER,
        TO_A_MILLION, TRAINING, "2", NULL,
        "rows in a micro-batch"),
    ROW("per_device_eval_batch_size", "eval_batch_size", per_device_eval_batch_size, INTEGER, TO_A_MILLION, TRAINING | EVAL,
        "", NULL,
        "rows at a time in evaluation; none = as in training"),
    ROW("gradient_accumulation_steps", "", gradient_accumulation_steps, INTEGER, TO_A_MILLION, TRAINING, "4",
        NULL, "micro-batches in an optimizer step"),
    ROW("num_train_epochs", "num_epochs", num_train_epochs, REAL, EPOCHS, TRAINING, "1", NULL, "times round the data"),
    ROW("max_steps", "", max_steps, INTEGER, AT_LEAST_ONE, TRAINING, "", NULL,
        "optimizer steps; wins over the epochs"),
    ROW("gradient_checkpointing", "use_gradient_checkpointing", gradient_checkpointing, CHOICE, ANY, TRAINING, "auto",
        "auto,none,selective,full,offload,true=full,false=none,unsloth=offload",
        "what is recomputed to save memory: none, selective, full (or true), or full with the layers' inputs in pinned "
        "host memory (offload, unsloth); auto = the fastest that fits"),

    /* run */
    ROW("output_dir", "", output_dir, PATH, ANY, TRAINING | INIT | MERGE | QUANTIZE, "", NULL, "where everything is written"),
    ROW("overwrite_output_dir", "", overwrite_output_dir, BOOLEAN, ANY, TRAINING, "false", NULL,
        "true removes the run that output_dir holds, once the new one is ready to start; a resumed run keeps it"),
    ROW("resume_from_checkpoint", "", resume_from_checkpoint, PATH, ANY, TRAINING, "", NULL,
        "a checkpoint's path, or auto = the last one in output_dir"),
    ROW("logging_steps", "log_frequency", logging_steps, INTEGER, AT_LEAST_ONE, TRAINING, "1", NULL,
        "a line in train_log.jsonl every so many steps"),
    ROW("eval_steps", "", eval_steps, INTEGER, AT_LEAST_ONE, TRAINING, "", NULL,
        "evaluate every so many steps; none = at the end"),
    ROW("evals_per_epoch", "", evals_per_epoch, INTEGER, AT_LEAST_ONE, TRAINING, "", NULL,
        "or: evaluate so many times in an epoch"),
    ROW("save_steps", "", save_steps, INTEGER, AT_LEAST_ONE, TRAINING, "500", NULL,
        "a checkpoint every so many steps, and at the end"),
    ROW("saves_per_epoch", "", saves_per_epoch, INTEGER, AT_LEAST_ONE, TRAINING, "", NULL,
        "or: so many checkpoints in an epoch"),
    ROW("save_total_limit", "", save_total_limit, INTEGER, TO_A_MILLION, TRAINING, "3", NULL,
        "checkpoints kept"),
    ROW("report_to", "", report_to, CHOICE, ANY, TRAINING, "jsonl", "jsonl,tensorboard",
        "tensorboard writes event files into output_dir/runs beside train_log.jsonl"),
    ROW("dry_run", "", dry_run, BOOLEAN, ANY, TRAINING, "false", NULL,
        "stop after the plan, as the verb plan does"),

    /* verbs */
    ROW("per_token", "", per_token, PATH, ANY, EVAL, "", NULL,
        "file that gets ids and log-probabilities, a JSON line for each record"),
    ROW("prompt", "", prompt, TEXT, ANY, GENERATE, "", NULL, "raw text to continue"),
    ROW("messages", "", messages, PATH, ANY, GENERATE, "", NULL,
        "file with a JSON list of messages, or a record with `messages`"),
    ROW("max_new_tokens", "", max_new_tokens, INTEGER, AT_LEAST_ONE, SAMPLING, "256", NULL,
        "stop after so many tokens"),
    ROW("temperature", "", temperature, REAL, NOT_NEGATIVE, SAMPLING, "0", NULL,
        "0 = greedy: always the likeliest token"),
    ROW("top_k", "", top_k, INTEGER, NOT_NEGATIVE, SAMPLING, "0", NULL,
        "sample among the k likeliest tokens; 0 = all"),
    ROW("top_p", "", top_p, REAL, UNIT_OPEN_ZERO, SAMPLING, "1", NULL,
        "sample among the likeliest tokens that make up this probability"),
    ROW("min_p", "", min_p, REAL, UNIT, SAMPLING, "0", NULL,
        "sample among the tokens that have at least this part of the likeliest one's probability; 0 = all"),
    ROW("repetition_penalty", "", repetition_penalty, REAL, POSITIVE, SAMPLING, "1", NULL,
        "above 1 makes tokens already there less likely"),
    ROW("add_special_tokens", "", add_special_tokens, BOOLEAN, ANY, TOKENIZE, "true", NULL,
        "what the tokenizer puts round a text; a rendered chat never gets more"),
    ROW("samples", "", samples, INTEGER, NOT_NEGATIVE, DATA, "3", NULL, "how many samples to show; 0 = all"),
    ROW("reference", "", reference, PATH, ANY, VERIFY, "", NULL,
        "an earlier adapter: show which tensors moved, and how far"),
    ROW("tokenizer", "", tokenizer, PATH, ANY, INIT, "", NULL, "directory to copy a tokenizer from"),
    ROW("base_for_merge", "", base_for_merge, PATH, ANY, MERGE, "", NULL,
        "the model whose weights the adapter is merged into, where it was trained on a quantised form of it; none = model"),
    ROW("to", "", to, CHOICE, ANY, EXPORT | QUANTIZE, "",
        "gguf,gguf:f32,gguf:f16,gguf:bf16,gguf:q8_0,gguf:q4_0,gguf:q4_k,gguf:q6_k,lora-gguf,nf4,int8",
        "gguf:TYPE, a whole model in f32, f16, bf16, q8_0, q4_0, q4_k or q6_k; of export also gguf, as the base is stored, and "
        "lora-gguf, the adapter alone; of quantize also nf4 and int8"),
    ROW("output", "", output, PATH, ANY, EXPORT, "", NULL, "the file to write"),
    ROW("steps", "", steps, INTEGER, AT_LEAST_ONE, BENCH, "10", NULL, "steps to time"),
    ROW("warmup", "", warmup, INTEGER, NOT_NEGATIVE, BENCH, "2", NULL, "steps before the clock starts"),
    ROW("labelled", "", labelled, REAL, UNIT_OPEN_ZERO, BENCH, "1", NULL,
        "part of the tokens that carry a label"),
    ROW("plot", "", plot, BOOLEAN, ANY, TRAINING, "", NULL,
        "draw the loss curve at the end; none = on a terminal"),
    ROW("json", "", json, BOOLEAN, ANY, ALL, "false", NULL,
        "one JSON document on stdout and nothing else there"),
};
/* clang-format on */
const int tn_config_key_count = sizeof tn_config_keys / sizeof *tn_config_keys;
