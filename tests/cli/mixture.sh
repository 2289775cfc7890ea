#!/usr/bin/env bash
# Mixtures of sources with weights: the same bits on any ranks and over kills, sources that go on where they were when
# the mixture changes, metrics by source; the files of data.train stay what they were; held-out files are not trained on.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# Two sources, 3 to 1: a shard of 10 samples of 24 and 5 tokens more; a folder of two shards, 4 and 3 samples. Steps of 8
# take 6 and 2 of them: 12 steps are 7.2 and 3.4 epochs. Token 8 ends a document.
mixture='[{path: a.bin, weight: 3}, {path: b, weight: 1}]'
write_mixture() {
  write_tiny_config
  write_shard a.bin 246
  mkdir b
  write_shard b/1.bin 97
  write_shard b/2.bin 82
  sed -i "s/^data: .*/data: {train: $mixture, seq_len: 24, document_token: 8}/
    s/^checkpoint: .*/checkpoint: {dir: out, every: 1, keep: 0}/" tiny.yaml
}

# Samples of each source that a checkpoint counts.
consumed() { h5dump -d /data/samples_consumed "$(step_file "$1" "$2")" | sed -n 's/^ *(0): //p'; }
expect_consumed() { # folder, step, numbers
  [ "$(consumed "$1" "$2")" = "$3" ] || fail "step $2 in $1 has consumed $(consumed "$1" "$2"), expected $3"
}

# after_step K FOLDER: what a run leaves that is cut off after step K.
after_step() {
  mkdir "$2"
  cp whole/metrics.jsonl "$2"
  local step
  for step in $(seq 1 "$1"); do cp "$(step_file whole "$step")" "$2"; done
}

goes_on_from() { # step, ranks
  after_step "$1" "from$1"
  expect 0 train "$2" checkpoint.dir="from$1"
  [ "$1" -eq 0 ] || expect_line stderr "^resume +$(step_file "from$1" "$1"): step $1,"
  same_tensors whole/step_00000012.h5 "from$1/step_00000012.h5"
  same_metrics whole "from$1"
}

test_ranks_and_kills_change_no_bit() {
  write_mixture
  expect 0 train 1 checkpoint.dir=whole
  expect_consumed whole 12 '72, 24'
  try_apart goes_on_from 0 2
  try_apart goes_on_from 0 4
  try_apart goes_on_from 3 4
  try_apart goes_on_from 7 2
  try_apart goes_on_from 11 1
  all_held
}

# Raw files, whose samples are counted on the way: one of a single sample that comes every fourth step, so that a run
# which goes on must find out how often it came before; one of 15 samples, in its fourth epoch at the end; a shard.
test_raw_files_in_a_mixture() {
  write_mixture
  echo '{"text": "thirty characters of some text"}' >one.jsonl
  seq 10 21 | sed 's/.*/{"text": "thirty characters of a text &"}/' >rows.jsonl
  local train='[{path: one.jsonl, weight: 1}, {path: rows.jsonl, weight: 20}, {path: a.bin, weight: 11}]'
  sed -i "s/^data: .*/data: {train: $train, seq_len: 24, tokenizer: bytes}/" tiny.yaml
  expect 0 train 1 checkpoint.dir=whole
  expect_line stderr '^source 1 +one.jsonl: weight 1, 31 of 1000 samples; 1 file, tokens and samples are counted on the way$'
  expect_consumed whole 12 '3, 60, 33'
  expect_line whole/metrics.jsonl '"step":12,.*"sources":\[\{"epoch":2,"tokens":72,.*\},\{"epoch":3,"tokens":1440,.*\},\{"epoch":3,"tokens":792,[^}]*\}\]\}$'
  try_apart goes_on_from 0 4
  try_apart goes_on_from 6 2
  try_apart goes_on_from 7 4
  rm -r token_cache
  try_apart goes_on_from 9 1
  all_held
}

# count_documents FILE SAMPLES: how often the document token is among the inputs of all samples of a shard.
count_documents() { od -An -v -tu2 -w2 -j 1024 -N $((2 * 24 * $2)) "$1" | grep -c '^ *8$'; }

