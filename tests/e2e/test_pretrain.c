/* test_pretrain.c: a model from nothing, as somebody pre-trains one: a text, a tokenizer trained on it
 * (tools/), `init`, full fine-tuning on the .txt file. The plan says what it takes, the loss falls, a run taken
 * up again is bit for bit the whole one, what is saved is the model that was trained, and modules of an adapter
 * that train in full do as here. */
#include <math.h>

#include "base/file.h"
#include "format/safetensors.h"
#include "tenon/tenon.h"
#include "testing.h"

enum { STEPS = 60, HALF = 23, VOCAB = 400, HIDDEN = 32, INNER = 64, LAYERS = 2, HEADS = 4, KV_HEADS = 2 };
/* Embedding, head and last norm; q and o, k and v with their biases, gate|up|down and two norms of a layer. */
enum {
    PARAMETERS = 2 * VOCAB * HIDDEN + HIDDEN +
                 LAYERS * (2 * (HIDDEN + 1) * HIDDEN + 2 * (HIDDEN + 1) * HIDDEN * KV_HEADS / HEADS +
                           3 * HIDDEN * INNER + 2 * HIDDEN)
};

typedef struct pair {
    const char *key, *value;
} pair;
typedef struct run {
    double loss[STEPS + 1], eval_loss;
    int64_t steps, stop_after;
} run;

static tn_config *config_of(const char *verb, const pair *pairs) {
    tn_config *config;
    must(tn_config_new(verb, &config));
    if (tn_config_get(config, "device")) must(tn_config_set(config, "device", "cpu"));
    for (; pairs->key; pairs++) must(tn_config_set(config, pairs->key, pairs->value));
    return config;
}

static tn_config *training(const char *verb, const char *model, const char *output_dir, const pair *more) {
    const char *text = scratch("text.txt"), *held_out = scratch("held_out.txt");
    const pair pairs[] = {{"model", scratch(model)},
                          {"output_dir", scratch(output_dir)},
                          {"dataset", text},
                          {"eval_dataset", held_out},
                          {"stage", "cpt"},
                          {"full_finetuning", "true"},
                          {"max_length", "64"},
                          {"per_device_train_batch_size", "8"},
                          {"gradient_accumulation_steps", "1"},
                          {"learning_rate", "1e-2"},
                          {"max_steps", "60"},
                          {"dtype", "float32"},
                          {NULL, NULL}};
    tn_config *config = config_of(verb, pairs);
    for (; more->key; more++) must(tn_config_set(config, more->key, more->value));
    return config;
}

static void note(void *user, const tn_event *event) {
    run *r = user;
    if (event->kind == TN_EVENT_EVAL) r->eval_loss = event->loss;
    if (event->kind != TN_EVENT_STEP) return;
    assert_in_range(event->step, 1, STEPS);
    r->loss[event->step] = event->loss;
    r->steps = event->step;
}

static bool stop(void *user) {
    const run *r = user;
    return r->stop_after && r->steps >= r->stop_after;
}

static tn_status train(const char *model, const char *output_dir, const char *resume, run *r) {
    const pair more[] = {{resume ? "resume_from_checkpoint" : NULL, resume}, {NULL, NULL}};
    const tn_hooks hooks = {r, note, stop};
    tn_config *config = training("train", model, output_dir, more);
    tn_doc *doc = NULL;
    tn_status status = tn_train(config, &hooks, &doc);
    tn_doc_free(doc);
    tn_config_free(config);
    return status;
}

static int64_t inspected_parameters(const char *directory) {
    const pair pairs[] = {{"model", scratch(directory)}, {NULL, NULL}};
    tn_config *config = config_of("inspect", pairs);
    tn_doc *doc;
    must(tn_inspect(config, &doc));
    int64_t parameters = tn_doc_integer(doc, "parameters", -1);
    assert_string_equal(tn_doc_string(doc, "kind", ""), "model");
    tn_doc_free(doc);
    tn_config_free(config);
    return parameters;
}

static double evaluated_loss(const char *directory) {
    const pair pairs[] = {{"model", scratch(directory)},
                          {"dataset", scratch("held_out.txt")},
                          {"stage", "cpt"},
                          {"max_length", "64"},
                          {"dtype", "float32"},
                          {NULL, NULL}};
    tn_config *config = config_of("eval", pairs);
    tn_doc *doc;
    must(tn_eval(config, NULL, &doc));
    double loss = tn_doc_number(doc, "loss", NAN);
    tn_doc_free(doc);
    tn_config_free(config);
    return loss;
}

static void assert_same_model(const char *one, const char *other, int bytes_per_parameter) {
    char name[2][64];
    tn_map a, b;
    snprintf(name[0], sizeof name[0], "%s/model.safetensors", one);
    snprintf(name[1], sizeof name[1], "%s/model.safetensors", other);
    must(tn_map_open(scratch(name[0]), &a));
    must(tn_map_open(scratch(name[1]), &b));
    assert_in_range(a.bytes, bytes_per_parameter * PARAMETERS, bytes_per_parameter * PARAMETERS + 8192);
    assert_int_equal(a.bytes, b.bytes);
    must_match(b.data, a.data, a.bytes);
    tn_map_close(&a);
    tn_map_close(&b);
}

