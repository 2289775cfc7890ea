#!/usr/bin/env python3
"""What a folder of `lazytrain prepare` should hold, computed apart from it.

    prepared.py write FOLDER           writes input files: in.jsonl, in2.jsonl.gz, in3.txt
    prepared.py expected FILE...       the documents of the files, a JSON string a line
    prepared.py documents FOLDER [END] those of a prepared folder of the bytes tokenizer; checks headers and manifest
    prepared.py ids FOLDER [END]       the same as lists of ids, of any tokenizer whose end of text is END
    prepared.py vocabulary N FILE      a byte-level tokenizer.json of N ids, the last one its end of text; -N: without one
"""
import gzip, json, os, random, struct, sys

WORDS = ["line", "token", "the", "lazy", "zwei", "caf\u00e9", "\u6587\u5b57", "\U0001f600", "\"quoted\"", "a\\b", "tab\t", "\n"]


def write(folder):
    random.seed(7)
    os.makedirs(folder, exist_ok=True)
    texts = []
    for i in range(400):
        texts.append(" ".join(random.choice(WORDS) for _ in range(random.choice([0, 1, 5, 30, 200]))))
        if i % 5 == 4:
            texts[-1] = texts[random.randrange(i)]  # the same again
    rows = [{"id": i, "text": t, "meta": {"n": [i, 0.5, None]}} for i, t in enumerate(texts)]
    with open(folder + "/in.jsonl", "w") as out:
        for i, row in enumerate(rows[:250]):
            out.write(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n")
            if i % 50 == 0:
                out.write('\n{"id": -1}\n{"text": null}\n')
    with gzip.GzipFile(folder + "/in2.jsonl.gz", "wb", mtime=0) as out:
        for row in rows[250:]:
            out.write((json.dumps(row) + "\n").encode())
    with open(folder + "/in3.txt", "w") as out:
        out.write("a plain text, " * 100)


def expected(files):
    for name in files:
        if name.endswith(".txt"):
            with open(name, "rb") as text:
                yield text.read().decode()
            continue
        with (gzip.open(name, "rt") if name.endswith(".gz") else open(name)) as lines:
            for line in lines:
                row = json.loads(line) if line.strip() else {}
                if row.get("text") is not None:
                    yield row["text"]


def ids_of(folder, end):
    manifest = json.load(open(folder + "/manifest.json"))
    listed = [shard["file"] for shard in manifest["shards"]]
    found = sorted(name for name in os.listdir(folder) if name.endswith(".bin"))
    assert listed == found, (listed, found)
    assert manifest["totals"]["shards"] == len(listed)
    stream = []
    for i, shard in enumerate(manifest["shards"]):
        data = open(folder + "/" + shard["file"], "rb").read()
        header = struct.unpack("<256i", data[:1024])
        wide = manifest["tokenizer"]["vocabulary"] > 65536
        assert header[:3] == ((20240801, 7) if wide else (20240520, 1)) + (shard["tokens"],) and not any(header[3:])
        assert len(data) == shard["bytes"] == 1024 + (4 if wide else 2) * shard["tokens"]
        full = manifest["settings"]["shard_tokens"]
        assert shard["tokens"] == full or (i + 1 == len(listed) and 0 < shard["tokens"] < full)
        ids = struct.unpack("<%d%s" % (shard["tokens"], "I" if wide else "H"), data[1024:])
        assert shard["documents"] == ids.count(end)
        stream += ids
    assert manifest["totals"]["tokens"] == len(stream)
    assert manifest["totals"]["documents"] == stream.count(end)
    assert not stream or stream[-1] == end
    documents, begin = [], 0
    for at, token in enumerate(stream):
        if token == end:
            documents.append(stream[begin:at])
            begin = at + 1
    return documents


def vocabulary(count, name):
    ends = count > 0
    count = abs(count)
    shown = [chr(b) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174 else None for b in range(256)]
    extra = 256
    for b in range(256):
        if shown[b] is None:
            shown[b] = chr(extra)
            extra += 1
    vocab = {c: b for b, c in enumerate(shown)}
    merges = [a + " " + b for a in shown for b in shown][:count - 256 - ends]
    for merge in merges:
        vocab[merge.replace(" ", "")] = len(vocab)
    token = {"id": len(vocab), "content": "<|endoftext|>", "special": True, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    json.dump({"version": "1.0", "added_tokens": [token] if ends else [], "normalizer": None, "pre_tokenizer": level,
               "decoder": level, "model": {"type": "BPE", "vocab": vocab, "merges": merges}}, open(name, "w"))


command, arguments = sys.argv[1], sys.argv[2:]
if command == "write":
    write(*arguments)
elif command == "expected":
    for text in expected(arguments):
        print(json.dumps(text))
elif command == "documents":
    for ids in ids_of(arguments[0], 256):
        print(json.dumps(bytes(ids).decode()))
elif command == "ids":
    for ids in ids_of(arguments[0], int(arguments[1])):
        print(*ids)
elif command == "vocabulary":
    vocabulary(int(arguments[0]), arguments[1])
