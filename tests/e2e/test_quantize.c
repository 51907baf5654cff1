/* test_quantize.c: the verb `quantize`: what it writes is what load_in_4bit and load_in_8bit hold, to the bit,
 * with every other tensor as it was; an adapter is trained on either alike; and what cannot or must not be
 * quantised is refused before anything is there. */
#include <unistd.h>

#include "format/model_files.h"
#include "verbs.h"

static const char *const formats[][2] = {{"nf4", "load_in_4bit"}, {"int8", "load_in_8bit"}};

static tn_status quantize(const char *model, const char *to, const char *output) {
    tn_config *config;
    tn_doc *doc = NULL;
    must(tn_config_new("quantize", &config));
    must(tn_config_set(config, "model", model));
    must(tn_config_set(config, "output_dir", output));
    if (to) must(tn_config_set(config, "to", to));
    tn_status status = tn_quantize_model(config, NULL, &doc);
    if (status == TN_OK) assert_true(tn_doc_integer(doc, "bytes", 0) > 10000);
    tn_doc_free(doc);
    tn_config_free(config);
    return status;
}

static double loss_with(const char *model, const char *adapter, const char *data, const char *flag) {
    tn_doc *doc;
    must(run_verb("eval", tn_eval,
                  (const char *const[]){"model", model, "adapter", adapter, "dataset", data, "dtype", "float32",
                                        flag, "true", NULL},
                  &doc));
    const double loss = tn_doc_number(doc, "loss", NAN);
    tn_doc_free(doc);
    return loss;
}

/* Odd sizes and ties (llama_bias_tied), biases, two norms more (qwen3), fp16 and fp32 weights. */
static void a_quantised_model_is_what_loading_would_have_made(void **state) {
    static const char *const models[] = {"llama", "llama_bias_tied", "qwen2", "qwen3", "llama_fp16", NULL};
    (void)state;
    for (int i = 0; i < 6; i++)
        for (int f = 0; f < 2; f++) {
            const char *name = models[i] ? models[i] : "qwen2";
            char model[256], adapter[256], data[256], output[64];
            snprintf(model, sizeof model, GOLDEN "%s/model", name);
            if (!models[i]) snprintf(model, sizeof model, "%s", widened_model(name));
            snprintf(adapter, sizeof adapter, GOLDEN "%s/adapter", name);
            snprintf(data, sizeof data, GOLDEN "%s/train.jsonl", name);
            snprintf(output, sizeof output, "%s-%d", formats[f][0], i);
            char path[512];
            snprintf(path, sizeof path, "%s", scratch(output));
            must(quantize(model, formats[f][0], path));
            const double own = loss_of(path, adapter, data),
                         flagged = loss_with(path, adapter, data, formats[f][1]);
            const double loaded = loss_with(model, adapter, data, formats[f][1]);
            if (own != loaded || flagged != loaded)
                fail_msg("%s, %s: %.9f, with the flag too %.9f, loaded %.9f", name, formats[f][0], own, flagged,
                         loaded);
            assert_true(fabs(own - loss_of(model, adapter, data)) > 1e-7); /* something was quantised */
        }
}

static void other_tensors_keep_their_bytes(void **state) {
    (void)state;
    tn_model_files *before, *after;
    const char *path = scratch("kept");
    int64_t kept = 0;
    must(quantize(GOLDEN "qwen3/model", "nf4", path));
    must(tn_model_files_open(GOLDEN "qwen3/model", true, &before));
    must(tn_model_files_open(path, true, &after));
    assert_int_equal(tn_model_files_count(after), tn_model_files_count(before));
    for (int64_t i = 0; i < tn_model_files_count(before); i++) {
        const tn_tensor_info *a = tn_model_files_at(before, i), *b = tn_model_files_find(after, a->name);
        assert_non_null(b);
        assert_true(a->elements == b->elements && a->rank == b->rank);
        if (strstr(a->name, "_proj.weight")) {
            assert_int_equal(b->dtype, TN_DTYPE_NF4);
            continue;
        }
        assert_int_equal(b->dtype, a->dtype);
        must_match(b->data, a->data, a->bytes);
        kept++;
    }
    assert_true(kept > 10);
    tn_model_files_close(before);
    tn_model_files_close(after);
}

