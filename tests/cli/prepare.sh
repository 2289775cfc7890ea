#!/usr/bin/env bash
# `lazytrain prepare`: the folder that it makes, the same at any ranks and threads and after any death, and what it refuses.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/prepare.sh
source "$(dirname "$0")/lib/prepare.sh"
# shellcheck source=lib/tokenizer.sh
source "$(dirname "$0")/lib/tokenizer.sh"
python=${VENV:-build/venv}/bin/python # with pyarrow
case $python in /*) ;; *) python=$(cd "$tests_root/.." && pwd)/$python ;; esac
prepared() { python3 "$tests_root/cli/lib/prepared.py" "$@" || fail "prepared.py $*"; }

# prepare WORD...: of the files in in/, by the bytes tokenizer into out, small shards; later words win.
prepare() { lazytrain prepare --input in --tokenizer bytes --output out --shard-tokens 3000 "$@"; }
write_inputs() {
  prepared write in
  "$python" -c 'import pyarrow' 2>/dev/null || {
    echo "# skip: no pyarrow: no Parquet file among the inputs"
    return 0
  }
  "$python" -c 'import pyarrow as pa, pyarrow.parquet as pq
pq.write_table(pa.table({"text": ["row %d of the file" % i for i in range(50)], "n": list(range(50))}), "in/in4.parquet", row_group_size=7)' ||
    fail "no Parquet file could be written"
}

# The bytes do not depend on ranks, threads, pieces, or the name of the folder; nothing else is left in it.
test_the_same_folder_at_any_ranks_and_threads() {
  local ranks threads words=(--validation-fraction 0.3 --dedup exact)
  write_inputs
  zstd -q --rm in/in3.txt -o in/in3.txt.zst
  expect 0 prepare "${words[@]}" --threads 1
  expect_line stderr '^train: [0-9]+ tokens, [0-9]+ documents, [0-9]+ shards in out$'
  ! find out | grep -vE '^out(/validation)?(/(shard_[0-9]{6}\.bin|manifest\.json))?$' || fail "something else is left"
  for ranks in 1 2 3 4; do
    for threads in 1 2 3; do
      rm -rf other
      expect 0 ranks $ranks prepare --input in --tokenizer bytes --output other --shard-tokens 3K "${words[@]}" \
        --threads $threads --piece-bytes $((900 * threads + ranks))
      same_folder out other
    done
  done
  expect 0 lazytrain inspect --verify other
  [ "$(grep -c ', verified$' stdout)" -eq "$(find other -name '*.bin' | wc -l)" ] || fail "not every shard was verified"
}

# The documents, in the order of the input, against those that Python reads.
test_documents_duplicates_and_splits() {
  prepared write in
  prepared expected in/in.jsonl in/in2.jsonl.gz in/in3.txt >all
  expect 0 prepare --piece-bytes 2000
  prepared documents out | cmp - all || fail "other documents than Python reads"
  awk '!seen[$0]++' all >unique
  [ "$(wc -l <unique)" -lt "$(wc -l <all)" ] || fail "the input has no duplicates"
  expect 0 prepare --dedup exact --piece-bytes 2000 --overwrite
  prepared documents out | cmp - unique || fail "other documents than the first of each text"
  [ "$(sed -n 's/.*"duplicates": \([0-9]*\).*/\1/p' out/manifest.json)" -eq $(($(wc -l <all) - $(wc -l <unique))) ] ||
    fail "the manifest counts other duplicates"
  expect_line out/manifest.json '"without_key": 5,' '"null": 5$' "\"documents_read\": $(wc -l <all),"

  expect 0 prepare --validation-fraction 0.25 --piece-bytes 50000 --overwrite
  prepared documents out >train
  prepared documents out/validation >validation
  if [ ! -s train ] || [ ! -s validation ]; then fail "a split is empty"; fi
  [ -z "$(comm -12 <(sort -u train) <(sort -u validation))" ] || fail "a text is in both splits"
  cmp <(sort train validation) <(sort all) || fail "the splits together are not all documents"
  cmp <(grep -xFf <(sort -u train) all) train || fail "the order of the training split"
  cmp <(grep -xFf <(sort -u validation) all) validation || fail "the order of the validation split"
}

