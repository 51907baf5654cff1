/* test_export.c: the verb `export`, read back by tenon itself: a GGUF file in f32 answers as base and adapter
 * do, in other formats nearly so; a file of the same formats keeps its bytes; the adapter alone is the same
 * adapter; what GGUF cannot say is refused. The `gguf` package reads the same files in
 * tests/parity/gguf_check.py. */
#include <sys/wait.h>
#include <unistd.h>

#include "format/gguf.h"
#include "verbs.h"

#define ISLANDS "models/islands"
#define ISLANDS_DATA "examples/data/islands_eval.jsonl"

static const char tokenizer[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":3,\"content\":\"<|end|>\",\"special\":true}],"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":"
    "true},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}";
static const char tokenizer_config[] = "{\"eos_token\":\"<|end|>\",\"chat_template\":\"{{ messages }}\"}";

static const char *golden(const char *name, const char *what) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], GOLDEN "%s/%s", name, what);
    return path;
}

/* A golden model in fp32 with a tokenizer. */
static const char *model_of(const char *name) {
    const char *directory = widened_model(name);
    must(tn_save_text(joined(directory, "tokenizer.json"), tokenizer, sizeof tokenizer - 1));
    must(tn_save_text(joined(directory, "tokenizer_config.json"), tokenizer_config,
                      sizeof tokenizer_config - 1));
    return directory;
}

static const char *fresh(void) {
    static int count;
    char name[32];
    snprintf(name, sizeof name, "out-%d.gguf", count++);
    return scratch(name);
}

static void export_to(const char *to, const char *model, const char *adapter, const char *out) {
    tn_doc *doc;
    must(VERB(export, &doc, "model", model, "to", to, "output", out, adapter ? "adapter" : NULL, adapter));
    assert_string_equal(tn_doc_string(doc, "output", ""), out);
    assert_int_equal(tn_doc_integer(doc, "bytes", 0), tn_file_size(out));
    tn_doc_free(doc);
}

static void must_be_near(double got, double want, double most, const char *what) {
    if (!(fabs(got - want) <= most)) fail_msg("%s: loss %.8f, not %.8f", what, got, want);
}

/* Families, biases, tied and untied heads, trained tables, and every kind of rope that GGUF has. */
static void a_file_in_f32_is_base_plus_adapter(void **state) {
    static const char *const models[] = {
        "granite",    "llama",          "llama_bias_tied",      "llama_embed_head",
        "llama_fp16", "llama_linear",   "llama_longrope",       "llama_partial",
        "qwen2",      "mistral_window", "llama_longrope_short", "qwen3",
        "qwen2_yarn"};
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const char *base = model_of(models[i]), *adapter = golden(models[i], "adapter"), *out = fresh();
        const char *data = golden(models[i], "train.jsonl");
        export_to("gguf:f32", base, adapter, out);
        must_be_near(loss_of(out, NULL, data), loss_of(base, adapter, data), 1e-6, models[i]);
        export_to("gguf:f32", base, NULL, scratch("bare.gguf"));
        must_be_near(loss_of(scratch("bare.gguf"), NULL, data), loss_of(base, NULL, data), 1e-6, models[i]);
        assert_int_equal(remove(scratch("bare.gguf")), 0);
    }
}

/* On a model that knows something, with its own tokenizer: as many tokens, and a loss beside the original's. */
static void other_formats_are_close(void **state) {
    static const struct {
        const char *to;
        double most;
        tn_dtype dtype;
    } formats[] = {{"gguf:bf16", 1e-2, TN_DTYPE_BF16}, {"gguf:f16", 1e-3, TN_DTYPE_F16},
                   {"gguf:q8_0", 2e-2, TN_DTYPE_Q8_0}, {"gguf:q6_k", 5e-2, TN_DTYPE_Q6_K},
                   {"gguf:q4_k", 0.5, TN_DTYPE_Q4_K},  {"gguf:q4_0", 0.5, TN_DTYPE_Q4_0}};
    const double want = loss_of(ISLANDS, NULL, ISLANDS_DATA);
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const char *out = fresh();
        tn_gguf *file;
        export_to(formats[i].to, ISLANDS, NULL, out);
        const double got = loss_of(out, NULL, ISLANDS_DATA);
        print_message("%s: %lld bytes, loss %.5f (%.5f)\n", formats[i].to, (long long)tn_file_size(out), got,
                      want);
        must_be_near(got, want, formats[i].most, formats[i].to);
        must(tn_gguf_open(out, &file));
        const tn_tensor_info *gate = tn_gguf_find(file, "blk.0.ffn_gate.weight");
        const bool whole = gate->shape[1] % tn_dtype_block(formats[i].dtype) == 0;
        assert_int_equal(gate->dtype, whole                               ? formats[i].dtype
                                      : formats[i].dtype == TN_DTYPE_Q4_K ? TN_DTYPE_Q5_0
                                                                          : TN_DTYPE_Q8_0);
        assert_int_equal(tn_gguf_find(file, "output_norm.weight")->dtype, TN_DTYPE_F32);
        tn_gguf_close(file);
    }
}

