/* Rank-aware log on stderr: what a person reads while a run goes on. Rank 0 speaks for all; an error is one
 * line. No MPI is needed: a program that never calls lt_log_set_rank() is rank 0 (lt_grid_open() calls it).
 * Each line is one write(2), so that the lines of several ranks do not mix, and control characters in it are
 * written as \xNN, so that it stays one line whatever a file name holds. All functions are local and
 * thread-safe.
 */
#ifndef LT_COMM_LOG_H
#define LT_COMM_LOG_H

#include <stddef.h>

/* Says which rank this process is; only rank 0 prints information and warnings. */
void lt_log_set_rank(int rank);

/* One line of information, rank 0 only. A newline is added. */
__attribute__((format(printf, 1, 2))) void lt_log_info(const char *format, ...);

/* One line `lazytrain: warning: ...`, rank 0 only. */
__attribute__((format(printf, 1, 2))) void lt_log_warning(const char *format, ...);

/* One line `lazytrain: error: MESSAGE`, from whichever rank calls it. */
void lt_log_error(const char *message);

/* One line `lazytrain: MESSAGE`, from whichever rank calls it; left out where stderr would block. */
void lt_log_aside(const char *message);

/* Keeps a progress line at the foot of a terminal: `line` replaces the one before it, other output goes above
 * it. With `line` NULL the progress line is ended and stays on the screen. A line wider than the terminal is
 * cut. Rank 0 only; the caller asks isatty(STDERR_FILENO) first. */
void lt_log_progress(const char *line);

/* "12s", "3m 05s", "2h 10m", "4d 06h" into `text`. */
void lt_log_duration(double seconds, char *text, size_t size);

#endif