/* The directory holds the file that export writes, and an f16 file is quantised as a directory is. */
static void a_gguf_type_is_what_export_writes(void **state) {
    static const char islands[] = "models/islands";
    char exported[256], half[256], file[2][300], output[2][256];
    tn_doc *doc;
    (void)state;
    snprintf(exported, sizeof exported, "%s", scratch("q8_0.gguf"));
    snprintf(half, sizeof half, "%s", scratch("bf16.gguf"));
    must(VERB(export, &doc, "model", islands, "to", "gguf:q8_0", "output", exported));
    tn_doc_free(doc);
    must(VERB(export, &doc, "model", islands, "to", "gguf:bf16", "output", half));
    tn_doc_free(doc);
    for (int i = 0; i < 2; i++) {
        tn_config *config;
        snprintf(output[i], sizeof output[i], "%s-%d", scratch("as-gguf"), i);
        snprintf(file[i], sizeof file[i], "%s/model.gguf", output[i]);
        must(tn_config_new("quantize", &config));
        must(tn_config_set(config, "model", i ? half : islands));
        must(tn_config_set(config, "to", "gguf:q8_0"));
        must(tn_config_set(config, "output_dir", output[i]));
        must(tn_quantize_model(config, NULL, &doc));
        assert_string_equal(tn_doc_string(doc, "output", ""), file[i]);
        assert_int_equal(tn_doc_integer(doc, "bytes", 0), tn_file_size(file[i]));
        tn_doc_free(doc);
        tn_config_free(config);
    }
    tn_map a, b;
    must(tn_map_open(exported, &a));
    must(tn_map_open(file[0], &b));
    assert_int_equal(a.bytes, b.bytes);
    must_match(b.data, a.data, a.bytes);
    tn_map_close(&a);
    tn_map_close(&b);
    const char *data = "examples/data/islands_eval.jsonl";
    assert_true(loss_of(file[1], NULL, data) == loss_of(exported, NULL, data));
    must_fail(quantize(exported, "gguf:q4_0", scratch("twice")), TN_USAGE, "quantised already (q8_0)");
    must_fail(quantize(half, "nf4", scratch("twice")), TN_USAGE, "nf4 is made from a model directory");
}

/* Without a trace: neither the output nor what it is written in. */
static void must_leave_nothing(const char *output) {
    char temporary[600];
    snprintf(temporary, sizeof temporary, "%s.tmp-tenon", output);
    assert_int_equal(access(temporary, F_OK), -1);
    assert_int_equal(access(output, F_OK), -1);
}

static tn_status give_broken(void *user, int64_t declared, const void **bytes) {
    copying *c = user;
    must(give_widened(user, declared, bytes));
    if (strstr(c->tensors[declared]->name, "1.mlp.up_proj")) c->values[77] = NAN;
    return TN_OK;
}

static void what_cannot_be_quantised_is_refused(void **state) {
    (void)state;
    static copying c;
    char output[256], model[256];
    tn_safetensors *file;
    tn_safetensors_writer *writer;
    snprintf(output, sizeof output, "%s", scratch("refused"));
    must_fail(quantize(GOLDEN "llama/model", NULL, output), TN_USAGE, "needs to");
    must_fail(quantize(GOLDEN "llama/model", "lora-gguf", output), TN_USAGE, "does not write lora-gguf");
    must_fail(quantize(GOLDEN "llama/model", "gguf:q8_0", output), TN_USAGE, "has no tokenizer.json");
    must_fail(quantize(GOLDEN "bnb_nf4/model", "int8", output), TN_USAGE, "quantised already (nf4)");
    must_leave_nothing(output);
    snprintf(model, sizeof model, "%s", widened_model("llama"));
    must(tn_safetensors_open(GOLDEN "llama/model/model.safetensors", &file));
    must(tn_safetensors_writer_new(&writer));
    for (int64_t i = 0; i < tn_safetensors_count(file); i++) {
        const tn_tensor_info *t = c.tensors[i] = tn_safetensors_at(file, i);
        must(tn_safetensors_declare(writer, t->name, TN_DTYPE_F32, t->rank, t->shape));
    }
    must(tn_safetensors_write(writer, joined(model, "model.safetensors"), give_broken, &c));
    tn_safetensors_writer_free(writer);
    tn_safetensors_close(file);
    for (int f = 0; f < 2; f++)
        must_fail(quantize(model, formats[f][0], output), TN_BAD_DATA,
                  "layers.1.mlp.up_proj.weight: a value is not finite");
    must_leave_nothing(output);
    must(tn_make_directories(output));
    must(quantize(GOLDEN "llama/model", "nf4", output)); /* an empty directory is no output */
    must_fail(quantize(GOLDEN "llama/model", "nf4", output), TN_USAGE, "is there already");
}

static int clean_up(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_quantised_model_is_what_loading_would_have_made),
        cmocka_unit_test(other_tensors_keep_their_bytes),
        cmocka_unit_test(a_gguf_type_is_what_export_writes),
        cmocka_unit_test(what_cannot_be_quantised_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
