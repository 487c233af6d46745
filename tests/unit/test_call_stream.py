"""What one worker stream may hold in memory before anybody asks for it."""

from __future__ import annotations

import anyio

from protocol.errors import AsterismError
from protocol.frame import Frame
from protocol.grpc_call import _READ_AHEAD, _READ_AHEAD_BYTES, CallStream

LARGE = 2 * 1024 * 1024


def test_a_flood_waits_with_its_sender() -> None:
    async def main() -> None:
        for size in (LARGE, 1000):
            read = 0

            async def flood(size: int = size) -> bytes:
                nonlocal read
                read += 1
                await anyio.lowlevel.checkpoint()
                return bytes(size)

            async def nowhere(_: bytes) -> None:
                raise AssertionError

            stream = CallStream(flood, nowhere, lambda _: None, lambda: None, {})
            await anyio.wait_all_tasks_blocked()
            assert stream.held_bytes < _READ_AHEAD_BYTES + LARGE
            assert read <= _READ_AHEAD
            before = read
            for _ in range(3):
                await refused(stream)
            await anyio.wait_all_tasks_blocked()
            assert before < read <= before + 3
            await stream.aclose()

    async def refused(stream: CallStream) -> Frame | None:
        try:
            return await stream.receive()
        except AsterismError:
            return None

    anyio.run(main)
