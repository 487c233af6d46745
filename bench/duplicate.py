"""Near-duplicate functions: shingles of the syntax tree, compared through bottom-k sketches.

A function becomes the set of hashes of SHINGLE consecutive nodes of its tree (kinds, attributes and called names; not
variable names, so that renaming hides nothing). The SKETCH smallest hashes are its sketch: functions that share many
of them are candidates (Broder 1997), and the exact overlap of the sets decides. The hashes are the same in every
process. Must not know: skills.
"""

from __future__ import annotations

import ast
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from .syntax import CHILDREN

SHINGLE: Final = 5
SKETCH: Final = 32
MAX_BUCKET: Final = 60
"""A hash that more functions share says nothing of any two of them."""
_MASK: Final = (1 << 61) - 1
_FACTORS: Final = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F)
_CODES: Final = {kind: zlib.crc32(kind.__name__.encode()) for kind in CHILDREN} | {
    kind: zlib.crc32(kind.__name__.encode()) for kind in (ast.Name, ast.Constant, ast.Pass, ast.Break, ast.Continue)
}


class Pair(NamedTuple):
    """Indices of two functions, the first one smaller, and the share of shingles they have in common."""

    left: int
    right: int
    similarity: float


def shingles(function: ast.AST) -> frozenset[int]:
    """The hashed shingles of one function's tree, in document order of its nodes."""
    codes: list[int] = []
    stack: list[Any] = [function]
    while stack:
        node = stack.pop()
        code = _CODES.get(node.__class__)
        if code is None:
            continue
        if node.__class__ is ast.Attribute:
            code ^= zlib.crc32(node.attr.encode())
        elif node.__class__ is ast.Call and node.func.__class__ is ast.Name:
            code ^= zlib.crc32(node.func.id.encode())
        codes.append(code)
        below: list[Any] = []
        for field in CHILDREN.get(node.__class__, ()):
            value = getattr(node, field)
            if value.__class__ is list:
                below.extend(value)
            else:
                below.append(value)
        stack.extend(reversed(below))
    a, b, c, d, e = _FACTORS
    return frozenset(
        ((v * a + w * b + x * c + y * d + z * e) & _MASK)
        for v, w, x, y, z in zip(codes, codes[1:], codes[2:], codes[3:], codes[4:], strict=False)
    )


def near_pairs(sets: Sequence[frozenset[int]], threshold: float) -> list[Pair]:
    """Pairs at least `threshold` alike (Jaccard), the most alike first."""
    found: list[Pair] = []
    for (left, right), shared in _candidates(sets).items():
        smaller, larger = sorted((len(sets[left]), len(sets[right])))
        # A pair so alike shares most of its sketch; half of that is a safe sieve before the exact count.
        if smaller < threshold * larger or shared < threshold * min(SKETCH, smaller) / 2:
            continue
        common = len(sets[left] & sets[right])
        similarity = common / (smaller + larger - common) if common else 0.0
        if similarity >= threshold:
            found.append(Pair(left, right, round(similarity, 4)))
    return sorted(found, key=lambda pair: (-pair.similarity, pair.left, pair.right))


def _candidates(sets: Sequence[Iterable[int]]) -> Counter[tuple[int, int]]:
    """How many sketch hashes each two functions share, if any."""
    holders: dict[int, list[int]] = defaultdict(list)
    for index, one in enumerate(sets):
        for value in sorted(one)[:SKETCH]:
            holders[value].append(index)
    shared: Counter[tuple[int, int]] = Counter()
    for same in holders.values():
        if 1 < len(same) <= MAX_BUCKET:
            shared.update((left, right) for at, left in enumerate(same) for right in same[at + 1 :])
    return shared
