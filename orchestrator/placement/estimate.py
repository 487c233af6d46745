"""How long a task is expected to run: what was measured of its skill on such a device, else a default prior.

Fleet knowledge, not durable. An exponential moving average per (skill, device); without a measurement on this device
the measurement on another is scaled by the devices' speeds.
"""

from __future__ import annotations

from typing import Final

DEFAULT_S: Final = 1.0
_WEIGHT: Final = 0.3


class Estimator:
    """Predicts run times in seconds."""

    def __init__(self) -> None:
        self._mean: dict[tuple[str, str], float] = {}
        self._any: dict[str, float] = {}

    def note(self, skill: str, device: str, run_s: float) -> None:
        """A finished attempt took `run_s` seconds."""
        key = (skill, device)
        mean = self._mean.get(key)
        self._mean[key] = run_s if mean is None else mean + _WEIGHT * (run_s - mean)
        self._any[skill] = self._mean[key]

    def run_s(self, skill: str, device: str, speed: float = 1.0) -> float:
        """Expected seconds of one attempt on a device of relative `speed`."""
        found = self._mean.get((skill, device))
        if found is None:
            found = self._any.get(skill, DEFAULT_S) / (speed or 1.0)
        return found

    def measured(self, skill: str) -> float | None:
        """The last mean of the skill on any device; None before the first."""
        return self._any.get(skill)
