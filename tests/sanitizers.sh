# shellcheck shell=sh
# Sourced by `make sanitize`. Leaks are not looked for: Open MPI keeps much at the end that is not ours. An undefined
# operation fails its test.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:"${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:"${UBSAN_OPTIONS:-}"
export TEST_TIMEOUT="${TEST_TIMEOUT:-600}"