# A file that cannot be cut, whose batches all threads share, with documents of more than a batch.
test_a_large_file_and_long_documents() {
  local threads
  write_tokenizer tokenizer.json "l a" "z y"
  python3 -c 'import gzip, json, random
random.seed(3)
with gzip.GzipFile("large.jsonl.gz", "wb", 1, mtime=0) as out:
    for i in range(9000):
        size = {3000: 5000000, 3001: 4194304, 6000: 4194303}.get(i, random.randrange(1200))
        out.write((json.dumps({"text": ("%d lazy line\\n" % i * (size // 10 + 1))[:size]}) + "\n").encode())'
  for threads in 1 2 4 11; do
    expect 0 lazytrain prepare --input large.jsonl.gz --tokenizer tokenizer.json --output out$threads --shard-tokens 1M \
      --threads $threads --piece-bytes 300K # parts of 1.2 MB
    same_folder out1 out$threads
  done
  prepared expected large.jsonl.gz >all
  expect 0 lazytrain prepare --input large.jsonl.gz --tokenizer bytes --output bytes --threads 4 --piece-bytes 300K
  prepared documents bytes | cmp - all || fail "other documents than Python reads"
}

# Where a shard's documents come from, also where the file was read in pieces: documents of 14 tokens, cut at every 100.
test_sources() {
  seq -f '{"text": "document %04.0f"}' 1 100 >lines.jsonl
  expect 0 lazytrain prepare --input lines.jsonl --tokenizer bytes --output out --shard-tokens 100 --piece-bytes 111
  python3 -c 'import json
for i, shard in enumerate(json.load(open("out/manifest.json"))["shards"]):
    begin, end = 100 * i, 100 * (i + 1)
    source = {"file": "lines.jsonl", "unit": "line", "first": begin // 14 + 1, "last": (end - 1) // 14 + 1}
    assert shard["sources"] == [source], (shard, source)
    assert shard["documents"] == end // 14 - begin // 14, shard' || fail "sources"
}

# Document by document the ids of the tokenizer, as tests/tools/encode prints them.
test_ids_are_the_tokenizers() {
  write_tokenizer tokenizer.json "l a" "z y"
  prepared write in
  expect 0 prepare --tokenizer tokenizer.json --piece-bytes 3000
  prepared ids out 261 >ids.txt
  prepared expected in/in.jsonl in/in2.jsonl.gz in/in3.txt |
    python3 -c 'import json, struct, sys
for line in sys.stdin:
    text = json.loads(line).encode()
    sys.stdout.buffer.write(struct.pack("<Q", len(text)) + text)' >texts.bin
  "$TEST_BUILD/tests/tools/encode" tokenizer.json <texts.bin >answers || fail "encode"
  python3 -c 'import struct, sys
data, at = open("answers", "rb").read(), 0
while at < len(data):
    count = struct.unpack_from("<Q", data, at)[0]
    print(*struct.unpack_from("<%di" % count, data, at + 8))
    at += 8 + 4 * count
    at += 8 + struct.unpack_from("<Q", data, at)[0]' >encoded
  cmp ids.txt encoded || fail "other ids than the tokenizer gives"
}

test_token_width_and_a_tokenizer_without_end() {
  local size
  printf '{"text": "some text"}\n' >one.jsonl
  for size in 65536 65537; do
    prepared vocabulary $size $size-tokenizer.json
    expect 0 lazytrain prepare --input one.jsonl --tokenizer $size-tokenizer.json --output $size
    prepared ids $size $((size - 1)) >ids.txt
    [ "$(wc -l <ids.txt)" -eq 1 ] || fail "not one document"
    expect 0 lazytrain inspect --verify $size/shard_000000.bin
  done
  cmp -s <(head -c 8 65536/shard_000000.bin) <(head -c 8 65537/shard_000000.bin) && fail "the same format at both sizes"
  prepared vocabulary -300 endless-tokenizer.json
  refused "--tokenizer: 'endless-tokenizer.json' .* has no end-of-text token" -- \
    lazytrain prepare --input one.jsonl --tokenizer endless-tokenizer.json --output out
}

test_nothing_and_empty_documents() {
  : >empty.jsonl
  expect 0 lazytrain prepare --input empty.jsonl --tokenizer bytes --output none --validation-fraction 0.5
  expect_line stderr '^lazytrain: warning: the train split holds no document' '^train: 0 tokens, 0 documents, 0 shards'
  expect 0 lazytrain inspect --verify none
  write_tiny_config
  refused "data.train: the prepared folder 'none' holds no shards" -- lazytrain train tiny.yaml --set data.train=none
  printf '{"text": ""}\n{"text": ""}\n{"text": ""}\n' >hollow.jsonl
  expect 0 lazytrain prepare --input hollow.jsonl --tokenizer bytes --output hollow
  [ "$(prepared documents hollow)" = "$(printf '""\n""\n""')" ] || fail "not three empty documents"
  expect_line hollow/manifest.json '"empty": 3,'
}

test_options() {
  printf '{"body": "%s", "int_score": %d, "language": "%s"}\n' abc 3 en abcdef 4 en ab 5 en abcd 5 de abcdefgh 5 en abc 1 de >rows.jsonl
  expect 0 lazytrain prepare --input rows.jsonl --tokenizer bytes --output out --text-key body --filter min_int_score=3 \
    --filter language=en --filter min_chars=3 --filter max_chars=6
  [ "$(prepared documents out)" = "$(printf '"abc"\n"abcdef"')" ] || fail "filtered: $(prepared documents out)"
  expect_line out/manifest.json '"min_int_score": 1,' '"language": 1,' '"min_chars": 1,' '"max_chars": 1'
  printf 'one\n--\ntwo\n--\nthree' >parts.txt
  expect 0 lazytrain prepare --input parts.txt --tokenizer bytes --output parts --separator '\n--\n'
  [ "$(prepared documents parts)" = "$(printf '"one"\n"two"\n"three"')" ] || fail "separated: $(prepared documents parts)"
  printf 'a\xffb\xe2\x82c' >broken.txt
  write_tokenizer tokenizer.json
  expect 0 lazytrain prepare --input broken.txt --tokenizer tokenizer.json --output broken
  expect_line broken/manifest.json '"replaced": 2,'
  ln -s rows.jsonl again.jsonl
  expect 0 lazytrain prepare --input rows.jsonl --input '*again*' --text-key body --tokenizer bytes --output twice
  expect_line stderr "warning: --input: '.*' is listed twice"
  [ "$(prepared documents twice | wc -l)" -eq 6 ] || fail "a file was read twice"
}

usage() { refused "$1" -- lazytrain prepare "${@:2}"; }
test_usage() {
  echo '{"text": "x"}' >x.jsonl
  local good=(--input x.jsonl --tokenizer bytes --output out)
  try usage '--input is not given' --tokenizer bytes --output out
  try usage '--tokenizer is not given' --input x.jsonl --output out
  try usage '--output is not given' --input x.jsonl --tokenizer bytes
  try usage '--input needs a value' "${good[@]}" --input
  try usage "--shard-tokens: found '100X'" "${good[@]}" --shard-tokens 100X
  try usage "--shard-tokens: found '3G'" "${good[@]}" --shard-tokens 3G
  try usage "--shard-tokens: found '1'" "${good[@]}" --shard-tokens=1
  try usage "--validation-fraction: found '1.5'" "${good[@]}" --validation-fraction 1.5
  try usage "--dedup: found 'fuzzy', expected none or exact" "${good[@]}" --dedup fuzzy
  try usage "--on-error: found 'go', expected stop or skip" "${good[@]}" --on-error go
  try usage "--filter: found 'score=3'" "${good[@]}" --filter score=3
  try usage "--filter min_chars: found 'x'" "${good[@]}" --filter min_chars=x
  try usage "--threads: found '0'" "${good[@]}" --threads 0
  try usage 'unknown option --shards' "${good[@]}" --shards 3
  try usage 'unknown argument more' "${good[@]}" more
  try usage "--input: no file matches 'y\*'" --input 'y*' --tokenizer bytes --output out
  try usage "--tokenizer: cannot read 'none.json'" --input x.jsonl --tokenizer none.json --output out
  try usage "none of its 1 rows has the key 'body'" "${good[@]}" --text-key body
  all_held
  expect 0 ranks 2 prepare --help
  [ "$(grep -c '^Usage' stdout)" -eq 1 ] || fail "help is not said once"
}

# A bad file in the middle.
test_bad_files() {
  local ranks
  prepared write in
  for ranks in $(seq 200); do echo "{\"text\": \"row $ranks\"}"; done >in/in1b.jsonl
  sed -i '150s/.*/{"text": 5}/' in/in1b.jsonl
  head -c -9 in/in2.jsonl.gz >in/in2b.jsonl.gz
  for ranks in 1 2; do
    rm -rf out
    expect 2 ranks $ranks prepare --input in --tokenizer bytes --output out --shard-tokens 3000 --piece-bytes 5000
    expect_error "in1b.jsonl' line 150: 'text' is a number|in2b.jsonl.gz' is truncated"
    [ ! -e out/manifest.json ] || fail "a manifest of half the work"
    expect 0 ranks $ranks prepare --input in --tokenizer bytes --output out --shard-tokens 3000 --piece-bytes 5000 --on-error skip
    expect_line out/manifest.json '"bad_files": 2' '"file": "in/in1b.jsonl"' "in1b.jsonl' line 150: 'text' is a number" \
      "in2b.jsonl.gz' is truncated"
    prepared documents out >documents.txt
    prepared expected in/in.jsonl in/in2.jsonl.gz in/in3.txt | cmp - documents.txt || fail "not the documents of the good files"
  done
  mv out before
  expect 0 prepare --on-error skip
  same_folder before out
  echo '{"a": 1}' >in/in5.jsonl # found only when all its pieces are read
  echo '{"b": 1}' >>in/in5.jsonl
  expect 0 prepare --on-error skip --overwrite --piece-bytes 5
  expect_line out/manifest.json "in5.jsonl': none of its 2 rows has the key 'text' .* the first one has: a"
}

test_folders_that_are_not_for_it() {
  prepared write in
  mkdir out
  echo mine >out/notes
  refused "--output: 'out' holds 'notes'" -- prepare
  refused "--output: 'out' holds 'notes'" -- prepare --overwrite
  rm out/notes
  write_shard out/shard_000000.bin 100
  refused "'out' holds 'shard_000000.bin'.* or --overwrite" -- prepare
  expect 0 prepare --overwrite
  cp -r out before
  expect 0 prepare
  expect_line stderr 'nothing to do$'
  same_folder before out
  refused 'setting shard_tokens was 3000 and is 4000 now' -- prepare --shard-tokens 4000
  refused 'setting dedup was "none" and is "exact" now' -- prepare --dedup exact
  refused 'setting filter was \{\} and is \{"min_chars":2\} now' -- prepare --filter min_chars=2
  write_tokenizer tokenizer.json
  refused 'tokenizer name was "bytes" and is ' -- prepare --tokenizer tokenizer.json
  refused 'the number of input files was 3 and is 4 now' -- prepare --input tokenizer.json
  echo '{"text": "more"}' >>in/in.jsonl
  refused 'input file 1 was .* and is ' -- prepare
  expect 0 prepare --overwrite --validation-fraction 0.5
  expect 0 prepare --overwrite
  [ ! -e out/validation ] || fail "the validation split of the work before is left"
  : >file
  refused "--output: 'file' is not a folder" -- prepare --output file
  refused "--output: cannot create 'file/out'" -- prepare --output file/out
}

run_tests
