"""Seeded damage to bytes: what a broken disk, a confused peer or a hostile one might send in place of a seed.

The same random state and the same seeds give the same bytes. It must not know what decodes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

LARGEST: Final = 256 * 1024
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[A-Za-z_][A-Za-z0-9_.-]*|-?[0-9]+(?:\.[0-9]+)?|[\[\]{}(),:;=#&/]|->')
_NUMBERS: Final = (
    b"0", b"-1", b"1", b"-0.0", b"255", b"65536", b"2147483648", b"4294967295", b"9007199254740993",
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551615",
    b"18446744073709551616", b"1e308", b"1e309", b"1e-400", b"-1e309", b"0.1", b"NaN", b"Infinity", b"-Infinity",
    b"nan", b"inf", b"1" + b"0" * 30, b"9" * 400, b"9" * 5000, b"0x7f", b"1_000", b"1e", b"01",
)  # fmt: skip
_WORDS: Final = (
    b"null", b"true", b"false", b"[]", b"{}", b'""', b"[[]]", b'{"":null}', b'{"ref":"a"}', b'{"ref":["a","b/x"]}',
    b'{"ref":"input/"}', b'{"ref":"a[]/x[]"}', b'{"literal":{"ref":1}}', b'"\\ud800"', b'"\\udc00\\ud800"',
    b'"\\u0000"', b'"a\\/b~0~1"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"..\\/..\\/etc"', b'"file://w/%00"', b'"file:///"',
    b'"sha256:"', b'"r1/a#1"', b'"-"', b'"9999d"', b'"1e400s"', b'"9999999999999TiB"', b'"a.b.c"', b'"input"',
    b'"\xc3\xa9\xe2\x80\xae"', b"1979-05-27T07:32:00Z", b"07:32:00", b"'''", b'"""', b"[[x]]", b"[x.y]", b"\\", b"$ref",
    b"->", b"each", b"\0",
)  # fmt: skip
_BYTES: Final = (
    b"\x00", b"\xff", b"\x80", b"\x7f", b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\x80" * 20, b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff", b"\xc1", b"\xc7\x0c\xff" + b"\x00" * 12, b"\xa1\xff", b"\xa3\xed\xa0\x80",
    b"\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\x00\xf0\x7f", b"\xcb\x7f\xf8" + b"\x00" * 6,
    b"\xcf" + b"\xff" * 8, b"\xd3\x80" + b"\x00" * 7, b"\x0a\x00", b"\x12\x80\x80\x80\x80\x10", b"\x0b\x0c",
)  # fmt: skip
_NESTS: Final = (
    (b"[", b"]"), (b'{"a":', b"}"), (b'[{"ref":', b"}]"), (b'{"items":', b"}"), (b'{"anyOf":[', b"]}"), (b"(", b")"),
    (b"\x91", b""), (b"\x81\xa1a", b""), (b"\x0a\x7f", b""), (b"[[", b"]]"), (b"a.", b""), (b"{a=", b"}"),
)  # fmt: skip


def _place(luck: Random, data: bytes) -> int:
    return luck.randrange(len(data) + 1)


def _flip(luck: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    out = bytearray(data or b"\0")
    for _n in range(luck.randint(1, 4)):
        out[luck.randrange(len(out))] ^= 1 << luck.randrange(8)
    return bytes(out)


def _overwrite(luck: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, new = _place(luck, data), luck.choice(_BYTES)
    return data[:at] + new + data[at + luck.choice((0, 1, len(new))) :]


def _cut(luck: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: _place(luck, data)]


def _drop(luck: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(luck, data)
    return data[:at] + data[at + luck.randint(1, 16) :]


def _again(luck: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(luck, data)
    part = data[at : at + luck.randint(1, 64)]
    return data[:at] + part * luck.choice((2, 3, 300)) + data[at:]


def _splice(luck: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = luck.choice(seeds)
    return data[: _place(luck, data)] + other[_place(luck, other) :]


def _word(luck: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """One token of the text in place of another, or something that no author would write."""
    tokens = list(_TOKEN.finditer(data))
    if not tokens:
        return data + luck.choice(_WORDS)
    target = luck.choice(tokens)
    new = luck.choice((luck.choice(_NUMBERS), luck.choice(_WORDS), luck.choice(tokens)[0]))
    return data[: target.start()] + new + data[target.end() :]


def _twice(luck: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """A member of an object, or a line, that is there twice: with another value, where there is one."""
    lines = data.split(b"\n") if luck.random() < 0.3 else data.split(b",")
    at = luck.randrange(len(lines))
    glue = b"\n" if b"\n" in data and len(lines) == data.count(b"\n") + 1 else b","
    return glue.join([*lines[: at + 1], _word(luck, lines[at], ()), *lines[at + 1 :]])


def _nest(luck: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    head, tail = luck.choice(_NESTS)
    depth = luck.choice((10, 70, 130, 1100, 20_000))
    tokens = list(_TOKEN.finditer(data))
    start, end = luck.choice(tokens).span() if tokens else (len(data), len(data))
    return data[:start] + head * depth + data[start:end] + tail * (depth if luck.random() < 0.8 else 0) + data[end:]


MUTATIONS: Final[tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...]] = (
    _flip, _overwrite, _cut, _drop, _again, _splice, _twice, _nest, *(8 * (_word,)),
)  # fmt: skip


def mutate(luck: Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, damaged one to four times."""
    data = luck.choice(seeds)
    for _ in range(luck.choice((1, 1, 1, 1, 2, 2, 3))):
        data = luck.choice(MUTATIONS)(luck, data, seeds)[:LARGEST]
    return data


def truncations(data: bytes, most: int = 400) -> list[bytes]:
    """Every prefix of the data; of long data as many as `most`, evenly."""
    step = max(1, len(data) // most)
    return [data[:end] for end in range(0, len(data), step)]
