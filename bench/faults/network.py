"""The network between workers and the server, as a case may break it: which address a worker dials, cuts, healing.

A port with one implementation per way to lose packets. Invariant: `cut` and `heal` return once they hold.
"""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import Literal, Protocol, Self

import anyio
import anyio.abc

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

    def __init__(self, server: str) -> None:
        self._server = server
        self._process: anyio.abc.Process
        self._lock = anyio.Lock()

    async def __aenter__(self) -> Self:
        argv = [sys.executable, "-P", "-m", "bench.faults.simulated_cut", self._server]
        self._process = await anyio.open_process(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, start_new_session=True
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            self._process.kill()
            await self._process.aclose()

    async def address_for(self, worker: str) -> str:
        return f"127.0.0.1:{await self._say(f'open {worker}')}"

    async def cut(self, worker: str, direction: Direction) -> None:
        await self._say(f"cut {worker} {direction}")

    async def heal(self, worker: str) -> None:
        await self._say(f"heal {worker}")

    async def _say(self, command: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._lock:
            await self._process.stdin.send(f"{command}\n".encode())
            answer = b""
            while not answer.endswith(b"\n"):
                answer += await self._process.stdout.receive()
        return answer.decode().strip()
