# shellcheck shell=bash
# shellcheck disable=SC2154 # `started` is set by start(), `struck_us` by who strikes
# Sourced by the fault campaign: reads what the started run says while it waits, and times how long faults stay
# without an answer, a step beyond those done before. Starts no process, since the moments are milliseconds.

exec 8<> <(:) # a pipe in which nothing ever comes

now_us() { now=${EPOCHREALTIME//[!0-9]/}; }
pause() { # milliseconds
  read -rt "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))" -u 8
  look
}

# The started run's step is 0, and read on from here on.
watch_stderr() {
  exec 9<stderr
  shown=0 unfinished=''
}

# Reads on; the last step goes to $shown, the time to $now.
look() {
  local line
  now_us
  while IFS= read -r line <&9; do
    [[ $unfinished$line =~ ^step\ ([0-9]+)/ ]] && shown=${BASH_REMATCH[1]}
    unfinished=''
  done
  unfinished+=$line
  [ "$shown" -le "$reached" ] || answer
}

# A fault struck at $struck_us and all that the run did before it is seen: it waits for a step beyond.
await_answer() { # kind, whom
  look
  [ "$shown" -le "$reached" ] || reached=$shown
  pending+=("$1 $2 $struck_us")
}
answer() {
  local fault
  for fault in "${pending[@]}"; do count "answered ${fault% *} $((now - ${fault##* }))"; done
  pending=()
}
is_answered() { [ ${#pending[@]} -eq 0 ]; }

is_running() { kill -0 "$started" 2>/dev/null; }

# Waits until a command is true or the started run has ended.
wait_for() {
  local end=$((SECONDS + RUN_TIMEOUT))
  until "$@" || ! is_running; do
    [ $SECONDS -lt $end ] || fail "waited $RUN_TIMEOUT s in vain: $*"
    pause 4
  done
}
has_shown() { [ "$shown" -ge "$1" ]; }
is_past() { [ "$now" -ge "$1" ]; } # microseconds

count() { echo "$*" >>../facts; }

# What was counted, for people.
summarise() {
  sort -n -k 4 ../facts | awk -v seed="$SEED" -v names="$(printf '%s,' "${kinds[@]% *}")" '
    function times(kind) {
      return sprintf("first new step after %.1f s (median), %.1f s (most)",
        seconds[kind, int((answers[kind] + 1) / 2)], seconds[kind, answers[kind]])
    }
    function answered(kind) { seconds[kind, ++answers[kind]] = $4 / 1e6 }
    { counted[$1]++ }
    $1 == "answered" { answered($2 " " $3); answered("all") }
    $1 == "fault" { kind = $2 " " $3; of[kind]++; by[kind, $4]++; repeated += $5; on[$6]++; async += $7 == "true" }
    $1 == "same" { steps += $2; wide += $3 == 2 }
    END {
      phases = split("start-up restore step save end", phase, " ")
      for (k = 1; k < split(names, name, ","); k++) {
        kind = name[k]
        if (!of[kind]) continue
        printf "# fault: %-13s %3d times:", kind, of[kind]
        for (p = 1; p <= phases; p++) printf " %s %d%s", phase[p], by[kind, phase[p]], p < phases ? "," : ";"
        printf " %s\n", times(kind)
      }
      printf "# fault: %d starts turned away while ranks lived, %d moments after the end, ", counted["away"], counted["late"]
      printf "%d launchers hung without ranks\n", counted["hung"]
      printf "# fault: %d faults (on 1, 2, 4 ranks: %d, %d, %d; ", counted["fault"], on[1], on[2], on[4]
      printf "%d with checkpoint.async), %d survived; %d of %d steps repeated; ", async, answers["all"], repeated, steps
      print times("all")
      printf "# fault: SEED=%d, jobs with the bits and the metrics of the undisturbed job: %d (at parallel.tensor 2: %d)\n",
        seed, counted["same"], wide
    }'
}
