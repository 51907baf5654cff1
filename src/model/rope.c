/* rope.c: the rope kinds. Formulas: Transformers' modeling_rope_utils.py, fp32
 * where it is fp32 there, since angles at position 100,000 show a last-bit difference in inv_freq.
 */
#include "model/rope.h"

#include <math.h>
#include <string.h>

#include "base/str.h"

static const double pi = 3.14159265358979323846;

static const struct {
    const char *name;
    tn_rope_kind kind;
} kinds[] = {
    {"default", TN_ROPE_DEFAULT}, {"mrope", TN_ROPE_DEFAULT}, {"linear", TN_ROPE_LINEAR},
    {"dynamic", TN_ROPE_DYNAMIC}, {"yarn", TN_ROPE_YARN},     {"longrope", TN_ROPE_LONGROPE},
    {"su", TN_ROPE_LONGROPE},     {"llama3", TN_ROPE_LLAMA3},
};

static tn_status read_factors(tn_arena *arena, const tn_json *list, int64_t half, const char *key,
                              const char *name, const float **out) {
    if (!list || list->type != TN_JSON_ARRAY || list->count != half)
        return tn_fail(TN_BAD_DATA, "%s: rope %s needs a list of %lld numbers", name, key, (long long)half);
    float *values = tn_arena_take(arena, half * (int64_t)sizeof *values);
    if (!values) return tn_fail_memory(half * 4, "rope factors");
    for (int64_t i = 0; i < half; i++) {
        values[i] = (float)tn_json_number(tn_json_at(list, i), NAN);
        if (!(values[i] > 0) || isinf(values[i]))
            return tn_fail(TN_BAD_DATA, "%s: rope %s[%lld] is not a positive number", name, key, (long long)i);
    }
    *out = values;
    return TN_OK;
}

static tn_status check(const tn_rope *rope, const char *name) {
    bool sane = rope->theta > 0 && isfinite(rope->theta) && rope->factor > 0 && isfinite(rope->factor) &&
                rope->original_length > 0 && rope->half > 0;
    if (rope->kind == TN_ROPE_LLAMA3) sane = sane && rope->high_freq_factor > rope->low_freq_factor;
    if (sane) return TN_OK;
    tn_fail(TN_BAD_DATA, "%s: impossible rope settings (theta %g, factor %g, original length %lld)", name,
            rope->theta, rope->factor, (long long)rope->original_length);
    return tn_remedy("check rope_theta and rope_scaling in config.json");
}

tn_status tn_rope_read(tn_arena *arena, const tn_json *scaling, const tn_json *divisors, double theta,
                       int64_t head_dim, int64_t original_length, int64_t max_positions, const char *name,
                       tn_rope *rope) {
    tn_status status = TN_OK;
    const tn_json *type = tn_json_get(scaling, "rope_type");
    if (tn_json_is_null(type)) type = tn_json_get(scaling, "type");
    const char *kind = tn_json_string(type, "default");
    *rope = (tn_rope){.theta = tn_json_number(tn_json_get(scaling, "rope_theta"), theta)};
    rope->half = head_dim / 2;
    rope->max_positions = max_positions;
    rope->factor = tn_json_number(tn_json_get(scaling, "factor"), 1.0);
    rope->low_freq_factor = tn_json_number(tn_json_get(scaling, "low_freq_factor"), 1.0);
    rope->high_freq_factor = tn_json_number(tn_json_get(scaling, "high_freq_factor"), 4.0);
    rope->beta_fast = tn_json_number(tn_json_get(scaling, "beta_fast"), 32.0);
    rope->beta_slow = tn_json_number(tn_json_get(scaling, "beta_slow"), 1.0);
    rope->attention_factor = tn_json_number(tn_json_get(scaling, "attention_factor"), NAN);
    rope->mscale = tn_json_number(tn_json_get(scaling, "mscale"), 0.0);
    rope->mscale_all_dim = tn_json_number(tn_json_get(scaling, "mscale_all_dim"), 0.0);
    rope->truncate = tn_json_boolean(tn_json_get(scaling, "truncate"), true);
    rope->original_length =
        original_length > 0
            ? original_length
            : tn_json_integer(tn_json_get(scaling, "original_max_position_embeddings"), max_positions);
    size_t i = 0, n = sizeof kinds / sizeof *kinds;
    while (i < n && strcmp(kind, kinds[i].name) != 0) i++;
    if (i == n) {
        tn_fail(TN_USAGE, "%s: unknown rope type \"%s\"", name, kind);
        return tn_remedy("known: default, linear, dynamic, yarn, longrope, llama3");
    }
    rope->kind = kinds[i].kind;
    if (rope->kind == TN_ROPE_LONGROPE) {
        TN_TRY(read_factors(arena, tn_json_get(scaling, "long_factor"), rope->half, "long_factor", name,
                            &rope->long_factor));
        TN_TRY(read_factors(arena, tn_json_get(scaling, "short_factor"), rope->half, "short_factor", name,
                            &rope->short_factor));
    }
    /* Without a factor the two lengths say it (Phi-3, DeepSeek). */
    bool by_lengths = rope->kind == TN_ROPE_LONGROPE || rope->kind == TN_ROPE_YARN;
    if (by_lengths && tn_json_is_null(tn_json_get(scaling, "factor")))
        rope->factor = (double)max_positions / (double)rope->original_length;
    if (!tn_json_is_null(divisors) && rope->kind == TN_ROPE_DEFAULT) {
        TN_TRY(read_factors(arena, divisors, rope->half, "divisors", name, &rope->divisors));
        rope->kind = TN_ROPE_DIVISORS;
    }
    status = check(rope, name);
done:
    return status;
}

