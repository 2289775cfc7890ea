#!/usr/bin/env bash
# What the start says about cores: masks are set by taskset, to cores that this process has.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
cores=$(taskset -pc $$ 2>/dev/null | sed 's/.*: //') # none without taskset
short='lazytrain: warning: more threads than cores: '

# The numbers of a list as taskset prints it, one a line.
numbers() { tr ',' '\n' <<<"$1" | while IFS=- read -r first last; do seq "$first" "${last:-$first}"; done; }

# bound_train LIST...: a run with a rank for each list of cores, which it is bound to; WORDS are words of train().
bound_train() {
  cat >bound <<'SH'
#!/usr/bin/env bash
lists=($LISTS)
exec taskset -c "${lists[${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}}]}" "$PROGRAM" "$@"
SH
  chmod +x bound
  rm -rf out
  local program=$LAZYTRAIN
  # shellcheck disable=SC2086 # words
  LISTS="$*" PROGRAM=$program LAZYTRAIN=$PWD/bound expect 0 train $# $WORDS
}

expect_enough() { ! grep -q "$short" stderr || fail "$(grep "$short" stderr)"; }

test_threads_follow_the_binding() {
  [ -n "$cores" ] || skip "no taskset"
  write_tiny_config
  local WORDS=train.threads=auto one count
  one=$(numbers "$cores" | tail -n 1) count=$(numbers "$cores" | wc -l)
  bound_train "$one"
  expect_line stderr "^bindings +[^ ]+: 1 rank on cores $one\$" '^device +cpu, 1 thread a rank'
  expect_enough
  bound_train "$cores"
  expect_line stderr '^bindings +[^ ]+: 1 rank on cores [0-9,-]+$' "^device +cpu, $count threads? a rank"
  [ "$(numbers "$(sed -n 's/^bindings .* cores //p' stderr)")" = "$(numbers "$cores")" ] || fail "other cores than $cores"
  expect_enough
}

test_ranks_with_too_few_cores() {
  [ -n "$cores" ] || skip "no taskset"
  write_tiny_config
  local WORDS='train.threads=auto' one
  one=$(numbers "$cores" | head -n 1)
  bound_train "$one" "$one"
  expect_line stderr "^bindings +[^ ]+: 2 ranks on cores $one \(shared by 2\)\$" "^${short}ranks 0-1 on [^ ]+: 2 threads on cores $one;"
  WORDS='train.threads=3'
  bound_train "$one"
  expect_line stderr "^bindings +[^ ]+: 1 rank on cores $one\$" "^${short}rank 0 on [^ ]+: 3 threads on cores $one;"
}

test_ranks_with_cores_of_their_own() {
  local WORDS=train.threads=auto some
  mapfile -t some < <(numbers "$cores" | head -n 2)
  [ ${#some[@]} -eq 2 ] || skip "needs taskset and 2 cores"
  write_tiny_config
  bound_train "${some[1]}" "${some[0]}"
  expect_line stderr "^bindings +[^ ]+: 2 ranks on cores ${some[1]} \| ${some[0]}\$" '^device +cpu, 1 thread a rank'
  expect_enough
  bound_train "${some[0]}" "${some[0]},${some[1]}"
  expect_line stderr "^bindings +[^ ]+: 2 ranks on cores ${some[0]} \| ${some[0]}[-,]${some[1]}\$" \
    "^${short}ranks 0-1 on [^ ]+: 3 threads on cores ${some[0]}[-,]${some[1]};"
}

run_tests
