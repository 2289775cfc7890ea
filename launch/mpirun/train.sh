#!/usr/bin/env bash
# One training run by mpirun on the hosts of a file, started again as long as that helps:
#
#   HOSTS=hosts.txt launch/mpirun/train.sh CONFIG.yaml FOLDER [WORD...]
#
# FOLDER is the run's checkpoint.dir, WORDs are words of `lazytrain train` (--set train.steps=100000). All output goes to
# FOLDER/logs/mpirun.log. TERM, INT and HUP to this script save and end it with 75; a second one ends the run at once. USR1
# saves and starts anew. README, "Resume, requeue, survive", says what is started again.

# ---- parameters ----
program=${LAZYTRAIN:-build/lazytrain} # the same path on every host
hosts=${HOSTS:-}                      # host file, a line `NAME slots=RANKS` each; empty: this host alone
ranks=${RANKS:-}                      # empty: as many as the host file has slots
mpirun=${MPIRUN:-mpirun}
cores=${CORES:-}                      # to bind each rank to; empty: its share of this host's, 0: none
flags=${MPIRUN_FLAGS:-}               # more words for mpirun: -q --mca ...; --bind-to and --map-by win over the above
limit=${RESTARTS:-3}                  # restarts in a row without a new checkpoint, after errors and kills
pause_s=${PAUSE_S:-10}                # before such a restart
round=${ROUND:-6h}                    # after so long a run saves and starts anew, and mpirun is killed if it hangs (it
save_time=${SAVE_TIME:-10m}           # does for hours when a link breaks); a save that was asked for takes at most this
# ---- end of parameters ----

set -u
if [ $# -lt 2 ]; then
  echo "usage: HOSTS=FILE launch/mpirun/train.sh CONFIG.yaml FOLDER [WORD...]" >&2
  exit 2
fi
config=$1 run=$2
shift 2
# shellcheck source=../restart.sh
source "$(dirname "$0")/../restart.sh" || exit 2
mkdir -p "$run/logs" || exit 2
echo "launch: the log is $run/logs/mpirun.log"
exec >>"$run/logs/mpirun.log" 2>&1

# Words for Open MPI's mpirun that bind each rank to cores of its own; the other hosts are taken to be like this one. (By
# itself it binds two ranks to a single core each, and more to sockets.) No rank is bound where there are more than cores, or
# where another MPI's mpirun leaves them free.
binding() {
  local here slots
  [[ $flags != *-bind-to* && $flags != *-map-by* ]] || return
  "$mpirun" --version 2>/dev/null | grep -q 'Open MPI' || return
  if [ -z "$cores" ]; then
    here=$(($(nproc) / $(threads_of_a_core)))
    slots=$(most_slots)
    slots=${slots:-$here} # mpirun's default
    if [ -n "$ranks" ] && [ "$ranks" -lt "$slots" ]; then slots=$ranks; fi
    cores=$((here / slots))
  fi
  [ "$cores" -gt 0 ] && echo "--map-by slot:PE=$cores --bind-to core" || echo "--bind-to none"
}
threads_of_a_core() { lscpu 2>/dev/null | awk -F: '/^Thread\(s\) per core/ { n = $2 + 0 } END { print (n > 0 ? n : 1) }'; }
most_slots() { # of a host; without a host file all ranks are here
  if [ -z "$hosts" ]; then
    echo "$ranks"
  else
    sed -n 's/^[^#]*[[:space:]]slots *= *\([0-9]*\).*/\1/p' "$hosts" | sort -n | tail -n 1
  fi
}
flags="$(binding) $flags"

# mpirun makes a quick end of its ranks on TERM and INT, and returns 1 whatever they return: it gets USR1 instead.
stopping=false
# shellcheck disable=SC2317 # traps call it
stop() {
  say "SIG$1: saving and stopping"
  if $stopping; then pass TERM; else pass USR1; fi
  stopping=true
}
trap 'stop TERM' TERM
trap 'stop INT' INT
trap 'stop HUP' HUP
trap 'say SIGUSR1; pass USR1' USR1

stalls=0 before=$(newest_step "$run") exit_status=75
while ! $stopping; do
  say "starting on ${ranks:-all} ranks of ${hosts:-this host}"
  # shellcheck disable=SC2086 # flags and the program are words
  run_to_end timeout --preserve-status -s USR1 -k "$save_time" "$round" "$mpirun" $flags ${hosts:+--hostfile "$hosts"} \
    ${ranks:+-n "$ranks"} $program train "$config" --set checkpoint.dir="$run" "$@"
  exit_status=$status
  judge "$exit_status"
  [ "$verdict" = again ] || break
  before=$now stalls=$count
  [ "$exit_status" -eq 75 ] || $stopping || run_to_end sleep "$pause_s"
done
exit "$exit_status"
