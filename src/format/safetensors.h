/* safetensors.h: reading (mapped, all header rules checked) and writing of
 * safetensors files. A reader's tensors point into the mapping and live as long as the reader.
 */
#ifndef TN_FORMAT_SAFETENSORS_H
#define TN_FORMAT_SAFETENSORS_H

#include "base/dtype.h"
#include "base/file.h"
#include "base/json.h"
#include "format/tensor.h"

typedef struct tn_safetensors tn_safetensors;

/* Opens one file. Errors: TN_USAGE (no such file), TN_BAD_DATA (with file, tensor and rule). */
tn_status tn_safetensors_open(const char *path, tn_safetensors **file);
void tn_safetensors_close(tn_safetensors *file);
int64_t tn_safetensors_count(const tn_safetensors *file);
/* Tensors in the order of their data. */
const tn_tensor_info *tn_safetensors_at(const tn_safetensors *file, int64_t index);
const tn_tensor_info *tn_safetensors_find(const tn_safetensors *file, const char *name); /* NULL where absent */
const tn_json *tn_safetensors_metadata(const tn_safetensors *file); /* object, may be NULL */

/* Writing: declare all tensors, then give each one's data when asked (the writer orders the file by dtype, then
 * name, as the reference library does). Plain dtypes only; a name twice is an error. Saves atomically. */
typedef struct tn_safetensors_writer tn_safetensors_writer;
tn_status tn_safetensors_writer_new(tn_safetensors_writer **writer);
tn_status tn_safetensors_declare(tn_safetensors_writer *writer, const char *name, tn_dtype dtype, int rank,
                                 const int64_t *shape);
tn_status tn_safetensors_metadata_add(tn_safetensors_writer *writer, const char *key, const char *value);
/* Calls `data(user, index_of_declaration, …)` for each tensor in file order; it returns the bytes
 * (whole tensor) which must stay valid until the next call. */
typedef tn_status tn_tensor_source(void *user, int64_t declared, const void **bytes);
tn_status tn_safetensors_write(tn_safetensors_writer *writer, const char *path, tn_tensor_source *data,
                               void *user);
void tn_safetensors_writer_free(tn_safetensors_writer *writer);

#endif
