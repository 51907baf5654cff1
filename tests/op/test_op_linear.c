/* test_op_linear.c: the linear group agrees with the reference: one to three parts, LoRA or not, bias,
 * residual, scale, dropout, frozen or trained weights in every storage format, few and many rows. What the
 * reference calls a product in FP8 is held against its product of an input that was rounded beforehand.
 */
#include "op/harness.h"
#include "quant/quant.h"
#include "quant/scaled.h"

/* One case. Parts have out[i] rows and rank r[i]. */
typedef struct shape {
    int64_t rows, in, out[TN_MAX_PARTS], r[TN_MAX_PARTS];
    tn_dtype stored, quantise_to; /* in the file, and while it is loaded */
    int64_t block, nested_block;  /* of a stored format with scales apart */
    int64_t tile;                 /* of FP8, in rows: values are as random bytes say */
    bool bias, trained, accumulate, dora;
    int residual; /* 0 none, 1 its own matrix, 2 y itself, 3 y itself and large */
    float alpha, dropout;
} shape;

typedef struct group {
    shape shape;
    int parts;
    int64_t out, rank;
    unsigned char *file[TN_MAX_PARTS]; /* the weights as a file would hold them */
    tn_tensor_info tensor[TN_MAX_PARTS];
    tn_scales scales[TN_MAX_PARTS];
    matrix *bias[TN_MAX_PARTS], *a[TN_MAX_PARTS], *b[TN_MAX_PARTS], *da[TN_MAX_PARTS], *db[TN_MAX_PARTS];
    matrix *master[TN_MAX_PARTS], *dweight[TN_MAX_PARTS], *dbias[TN_MAX_PARTS];
    matrix *magnitude[TN_MAX_PARTS], *dmagnitude[TN_MAX_PARTS];
} group;

static double gradient_tolerance(tn_dtype dtype) {
    return dtype == TN_DTYPE_F32 ? 1e-5 : 2 * usual_tolerance(dtype);
}

static void take_values(const void *user, int64_t first, int64_t count, float *out) {
    memcpy(out, (const float *)user + first, (size_t)count * sizeof *out);
}

static void encode_apart(group *g, int p, const float *values) {
    const shape *c = &g->shape;
    tn_scaled_layout layout;
    float offset;
    const bool rowwise = c->stored == TN_DTYPE_LLM_INT8 || c->stored == TN_DTYPE_FP8;
    int64_t block = rowwise ? c->in : c->block ? c->block : 64;
    assert_true(tn_scaled_layout_of(c->stored, c->out[p], c->in, block, c->nested_block, &layout));
    succeed(tn_alloc_aligned(&g->file[p], layout.bytes, "a test"));
    succeed(tn_encode_scaled(&layout, take_values, values, g->file[p], &offset));
    g->scales[p] = tn_scaled_at(&layout, g->file[p], offset);
}

/* Codes and scales of tiles, which nothing here encodes. */
static void make_tiles(session *s, group *g, int p, const float *values) {
    const shape *c = &g->shape;
    tn_scaled_layout layout;
    assert_true(tn_scaled_layout_tiles(c->out[p], c->in, c->tile, c->block, &layout));
    succeed(tn_alloc_aligned(&g->file[p], layout.bytes, "a test"));
    for (int64_t i = 0; i < layout.elements; i++) g->file[p][i] = tn_f32_to_e4m3(values[i] * 50);
    tn_random_weights(++s->seed, 0.02f, layout.blocks, (float *)(void *)(g->file[p] + layout.absmax));
    g->scales[p] = tn_scaled_at(&layout, g->file[p], 0);
}

