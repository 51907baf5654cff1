/* test_base_copy.c: the base's embedding or head inside an adapter file, as PEFT writes them where lm_head is a
 * target or the vocabulary was resized: what says the same as the base is no fault, what does not is told.
 */
#include <math.h>

#include "gguf_builder.h"
#include "model/adapter.h"
#include "quant/quant.h"
#include "testing.h"

enum { VOCAB = 6, HIDDEN = 32, COUNT = VOCAB * HIDDEN, MOST = 6 };

typedef struct tensor {
    const char *name;
    tn_dtype dtype;
    int64_t rows;
    const float *values; /* [rows, HIDDEN] */
} tensor;

static float values[COUNT], head[COUNT], wide[COUNT];

/* Values that bf16 holds (`values`, `head`), and that it does not (`wide`). */
static void fill(void) {
    for (int i = 0; i < COUNT; i++) {
        values[i] = (float)(i % 17 - 8) / 8;
        head[i] = (float)(i % 29 - 14) / 16;
        wide[i] = values[i] * (1 + (float)(i % 7) / 8192);
    }
}

typedef struct file_source {
    const tensor *tensors;
    char bytes[4 * 8 * HIDDEN];
} file_source;

static tn_status give(void *user, int64_t index, const void **bytes) {
    file_source *s = user;
    const tensor *t = &s->tensors[index];
    *bytes = s->bytes;
    return tn_quantize(t->dtype, t->values, t->rows * HIDDEN, s->bytes);
}

static const char *write_tensors(const char *name, const tensor *tensors, int count) {
    tn_safetensors_writer *writer;
    file_source source = {.tensors = tensors};
    const char *path = scratch(name);
    must(tn_safetensors_writer_new(&writer));
    for (int i = 0; i < count; i++) {
        const int64_t shape[2] = {tensors[i].rows, HIDDEN};
        must(tn_safetensors_declare(writer, tensors[i].name, tensors[i].dtype, 2, shape));
    }
    must(tn_safetensors_write(writer, path, give, &source));
    tn_safetensors_writer_free(writer);
    return path;
}

/* A base opened with what it holds of embedding and head, and an adapter on it that trains lm_head or, `full`,
 * the embedding as a whole. */
typedef struct bench {
    tn_arena arena;
    tn_model_files *files;
    tn_arch arch;
    tn_adapter *adapter;
    tn_accounting found;
    tn_safetensors *file;
} bench;

static void open_base(bench *b, const char *path, bool tied) {
    const tn_json *config;
    char text[256];
    snprintf(text, sizeof text,
             "{\"model_type\":\"llama\",\"hidden_size\":%d,\"num_attention_heads\":2,\"num_hidden_layers\":1,"
             "\"vocab_size\":%d,\"tie_word_embeddings\":%s}",
             HIDDEN, VOCAB, tied ? "true" : "false");
    write_scratch("config.json", text, (int64_t)strlen(text));
    must(tn_model_files_open(path, false, &b->files));
    must(tn_json_parse(&b->arena, text, (int64_t)strlen(text), TN_JSON_DEFAULT, "test", &config));
    must(tn_arch_read(&b->arena, config, NULL, "test", &b->arch));
}

static void open_adapter(bench *b, bool full) {
    tn_peft_config *config;
    must(tn_peft_config_new(&config));
    config->r = 2;
    must(tn_name_rule_parse(&config->arena, "lm_head", &config->target_modules));
    if (full) must(tn_name_rule_parse(&config->arena, "embed_tokens", &config->modules_to_save));
    must(tn_adapter_new(&b->arch, config, TN_DTYPE_BF16, "test", &b->adapter));
}

static bench in_directory(tn_dtype dtype, bool tied, bool full) {
    const tensor own[] = {{"model.embed_tokens.weight", dtype, VOCAB, dtype == TN_DTYPE_F32 ? wide : values},
                          {"lm_head.weight", dtype, VOCAB, head}};
    bench b = {0};
    fill();
    write_tensors("model.safetensors", own, tied ? 1 : 2);
    open_base(&b, scratch(""), tied);
    open_adapter(&b, full);
    return b;
}

