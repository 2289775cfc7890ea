#!/usr/bin/env bash
# `lazytrain inspect` of files of documents, which reads what Python's json module reads; bad ones in one line.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
data=${LAZYTRAIN_TEST_DATA:-$tests_root/../../shared/data}

write_rows() {
  cat >rows.jsonl <<'JSON'
{"id": 1, "text": "one \u001b \"x\" \\ \u009b é\nnext"}
{"id": 2}
{"id": 3, "text": null}

{"id": 4, "text": ""}
{"id": 5, "text": "a longer one, \u0000, which is the longest of them"}
JSON
}

test_what_is_shown() {
  write_rows
  expect 0 lazytrain inspect rows.jsonl
  expect_line stdout '^file: +rows.jsonl$' '^format: +JSON Lines$' "^bytes: +$(stat -c %s rows.jsonl)$" '^documents: +3$' '^empty: +1$' \
    "^skipped: +1 rows without 'text', 1 with null$" '^text: +67 bytes$' '^longest: +45 bytes, line 6$' \
    '^first: +22 bytes, line 1: "one \\u001b \\"x\\" \\\\ \\u009b é\\nnext"$'
  gzip -k rows.jsonl
  zstd -q rows.jsonl
  expect 0 lazytrain inspect --verify --sample 2 rows.jsonl.gz
  expect_line stdout '^format: +JSON Lines, gzip$' '^documents: +3$' '^line 1: "one' '^line 5: ""$'
  [ "$(grep -c '^line ' stdout)" -eq 2 ] || fail "expected 2 samples"
  expect 0 lazytrain inspect rows.jsonl.zst --verify
  expect_line stdout '^format: +JSON Lines, Zstandard$' '^documents: +3$'
  printf 'plain\n' | gzip >plain.txt.gz
  expect 0 lazytrain inspect plain.txt.gz
  expect_line stdout '^format: +text, gzip$' '^first: +6 bytes, byte 0: "plain\\n"$'
}

test_other_keys_and_none() {
  write_rows
  printf '{"query": "q", "n": 1}\n' >query.jsonl
  expect 0 lazytrain inspect --text-key query query.jsonl
  expect_line stdout '^first: .*"q"$'
  : >empty.jsonl
  printf '{"text": ""}\n{"text": ""}\n' >hollow.jsonl
  expect 0 lazytrain inspect empty.jsonl
  expect_line stdout '^documents: +0$'
  expect 0 lazytrain inspect hollow.jsonl
  expect_line stdout '^documents: +2, all of them empty$'
}

# Only the beginning is read without --verify, which then misses the broken end.
test_a_long_file() {
  perl -e 'print "{\"text\": \"", "x" x 999_977, "\"}\n" x 1 for 1 .. 20; print "{\"text\": 1}\n"' >long.jsonl
  expect 0 lazytrain inspect long.jsonl
  expect_line stdout '^documents: +17 at the least: those in the first 16 MiB of text; --verify reads all$' '^first: .*xx"\.\.\.$'
  refused "long.jsonl' line 21: 'text' is a number" -- lazytrain inspect --verify long.jsonl
}

test_bad_files() {
  write_rows
  gzip -k rows.jsonl
  zstd -q rows.jsonl
  head -c -9 rows.jsonl.gz >cut.jsonl.gz
  head -c -5 rows.jsonl.zst >cut.jsonl.zst
  cp rows.jsonl none.jsonl.gz
  cp rows.jsonl.gz hidden.jsonl
  for _ in $(seq 56); do echo '{"text": "good"}'; done >broken.jsonl
  printf '{"text": "\033[31m\n{"text": "good"}\n' >>broken.jsonl
  printf '{"text": "a"}\n{"text": "%b"}\n' '\xff' >latin.jsonl
  perl -e 'print "{\"text\": \"", "a" x 200_000_000, "\"}\n"' | gzip -1 >line.jsonl.gz
  mkfifo pipe.jsonl
  try refused "cut.jsonl.gz' is truncated: its [0-9]+ bytes end inside a gzip member \(while reading line 1\)" -- lazytrain inspect cut.jsonl.gz
  try refused "cut.jsonl.zst' is truncated" -- lazytrain inspect cut.jsonl.zst
  try refused "none.jsonl.gz' is no gzip file, as its name says" -- lazytrain inspect none.jsonl.gz
  try refused "hidden.jsonl' is a gzip file by its first bytes" -- lazytrain inspect hidden.jsonl
  try refused "broken.jsonl' line 57: broken JSON at byte" -- lazytrain inspect broken.jsonl
  try refused "latin.jsonl' line 2: broken JSON" -- lazytrain inspect latin.jsonl
  try refused "line.jsonl.gz' line 1 has more than 134217728 bytes" -- lazytrain inspect line.jsonl.gz
  try refused "pipe.jsonl" -- lazytrain inspect pipe.jsonl
  try refused "none of its 5 rows has the key 'body' \(data.text_key\); the first one has: id, text" -- \
    lazytrain inspect --text-key body rows.jsonl
  try refused '--text-key needs a value' -- lazytrain inspect rows.jsonl --text-key
  try refused "--sample: found 'x', expected a whole number" -- lazytrain inspect --sample x rows.jsonl
  all_held
}