static int64_t segment_bytes(const tn_doc *plan, const char *name) {
    char path[64];
    for (int64_t i = 0; i < tn_doc_count(plan, "memory.segments"); i++) {
        snprintf(path, sizeof path, "memory.segments[%lld].name", (long long)i);
        if (strcmp(tn_doc_string(plan, path, ""), name) != 0) continue;
        snprintf(path, sizeof path, "memory.segments[%lld].bytes", (long long)i);
        return tn_doc_integer(plan, path, -1);
    }
    return 0;
}

/* `bytes` for each parameter, and no more than 5% for alignment. */
static void assert_per_parameter(int64_t bytes, int each) {
    assert_in_range(bytes, each * PARAMETERS, (int64_t)(1.05 * each * PARAMETERS));
}

/* Master, gradient and two moments of four bytes; in bf16 two more for what the products read. */
static void the_plan_counts_sixteen_bytes_a_parameter(void **state) {
    static const char *const dtypes[] = {"float32", "bfloat16"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        const pair more[] = {{"dtype", dtypes[i]}, {NULL, NULL}};
        tn_config *config = training("plan", "float32", "unused", more);
        tn_doc *plan;
        must(tn_plan(config, &plan));
        assert_int_equal(tn_doc_integer(plan, "params.trainable", -1), PARAMETERS);
        assert_int_equal(tn_doc_integer(plan, "params.all", -1), PARAMETERS);
        assert_per_parameter(segment_bytes(plan, "adapter"), 4);
        assert_per_parameter(segment_bytes(plan, "gradients"), 4);
        assert_per_parameter(segment_bytes(plan, "optimizer"), 8);
        if (i == 0) assert_int_equal(segment_bytes(plan, "weights"), 0);
        else assert_per_parameter(segment_bytes(plan, "weights"), 2);
        assert_true(tn_doc_integer(plan, "memory.device", -1) > 16 * PARAMETERS);
        tn_doc_free(plan);
        tn_config_free(config);
    }
}

static void generates_from(const char *directory) {
    const pair pairs[] = {{"model", scratch(directory)}, {"max_new_tokens", "12"}, {NULL, NULL}};
    tn_config *config = config_of("chat", pairs);
    tn_generator *generator;
    tn_doc *doc;
    must(tn_generator_open(config, &generator));
    must(tn_generate_text(generator, "The lighthouse on", NULL, NULL, &doc));
    print_message("The lighthouse on%s …\n", tn_doc_string(doc, "text", ""));
    assert_int_equal(tn_doc_count(doc, "ids"), 12);
    tn_doc_free(doc);
    tn_generator_free(generator);
    tn_config_free(config);
}

static void the_loss_falls_and_the_saved_model_has_it(void **state) {
    run whole = {0};
    (void)state;
    assert_int_equal(inspected_parameters("float32"), PARAMETERS);
    must(train("float32", "whole", NULL, &whole));
    print_message("loss %.4f to %.4f, held out %.4f\n", whole.loss[1], whole.loss[STEPS], whole.eval_loss);
    assert_true(fabs(whole.loss[1] - log(VOCAB)) < 0.2); /* it began by knowing nothing */
    assert_true(whole.loss[STEPS] < whole.loss[1] - 2);
    assert_true(whole.eval_loss < whole.loss[1] - 2);
    assert_int_equal(inspected_parameters("whole"), PARAMETERS);
    assert_true(fabs(evaluated_loss("whole") - whole.eval_loss) < 1e-6);
    generates_from("whole");
}

/* The files of a bf16 model are rounded; the masters in its checkpoints are not. */
static void a_run_taken_up_again_is_the_whole_run(void **state) {
    static const char *const models[] = {"float32", "bfloat16"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        const char *in_one[] = {"one-float32", "one-bfloat16"}, *in_two[] = {"two-float32", "two-bfloat16"};
        run one = {0}, two = {.stop_after = HALF};
        must(train(models[i], in_one[i], NULL, &one));
        assert_int_equal(train(models[i], in_two[i], NULL, &two), TN_INTERRUPTED);
        assert_int_equal(two.steps, HALF);
        two.stop_after = 0;
        must(train(models[i], in_two[i], "auto", &two));
        for (int s = 1; s <= STEPS; s++) assert_true(one.loss[s] == two.loss[s]);
        assert_true(one.eval_loss == two.eval_loss);
        assert_same_model(in_one[i], in_two[i], i == 0 ? 4 : 2);
    }
}

/* One step of plain SGD: every tensor moves by its own gradient. */
static void step_once(const char *output_dir, const pair *more) {
    const pair sgd[] = {{"optim", "sgd"},      {"max_steps", "1"},     {"max_grad_norm", "0"},
                        {"warmup_steps", "0"}, {"learning_rate", "1"}, {"eval_dataset", "none"},
                        {NULL, NULL}};
    tn_config *config = training("train", "float32", output_dir, sgd);
    tn_doc *doc = NULL;
    for (; more->key; more++) must(tn_config_set(config, more->key, more->value));
    must(tn_train(config, NULL, &doc));
    tn_doc_free(doc);
    tn_config_free(config);
}

