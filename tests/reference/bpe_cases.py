#!/usr/bin/env python3
"""Writes tests/golden/bpe_cases.json: small tokenizers with each feature that a tokenizer.json may have, and the ids
that the `tokenizers` package gives for texts under each.
    bpe_cases.py README.md >tests/golden/bpe_cases.json
"""
import json
import random
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}{1,3}|\s+|[^\s\p{L}]+"


def byte_level(use_regex=True, prefix=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": use_regex}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def metaspace(scheme, cut):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def token(content, **other):
    return dict({"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                 "special": True}, **other)


MARKS = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                             {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
# name: normalizer, pre-tokenizer, added tokens, options of the model
VARIANTS = {
    "plain": (None, byte_level(), [], {}),
    "ignore_merges": (None, sequence(split(LLAMA3), byte_level(False)), [], {"ignore_merges": True}),
    "cased": (None, sequence(split(CASED), byte_level(False)), [], {}),
    "nfc": ({"type": "NFC"}, byte_level(), [token("<m>"), token("<tool>", special=False, normalized=True)], {}),
    "nfd": ({"type": "NFD"}, byte_level(prefix=True), [token("né", normalized=True)], {}),
    "spaces": (None, byte_level(), [token("<m>", lstrip=True), token("<tool>", rstrip=True), token("  ")], {}),
    "digits": (None, sequence({"type": "Digits", "individual_digits": True}, byte_level()), [], {}),
    "runs": (None, sequence({"type": "Digits", "individual_digits": False}, byte_level()), [], {}),
    "removed": (None, sequence(split(" ", "Removed", kind="String"), byte_level()), [], {}),
    "words": (None, sequence(split(r"\w+|[^\w\s]+", "Removed", True), byte_level(False)), [], {}),
    "han": (None, sequence(split(r"\p{Han}+"), split(r"\d"), byte_level(False)), [], {}),
    "previous": (None, sequence(split(" ", "MergedWithPrevious", kind="String"), split(r"\p{L}+", "MergedWithPrevious", True),
                                byte_level(False)), [], {}),
    "next": (None, sequence(split(r"\s", "MergedWithNext"), split(r"\d", "MergedWithNext", True), byte_level(False)), [], {}),
    "contiguous": (None, sequence(split(r"\p{P}", "Contiguous"), split("[a-z]", "Contiguous", True), byte_level()), [], {}),
    "lines": (None, sequence(split(r"^\s+|\s+$"), split(r"[\w']+"), split(r"\p{N}{,2}"), byte_level(False)), [], {}),
    "no_words": (None, byte_level(False), [], {}),
}
PIECES = ["a", "b", " the", " ", "  ", "\n", "\n\n", "\n ", "\r\n", "\t", "12", "4567", "né", "é", "e\u0301", "日本", "々", "😀", "\0", "\u180e",
          "\u0085", "\u00a0", "\u3000", "'s", "'S", "'LL", "K", ".", "!!", "<m>", " <m> ", "<tool>  ", "\u1e9b\u0323",
          "\u0915\u094d\u0937", "½", "Ⅷ", "ǅ", "ABC", "training", " model", "\U00010d6f", "\U00013460", "\u0897", "▁"]


def texts():
    draw = random.Random(7)
    return [""] + ["".join(draw.choice(PIECES) for _ in range(draw.randrange(1, 14))) for _ in range(24)] + [
        "lazytrain" * 12, " " * 70 + "x", "trainingthemodelsandcheckpoints" * 3]


def learn(path, byte_level_model):
    tokenizer = Tokenizer(models.BPE())
    alphabet = []
    if byte_level_model:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    size = 400 if byte_level_model else 200
    tokenizer.train([path], trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    return json.loads(tokenizer.to_str())["model"]


def case(name, model, normalizer, pre_tokenizer, added, options):
    model = dict(model, **options)
    count = len(model["vocab"])
    parts = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
             "added_tokens": [dict(t, id=count + i) for i, t in enumerate(added)], "options": options}
    whole = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None, "decoder": None,
             "model": model, **{k: v for k, v in parts.items() if k != "options"}}
    reference = Tokenizer.from_str(json.dumps(whole))
    ids = [reference.encode(text, add_special_tokens=False).ids for text in texts()]
    return dict(parts, name=name, ids=ids)


byte_model, mark_model = learn(sys.argv[1], True), learn(sys.argv[1], False)
vocabulary = mark_model["vocab"]
mark_model["vocab"] = {**vocabulary, "<unk>": len(vocabulary)}
fallback = dict(mark_model["vocab"])
for byte in range(256):
    fallback["<0x%02X>" % byte] = len(fallback)
out = {
    "texts": texts(),
    "byte_model": {k: byte_model[k] for k in ("vocab", "merges")},
    "mark_model": {"vocab": fallback, "merges": mark_model["merges"]},
    "byte_cases": [case(name, byte_model, *parts) for name, parts in VARIANTS.items()],
    "mark_cases": [
        case("fallback", dict(mark_model, vocab=fallback), MARKS, None, [],
             {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}),
        case("unknown", dict(mark_model, vocab=fallback), MARKS, None, [token("<m>", normalized=True)],
             {"unk_token": "<unk>", "fuse_unk": False, "byte_fallback": False}),
        case("fused", dict(mark_model, vocab=fallback), MARKS, None, [],
             {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": False}),
        case("dropped", dict(mark_model, vocab=fallback), MARKS, None, [],
             {"unk_token": None, "fuse_unk": False, "byte_fallback": False}),
        *(case(name, dict(mark_model, vocab=fallback), normalizer, words, [token("<m>"), token("<tool>", normalized=True)],
               {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True})
          for name, normalizer, words in (
              ("metaspace_first", None, metaspace("first", False)),
              ("metaspace_always", {"type": "NFC"}, metaspace("always", True)),
              ("metaspace_never", None, metaspace("never", False)),
              ("gemma", MARKS["normalizers"][1], split(" ", "MergedWithPrevious", kind="String")))),
    ],
}
json.dump(out, sys.stdout, ensure_ascii=True, separators=(",", ":"))
print()