/* Members of the key; those of multimodal models are known, and have no effect here. */
static const struct {
    const char *name;
    enum { NUMBER, POSITIVE, BOOLEAN, TEXT, LIST } type;
} members[] = {
    {"rope_type", TEXT},          {"type", TEXT},
    {"factor", POSITIVE},         {"original_max_position_embeddings", POSITIVE},
    {"rope_theta", POSITIVE},     {"partial_rotary_factor", POSITIVE},
    {"low_freq_factor", NUMBER},  {"high_freq_factor", NUMBER},
    {"beta_fast", NUMBER},        {"beta_slow", NUMBER},
    {"attention_factor", NUMBER}, {"mscale", NUMBER},
    {"mscale_all_dim", NUMBER},   {"truncate", BOOLEAN},
    {"long_factor", LIST},        {"short_factor", LIST},
    {"mrope_section", LIST},      {"mrope_interleaved", BOOLEAN},
};
enum { MEMBERS = sizeof members / sizeof *members };

static tn_status fail_member(const char *name) {
    const char *nearest = NULL;
    int best = (int)strlen(name) / 2 + 2;
    for (int i = 0; i < MEMBERS; i++) {
        int distance = tn_edit_distance(name, members[i].name);
        if (distance < best) best = distance, nearest = members[i].name;
    }
    tn_fail(TN_USAGE, "rope_scaling: unknown member '%s'%s%s%s", name, nearest ? "; did you mean '" : "",
            nearest ? nearest : "", nearest ? "'?" : "");
    return tn_remedy("its members are those of rope_scaling in config.json: rope_type, factor and the like");
}

static tn_status check_member(const tn_member *m) {
    static const char *const expected[] = {"a number", "a positive number", "true or false", "a text",
                                           "a list of numbers"};
    const tn_json *value = &m->value;
    double number = tn_json_number(value, NAN);
    int i = 0;
    while (i < MEMBERS && strcmp(m->key, members[i].name) != 0) i++;
    if (i == MEMBERS) return fail_member(m->key);
    bool fits = members[i].type == NUMBER     ? isfinite(number)
                : members[i].type == POSITIVE ? isfinite(number) && number > 0
                : members[i].type == BOOLEAN  ? value->type == TN_JSON_BOOLEAN
                : members[i].type == TEXT     ? value->type == TN_JSON_STRING
                                              : value->type == TN_JSON_ARRAY;
    if (fits || value->type == TN_JSON_NULL) return TN_OK;
    tn_fail(TN_USAGE, "rope_scaling: %s is %s, %s was expected", m->key, tn_json_type_name(value),
            expected[members[i].type]);
    return tn_remedy("for example --rope_scaling '{\"rope_type\":\"yarn\",\"factor\":4}'");
}

tn_status tn_rope_check_key(const tn_json *scaling) {
    static const char *const by_factor[] = {"linear", "dynamic", "llama3", "yarn"};
    const tn_json *type = tn_json_get(scaling, "rope_type");
    if (tn_json_is_null(type)) type = tn_json_get(scaling, "type");
    bool other_says = tn_json_is_string(type, "yarn") &&
                      !tn_json_is_null(tn_json_get(scaling, "original_max_position_embeddings"));
    for (int64_t i = 0; i < scaling->count; i++) {
        tn_status status = check_member(&scaling->members[i]);
        if (status != TN_OK) return status;
    }
    for (size_t i = 0; i < sizeof by_factor / sizeof *by_factor; i++) {
        if (!tn_json_is_string(type, by_factor[i]) || other_says) continue;
        if (!tn_json_is_null(tn_json_get(scaling, "factor"))) continue;
        tn_fail(TN_USAGE, "rope_scaling: %s without a factor stretches nothing", by_factor[i]);
        return tn_remedy("for example --rope_scaling '{\"rope_type\":\"%s\",\"factor\":4}'", by_factor[i]);
    }
    return TN_OK;
}

