#!/usr/bin/env python3
"""Writes data/tokenizers/unicode_since_14.c: what Unicode 15.0 to 16.0 assigned, by general category.

PCRE2 10.42 knows Unicode 14, Oniguruma, the engine of the `tokenizers` package, Unicode 16. Needs that package, and
Python 3.11, whose unicodedata is that of Unicode 14.
    unicode_since_14.py >data/tokenizers/unicode_since_14.c
"""
import unicodedata
from tokenizers import Regex, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Cf".split()
assert unicodedata.unidata_version == "14.0.0"
unassigned = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) == "Cn"]


def matched(category):
    """The unassigned characters that the category matches."""
    split = pre_tokenizers.Split(Regex(r"\p{%s}" % category), "removed")
    for begin in range(0, len(unassigned), 4096):
        part = unassigned[begin : begin + 4096]
        kept = {c for word, _ in split.pre_tokenize_str("".join(part)) for c in word}
        yield from (ord(c) for c in part if c not in kept)


ranges = []
for category in CATEGORIES:
    for c in matched(category):
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == category:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, category])
ranges.sort()
print("/* Written by tests/reference/unicode_since_14.py from what the tokenizers package matches. */")
print('#include "data/tokenizers/split.h"\n')
print("const lt_unicode_range lt_unicode_since_14[] = {")
for first, last, category in ranges:
    print('    {0x%x, 0x%x, "%s"},' % (first, last, category))
print("};")
print("const size_t lt_unicode_since_14_count = sizeof lt_unicode_since_14 / sizeof *lt_unicode_since_14;")
