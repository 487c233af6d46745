"""The three graphs that every runtime is timed on, as numbers: nothing here runs them.

Invariant: only the standard library, since it is also loaded in the environments of the peers.
"""

from __future__ import annotations

from typing import Final, Literal

Shape = Literal["fan_out", "chain", "layered"]
SHAPES: Final[tuple[Shape, ...]] = ("fan_out", "chain", "layered")


def upstreams(at: int, width: int) -> tuple[int, int, int]:
    """The three tasks of the layer before that task `at` of a layer reads."""
    return at, (at + 1) % width, (at + width // 2) % width


def tasks_of(shape: Shape, size: int) -> int:
    """How many tasks a graph has; `size` is the number of layers and their width."""
    return size * size if shape == "layered" else size


def result_of(shape: Shape, size: int) -> int:
    """What comes out where each task gives one more than the largest it reads: the sum over those that nobody reads."""
    return size if shape != "layered" else size * size
