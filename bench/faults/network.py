"""The network between workers and the server, as a case may break it: which address a worker dials, cuts, healing.

A port with one implementation per way to lose packets. Invariant: `cut` and `heal` return once they hold.
"""

from __future__ import annotations

from typing import Literal, Protocol

from .process import Told

Direction = Literal["up", "down", "both"]
"""`up` is from the worker to the server."""


class Network(Protocol):
    """What can be done to a worker's way to the server."""

    async def address_for(self, worker: str) -> str:
        """What this worker dials. Once per worker."""
        ...

    async def cut(self, worker: str, direction: Direction) -> None: ...

    async def heal(self, worker: str) -> None: ...


class SimulatedNetwork:
    """Simulated: a process that forwards TCP on the loopback and goes silent (see simulated_cut)."""

    def __init__(self, process: Told) -> None:
        self._process = process

    async def address_for(self, worker: str) -> str:
        return f"127.0.0.1:{await self._process.say(f'open {worker}')}"

    async def cut(self, worker: str, direction: Direction) -> None:
        await self._process.say(f"cut {worker} {direction}")

    async def heal(self, worker: str) -> None:
        await self._process.say(f"heal {worker}")
