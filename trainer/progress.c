#include "trainer/progress.h"

#include "comm/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Open MPI gives its ranks a pipe for stderr; the launcher's own stderr tells whether a person watches it. */
static bool launcher_on_terminal(void) {
    char link[64], target[64];
    snprintf(link, sizeof link, "/proc/%ld/comm", (long)getppid());
    FILE *file = fopen(link, "r");
    if (file == NULL) return false;
    const bool named = fgets(target, sizeof target, file) != NULL;
    fclose(file);
    if (!named || (strncmp(target, "mpirun", 6) != 0 && strncmp(target, "orterun", 7) != 0)) return false;
    snprintf(link, sizeof link, "/proc/%ld/fd/2", (long)getppid());
    const ssize_t length = readlink(link, target, sizeof target - 1);
    if (length <= 0) return false;
    target[length] = '\0';
    return strncmp(target, "/dev/pts/", 9) == 0 || strncmp(target, "/dev/tty", 8) == 0;
}

bool lt_progress_on_terminal(void) {
    return isatty(STDERR_FILENO) || launcher_on_terminal();
}

void lt_progress_show(const lt_progress *progress, bool on_terminal, bool logged) {
    char left[32], line[256];
    lt_log_duration((double)(progress->steps - progress->step) * progress->seconds_a_step, left, sizeof left);
    snprintf(line, sizeof line,
             "step %lld/%lld  %3.0f%%  loss %.4f  norm %.3f  lr %.2e  %.0f tokens/s  %s left",
             (long long)progress->step, (long long)progress->steps,
             100.0 * (double)progress->step / (double)progress->steps, progress->loss,
             progress->gradient_norm, progress->learning_rate, progress->tokens_per_s, left);
    if (on_terminal)
        lt_log_progress(line);
    else if (logged)
        lt_log_info("%s", line);
}