static void make_tensor(session *s, group *g, int p) {
    int64_t count = g->shape.out[p] * g->shape.in, bytes;
    bool apart = tn_dtype_has_scales(g->shape.stored);
    assert_true(tn_dtype_bytes(g->shape.stored, count, &bytes));
    float *values = malloc((size_t)count * sizeof *values);
    tn_random_weights(++s->seed, 0.1f, count, values);
    if (g->shape.tile) make_tiles(s, g, p, values);
    else if (apart) encode_apart(g, p, values);
    else {
        g->file[p] = malloc((size_t)bytes);
        succeed(tn_quantize(g->shape.stored, values, count, g->file[p]));
    }
    free(values);
    g->tensor[p] = (tn_tensor_info){.name = "w",
                                    .dtype = g->shape.stored,
                                    .rank = 2,
                                    .shape = {g->shape.out[p], g->shape.in},
                                    .elements = count,
                                    .bytes = bytes,
                                    .data = g->file[p],
                                    .file = "memory"};
}

/* Matrices of the parameters. In a forward case they are inputs only. */
static group make_group(session *s, shape c, bool backward) {
    group g = {.shape = c};
    usage gradient = backward ? IN_OUT : IN;
    double tolerance = gradient_tolerance(s->dtype);
    for (int p = 0; p < TN_MAX_PARTS && c.out[p]; p++) {
        int64_t out = c.out[p], in = c.in, r = c.r[p];
        make_tensor(s, &g, p);
        if (c.bias) g.bias[p] = array(s, IN, s->dtype, out, 0);
        if (r) g.a[p] = array(s, IN, TN_DTYPE_F32, r * in, 0), g.b[p] = array(s, IN, TN_DTYPE_F32, out * r, 0);
        if (r) randomise(s, g.a[p], 0.2), randomise(s, g.b[p], 0.2);
        if (r && backward) g.da[p] = array(s, gradient, TN_DTYPE_F32, r * in, tolerance);
        if (r && backward) g.db[p] = array(s, gradient, TN_DTYPE_F32, out * r, tolerance);
        if (r && c.dora) g.magnitude[p] = array(s, IN, TN_DTYPE_F32, out, 0);
        if (r && c.dora && backward) g.dmagnitude[p] = array(s, gradient, TN_DTYPE_F32, out, tolerance);
        if (c.trained) {
            g.master[p] = array(s, IN, TN_DTYPE_F32, out * in, 0);
            randomise(s, g.master[p], 0.1);
            if (backward) g.dweight[p] = array(s, gradient, TN_DTYPE_F32, out * in, tolerance);
            if (backward && c.bias) g.dbias[p] = array(s, gradient, TN_DTYPE_F32, out, tolerance);
        }
        g.parts++, g.out += out, g.rank += r;
    }
    return g;
}

static void *pointer(const matrix *m, int side) { return m ? m->on_device[side] : NULL; }

static tn_linear bind_group(const group *g, int side) {
    tn_linear linear = {.parts = g->parts,
                        .in = g->shape.in,
                        .out = g->out,
                        .rank = g->rank,
                        .border = tn_border(g->rank),
                        .site = 11};
    for (int p = 0; p < g->parts; p++)
        linear.part[p] =
            (tn_part){.weight = {.rows = g->shape.out[p], .cols = g->shape.in, .dtype = g->shape.stored},
                      .bias = pointer(g->bias[p], side),
                      .lora = {g->shape.r[p], 0.5f, pointer(g->a[p], side), pointer(g->b[p], side),
                               pointer(g->da[p], side), pointer(g->db[p], side), g->magnitude[p] != NULL,
                               pointer(g->magnitude[p], side), pointer(g->dmagnitude[p], side)},
                      .master = pointer(g->master[p], side),
                      .dweight = pointer(g->dweight[p], side),
                      .dbias = pointer(g->dbias[p], side)};
    return linear;
}

