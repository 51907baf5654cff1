/* op.h: the table of operations, the one border between what is computed and where.
 *
 * A backend is a struct of function pointers (tn_backend). The plain C reference (op/ref/) fills all of
 * them and is the truth; the CPU backend overrides what it does faster; libtenon-cuda.so brings a whole
 * table of its own. Model and trainer call operations through a tn_device and never learn where they run.
 *
 * Conventions
 * - Activations are row-major matrices of the device's compute dtype (tn_device.dtype: F32, BF16 or F16),
 *   passed as tn_view: rows may be further apart than they are wide. Statistics (rstd, lse, losses),
 *   LoRA values, gradients of parameters and optimizer state are fp32.
 * - A row is a token. Documents are packed one behind another; cu_seqlens holds their boundaries.
 * - `in` + border: a matrix that feeds a linear has room for `rank` (padded) more columns behind its own.
 *   There the linear keeps u = x·Aᵀ, so that one product [x|u]·[W|sB]ᵀ can do base and LoRA together.
 *   The gradient matrix of a linear's output has the same border for v = dy·sB.
 * - Operations are asynchronous on a device's one compute stream and ordered among themselves;
 *   host memory handed to upload() may be reused when it returns; download() returns when the data is there.
 * - Everything is deterministic: fixed reduction orders, independent of thread timing.
 * - Device memory is the caller's (the plan's arena); an operation allocates nothing. What it needs in
 *   passing comes from device->scratch, whose size scratch_bytes() states for the largest shapes.
 */
#ifndef TN_OP_OP_H
#define TN_OP_OP_H

#include "base/dtype.h"
#include "format/tensor.h"

typedef struct tn_device tn_device;
typedef struct tn_backend tn_backend;

/* [rows, cols] of the compute dtype; `stride` elements from row to row. */
typedef struct tn_view {
    void *data;
    int64_t stride;
} tn_view;

/* ---- Weights ------------------------------------------------------------------------------------- */

/* Where a weight comes from: a mapped tensor, and the head size of llama.cpp's interleaved q/k rows that
 * must be undone (stored row 2j+p of a head is row p·(head_dim/2)+j); 0 = rows are in order. */
typedef struct tn_source {
    const tn_tensor_info *tensor; /* NULL: tn_random_weights(seed, std) (bench) */
    int64_t permuted_head_dim;
    uint64_t seed;
    float std;
    bool trained; /* weight_load only: weight_refresh will write the values, so they need memory of their own,
                     not the mapping */
    tn_dtype quantise_to; /* NF4, LLM_INT8 or FP8: what plain values are quantised to while they are loaded,
                             unless they train; F32 (0): not */
} tn_source;
/* Random weights: normal with deviation `std`; std < 0 means all ones (norms), 0 all zeros (biases). Element i
 * is a function of (seed, i) alone: tn_random_normal(seed, TN_STREAM(TN_PURPOSE_BENCH, 0, 0), i) · std. */
void tn_random_weights(uint64_t seed, float std, int64_t count, float *values);
/* A seed from a tensor's name. */
uint64_t tn_random_name(const char *name);

/* A matrix [rows, cols] = [out, in] on the device in its storage format. */
typedef struct tn_weight {
    const void *data;
    tn_dtype dtype;
    int64_t rows, cols;
    int64_t stride;   /* elements from row to row; cols for block types */
    tn_scales scales; /* of a dtype that keeps them apart; on the device like `data` */
} tn_weight;

/* One LoRA pair: y += scale · (x·Aᵀ)·Bᵀ. All fp32 on the device. With DoRA (arXiv 2402.09353, as PEFT has it)
 * the rows of W + scale·B·A are then brought to the lengths that `magnitude` says. */
typedef struct tn_lora {
    int64_t r; /* 0 = none */
    float scale;
    const float *a, *b; /* [r, in], [out, r] */
    float *da, *db;     /* gradients, accumulated; NULL where nothing trains */
    bool dora;
    const float *magnitude; /* [out], DoRA's */
    float *dmagnitude;      /* its gradient, accumulated; NULL where nothing trains */
} tn_lora;

