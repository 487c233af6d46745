"""A process of the bench's own that is told what to do, a line at a time, and answers each with a line.

Invariant: it ends with the block that started it, and by itself when the bench dies, because its standard input ends.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc


class Told:
    """One such process."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self._process = process
        self._lock = anyio.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def say(self, line: str) -> str:
        """Tell it one line; its answer. Raises: anyio.EndOfStream if it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._lock:
            await self._process.stdin.send(f"{line}\n".encode())
            answer = b""
            while not answer.endswith(b"\n"):
                answer += await self._process.stdout.receive()
        return answer.decode().strip()


@asynccontextmanager
async def told(module: str, *arguments: str) -> AsyncIterator[Told]:
    """Start `python -m MODULE`."""
    argv = [sys.executable, "-P", "-m", module, *arguments]
    process = await anyio.open_process(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, start_new_session=True
    )
    try:
        yield Told(process)
    finally:
        with anyio.CancelScope(shield=True):
            process.kill()
            await process.aclose()