/* Loads the group on a device whose matrices are uploaded. Returns the region. */
static void *load_group(session *s, const group *g, int side, tn_linear *linear) {
    tn_device *device = s->device[side];
    tn_source source[TN_MAX_PARTS];
    tn_tensor_info tensor[TN_MAX_PARTS];
    const tn_source *sources[TN_MAX_PARTS] = {NULL};
    for (int p = 0; p < g->parts; p++) {
        tensor[p] = g->tensor[p];
        if (tn_dtype_has_scales(g->shape.stored)) tensor[p].scales = &g->scales[p];
        source[p] = (tn_source){.tensor = &tensor[p], .quantise_to = g->shape.quantise_to};
        sources[p] = &source[p];
    }
    void *region = take_memory(device, device->backend->linear_bytes(device, linear, sources));
    succeed(device->backend->linear_load(device, linear, sources, region));
    succeed(device->backend->load_finish(device));
    succeed(device->backend->linear_refresh(device, linear));
    return region;
}

static void free_group(group *g) {
    for (int p = 0; p < g->parts; p++) free(g->file[p]);
}

static void forward_case(session *s, shape c) {
    group g = make_group(s, c, false);
    matrix *x = matrix_new(s, IN, s->dtype, c.rows, c.in, tn_border(g.rank), 0);
    matrix *y = output(s, c.rows, g.out), *residual = c.residual == 1 ? input(s, c.rows, g.out) : NULL;
    tn_dropout dropout = {.p = c.dropout, .seed = 5, .step = 2, .first_row = 10};
    randomise(s, x, 1);
    y->tolerance = gradient_tolerance(s->dtype) / 2;
    if (c.residual >= 2) residual = y, y->use = IN_OUT, randomise(s, y, c.residual == 3 ? 100 : 1);
    /* Rounded once, the two differ where the fp32 sums fall on two sides of a tie, and nowhere else. */
    if (c.residual == 3) y->tolerance = s->dtype == TN_DTYPE_F32 ? 1e-6 : 5e-4;
    for (int side = 0; side < 2; side++) {
        tn_device *device = s->device[side];
        tn_linear linear = bind_group(&g, side);
        upload_all(s, side);
        void *region = load_group(s, &g, side, &linear);
        succeed(device->backend->linear_forward(device, &linear, c.rows, V(x), V(y), V(residual), c.alpha,
                                                &dropout));
        download_all(s, side);
        device->backend->release(device, region);
    }
    check_all(s, "linear_forward", __FILE__, __LINE__);
    free_group(&g);
}

static void backward_case(session *s, shape c) {
    group g = make_group(s, c, true);
    matrix *x = matrix_new(s, IN, s->dtype, c.rows, c.in, tn_border(g.rank), 0);
    matrix *dy = matrix_new(s, IN, s->dtype, c.rows, g.out, tn_border(g.rank), 0);
    matrix *dx = output(s, c.rows, c.in);
    tn_dropout dropout = {.p = c.dropout, .seed = 5, .step = 2, .first_row = 10};
    randomise(s, x, 1), randomise(s, dy, 1);
    dx->tolerance = gradient_tolerance(s->dtype);
    if (c.accumulate) dx->use = IN_OUT, randomise(s, dx, 1);
    for (int side = 0; side < 2; side++) {
        tn_device *device = s->device[side];
        tn_linear linear = bind_group(&g, side);
        upload_all(s, side);
        void *region = load_group(s, &g, side, &linear);
        succeed(device->backend->linear_inner(device, &linear, c.rows, V(x), &dropout));
        succeed(device->backend->linear_backward(device, &linear, c.rows, V(x), V(dy), V(dx), c.accumulate,
                                                 c.alpha, &dropout));
        download_all(s, side);
        device->backend->release(device, region);
    }
    check_all(s, "linear_backward", __FILE__, __LINE__);
    free_group(&g);
}

