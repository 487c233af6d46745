"""How much slower a run is for every other that shares its device's cores and memory, of one skill on one class.

The line of Theil-Sen through what runs took more than expected, over how many ran beside them. It counts only while it
does better than none: both are held against the last fifty runs, each before it is learned from. Pure.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from .regression import line, median

WINDOW: Final = 50
_LEAST: Final = 12
"""Runs before it may count."""
_BETTER: Final = 0.98
"""Its mean error must be below so much of that without it: chance alone does a little better, too."""
_MOST: Final = 1.0
"""Natural logarithm of what one more run beside it may be held for."""


class Crowding:
    """`note` what came, then `fit`; `factor` says what the run time is multiplied with. Below 0, nobody knows how many
    run beside it, and it is taken for what is usual."""

    def __init__(self) -> None:
        self.counts = False
        self._slope = self._usual = 0.0
        self._seen: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self._errors: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        """(without it, with it)"""

    def factor(self, beside: int) -> float:
        """1 while it does not count."""
        return self._told(beside) if self.counts and beside >= 0 else 1.0

    @property
    def slows(self) -> float:
        """What one more run beside it multiplies its time with."""
        return math.exp(self._slope) if self.counts else 1.0

    def note(self, beside: int, excess: float) -> None:
        """A run took exp(`excess`) times what was expected with so many beside it, this left out of account."""
        if beside < 0:
            return
        if self._slope:
            self._errors.append((abs(excess), abs(excess - math.log(self._told(beside)))))
        self._seen.append((beside, excess))

    def fit(self) -> None:
        """Take what was noted into account."""
        if len(self._seen) < _LEAST:
            return
        beside = [float(count) for count, _ in self._seen]
        found = line(beside, [excess for _, excess in self._seen])
        self._slope = min(max(0.0, found[1]), _MOST) if found is not None else 0.0
        self._usual = median(beside)
        without, with_it = (sum(errors) for errors in zip(*self._errors, strict=True)) if self._errors else (0.0, 0.0)
        self.counts = len(self._errors) >= _LEAST and self._slope > 0.0 and with_it < _BETTER * without

    def _told(self, beside: int) -> float:
        return math.exp(self._slope * (beside - self._usual))