/* One projection of a group that shares its input. */
typedef struct tn_part {
    tn_weight weight;
    const void *bias; /* [out] of the compute dtype, or NULL */
    tn_lora lora;
    const float *master; /* trained in full: fp32 values [out, in]; NULL where the base is frozen */
    float *dweight;      /* [out, in] fp32, accumulated; NULL where frozen */
    float *dbias;        /* [out] fp32, accumulated; NULL where frozen */
} tn_part;

/* A group of projections with one input: q|k|v, o, gate|up, down, lm_head. Outputs stand side by side. */
enum { TN_MAX_PARTS = 3 };
typedef struct tn_linear {
    int parts;
    tn_part part[TN_MAX_PARTS];
    int64_t in, out;   /* out = sum of the parts' rows */
    int64_t rank;      /* sum of the parts' r */
    int64_t border;    /* columns behind input and output gradient: tn_border(rank) */
    uint32_t site;     /* names the group for dropout: layer·8 + group */
    bool fp8_products; /* linear_forward may multiply in FP8 (tn_linear_is_fp8) */
    void *fused;       /* the backend's own layout ([W|sB] over [A|0]), inside the region given at load */
    /* DoRA, of the last refresh: ‖W + scale·B·A‖ of every row, and magnitude over it (1 where a part has none).
     * [out] fp32 each, inside the region given at load; NULL where no part has DoRA. */
    float *norm, *ratio;
} tn_linear;

/* Columns a matrix needs behind its own for LoRA of total rank `rank`: the next multiple of 16. */
static inline int64_t tn_border(int64_t rank) { return (rank + 15) / 16 * 16; }

/* Is a part quantised, and has to be decoded for its products? */
static inline bool tn_linear_has_blocks(const tn_linear *linear) {
    bool any = false;
    for (int i = 0; i < linear->parts; i++) any = any || tn_dtype_is_block(linear->part[i].weight.dtype);
    return any;
}

/* Dropout on the LoRA path: element (row, col) of part p of site s is dropped where the uniform number
 * tn_random_uniform(seed, TN_STREAM(TN_PURPOSE_DROPOUT, step, site·4 + p), (first_row + row)·in + col) < p. */
typedef struct tn_dropout {
    float p; /* 0 = off */
    uint64_t seed;
    uint32_t step; /* micro-batch counter: recomputation sees the same mask */
    int64_t first_row;
} tn_dropout;
static inline bool tn_drops(const tn_dropout *dropout) { return dropout && dropout->p > 0; }

/* ---- Attention ----------------------------------------------------------------------------------- */

/* Attention over packed documents, causal or `bidirectional`, where every query sees every key of its document.
 * Query i of a document (of nq queries and nk keys) sees keys j ≤ i + nk - nq, and with a window only j > i +
 * nk - nq - window. Head i reads kv head i / (heads/kv_heads).
 */
typedef struct tn_attention {
    int64_t documents, q_rows, kv_rows, longest_q, longest_kv;
    const int32_t *cu_q, *cu_kv;           /* on the device, [documents + 1] */
    const int32_t *host_cu_q, *host_cu_kv; /* the same on the host */
    int64_t heads, kv_heads, head_dim;
    float scale;
    float softcap;      /* 0 = none; c·tanh(s/c) on scaled scores */
    int64_t window;     /* 0 = none */
    bool bidirectional; /* without a window */
} tn_attention;

typedef enum tn_activation { TN_SILU, TN_GELU_TANH, TN_GELU } tn_activation;

/* One step of an optimizer over a flat range. The gradient is first multiplied by `grad_scale` and by
 * min(1, max_norm / (sqrt(*sum_squares)·grad_scale + 1e-6)) (max_norm 0 = no clipping). Where *sum_squares is
 * not finite nothing is changed at all: the host sees it and stops. */
typedef struct tn_optimizer_step {
    double learning_rate, beta1, beta2, epsilon, weight_decay, momentum; /* momentum: SGD's */
    int64_t step;                                                        /* 1 for the first */
    double grad_scale, max_norm;
    const double *sum_squares; /* on the device: Σ g² over all trainable parameters, before grad_scale */
} tn_optimizer_step;