/* Rows of whole K blocks, in a model that knows nothing. */
static void blocks_of_256_are_what_they_are_called(void **state) {
    static const char config[] =
        "{\"model_type\":\"qwen2\",\"vocab_size\":96,\"hidden_size\":256,\"intermediate_size\":512,"
        "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"initializer_range\":0.1,"
        "\"max_position_embeddings\":64,\"tie_word_embeddings\":true}";
    static const struct {
        const char *to;
        tn_dtype dtype;
        double most;
    } formats[] = {{"gguf:q6_k", TN_DTYPE_Q6_K, 0.02}, {"gguf:q4_k", TN_DTYPE_Q4_K, 0.2}};
    const char *directory = scratch("wide"), *data = GOLDEN "qwen2/train.jsonl";
    tn_doc *doc;
    tn_config *init;
    (void)state;
    write_scratch("wide.json", config, sizeof config - 1);
    must(tn_config_new("init", &init));
    must(tn_config_set(init, "model", scratch("wide.json")));
    must(tn_config_set(init, "output_dir", directory));
    must(tn_init(init, &doc));
    tn_doc_free(doc);
    tn_config_free(init);
    must(tn_save_text(joined(directory, "tokenizer.json"), tokenizer, sizeof tokenizer - 1));
    const double want = loss_of(directory, NULL, data);
    for (size_t i = 0; i < 2; i++) {
        const char *out = fresh();
        tn_gguf *file;
        export_to(formats[i].to, directory, NULL, out);
        must(tn_gguf_open(out, &file));
        for (int64_t t = 0; t < tn_gguf_count(file); t++) {
            const tn_tensor_info *tensor = tn_gguf_at(file, t);
            assert_int_equal(tensor->dtype, tensor->rank == 2 ? formats[i].dtype : TN_DTYPE_F32);
        }
        tn_gguf_close(file);
        const double got = loss_of(out, NULL, data);
        print_message("%s: loss %.5f (%.5f)\n", formats[i].to, got, want);
        must_be_near(got, want, formats[i].most, formats[i].to);
        assert_true(got != want);
    }
}

static void tokenizer_and_template_go_along(void **state) {
    static const char *const texts[] = {
        "{\"text\":\"Who keeps the lighthouse on Gull Rock? 12 goats\\n\\n  !\"}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Where is it?\"}]}"};
    const char *out = fresh();
    tn_tokenizer *own, *written;
    (void)state;
    export_to("gguf", ISLANDS, NULL, out);
    must(tn_tokenizer_open(ISLANDS, &own));
    must(tn_tokenizer_open(out, &written));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        tn_doc *a, *b;
        must(tn_tokenize_record(own, texts[i], (int64_t)strlen(texts[i]), true, &a));
        must(tn_tokenize_record(written, texts[i], (int64_t)strlen(texts[i]), true, &b));
        assert_string_equal(tn_doc_text(b), tn_doc_text(a));
        tn_doc_free(a);
        tn_doc_free(b);
    }
    tn_tokenizer_free(own);
    tn_tokenizer_free(written);
}

