/* quantised.h: a plain model directory as one that bitsandbytes has quantised, in the layout that Transformers
 * saves and loads without being asked (bnb_state.h): the projections of the layers in NF4 or 8-bit integers,
 * every other tensor in its own dtype, and a quantization_config in config.json.
 */
#ifndef TN_EXPORT_QUANTISED_H
#define TN_EXPORT_QUANTISED_H

#include "export/staging.h"
#include "format/model_files.h"
#include "model/arch.h"

/* Writes weights, config.json and the files that go along (tokenizer, templates, generation_config.json). `to`
 * is NF4 or LLM_INT8. The bytes are those that load_in_4bit and load_in_8bit hold. Errors: TN_BAD_DATA for a
 * value that is not finite; TN_STORAGE, TN_INTERRUPTED. */
tn_status tn_write_quantised(const tn_arch *arch, const tn_model_files *files, tn_dtype to,
                             const tn_staging *staging);

#endif
