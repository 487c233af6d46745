"""What a task needs and what a worker has, in one algebra.

Units: cpu and gpu in cores and cards (fractions allowed), memory, vram and disk in bytes, counters are anything
a worker declares with `--resource name=amount`. Labels are not amounts: they only have to match.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from .errors import UsageError

_SIZE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]?)(i?)[bB]?\s*")
_POWER: Final = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_SPAN: Final = re.compile(r"(?:([0-9.]+)d)?(?:([0-9.]+)h)?(?:([0-9.]+)m(?!s))?(?:([0-9.]+)s)?(?:([0-9.]+)ms)?")


class Resources(msgspec.Struct, frozen=True, omit_defaults=True):
    """A vector of amounts. As a need: the least a worker must have free. As capacity: what it has."""

    cpu: float = 1.0
    memory: int = 0
    gpu: float = 0.0
    vram: int = 0
    disk: int = 0
    counters: dict[str, float] = {}
    labels: dict[str, str] = {}

    def amounts(self) -> dict[str, float]:
        """The amounts that are not zero, by name; labels are left out."""
        found: dict[str, float] = {}
        if self.cpu:
            found["cpu"] = self.cpu
        if self.memory:
            found["memory"] = self.memory
        if self.gpu:
            found["gpu"] = self.gpu
        if self.vram:
            found["vram"] = self.vram
        if self.disk:
            found["disk"] = self.disk
        found.update(self.counters)
        return found


NOTHING: Final = Resources(cpu=0.0)


def size_bytes(value: int | float | str) -> int:
    """`16GiB`, `10MB`, `4096` -> bytes. Raises: UsageError."""
    if isinstance(value, int | float):
        return int(value)
    match = _SIZE.fullmatch(value)
    if match is None:
        raise UsageError(f"{value!r} is not a size", hint="write bytes, or a size such as 512MiB or 16GiB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** _POWER[match[2]])


def span_s(value: int | float | str) -> float:
    """`1h30m`, `250ms`, `2` -> seconds. Raises: UsageError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    match = _SPAN.fullmatch(text)
    if match is None or not any(match.groups()):
        try:
            return float(text)
        except ValueError:
            raise UsageError(f"{value!r} is not a duration", hint="write seconds, or 1h30m, 2m, 250ms") from None
    days, hours, minutes, seconds, millis = (float(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds + millis / 1000


def parse_amounts(pairs: Mapping[str, str]) -> Resources:
    """`{"cpu": "4", "vram": "16GiB", "licence": "2"}` -> capacity; unknown names become counters."""
    known: dict[str, float | int] = {}
    counters: dict[str, float] = {}
    for name, text in pairs.items():
        if name in ("memory", "vram", "disk"):
            known[name] = size_bytes(text)
        elif name in ("cpu", "gpu"):
            known[name] = float(text)
        else:
            counters[name] = float(text)
    return Resources(
        cpu=float(known.get("cpu", 0.0)),
        memory=int(known.get("memory", 0)),
        gpu=float(known.get("gpu", 0.0)),
        vram=int(known.get("vram", 0)),
        disk=int(known.get("disk", 0)),
        counters=counters,
    )
