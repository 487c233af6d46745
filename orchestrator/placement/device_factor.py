"""How much slower a device is than the average of its class, drawn towards 1 while little is known (n0 = 5).

The mean of the factors of a class is 1: what all its devices have in common is the class's own, and a class of one
device has no factors. Pure.
"""

from __future__ import annotations

import math
from typing import Final

SHRINK: Final = 5.0
"""Runs at the average of the class that every device counts as having had."""
_MEMORY: Final = 50.0


class _Class:
    def __init__(self) -> None:
        self.logs: dict[int, tuple[float, float]] = {}
        """Worker -> (sum of the logarithms of its runs over the class's, how many)."""
        self.sum = 0.0
        """Of the shrunk logarithms of all its devices."""


class DeviceFactors:
    """By class of devices and worker."""

    def __init__(self) -> None:
        self._classes: dict[str, _Class] = {}

    def note(self, device_class: str, worker: int, error: float) -> None:
        """A run there took exp(`error`) times what its class takes."""
        found = self._classes.get(device_class)
        if found is None:
            found = self._classes[device_class] = _Class()
        total, n = found.logs.get(worker, (0.0, 0.0))
        before = total / (n + SHRINK)
        if n >= _MEMORY:
            total, n = total * (1.0 - 1.0 / _MEMORY), _MEMORY - 1.0
        total, n = total + min(max(error, -2.0), 2.0), n + 1.0
        found.logs[worker] = total, n
        found.sum += total / (n + SHRINK) - before

    def of(self, device_class: str, worker: int) -> float:
        """What a run of the class's average is multiplied with there."""
        found = self._classes.get(device_class)
        if found is None or len(found.logs) < 2:
            return 1.0
        total, n = found.logs.get(worker, (0.0, 0.0))
        return math.exp(total / (n + SHRINK) - found.sum / len(found.logs))
