"""How long a task is expected to run, and a transfer to take: what was measured, else a prior.

Fleet knowledge, not durable. Per (skill, device class); without a measurement on this class the one on another is
scaled by the devices' speeds. Whatever it says, it says with an interval and with how much it knows.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from protocol.profile import LinkProfile

DEFAULT_S: Final = 1.0
_WEIGHT: Final = 0.3
_DRIFT: Final = 0.1
_UNKNOWN: Final = 4.0
"""Without a measurement the interval reaches from a so-manieth of the prediction to so many times it."""

By = Literal["measured", "class", "skill", "declared", "default"]
"""What a prediction rests on: runs on this very device, on its class, of the skill elsewhere, a stated prior, none."""


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """Seconds of one attempt: the expected ones, the 10th and the 95th percentile. `n`: the runs it rests on."""

    run_s: float
    low_s: float
    p95_s: float
    n: int = 0
    by: By = "default"


class Predictor:
    """Predicts from what it was told. Costs a decision about a microsecond."""

    def __init__(self) -> None:
        self._mean: dict[tuple[str, str], tuple[float, int]] = {}
        self._planned: dict[tuple[str, str], float] = {}
        self._any: dict[str, float] = {}
        self._rate: dict[int, float] = {}
        self.drifts = 0
        """Counts predictions that moved by more than a tenth: what was planned with them may be planned again."""

    def note(
        self, skill: str, device_class: str, worker: int, speed: float, input_bytes: int, run_s: float,
        predicted: Prediction | None = None,
    ) -> None:  # fmt: skip
        """A successful attempt took `run_s` seconds, on a device of relative `speed`; it was `predicted` so."""
        key = (skill, device_class)
        mean, n = self._mean.get(key, (run_s, 0))
        mean += _WEIGHT * (run_s - mean)
        self._mean[key] = mean, n + 1
        self._any[skill] = mean
        if abs(mean - self._planned.setdefault(key, mean)) > _DRIFT * self._planned[key]:
            self._planned[key] = mean
            self.drifts += 1

    def predict(
        self, skill: str, device_class: str, worker: int, speed: float = 1.0, input_bytes: int = 0
    ) -> Prediction:
        """What one attempt on that device is expected to take."""
        found = self._mean.get((skill, device_class))
        if found is not None:
            run_s, n = found
            return Prediction(run_s, run_s / _UNKNOWN, run_s * _UNKNOWN, n, "class")
        known = self._any.get(skill)
        run_s = (DEFAULT_S if known is None else known) / (speed or 1.0)
        return Prediction(run_s, run_s / _UNKNOWN, run_s * _UNKNOWN, 0, "default" if known is None else "skill")

    def measured(self, skill: str) -> float | None:
        """The last mean of the skill on any device; None before the first."""
        return self._any.get(skill)

    def transfer_s(self, worker: int, link: LinkProfile, size_bytes: int) -> float:
        """Expected seconds until that many bytes have reached the worker, or left it."""
        return link.latency_s + size_bytes / self._rate.get(worker, link.bandwidth)

    def note_transfer(self, worker: int, link: LinkProfile, size_bytes: int, seconds: float) -> None:
        """That many bytes took so long over the worker's link."""
        rate = size_bytes / max(1e-9, seconds - link.latency_s)
        self._rate[worker] = self._rate.get(worker, rate) + _WEIGHT * (rate - self._rate.get(worker, rate))

    def drifted(self, since: int) -> bool:
        """Whether a prediction has moved by more than a tenth since `drifts` was `since`."""
        return self.drifts > since