/* Accounts for a file that holds these beside the adapter's own tensors. */
static void account_for(bench *b, const tensor *more, int count) {
    tensor all[MOST + 3];
    tn_base base = {&b->arch, b->files};
    int n = 0;
    /* A [2, HIDDEN] and B [VOCAB, 2] are not what is tested: B is left out and found missing. */
    all[n++] = (tensor){"base_model.model.lm_head.lora_A.weight", TN_DTYPE_F32, 2, values};
    for (int i = 0; i < count; i++) all[n++] = more[i];
    tn_safetensors_close(b->file);
    must(tn_safetensors_open(write_tensors("adapter_model.safetensors", all, n), &b->file));
    must(tn_adapter_account(b->adapter, &base, b->file, &b->arena, &b->found));
    assert_int_equal(b->found.nonfinite_count, 0);
}

static void close_bench(bench *b) {
    tn_safetensors_close(b->file);
    tn_adapter_free(b->adapter);
    tn_model_files_close(b->files);
    tn_arena_free(&b->arena);
}

/* Faults beside the B that is always missing. */
static int64_t faults(const bench *b) {
    return b->found.unexpected_count + b->found.mismatched_count + b->found.missing_count - 1;
}

#define HEAD_COPY "base_model.model.lm_head.base_layer.weight"
#define EMBED_COPY "base_model.model.model.embed_tokens.base_layer.weight"

static void the_bases_own_values_are_accepted_in_every_place(void **state) {
    static const char *const heads[] = {HEAD_COPY, "base_model.model.lm_head.weight",
                                        "base_model.model.lm_head.original_module.weight"};
    bench b = in_directory(TN_DTYPE_BF16, false, false);
    (void)state;
    for (int i = 0; i < 3; i++) {
        const tensor copies[] = {{heads[i], i == 1 ? TN_DTYPE_F32 : TN_DTYPE_BF16, VOCAB, head},
                                 {"base_model.model.model.embed_tokens.weight", TN_DTYPE_F16, VOCAB, values}};
        account_for(&b, copies, 2);
        assert_int_equal(faults(&b), 0);
        assert_int_equal(b.found.base_copies_count, 2);
    }
    /* the embedding under the head's name is not the head */
    account_for(&b, &(tensor){HEAD_COPY, TN_DTYPE_BF16, VOCAB, values}, 1);
    assert_int_equal(b.found.mismatched_count, 1);
    close_bench(&b);
}

static void a_tied_head_is_the_embedding(void **state) {
    bench b = in_directory(TN_DTYPE_BF16, true, false);
    (void)state;
    account_for(&b, &(tensor){HEAD_COPY, TN_DTYPE_F32, VOCAB, values}, 1);
    assert_int_equal(faults(&b), 0);
    account_for(&b, &(tensor){HEAD_COPY, TN_DTYPE_F32, VOCAB, head}, 1);
    assert_int_equal(b.found.mismatched_count, 1);
    close_bench(&b);
}

static void another_value_is_told(void **state) {
    bench b = in_directory(TN_DTYPE_BF16, false, false);
    (void)state;
    float changed[COUNT];
    memcpy(changed, head, sizeof changed);
    changed[COUNT - 1] += 1.0f / 16; /* one value, one step of bf16 away */
    account_for(&b, &(tensor){HEAD_COPY, TN_DTYPE_BF16, VOCAB, changed}, 1);
    assert_int_equal(b.found.mismatched_count, 1);
    assert_int_equal(b.found.other_base, 1);
    assert_non_null(
        strstr(b.found.mismatched[0], HEAD_COPY ": 1 of 192 values are not those of lm_head.weight"));
    /* under the name of a module that trains in full nothing explains it */
    account_for(&b, &(tensor){"base_model.model.lm_head.weight", TN_DTYPE_BF16, VOCAB, changed}, 1);
    assert_int_equal(b.found.unexpected_count, 1);
    assert_string_equal(b.found.unexpected[0], "base_model.model.lm_head.weight");
    changed[3] = (float)NAN;
    account_for(&b, &(tensor){HEAD_COPY, TN_DTYPE_F32, VOCAB, changed}, 1);
    assert_non_null(strstr(b.found.mismatched[0], "2 of 192"));
    close_bench(&b);
}

