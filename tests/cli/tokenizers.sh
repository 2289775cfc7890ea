#!/usr/bin/env bash
# Tokenizers through the program: what the config takes and refuses, what a resumed run may change, what generate writes,
# what inspect shows of them and by them. (How they encode is for the unit tests.)
cd "$(dirname "$0")" || exit 1
source ./lib.sh
source ./lib/tokenizer.sh
data=${LAZYTRAIN_TEST_DATA:-$tests_root/../../shared/data}

# The tiny config on a shard of the small tokenizer's tokens.
write_token_config() {
  write_tiny_config
  write_tokenizer tok.json
  write_text_shard shard.bin text.txt 20
  sed -i 's/vocab_size: 257/vocab_size: 264/; s/train: text.txt, tokenizer: bytes/train: shard.bin, tokenizer: tok.json/' tiny.yaml
}
hash_of() { lazytrain inspect --tokenizer "$1" | sed -n 's/^hash: *//p'; }

# bad PATTERN WORD...: the words of train() are refused, and the line matches; so on 1 and on 2 ranks.
bad() {
  local count
  for count in 1 2; do try_apart refused "$1" -- train $count "${@:2}"; done
}

test_bad_tokenizers() {
  write_token_config
  head -c 1000 tok.json >cut.json
  : >empty.json
  mkdir folder
  bad "^lazytrain: error: --set data.tokenizer=no.json: data.tokenizer: cannot read 'no.json': No such file" data.tokenizer=no.json
  bad "data.tokenizer: 'empty.json' has 0 bytes" data.tokenizer=empty.json
  bad "data.tokenizer: 'cut.json'.*" data.tokenizer=cut.json
  bad "data.tokenizer: 'text.txt' is no tokenizer that is known" data.tokenizer=text.txt
  bad "data.tokenizer: folder 'folder' holds no tokenizer" data.tokenizer=folder
  bad "data.tokenizer: cannot read 'v.json'" 'data.tokenizer={vocab: v.json, merges: m.txt}'
  bad "data.tokenizer: found another map, expected \{vocab: encoder.json, merges: vocab.bpe\}" 'data.tokenizer={vocab: v.json}'
  bad "model.vocab_size: found 259, expected at least 260, the vocabulary of data.tokenizer 'tok.json'" model.vocab_size=259
  sed -i 's/tok.json/no.json/' tiny.yaml
  bad "^lazytrain: error: tiny.yaml:[0-9]+: data.tokenizer: cannot read 'no.json'"
  all_held
}

# A pair of files is one tokenizer, from the file, from --set, and in the resolved config that a resumed run reads.
test_a_run_on_shards() {
  local count
  write_token_config
  expect 0 train 1 data.document_mask=true
  expect 0 lazytrain inspect out/step_00000012.h5
  expect_line stdout "^tokenizer: +hash $(hash_of tok.json)$" '^ *tokenizer: "tok.json"$' '^ *document_token: 259$'
  perl -MJSON::PP -e 'local $/; my $all = JSON::PP->new->utf8->decode(<STDIN>); my $vocab = $all->{model}{vocab};
    $vocab->{"<|endoftext|>"} = keys %$vocab; open my $v, ">", "v.json"; print $v JSON::PP->new->utf8->encode($vocab);
    open my $m, ">", "m.txt"; print $m "#version: 0.2\n", map { "$_\n" } @{$all->{model}{merges}}' <tok.json
  sed -i 's/tokenizer: tok.json/tokenizer: {merges: m.txt, vocab: v.json}/' tiny.yaml
  for count in 1 2; do
    expect 0 train $count checkpoint.dir=pair data.document_mask=true train.steps=$((6 * count)) schedule.decay_steps=12
  done
  expect_line stderr '^resume +pair/step_00000006.h5'
  expect 0 lazytrain inspect pair/step_00000012.h5
  expect_line stdout '^ *tokenizer: "v.json,m.txt"$' '^ *document_token: 259$'
  same_tensors out/step_00000012.h5 pair/step_00000012.h5
  expect 0 train 1 checkpoint.dir=other data.document_token=10 data.document_mask=true
  expect_line <(lazytrain inspect other/step_00000012.h5) '^ *document_token: 10$'
}

