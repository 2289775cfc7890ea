#include "trainer/signals.h"

#include "comm/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

static volatile sig_atomic_t stop_signal, save_wanted;

static const char *name_of(int signal_number) {
    return signal_number == SIGUSR1   ? "SIGUSR1"
           : signal_number == SIGTERM ? "SIGTERM"
           : signal_number == SIGINT  ? "SIGINT"
                                      : "SIGUSR2";
}

static void handle(int signal_number) {
    if (signal_number == SIGUSR2) {
        save_wanted = 1;
        return;
    }
    if (signal_number == SIGINT && stop_signal == SIGINT) { /* the user insists */
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    if (stop_signal == 0 || signal_number == SIGINT) stop_signal = signal_number;
    lt_interrupt(name_of(stop_signal));
}

lt_status lt_signals_install(void) {
    static const int HANDLED[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT}, IGNORED[] = {SIGPIPE, SIGXFSZ};
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof HANDLED / sizeof HANDLED[0]; i++)
        if (sigaction(HANDLED[i], &action, NULL) != 0)
            return lt_fail(LT_IO, "cannot handle signal %d: %s", HANDLED[i], strerror(errno));
    action.sa_handler = SIG_IGN;
    for (size_t i = 0; i < sizeof IGNORED / sizeof IGNORED[0]; i++)
        if (sigaction(IGNORED[i], &action, NULL) != 0)
            return lt_fail(LT_IO, "cannot ignore signal %d: %s", IGNORED[i], strerror(errno));
    return LT_OK;
}

lt_request lt_signals_take(const char **name) {
    const int stop = stop_signal;
    if (name != NULL) *name = name_of(stop);
    if (stop != 0) return LT_REQUEST_STOP;
    if (save_wanted == 0) return LT_REQUEST_NONE;
    save_wanted = 0;
    return LT_REQUEST_SAVE;
}
