#!/usr/bin/env bash
# `lazytrain prepare` that is killed, stopped or out of room: the same command goes on, and the folder comes out the same.
# Longer in tests/slow/prepare_kills.sh.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/processes.sh
source "$(dirname "$0")/lib/processes.sh"
# shellcheck source=lib/prepare.sh
source "$(dirname "$0")/lib/prepare.sh"

# Alone and on two ranks, where the launcher and all ranks are killed.
test_killed_again_and_again() {
  write_work 4000000
  killed_until_done 1 12
  killed_until_done 2 6
}

test_signals() {
  local signal
  write_work 16000000
  for signal in TERM USR1 INT; do
    start "${prepare[@]}" --output out
    await 'the start' grep -q '^preparing ' stderr
    kill -$signal "$started"
    ends 75
    expect_line stderr "^SIG$signal: stopped; the same command goes on"
    [ ! -e out/manifest.json ] || fail "a manifest of half the work"
    [ -z "$(find out -name '*.partial')" ] || fail "half a file is left: $(find out -name '*.partial')"
  done
  expect 0 "${prepare[@]}" --output out
  expect_line stderr '^going on with the half-done folder out$'
  same_folder whole out
}

# Every rank leaves when one is told to.
test_a_signal_to_one_rank() {
  write_work 16000000
  start "$tests_root/mpirun_ranks" 3 "${prepare[@]}" --output out
  await 'the start' grep -q '^preparing ' stderr
  kill -USR1 "$(rank_pid 1)"
  ends 75
  expect 0 "${prepare[@]}" --output out
  same_folder whole out
}

test_a_half_done_folder() {
  write_work 8000000
  start "${prepare[@]}" --output out
  await 'finished pieces' has_pieces out
  kill -KILL "$started"
  ends 137
  write_tiny_config
  refused "data.train: 'out' is half done: run lazytrain prepare again" -- lazytrain train tiny.yaml --set data.train=out
  refused 'out is half done: run lazytrain prepare again' -- lazytrain inspect out
  refused 'setting shard_tokens was 100000 and is 99999 now' -- "${prepare[@]}" --output out --shard-tokens 99999
  refused 'piece-bytes was 200000 and is 300000 now' -- "${prepare[@]}" --output out --piece-bytes 300000
  touch rows.jsonl
  refused "'out' is half done, and its input 'rows.jsonl' was modified" -- "${prepare[@]}" --output out
  expect 0 "${prepare[@]}" --output out --overwrite
  same_folder whole out
}

test_two_at_a_time() {
  write_work 16000000
  start "${prepare[@]}" --output out
  await 'finished pieces' has_pieces out
  kill -STOP "$started"
  expect 74 "${prepare[@]}" --output out
  expect_error "'out' is in use by another lazytrain prepare"
  kill -CONT "$started"
  ends 0
  same_folder whole out
}

# A file system without room, first for the spools, then for the shards; with more it goes on.
test_a_full_disk() {
  local size
  write_work 4000000
  mkdir disk
  for size in 1 4 6; do
    # shellcheck disable=SC2016 # the inner shell expands
    unshare -m bash -c 'mount -t tmpfs -o size='$size'm none disk || exit 99
      "$@" --output disk/out
      [ $? -eq 74 ] && [ -z "$(find disk -name "*.partial")" ] && ! [ -e disk/out/manifest.json ] || exit 98
      mount -o remount,size=64m disk && "$@" --output disk/out && diff -r whole disk/out' prepare "${prepare[@]}" >stdout 2>stderr
    case $? in
      0) ;;
      99 | 1) grep -qE 'mount:|unshare:' stderr && skip "no tmpfs can be mounted"; show_stderr; fail "another folder comes out" ;;
      *) show_stderr; fail "size $size: no exit status 74, or something half-written is left" ;;
    esac
    expect_error 'No space left on device; free space there and run the same command again'
  done
}

run_tests