# What a tokenizer holds tells which one it is, not where it lies.
test_resume_knows_a_tokenizer_by_its_contents() {
  local before after
  write_token_config
  expect 0 train 1 train.steps=4 schedule.decay_steps=12
  mkdir moved
  cp tok.json moved/tokenizer.json
  cp -r out copy
  expect 0 train 2 checkpoint.dir=copy train.steps=8 schedule.decay_steps=12 data.tokenizer=moved
  expect_line stderr '^resume +copy/step_00000004.h5'
  before=$(hash_of tok.json)
  write_tokenizer tok.json 't e'
  after=$(hash_of tok.json)
  [ "$before" != "$after" ] || fail "other contents, the same hash"
  bad "data.tokenizer: found \"tok.json\" \(hash $after\), but the run in this folder has \"tok.json\" \(hash $before\), which never changes" \
    train.steps=8 schedule.decay_steps=12 --allow data.tokenizer
  bad 'data.tokenizer: found none, but the run in this folder has "tok.json"' data.tokenizer=none --allow data
  all_held
}

test_a_checkpoint_without_a_hash_is_accepted() {
  /usr/bin/python3 -c 'import h5py' 2>/dev/null || skip "no h5py for /usr/bin/python3"
  write_token_config
  expect 0 train 1 train.steps=4 schedule.decay_steps=12
  /usr/bin/python3 -c 'import h5py; del h5py.File("out/step_00000004.h5", "r+").attrs["tokenizer_hash"]'
  expect 0 train 1 train.steps=8 schedule.decay_steps=12
  expect_line stderr '^resume +out/step_00000004.h5'
  expect_line <(lazytrain inspect out/step_00000008.h5) "^tokenizer: +hash $(hash_of tok.json)$"
}

# Weights of another tokenizer may be meant, so they are taken; but it is said.
test_init_from_another_tokenizer() {
  write_token_config
  expect 0 train 1 train.steps=2
  write_tokenizer other.json 't e'
  expect 0 train 1 train.steps=2 checkpoint.dir=same --init-from out/step_00000002.h5
  if grep -q 'another tokenizer' stderr; then fail "the same tokenizer is called another"; fi
  expect 0 train 2 train.steps=2 checkpoint.dir=new data.tokenizer=other.json --init-from out/step_00000002.h5
  expect_line stderr "^lazytrain: warning: out/step_00000002.h5 was trained with another tokenizer \(hash $(hash_of tok.json)\) than data.tokenizer 'other.json' \(hash $(hash_of other.json)\)"
  [ "$(grep -c 'another tokenizer' stderr)" -eq 1 ] || fail "said more than once"
}

# ---- generate ----

# A model that has learned something, of more ids than its tokenizer.
write_model() {
  write_token_config
  expect 0 train 1 train.steps=40 train.global_batch=16 optimizer.lr=1e-2
  checkpoint=out/step_00000040.h5
}
generated() {
  expect 0 lazytrain generate "$checkpoint" "${@:2}"
  mv stdout "$1"
}

test_generate_speaks_text() {
  write_model
  generated text --prompt 'line 5' --max-tokens 60
  [ "$(head -c 6 text)" = 'line 5' ] || fail "the prompt does not come first: $(head -c 50 text)"
  grep -q ' of a text' text || fail "it learned nothing: $(cat text)"
  generated utf8 --prompt 'grüße 🌍 ' --max-tokens 5
  [ "$(head -c 13 utf8)" = 'grüße 🌍 ' ] || fail "the prompt comes out as $(od -c utf8 | head -2)"
  generated drawn --prompt 'line' --max-tokens 400 --temperature 50 --seed 1 # any bytes
  iconv -f UTF-8 -t UTF-8 drawn >/dev/null || fail "the text is no UTF-8"
  grep -q $'\xef\xbf\xbd' drawn || fail "no U+FFFD among 400 random bytes"
  generated invalid --prompt $'a\xff\xe2\x82b' --max-tokens 5
  [ "$(head -c 8 invalid)" = $'a\xef\xbf\xbd\xef\xbf\xbdb' ] || fail "an invalid prompt comes out as $(od -c invalid | head -2)"
  expect_line stderr 'warning: --prompt is not UTF-8: 2 sequences in it were replaced'
  generated empty --prompt '' --max-tokens 4
  [ "$(head -c 4 empty)" = line ] || fail "a document begins with 'line', found $(cat empty)"
}

test_generate_stops_at_the_end_of_text() {
  write_token_config
  # shellcheck disable=SC2046
  write_ids shard.bin $(for _ in {1..200}; do echo 258 72 259; done)
  expect 0 train 1 train.steps=40 train.global_batch=16 optimizer.lr=1e-2
  checkpoint=out/step_00000040.h5
  generated text --prompt line
  [ "$(cat text)" = lineH ] || fail "expected lineH and no more, found $(head -c 60 text)"
}

