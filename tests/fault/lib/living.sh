# shellcheck shell=bash
# Sourced after processes.sh by tests of faults: which processes of a job live, also those that a killed launcher left
# behind and those beyond a broken link.

# start_here COMMAND...: start() of a job whose processes are known by the name of this folder, where they leave what
# Open MPI does not remove when it is killed.
start_here() {
  local temporary=$PWD/tmp
  mkdir -p "$temporary"
  start env TMPDIR="$temporary" OMPI_MCA_btl_vader_backing_directory="$temporary" "$@"
}
living() { grep -lzsxF "TMPDIR=$PWD/tmp" /proc/[0-9]*/environ | tr -dc '0-9\n'; }
is_nobody_living() { [ -z "$(living)" ]; }
is_no_rank_living() {
  local pid
  for pid in $(living); do ! [ "/proc/$pid/exe" -ef "$LAZYTRAIN" ] || return; done
}
# shellcheck disable=SC2046 # one word a process
end_living() { is_nobody_living || kill -KILL $(living) 2>/dev/null; }

await_nobody() {
  local end=$((SECONDS + ${RUN_TIMEOUT:-120}))
  until is_nobody_living; do
    [ $SECONDS -lt $end ] || fail "processes are left behind: $(living)"
    sleep 0.05
  done
}