/* SentencePiece's BPE: merges become scores, and readers make merges of them again. */
static void sentencepiece_comes_back(void **state) {
    static const char llama2[] =
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":1,\"content\":\"<s>\","
        "\"special\":true},{\"id\":11,\"content\":\"▁▁x\",\"special\":false}],"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"▁\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"}]},\"pre_tokenizer\":null,"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\","
        "\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"Sequence\":{\"id\":\"A\","
        "\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":0}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>"
        "\","
        "\"ids\":[1],\"tokens\":[\"<s>\"]}}},"
        "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,"
        "\"vocab\":{"
        "\"<unk>\":0,\"<s>\":1,\"<0x21>\":2,\"▁\":3,\"a\":4,\"b\":5,\"ba\":6,\"ab\":7,\"▁ab\":8,\"▁a\":9,"
        "\"aba\":10},"
        "\"merges\":[[\"b\",\"a\"],[\"a\",\"b\"],[\"▁\",\"ab\"],[\"▁\",\"a\"],[\"a\",\"ba\"],[\"ab\",\"a\"]]}}";
    static const char config[] = "{\"bos_token\":\"<s>\"}";
    static const char *const texts[] = {"ab ab", "aba ba!", "a b  x", " abab"};
    const char *base = model_of("llama"), *out = fresh();
    tn_tokenizer *own, *written;
    tn_gguf *file;
    (void)state;
    must(tn_save_text(joined(base, "tokenizer.json"), llama2, sizeof llama2 - 1));
    must(tn_save_text(joined(base, "tokenizer_config.json"), config, sizeof config - 1));
    export_to("gguf:f32", base, NULL, out);
    must(tn_tokenizer_open(base, &own));
    must(tn_tokenizer_open(out, &written));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        tn_doc *a, *b;
        char record[64];
        snprintf(record, sizeof record, "{\"text\":\"%s\"}", texts[i]);
        must(tn_tokenize_record(own, record, (int64_t)strlen(record), true, &a));
        must(tn_tokenize_record(written, record, (int64_t)strlen(record), true, &b));
        assert_string_equal(tn_doc_text(b), tn_doc_text(a));
        tn_doc_free(a);
        tn_doc_free(b);
    }
    tn_tokenizer_free(own);
    tn_tokenizer_free(written);
    must(tn_gguf_open(out, &file));
    static const int types[] = {2, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1, 4, 5};
    for (int i = 0; i < 13; i++)
        assert_int_equal(tn_json_integer(tn_json_at(tn_gguf_get(file, "tokenizer.ggml.token_type"), i), -1),
                         types[i]);
    assert_string_equal(tn_json_string(tn_json_at(tn_gguf_get(file, "tokenizer.ggml.tokens"), 11), ""), "  x");
    assert_true(tn_json_boolean(tn_gguf_get(file, "tokenizer.ggml.add_bos_token"), false));
    assert_true(tn_json_boolean(tn_gguf_get(file, "tokenizer.ggml.add_space_prefix"), false));
    tn_gguf_close(file);
}

/* The tokenizer says what ends a text; what else the model stops at ends a turn. */
static void both_ends_are_written(void **state) {
    static const char generation[] = "{\"eos_token_id\":[3,2]}";
    const char *base = model_of("llama"), *out = fresh();
    tn_gguf *file;
    (void)state;
    must(tn_save_text(joined(base, "generation_config.json"), generation, sizeof generation - 1));
    export_to("gguf", base, NULL, out);
    must(tn_gguf_open(out, &file));
    assert_int_equal(tn_json_integer(tn_gguf_get(file, "tokenizer.ggml.eos_token_id"), -1), 3);
    assert_int_equal(tn_json_integer(tn_gguf_get(file, "tokenizer.ggml.eot_token_id"), -1), 2);
    assert_null(tn_gguf_get(file, "tokenizer.ggml.bos_token_id"));
    assert_int_equal(tn_json_integer(tn_json_at(tn_gguf_get(file, "tokenizer.ggml.token_type"), 3), -1), 3);
    assert_string_equal(tn_json_string(tn_gguf_get(file, "tokenizer.chat_template"), ""), "{{ messages }}");
    tn_gguf_close(file);
}

static int warnings;
static void count_warnings(void *user, tn_log_level level, const char *line) {
    if (level == TN_LOG_WARNING && strstr(line, user)) warnings++;
}

static void an_unknown_pre_tokenizer_is_default_and_said(void **state) {
    static const char odd[] =
        "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{"
        "\"Regex\":"
        "\"[ab]\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":"
        "false,"
        "\"trim_offsets\":true,\"use_regex\":false}]},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[[\"a\",\"b\"]]}}";
    const char *base = model_of("qwen2"), *out = fresh();
    tn_gguf *file;
    (void)state;
    must(tn_save_text(joined(base, "tokenizer.json"), odd, sizeof odd - 1));
    warnings = 0;
    tn_log_set(count_warnings, "\"default\" is written");
    export_to("gguf:f16", base, NULL, out);
    tn_log_set(NULL, NULL);
    assert_int_equal(warnings, 1);
    must(tn_gguf_open(out, &file));
    assert_string_equal(tn_json_string(tn_gguf_get(file, "tokenizer.ggml.pre"), ""), "default");
    assert_int_equal(tn_gguf_get(file, "tokenizer.ggml.tokens")->count, 96); /* up to the embedding's rows */
    assert_string_equal(tn_json_string(tn_json_at(tn_gguf_get(file, "tokenizer.ggml.tokens"), 95), ""),
                        "[PAD95]");
    tn_gguf_close(file);
}

