"""What generators share: their form, and draws from lists and ranges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
