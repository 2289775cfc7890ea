#!/usr/bin/env bash
# `lazytrain prepare` of more, killed more often, on 1 to 4 ranks.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
# shellcheck source=../cli/lib/processes.sh
source "$tests_root/cli/lib/processes.sh"
# shellcheck source=../cli/lib/prepare.sh
source "$tests_root/cli/lib/prepare.sh"

test_kills_on_many_ranks() {
  local ranks
  write_work 40000000
  for ranks in 1 2 3 4; do
    killed_until_done $ranks $((40 / ${SHARE:-1} + 5))
  done
}

# Every moment of the end: killed a little later each time, from a folder in which all pieces are spooled.
test_kills_while_shards_and_manifest_are_written() {
  local delay
  write_work 4000000
  for delay in $(seq 0 $((10 * ${SHARE:-1})) 600); do
    [ -e out/manifest.json ] && rm -rf out
    start "${prepare[@]}" --output out
    sleep "$(printf '0.%03d' "$delay")"
    kill -KILL "$started" 2>/dev/null
    wait "$started" 2>/dev/null
    if [ -e out/manifest.json ]; then
      expect 0 "${prepare[@]}" --output out
      same_folder whole out
    fi
  done
  expect 0 "${prepare[@]}" --output out
  same_folder whole out
}

run_tests
