"""The graphs as people write them for a runtime of futures: a call takes futures and gives one.

Invariant: only the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .peer import Action
from .shape import Shape, upstreams


def graph_of(
    submit: Callable[..., Any], collect: Callable[[list[Any]], Iterable[int]], shape: Shape, size: int
) -> Action:
    """`submit(*futures)` is one task, `collect` waits for what several have come to."""

    def fan_out() -> int:
        return sum(collect([submit() for _ in range(size)]))

    def chain() -> int:
        last = submit()
        for _ in range(size - 1):
            last = submit(last)
        return sum(collect([last]))

    def layered() -> int:
        row = [submit() for _ in range(size)]
        kept = [row]  # a result that nobody holds may be forgotten, and made again
        for _ in range(size - 1):
            row = [submit(*(row[up] for up in upstreams(at, size))) for at in range(size)]
            kept.append(row)
        return sum(collect(row))

    return {"fan_out": fan_out, "chain": chain, "layered": layered}[shape]


def results(futures: list[Any]) -> list[int]:
    """Of futures like those of the standard library."""
    return [future.result() for future in futures]
