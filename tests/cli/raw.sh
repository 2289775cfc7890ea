#!/usr/bin/env bash
# Raw files as training data: tokenised on the way into a cache that processes share. The same bits whatever the cache
# holds, however many ranks there are and wherever the run is killed.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/processes.sh
source "$(dirname "$0")/lib/processes.sh"
# shellcheck source=lib/tokenizer.sh
source "$(dirname "$0")/lib/tokenizer.sh"

# write_rows FILE FIRST LAST: JSON lines of texts that differ.
write_rows() { seq "$2" "$3" | awk '{printf "{\"text\": \"line %d of %d, %s\", \"n\": %d}\n", $1, $1 * 7919 % 1009, $1 % 3 ? "lines" : "one\\nline", $1}' >"$1"; }

# The tiny config on three files of rows under a small tokenizer: some 200 samples of 24, so an epoch is 25 steps of 8.
write_config() {
  write_tiny_config
  write_tokenizer tokenizer.json
  write_rows rows_1.jsonl 1 100
  write_rows rows_2.jsonl 101 220
  write_rows rows_10.jsonl 221 300
  gzip rows_2.jsonl
  sed -i 's/vocab_size: 257/vocab_size: 260/; s/^data: .*/data: {train: "rows_*", seq_len: 24, tokenizer: tokenizer.json, cache_dir: cache}/' tiny.yaml
  sed -i 's/steps: 12/steps: 60/; s/warmup_steps: 2/warmup_steps: 2, kind: constant/' tiny.yaml
}

