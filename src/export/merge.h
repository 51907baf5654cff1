/* merge.h: base + adapter written as a model directory of its own: weights rounded once to the dtype that the
 * base stores them in, in files like the base's, and a config.json that says what the result is.
 */
#ifndef TN_EXPORT_MERGE_H
#define TN_EXPORT_MERGE_H

#include "export/merged.h"
#include "export/staging.h"

/* Member of the weights' __metadata__ that holds the digests of the adapters merged into them, comma-separated.
 */
extern const char tn_merged_adapters_key[];

/* Weights into the staged directory. Untouched plain tensors keep their bytes, also those that the engine does
 * not know; of a GGUF base, blocks are decoded to bf16. `digits` is the adapter's digest. Errors: TN_NUMERIC
 * where a value is beyond float16's range; TN_STORAGE, TN_INTERRUPTED. */
tn_status tn_merge_weights(const tn_merged *merged, const char *digits, const tn_staging *staging);
/* config.json and, where the base has it, generation_config.json. `rope_scaling` replaces the base's where not
 * NULL. A config.json in which nothing changes is copied byte for byte. */
tn_status tn_merge_config(const tn_merged *merged, const tn_json *rope_scaling, const char *directory);

#endif
