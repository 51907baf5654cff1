/* base_format.h: the format the base's linear weights are held in, from what the checkpoint holds and what
 * load_in_4bit, load_in_8bit and load_in_fp8 ask for.
 */
#ifndef TN_TRAIN_BASE_FORMAT_H
#define TN_TRAIN_BASE_FORMAT_H

#include "format/model_files.h"
#include "train/config.h"

/* The dtype that plain weights are quantised to while they are loaded (tn_source.quantise_to), F32 for none.
 * `files` may be NULL (a shape's name), `config` is the tree of config.json. TN_USAGE where the checkpoint is
 * quantised and the settings ask for something else, or by a method that is not supported. */
tn_status tn_base_format(const tn_settings *settings, const tn_model_files *files, const tn_json *config,
                         tn_dtype *quantise_to);

#endif
