/* Tests of what the emulation says of a kernel with a flaw. */
#ifndef LT_TESTS_EMULATION_FLAWS_H
#define LT_TESTS_EMULATION_FLAWS_H

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <csetjmp>
#include <functional>
#include <sys/wait.h>
#include <unistd.h>
extern "C" {
#include <cmocka.h>
}

/* Does `run` in a process of its own, which must end otherwise than by returning from it and write `words` to
 * stderr; where they are "" it must return. */
inline void check_said(const char *words, const std::function<void()> &run) {
    char text[4096];
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        run();
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got;
         used + 1 < sizeof text && (got = read(ends[0], text + used, sizeof text - used - 1)) > 0;)
        used += static_cast<size_t>(got);
    text[used] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    const bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (well != (*words == '\0') || strstr(text, words) == nullptr) fail_msg("%s: said was: %s", words, text);
}

#endif
