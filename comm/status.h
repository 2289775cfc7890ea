/* Status values and the one error message.
 *
 * Every function that can fail returns an lt_status. The message is written once, where the failure is known,
 * by lt_fail(); LT_CHECK() carries the status upwards and only the top (trainer/main.c) prints it. The values
 * are the process's exit codes, so what a function returns is what a script sees. No MPI is needed here.
 */
#ifndef LT_COMM_STATUS_H
#define LT_COMM_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lt_status {
    LT_OK = 0,        /* done */
    LT_FAILED = 1,    /* failed for a reason that will repeat: non-finite loss, bad token in a shard */
    LT_BAD_INPUT = 2, /* usage, config or input error, found before any step */
    LT_IO = 74,       /* I/O error, lost peer, watchdog: may be transient */
    LT_STOPPED = 75,  /* checkpointed after a signal, wants to go on */
} lt_status;

/* Bytes that a message may take, its end included; a longer one is cut and ends in "...". */
enum { LT_ERROR_MESSAGE_BYTES = 4096 };

/* Stores the message for this thread and returns `status`. The message says what, where (file, key, line,
 * offset), what was found, what was expected and what to do, in one line. lt_error_message() may be among the
 * arguments. Local, thread-safe. */
__attribute__((format(printf, 2, 3))) lt_status lt_fail(lt_status status, const char *format, ...);
#ifdef __clang_analyzer__ /* the analyser cannot see that the status comes back */
#define lt_fail(status, ...) ((void)lt_fail(status, __VA_ARGS__), (status))
#endif

/* The message of the last lt_fail() of this thread; "" before any. Owned by the library, valid until the
 * next. */
const char *lt_error_message(void);

#ifdef __cplusplus
}
#endif

/* Returns from the enclosing function with the status of `call` unless it is LT_OK. */
#define LT_CHECK(call) \
    do { \
        lt_status lt_check_status_ = (call); \
        if (lt_check_status_ != LT_OK) return lt_check_status_; \
    } while (0)

/* The same for a function with one exit: stores the status in `variable` and jumps to the label `done`. */
#define LT_CHECK_DONE(variable, call) \
    do { \
        (variable) = (call); \
        if ((variable) != LT_OK) goto done; \
    } while (0)

#endif