/* A moment in 8 bits: a code for each element, a scale for each 256 of them (quant/dynamic_map.h). */
typedef struct tn_codes {
    uint8_t *codes;
    float *absmax;
} tn_codes;

/* Which operations scratch is for: attention takes much, at times when the buffers of other operations are
 * free.
 */
typedef enum tn_scratch_use { TN_SCRATCH_ALL, TN_SCRATCH_ATTENTION, TN_SCRATCH_REST } tn_scratch_use;

/* Upper bounds of all shapes a device will see, for scratch_bytes(). */
typedef struct tn_limits {
    int64_t rows;      /* tokens in one micro-batch */
    int64_t documents; /* in one micro-batch */
    int64_t longest;   /* longest document */
    int64_t hidden, intermediate, heads, kv_heads, head_dim, vocab;
    int64_t head_rows; /* rows of one chunk of the loss */
    int64_t rank;      /* largest rank sum of a linear */
    bool backward, dropout, block_weights /* some weight is block-quantised */;
    int64_t dora;           /* largest out + border of a linear with DoRA; 0 = there is none */
    bool fp8_products;      /* some linear has them */
    int64_t largest_weight; /* elements of the largest linear with block-quantised parts (all of them) */
    bool bidirectional;     /* attention is, and has no backward pass */
    tn_scratch_use scratch_for;
} tn_limits;

/* ---- Several processes --------------------------------------------------------------------------- */

/* Sums over the devices of several processes, one a process, by a library of the backend's (NCCL). join and sum
 * begin something and return; poll says whether it and everything given before are over. leave ends all at any
 * time, also while others do not answer. Every rank makes the same calls in the same order. */
enum { TN_REDUCER_ID = 128 };
typedef struct tn_reducer {
    int64_t device_bytes;                           /* that the library takes of the device at most */
    bool (*present)(void);                          /* can the library be loaded? */
    tn_status (*name)(tn_device *device, void *id); /* rank 0 makes the id[TN_REDUCER_ID] of the group */
    tn_status (*join)(tn_device *device, const void *id, int rank, int world);
    /* values[count] become the sum of all ranks', in an order that depends on their number alone. */
    tn_status (*sum)(tn_device *device, int64_t count, float *values);
    tn_status (*poll)(tn_device *device, bool *over);
    void (*leave)(tn_device *device);
} tn_reducer;

/* ---- The table ----------------------------------------------------------------------------------- */

struct tn_backend {
    const char *name;          /* "cpu", "cuda" */
    const tn_reducer *reducer; /* NULL: sums of several processes go through the host */

    /* Opens device `index` computing in `dtype`. The backend allocates a struct that begins with tn_device. */
    tn_status (*open)(const tn_backend *backend, int index, tn_dtype dtype, tn_device **device);
    void (*close)(tn_device *device);

    /* Memory. `allocate` is called a handful of times in a run, never during a step. */
    tn_status (*allocate)(tn_device *device, int64_t bytes, void **memory);
    void (*release)(tn_device *device, void *memory);
    tn_status (*upload)(tn_device *device, void *to, const void *from, int64_t bytes);
    tn_status (*download)(tn_device *device, void *to, const void *from, int64_t bytes);
    tn_status (*zero)(tn_device *device, void *memory, int64_t bytes);
    tn_status (*sync)(tn_device *device);
    /* Host memory for what is moved out of the device, pinned so that it can be copied from and to beside
     * computing; TN_NO_FIT where the machine does not have it. */
    tn_status (*host_allocate)(tn_device *device, int64_t bytes, void **memory);
    void (*host_release)(tn_device *device, void *memory, int64_t bytes);
    /* Copies between the device and such memory, either way, beside the operations: a move begins when what was
     * given before it is over, moves follow one another, and what is given after it does not wait for it.
     * move_wait: what is given from now on begins when every move given so far is over. */
    tn_status (*move)(tn_device *device, void *to, const void *from, int64_t bytes);
    tn_status (*move_wait)(tn_device *device);
    /* Bytes of scratch for shapes within `limits`; the caller allocates and sets device->scratch. */
    int64_t (*scratch_bytes)(tn_device *device, const tn_limits *limits);

