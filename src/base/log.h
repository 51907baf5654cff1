/* log.h: lines of information and warning on their way to the caller's function (tn_log_set). The
 * library itself never prints. */
#ifndef TN_BASE_LOG_H
#define TN_BASE_LOG_H

#include <tenon/tenon.h>

TN_API void tn_info(const char *format, ...) TN_PRINTF(1, 2);
TN_API void tn_warn(const char *format, ...) TN_PRINTF(1, 2);

#endif
