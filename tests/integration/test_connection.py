"""A worker that leaves takes its connection along, whatever the garbage collector does."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import anyio
import psutil
import pytest

from protocol import transport
from protocol.port import FrameStream
from protocol.security import Principal


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Links:
    """Services of which only the worker stream is asked."""

    async def link(self, stream: FrameStream) -> None:
        while await stream.receive() is not None:
            continue


def connections(port: int) -> int:
    """Open ones whose server end this process holds."""
    found = psutil.Process().net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in found)


@pytest.mark.anyio
@pytest.mark.parametrize("reads", [True, False])
async def test_a_stream_that_was_given_up_leaves_no_connection_behind(no_collector: None, reads: bool) -> None:
    server = await transport.serve("127.0.0.1:0", Links(), lambda _: Principal("pi-1", "worker", 3))  # type: ignore[arg-type]
    try:
        async with transport.dial(f"127.0.0.1:{server.port}", "secret") as channel:
            stream = await channel.link()
            assert connections(server.port) == 1
            if reads:
                with anyio.move_on_after(0.01):
                    await stream.receive()
            await stream.aclose()
        del stream, channel
        with anyio.fail_after(20):
            while True:
                if not connections(server.port):
                    break
                await anyio.sleep(0.01)
    finally:
        await server.aclose()
