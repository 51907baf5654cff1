/* base_format.c: checkpoint against settings. What tensors are decides, since it is they that are read;
 * quantization_config of config.json only where there are none (plan), and to refuse what nobody here reads.
 */
#include "train/base_format.h"

#include <string.h>

#include "base/log.h"

/* The first quantised tensor; NULL where all are plain. */
static const tn_tensor_info *find_quantised(const tn_model_files *files) {
    for (int64_t i = 0; files && i < tn_model_files_count(files); i++)
        if (tn_dtype_is_block(tn_model_files_at(files, i)->dtype)) return tn_model_files_at(files, i);
    return NULL;
}

static bool says(const tn_json *quantisation, const char *key, const char *underscored) {
    return tn_json_boolean(tn_json_get(quantisation, key), false) ||
           tn_json_boolean(tn_json_get(quantisation, underscored), false);
}

/* What quantization_config claims: NF4, LLM_INT8, FP8, or F32 for nothing. Older files of bitsandbytes name no
 * method. */
static tn_status read_claim(const tn_settings *s, const tn_json *config, tn_dtype *claim) {
    const tn_json *quantisation = tn_json_get(config, "quantization_config");
    const char *method = tn_json_string(tn_json_get(quantisation, "quant_method"), "bitsandbytes");
    *claim = TN_DTYPE_F32;
    if (tn_json_is_null(quantisation)) return TN_OK;
    if (strcmp(method, "fp8") == 0 || strcmp(method, "fbgemm_fp8") == 0 ||
        (strcmp(method, "compressed-tensors") == 0 &&
         tn_json_is_string(tn_json_get(quantisation, "format"), "float-quantized"))) {
        *claim = TN_DTYPE_FP8;
        return TN_OK;
    }
    if (strcmp(method, "bitsandbytes") != 0) {
        tn_fail(TN_USAGE, "%s is quantised by %s, which is not supported by this version", s->model, method);
        return tn_remedy(
            "give the 16-bit model (with load_in_4bit or load_in_8bit, where memory is short), one quantised "
            "by "
            "bitsandbytes or in FP8, or a GGUF file");
    }
    if (says(quantisation, "load_in_4bit", "_load_in_4bit")) *claim = TN_DTYPE_NF4;
    else if (says(quantisation, "load_in_8bit", "_load_in_8bit")) *claim = TN_DTYPE_LLM_INT8;
    return TN_OK;
}

/* Is the format the one that the flag asks for? */
static bool agrees(tn_dtype held, tn_dtype asked) {
    return held == asked || (held == TN_DTYPE_FP4 && asked == TN_DTYPE_NF4);
}

tn_status tn_base_format(const tn_settings *s, const tn_model_files *files, const tn_json *config,
                         tn_dtype *quantise_to) {
    const tn_dtype asked = s->load_in_4bit   ? TN_DTYPE_NF4
                           : s->load_in_8bit ? TN_DTYPE_LLM_INT8
                           : s->load_in_fp8  ? TN_DTYPE_FP8
                                             : TN_DTYPE_F32;
    const char *key = asked == TN_DTYPE_NF4   ? "load_in_4bit"
                      : asked == TN_DTYPE_FP8 ? "load_in_fp8"
                                              : "load_in_8bit";
    tn_dtype held;
    const tn_tensor_info *quantised = find_quantised(files);
    tn_status status = read_claim(s, config, &held);
    *quantise_to = asked;
    if (status != TN_OK) return status;
    if (quantised) held = quantised->dtype;
    else if (files && tn_model_files_count(files) > 0) held = TN_DTYPE_F32;
    if (held == TN_DTYPE_F32) return TN_OK;
    if (asked && !agrees(held, asked)) {
        tn_fail(TN_USAGE, "%s is quantised already (%s), and %s asks for %s", s->model, tn_dtype_name(held),
                key, asked == TN_DTYPE_LLM_INT8 ? "8-bit integers" : tn_dtype_name(asked));
        return tn_remedy("leave %s out: the base is trained on as it is; or give its 16-bit model", key);
    }
    if (s->full_finetuning) {
        tn_fail(TN_USAGE, "full_finetuning trains every weight, and those of %s are quantised (%s)", s->model,
                tn_dtype_name(held));
        return tn_remedy("give its 16-bit model, or train a LoRA adapter (full_finetuning: false)");
    }
    *quantise_to = quantised ? TN_DTYPE_F32 : held;
    if (!quantised) /* no weights to look at */
        tn_info("%s: every linear layer counts as %s%s; modules that were skipped are larger", s->model,
                tn_dtype_name(held), held == TN_DTYPE_NF4 ? " with double quantisation" : "");
    return TN_OK;
}