bool tn_rope_by_length(const tn_rope *rope) {
    return rope->kind == TN_ROPE_DYNAMIC || rope->kind == TN_ROPE_LONGROPE;
}

/* θ^(2i/D) the way torch computes it: exponent and power in fp32. */
static float power(float theta, int64_t i, int64_t half) {
    return powf(theta, (float)(2 * i) / (float)(2 * half));
}

/* A number over a tensor is its reciprocal times the number there. */
static float llama3(const tn_rope *rope, float inv) {
    const double length = (double)rope->original_length;
    const float wavelength = 1 / inv * (float)(2 * pi), factor = (float)rope->factor;
    if (wavelength < (float)(length / rope->high_freq_factor)) return inv;
    if (wavelength > (float)(length / rope->low_freq_factor)) return inv / factor;
    const float smooth = (1 / wavelength * (float)length - (float)rope->low_freq_factor) /
                         (float)(rope->high_freq_factor - rope->low_freq_factor);
    return (1 - smooth) * inv / factor + smooth * inv;
}

/* Index of the pair that turns `rotations` times over the original length. */
static double yarn_index(const tn_rope *rope, double rotations) {
    double d = 2.0 * (double)rope->half;
    return d * log((double)rope->original_length / (rotations * 2 * pi)) / (2 * log(rope->theta));
}

static void yarn(const tn_rope *rope, float *inv_freq) {
    double low = yarn_index(rope, rope->beta_fast), high = yarn_index(rope, rope->beta_slow);
    if (rope->truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0), high = fmin(high, 2.0 * (double)rope->half - 1);
    if (low == high) high += 0.001;
    const float theta = (float)rope->theta, factor = (float)rope->factor;
    for (int64_t i = 0; i < rope->half; i++) {
        const float wave = power(theta, i, rope->half);
        const float ramp = ((float)i - (float)low) / (float)(high - low);
        const float kept = 1 - fminf(fmaxf(ramp, 0), 1);
        inv_freq[i] = 1 / (factor * wave) * (1 - kept) + 1 / wave * kept;
    }
}

/* The length is a tensor there, so all that is made of it is fp32, but the exponent is not. */
static float dynamic_theta(const tn_rope *rope, int64_t length) {
    const double d = 2.0 * (double)rope->half;
    const float longer = (float)rope->factor * (float)length / (float)rope->max_positions;
    const float stretch = longer - (float)(rope->factor - 1);
    return (float)rope->theta * (float)pow((double)stretch, d / (d - 2));
}

void tn_rope_inv_freq(const tn_rope *rope, int64_t length, float *inv_freq) {
    float theta = (float)rope->theta;
    if (rope->kind == TN_ROPE_YARN) {
        yarn(rope, inv_freq);
        return;
    }
    if (rope->kind == TN_ROPE_DYNAMIC && length > rope->max_positions) theta = dynamic_theta(rope, length);
    for (int64_t i = 0; i < rope->half; i++) {
        float inv = 1 / power(theta, i, rope->half);
        switch (rope->kind) {
            case TN_ROPE_LINEAR: inv = inv / (float)rope->factor; break;
            case TN_ROPE_LLAMA3: inv = llama3(rope, inv); break;
            case TN_ROPE_LONGROPE: {
                const float *stretch = length > rope->original_length ? rope->long_factor : rope->short_factor;
                inv = 1 / (stretch[i] * power(theta, i, rope->half));
                break;
            }
            case TN_ROPE_DIVISORS: inv = inv / rope->divisors[i]; break;
            default: break;
        }
        inv_freq[i] = inv;
    }
}

float tn_rope_scaling(const tn_rope *rope) {
    double f = rope->factor;
    if (rope->kind != TN_ROPE_YARN && rope->kind != TN_ROPE_LONGROPE) return 1.0f;
    if (!isnan(rope->attention_factor)) return (float)rope->attention_factor;
    if (rope->kind == TN_ROPE_LONGROPE)
        return f <= 1 ? 1.0f : (float)sqrt(1 + log(f) / log((double)rope->original_length));
    if (f <= 1) return 1.0f;
    if (rope->mscale > 0 && rope->mscale_all_dim > 0)
        return (float)((0.1 * rope->mscale * log(f) + 1) / (0.1 * rope->mscale_all_dim * log(f) + 1));
    return (float)(0.1 * log(f) + 1);
}
