"""What a worker says of itself when it joins."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec

from .resource import Resources
from .skill import SkillSpec

Policy = Literal["allow", "ask", "deny"]
Policies = tuple[tuple[str, Policy], ...]
"""(pattern of skill names, word): the first that fits counts."""
STRICTEST: Final[tuple[Policy, ...]] = ("deny", "ask", "allow")


def strict(rules: Iterable[tuple[str, Policy]]) -> Policies:
    """These rules so that of several that fit a skill the most restrictive counts."""
    found = tuple(rules)
    return tuple(rule for word in STRICTEST for rule in found if rule[1] == word)


def ruling(policies: Policies, skill: str) -> Policy | None:
    """The word of the first rule that fits; None where none does."""
    for pattern, policy in policies:
        if fnmatchcase(skill, pattern):
            return policy
    return None


class DeviceProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One device. `kind`: cpu, gpu, edge; `count`: its cores, or 1 for a card; `memory` in bytes.

    `speed` is relative to a reference core (1.0). `gflops` (float32 GEMM of the whole device) and `memory_bytes_s`
    (STREAM triad) are measured where `calibrated`, else 0: unknown. `price_per_s` and `watts` are those of one unit (a
    core, a card) at work, 0 where nobody said. `features`: what its hardware has (avx2, numa=2, limit=83C).
    """

    kind: str
    name: str = ""
    count: float = 1.0
    memory: int = 0
    speed: float = 1.0
    simulated: bool = False
    gflops: float = 0.0
    memory_bytes_s: float = 0.0
    price_per_s: float = 0.0
    watts: float = 0.0
    features: tuple[str, ...] = ()
    calibrated: bool = False


def device_class(device: DeviceProfile) -> str:
    """What devices are alike: `gpu/NVIDIA H100`. A simulated one is as fast as it says: `cpu/pi x0.25 (simulated)`."""
    found = f"{device.kind}/{device.name}" if device.name else device.kind
    return f"{found} x{device.speed:.2g} (simulated)" if device.simulated else found


def device_text(device: DeviceProfile) -> str:
    """A device in a line: what it is, what was measured, what it costs."""
    words = [f"{device.kind} {device.name or '-'} x{device.count:g}{' simulated' if device.simulated else ''}"]
    words += [f"{device.memory / 2**30:.1f} GiB"] if device.memory else []
    if device.calibrated:
        words += [f"{device.gflops:.3g} GFLOP/s", f"{device.memory_bytes_s / 1e9:.3g} GB/s"]
    words += [f"speed {device.speed:.3g}"]
    words += [f"{device.watts:.3g} W"] if device.watts else []
    words += [f"{device.price_per_s * 3600:.3g} an hour"] if device.price_per_s else []
    return ", ".join(words)


class LinkProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the orchestrator should believe of the network to this worker: bytes/s and seconds."""

    bandwidth: float = 100e6
    latency_s: float = 0.0005


class WorkerProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole of Hello's profile.

    `slots`: attempts that may run at once. `capacity`: what may be reserved in all. `labels` are matched by `on:
    ["key=value"]`, a bare `on: ["gpu"]` matches a device kind or a label key. `policies`: (pattern, allow|ask|deny),
    first match wins. `serves`: for `here` workers, the client identity whose runs alone it serves. `edge` selects the
    slower heartbeat and lease.
    """

    slots: int = 1
    capacity: Resources = Resources()
    devices: tuple[DeviceProfile, ...] = ()
    labels: dict[str, str] = {}
    skills: tuple[SkillSpec, ...] = ()
    policies: Policies = ()
    serves: str = ""
    edge: bool = False
    roots: tuple[str, ...] = ()
    platform: str = ""
    sandbox: str = "process"
    link: LinkProfile = LinkProfile()

    def has(self, word: str) -> bool:
        """Whether `on: [word]` names a kind of device or a label of this worker."""
        key, equals, value = word.partition("=")
        if equals:
            return self.labels.get(key) == value
        return word in self.labels or any(device.kind == word for device in self.devices)