# same_as_python FILE KEY: every document, as Python reads it.
same_as_python() {
  expect 0 lazytrain inspect --verify --sample 1000000000 --text-key "$2" "$1"
  python3 - "$1" "$2" stdout <<'PYTHON' >python.out 2>&1 || fail "$1: $(tail -n 1 python.out)"
import gzip, json, re, sys
file, key, shown = sys.argv[1:]
rows = (gzip.open if file.endswith(".gz") else open)(file, "rb").read().split(b"\n")
read = [(i, json.loads(row).get(key)) for i, row in enumerate(rows, 1) if row.strip()]
read = [(i, text) for i, text in read if text is not None]
lines = open(shown, "rb").read().decode("utf-8").split("\n")
ours = [(int(m[1]), json.loads(m[2])) for m in (re.fullmatch(r"line (\d+): (.*)", line, re.S) for line in lines) if m]
assert len(ours) == len(read), f"{len(ours)} documents, Python reads {len(read)}"
for a, b in zip(ours, read):
    assert a == b, f"line {b[0]}: {a!r:.300} and {b!r:.300}"
total = sum(len(text.encode()) for _, text in read)
assert f"text:         {total} bytes" in lines and f"documents:    {len(read)}" in lines, "counts differ"
print(len(read))
PYTHON
  echo "# $(basename "$1"): $(cat python.out) documents"
}

# Strings of every kind, escaped and not, of rows that are drawn by a fixed seed.
test_python_reads_the_same_of_drawn_rows() {
  python3 - <<'PYTHON'
import json, random
draw = random.Random(6)
kinds = [(0, 0x20), (0x20, 0x7f), (0x7f, 0xa0), (0xa0, 0x800), (0x800, 0xd800), (0xe000, 0x10000), (0x10000, 0x110000)]
def text():
    return "".join(chr(draw.randrange(*draw.choice(kinds))) for _ in range(draw.choice([0, 1, 5, 50, 500])))
with open("drawn.jsonl", "w", encoding="utf-8", newline="") as out:
    for i in range(2000):
        row = {"id": draw.choice([i, 2**64 - i, -1.5e300, None, True, [{}]]), "other": text()}
        if i % 7: row["text"] = text() if i % 11 else None
        out.write(json.dumps(row, ensure_ascii=i % 2 == 0) + draw.choice(["\n", "\r\n", " \n", "\n\n"]))
    out.write('{"text": "old", "text": "new"}')
PYTHON
  gzip -k drawn.jsonl
  same_as_python drawn.jsonl text
  same_as_python drawn.jsonl.gz text
}

test_python_reads_the_same_of_published_files() {
  [ -d "$data/web" ] || skip "no web/ and eval/ in \$LAZYTRAIN_TEST_DATA or ../shared/data"
  local file
  for file in "$data"/web/*.jsonl "$data"/web/*.jsonl.gz; do same_as_python "$file" text; done
  for file in arc_challenge arc_easy boolq commonsense_qa hellaswag openbook_qa piqa siqa; do
    same_as_python "$data/eval/$file.jsonl" query
  done
  same_as_python "$data/eval/lambada_openai.jsonl" context
  same_as_python "$data/eval/winogrande.jsonl" continuation
  same_as_python "$data/text/multilingual_bigbench_langid.jsonl" query
}

run_tests