static void another_vocabulary_is_told(void **state) {
    bench b = in_directory(TN_DTYPE_BF16, false, true);
    (void)state;
    const tensor grown[] = {{HEAD_COPY, TN_DTYPE_BF16, VOCAB - 1, head},
                            {"base_model.model.model.embed_tokens.weight", TN_DTYPE_BF16, VOCAB - 1, values}};
    account_for(&b, grown, 2);
    assert_int_equal(b.found.mismatched_count, 2);
    assert_int_equal(b.found.other_rows, VOCAB - 1);
    account_for(&b, grown + 1, 1); /* a parameter by its name, of another vocabulary by its shape */
    assert_int_equal(b.found.mismatched_count, 1);
    assert_int_equal(b.found.other_rows, VOCAB - 1);
    close_bench(&b);
}

/* PEFT held the base in another dtype than its file, or than ours. */
static void rounding_between_dtypes_is_no_difference(void **state) {
    bench narrow = in_directory(TN_DTYPE_BF16, false, false),
          precise = in_directory(TN_DTYPE_F32, false, false);
    (void)state;
    account_for(&narrow, &(tensor){EMBED_COPY, TN_DTYPE_F32, VOCAB, wide}, 1);
    assert_int_equal(faults(&narrow), 0);
    account_for(&precise, &(tensor){EMBED_COPY, TN_DTYPE_BF16, VOCAB, wide}, 1);
    assert_int_equal(faults(&precise), 0);
    account_for(&precise, &(tensor){EMBED_COPY, TN_DTYPE_F32, VOCAB, wide}, 1);
    assert_int_equal(faults(&precise), 0);
    account_for(&precise, &(tensor){EMBED_COPY, TN_DTYPE_F32, VOCAB, values}, 1); /* fp32 against fp32 */
    assert_int_equal(precise.found.mismatched_count, 1);
    close_bench(&narrow);
    close_bench(&precise);
}

/* With embed_tokens in modules_to_save and save_embedding_layers PEFT writes it three times. */
static void a_module_written_twice_is_one(void **state) {
    bench b = in_directory(TN_DTYPE_BF16, false, true);
    (void)state;
    tensor three[] = {
        {"base_model.model.model.embed_tokens.weight", TN_DTYPE_F32, VOCAB, wide},
        {"base_model.model.model.embed_tokens.modules_to_save.weight", TN_DTYPE_F32, VOCAB, wide},
        {"base_model.model.model.embed_tokens.original_module.weight", TN_DTYPE_F32, VOCAB, values}};
    account_for(&b, three, 3);
    assert_int_equal(faults(&b), 0);
    assert_int_equal(b.found.base_copies_count, 2);
    three[1].values = head;
    account_for(&b, three, 3);
    assert_int_equal(b.found.unexpected_count, 1);
    close_bench(&b);
}

/* As in a model's state dictionary, the adapter's name and its wrapper included. */
static void other_spellings_of_a_module_are_read(void **state) {
    static const char *const names[] = {"base_model.model.model.embed_tokens.modules_to_save.default.weight",
                                        "base_model.model.model.embed_tokens.modules_to_save.weight",
                                        "base_model.model.model.embed_tokens.default.weight",
                                        "model.embed_tokens.weight"};
    bench b = in_directory(TN_DTYPE_BF16, false, true);
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const tensor one = {names[i], TN_DTYPE_F32, VOCAB, wide};
        account_for(&b, &one, 1);
        if (faults(&b) != 0 || b.found.base_copies_count != 0) fail_msg("%s is not read", names[i]);
    }
    const tensor other = {"base_model.model.model.embed_tokens.modules_to_save.defaults.weight", TN_DTYPE_F32,
                          VOCAB, wide};
    account_for(&b, &other, 1);
    assert_int_equal(b.found.unexpected_count, 1);
    close_bench(&b);
}

