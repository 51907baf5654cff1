/* model_write.h: writing the weights of a model directory: model.safetensors, or shards with their index. The
 * tensors are declared first; their bytes are asked for one tensor at a time. Every file is saved atomically,
 * the index last.
 */
#ifndef TN_EXPORT_MODEL_WRITE_H
#define TN_EXPORT_MODEL_WRITE_H

#include "format/safetensors.h"

typedef struct tn_model_writer tn_model_writer;
tn_status tn_model_writer_new(tn_model_writer **writer);
void tn_model_writer_free(tn_model_writer *writer);
/* `file`: the name of the shard it goes into, for all tensors or for none. NULL: files are filled in the order
 * of declaration up to 5 GB each. */
tn_status tn_model_writer_add(tn_model_writer *writer, const char *name, tn_dtype dtype, int rank,
                              const int64_t *shape, const char *file);
/* A further member of every file's __metadata__; {"format": "pt"} is always there. */
tn_status tn_model_writer_metadata(tn_model_writer *writer, const char *key, const char *value);
/* Calls data(user, index of declaration, …) for every tensor, file by file. */
tn_status tn_model_writer_save(tn_model_writer *writer, const char *directory, tn_tensor_source *data,
                               void *user);

/* Copies those of the files `names` that are in the directory `from`. */
tn_status tn_copy_files(const char *from, const char *to, const char *const *names, int64_t count);

#endif
