"""The network between workers and the server, as a case may break it.

A port with one implementation per way to lose packets. Invariant: `cut` and `heal` return once they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from .process import Told

Direction = Literal["up", "down", "both"]
"""`up` is from the worker to the server."""


class Network(Protocol):
    """What can be done to a worker's way to the server."""

    async def cut(self, worker: str, direction: Direction) -> None: ...

    async def heal(self, worker: str) -> None: ...


class SimulatedNetwork:
    """Simulated: a process that forwards TCP on the loopback and goes silent (see simulated_cut)."""

    def __init__(self, process: Told, ports: Mapping[str, int]) -> None:
        self._process = process
        self.addresses = {worker: f"127.0.0.1:{port}" for worker, port in ports.items()}

    async def cut(self, worker: str, direction: Direction) -> None:
        await self._process.say(f"cut {worker} {direction}")

    async def heal(self, worker: str) -> None:
        await self._process.say(f"heal {worker}")
