"""Counters of the server process, and one `statistics()` over them: for people and benchmarks, never for decisions."""

from __future__ import annotations

from typing import Any

import msgspec


class TurnStatistics(msgspec.Struct):
    """Of the engine since start: `stimuli` and `events` handled in `turns`, seconds spent in them."""

    turns: int = 0
    stimuli: int = 0
    events: int = 0
    commands: int = 0
    busy_s: float = 0.0
    slowest_s: float = 0.0


class Instrument:
    """One per server. `counts`: what was dropped as inadmissible, and other rare things, by name."""

    def __init__(self) -> None:
        self.turn = TurnStatistics()
        self.counts: dict[str, int] = {}

    def count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def statistics(self, **others: msgspec.Struct) -> dict[str, Any]:
        """Builtins of everything counted; `others` are statistics of other parts, by name."""
        found = {"turn": msgspec.to_builtins(self.turn), "counts": dict(self.counts)}
        return found | {name: msgspec.to_builtins(other) for name, other in others.items()}