# After 10 steps the first source ends its sixth epoch, after 7 the second its second.
test_metrics_by_source() {
  write_mixture
  expect 0 train 2
  local step line least a b
  for step in $(seq 1 12); do
    a=$(((6 * step - 1) / 10)) b=$(((2 * step - 1) / 7))
    least=$((a < b ? a : b))
    line="\"epoch\":$least,\"documents\":[0-9]+,\"sources\":\[\{\"epoch\":$a,\"tokens\":$((144 * step)),\"documents\":[0-9]+\},"
    expect_line <(sed -n "${step}p" out/metrics.jsonl) "^\{\"step\":$step,\"tokens\":$((192 * step)),\"loss\":.*$line\{\"epoch\":$b,\"tokens\":$((48 * step)),\"documents\":[0-9]+\}\]\}$"
  done
  sed -E 's/.*"epoch":[0-9]+,"documents":([0-9]+),"sources":\[\{[^}]*"documents":([0-9]+)\},\{[^}]*"documents":([0-9]+)\}\].*/\1 \2 \3/' \
    out/metrics.jsonl >documents
  a=$(count_documents a.bin 10) b=$(($(count_documents b/1.bin 4) + $(count_documents b/2.bin 3)))
  [ $((a * b)) -gt 0 ] || fail "no documents in the shards"
  awk -v a="$a" -v b="$b" '{ if ($1 != $2 + $3) exit 1 } NR <= 10 { x += $2 } NR <= 7 { y += $3 }
    END { exit !(x == 6 * a && y == 2 * b) }' documents || fail "documents: $(cat documents); $a and $b an epoch"
}

test_one_source_has_flat_metrics() {
  write_mixture
  expect 0 train 1 data.train=a.bin
  expect_line out/metrics.jsonl '"step":12,.*,"epoch":9,"documents":[0-9]+\}$'
  expect 0 train 1 data.train=a.bin data.document_token=-1 checkpoint.dir=none
  expect_line none/metrics.jsonl '"step":12,.*,"epoch":9\}$'
  expect 0 train 1 'data.train={path: a.bin, weight: 7}' checkpoint.dir=weighted
  same_tensors out/step_00000012.h5 weighted/step_00000012.h5
  same_metrics out weighted
}

test_what_a_run_says_of_its_sources() {
  write_mixture
  expect 0 train 1 train.steps=2
  expect_line stderr '^data +2 sources; a step takes 8 sequences \(192 tokens\)$' \
    '^source 1 +a.bin: weight 3, 750 of 1000 samples, an epoch 1.7 steps; 246 tokens in 1 file, 10 samples of 24, 5 tokens at ends never read$' \
    '^source 2 +b: weight 1, 250 of 1000 samples, an epoch 3.5 steps; 179 tokens in 2 files, 7 samples of 24, 9 tokens at ends never read$'
  lazytrain inspect out/step_00000002.h5 >shown
  expect_line shown '^samples consumed: 12 4$' '^data: +hash [0-9a-f]{32}, 3 files, 3922 bytes$' \
    'train: \[\{path: "a.bin", weight: 3.0\}, \{path: "b", weight: 1.0\}\]'
}

# From step 4 on as much of one as of the other: 16 of each in 4 steps, whatever went before.
test_changed_weights_go_on_where_each_source_was() {
  write_mixture
  expect 0 train 2 train.steps=4 schedule.decay_steps=12
  local even='data.train=[{path: a.bin, weight: 1}, {path: b, weight: 1}]'
  refused 'data.train: found .*weight: 1.0.*, but the checkpoint was trained with .*weight: 3.0.*--allow data.train' -- \
    train 1 train.steps=8 "$even"
  expect 0 train 1 train.steps=8 "$even" --allow data.train
  expect_consumed out 4 '24, 8'
  expect_consumed out 8 '40, 24'
  cp -r out again
  rm again/step_00000008.h5 again/step_00000007.h5 again/step_00000006.h5
  expect 0 train 4 train.steps=8 checkpoint.dir=again "$even"
  same_tensors out/step_00000008.h5 again/step_00000008.h5
}

test_changed_sources_keep_their_place() {
  write_mixture
  write_shard c.bin 300
  expect 0 train 1 train.steps=4 schedule.decay_steps=12
  expect 0 train 2 train.steps=8 --allow data.train 'data.train=[{path: a.bin, weight: 1}, {path: b, weight: 1}, {path: c.bin, weight: 2}]'
  expect_line stderr 'data.train has 3 sources, out/step_00000004.h5 2: the first 2 go on where they were, the others begin$'
  expect_consumed out 8 '32, 16, 16'
  expect 0 train 1 train.steps=10 data.train=a.bin --allow data.train
  expect_line stderr 'data.train has 1 sources, out/step_00000008.h5 3: these go on where the first of those were$'
  expect_consumed out 10 48
}