static const shape plain_shapes[] = {
    {.rows = 1, .in = 48, .out = {20}, .alpha = 1},
    {.rows = 3, .in = 300, .out = {40, 24, 8}, .r = {8, 4, 4}, .alpha = 1, .bias = true},
    {.rows = 8, .in = 64, .out = {33}, .r = {16}, .alpha = 0.22f, .residual = 1},
    {.rows = 9, .in = 64, .out = {33}, .r = {5}, .alpha = 0.22f, .residual = 2, .bias = true},
    {.rows = 30, .in = 64, .out = {96}, .r = {8}, .alpha = 1, .residual = 3, .bias = true},
    {.rows = 1030, .in = 24, .out = {40}, .r = {4}, .alpha = 1, .residual = 3},
    {.rows = 1030, .in = 24, .out = {1030}, .alpha = 1, .residual = 1, .bias = true},
    {.rows = 37, .in = 96, .out = {64, 16, 16}, .r = {16, 16, 16}, .alpha = 1, .bias = true},
    {.rows = 50, .in = 64, .out = {128, 128}, .r = {8, 0}, .alpha = 1},
    {.rows = 50, .in = 72, .out = {56}, .alpha = 0.5f, .residual = 1, .accumulate = true},
    {.rows = 21,
     .in = 64,
     .out = {56, 8},
     .r = {4, 4},
     .alpha = 0.5f,
     .accumulate = true,
     .trained = true,
     .bias = true},
    {.rows = 40, .in = 64, .out = {24, 24}, .r = {8, 8}, .alpha = 1, .dropout = 0.3f},
    {.rows = 5, .in = 64, .out = {24, 24}, .r = {8, 8}, .alpha = 1, .dropout = 0.3f, .accumulate = true},
    {.rows = 11, .in = 301, .out = {24}, .r = {8}, .alpha = 1, .dropout = 0.5f},
    /* k and LoRA's rank end in one tile of 2048, in two, and one in each */
    {.rows = 12, .in = 2032, .out = {24}, .r = {16}, .alpha = 1, .bias = true},
    {.rows = 12, .in = 2041, .out = {24}, .r = {16}, .alpha = 0.5f, .residual = 2},
    {.rows = 12, .in = 2048, .out = {24, 8}, .r = {16, 3}, .alpha = 1, .residual = 1},
    {.rows = 12, .in = 24, .out = {2041, 2048}, .r = {16, 16}, .alpha = 0.5f, .accumulate = true},
};

/* DoRA on every part that has LoRA: one part and three, without LoRA beside it and trained in full beside it,
 * few rows and more than one tile of them, dropped or not. */
static const shape dora_shapes[] = {
    {.rows = 3, .in = 300, .out = {40, 24, 8}, .r = {8, 4, 4}, .alpha = 1, .bias = true},
    {.rows = 9, .in = 64, .out = {33}, .r = {5}, .alpha = 0.22f, .residual = 2, .bias = true},
    {.rows = 37, .in = 96, .out = {64, 16, 16}, .r = {16, 0, 16}, .alpha = 1, .accumulate = true},
    {.rows = 4100, .in = 24, .out = {40}, .r = {4}, .alpha = 0.5f, .residual = 1, .bias = true},
    {.rows = 40, .in = 64, .out = {24, 24}, .r = {8, 8}, .alpha = 1, .dropout = 0.3f, .bias = true},
    {.rows = 5, .in = 64, .out = {24, 8}, .r = {8, 8}, .alpha = 0.7f, .dropout = 0.3f, .accumulate = true},
    {.rows = 4099, .in = 61, .out = {9}, .r = {8}, .alpha = 1, .dropout = 0.5f, .residual = 1},
    {.rows = 12, .in = 2041, .out = {24, 600}, .r = {16, 3}, .alpha = 1},
};

static void dora_case(session *s) {
    const tn_dtype stored[] = {TN_DTYPE_F32, TN_DTYPE_BF16, TN_DTYPE_Q8_0, TN_DTYPE_NF4};
    for (size_t i = 0; i < sizeof dora_shapes / sizeof *dora_shapes; i++)
        for (int d = 0; d < 4; d++) {
            shape c = dora_shapes[i];
            c.stored = stored[d], c.dora = true;
            if (c.stored == TN_DTYPE_Q8_0) c.in = (c.in + 31) / 32 * 32;
            forward_case(s, c);
            backward_case(s, c);
        }
}
static void dora_agrees(void **state) { (void)state, in_every_dtype(dora_case); }

