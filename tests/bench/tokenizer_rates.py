#!/usr/bin/env python3
"""Rates of encoding on one core beside the reference implementations: tokenizer_rates.py BENCH_TOKENIZERS

SentencePiece's own C++ is the library that BENCH_TOKENIZERS opens; the package `tokenizers` is measured where it can be
imported, one document a call or all in one, whichever is faster. Documents: the web texts, rows of many languages, and
plays. Rounds alternate; the ratio is the median of those of the rounds. DATA=FOLDER names the test data.
"""
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time

os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))
import tokenizer_golden as golden

ROUNDS, GOAL = 7, 0.95


def documents():
    texts = []
    for name in ("c4_guardian_10.jsonl.gz", "dolma_cc_en_head_0091.jsonl", "fineweb_10.expect.jsonl"):
        texts += golden.rows_of(os.path.join(golden.DATA, "web", name))
    texts += list(golden.rows_of(os.path.join(golden.DATA, "text", "multilingual_bigbench_langid.jsonl")))[:500]
    with open(os.path.join(golden.DATA, "text", "tinyshakespeare.txt"), "rb") as file:
        plays = file.read()
    return texts + [plays[at : at + 8000] for at in range(0, len(plays), 8000)]


def package_rounds(name, texts):
    """A function that runs a round and gives its seconds and ids, or None."""
    try:
        import tokenizers
    except ImportError:
        return None
    files = [golden.path_of(file) for file in golden.TOKENIZERS[name]]
    if len(files) == 1:
        library = tokenizers.Tokenizer.from_file(files[0])
    else:
        library = tokenizers.ByteLevelBPETokenizer.from_file(*files, add_prefix_space=False)

    def one_by_one():
        return sum(len(library.encode(text, add_special_tokens=False).ids) for text in texts)

    def at_once():
        return sum(len(encoding.ids) for encoding in library.encode_batch(texts, add_special_tokens=False))

    def timed(work):
        begin = time.perf_counter()
        ids = work()
        return time.perf_counter() - begin, ids

    faster = min((one_by_one, at_once), key=lambda work: timed(work)[0])
    return lambda: timed(faster)


def measure(bench, name, path, texts):
    files = ",".join(golden.path_of(file) for file in golden.TOKENIZERS[name])
    reference = "SentencePiece" if name.endswith(".model") else "tokenizers"
    package = None if reference == "SentencePiece" else package_rounds(name, [text.decode() for text in texts])
    with subprocess.Popen([bench, files, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:

        def ask(what):
            print(what, file=run.stdin, flush=True)
            taken, ids = run.stdout.readline().split()
            return float(taken), int(ids)

        other = package or ((lambda: ask("library")) if reference == "SentencePiece" else None)
        pairs = []
        for _ in range(ROUNDS + 1):
            mine = ask("ours")
            theirs = other() if other else mine
            if mine[1] != theirs[1]:
                sys.exit(f"{name}: {mine[1]} ids, {reference} gives {theirs[1]}")
            pairs.append((mine[0], theirs[0]))
        run.stdin.close()
    pairs = pairs[1:]  # the first fills caches
    megabytes = sum(map(len, texts)) / 1e6
    rates = [megabytes / statistics.median(times) for times in zip(*pairs)]
    line = f"encode {name}: {rates[0]:.2f} MB/s on one core"
    if other:
        ratio = statistics.median(theirs / mine for mine, theirs in pairs)
        line += f", {reference} {rates[1]:.2f}: {ratio:.2f} of it  goal {GOAL:.2f}: {'hit' if ratio >= GOAL else 'miss'}"
    else:
        line += f" ({reference} cannot be imported: not compared)"
    print(line, flush=True)


def main():
    if not os.path.isdir(golden.DATA):
        print(f"encode: no {golden.DATA}: not measured")
        return
    texts = documents()
    with tempfile.NamedTemporaryFile() as file:
        for text in texts:
            file.write(struct.pack("=Q", len(text)) + text)
        file.flush()
        for name in golden.TOKENIZERS:
            measure(sys.argv[1], name, file.name, texts)


if __name__ == "__main__":
    main()
