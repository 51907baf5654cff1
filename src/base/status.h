/* status.h: how errors travel inside the library.
 *
 * A function that can fail returns tn_status. Whoever finds the fault calls tn_fail() once, which
 * stores message and remedy for the calling thread; everyone above passes the status on with TN_TRY,
 * which jumps to the label `done` where resources are released. One message, one owner, no printing.
 */
#ifndef TN_BASE_STATUS_H
#define TN_BASE_STATUS_H

#include <tenon/tenon.h>

/* Stores the message (printf style) and returns `status`. Clears an earlier remedy. */
TN_API tn_status tn_fail(tn_status status, const char *format, ...) TN_PRINTF(2, 3);
/* Adds what the user can do to the failure just stored; returns the stored status. */
TN_API tn_status tn_remedy(const char *format, ...) TN_PRINTF(1, 2);
/* Puts "<context>: " in front of the message of a failure on its way up; returns `status`. */
TN_API tn_status tn_context(tn_status status, const char *format, ...) TN_PRINTF(2, 3);
/* TN_STORAGE (or TN_USAGE for a missing path) with strerror(errno): "<verb> <path>: <reason>". */
TN_API tn_status tn_fail_errno(const char *verb, const char *path);
/* TN_FAILED for an allocation of `bytes` that failed. */
TN_API tn_status tn_fail_memory(int64_t bytes, const char *what);

/* Needs a variable `status` and a label `done` in the function around it. */
#define TN_TRY(call)                    \
    do {                                \
        status = (call);                \
        if (status != TN_OK) goto done; \
    } while (0)

/* Fails with a message and goes to `done`. */
#define TN_THROW(...)                  \
    do {                               \
        status = tn_fail(__VA_ARGS__); \
        goto done;                     \
    } while (0)

/* clang's analyzer reads one file at a time and cannot know that these never return TN_OK; here it is told. And
 * TN_KNOWN tells it (nobody else) what follows from code that it does not follow. */
#ifdef __clang_analyzer__
#define TN_KNOWN(condition)                        \
    do {                                           \
        if (!(condition)) __builtin_unreachable(); \
    } while (0)
static inline void tn_told(const char *format, ...) { (void)format; }
static inline tn_status tn_failure(tn_status status) {
    if (status == TN_OK) __builtin_unreachable();
    return status;
}
#define tn_fail(status, ...) (tn_told(__VA_ARGS__), tn_failure(status))
#define tn_remedy(...) (tn_told(__VA_ARGS__), tn_failure(TN_FAILED))
#define tn_fail_errno(verb, path) tn_failure(TN_STORAGE)
#define tn_fail_memory(bytes, what) tn_failure(TN_FAILED)
#else
#define TN_KNOWN(condition) ((void)0)
#endif

#endif
