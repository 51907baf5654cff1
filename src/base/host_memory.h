/* host_memory.h: how much memory this machine has and how much of it a process can still take, by the kernel's
 * count and by the limit of the container (cgroup) it runs in, whichever is less.
 */
#ifndef TN_BASE_HOST_MEMORY_H
#define TN_BASE_HOST_MEMORY_H

#include <stdint.h>

int64_t tn_host_memory_total(void);
int64_t tn_host_memory_available(void);

#endif
