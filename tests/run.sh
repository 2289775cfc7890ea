#!/usr/bin/env bash
# Runs test programs and counts what they report. Usage: tests/run.sh BUILD SUITE...
#
#   unit   build/tests/unit/test_*   one process each, cmocka
#   emulation  build/tests/emulation/test_*   of the GPU's kernels, on the host; one process each
#   mpi    build/tests/mpi/test_*    by mpirun at the rank counts that the source's first line lists, up to MOST_RANKS
#   cli    tests/cli/*.sh            the program itself, as a user runs it
#   fault  tests/fault/*.sh          campaigns: faults at random moments; FAULTS and SEED
#   slow   tests/slow/*.sh           too long for every day
#   slurm  tests/slurm/*.sh   launch/slurm on a SLURM that the test starts
#
# Everything speaks TAP; the last line is `N passed, N failed, N skipped`, after what each failed test said at last. Logs
# stay in BUILD/test-logs. TEST_ONLY=name runs the tests whose path holds name.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1
shift
export LAZYTRAIN="$PWD/$build/lazytrain" TEST_BUILD="$PWD/$build"
case $build in /*) export LAZYTRAIN="$build/lazytrain" TEST_BUILD="$build" ;; esac
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export CMOCKA_MESSAGE_OUTPUT=TAP
source tests/mpirun.sh
logs=$TEST_BUILD/test-logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0 excerpts=

# Of each failed test in a log: its name, the 15 lines before it and the 5 after it, where cmocka says why. Of a program
# that ended before it could tell: the last lines.
excerpt() { # name, log
  awk -v name="$1" '
    { line[NR] = $0 }
    /^(not )?ok / { before = last; last = NR }
    /^not ok / && !/# SKIP/ {
      found = 1
      print "failed: " name ": " $0
      for (i = (NR - 15 > before ? NR - 15 : before + 1); i < NR; i++) print "    " line[i]
      after = NR + 5
      next
    }
    /^ok / { after = 0 }
    NR <= after { print "    " $0 }
    END {
      if (found) exit
      print "failed: " name
      for (i = (NR > 15 ? NR - 14 : 1); i <= NR; i++) print "    " line[i]
    }' "$2"
}

# Counts the TAP lines of one program's log. A program that fails without saying which test did is one failure.
count() { # name, log, exit status, seconds
  local ok bad skip
  skip=$(grep -cE '^(not )?ok .*# SKIP' "$2")
  ok=$(grep -E '^ok ' "$2" | grep -vc '# SKIP')
  bad=$(grep -E '^not ok ' "$2" | grep -vc '# SKIP')
  if [ "$3" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
  if [ $((ok + bad + skip)) -eq 0 ]; then bad=1; fi
  passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
  printf '%-44s %4d passed %3d failed %3d skipped  %4d s\n' "$1" "$ok" "$bad" "$skip" "$4"
  grep -hE '# SKIP|^# skip|^# fault' "$2" | sed 's/^/    /'
  if [ "$bad" -gt 0 ]; then
    echo "---- $1: exit status $3, log $2"
    tail -n 60 "$2"
    echo "----"
    excerpts+=$(excerpt "$1" "$2")$'\n'
  fi
}

run() { # name, command...
  local name=$1 log begin=$SECONDS status
  shift
  case $name in *"${TEST_ONLY:-}"*) ;; *) return ;; esac
  log=$logs/${name//[\/ ]/_}.log
  "$@" >"$log" 2>&1 </dev/null
  status=$?
  count "$name" "$log" $status $((SECONDS - begin))
}

# start NAME COMMAND...: the same for what keeps one core busy, as many at a time as there are cores; `finish` waits for
# them and counts them.
started=()
start() {
  local name=$1 log
  shift
  case $name in *"${TEST_ONLY:-}"*) ;; *) return ;; esac
  log=$logs/${name//[\/ ]/_}.log
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
  started+=("$name")
  { begin=$SECONDS; "$@" >"$log" 2>&1 </dev/null; echo "$? $((SECONDS - begin))" >"$log.status"; } &
}
finish() {
  local name log status seconds
  wait
  for name in "${started[@]}"; do
    log=$logs/${name//[\/ ]/_}.log
    read -r status seconds <"$log.status"
    count "$name" "$log" "$status" "$seconds"
  done
  started=()
}

# An MPI test is one test a rank count.
run_ranks() { # program, ranks
  echo "1..1"
  if timeout -k 5 "${TEST_TIMEOUT:-300}" tests/mpirun_ranks "$2" "$1"; then
    echo "ok 1 - $(basename "$1") on $2 ranks"
  else
    echo "not ok 1 - $(basename "$1") on $2 ranks: exit status $?"
  fi
}

for suite; do
  case $suite in
    unit) for test in tests/unit/test_*.c; do
        name=$(basename "$test" .c)
        run "unit/$name" timeout -k 5 "${TEST_TIMEOUT:-300}" "$TEST_BUILD/tests/unit/$name"
      done ;;
    emulation) for test in "$TEST_BUILD"/tests/emulation/test_*; do
        if [ -x "$test" ]; then
          start "emulation/$(basename "$test")" timeout -k 5 "${TEST_TIMEOUT:-600}" "$test"
        else
          start emulation/none echo "ok 1 - # SKIP the emulated GPU switches stacks of x86-64"
        fi
      done
      finish ;;
    mpi) for test in tests/mpi/test_*.c; do
        name=$(basename "$test" .c)
        read -r -a counts < <(sed -n '1s/.*ranks: *\([0-9 ]*\).*/\1/p' "$test")
        for ranks in "${counts[@]}"; do
          [ "$ranks" -le "${MOST_RANKS:-$ranks}" ] || continue
          run "mpi/$name $ranks" run_ranks "$TEST_BUILD/tests/mpi/$name" "$ranks"
        done
      done ;;
    cli | fault | slow | slurm) for test in tests/"$suite"/*.sh; do
        [ -e "$test" ] || continue
        run "$suite/$(basename "$test" .sh)" timeout -k 10 "${TEST_TIMEOUT:-900}" bash "$test"
      done ;;
    *) echo "unknown suite $suite" >&2; exit 2 ;;
  esac
done
printf %s "$excerpts"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