/* "." is called what it is, and what is no text has a name that is. */
static void a_file_says_what_model_it_is(void **state) {
    static const struct {
        const char *directory, *behind, *name;
    } models[] = {
        {"mine", "", "mine"}, {"mine", "/.", "mine"}, {"mine", "//", "mine"}, {"o\xff\xfe", "", "model"}};
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const char *out = fresh(), *base = scratch(models[i].directory);
        char path[512];
        tn_gguf *file;
        must(tn_make_directories(base));
        copy_file(golden("llama", "model/config.json"), joined(base, "config.json"));
        copy_file(golden("llama", "model/model.safetensors"), joined(base, "model.safetensors"));
        must(tn_save_text(joined(base, "tokenizer.json"), tokenizer, sizeof tokenizer - 1));
        snprintf(path, sizeof path, "%s%s", base, models[i].behind);
        export_to("gguf", path, NULL, out);
        must(tn_gguf_open(out, &file));
        assert_string_equal(tn_json_string(tn_gguf_get(file, "general.name"), ""), models[i].name);
        tn_gguf_close(file);
    }
}

/* Without a type every tensor keeps the format that the GGUF base has it in, and, untouched, its bytes. */
static void a_gguf_base_keeps_its_bytes(void **state) {
    const char *first = fresh(), *second = fresh();
    tn_gguf *a, *b;
    (void)state;
    export_to("gguf:q4_0", ISLANDS, NULL, first);
    export_to("gguf", first, NULL, second);
    must(tn_gguf_open(first, &a));
    must(tn_gguf_open(second, &b));
    assert_int_equal(tn_gguf_count(a), tn_gguf_count(b));
    for (int64_t i = 0; i < tn_gguf_count(a); i++) {
        const tn_tensor_info *t = tn_gguf_at(a, i), *u = tn_gguf_find(b, t->name);
        assert_non_null(u);
        assert_int_equal(t->dtype, u->dtype);
        assert_int_equal(t->bytes, u->bytes);
        must_match(u->data, t->data, t->bytes);
    }
    for (int64_t i = 0; i < tn_gguf_metadata(a)->count;
         i++) { /* and every key, the name of the file excepted */
        const tn_member *m = &tn_gguf_metadata(a)->members[i];
        tn_str x = {0}, y = {0};
        tn_json_writer w = tn_json_write_to(&x, 0), v = tn_json_write_to(&y, 0);
        if (strcmp(m->key, "general.name") == 0) continue;
        tn_json_put(&w, &m->value);
        tn_json_put(&v, tn_gguf_get(b, m->key));
        assert_string_equal(tn_str_text(&y), tn_str_text(&x));
        tn_str_free(&x);
        tn_str_free(&y);
    }
    tn_gguf_close(a);
    tn_gguf_close(b);
}

/* Blocks are decoded, q and k put back in order, llama.cpp's divisors said in Transformers' words. */
static void merging_into_a_gguf_gives_a_directory(void **state) {
    static const char *const models[] = {"llama", "qwen3", "llama_bias_tied"};
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const char *base = model_of(models[i]), *adapter = golden(models[i], "adapter");
        const char *data = golden(models[i], "train.jsonl"), *file = fresh(), *out = scratch(models[i]);
        char merged[300];
        tn_doc *doc;
        snprintf(merged, sizeof merged, "%s.merged", out);
        export_to("gguf:f32", base, NULL, file);
        must(VERB(merge, &doc, "model", file, "adapter", adapter, "output_dir", merged));
        assert_true(tn_doc_number(doc, "max_abs_logit_difference", NAN) < 2e-5);
        tn_doc_free(doc);
        must_be_near(loss_of(merged, NULL, data), loss_of(base, adapter, data), 1e-6, models[i]);
        assert_true(tn_is_file(joined(merged, "tokenizer.json")));
    }
    const char *blocks = fresh(), *merged = scratch("from-blocks");
    tn_safetensors *weights;
    tn_doc *doc;
    export_to("gguf:q8_0", model_of("llama"), NULL, blocks);
    must(VERB(merge, &doc, "model", blocks, "adapter", golden("llama", "adapter"), "output_dir", merged));
    assert_true(tn_doc_number(doc, "max_abs_logit_difference", NAN) < 0.05);
    tn_doc_free(doc);
    must(tn_safetensors_open(joined(merged, "model.safetensors"), &weights));
    assert_int_equal(tn_safetensors_find(weights, "lm_head.weight")->dtype, TN_DTYPE_BF16);
    tn_safetensors_close(weights);
}

