#!/usr/bin/env bash
# A folder of `lazytrain prepare` as data: it trains, inspect verifies it, and one that was tampered with is refused.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/prepare.sh
source "$(dirname "$0")/lib/prepare.sh"
# shellcheck source=lib/processes.sh
source "$(dirname "$0")/lib/processes.sh"

write_prepared() {
  write_tiny_config
  write_text 40000 | awk '{ text = text $0; if (NR % 7 == 0) { print "{\"text\": \"" text "\"}"; text = "" } }' >rows.jsonl
  expect 0 lazytrain prepare --input rows.jsonl --tokenizer bytes --output shards --shard-tokens 9000 --validation-fraction 0.2
  if [ ! -e shards/shard_000002.bin ] || [ ! -e shards/validation/shard_000000.bin ]; then fail "no shards"; fi
}

# The folder is its shards, in order, and the splits are two sources.
test_both_splits_train() {
  write_prepared
  mkdir plain
  cp shards/shard_*.bin plain
  expect 0 train 1 data.train=shards data.validation=shards/validation train.eval_every=6 train.eval_batches=2
  expect_line stderr '^data .* tokens in [0-9]+ files' '^step 12: validation loss'
  expect 0 train 1 data.train=plain data.validation=shards/validation/shard_000000.bin train.eval_every=6 train.eval_batches=2 \
    checkpoint.dir=other
  same_metrics out other
}

tampered() { refused "$1" -- lazytrain train tiny.yaml --set data.train=shards; }
test_tampered_folders_are_refused() {
  write_prepared
  cp -r shards good
  rm shards/shard_000001.bin
  try tampered "data.train: 'shards/shard_000001.bin' is listed in the folder's manifest.json: No such file"
  cp good/shard_000001.bin shards
  cp good/shard_000000.bin shards/shard_000009.bin
  try tampered "data.train: 'shards/shard_000009.bin' is not listed in the folder's manifest.json"
  rm shards/shard_000009.bin
  truncate -s 5000 shards/shard_000001.bin
  try tampered "data.train: 'shards/shard_000001.bin' has 5000 bytes, manifest.json says [0-9]+"
  cp good/shard_000001.bin shards
  head -c 400 good/manifest.json >shards/manifest.json
  try tampered "data.train: 'shards/manifest.json' is damaged"
  sed 's/"version": 1/"version": 99/' good/manifest.json >shards/manifest.json
  try tampered "data.train: 'shards/manifest.json' has version 99, this program reads up to 1"
  sed 's/"xxh3_128"/"crc"/' good/manifest.json >shards/manifest.json
  try tampered "data.train: 'shards/manifest.json' is damaged: a shard lacks"
  cp good/manifest.json shards
  all_held
  expect 0 lazytrain train tiny.yaml --set data.train=shards
}

test_inspect_verifies() {
  write_prepared
  expect 0 lazytrain inspect shards
  expect_line stdout '^format: +prepared token shards, train split$' '^tokenizer: +bytes, vocabulary 257, end of text 256' \
    '^shard_000001.bin: 9000 tokens, [0-9]+ documents, 19024 bytes$' '^format: +prepared token shards, validation split$'
  expect 0 lazytrain inspect --verify shards
  expect_line stdout '^shard_000001.bin: .* bytes, verified$'
  flip_byte shards/shard_000001.bin 7001
  expect 0 lazytrain inspect shards
  expect 1 lazytrain inspect --verify shards
  expect_error "shards: 1 of [0-9]+ shards are bad, .*'shards/shard_000001.bin' is damaged: its checksum is"
  expect_line stdout '^shard_000002.bin: .* bytes, verified$'
  flip_byte shards/shard_000001.bin 7001
  flip_byte shards/validation/shard_000000.bin 2000
  expect 1 lazytrain inspect --verify shards
  expect_error "'shards/validation/shard_000000.bin' is damaged"
}

# A token that becomes another one, which no vocabulary shows: found by the checksum within an epoch.
changes() { # ranks, shard
  rm -rf out
  start_train "$1" data.train=shards train.steps=1000000 schedule.kind=constant checkpoint.every=1000000
  await_step out 3
  flip_byte "shards/$2" 5024
  ends 74
  expect_error "data.train: 'shards/$2' changed: its checksum is [0-9a-f]{32}, in the manifest [0-9a-f]{32}"
  expect_checkpoints out "$(last_step out)"
  flip_byte "shards/$2" 5024
}

test_a_shard_that_changes_in_mid_run() {
  write_prepared
  try_apart changes 1 shard_000002.bin
  try_apart changes 2 shard_000001.bin
  all_held
}

# Some of a folder's shards, without the rest: used, with a word that they are not checked.
test_part_of_a_folder() {
  write_prepared
  rm shards/shard_000000.bin
  expect 0 train 1 'data.train=shards/shard_*.bin'
  expect_line stderr "^lazytrain: warning: data.train: 'shards/shard_000000.bin' is listed .*; the shards of this folder are not checked"
}

run_tests
