#!/usr/bin/env python3
"""The tokenizers against the reference implementations: the packages `sentencepiece` and `tokenizers`.

    tokenizer_golden.py --write            writes tests/golden/tokenizers.json, by the packages
    tokenizer_golden.py --golden ENCODE    compares what ENCODE (build/tests/tools/encode) gives with that file
    tokenizer_golden.py --check ENCODE     compares id by id and text by text with the packages themselves

--write and --check need the packages (launch/deps.sh says which versions); --golden needs Python alone. DATA=FOLDER
names the test data, TOKENIZER=NAME takes the tokenizers alone whose name holds NAME. Exit status 77: the packages are
not there.

Text: all documents of the data (whole files, lines, rows of JSON Lines), 10,000 generated strings, and two that are
10 MB long without a place to cut them. Bytes that are not UTF-8 stand for what errors="replace" makes of them. No
special token is added. The generated strings hold no character that came after Unicode 13 (PCRE2 10.42 knows 14, the
packages know others).
"""
import concurrent.futures
import gzip
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import unicodedata

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
DATA = os.environ.get("DATA", os.path.join(ROOT, "..", "shared", "data"))
GOLDEN = os.path.join(ROOT, "tests", "golden", "tokenizers.json")
TOKENIZERS = {
    "llama2.model": ["llama2.model"],
    "spm_unigram_en.model": ["spm_unigram_en.model"],
    "hf_gpt2_style_5k": ["hf_gpt2_style_5k_tokenizer.json"],
    "hf_gptneox_dolma": ["hf_gptneox_dolma_tokenizer.json"],
    "hf_llama": ["hf_llama_tokenizer.json"],
    "hf_torchtitan_test": ["hf_torchtitan_test_tokenizer.json"],
    "gpt2": ["gpt2_encoder.json", "gpt2_vocab.bpe"],
}
# Their ids stand whole in the golden file.
SHORT = [
    "", " ", "Hello, world!", "  two  spaces ", "it's IT'S we'll WE'LL I'm", "naïve café, ﬁn", "日本語のテキスト。",
    "a\nb\r\nc\td", "12345 3.14159", "👩‍👩‍👧‍👦🏽", "e\u0301 \u212b", "a\0b", "<s> </s> <|endoftext|> <unk>", "\ufffd",
]


def path_of(file):
    return os.path.join(DATA, "tokenizers", file)


# ---- texts ----

WORDS = ("the The THE and of a I lazy attention 2024 ’tis don't DON'T you're YOU'RE he'll HE'S we've WE'D I'm 'S 'ſ "
         "naïve façade Straße ΣΊΣΥΦΟΣ Привет мир שלום עולם مرحبا नमस्ते สวัสดี 안녕하세요 吾輩は猫である 東京 カタカナ ﾊﾝｶｸ "
         "Việt ốc ǅ ﬁ Å Å é e\u0301 x\u0323\u0302 한 ㍿ ﷺ ½ ² Ⅷ ٣ ४ 𝔘𝔫𝔦 𠮷 😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 1️⃣ foo_bar(x) "
         "https://a.b/c?d=e&f=%20 ▁ ▁▁ Ġ Ċ <0x41> ⁇").split(" ")
MARKS = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|padding|>", "|||IP_ADDRESS|||", "|||EMAIL_ADDRESS|||", "<s", "|>"]
SPACES = [" ", "  ", "   ", " " * 7, " " * 24, " " * 25, " " * 90, "\n", "\n\n", "\r\n", "\t", "\t\t", "\v", "\f", "\u00a0",
          "\u2003", "\u3000", "\u2028", "\u0085", "\ufeff", "\u200b"]
SIGNS = ["!", "...", "?!", "--", "—", "'", "''", "\"", "(", ")]", "$%", "1", "12", "123", "1,234.5", "0" * 40, "\\n"]
ODD = ["\0", "\x01", "\x1b[31m", "\x7f", "\u009b", "\ue000", "\U000f1234", "\ufffd", "\ufffe", "\u0301", "\u200d", "\u202e",
       "\U000e0041", "\u2581"]
