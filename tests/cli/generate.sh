#!/usr/bin/env bash
# `lazytrain generate`: the same text for the same options, whatever the threads; bad calls are refused.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# A model that has learned something: 30 steps of 16 samples at a high rate.
write_checkpoint() {
  write_tiny_config
  expect 0 train 1 train.steps=30 train.global_batch=16 optimizer.lr=1e-2 "$@"
  checkpoint=out/step_00000030.h5
}

# generated FILE OPTION...: the continuation goes to FILE.
generated() {
  expect 0 lazytrain generate "$checkpoint" "${@:2}"
  mv stdout "$1"
}

differ() { ! cmp -s "$1" "$2" || fail "$1 and $2 are the same: $(head -c 200 "$1")"; }
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ: $(diff "$1" "$2" | head -4)"; }

test_greedy_is_deterministic() {
  write_checkpoint
  generated first --prompt 'line 5' --max-tokens 60
  generated again --prompt 'line 5' --max-tokens 60 --threads 3
  generated seeded --prompt 'line 5' --max-tokens 60 --seed 9 --temperature 0
  same first again
  same first seeded
  [ "$(head -c 6 first)" = 'line 5' ] || fail "the prompt does not come first: $(head -c 50 first)"
  generated shorter --prompt 'line 5' --max-tokens 10
  [ "$(head -c 16 first)" = "$(head -c 16 shorter)" ] || fail "fewer tokens are others: $(cat shorter)"
  [ "$(wc -c <shorter)" -eq 17 ] || fail "prompt, 10 bytes and a newline, found $(wc -c <shorter) bytes"
}

test_sampling_follows_its_seed() {
  write_checkpoint
  generated a --prompt x --max-tokens 80 --temperature 1 --seed 1
  generated b --prompt x --max-tokens 80 --temperature 1 --seed 1 --threads 2
  generated c --prompt x --max-tokens 80 --temperature 1 --seed 2
  generated cooler --prompt x --max-tokens 80 --temperature 0.5 --seed 1
  generated greedy --prompt x --max-tokens 80
  generated one --prompt x --max-tokens 80 --temperature 1 --top-k 1 --seed 5
  generated few --prompt x --max-tokens 80 --temperature=1 --top-k=4 --seed=1
  generated all --prompt x --max-tokens 80 --temperature 1 --top-k 300 --seed 1
  same a b
  differ a c
  differ a cooler
  differ a greedy
  differ a few
  same one greedy
  same all a
}

# The bytes of a prompt are its tokens, whatever they are; an empty one begins a document.
test_prompts() {
  write_checkpoint
  generated empty --prompt '' --max-tokens 20
  [ -s empty ] || fail "an empty prompt gives nothing"
  generated utf8 --prompt $'gr\xc3\xbc\xc3\x9fe \xf0\x9f\x8c\x8d' --max-tokens 5
  [ "$(head -c 12 utf8)" = $'gr\xc3\xbc\xc3\x9fe \xf0\x9f\x8c\x8d' ] || fail "the prompt comes out as $(od -c utf8 | head -2)"
  generated invalid --prompt $'\xff\xfe' --max-tokens 5
  generated dashes --prompt '--prompt' --max-tokens 5
  [ "$(head -c 8 dashes)" = --prompt ] || fail "a prompt that looks like an option: $(cat dashes)"
  generated long --prompt "$(write_text 3000)" --max-tokens 5 # longer than the samples it was trained on
}

test_softmax_and_a_tied_head() {
  write_checkpoint model.attention.kind=softmax model.tie_embeddings=true
  generated first --prompt 'line' --max-tokens 30
  generated again --prompt 'line' --max-tokens 30 --threads 2
  same first again
}

bad() { refused "$1" -- lazytrain generate "${@:2}"; }

test_bad_calls() {
  write_checkpoint
  head -c 5000 $checkpoint >cut.h5
  write_shard shard.bin 500
  expect 0 train 1 checkpoint.dir=tokens train.steps=2 data.train=shard.bin data.tokenizer=none
  try bad 'no checkpoint is given' --prompt x
  try bad 'no prompt is given' $checkpoint
  try bad '--prompt needs a text' $checkpoint --prompt
  try bad 'two checkpoints are given' $checkpoint $checkpoint --prompt x
  try bad 'missing.h5: .*No such file' missing.h5 --prompt x
  try bad 'cut.h5: .*(truncated|damaged)' cut.h5 --prompt x
  try bad 'text.txt: not an HDF5 file' text.txt --prompt x
  try bad 'out: not a file' out --prompt x
  try bad 'trained on token shards without data.tokenizer' tokens/step_00000002.h5 --prompt x
  try bad 'unknown option --tempreature' $checkpoint --prompt x --tempreature 1
  try bad "--max-tokens: found '0', expected a whole number from 1" $checkpoint --prompt x --max-tokens 0
  try bad "--max-tokens: found '', expected" $checkpoint --prompt x --max-tokens
  try bad "--max-tokens: found '1e3', expected" $checkpoint --prompt x --max-tokens 1e3
  try bad "--temperature: found 'nan', expected" $checkpoint --prompt x --temperature nan
  try bad "--temperature: found '-1', expected" $checkpoint --prompt x --temperature -1
  try bad "--top-k: found '-1', expected" $checkpoint --prompt x --top-k -1
  try bad "--seed: found '9223372036854775808', expected" $checkpoint --prompt x --seed 9223372036854775808
  all_held
}

run_tests