test_generate_finds_its_tokenizer() {
  local hash
  write_model
  hash=$(hash_of tok.json)
  generated first --prompt 'line 5' --max-tokens 30
  mv tok.json elsewhere.json
  try refused "step_00000040.h5: data.tokenizer: cannot read 'tok.json': No such file .*--tokenizer" -- lazytrain generate $checkpoint --prompt x
  generated moved --prompt 'line 5' --max-tokens 30 --tokenizer elsewhere.json
  cmp first moved || fail "another text after the move"
  write_tokenizer tok.json 't e'
  try refused "data.tokenizer: 'tok.json' has hash $(hash_of tok.json), expected .* of hash $hash; name it by --tokenizer" -- \
    lazytrain generate $checkpoint --prompt x
  try refused "^lazytrain: error: --tokenizer: 'tok.json' has hash .*, expected .* of hash $hash" -- \
    lazytrain generate $checkpoint --prompt x --tokenizer tok.json
  try refused "^lazytrain: error: --tokenizer: cannot read 'no.json'" -- lazytrain generate $checkpoint --prompt x --tokenizer no.json
  try refused '--tokenizer needs a value' -- lazytrain generate $checkpoint --prompt x --tokenizer
  all_held
}

# Shards without data.tokenizer: it may be named later, if the model has all its ids.
test_generate_with_a_tokenizer_named_later() {
  write_token_config
  expect 0 train 1 train.steps=2 data.tokenizer=none
  checkpoint=out/step_00000002.h5
  try refused 'without data.tokenizer.*--tokenizer' -- lazytrain generate $checkpoint --prompt x
  generated text --prompt line --max-tokens 3 --tokenizer tok.json
  write_tokenizer large.json 't e' 'x t' 'o f' 'a a' 'b b'
  try refused "'large.json' has a vocabulary of 265, expected at most the 264 of the model" -- \
    lazytrain generate $checkpoint --prompt x --tokenizer large.json
  sed 's/"special":true/"special":false/; s/<|endoftext|>/zzz/' tok.json >endless.json
  try refused '--prompt holds no token, and this tokenizer .* has no end of text' -- \
    lazytrain generate $checkpoint --prompt '' --tokenizer endless.json
  all_held
}

# SentencePiece puts a space before a text, which is no part of it; the space before what follows is.
test_generate_keeps_the_space_of_a_continuation() {
  local ids
  [ -e "$data/tokenizers/llama2.model" ] || skip "no tokenizers/ in \$LAZYTRAIN_TEST_DATA or ../shared/data"
  write_tiny_config
  printf 'Hello world' >hello.txt
  if ! lazytrain inspect --tokenizer "$data/tokenizers/llama2.model" --sample 1 hello.txt >stdout 2>stderr; then
    expect_error 'needs the plugin'
    skip "this build has no SentencePiece"
  fi
  ids=$(sed -n 's/^byte 0 ids: //p' stdout)
  expect_line stdout '^byte 0: "Hello world"$'
  # shellcheck disable=SC2046,SC2086
  write_ids shard.bin $(for _ in {1..300}; do echo $ids; done)
  sed -i "s|vocab_size: 257|vocab_size: 32000|; s|train: text.txt, tokenizer: bytes|train: shard.bin, tokenizer: $data/tokenizers/llama2.model|" tiny.yaml
  expect 0 train 1 train.steps=30 optimizer.lr=1e-2
  checkpoint=out/step_00000030.h5
  generated text --prompt Hello --max-tokens 2
  [ "$(cat text)" = 'Hello world Hello' ] || fail "found '$(cat text)', expected 'Hello world Hello'"
}

# ---- inspect ----

test_inspect_a_tokenizer() {
  write_tokenizer tok.json
  mkdir folder
  cp tok.json folder/tokenizer.json
  cp tok.json my-tokenizer.json
  expect 0 lazytrain inspect folder
  mv stdout by_folder
  expect_line by_folder '^tokenizer: +folder$' '^kind: +byte-level BPE$' '^hash: +[0-9a-f]{32}$' '^vocabulary: +260$' '^end of text: +259$' \
    '^without text: 1 ids' '^bytes: +256 of 256 are tokens$' '^longest: +4 bytes, id 258: "line"$'
  expect 0 lazytrain inspect my-tokenizer.json
  cmp <(tail -n +2 by_folder) <(tail -n +2 stdout) || fail "the file and the folder differ"
  expect 0 lazytrain inspect --tokenizer tok.json
  cmp <(tail -n +2 by_folder) <(tail -n +2 stdout) || fail "the file by another name differs"
  expect 0 lazytrain inspect --tokenizer bytes
  expect_line stdout '^kind: +bytes$' '^vocabulary: +257$' '^end of text: +256$'
  head -c 1000 tok.json >cut-tokenizer.json
  try refused "cut-tokenizer.json" -- lazytrain inspect cut-tokenizer.json
  try refused "inspect: cannot read 'a.json'" -- lazytrain inspect a.json,b.txt
  try refused "no.model: No such file" -- lazytrain inspect no.model
  try refused "^lazytrain: error: --tokenizer: cannot read 'no.model'" -- lazytrain inspect --tokenizer no.model tok.json
  try refused '--tokenizer needs a value' -- lazytrain inspect --tokenizer
  all_held
}

