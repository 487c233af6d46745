"""The port of a device: what it is and how much of it there is.

What is set aside of it for whom is counted elsewhere (`workers.capacity`, `protocol.card`): one set of books. Must not
know: tasks, skills, the link. Calibration is apart (calibrate.py): it takes time, discovery must not.
"""

from __future__ import annotations

from typing import Protocol

from protocol.profile import DeviceProfile
from protocol.resource import Resources


class Device(Protocol):
    """One kind of device of this machine."""

    @property
    def kind(self) -> str: ...

    def profile(self) -> tuple[DeviceProfile, ...]:
        """What the orchestrator is told of it."""

    def capacity(self) -> Resources:
        """All there is, before any reservation."""