test_the_same_bits_at_any_rank_count_and_cache() {
  write_config
  expect 0 train 1 checkpoint.dir=whole
  local count
  for count in 1 2 4; do
    expect 0 train $count checkpoint.dir=out$count data.cache_dir=cache$count data.cache_bytes=1KiB
    same_tensors "$(step_file whole 60)" "$(step_file out$count 60)"
    same_metrics whole out$count
  done
  # The cache holds token shards, and nothing that is half done.
  expect 0 lazytrain inspect --verify --tokenizer tokenizer.json cache/*.bin
  [ "$(find cache -name '*.bin' | wc -l)" -eq 3 ] || fail "the cache holds $(ls cache)"
  [ -z "$(find cache* -name '*.partial')" ] || fail "half-done entries stay: $(find cache* -name '*.partial')"
  [ "$(find cache1 -name '*.bin' | wc -l)" -eq 1 ] || fail "a cache of 1 KiB holds $(ls cache1)"
}

test_killed_and_resumed_at_other_rank_counts() {
  write_config
  expect 0 train 1 checkpoint.dir=whole data.cache_dir=other train.steps=250
  local count
  for count in 1 4 2; do
    start_train $count checkpoint.every=1 train.steps=1000
    await_step out $((${last:-0} + 12))
    end_started
    wait
    last=$(last_step out)
    rm -f out/lock
  done
  find cache -name '*.bin' | head -n 1 | xargs rm -f
  [ "$last" -lt 250 ] || skip "the killed runs got as far as step $last"
  expect 0 train 2 train.steps=250
  same_tensors "$(step_file whole 250)" "$(step_file out 250)"
  same_metrics whole out
}

# Two runs that share a cache, beginning with none.
test_two_runs_share_a_cache() {
  write_config
  expect 0 train 1 checkpoint.dir=whole data.cache_dir=other
  start_train 2 checkpoint.dir=first
  expect 0 train 2 checkpoint.dir=second
  ends 0
  local folder
  for folder in first second; do same_tensors "$(step_file whole 60)" "$(step_file $folder 60)"; done
}

test_other_raw_files() {
  write_config
  write_text 4000 >text.txt
  expect 0 train 1 data.train=text.txt data.separator='\n' checkpoint.dir=a # text under another tokenizer than bytes
  expect 0 train 1 data.train=text.txt data.tokenizer=bytes data.separator=line checkpoint.dir=b
  expect 0 train 1 data.train=rows_1.jsonl data.tokenizer=bytes data.validation=rows_10.jsonl train.eval_every=30 checkpoint.dir=c
  [ "$(grep -c val_loss c/metrics.jsonl)" -eq 2 ] || fail "no validation on raw files"
  expect 0 train 1 data.document_mask=true data.document_token_position=first checkpoint.dir=d
  sed 's/"text"/"body"/' rows_1.jsonl >bodies.jsonl
  expect 0 train 1 data.train=bodies.jsonl data.text_key=body checkpoint.dir=e
}

# Filters leave rows out, and what they leave is another entry of the cache.
test_filters() {
  write_config
  seq 1 200 | awk '{printf "{\"text\": \"line %d\", \"int_score\": %d, \"language\": \"%s\"}\n", $1, $1 % 5, $1 % 2 ? "en" : "fr"}' >scored.jsonl
  grep '"int_score": [34], "language": "en"' scored.jsonl >chosen.jsonl
  expect 0 train 1 data.train=chosen.jsonl checkpoint.dir=chosen
  expect 0 train 1 data.train=scored.jsonl checkpoint.dir=all
  expect 0 train 1 data.train=scored.jsonl data.filter.min_int_score=3 data.filter.language=en checkpoint.dir=filtered
  same_tensors "$(step_file chosen 60)" "$(step_file filtered 60)"
  if (same_tensors "$(step_file all 60)" "$(step_file filtered 60)") >same.out; then fail "the filter leaves nothing out"; fi
  expect 2 train 1 data.filter.min_int_score=3 checkpoint.dir=none
  expect_error "data.train: 'rows_.*int_score"
}

test_bad_raw_files_before_the_first_step() {
  write_config
  refused "data.train: 'rows_1.jsonl' is raw text and no tokenizer is given; set data.tokenizer" -- train 1 data.train=rows_1.jsonl data.tokenizer=none data.document_token=1
  refused "data.cache_dir: cannot use 'tiny.yaml' for the cache 'tiny.yaml': it is no folder" -- train 1 data.cache_dir=tiny.yaml
  sed 's/"text"/"body"/' rows_1.jsonl >bodies.jsonl
  expect 2 train 1 data.train=bodies.jsonl
  expect_error "data.train: 'bodies.jsonl': none of its 100 rows has the key 'text' .data.text_key."
  cp rows_1.jsonl gzip.jsonl.gz
  refused "'gzip.jsonl.gz'" -- train 1 data.train=gzip.jsonl.gz
}

# A file that cannot be tokenised ends the run when it is its turn; what was learnt until then is saved.
test_a_broken_file_in_mid_run() {
  write_config
  echo '{"text": "broken' >>rows_10.jsonl
  local count
  for count in 1 2; do
    rm -rf out cache
    expect 1 train $count data.shuffle=false
    expect_error "data.train: 'rows_10.jsonl' line 81: broken JSON"
    expect_checkpoints out "$(last_step out)"
  done
  expect 2 train 1 data.shuffle=false # again, now before the first step
}

test_a_file_that_changes_in_mid_run() {
  write_config
  start_train 1 train.steps=1000000 data.cache_bytes=1KiB
  await_step out 3
  echo '{"text": "more"}' >>rows_1.jsonl
  ends 74
  expect_error "data.train: 'rows_1.jsonl' changed in mid-run: it has [0-9]+ bytes and had [0-9]+ at the start"
  expect_checkpoints out "$(last_step out)"
}

# The same of a validation set, which is read when it is due.
test_a_broken_validation_file_in_mid_run() {
  write_config
  write_rows bad.jsonl 1 200
  echo '{"text": "broken' >>bad.jsonl
  local count
  for count in 1 2; do
    rm -rf out cache
    expect 1 train $count data.validation=bad.jsonl train.eval_every=7 train.eval_batches=1000
    expect_error "data.validation: 'bad.jsonl' line 201: broken JSON"
    expect_checkpoints out 7
  done
  expect 2 train 1 data.validation=bad.jsonl train.eval_every=7 train.eval_batches=1000 # owed before the first step
}

# What cannot be written ends the run when it is needed; it takes no room then, and what was learnt is saved.
test_a_cache_that_cannot_be_written() {
  write_config
  load_faults FAULT_WRITE=/cache/ FAULT_WHEN=out/step_00000001.h5
  expect 74 train 1 data.cache_bytes=1KiB checkpoint.every=1 checkpoint.keep=100
  expect_error "data.cache_dir: cannot write 'cache/.*[.]partial': Input/output error"
  [ -e "$(step_file out "$(last_step out)")" ] || fail "what was learnt is not saved"
  [ -z "$(find cache -name '*.partial')" ] || fail "it holds $(ls cache)"
}

# A cache that cannot be written is enough where it holds all.
test_a_read_only_cache() {
  unshare -rm true 2>/dev/null || skip "no mounts of one's own"
  write_config
  expect 0 train 1 checkpoint.dir=whole
  cat >read_only <<SCRIPT
#!/bin/sh
exec unshare -rm sh -c 'mount --bind cache cache && mount -o remount,ro,bind cache && exec "\$0" "\$@"' '$LAZYTRAIN' "\$@"
SCRIPT
  chmod +x read_only
  LAZYTRAIN=./read_only expect 0 train 1
  same_tensors "$(step_file whole 60)" "$(step_file out 60)"
  LAZYTRAIN=./read_only refused "data.cache_dir: cannot use 'cache' for the cache 'cache': Read-only file system" -- \
    train 1 data.separator=x checkpoint.dir=none
  truncate -s 1100 "$(find cache -name '*.bin' | head -n 1)"
  LAZYTRAIN=./read_only expect 74 train 1 checkpoint.dir=none
  expect_error "data.cache_dir: cannot remove 'cache/.*[.]bin': Read-only file system"
}

test_a_cache_without_locks() {
  write_config
  load_faults FAULT_LOCK=.partial FAULT_WHEN=tiny.yaml
  expect 74 train 1
  expect_error "data.cache_dir: cannot write or lock 'cache/.*[.]partial': Function not implemented"
}

# The watchdog forgives a file that takes long as long as tokenising goes on.
test_a_file_that_takes_long() {
  write_config
  write_rows rows_1.jsonl 1 30000
  load_faults FAULT_READ=rows_1.jsonl FAULT_DELAY=1500 FAULT_WHEN=tiny.yaml
  expect 0 train 1 data.train=rows_1.jsonl train.steps=1 train.stall_timeout_s=4
  [ -e delayed ] || fail "nothing was delayed"
}

# hold_cache: someone else writes all that the cache holds, and does not go on; $holder is its process.
hold_cache() {
  local entry
  for entry in cache/*.bin; do mv "$entry" "${entry%.bin}.partial"; done
  # shellcheck disable=SC2016 # Perl's
  perl -MFcntl=:flock -e 'alarm 100; @held = map { open my $f, "+>", $_ or die; flock $f, LOCK_EX or die; $f } @ARGV;
    open my $ready, ">", "held"; sleep 100' cache/*.partial &
  holder=$!
  until [ -e held ]; do sleep 0.05; done
}

# A signal is heeded while tokens are waited for.
test_a_signal_while_tokens_are_waited_for() {
  write_config
  expect 0 train 1
  rm -rf out
  hold_cache
  rm stderr # of the run before
  start_train 1
  await "the run waits" grep -q '^start' stderr
  kill -TERM "$started"
  ends 75
  kill "$holder"
  expect_checkpoints out 0
}

test_a_signal_while_validation_waits_for_tokens() {
  write_config
  write_rows other.jsonl 1 50
  expect 0 train 1 data.train=other.jsonl train.steps=1
  hold_cache
  local count
  for count in 1 2; do
    rm -rf out stderr
    start_train $count data.validation=other.jsonl train.eval_every=5
    await_step out 5
    kill -USR1 "$started"
    ends 75
    expect_checkpoints out 5
  done
  kill "$holder"
}

run_tests
