#!/usr/bin/env bash
# `lazytrain inspect` of Parquet files: what pyarrow reads of good ones, one line for each bad one.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
data=${LAZYTRAIN_TEST_DATA:-$tests_root/../../shared/data}
python=${VENV:-build/venv}/bin/python
case $python in /*) ;; *) python=$(cd "$tests_root/.." && pwd)/$python ;; esac

need_pyarrow() {
  "$python" -c 'import pyarrow' 2>/dev/null || skip "no pyarrow in \$VENV (build/venv); \`make deps\` installs it"
}
need_files() {
  need_pyarrow
  "$python" "$tests_root/unit/write_parquet.py" . || fail "write_parquet.py"
}
need_data() {
  need_pyarrow
  [ -d "$data/parquet-good" ] || skip "no parquet-good/ and parquet-bad/ in \$LAZYTRAIN_TEST_DATA or ../shared/data"
}

test_what_is_shown() {
  need_files
  expect 0 lazytrain inspect --verify --sample 2 scored.parquet
  expect_line stdout '^format: +Parquet$' "^bytes: +$(stat -c %s scored.parquet)$" '^created by: +parquet-cpp-arrow ' '^compression: +uncompressed$' \
    '^rows: +7 in 1 row group$' '^column: +text: BYTE_ARRAY, String, optional$' '^column: +int_score: INT64, optional$' \
    '^column: +tags\.list\.element: BYTE_ARRAY, String, repeated$' '^row 0: "a"$' '^row 1: "bb"$' '^documents: +6$' '^empty: +0$' \
    '^skipped: +1 rows with null$' '^text: +24 bytes$' '^longest: +6 bytes, row 2$' '^first: +1 bytes, row 0: "a"$'
  expect 0 lazytrain inspect codec_zstd.parquet
  expect_line stdout '^compression: +zstd$' '^rows: +3000 in 3 row groups$' '^documents: +3000$'
  expect 0 lazytrain inspect --verify no_text.parquet
  expect_line stdout "^text column: +no string column 'text'; --text-key names another: body, title$" '^documents: +0$'
  expect 0 lazytrain inspect --text-key title no_text.parquet
  expect_line stdout '^first: .* row 0: "b"$'
  local name
  for name in no_rows no_groups; do
    expect 0 lazytrain inspect --verify $name.parquet
    expect_line stdout '^rows: +0 in [01] row group' '^documents: +0$'
  done
}

test_bad_files() {
  need_files
  cp codec_zstd.parquet packed.parquet
  gzip packed.parquet
  try refused "empty.parquet' is no Parquet file: it has 0 bytes" -- lazytrain inspect empty.parquet
  try refused "short.parquet' is no Parquet file: it has 8 bytes" -- lazytrain inspect short.parquet
  try refused "json.parquet' is no Parquet file, as its name says: it starts with the bytes 7b 22 74 65" -- lazytrain inspect json.parquet
  try refused "truncated.parquet' is truncated: a Parquet file ends with the bytes 50 41 52 31 \(PAR1\)" -- lazytrain inspect truncated.parquet
  try refused "half.parquet' cannot be read as Parquet: " -- lazytrain inspect half.parquet
  try refused "footer.parquet' cannot be read as Parquet: .*smaller than the size reported by footer" -- lazytrain inspect footer.parquet
  try refused "junk.parquet' cannot be read as Parquet: " -- lazytrain inspect junk.parquet
  try refused "encrypted.parquet' is an encrypted Parquet file" -- lazytrain inspect encrypted.parquet
  try refused "encrypted_column.parquet' cannot be read as Parquet: it is encrypted" -- lazytrain inspect encrypted_column.parquet
  try refused "packed.parquet.gz' is compressed as a whole, which is not read; unpack it" -- lazytrain inspect packed.parquet.gz
  try refused "no_text.parquet' has no column 'text' .*; its string columns: body, title" -- lazytrain inspect --text-key text no_text.parquet
  try refused "number.parquet': column 'text' .* is INT64, expected a string; its string columns: body" -- \
    lazytrain inspect --text-key text number.parquet
  try refused "checked_damaged.parquet' cannot be read as Parquet: row group 0, column 'text', page 0: .*CRC" -- \
    lazytrain inspect checked_damaged.parquet
  LAZYTRAIN_PLUGINS=/nonexistent try refused "codec_zstd.parquet' needs the plugin parquet.so, which this build of lazytrain lacks" -- \
    lazytrain inspect codec_zstd.parquet
  all_held
}

# A row group of 64 MiB of text in pages of 1 MiB takes the memory of pages, not of the row group: less than half of it
# above what a file of one row takes.
test_memory_of_a_large_row_group() {
  need_files
  local file
  for file in checked large_group; do
    expect 0 "$python" - "$LAZYTRAIN" $file.parquet <<'PYTHON'
import resource, subprocess, sys
subprocess.run([sys.argv[1], "inspect", "--verify", sys.argv[2]], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
PYTHON
    cp stdout $file.kib
  done
  echo "# KiB: one row $(cat checked.kib), 64 MiB in a row group $(cat large_group.kib)"
  [ $(($(cat large_group.kib) - $(cat checked.kib))) -lt 32768 ] || fail "the row group was held"
}

# same_as_pyarrow FILE COLUMN...: every document of these columns, or of all string columns, as pyarrow reads it.
same_as_pyarrow() {
  "$python" - "$LAZYTRAIN" "$@" <<'PYTHON' || fail "$1: other than pyarrow"
import json, re, subprocess, sys
import pyarrow as pa, pyarrow.parquet as pq
program, path, *columns = sys.argv[1:]
file = pq.ParquetFile(path)
table = pa.concat_tables([file.read_row_group(i) for i in range(file.num_row_groups)]) if file.num_row_groups else file.read()
def is_text(kind):
    if pa.types.is_dictionary(kind): kind = kind.value_type
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary,
                                       pa.types.is_large_binary, pa.types.is_string_view))
unknown = [file.schema.column(i).name for i in range(len(file.schema)) if str(file.schema.column(i).logical_type) == "Undefined"]
for name in columns or [f.name for f in table.schema if is_text(f.type) and f.name not in unknown]:
    shown = subprocess.run([program, "inspect", "--verify", "--sample", "1000000000", "--text-key", name, path],
                           check=True, stdout=subprocess.PIPE).stdout
    # Bytes that are not UTF-8 are shown as they are.
    lines = shown.decode("utf-8", "surrogateescape").split("\n")
    ours = [(int(m[1]), json.loads(m[2])) for m in (re.fullmatch(r"row (\d+): (.*)", line, re.S) for line in lines) if m]
    text = lambda v: v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else v
    theirs = [(i, text(v)) for i, v in enumerate(table[name].to_pylist()) if v is not None]
    assert len(ours) == len(theirs), f"{name}: {len(ours)} documents, pyarrow reads {len(theirs)}"
    for a, b in zip(ours, theirs): assert a == b, f"{name}: {a!r:.200} and {b!r:.200}"
    print(f"# {path.split('/')[-1]}, {name}: {len(ours)}")
PYTHON
}

test_pyarrow_reads_the_same_of_written_files() {
  need_files
  local file
  for file in codec_*.parquet encoding_*.parquet types.parquet scored.parquet nulls.parquet no_rows.parquet no_groups.parquet; do
    same_as_pyarrow "$file"
  done
}

# Every page of every column is decoded; strings are what pyarrow reads. (The brotli file's map of 2 GiB is no column of
# documents.)
test_published_good_files() {
  need_data
  local file
  for file in "$data"/parquet-good/*.parquet; do
    try expect 0 lazytrain inspect --verify "$file"
    case $file in */large_string_map.*) ;; *) try same_as_pyarrow "$file" ;; esac
  done
  for file in "$data"/web/*.parquet; do try same_as_pyarrow "$file"; done
  all_held
}

test_web_texts_are_the_expected_ones() {
  need_data
  local name
  for name in fineweb_10 fineweb_15_annotated; do
    expect 0 lazytrain inspect --sample 1000 "$data/web/$name.parquet"
    sed -n 's/^row [0-9]*: //p' stdout >ours
    expect 0 lazytrain inspect --sample 1000 "$data/web/$name.expect.jsonl"
    sed -n 's/^line [0-9]*: //p' stdout >expected
    [ -s expected ] || fail "no expected documents"
    cmp ours expected || fail "$name: other documents"
  done
}

# Two of them are told by page checksums alone: datapage_v1-corrupt-checksum and rle-dict-uncompressed-corrupt-checksum.
test_published_bad_files() {
  need_data
  local file name
  local -A reason=(
    [ARROW-GH-41317]="row group 0, column 'timestamp_us_no_tz', page 1: it has 0 values, its metadata says 3"
    [ARROW-GH-41321]="row group 0, column 'int64', page 1: .*bit_width"
    [ARROW-GH-45185]="row group 0, column 'x.list.element', page 0: its first repetition level is 1, expected 0"
    [ARROW-RS-GH-6229-DICTHEADER]="row group 0, column 'nation_key', page 0: "
    [ARROW-RS-GH-6229-LEVELS]="row group 0, column 'outer.list.item.c', page 1: .*levels do not match"
    [PARQUET-1481]="column 'Handle' has a type that Parquet does not know"
    [datapage_v1-corrupt-checksum]="row group 0, column 'a', page 0: .*CRC"
    [nation.dict-malformed]="row group 0, column 'nation_key', page 1: its metadata does not say how its pages are encoded"
    [rle-dict-uncompressed-corrupt-checksum]="row group 0, column 'long_field', page 0: .*CRC"
  )
  for file in "$data"/parquet-bad/*.parquet; do
    name=$(basename "$file" .parquet)
    [ "$name" != ARROW-GH-43605 ] || continue
    try refused "$name.parquet' cannot be read as Parquet: ${reason[$name]-no case here}" -- lazytrain inspect --verify "$file"
  done
  all_held
}

# One file of the folder of bad ones says what it means, though other readers failed at it: the indices of a dictionary
# of one entry have no bits, which the format allows: columns of four of the good files have them too.
test_a_published_odd_file() {
  need_data
  expect 0 lazytrain inspect --verify "$data/parquet-bad/ARROW-GH-43605.parquet"
  expect_line stdout '^rows: +21186 in 1 row group$'
}

run_tests