/* Row of the base's order that llama.cpp has at `row`: pairs (i, i + half) lie side by side. */
static int64_t row_of(int64_t row, int64_t head_dim) {
    return row / head_dim * head_dim + row % 2 * (head_dim / 2) + row % head_dim / 2;
}

/* scale·B·A of the file is the difference that merging makes, with one alpha for rsLoRA and patterns. */
static void the_adapter_alone_is_the_same_adapter(void **state) {
    static const struct {
        const char *name;
        int64_t permuted_head_dim;
    } models[] = {{"llama_bias_tied", 6}, {"qwen2_yarn", 0}, {"llama", 8}};
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const char *base = model_of(models[i].name), *adapter = golden(models[i].name, "adapter"),
                   *out = fresh();
        char merged[300];
        tn_safetensors *before, *after;
        tn_gguf *file;
        tn_doc *doc;
        int64_t pairs = 0;
        snprintf(merged, sizeof merged, "%s.lora", base);
        must(VERB(merge, &doc, "model", base, "adapter", adapter, "output_dir", merged));
        tn_doc_free(doc);
        export_to("lora-gguf", base, adapter, out);
        must(tn_safetensors_open(joined(base, "model.safetensors"), &before));
        must(tn_safetensors_open(joined(merged, "model.safetensors"), &after));
        must(tn_gguf_open(out, &file));
        assert_string_equal(tn_json_string(tn_gguf_get(file, "general.type"), ""), "adapter");
        assert_string_equal(tn_json_string(tn_gguf_get(file, "adapter.type"), ""), "lora");
        const double alpha = tn_json_number(tn_gguf_get(file, "adapter.lora.alpha"), 0);
        for (int64_t l = 0; l < 2; l++) {
            static const char *const names[][2] = {
                {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
                {"attn_v", "self_attn.v_proj"},      {"ffn_down", "mlp.down_proj"},
                {"attn_output", "self_attn.o_proj"}, {"ffn_up", "mlp.up_proj"},
                {"ffn_gate", "mlp.gate_proj"}};
            for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
                char name[3][96];
                snprintf(name[0], 96, "blk.%lld.%s.weight.lora_a", (long long)l, names[n][0]);
                snprintf(name[1], 96, "blk.%lld.%s.weight.lora_b", (long long)l, names[n][0]);
                snprintf(name[2], 96, "model.layers.%lld.%s.weight", (long long)l, names[n][1]);
                const tn_tensor_info *a = tn_gguf_find(file, name[0]), *b = tn_gguf_find(file, name[1]);
                const tn_tensor_info *w = tn_safetensors_find(before, name[2]);
                const tn_tensor_info *v = tn_safetensors_find(after, name[2]);
                const float *old = w->data, *new = v->data;
                if (!a) continue;
                const bool permuted = models[i].permuted_head_dim && n < 2;
                for (int64_t row = 0; row < w->shape[0]; row++)
                    for (int64_t col = 0; col < w->shape[1]; col++) {
                        const int64_t r = a->shape[0],
                                      own = permuted ? row_of(row, models[i].permuted_head_dim) : row;
                        double sum = 0;
                        for (int64_t k = 0; k < r; k++)
                            sum += (double)((const float *)b->data)[row * r + k] *
                                   ((const float *)a->data)[k * w->shape[1] + col];
                        const int64_t at = own * w->shape[1] + col;
                        const double difference = (double)new[at] - old[at];
                        if (!(fabs(sum * alpha / (double)r - difference) < 1e-6))
                            fail_msg("%s: %s [%lld, %lld]", models[i].name, name[2], (long long)row,
                                     (long long)col);
                    }
                pairs++;
            }
        }
        assert_int_equal(tn_gguf_count(file), 2 * pairs);
        assert_true(pairs > 0);
        tn_safetensors_close(before);
        tn_safetensors_close(after);
        tn_gguf_close(file);
    }
}

