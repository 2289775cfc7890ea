# shellcheck shell=bash
# Sourced after lib.sh by tests that preload tests/fault/shim.c to the program.
shim=${TEST_BUILD:-$tests_root/../build}/tests/fault/shim.so

# A run of two steps and two saves, undisturbed in the folder `whole`; `under_fault` runs it in `out`.
write_undisturbed() {
  write_tiny_config
  sed -i 's/^train: .*/train: {steps: 2, global_batch: 8, threads: 1}/; s/^checkpoint: .*/checkpoint: {dir: out, every: 1}/' tiny.yaml
  write_faulty
  expect 0 train 1 checkpoint.dir=whole
}

# ./faulty: the program with the shim, for under_fault.
write_faulty() {
  cat >faulty <<SCRIPT
#!/bin/sh
LD_PRELOAD='$shim' exec '$LAZYTRAIN' "\$@"
SCRIPT
  chmod +x faulty
}

# under_fault RANKS RANK FAULT: FAULT (shim.h) hits RANK after the first save, or after $after; ./calls logs the calls.
under_fault() {
  FAULT=$3 FAULT_RANK=$2 FAULT_BELOW=$(pwd -P)/out FAULT_AFTER=${after-out/step_00000001.h5} FAULT_LOG=$(pwd -P)/calls \
    LAZYTRAIN=$PWD/faulty train "$1"
}

# calls_of RANKS RANK KIND: the numbers of these calls from the end of the first save on, in `numbers`. A folder or a log
# that is closed is synced already: those do not count.
calls_of() {
  local counted=.
  [ "$3" != close ] || counted='partial$'
  rm -rf out calls
  expect 0 under_fault "$1" "$2" "$3 0 EIO"
  mapfile -t numbers < <(grep "$counted" calls | cut -d' ' -f2)
  [ ${#numbers[@]} -gt 0 ] || fail "no $3 of rank $2 of $1 counts"
  rm -rf out calls
}

expect_hit() { grep -q ' failed$' calls || fail "nothing was made to fail"; }
reason_of() {
  case $1 in *ENOSPC*) echo 'No space left on device' ;; *) echo 'Input/output error' ;; esac
}

# The checkpoints are whole, nothing else is left, and a run without faults ends as the undisturbed one.
sound() {
  local file
  for file in out/step_*; do
    [ -e "$file" ] || continue
    case $file in *.h5) expect 0 lazytrain inspect --verify "$file" ;; *) fail "$file is left" ;; esac
  done
  [ -z "$(find out -name '*.partial')" ] || fail "a partial file is left"
  expect 0 train 1
  same_tensors whole/step_00000002.h5 out/step_00000002.h5
  same_metrics whole out
  expect_steps out 1 2
  expect_checkpoints out 1 2
}

# One fault: the save is tried again, and that is said.
is_survived() { # ranks, rank, fault
  expect 0 under_fault "$@"
  expect_hit
  expect_line stderr "^lazytrain: warning: .*out.*$(reason_of "$3").*; trying once more"
  ! grep -q '^lazytrain: error' stderr || fail "an error is said"
  expect_checkpoints out 1 2
  sound
}

# A lasting one ends the run.
lasts() {
  expect 74 under_fault "$@"
  expect_hit
  expect_error "out[/ :].*$(reason_of "$3")"
  [ -e out/step_00000001.h5 ] || fail "the checkpoint before is gone"
  sound
}

# Nobody notices.
passes() {
  expect 0 under_fault "$@"
  expect_hit
  ! grep -qE '^lazytrain: (error|warning)' stderr || fail "a write that is to be continued was complained about"
  sound
}

refused_at_the_start() { # ranks, fault
  after='' expect 2 under_fault "$1" 0 "$2"
  expect_hit
  expect_error 'folder out cannot be written: cannot [a-z ]+ a test file there'
  expect_checkpoints out
  sound
}

# fault_cases RANKS RANK KIND NUMBER...: each of these calls fails once, and from then on.
fault_cases() {
  local number error
  for number in "${@:4}"; do
    error=ENOSPC
    [ $((number % 2)) -eq 0 ] || error=EIO
    try_apart is_survived "$1" "$2" "$3 $number $error"
    try_apart lasts "$1" "$2" "$3 $number $error lasting"
  done
}