    /* Loading. `linear_bytes`: device bytes of a linear's weights and compute copies (parts' weight.rows, cols,
     * dtype as in the file or compute dtype, r and master set); 0 where mapped memory is used in place.
     * `linear_load` puts part i's weight (from sources[i]; where sources[i] is NULL the part's weight.data is
     * already there and shared, as for a tied head) into `region` and sets weight.data/dtype/stride and
     * `fused`. Plain weights are held in the compute dtype or, by `quantise_to`, quantised, block types as they
     * are (tn_source_held); where the compute dtype is fp32 a part's master may be its weight. `linear_refresh`
     * brings compute copies, and DoRA's norms, up to date after A, B, a magnitude or a master changed; it uses
     * scratch. */
    int64_t (*linear_bytes)(tn_device *device, const tn_linear *linear, const tn_source *const sources[]);
    tn_status (*linear_load)(tn_device *device, tn_linear *linear, const tn_source *const sources[],
                             void *region);
    tn_status (*linear_refresh)(tn_device *device, tn_linear *linear);
    /* A table [rows, cols] on its own (embedding), or a vector (norm weight, bias: rows = 1), in the compute
     * dtype or, for tables, block types as they are. */
    int64_t (*weight_bytes)(tn_device *device, int64_t rows, int64_t cols, const tn_source *source);
    tn_status (*weight_load)(tn_device *device, int64_t rows, int64_t cols, const tn_source *source,
                             void *region, tn_weight *weight);
    /* Rounds fp32 masters [count] into compute-dtype values (full modules after a step). */
    tn_status (*weight_refresh)(tn_device *device, int64_t count, const float *master, void *values);
    /* Called when loading is over: finishes transfers in flight. */
    tn_status (*load_finish)(tn_device *device);

    /* y[i] = scale · table[ids[i]], [rows, cols]; `ids` on the device. */
    tn_status (*embed_forward)(tn_device *device, int64_t rows, const int32_t *ids, const tn_weight *table,
                               float scale, tn_view y);
    /* dtable[id] += scale · Σ dy over the rows with this id. `order` lists the rows sorted by id (stable), and
     * segment s covers order[starts[s]] … order[starts[s+1]-1]. All three on the device. */
    tn_status (*embed_backward)(tn_device *device, int64_t rows, int64_t cols, int64_t segments,
                                const int32_t *ids, const int32_t *order, const int32_t *starts, float scale,
                                tn_view dy, float *dtable);

    /* Each of `groups` segments of `cols` columns is normalised on its own: u = x·rsqrt(mean(x²)+eps), y =
     * w·round(u), or with `offset` (Gemma) y = round(u·(1+w)). rstd [rows, groups] fp32 may be NULL. y may be
     * x. */
    tn_status (*rmsnorm_forward)(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                 const void *w, bool offset, float eps, tn_view y, float *rstd);
    /* dx = r·(g − x·r²·mean(g·x)), g = dy·w; added to dx where `accumulate`. dw [cols] fp32 accumulated, may be
     * NULL. dx may be dy. */
    tn_status (*rmsnorm_backward)(tn_device *device, int64_t rows, int64_t groups, int64_t cols, tn_view x,
                                  const void *w, bool offset, const float *rstd, tn_view dy, tn_view dx,
                                  bool accumulate, float *dw);

    /* y = residual + alpha · (x·Wᵀ + bias + LoRA); residual.data NULL = none; residual may be y. x needs its
     * border (u is written there). alpha scales the LoRA part too. With DoRA's ratio g the sum in brackets is
     * x·Wᵀ + bias + (g−1)·(drop(x)·Wᵀ) + g·LoRA, which is g·(x·Wᵀ + LoRA) + bias where nothing is dropped. */
    tn_status (*linear_forward)(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x, tn_view y,
                                tn_view residual, float alpha, const tn_dropout *dropout);
    /* From dy (its border is scratch) and x with u in its border as the forward left it: accumulates the
     * gradients of all trained tensors of the group, and dx = alpha · dy·(W + sBA) (added to dx where
     * `accumulate`; dx.data NULL: not wanted). dx never overlaps dy or x. DoRA's norms count as constants. */
    tn_status (*linear_backward)(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                                 tn_view dy, tn_view dx, bool accumulate, float alpha,
                                 const tn_dropout *dropout);

