"""Numbers to compute with: ranges, seeds of darts, a grid, chains, matrices. Their truths come by another way.

What a skill finds by trial division, repeated squaring or a product of matrices is known here by a sieve, one power, or
two sums.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from orchestrator.placement.dice import Dice

from .draw import Generator, between, some, table

_MERSENNE: Final = (1 << 31) - 1
_EXACT: Final = 1 << 52


def spans(folder: Path, dice: Dice, *, parts: int = 16, upto: int = 24_000) -> Any:
    """spans.csv: ranges of unequal length that cover 1 to `upto`."""
    cuts = [*some(dice, range(1, upto), parts - 1), upto]
    rows = [{"first": low + 1, "last": high} for low, high in zip([0, *cuts], cuts, strict=False)]
    table(folder / "spans.csv", rows)
    sieve = bytearray([0, 0]) + bytearray([1]) * (upto - 1)
    for factor in range(2, math.isqrt(upto) + 1):
        sieve[factor * factor :: factor] = bytes(len(range(factor * factor, upto + 1, factor)))
    known = [n for n in range(upto + 1) if sieve[n]]
    found = [{**row, "primes": sum(sieve[row["first"] : row["last"] + 1])} for row in rows]
    return {"spans": found, "primes": len(known), "total": sum(known), "largest": known[-1]}


def darts(folder: Path, dice: Dice, *, pieces: int = 32, darts: int = 2_000) -> Any:
    """pieces.csv: a seed for so many darts each; which of them hit is drawn once more here."""
    rows = [{"seed": between(dice, 1, 10**9), "darts": darts} for _ in range(pieces)]
    table(folder / "pieces.csv", rows)
    hits = [_hits(row["seed"], darts) for row in rows]
    return {"hits_per_piece": hits, "hits": sum(hits), "darts": pieces * darts}


def _hits(seed: int, darts: int) -> int:
    source = random.Random(seed)
    thrown = [(source.getrandbits(16), source.getrandbits(16)) for _ in range(darts)]
    return sum(x**2 + y**2 <= 2**32 - 1 for x, y in thrown)


def valley(folder: Path, dice: Dice, *, points: int = 24, step: int = 8) -> Any:
    """grid.csv: points around a lowest place, one row of them `step` apart; the nearest to it is in `best`.

    Heights are 3 a^2 + 2 a b + b^2; all points lie on the line b = 0, so that the height is 3 a^2 there.
    """
    low = {"low_x": between(dice, 100, 900), "low_y": between(dice, 100, 900)}
    off = between(dice, 1, step // 2 - 1)
    middle = between(dice, points // 4, 3 * points // 4)
    rows = [{"x": low["low_x"] + off + (at - middle) * step, "y": low["low_y"], **low} for at in range(points)]
    table(folder / "grid.csv", rows)
    heights = [3 * (off + (at - middle) * step) ** 2 for at in range(points)]
    best = {"x": low["low_x"] + off, "y": low["low_y"], "height": 3 * off**2}
    return {"heights": heights, "best": best, "low": {"x": low["low_x"], "y": low["low_y"], "height": 0}}


def chain(folder: Path, dice: Dice, *, values: int = 1, rounds: Sequence[int] = (50,)) -> Any:
    """start.json with one value, or starts.json with several; what each is after every step of so many squarings."""
    drawn = [between(dice, 2, _MERSENNE - 2) for _ in range(values)]
    if values == 1:
        (folder / "start.json").write_text(json.dumps({"value": drawn[0]}) + "\n")
    else:
        (folder / "starts.json").write_text(json.dumps(drawn) + "\n")
    done, steps = 0, []
    for more in rounds:
        done += more
        steps.append([pow(value, pow(2, done, _MERSENNE - 1), _MERSENNE) for value in drawn])
    return {
        "start": drawn[0],
        "steps": [step[0] for step in steps] if values == 1 else steps,
        "last": steps[-1][0],
        "total": sum(steps[-1]),
    }


def matrix(folder: Path, dice: Dice, *, side: int = 48, blocks: int = 8) -> Any:
    """left-NN.json: blocks of rows; right.json. The sum of a product is that of columns times rows."""
    left, right = ([[between(dice, -9, 9) for _ in range(side)] for _ in range(side)] for _ in range(2))
    (folder / "right.json").write_text(json.dumps(right) + "\n")
    across = [sum(row) for row in right]
    totals = []
    for at in range(blocks):
        part = left[at * side // blocks : (at + 1) * side // blocks]
        (folder / f"left-{at:02d}.json").write_text(json.dumps(part) + "\n")
        totals.append(sum(sum(column) * weight for column, weight in zip(zip(*part, strict=True), across, strict=True)))
    return {"totals": totals, "total": sum(totals), "rows": side}


def squares(folder: Path, dice: Dice, *, numbers: int = 12, long: int = 4) -> Any:
    """numbers.json: a root's square and a little more; so many of them beyond what a float holds."""
    wide = some(dice, range(numbers), long)
    roots = [between(dice, 10**12, 10**15) if at in wide else between(dice, 10**3, 10**7) for at in range(numbers)]
    drawn = [root * root + between(dice, 0, 2 * root) for root in roots]
    (folder / "numbers.json").write_text(json.dumps(drawn) + "\n")
    hows = ["long" if number > _EXACT else "float" for number in drawn]
    return {"numbers": drawn, "roots": roots, "hows": hows, "total": sum(roots), "long": long}


def walkers(folder: Path, dice: Dice, *, numbers: int = 64) -> Any:
    """numbers.json: starts of Collatz walks; their steps, counted backwards from numbers whose steps are known."""
    known = {1: 0}
    drawn = [between(dice, 3, 4_000) for _ in range(numbers)]
    for number in drawn:
        way = []
        while number not in known:
            way.append(number)
            number = number // 2 if number % 2 == 0 else 3 * number + 1
        for back, passed in enumerate(reversed(way), 1):
            known[passed] = known[number] + back
    (folder / "numbers.json").write_text(json.dumps(drawn) + "\n")
    return {"numbers": drawn, "steps": sum(known[number] for number in drawn), "count": numbers}


GENERATORS: Final[dict[str, Generator]] = {
    "spans": spans,
    "darts": darts,
    "valley": valley,
    "chain": chain,
    "matrix": matrix,
    "squares": squares,
    "walkers": walkers,
}
