/* model_files.h: a base model on disk seen as one thing, be it a Hugging Face directory (config.json,
 * one or many safetensors) or a GGUF file: its configuration as one JSON tree in Hugging Face's terms,
 * and its tensors under Hugging Face's names.
 *
 * For GGUF the configuration is made from the metadata ("model_type" llama, qwen2, qwen3, …; keys as in
 * config.json, rope_freqs.weight turned into "tenon_rope_divisors"), names are translated (gguf_model.h),
 * and q/k rows of the llama layout are flagged `permuted`: the weights' reader undoes it. Groups of tensors
 * that are one weight, of bitsandbytes (bnb_state.h) or in FP8 (fp8_state.h), count as one tensor.
 */
#ifndef TN_FORMAT_MODEL_FILES_H
#define TN_FORMAT_MODEL_FILES_H

#include "base/json.h"
#include "format/tensor.h"

typedef struct tn_model_files tn_model_files;

typedef enum tn_model_files_kind {
    TN_MODEL_DIRECTORY,
    TN_MODEL_GGUF,
    TN_MODEL_CONFIG_ONLY
} tn_model_files_kind;

/* `path`: a directory, a .gguf file (known by its magic), or a config.json (no tensors then).
 * `need_weights` false opens a directory with config.json alone. */
tn_status tn_model_files_open(const char *path, bool need_weights, tn_model_files **files);
void tn_model_files_close(tn_model_files *files);
tn_model_files_kind tn_model_files_get_kind(const tn_model_files *files);
const char *tn_model_files_path(const tn_model_files *files);
const tn_json *tn_model_files_config(const tn_model_files *files);
const tn_json *tn_model_files_generation_config(const tn_model_files *files); /* NULL where absent */
/* A text of the safetensors' __metadata__ (of the first file that has it); NULL where absent. */
const char *tn_model_files_metadata(const tn_model_files *files, const char *key);
int64_t tn_model_files_count(const tn_model_files *files);
const tn_tensor_info *tn_model_files_at(const tn_model_files *files, int64_t index);
/* By Hugging Face name ("model.layers.0.self_attn.q_proj.weight"); NULL where absent. */
const tn_tensor_info *tn_model_files_find(const tn_model_files *files, const char *name);
/* True where the rows of this tensor are in llama.cpp's interleaved order (q and k of the llama layout):
 * stored row 2j+p of a head is row p·(head_dim/2)+j. */
bool tn_model_files_permuted(const tn_model_files *files, const tn_tensor_info *tensor);
/* XXH128 over headers, names, shapes and sizes (not over 16 GB of weights). */
tn_status tn_model_files_hash(const tn_model_files *files, char digits[33]);
/* Hash of a sample of the values: of every tensor the first and last 4 KiB and four pages between, or all of a
 * small one. The files must have been opened with their weights. */
tn_status tn_model_files_sample(const tn_model_files *files, char digits[33]);

#endif