    /* Only u = x·Aᵀ into the border of x, as linear_forward leaves it: for an x that was recomputed. Nothing
     * where rank is 0. */
    tn_status (*linear_inner)(tn_device *device, const tn_linear *linear, int64_t rows, tn_view x,
                              const tn_dropout *dropout);

    /* cos, sin [rows, half]: angle = positions[row] · inv_freq[(row_table ? row_table[row] : 0)·half + i],
     * times `scaling`. fp32. */
    tn_status (*rope_table)(tn_device *device, int64_t rows, int64_t half, const int32_t *positions,
                            const int32_t *row_table, const float *inv_freq, float scaling, float *cos,
                            float *sin);
    /* In place on `heads` heads of head_dim columns: pairs (i, i+half) of the first 2·half columns turn by the
     * angle, or back where `inverse` (the backward pass). */
    tn_status (*rope)(tn_device *device, int64_t rows, int64_t heads, int64_t head_dim, int64_t half, tn_view x,
                      const float *cos, const float *sin, bool inverse);

    /* o [q_rows, heads·head_dim]; lse [q_rows, heads] fp32: ln Σ exp(score), NULL in inference. No T×T matrix
     * exists. */
    tn_status (*attention_forward)(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                   tn_view o, float *lse);
    tn_status (*attention_backward)(tn_device *device, const tn_attention *a, tn_view q, tn_view k, tn_view v,
                                    tn_view o, const float *lse, tn_view d_o, tn_view dq, tn_view dk,
                                    tn_view dv);

    /* y = act(gate) ⊙ up, gate_up [rows, 2·cols] with gate first. */
    tn_status (*gated_forward)(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                               tn_view gate_up, tn_view y);
    /* d_gate_up may be gate_up. */
    tn_status (*gated_backward)(tn_device *device, int64_t rows, int64_t cols, tn_activation activation,
                                tn_view gate_up, tn_view dy, tn_view d_gate_up);

    /* y = act(x), which may be x. */
    tn_status (*activate)(tn_device *device, int64_t rows, int64_t cols, tn_activation activation, tn_view x,
                          tn_view y);

    /* y = a + b. */
    tn_status (*add)(tn_device *device, int64_t rows, int64_t cols, tn_view a, tn_view b, tn_view y);
    /* to[i] = from[index[i]] / to[index[i]] = from[i] (indices are distinct) / to[i] = from[i]. */
    tn_status (*gather_rows)(tn_device *device, int64_t rows, int64_t cols, const int32_t *index, tn_view from,
                             tn_view to);
    tn_status (*scatter_rows)(tn_device *device, int64_t rows, int64_t cols, const int32_t *index, tn_view from,
                              tn_view to);
    tn_status (*copy_rows)(tn_device *device, int64_t rows, int64_t cols, tn_view from, tn_view to);
    /* to_f32: compute-dtype values as floats (logits for the sampler). */
    tn_status (*widen)(tn_device *device, int64_t rows, int64_t cols, tn_view from, float *to);

    /* loss[i] = −ln softmax(cap(logits[i]))[targets[i]] (fp32). Where d_logits.data is not NULL it gets
     * grad_scale·(softmax − onehot) (through the cap); it may be logits. softcap 0 = none. */
    tn_status (*cross_entropy)(tn_device *device, int64_t rows, int64_t vocab, tn_view logits,
                               const int32_t *targets, float softcap, float grad_scale, float *loss,
                               tn_view d_logits);

    /* *total += Σ values, in double, fixed order; *total is on the device. */
    tn_status (*sum)(tn_device *device, int64_t count, const float *values, double *total);
    tn_status (*sum_squares)(tn_device *device, int64_t count, const float *values, double *total);

