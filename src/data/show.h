/* show.h: a sample as a person can read it. */
#ifndef TN_DATA_SHOW_H
#define TN_DATA_SHOW_H

#include "data/dataset.h"

/* Appends the decoded sample; what carries no loss stands between ⟦ and ⟧. The first token never carries one,
 * but is shown by its label. Special tokens are shown. `chat` NULL: the ids as numbers. */
tn_status tn_show_sample(const tn_chat *chat, tn_sample sample, tn_str *out);

#endif
