"""What generators share: their form, draws from lists and ranges, and how a file that was written is told of."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.placement.dice import Dice

T = TypeVar("T")
# Writes its data into the folder it is given, with these dice and its arguments by name; gives the truth about it.
Generator = Callable[..., Any]


def pick(dice: Dice, items: Sequence[T]) -> T:
    return items[dice.below(len(items))]


def between(dice: Dice, low: int, high: int) -> int:
    """Both ends included."""
    return low + dice.below(high - low + 1)


def some(dice: Dice, items: Sequence[T], count: int) -> list[T]:
    """So many different ones, in the order of `items`."""
    left = list(range(len(items)))
    for at in range(count):
        other = at + dice.below(len(left) - at)
        left[at], left[other] = left[other], left[at]
    return [items[at] for at in sorted(left[:count])]


def told(name: str, data: bytes) -> dict[str, Any]:
    """What a truth says of every file."""
    return {"name": name, "bytes": len(data), "sha256": sha256(data).hexdigest()}


def written(path: Path, data: bytes) -> dict[str, Any]:
    path.write_bytes(data)
    return told(path.name, data)


def hashes(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {row["name"]: row["sha256"] for row in rows}


def table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of like columns as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
