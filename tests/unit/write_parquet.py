#!/usr/bin/env python3
"""Writes the Parquet files of the tests into a folder: write_parquet.py FOLDER. Needs pyarrow alone."""
import base64, os, sys
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

os.chdir(sys.argv[1])

TEXTS = ["one", None, "", "zwei \u00e9\n", "tr\u00e8s long " * 3, "one"]


def write(name, table, **options):
    options.setdefault("compression", "none")
    pq.write_table(table, name + ".parquet", **options)


# Every Arrow type that is stored as strings; two row groups, the second of one row.
kinds = {
    "string": pa.string(), "large": pa.large_string(), "binary": pa.binary(), "view": pa.string_view(),
    "words": pa.dictionary(pa.int32(), pa.string()), "large_words": pa.dictionary(pa.int8(), pa.large_string()),
}
columns = {}
for name, kind in kinds.items():
    if "words" in name:
        indices = pa.array([0, None, 1, 2, 3, 0], kind.index_type)
        columns[name] = pa.DictionaryArray.from_arrays(indices, pa.array(["one", "", TEXTS[3], TEXTS[4]], kind.value_type))
    else:
        columns[name] = pa.array(TEXTS).cast(kind)
write("types", pa.table(columns), row_group_size=5)

rows = pa.table({"id": list(range(3000)), "text": [f"row {i} " * (i % 9) for i in range(3000)]})
for codec in ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]:
    write("codec_" + codec, rows, compression=codec, row_group_size=1300, data_page_size=2000)
for encoding in ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"]:
    for version in ["1.0", "2.0"]:
        write(f"encoding_{encoding}_{version}", rows, use_dictionary=False, column_encoding={"text": encoding, "id": "PLAIN"},
              data_page_version=version, data_page_size=2000)

write("scored", pa.table({
    "text": ["a", "bb", "\u00e9\u00e9\u00e9", None, "dddd", "eeeee", "f" * 6],
    "int_score": pa.array([1, 3, 4, 5, None, 3, 5], pa.int64()),
    "language": ["en", "en", "de", "en", "en", None, "en"],
    "token_count": pa.array([1] * 7, pa.int32()),
    "tags": [["x"]] * 7,
}))
write("float_score", pa.table({"text": ["a", "b", "c"], "int_score": [2.0, float("nan"), 3.0]}))
write("word_score", pa.table({"text": ["a"], "int_score": ["3"]}))
write("no_text", pa.table({"body": ["a"], "id": [1], "title": ["b"]}))
write("only_numbers", pa.table({"id": [1]}))
write("number", pa.table({"text": [1, 2], "body": ["a", "b"]}))
write("listed", pa.table({"text": [["a"], ["b", "c"]]}))
write("nulls", pa.table({"text": pa.array([None, None], pa.string())}))
write("nested", pa.table({"row": [{"text": "a"}, None, {"text": "b"}]}))
write("no_rows", pa.table({"text": pa.array([], pa.string())}))
pq.ParquetWriter("no_groups.parquet", pa.schema([("text", pa.string())])).close()
write("control\nname", pa.table({"te\nxt": ["a"]}))
os.rename("control\nname.parquet", "control.parquet")

# A byte of the text differs: a checksum tells, nothing else can.
for name, checked in [("checked", True), ("unchecked", False)]:
    write(name, pa.table({"text": ["the quick brown fox"]}), use_dictionary=False, write_page_checksum=checked, write_statistics=False)
    data = open(name + ".parquet", "rb").read()
    assert data.count(b"quick") == 1
    open(name + "_damaged.parquet", "wb").write(data.replace(b"quick", b"quack"))

# 64 MiB of text in a row group of pages of 1 MiB.
write("large_group", pa.table({"text": [chr(97 + i % 26) * (1 << 16) for i in range(1024)]}), use_dictionary=False,
      row_group_size=1024, data_page_size=1 << 20, write_batch_size=16)

good = open("codec_snappy.parquet", "rb").read()
open("truncated.parquet", "wb").write(good[:-100])
open("half.parquet", "wb").write(good[:len(good) // 2] + good[-8:])
open("short.parquet", "wb").write(b"PAR1PAR1")
open("empty.parquet", "wb").close()
open("json.parquet", "w").write('{"text": "a row of JSON"}\n')
open("footer.parquet", "wb").write(good[:-8] + b"\xff\xff\xff\x7fPAR1")
footer = int.from_bytes(good[-8:-4], "little")
open("junk.parquet", "wb").write(good[:-8 - footer] + bytes(footer) + good[-8:])


class Kms(pe.KmsClient):
    def wrap_key(self, key, name):
        return base64.b64encode(key)

    def unwrap_key(self, key, name):
        return base64.b64decode(key)


for name, plain in [("encrypted", False), ("encrypted_column", True)]:
    factory = pe.CryptoFactory(lambda config: Kms())
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), pe.EncryptionConfiguration(
        footer_key="k", column_keys={"k": ["text"]}, plaintext_footer=plain))
    with pq.ParquetWriter(name + ".parquet", rows.schema, encryption_properties=properties) as writer:
        writer.write_table(rows)