static void must_refuse(const char *to, const char *model, const char *adapter, const char *part) {
    const char *out = fresh();
    tn_doc *doc;
    must_fail(VERB(export, &doc, "model", model, "to", to, "output", out, adapter ? "adapter" : NULL, adapter),
              TN_USAGE, part);
    assert_null(doc);
    assert_int_equal(access(out, F_OK), -1);
    assert_true(strlen(tn_error_remedy()) > 0);
}

static void what_gguf_cannot_say_is_refused(void **state) {
    static const char words[] = "{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0},\"unk_token\":\"a\"}}";
    static const char large[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":96},\"merges\":[]}}";
    (void)state;
    must_refuse("gguf:f32", model_of("seed_oss"), NULL, "seed_oss family are not written as GGUF");
    must_refuse("gguf:f32", model_of("llama_dynamic"), NULL, "dynamic rope cannot be said");
    must_refuse("gguf:f32", model_of("mistral_yarn_attention"), NULL, "yarn with other than its usual");
    must_refuse("gguf:f32", model_of("smollm3"), NULL, "which layers have no rope");
    must_refuse("gguf:f32", golden("llama", "model"), NULL, "has no tokenizer.json");
    must_refuse("lora-gguf", model_of("llama"), NULL, "no adapter is given");
    must_refuse("lora-gguf", model_of("llama_embed_head"), golden("llama_embed_head", "adapter"),
                "was trained in full");
    const char *base = model_of("llama"), *out = fresh();
    tn_doc *doc;
    must(tn_save_text(joined(base, "tokenizer.json"), words, sizeof words - 1));
    must_refuse("gguf:f32", base, NULL, "WordLevel cannot be written");
    must(tn_save_text(joined(base, "tokenizer.json"), large, sizeof large - 1));
    must_refuse("gguf:f32", base, NULL, "has id 96, and the model's embedding has 96 rows");
    must(tn_save_text(out, "mine", 4));
    must_fail(VERB(export, &doc, "model", model_of("llama"), "to", "gguf", "output", out), TN_USAGE,
              "there already");
    assert_int_equal(tn_file_size(out), 4);
}

static void what_float16_cannot_hold_is_named(void **state) {
    const char *base = model_of("llama"), *out = fresh();
    const float huge = 1e6f;
    uint64_t header;
    tn_doc *doc;
    (void)state;
    FILE *file = fopen(joined(base, "model.safetensors"), "r+b");
    assert_non_null(file);
    assert_int_equal(fread(&header, sizeof header, 1, file), 1);
    assert_int_equal(fseek(file, 8 + (long)header, SEEK_SET), 0); /* the first tensor's first value */
    assert_int_equal(fwrite(&huge, sizeof huge, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    must_fail(VERB(export, &doc, "model", base, "to", "gguf:f16", "output", out), TN_NUMERIC,
              "lm_head.weight: 1 values are beyond float16's range");
    assert_int_equal(access(out, F_OK), -1);
    must(VERB(export, &doc, "model", base, "to", "gguf:bf16", "output", out));
    tn_doc_free(doc);
}

/* A full disk, played by a limit on the size of a file. */
static void a_full_disk_leaves_nothing(void **state) {
    char command[1024];
    const char *out = fresh();
    (void)state;
    snprintf(
        command, sizeof command,
        "ulimit -f 16; OMP_NUM_THREADS=1 \"$TENON\" export --model %s --to gguf --output %s >%s 2>&1; code=$?; "
        "ls %s | grep -q tmp && exit 99; exit $code",
        model_of("llama"), out, scratch("log"), scratch(""));
    int status = system(command);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 6);
    assert_int_equal(access(out, F_OK), -1);
}

static int clean_up(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_in_f32_is_base_plus_adapter),
        cmocka_unit_test(other_formats_are_close),
        cmocka_unit_test(blocks_of_256_are_what_they_are_called),
        cmocka_unit_test(tokenizer_and_template_go_along),
        cmocka_unit_test(sentencepiece_comes_back),
        cmocka_unit_test(both_ends_are_written),
        cmocka_unit_test(an_unknown_pre_tokenizer_is_default_and_said),
        cmocka_unit_test(a_file_says_what_model_it_is),
        cmocka_unit_test(a_gguf_base_keeps_its_bytes),
        cmocka_unit_test(merging_into_a_gguf_gives_a_directory),
        cmocka_unit_test(the_adapter_alone_is_the_same_adapter),
        cmocka_unit_test(what_gguf_cannot_say_is_refused),
        cmocka_unit_test(what_float16_cannot_hold_is_named),
        cmocka_unit_test(a_full_disk_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
