/* merged.h: a base with its adapter as one model, tensor by tensor. The list says what the merged model
 * consists of; the values of a tensor are made when they are asked for, in fp32 and Hugging Face's order, so
 * that whoever writes them (safetensors, GGUF) holds one tensor at a time and rounds once.
 *
 * Without an adapter it is the base itself. Untouched tensors are known as such: a writer may copy their bytes.
 */
#ifndef TN_EXPORT_MERGED_H
#define TN_EXPORT_MERGED_H

#include "model/adapter.h"

typedef struct tn_merged_tensor {
    const char *name; /* Hugging Face's */
    tn_module module;
    int64_t layer; /* -1 outside the layers */
    bool bias;
    int rank;                   /* 2, or 1 for a norm or bias */
    int64_t shape[2], count;    /* [out, in]; [n, 1] */
    const tn_tensor_info *base; /* what it begins with; of a head that leaves its embedding, the embedding */
    const tn_param *full;       /* takes the base's place, or NULL */
    const tn_param *a, *b;      /* LoRA on it, or NULL */
    const tn_param *magnitude;  /* DoRA's, or NULL */
    const tn_param *rows;       /* take the place of the base's rows of their ids, or NULL */
} tn_merged_tensor;

typedef struct tn_merged {
    tn_arena arena;
    const tn_arch *arch;
    const tn_model_files *files;
    const tn_adapter *adapter;
    tn_safetensors *adapter_file;   /* NULL without an adapter */
    const tn_tensor_info **trained; /* [adapter->param_count] the file's tensor of each parameter */
    tn_merged_tensor *tensors;
    int64_t count, capacity;
    bool head_apart; /* the base is tied, and the adapter has made the head another matrix than the embedding */
} tn_merged;

/* `directory` NULL: no adapter (`adapter` is then the empty one). All pointers must outlive the result. Errors:
 * TN_BAD_DATA for a base that lacks a tensor, and as tn_adapter_open. */
tn_status tn_merged_open(const tn_arch *arch, const tn_model_files *files, const tn_adapter *adapter,
                         const char *directory, tn_merged *merged);
void tn_merged_close(tn_merged *merged);
/* Does the adapter change it? */
bool tn_merged_changes(const tn_merged_tensor *tensor);
/* W, or W + scale·B·A (with DoRA its rows as long as the magnitude says), or what was trained in its place:
 * [count] in fp32. */
tn_status tn_merged_values(const tn_merged *merged, const tn_merged_tensor *tensor, float *values);
/* Elements of the largest tensor. */
int64_t tn_merged_largest(const tn_merged *merged);

#endif
