"""What a task needs and what a worker has, in one algebra.

Units: cpu and gpu in cores and cards (fractions allowed), memory, vram and disk in bytes, counters are anything
a worker declares with `--resource name=amount`. Labels are not amounts: they only have to match.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite, nan
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
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    base = 1024 if match is not None and match[3] else 1000
    size = _number(match[1]) * base ** _POWER[match[2]] if match is not None else _number(value)
    if not isfinite(size) or (match is None and isinstance(value, str)):
        raise UsageError(f"{value!r:.80} is not a size", hint="write bytes, or a size such as 512MiB or 16GiB")
    return value if isinstance(value, int) else int(size)


def span_s(value: int | float | str) -> float:
    """`1h30m`, `250ms`, `2` -> seconds, always finite. Raises: UsageError."""
    text = value.strip() if isinstance(value, str) else ""
    match = _SPAN.fullmatch(text)
    if match is not None and any(match.groups()):
        days, hours, minutes, seconds, millis = (_number(part or 0) for part in match.groups())
        span = days * 86400 + hours * 3600 + minutes * 60 + seconds + millis / 1000
    else:
        span = _number(text or value)
    if not isfinite(span):
        raise UsageError(f"{value!r:.80} is not a duration", hint="write seconds, or 1h30m, 2m, 250ms")
    return span


def _number(value: int | float | str) -> float:
    """The number, or NaN for what is none."""
    try:
        return nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError, OverflowError):
        return nan


def parse_amounts(pairs: Mapping[str, str]) -> Resources:
    """`{"cpu": "4", "vram": "16GiB", "licence": "2"}` -> capacity; other names are counters. Raises: UsageError."""
    known: dict[str, float | int] = {}
    counters: dict[str, float] = {}
    for name, text in pairs.items():
        if name in ("memory", "vram", "disk"):
            known[name] = size_bytes(text)
        elif name in ("cpu", "gpu"):
            known[name] = _amount(name, text)
        else:
            counters[name] = _amount(name, text)
    return Resources(
        cpu=float(known.get("cpu", 0.0)),
        memory=int(known.get("memory", 0)),
        gpu=float(known.get("gpu", 0.0)),
        vram=int(known.get("vram", 0)),
        disk=int(known.get("disk", 0)),
        counters=counters,
    )


def _amount(name: str, text: str) -> float:
    found = _number(text)
    if not (isfinite(found) and found >= 0):
        raise UsageError(f"{text!r:.80} is no amount of {name!r:.80}", hint="write a number, such as --resource gpu=1")
    return found
