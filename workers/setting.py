"""The worker machine's settings, as one frozen value given to its constructor."""

from __future__ import annotations

import msgspec

from protocol.profile import WorkerProfile

from .spool import MOST_BYTES, MOST_REPORTS


class MachineSettings(msgspec.Struct, frozen=True):
    """What the daemon knows at its start. `spool_*` bound the outbox: when it is full nothing new is accepted."""

    worker: str
    boot_id: str
    profile: WorkerProfile
    spool_count: int = MOST_REPORTS
    spool_bytes: int = MOST_BYTES