/* Rows that train, of a tied model, under both names: the same is no fault, another value is. */
static void tied_rows_written_twice_are_one(void **state) {
    static int64_t ids[] = {4, 1};
    tensor two[] = {
        {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", TN_DTYPE_F32, 2, wide},
        {"base_model.model.lm_head.token_adapter.trainable_tokens_delta", TN_DTYPE_F32, 2, wide}};
    bench b = in_directory(TN_DTYPE_BF16, true, false);
    tn_peft_config *config;
    (void)state;
    tn_adapter_free(b.adapter);
    must(tn_peft_config_new(&config));
    must(tn_name_rule_parse(&config->arena, "q_proj", &config->target_modules));
    config->embed_tokens = (tn_token_rule){ids, 2};
    must(tn_adapter_new(&b.arch, config, TN_DTYPE_BF16, "test", &b.adapter));
    account_for(&b, two, 2); /* account_for's own lora_A of lm_head is nobody's here */
    assert_int_equal(b.found.unexpected_count, 1);
    assert_int_equal(b.found.base_copies_count, 1);
    two[1].values = head;
    account_for(&b, two, 2);
    assert_int_equal(b.found.unexpected_count, 2);
    close_bench(&b);
}

static int warnings;

static void count_quantised(void *user, tn_log_level level, const char *line) {
    (void)user;
    if (level == TN_LOG_WARNING && strstr(line, HEAD_COPY) && strstr(line, "quantised here (q4_0")) warnings++;
}

/* A llama whose head is these q4_0 blocks and nothing else. */
static const char *write_gguf(const void *blocks, int64_t bytes) {
    static const char *const sizes[] = {"llama.embedding_length", "llama.feed_forward_length",
                                        "llama.block_count",      "llama.attention.head_count",
                                        "llama.context_length",   "llama.vocab_size"};
    static const uint32_t counts[] = {HIDDEN, HIDDEN, 1, 2, 16, VOCAB};
    const int64_t shape[2] = {HIDDEN, VOCAB};
    gguf_builder g = {0};
    tn_str file = {0};
    add_string(&g, "general.architecture", "llama");
    for (int i = 0; i < 6; i++) add_u32(&g, sizes[i], counts[i]);
    add_f32(&g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    add_tensor(&g, "output.weight", 2, shape, 2, blocks, bytes);
    build_gguf(&g, &file);
    const char *path = write_scratch("base.gguf", file.data, file.length);
    tn_str_free(&file);
    return path;
}

static void a_quantised_base_is_near_and_said(void **state) {
    unsigned char blocks[COUNT / 32 * 18];
    bench b = {0};
    (void)state;
    fill();
    must(tn_quantize(TN_DTYPE_Q4_0, head, COUNT, blocks));
    open_base(&b, write_gguf(blocks, sizeof blocks), false);
    open_adapter(&b, false);
    warnings = 0;
    tn_log_set(count_quantised, NULL);
    account_for(&b, &(tensor){HEAD_COPY, TN_DTYPE_F32, VOCAB, head}, 1);
    assert_int_equal(faults(&b), 0);
    assert_int_equal(warnings, 1);
    account_for(&b, &(tensor){HEAD_COPY, TN_DTYPE_F32, VOCAB, values}, 1); /* another matrix */
    assert_int_equal(b.found.mismatched_count, 1);
    tn_log_set(NULL, NULL);
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bases_own_values_are_accepted_in_every_place),
        cmocka_unit_test(a_tied_head_is_the_embedding),
        cmocka_unit_test(another_value_is_told),
        cmocka_unit_test(another_vocabulary_is_told),
        cmocka_unit_test(rounding_between_dtypes_is_no_difference),
        cmocka_unit_test(a_module_written_twice_is_one),
        cmocka_unit_test(other_spellings_of_a_module_are_read),
        cmocka_unit_test(tied_rows_written_twice_are_one),
        cmocka_unit_test(a_quantised_base_is_near_and_said),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_scratch();
    return failed;
}
