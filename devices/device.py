"""The port of a device: what it is, how much of it there is, and how a part of it is set aside for one attempt.

Invariant: what is reserved and what is free add up to the capacity; a reservation is released exactly once.
Must not know: tasks, skills, the link. Calibration is apart (calibrate.py): it takes time, discovery must not.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from protocol.profile import DeviceProfile
from protocol.resource import Resources


class Reservation(msgspec.Struct, frozen=True):
    """A part of a device held for one attempt. `environment` is for the process that will use it."""

    kind: str
    environment: dict[str, str] = {}
    parts: tuple[tuple[int, float, int], ...] = ()
    """Of each unit taken: its index, the share of it, the bytes of its memory."""


class Device(Protocol):
    """One kind of device of this machine."""

    @property
    def kind(self) -> str: ...

    def profile(self) -> tuple[DeviceProfile, ...]:
        """What the orchestrator is told of it."""

    def capacity(self) -> Resources:
        """All there is, before any reservation."""

    def reserve(self, needs: Resources) -> Reservation | None:
        """Sets aside what `needs` says of this device; None when that isn't free."""

    def release(self, reservation: Reservation) -> None:
        """Gives it back. Raises: ValueError when it isn't held."""