    /* Optimizers over flat fp32 ranges: PyTorch's decoupled AdamW and SGD (m may be NULL where its momentum is
     * 0); Lion. */
    tn_status (*adamw)(tn_device *device, int64_t count, float *p, const float *g, float *m, float *v,
                       const tn_optimizer_step *step);
    /* AdamW with m and v in 8 bits, the one by the map with a sign and the other by the map without: decoded,
     * updated, used for the step, and then rounded to the nearest code again. */
    tn_status (*adamw_8bit)(tn_device *device, int64_t count, float *p, const float *g, tn_codes m, tn_codes v,
                            const tn_optimizer_step *step);
    tn_status (*sgd)(tn_device *device, int64_t count, float *p, const float *g, float *m,
                     const tn_optimizer_step *step);
    tn_status (*lion)(tn_device *device, int64_t count, float *p, const float *g, float *m,
                      const tn_optimizer_step *step);
};

struct tn_device {
    const tn_backend *backend;
    tn_dtype dtype; /* compute dtype */
    int index;
    char name[128];                    /* "NVIDIA H200", "AMD EPYC, AVX-512 BF16, 2 threads" */
    int64_t memory_total, memory_free; /* bytes when it was opened */
    int64_t context_bytes; /* taken by the driver beside our allocations (a plan segment of its own); 0 on the
                              CPU */
    bool fp8_products;     /* multiplies in FP8 what asks for it (tn_linear_is_fp8) */
    int64_t pinned_share;  /* pinned host bytes for which the driver takes one of the device's; 0 = none */
    int64_t pinnable;      /* host bytes that host_allocate may give, when it was opened; 0 where the device's
                              memory is the host's own and moving anything out of it gains nothing */
    void *scratch;         /* set by the caller, scratch_bytes() large */
    int64_t scratch_size;
};

/* The view that begins at element [row, column] of `view`; of no matrix none. */
static inline tn_view tn_view_at(const tn_device *device, tn_view view, int64_t row, int64_t column) {
    const int64_t element = row * view.stride + column;
    if (view.data) view.data = (char *)view.data + element * tn_dtype_block_bytes(device->dtype);
    return view;
}

/* Does linear_forward multiply by W's codes in FP8? Then x is rounded to E4M3 too, with a scale a row, absmax /
 * 448, while LoRA takes x as it is; u and y are as ever. So it does where a group asks for it, the device can,
 * every part is E4M3 with a scale a row, none has DoRA (rows of g·W are other ones), and the sizes are
 * multiples of 16; elsewhere, and in the backward pass always, products are those of the decoded weights. */
static inline bool tn_linear_is_fp8(const tn_device *device, const tn_linear *linear) {
    bool fits = device->fp8_products && linear->fp8_products && !linear->ratio && linear->in % 16 == 0;
    for (int i = 0; i < linear->parts; i++) {
        const tn_weight *w = &linear->part[i].weight;
        fits = fits && w->dtype == TN_DTYPE_FP8 && tn_scales_by_row(&w->scales, w->cols) && w->rows % 16 == 0;
    }
    return fits;
}

/* Backends compiled in: op/ref and op/cpu. */
const tn_backend *tn_backend_reference(void);
const tn_backend *tn_backend_cpu(void);
/* libtenon-cuda.so, looked for beside the program, in ../lib, and by the loader; NULL where it or the driver is
 * missing, and `why` (static text) says what. It exports `const tn_backend *tn_backend_open(int version)`,
 * version TN_BACKEND_VERSION. */
enum { TN_BACKEND_VERSION = 7 };
const tn_backend *tn_backend_cuda(const char **why);
/* "auto", "auto:1", "cpu", "cuda", "cuda:1" with a compute dtype; `dtype_auto` lets the device choose (bf16
 * where it has it). auto falls back to the CPU and says so through tn_info; an explicit cuda without one is
 * TN_USAGE. */
tn_status tn_device_open(const char *spec, tn_dtype dtype, bool dtype_auto, tn_device **device);
void tn_device_close(tn_device *device);
/* Best measured matrix-product rate of this device in FLOP/s (products of docs/speed.md's list), measured on
 * first use. */
tn_status tn_device_ceiling(tn_device *device, double *flops);

#endif
