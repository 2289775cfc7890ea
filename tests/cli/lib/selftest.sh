# shellcheck shell=bash
# Tests of the harness: an assertion that never fails would let every test pass. Sourced by lib.sh when that is run.

fails() { ! ("$@") >fails.out 2>&1; }

test_expect_wants_the_exit_status() {
  expect 3 bash -c 'exit 3'
  fails expect 2 bash -c 'exit 3' || fail "another exit status passed"
}

test_expect_error_wants_one_line_that_matches() {
  echo 'lazytrain: error: a.yaml:3: train.steps: found x' >stderr
  expect_error 'a.yaml:3' 'found x$'
  fails expect_error 'found y' || fail "another message passed"
  echo 'lazytrain: error: again' >>stderr
  fails expect_error 'found x' || fail "two error lines passed"
  echo 'step 1' >stderr
  fails expect_error || fail "no error line passed"
}

test_refused_sees_what_is_touched() {
  echo 1 >file
  refused bad -- bash -c 'echo lazytrain: error: bad >&2; exit 2'
  fails refused bad -- bash -c 'echo 2 >file; echo lazytrain: error: bad >&2; exit 2' || fail "a changed file passed"
  fails refused bad -- bash -c 'mkdir new; echo lazytrain: error: bad >&2; exit 2' || fail "a new folder passed"
}

test_try_goes_on_and_all_held_fails() {
  try true
  all_held
  touch here
  try_apart test -e here
  try_apart rm here
  all_held
  [ -e here ] || fail "a case apart is not in a folder of its own"
  fails bash -c "mkdir -p sub/test; cd sub/test; source '${tests_root:?}/cli/lib.sh'; try_apart false; try_apart true; all_held" || fail "a failed case apart was forgotten"
  fails bash -c "source '${tests_root:?}/cli/lib.sh'; try false; try true; all_held" || fail "a failed case was forgotten"
}

test_metrics_are_compared_without_times() {
  mkdir a b
  echo '{"step":1,"tokens":8,"loss":5.5,"step_ms":1.5,"slowest_rank":0,"slowest_excess_ms":0.5,"flops_utilisation":0.1,"sink":0.5}' >a/metrics.jsonl
  echo '{"step":1,"tokens":8,"loss":5.5,"step_ms":2.5,"slowest_rank":1,"slowest_excess_ms":1.5,"flops_utilisation":0.2,"sink":0.5}' >b/metrics.jsonl
  same_metrics a b
  expect_steps a 1 1
  fails expect_steps a 1 2 || fail "a missing step passed"
  sed 's/5.5/5.6/' a/metrics.jsonl >b/metrics.jsonl
  fails same_metrics a b || fail "another loss passed"
  sed 's/0.5}/0.6}/' a/metrics.jsonl >b/metrics.jsonl
  fails same_metrics a b || fail "another diagnostic passed"
}

test_same_tensors_sees_one_changed_bit() {
  write_tiny_config
  expect 0 train 1 train.steps=2
  expect 0 train 1 train.steps=2 checkpoint.dir=same
  expect 0 train 1 train.steps=2 checkpoint.dir=other optimizer.eps=1.001e-8
  same_tensors out/step_00000002.h5 same/step_00000002.h5
  fails same_tensors out/step_00000002.h5 other/step_00000002.h5 || fail "other bits passed"
}

test_shards_are_written_as_they_should_be() {
  write_shard a.bin 5
  [ "$(od -An -v -td4 -N 16 a.bin | tr -s ' ')" = ' 20240520 1 5 0' ] || fail "header $(od -An -v -td4 -N 16 a.bin)"
  write_token a.bin 3 5000
  [ "$(od -An -v -tu2 -j 1024 a.bin | tr -s ' ')" = ' 8 18 30 5000 60' ] || fail "tokens $(od -An -v -tu2 -j 1024 a.bin)"
  flip_byte a.bin 1024
  [ "$(od -An -tu1 -j 1024 -N 1 a.bin | tr -d ' ')" -eq $((255 - 8)) ] || fail "a flipped byte"
}

run_tests