static void plain_case(session *s) {
    const tn_dtype stored[] = {TN_DTYPE_F32, TN_DTYPE_BF16, TN_DTYPE_F16};
    for (size_t i = 0; i < sizeof plain_shapes / sizeof *plain_shapes; i++)
        for (int d = 0; d < 3; d++) {
            shape c = plain_shapes[i];
            c.stored = stored[d];
            forward_case(s, c);
            backward_case(s, c);
        }
}
static void plain_weights_agree(void **state) { (void)state, in_every_dtype(plain_case); }

static void block_case(session *s) {
    const tn_dtype stored[] = {TN_DTYPE_Q4_0, TN_DTYPE_Q4_1, TN_DTYPE_Q5_0, TN_DTYPE_Q5_1,
                               TN_DTYPE_Q8_0, TN_DTYPE_Q4_K, TN_DTYPE_Q5_K, TN_DTYPE_Q6_K};
    for (int d = 0; d < 8; d++)
        for (int trained = 0; trained < 2; trained++) {
            int64_t in = tn_dtype_block(stored[d]) == 256 ? 512 : 160;
            shape c = {.rows = 19,
                       .in = in,
                       .out = {40, 16},
                       .r = {8, 4},
                       .alpha = 0.7f,
                       .bias = true,
                       .stored = stored[d],
                       .residual = 1,
                       .trained = trained};
            forward_case(s, c);
            backward_case(s, c);
            c.rows = 2;
            forward_case(s, c);
        }
}
/* Formats with scales apart: as a checkpoint holds them (plain or nested, blocks across the ends of rows), and
 * made of plain weights while they are loaded. */
static const shape scaled_shapes[] = {
    {.stored = TN_DTYPE_NF4, .in = 160, .nested_block = 256},
    {.stored = TN_DTYPE_NF4, .in = 75, .nested_block = 4},
    {.stored = TN_DTYPE_NF4, .in = 24, .block = 4096},
    {.stored = TN_DTYPE_FP4, .in = 301},
    {.stored = TN_DTYPE_FP4, .in = 64, .block = 32, .nested_block = 256},
    {.stored = TN_DTYPE_LLM_INT8, .in = 77},
    {.stored = TN_DTYPE_LLM_INT8, .in = 512},
    {.stored = TN_DTYPE_FP8, .in = 77},
    {.stored = TN_DTYPE_FP8, .in = 512},
    {.stored = TN_DTYPE_FP8, .in = 300, .tile = 24, .block = 128},
    {.stored = TN_DTYPE_FP8, .in = 77, .tile = 7, .block = 10},
    {.stored = TN_DTYPE_FP8, .in = 40, .tile = 41, .block = 1}, /* a scale a column */
    {.stored = TN_DTYPE_BF16, .in = 136, .quantise_to = TN_DTYPE_NF4},
    {.stored = TN_DTYPE_F32, .in = 1100, .quantise_to = TN_DTYPE_LLM_INT8},
    {.stored = TN_DTYPE_F16, .in = 51, .quantise_to = TN_DTYPE_NF4},
    {.stored = TN_DTYPE_BF16, .in = 200, .quantise_to = TN_DTYPE_FP8},
    {.stored = TN_DTYPE_F32, .in = 51, .quantise_to = TN_DTYPE_FP8},
};