# Bytes that no token is.
test_inspect_finds_bytes_without_a_token() {
  [ -d "$data/tokenizers" ] || skip "no tokenizers/ in \$LAZYTRAIN_TEST_DATA or ../shared/data"
  expect 0 lazytrain inspect "$data/tokenizers/hf_gptneox_dolma_tokenizer.json"
  expect_line stdout '^bytes: +243 of 256 are tokens; not c0-c1, f5-ff$' # what UTF-8 never holds
  expect 0 lazytrain inspect "$data/tokenizers/gpt2_encoder.json,$data/tokenizers/gpt2_vocab.bpe"
  expect_line stdout '^vocabulary: +50257$' '^end of text: +50256$' '^bytes: +256 of 256 are tokens$'
}

test_inspect_documents_as_tokens() {
  write_tokenizer tok.json
  printf '{"text": "line A"}\n{"text": ""}\n{"text": "aline\\n\\u00e9"}\n' >rows.jsonl
  expect 0 lazytrain inspect --tokenizer tok.json --sample 3 rows.jsonl
  expect_line stdout '^line 1 ids: 258 32 65$' '^line 1: "line A"$' '^line 2 ids:$' '^line 2: ""$' '^line 3 ids: 97 258 10 195 169$' \
    '^line 3: "aline\\né"$' '^documents: +3$' "^tokenizer: +byte-level BPE, vocabulary 260, hash $(hash_of tok.json)$" \
    '^tokens: +8, and 3 ends of text \(id 259\)$' '^replaced: +0 ' '^ids: +10 to 258$' '^mean: +2.7 tokens a document, 1.750 bytes a token$'
  printf 'line \xff\xe2\x82 line' >torn.txt
  expect 0 lazytrain inspect --tokenizer tok.json --sample 1 torn.txt
  expect_line stdout '^byte 0: "line �� line"$' '^replaced: +2 ' '^tokens: +10,'
  expect 0 lazytrain inspect --tokenizer bytes torn.txt
  expect_line stdout '^replaced: +0 ' '^tokens: +13, and 1 ends of text \(id 256\)$'
}

test_inspect_shards_as_text() {
  write_token_config
  write_ids ends.bin 258 65 259 66 10 259 67
  write_ids opens.bin 259 258 65 259 66
  expect 0 lazytrain inspect --tokenizer tok.json ends.bin
  expect_line stdout '^documents: +3 \(id 259 ends each, but not the last\)$' '^ids: +10 to 259$' '^outside: +0 ids not below 260$' '^first: +"lineA"$'
  expect 0 lazytrain inspect --tokenizer tok.json --sample 5 ends.bin
  expect_line stdout '^document 1: "lineA"$' '^document 2: "B\\n"$' '^document 3: "C"$'
  [ "$(grep -c '^document ' stdout)" -eq 3 ] || fail "expected 3 documents"
  expect 0 lazytrain inspect --tokenizer tok.json --sample 2 opens.bin
  expect_line stdout '^documents: +2 \(id 259 opens each\)$' '^document 1: "lineA"$' '^document 2: "B"$'
  # A shard of many blocks comes back as the text that it was made of.
  write_text 300000 >long.txt
  write_text_shard long.bin long.txt 1000000
  expect 0 lazytrain inspect --tokenizer tok.json --sample 1 long.bin
  sed -n 's/^document 1: "\(.*\)"$/\1/p' stdout | sed 's/\\n/\n/g' | head -c 300000 | cmp - long.txt || fail "another text"
  expect 0 lazytrain inspect --tokenizer tok.json long.bin
  expect_line stdout "^first: +\"$(head -c 30 long.txt | head -n 1).*\"\.\.\.$"
  write_ids outside.bin 65 260 66
  expect 1 lazytrain inspect --tokenizer tok.json outside.bin
  expect_error "'outside.bin' holds 1 token ids that are not below the vocabulary of 260, the first at byte 1026: 260"
  expect 0 train 1 train.steps=2
  try refused 'is a checkpoint; --tokenizer is for' -- lazytrain inspect --tokenizer tok.json out/step_00000002.h5
  try refused 'ends.bin is no file of documents' -- lazytrain inspect --sample 1 ends.bin
  all_held
}

run_tests
