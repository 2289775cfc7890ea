#!/usr/bin/env bash
# The MPI tests, up to 8 ranks, and the program over data and tensor ranks, under AddressSanitizer and
# UndefinedBehaviorSanitizer.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
# shellcheck source=../sanitizers.sh
source "$tests_root/sanitizers.sh"
export RUN_TIMEOUT=600

test_mpi_tests_and_the_program() {
  local layout layouts=('4 2 0 false' '8 2 1 true' '8 4 1 false' '2 1 1 true')
  if [ "${SHARE:-1}" -gt 1 ]; then
    export MOST_RANKS=4
    layouts=('4 2 1 true')
  fi
  make --no-print-directory -j "$(nproc)" -C "$tests_root/.." sanitize SUITES=mpi >made 2>&1 || {
    tail -n 30 made | sed 's/^/# /'
    fail "the MPI tests fail under the sanitizers"
  }
  LAZYTRAIN=${TEST_BUILD:-$tests_root/../build}/sanitize/lazytrain
  write_tiny_config
  write_text 2000 >held_out.txt
  for layout in "${layouts[@]}"; do
    # shellcheck disable=SC2086 # ranks, tensor, zero, async
    try_apart trains $layout
  done
  all_held
}

# Starts, saves, resumes and validates.
trains() { # ranks, tensor, zero, async
  local steps
  for steps in 4 6; do
    expect 0 train "$1" parallel.tensor="$2" parallel.zero="$3" checkpoint.async="$4" train.steps=$steps schedule.kind=constant \
      checkpoint.every=2 data.validation=held_out.txt train.eval_every=2 log.diagnostics_every=2
  done
}

run_tests
