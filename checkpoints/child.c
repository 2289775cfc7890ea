#define _GNU_SOURCE

#include "checkpoints/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const rlim_t MEMORY_BYTES = (rlim_t)1 << 30; /* above what the process has at the fork */

static void limit(int resource, rlim_t soft, rlim_t hard) {
    struct rlimit now;
    if (getrlimit(resource, &now) != 0) return;
    if (hard < now.rlim_max) now.rlim_max = hard;
    now.rlim_cur = soft < now.rlim_max ? soft : now.rlim_max;
    setrlimit(resource, &now);
}

static rlim_t address_space(void) {
    char text[64] = "";
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t n = read(file, text, sizeof text - 1);
    close(file);
    return n > 0 ? (rlim_t)strtoull(text, NULL, 10) * (rlim_t)sysconf(_SC_PAGESIZE) : 0;
}

/* Signals that launchers send to the whole process group are the parent's business; a crash must be one,
 * without the reports that MPI or a sanitizer would print. */
static void set_signals(void) {
    static const int ignored[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGHUP, SIGPIPE};
    static const int plain[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGXCPU, SIGALRM};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) signal(ignored[i], SIG_IGN);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) signal(plain[i], SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

static void silence(void) {
    int null = open("/dev/null", O_RDWR);
    if (null < 0) return;
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
}

static void become_child(pid_t parent, unsigned processor_seconds) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    set_signals();
    silence();
    limit(RLIMIT_CORE, 0, 0);
    limit(RLIMIT_CPU, processor_seconds, processor_seconds + 1);
    rlim_t used = address_space();
    if (used > 0) limit(RLIMIT_AS, used + MEMORY_BYTES, used + MEMORY_BYTES);
}

pid_t lt_child_fork(unsigned processor_seconds) {
    sigset_t all, before;
    sigfillset(&all);
    /* Nothing may end the child before it has made signals its own. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        become_child(parent, processor_seconds);
        return 0;
    }
    int fork_error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = fork_error;
    return child;
}

void lt_child_wait(pid_t child, int *ended) {
    *ended = 0;
    while (waitpid(child, ended, 0) < 0 && errno == EINTR) continue;
}

const char *lt_child_reason(int ended) {
    return WIFSIGNALED(ended) ? strsignal(WTERMSIG(ended)) : "out of memory";
}
