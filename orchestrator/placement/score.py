"""How well predictions of one kind have done: the last two hundred of them against what came true. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from .regression import median, quantile

KEPT: Final = 200


class Score(msgspec.Struct, frozen=True, gc=False):
    """Over the last `n`: the median and the 90th percentile of the absolute error as a share of what came true, and
    the share that took no longer than the 95th percentile said."""

    n: int = 0
    error: float = 0.0
    error_p90: float = 0.0
    covered: float = 0.0


class Tally:
    """Keeps the errors; `score` sums them up."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, bool]] = deque(maxlen=KEPT)

    def add(self, said: float, said_p95: float, came: float) -> None:
        """Seconds that were expected, the most that were, and those that it took."""
        self._seen.append((abs(said - came) / max(came, 1e-9), came <= said_p95))

    def score(self) -> Score:
        if not self._seen:
            return Score()
        errors = sorted(error for error, _ in self._seen)
        covered = sum(within for _, within in self._seen) / len(errors)
        return Score(len(errors), median(errors), quantile(errors, 0.9), covered)