static void scaled_case(session *s) {
    for (size_t i = 0; i < sizeof scaled_shapes / sizeof *scaled_shapes; i++)
        for (int trained = 0; trained < 2; trained++) {
            shape c = scaled_shapes[i];
            c.rows = 19, c.out[0] = 41, c.out[1] = 16, c.r[0] = 8, c.r[1] = 4;
            c.alpha = 0.7f, c.bias = true, c.residual = 1, c.trained = trained;
            forward_case(s, c);
            backward_case(s, c);
            c.rows = 2;
            forward_case(s, c);
        }
}
static void weights_with_scales_apart_agree(void **state) { (void)state, in_every_dtype(scaled_case); }

/* More rows than one decoded tile of the CPU backend holds. */
static void tiles_case(session *s) {
    shape c = {.rows = 10, .in = 512, .out = {8200, 40}, .r = {4, 0}, .alpha = 1, .stored = TN_DTYPE_Q8_0};
    forward_case(s, c);
    backward_case(s, c);
}
static void weights_of_several_tiles_agree(void **state) { (void)state, in_every_dtype(tiles_case); }

/* Two reference devices: one multiplies in FP8, the other gets x as E4M3 has it. */
static void fp8_case(session *s, int64_t in, bool fp8) {
    enum { ROWS = 5, WIDTH = 32 };
    tn_device *device;
    succeed(tn_backend_reference()->open(tn_backend_reference(), 0, s->dtype, &device));
    shape c = {.rows = ROWS, .in = in, .out = {WIDTH}, .stored = TN_DTYPE_F32, .quantise_to = TN_DTYPE_FP8};
    group g = make_group(s, c, false);
    tn_linear linear = bind_group(&g, 0);
    tn_source source = {.tensor = &g.tensor[0], .quantise_to = TN_DTYPE_FP8};
    const tn_source *sources[TN_MAX_PARTS] = {&source};
    void *region = take_memory(device, device->backend->linear_bytes(device, &linear, sources));
    float x[ROWS * 80], y[2][ROWS * WIDTH];
    succeed(device->backend->linear_load(device, &linear, sources, region));
    tn_random_weights(++s->seed, 1, ROWS * in, x);
    for (int k = 0; k < in; k++) x[in + k] = 0; /* a row of zeros */
    device->fp8_products = linear.fp8_products = true;
    assert_int_equal(tn_linear_is_fp8(device, &linear), fp8);
    for (int side = 0; side < 2; side++) {
        succeed(device->backend->linear_forward(device, &linear, ROWS, (tn_view){x, in},
                                                (tn_view){y[side], WIDTH}, (tn_view){NULL, 0}, 1, NULL));
        device->fp8_products = false;
        for (int row = 0; row < ROWS; row++) {
            float absmax = 0;
            for (int k = 0; k < in; k++) absmax = fmaxf(absmax, fabsf(x[row * in + k]));
            for (int k = 0; k < in && fp8; k++)
                x[row * in + k] =
                    absmax > 0
                        ? tn_e4m3_to_f32(tn_f32_to_e4m3(x[row * in + k] / (absmax / 448))) * (absmax / 448)
                        : 0;
        }
    }
    for (int i = 0; i < ROWS * WIDTH; i++) assert_float_equal(y[0][i], y[1][i], 1e-6);
    device->backend->release(device, region);
    device->backend->close(device);
    free_group(&g);
}

static void fp8_cases(session *s) {
    if (s->dtype != TN_DTYPE_F32) return;
    fp8_case(s, 80, true);
    fp8_case(s, 77, false); /* no multiple of 16: of the decoded weight */
}
static void products_in_fp8_are_those_of_rounded_inputs(void **state) {
    (void)state, in_every_dtype(fp8_cases);
}

static void block_weights_agree(void **state) { (void)state, in_every_dtype(block_case); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_weights_agree),
        cmocka_unit_test(dora_agrees),
        cmocka_unit_test(block_weights_agree),
        cmocka_unit_test(weights_with_scales_apart_agree),
        cmocka_unit_test(weights_of_several_tiles_agree),
        cmocka_unit_test(products_in_fp8_are_those_of_rounded_inputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
