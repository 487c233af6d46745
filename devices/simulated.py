"""A device that isn't there: speed, failures and link follow a seed, so that a test or a benchmark repeats exactly.

Every draw depends on the seed and the name of what is drawn for, never on the order of the draws. It says that it is
simulated wherever it is shown.
"""

from __future__ import annotations

import hashlib
import random
from typing import Final, Literal

import msgspec

from protocol.profile import DeviceProfile, LinkProfile
from protocol.resource import Resources


class Behaviour(msgspec.Struct, frozen=True):
    """How it acts: `speed` against the reference core, `spread` of the lognormal noise on each duration.

    `failure` is the chance that an attempt fails, `slow` the chance that one takes `slow_factor` times as long.
    """

    speed: float = 1.0
    spread: float = 0.0
    failure: float = 0.0
    slow: float = 0.0
    slow_factor: float = 5.0
    link: LinkProfile = LinkProfile()


_STEADY: Final = Behaviour()


class Simulated:
    """One simulated device of `count` units with `memory` bytes each."""

    def __init__(
        self,
        seed: int,
        *,
        kind: Literal["cpu", "gpu", "edge"] = "gpu",
        name: str = "",
        count: int = 1,
        memory: int = 0,
        behaviour: Behaviour = _STEADY,
    ) -> None:
        self.seed = seed
        self.kind: Literal["cpu", "gpu", "edge"] = kind
        self.name = name or f"simulated {kind}"
        self.count = count
        self.memory = memory
        self.behaviour = behaviour

    def profile(self) -> tuple[DeviceProfile, ...]:
        return (DeviceProfile(self.kind, self.name, float(self.count), self.memory, self.behaviour.speed, True),)

    def capacity(self) -> Resources:
        if self.kind == "gpu":
            return Resources(cpu=0.0, gpu=float(self.count), vram=self.count * self.memory)
        return Resources(cpu=float(self.count), memory=self.count * self.memory)

    def duration_s(self, work_s: float, attempt: str) -> float:
        """How long `work_s` seconds of the reference core take here, for the attempt of that name."""
        draw = self._draw("duration", attempt)
        noise = draw.lognormvariate(0.0, self.behaviour.spread) if self.behaviour.spread else 1.0
        slow = self.behaviour.slow_factor if draw.random() < self.behaviour.slow else 1.0
        return work_s / self.behaviour.speed * noise * slow

    def fails(self, attempt: str) -> bool:
        return self._draw("failure", attempt).random() < self.behaviour.failure

    def transfer_s(self, size_bytes: int) -> float:
        """Latency and bandwidth of its link, without contention."""
        return self.behaviour.link.latency_s + size_bytes / self.behaviour.link.bandwidth

    def _draw(self, what: str, name: str) -> random.Random:
        digest = hashlib.sha256(f"{self.seed}/{self.name}/{what}/{name}".encode()).digest()
        return random.Random(int.from_bytes(digest[:8], "big"))
