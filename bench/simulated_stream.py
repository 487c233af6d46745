"""The simulated network between the core and one simulated worker: what one stream remembers."""

from __future__ import annotations

from typing import Any

from .simulated_worker import SimulatedWorker


class SimulatedStream:
    """One worker stream: frames are numbered, arrive in order or not at all, and all die with it."""

    def __init__(self, conn: int, worker: SimulatedWorker) -> None:
        self.conn = conn
        self.worker = worker
        self.open = True
        self.sent = 0
        self.assigns: list[tuple[int, Any]] = []
        self.seen = 0
        self.last: dict[bool, float] = {True: 0.0, False: 0.0}
