#include "comm/log.h"
#include "comm/status.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    PROGRESS_BYTES = 512,
    /* every byte of a message may become the four of \xNN; the rest is prefix, newline and progress line */
    LINE_BYTES = 4 * LT_ERROR_MESSAGE_BYTES + PROGRESS_BYTES + 64,
};

/* What one write(2) puts out. */
typedef struct line {
    size_t length;
    char text[LINE_BYTES];
} line;

static const char clear_line[] = "\r\033[K";

static atomic_int process_rank;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char progress[PROGRESS_BYTES]; /* under lock; "" where no progress line is on the screen */

void lt_log_set_rank(int rank) {
    atomic_store(&process_rank, rank);
}

static void put(line *out, const char *text) {
    size_t length = strlen(text);
    if (length > LINE_BYTES - out->length) length = LINE_BYTES - out->length;
    memcpy(out->text + out->length, text, length);
    out->length += length;
}

/* Bytes of the UTF-8 character at `at`; 0 where there is none, as in a file name of another encoding. */
static int character_bytes(const unsigned char *at) {
    const int bytes = at[0] < 0x80                    ? 1
                      : at[0] >= 0xC2 && at[0] < 0xE0 ? 2
                      : at[0] >= 0xE0 && at[0] < 0xF0 ? 3
                      : at[0] >= 0xF0 && at[0] < 0xF5 ? 4
                                                      : 0;
    for (int i = 1; i < bytes; i++)
        if ((at[i] & 0xC0) != 0x80) return 0;
    return bytes;
}

/* Adds `text` up to a length of `limit`, with \xNN for what is no UTF-8 and for control characters: those of
 * ASCII and those of U+0080..U+009F, which a terminal obeys too (U+009B starts an escape sequence). */
static void put_escaped(line *out, const char *text, size_t limit) {
    for (const unsigned char *at = (const unsigned char *)text; *at && out->length + 8 <= limit;) {
        const int bytes = character_bytes(at);
        const bool control = at[0] < 0x20 || at[0] == 0x7F || (at[0] == 0xC2 && at[1] <= 0x9F);
        for (int left = bytes > 0 ? bytes : 1; left > 0; left--, at++) {
            char one[8] = {(char)*at};
            if (bytes == 0 || control) snprintf(one, sizeof one, "\\x%02X", *at);
            put(out, one);
        }
    }
}

static void write_line(const line *out) {
    size_t written = 0;
    while (written < out->length) {
        ssize_t count = write(STDERR_FILENO, out->text + written, out->length - written);
        if (count > 0) {
            written += (size_t)count;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            /* a launcher may have left stderr non-blocking */
            struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
            poll(&ready, 1, 1000);
        } else if (errno != EINTR) {
            return; /* nowhere left to complain */
        }
    }
}

/* Writes one line above the progress line, if there is one. */
static void log_line(const char *prefix, const char *text) {
    line out = {.length = 0};
    pthread_mutex_lock(&lock);
    if (progress[0]) put(&out, clear_line);
    put(&out, prefix);
    put_escaped(&out, text, LINE_BYTES - PROGRESS_BYTES - 8);
    put(&out, "\n");
    put(&out, progress);
    write_line(&out);
    pthread_mutex_unlock(&lock);
}

void lt_log_info(const char *format, ...) {
    if (atomic_load(&process_rank) != 0) return;
    char text[LT_ERROR_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    log_line("", text);
}

void lt_log_warning(const char *format, ...) {
    if (atomic_load(&process_rank) != 0) return;
    char text[LT_ERROR_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    log_line("lazytrain: warning: ", text);
}

void lt_log_error(const char *message) {
    log_line("lazytrain: error: ", message);
}

/* A pipe that is ready takes 4096 bytes (PIPE_BUF) without blocking. */
void lt_log_aside(const char *message) {
    struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
    char text[PIPE_BUF / 4 - 64]; /* every byte may become the four of \xNN */
    snprintf(text, sizeof text, "%s", message);
    if (pthread_mutex_trylock(&lock) != 0) return;
    line out = {.length = 0};
    put(&out, "lazytrain: ");
    put_escaped(&out, text, LINE_BYTES - PROGRESS_BYTES - 8);
    put(&out, "\n");
    if (poll(&ready, 1, 0) == 1) write_line(&out);
    pthread_mutex_unlock(&lock);
}

/* Cuts `text` to what fits on one row of the terminal: a wrapped line could not be replaced by \r. */
static void cut_to_terminal(char *text) {
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 2) return;
    int columns = 0;
    for (char *at = text; *at; at++) {
        bool continues = ((unsigned char)*at & 0xC0) == 0x80; /* inside a UTF-8 character */
        if (!continues && ++columns >= size.ws_col) {
            *at = '\0';
            return;
        }
    }
}

void lt_log_progress(const char *text) {
    if (atomic_load(&process_rank) != 0) return;
    line out = {.length = 0};
    pthread_mutex_lock(&lock);
    if (text) {
        line shown = {.length = 0};
        put_escaped(&shown, text, PROGRESS_BYTES - 1);
        memcpy(progress, shown.text, shown.length);
        progress[shown.length] = '\0';
        cut_to_terminal(progress);
        put(&out, clear_line);
        put(&out, progress);
    } else if (progress[0]) {
        put(&out, "\n");
        progress[0] = '\0';
    }
    write_line(&out);
    pthread_mutex_unlock(&lock);
}

void lt_log_duration(double seconds, char *text, size_t size) {
    const long long s = (long long)(seconds + 0.5);
    if (s >= 86400)
        snprintf(text, size, "%lldd %02lldh", s / 86400, s % 86400 / 3600);
    else if (s >= 3600)
        snprintf(text, size, "%lldh %02lldm", s / 3600, s % 3600 / 60);
    else if (s >= 60)
        snprintf(text, size, "%lldm %02llds", s / 60, s % 60);
    else
        snprintf(text, size, "%llds", s);
}