# One stream of a folder: a file more in it would give every sample another place.
test_other_files_are_refused() {
  write_mixture
  expect 0 train 1 train.steps=2 data.train=b schedule.decay_steps=12
  mv b moved
  expect 0 train 1 train.steps=4 data.train=moved
  expect_line stderr '^resume +out/step_00000002.h5'
  write_shard moved/3.bin 97
  refused 'data.train: found \["moved"\] of 3 files and 3624 bytes, but the checkpoint was trained with \["moved"\] of 2 files and 2406 bytes; put those files back' -- \
    train 2 train.steps=6 data.train=moved
  expect 0 train 1 train.steps=6 data.train=moved --allow data.train
  mv moved/3.bin moved/4.bin
  refused 'of 3 files and 3624 bytes by other names or in another order; put' -- train 1 train.steps=8 data.train=moved
}

test_a_checkpoint_without_a_data_hash_is_accepted() {
  /usr/bin/python3 -c 'import h5py' 2>/dev/null || skip "no h5py for /usr/bin/python3"
  write_mixture
  expect 0 train 1 train.steps=2 data.train=b schedule.decay_steps=12
  /usr/bin/python3 -c 'import h5py; del h5py.File("out/step_00000002.h5", "r+").attrs["data_hash"]'
  write_shard b/3.bin 97
  expect 0 train 1 train.steps=4 data.train=b
  expect_line <(lazytrain inspect out/step_00000004.h5) '^data: +hash [0-9a-f]{32}, 3 files, 3624 bytes$'
}

# Hosts that do not see the same files: a folder for each rank.
test_ranks_that_find_other_files_are_refused() {
  write_mixture
  local rank
  for rank in 0 1; do
    mkdir rank$rank
    cp -R tiny.yaml a.bin b rank$rank
  done
  # shellcheck disable=SC2016 # the rank's own shell knows its rank
  printf '#!/bin/sh\ncd "rank${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" && exec "%s" train tiny.yaml\n' "$LAZYTRAIN" >apart
  chmod +x apart
  mv rank1/b/2.bin rank1/b/3.bin
  refused 'data.train: rank 1 on [^ ]+ finds 3 files of 3922 bytes, rank 0 3 files of 3922 bytes by other names; every host needs' -- \
    timeout -k 5 60 "$tests_root/mpirun_ranks" 2 ./apart
  rm rank1/b/3.bin
  refused 'data.train: rank 1 on [^ ]+ finds 2 files of 2734 bytes, rank 0 3 files of 3922 bytes; every host needs' -- \
    timeout -k 5 60 "$tests_root/mpirun_ranks" 2 ./apart
}

bad() { # pattern, KEY=VALUE...
  try refused "$1" -- train 1 "${@:2}"
  try refused "$1" -- train 2 "${@:2}"
}

test_bad_mixtures() {
  write_mixture
  mkdir held_out
  write_shard held_out/v.bin 100
  ln -s ../b/2.bin held_out/w.bin
  ln a.bin other.bin
  bad 'data.train: found 1 entries with a weight and 1 without; give every one a weight, or none' \
    'data.train=[{path: a.bin, weight: 1}, b]'
  bad 'data.train: found the weight -2, expected a number above 0' 'data.train=[{path: a.bin, weight: -2}]'
  bad 'data.train: weight 0.001 of source 2 is 0.0003[0-9]* of all 2 together' \
    'data.train=[{path: a.bin, weight: 3}, {path: b, weight: 0.001}]'
  bad "data.train: .*'none.bin'" 'data.train=[{path: a.bin, weight: 3}, {path: none.bin, weight: 1}]'
  bad 'data.validation: found a weight, but only data.train is a mixture' 'data.validation=[{path: a.bin, weight: 1}]'
  bad "data.validation: 'held_out/w.bin' is also in data.train, as 'b/2.bin': .*take it out of one of them" \
    data.validation=held_out train.eval_every=1
  bad "data.validation: 'other.bin' is also in data.train, as 'a.bin'" \
    'data.validation={good: held_out/v.bin, leaks: other.bin}' train.eval_every=1
  bad "data.validation: 'a.bin' is also in data.train" data.train=a.bin data.validation=a.bin train.eval_every=1
  all_held
}

run_tests
