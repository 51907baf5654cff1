/* lora_config.h: where an adapter's configuration comes from: the keys of a fresh run, or the
 * adapter_config.json of one that is continued, which then decides, and which explicit keys may not silently
 * contradict.
 */
#ifndef TN_TRAIN_LORA_CONFIG_H
#define TN_TRAIN_LORA_CONFIG_H

#include "format/peft_config.h"
#include "train/config.h"

/* From the keys lora_r, lora_alpha, target_modules, … of a fresh run; `targets` takes the place of the last
 * where it is not NULL. */
tn_status tn_lora_config_fresh(const tn_settings *settings, const char *targets, tn_peft_config **config);
/* From `directory`. An explicit key (flag or file) that disagrees is TN_USAGE naming both values; `override`
 * applies what is named there. What the adapter says is inherited into `run`, so that the resolved
 * configuration tells it. */
tn_status tn_lora_config_continue(tn_config *run, const tn_settings *settings, const char *directory,
                                  tn_peft_config **config);

#endif
