"""What was measured of a machine, kept for its next starts: a file that counts only while the hardware is the same.

Invariant: figures reach a profile only of the device that they were measured on. How they are measured: calibrate.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from protocol.profile import DeviceProfile, LinkProfile

from .cpu import platform_words

NAME: Final = "calibration.json"


class Measured(msgspec.Struct, frozen=True):
    """One device: the `at`th of its kind. `by`: numpy, torch, cupy or python, whoever did the arithmetic."""

    kind: str
    at: int
    speed: float
    gflops: float
    memory_bytes_s: float
    by: str


class Calibration(msgspec.Struct, frozen=True, omit_defaults=True):
    """All figures of one machine. `links`: by the server's host (`host_of`)."""

    devices: tuple[Measured, ...] = ()
    disk_bytes_s: float = 0.0
    machine: str = ""
    at: float = 0.0
    """When it was measured, Unix time."""
    links: dict[str, LinkProfile] = {}

    def applied(self, devices: Sequence[DeviceProfile]) -> tuple[DeviceProfile, ...]:
        """These devices with their figures; those of an edge machine are its processor's."""
        figures = {(one.kind, one.at): one for one in self.devices}
        seen: dict[str, int] = {}
        found = []
        for device in devices:
            kind = "cpu" if device.kind == "edge" else device.kind
            at = seen.get(device.kind, 0)
            seen[device.kind] = at + 1
            one = figures.get((kind, at))
            if one is not None and not device.simulated:
                device = msgspec.structs.replace(
                    device, speed=one.speed, gflops=one.gflops, memory_bytes_s=one.memory_bytes_s, calibrated=True
                )
            found.append(device)
        return tuple(found)


def host_of(address: str) -> str:
    """The address without its port: that may change from start to start."""
    return address.rpartition(":")[0]


def machine_of(devices: Sequence[DeviceProfile]) -> str:
    """A digest of the hardware and the interpreter: figures of another one say nothing here."""
    words = [platform_words(), *(f"{one.kind} {one.name} {one.count:g} {one.memory}" for one in devices)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def kept(home: Path, devices: Sequence[DeviceProfile]) -> Calibration | None:
    """What was measured on this very machine; None when that was never, or elsewhere. `devices`: as discovered."""
    try:
        found = msgspec.json.decode((home / NAME).read_bytes(), type=Calibration)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.machine == machine_of(devices) else None


def keep(home: Path, calibration: Calibration) -> None:
    """Write it, whole or not at all."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = home / f"{NAME}.{os.getpid()}"
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=1))
    fresh.replace(home / NAME)