ILL = [b"\xff", b"\xc3", b"\xe3\x81", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80", b"\xe3\x81a", b"\x80\xbf"]


def generate(count):
    """Strings of up to 24 parts; random() alone is the same in every Python."""
    chance = random.Random(1).random

    def one_of(choices):
        return choices[int(chance() * len(choices))]

    def part(ill):
        kind = chance()
        if kind < 0.40:
            return one_of(WORDS)
        if kind < 0.70:
            return " " if chance() < 0.6 else one_of(SPACES)
        if kind < 0.82:
            return one_of(SIGNS)
        if kind < 0.90:
            return "".join(chr(97 + int(26 * chance())) for _ in range(1 + int(12 * chance())))
        if kind < 0.93:
            return one_of(MARKS)
        if kind < 0.96:
            letter = chr(int(0x250 + chance() * 0x2000))
            return letter if unicodedata.ucd_3_2_0.category(letter) != "Cn" else ""
        return one_of(ILL) if ill and chance() < 0.5 else one_of(ODD)

    strings = []
    for _ in range(count):
        ill = chance() < 0.2
        parts = [part(ill) for _ in range(1 + int(24 * chance()))]
        strings.append(b"".join(p if isinstance(p, bytes) else p.encode() for p in parts))
    return strings


def long_word():
    chance = random.Random(2).random
    block = "".join(chr(97 + int(26 * chance())) for _ in range(100_000)).encode()
    return block * 100


def rows_of(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        for line in file:
            row = json.loads(line)
            text = row.get("text", row.get("query"))
            if text is not None:
                yield text.encode("utf-8", "surrogatepass")


def groups():
    """Names and lists of byte strings."""
    for folder in ("text", "text/derived", "web"):
        for name in sorted(os.listdir(os.path.join(DATA, folder))):
            path = os.path.join(DATA, folder, name)
            if ".jsonl" in name:
                yield name, list(rows_of(path))
            elif name.endswith((".txt", ".json")):
                with open(path, "rb") as file:
                    whole = file.read()
                yield name, [whole] + whole.splitlines(keepends=True)
    yield "generated", generate(10_000)
    yield "one word of 10 MB", [long_word()]
    yield "10 MB of spaces", [b" " * 10_000_000]
    yield "short", [text.encode() for text in SHORT]


# ---- answers: a list of (ids, decoded bytes) for a list of strings ----


def by_tool(tool, name):
    files = ",".join(path_of(file) for file in TOKENIZERS[name])

    def answer(strings):
        given = b"".join(struct.pack("=Q", len(s)) + s for s in strings)
        run = subprocess.run([tool, files], input=given, stdout=subprocess.PIPE, check=False)
        if run.returncode != 0:
            sys.exit(f"{name}: {tool} ended with {run.returncode}")
        out, at, answers = run.stdout, 0, []
        while at < len(out):
            (count,) = struct.unpack_from("=Q", out, at)
            ids = struct.unpack_from(f"={count}i", out, at + 8)
            at += 8 + 4 * count
            (count,) = struct.unpack_from("=Q", out, at)
            answers.append((ids, out[at + 8 : at + 8 + count]))
            at += 8 + count
        return answers

    return answer


def by_package(name):
    files = [path_of(file) for file in TOKENIZERS[name]]
    if name.endswith(".model"):
        import sentencepiece

        library = sentencepiece.SentencePieceProcessor(model_file=files[0])
        encode, decode = library.encode, library.decode
    else:
        import tokenizers

        if len(files) == 1:
            library = tokenizers.Tokenizer.from_file(files[0])
        else:
            library = tokenizers.ByteLevelBPETokenizer.from_file(*files, add_prefix_space=False)

        def encode(text):
            return library.encode(text, add_special_tokens=False).ids

        def decode(ids):
            return library.decode(ids, skip_special_tokens=True)

    def answer(strings):
        ids = [encode(string.decode("utf-8", "replace")) for string in strings]
        return [(i, decode(i).encode()) for i in ids]

    return answer


def summary(answers):
    """What the golden file holds of a group: strings, ids, hash of the ids, hash of the texts."""
    ids, texts = hashlib.sha256(), hashlib.sha256()
    for i, text in answers:
        ids.update(struct.pack(f"<Q{len(i)}i", len(i), *i))
        texts.update(struct.pack("<Q", len(text)) + text)
    return [len(answers), sum(len(i) for i, _ in answers), ids.hexdigest()[:32], texts.hexdigest()[:32]]


def whole(answers):
    return [[list(i), text.decode()] for i, text in answers]


# ---- the three ways ----


def write():
    golden = {}
    for name in TOKENIZERS:
        answer = by_package(name)
        golden[name] = {group: (whole if group == "short" else summary)(answer(strings)) for group, strings in groups()}
    lines = []
    for name, held in golden.items():
        rows = ",\n".join(f"  {json.dumps(group)}: {json.dumps(value)}" for group, value in held.items())
        lines.append(f" {json.dumps(name)}: {{\n{rows}\n }}")
    with open(GOLDEN, "w", encoding="ascii") as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


def compare_golden(name, tool):
    with open(GOLDEN, encoding="ascii") as file:
        golden = json.load(file)[name]
    answer, bad = by_tool(tool, name), 0
    for group, strings in groups():
        answers = answer(strings)
        found = whole(answers) if group == "short" else summary(answers)
        if found != golden[group]:
            print(f"{name}, {group}: {found}, expected {golden[group]}", file=sys.stderr)
            bad += 1
    return bad


def compare_packages(name, tool):
    ours, theirs, bad = by_tool(tool, name), by_package(name), 0
    share = int(os.environ.get("SHARE", "1"))  # one of so many, beside those that are alone
    for group, strings in groups():
        strings = strings if len(strings) == 1 else strings[share // 2 :: share]
        for string, (ids, text), (right_ids, right_text) in zip(strings, ours(strings), theirs(strings), strict=True):
            if list(ids) == list(right_ids) and text == right_text:
                continue
            bad += 1
            if bad <= 5:
                what, a, b = ("ids", list(ids), list(right_ids)) if list(ids) != list(right_ids) else ("text", text, right_text)
                at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
                print(
                    f"{name}, {group}: {string[:80]!r}: {what} differ at {at}: {a[at : at + 8]!r}, "
                    f"expected {b[at : at + 8]!r}",
                    file=sys.stderr,
                )
    return bad


def main():
    arguments = sys.argv[1:]
    chosen = [name for name in TOKENIZERS if os.environ.get("TOKENIZER", "") in name]
    try:
        if arguments == ["--write"]:
            return write()
        if len(arguments) != 2 or arguments[0] not in ("--golden", "--check"):
            sys.exit(__doc__)
        compare = compare_golden if arguments[0] == "--golden" else compare_packages
        with concurrent.futures.ProcessPoolExecutor(len(os.sched_getaffinity(0))) as workers:
            bad = dict(zip(chosen, workers.map(compare, chosen, [arguments[1]] * len(chosen))))
    except ImportError as missing:
        print(missing)
        sys.exit(77)
    for name, count in bad.items():
        print(f"{name}: {'the same' if count == 0 else f'{count} differences'}")
    sys.exit(any(bad.values()))


if __name__ == "__main__":
    main()