/* Every tensor of the adapter that is a copy of the base's moved as it did with all the others; says how many.
 */
static int assert_moved_alike(const char *adapter, const char *model) {
    static const char prefix[] = "base_model.model.";
    tn_safetensors *copies, *whole;
    int compared = 0;
    must(tn_safetensors_open(scratch(adapter), &copies));
    must(tn_safetensors_open(scratch(model), &whole));
    for (int64_t i = 0; i < tn_safetensors_count(copies); i++) {
        const tn_tensor_info *t = tn_safetensors_at(copies, i);
        if (strstr(t->name, ".lora_")) continue;
        const tn_tensor_info *w = tn_safetensors_find(whole, t->name + strlen(prefix));
        if (!w || w->elements != t->elements) fail_msg("%s is not a tensor of the model", t->name);
        for (int64_t j = 0; j < t->elements; j++)
            if (!(fabsf(((const float *)t->data)[j] - ((const float *)w->data)[j]) < 1e-6f))
                fail_msg("%s[%lld] is %g, and %g in the full fine-tune", t->name, (long long)j,
                         ((const float *)t->data)[j], ((const float *)w->data)[j]);
        compared++;
    }
    tn_safetensors_close(copies);
    tn_safetensors_close(whole);
    return compared;
}

/* B is zero at first, so LoRA beside them changes nothing in a first step. PEFT takes the ends of names: "norm"
 * is every norm of this model, a module brings its bias, and "self_attn" is all that is in it. */
static void modules_to_save_move_as_in_a_full_fine_tune(void **state) {
    static const struct {
        const char *modules, *targets;
        int tensors;
    } rows[] = {{"norm", "down_proj", 1 + 2 * LAYERS},
                {"model.norm", "lm_head", 1},
                {"layers.0.input_layernorm", "layers.1.mlp.up_proj", 1},
                {"q_proj,embed_tokens", "up_proj", 1 + 2 * LAYERS},
                {"self_attn", "up_proj", 8 * LAYERS}};
    const pair full[] = {{NULL, NULL}};
    (void)state;
    step_once("step-full", full);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const pair more[] = {{"full_finetuning", "false"},
                             {"modules_to_save", rows[i].modules},
                             {"target_modules", rows[i].targets},
                             {strstr(rows[i].modules, "embed") ? "embedding_learning_rate" : NULL, "1"},
                             {NULL, NULL}};
        char directory[32], file[64];
        snprintf(directory, sizeof directory, "step-%zu", i);
        snprintf(file, sizeof file, "%s/adapter_model.safetensors", directory);
        step_once(directory, more);
        assert_int_equal(assert_moved_alike(file, "step-full/model.safetensors"), rows[i].tensors);
    }
}

static void initialise(const char *dtype) {
    const pair pairs[] = {{"model", scratch("new/config.json")},
                          {"tokenizer", scratch("new")},
                          {"output_dir", scratch(dtype)},
                          {"dtype", dtype},
                          {"seed", "1"},
                          {NULL, NULL}};
    tn_config *config = config_of("init", pairs);
    tn_doc *doc;
    must(tn_init(config, &doc));
    assert_int_equal(tn_doc_integer(doc, "parameters", -1), PARAMETERS);
    tn_doc_free(doc);
    tn_config_free(config);
}

static int make_models(void **state) {
    static const char sources[] =
        "cd '%s' && \"$TOOLS\"/tenon-world text 600 >text.txt && \"$TOOLS\"/tenon-world held_out_text 20 "
        ">held_out.txt && "
        "\"$TOOLS\"/tenon-bpe %d <text.txt >new/tokenizer.json";
    char text[1024];
    (void)state;
    must(tn_make_directories(scratch("new")));
    snprintf(text, sizeof text, sources, scratch(""), VOCAB);
    if (system(text) != 0) return -1;
    snprintf(text, sizeof text, "cp models/islands/tokenizer_config.json '%s'", scratch("new"));
    if (system(text) != 0) return -1;
    int length =
        snprintf(text, sizeof text,
                 "{\"model_type\":\"llama\",\"vocab_size\":%d,\"hidden_size\":%d,\"intermediate_size\":%d,"
                 "\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,"
                 "\"max_position_embeddings\":64,\"tie_word_embeddings\":false,\"attention_bias\":true,\"eos_"
                 "token_id\":1}\n",
                 VOCAB, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS);
    write_scratch("new/config.json", text, length);
    initialise("float32");
    initialise("bfloat16");
    return 0;
}

static int remove_files(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plan_counts_sixteen_bytes_a_parameter),
        cmocka_unit_test(the_loss_falls_and_the_saved_model_has_it),
        cmocka_unit_test(a_run_taken_up_again_is_the_whole_run),
        cmocka_unit_test(modules_to_save_move_as_in_a_full_fine_tune),
    };
    return cmocka_run_group_tests(tests, make_models, remove_files);
}
