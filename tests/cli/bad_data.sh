#!/usr/bin/env bash
# Bad data, alone and on two ranks: found before the first step (exit status 2, nothing touched) or, where a token comes
# to light in mid-run, before the update that would use it. What happens to good data in mid-run is mid_run.sh's.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# The tiny config on a shard of 961 tokens: 40 samples of 24, 5 steps of 8 in order.
write_config() {
  write_tiny_config
  write_shard shard.bin 961
  sed -i 's/^data: .*/data: {train: shard.bin, seq_len: 24, shuffle: false}/' tiny.yaml
}

# bad PATTERN WORD...: the words of train() are refused, and the line matches; so on 1 and on 2 ranks.
bad() {
  local count
  for count in 1 2; do try_apart refused "$1" -- train $count "${@:2}"; done
}

# bad_field INDEX HEX PATTERN: a shard whose header has another number there.
bad_field() {
  cp shard.bin bad.bin
  patch_file bad.bin $((4 * $1)) "$2"
  bad "^lazytrain: error: data.train: 'bad.bin' $3" data.train=bad.bin
}

test_headers_and_sizes_of_shards() {
  write_config
  bad_field 0 01000000 'is (not a token shard|neither a token shard)' # no magic
  bad_field 1 02000000 'is a token shard of version 2, expected version 1 with magic 20240520'
  bad_field 1 07000000 'is a token shard of version 7, expected version 1' # of the other magic
  bad_field 2 ffffffff 'has a header that says -1 tokens; found 2946 bytes, which hold 961 tokens'
  bad_field 2 c2030000 'is truncated: its header says 962 tokens of 2 bytes, so 2948 bytes are expected; found 2946'
  bad_field 2 c0030000 'is too long: its header says 960 tokens'
  bad_field 2 ffffff7f 'is truncated: its header says 2147483647 tokens'
  bad_field 2 00000000 '(holds 0 tokens|is too long: its header says 0 tokens)'
  head -c 1023 shard.bin >short.bin
  bad "'short.bin' has 1023 bytes, too few for a token shard's header of 1024 bytes" data.train=short.bin
  head -c -1 shard.bin >odd.bin
  bad "'odd.bin' is truncated: .* hold 960 tokens and a part of one" data.train=odd.bin
  (cat shard.bin; echo) >long.bin
  bad "'long.bin' is too long" data.train=long.bin
  : >empty.bin
  bad "'empty.bin' .*(empty|0 bytes|too few)" data.train=empty.bin
  bad "'bad.bin' is too long" 'data.train=[shard.bin, bad.bin]'
  bad "data.validation: 'bad.bin' is too long" data.validation=bad.bin train.eval_every=1
  all_held
}

test_one_token_short_of_a_sample() {
  write_config
  write_shard sample.bin 32769
  write_shard short.bin 32768
  bad "'short.bin' holds 32768 tokens, expected at least 32769 \(data.seq_len \+ 1\)" data.train=short.bin data.seq_len=32768
  write_text 24 >short.txt
  write_text 23 >shorter.txt
  bad "'shorter.txt' holds 24 tokens .*expected at least 25" data.train=shorter.txt data.tokenizer=bytes
  try expect 0 train 1 data.train=short.txt data.tokenizer=bytes train.steps=2 checkpoint.dir=text
  # A whole sample does: its model would take minutes here, so only the initial weights are saved.
  try expect 0 train 1 data.train=sample.bin data.seq_len=32768 train.steps=0 model.num_layers=1
  try expect_line stderr '32769 tokens in 1 file, 1 samples of 32768'
  all_held
}

test_files_that_are_none() {
  write_config
  mkdir folder hidden
  touch hidden/.shard.bin
  mkfifo fifo.bin
  ln -s nowhere.bin dangling.bin
  ln -s loop.bin loop.bin
  bad 'data.train: .*missing.bin' data.train=missing.bin
  bad "data.train: .*'none_\*.bin'" 'data.train=none_*.bin'
  bad 'data.train: .*folder' data.train=folder
  bad 'data.train: .*hidden' data.train=hidden
  bad "data.train: 'folder' is a folder, expected a regular file" 'data.train=fold*'
  bad 'data.train: .*fifo.bin. is a FIFO, expected a regular file' data.train=fifo.bin
  bad 'data.train: .*fifo.bin. is a FIFO, expected a regular file' 'data.train=fif*'
  bad "data.train: found nothing, expected a path" 'data.train=[""]'
  bad "data.train: '/proc/self/maps' is empty" data.train=/proc/self/maps data.tokenizer=bytes
  bad 'data.train: .*/dev/zero. is a device, expected a regular file' data.train=/dev/zero
  bad 'data.train: .*dangling.bin' data.train=dangling.bin
  bad 'data.train: .*loop.bin' data.train=loop.bin
  bad 'data.validation: .*missing.bin' data.validation=missing.bin
  all_held
}

test_text() {
  write_config
  : >empty.txt
  write_text 500 >some.txt
  cp some.txt records.parquet
  bad "'empty.txt' is empty; expected text" data.train=empty.txt data.tokenizer=bytes
  bad "'some.txt' is text and no tokenizer is given; set .data.tokenizer: bytes" data.train=some.txt
  bad "'records.parquet' is no Parquet file, as its name says: it starts with" data.train=records.parquet data.tokenizer=bytes
  bad "expected files of one kind" 'data.train=[shard.bin, some.txt]' data.tokenizer=bytes
  all_held
}

# bad_token RANKS ID: the update of step 3 would use it, and is never made.
bad_token() {
  write_token shard.bin 450 "$2" # in sample 18: step 3, the third of its 8 samples
  expect 1 train "$1" checkpoint.every=1
  expect_error "data.train: 'shard.bin' at byte $((1024 + 2 * 450)): token id $2, expected less than 257 \(model.vocab_size\)"
  expect_steps out 1 2
  expect_checkpoints out 1 2
  expect 0 lazytrain inspect --verify out/step_00000002.h5
  [ ! -e out/lock ] || fail "the lock stays behind"
  write_token shard.bin 450 7
  expect 0 train "$1" checkpoint.every=1
  expect_steps out 1 12
}

test_a_bad_token_stops_all_ranks_before_the_update() {
  write_config
  try_apart bad_token 1 257
  try_apart bad_token 2 65535
  try_apart bad_token 8 300
  all_held
}

# Ids of 32 bits: one that is negative as a signed number, and one that only its high half makes too large.
test_a_bad_token_of_32_bits() {
  write_config
  local id count
  for id in 65543 4294967295; do
    perl -e 'print pack("l<256", 20240801, 7, 961, (0) x 253), pack("L<*", (7) x 20, $ARGV[0], (7) x 940)' $id >wide.bin
    for count in 1 2; do
      expect 1 train $count data.train=wide.bin checkpoint.dir=out$id$count
      expect_error "'wide.bin' at byte 1104: token id $id, expected less than 257"
      expect_checkpoints out$id$count
    done
  done
}

run_tests
