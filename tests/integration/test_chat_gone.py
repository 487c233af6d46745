"""A model's server whose machine is gone without a word: no end of the connection ever comes from it."""

from __future__ import annotations

import os
import socket
import sys
from urllib.parse import urlsplit

import anyio
import psutil
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from protocol import chat_carrier
from protocol.chat import ChatReply
from tests.integration import network
from tests.integration.test_chat_wire import ASKED, chat_at
from tests.integration.wire_server import Wire, wire_server

ELSEWHERE = "http://model.invalid/v1"
SILENT = """
import socket, sys
with socket.create_server((sys.argv[1], 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        link, _ = server.accept()
        link.recv(1 << 16)
        print("asked", flush=True)
        kept = link
"""
"""Takes one request after the other, and says nothing."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("proxied", [False, True], ids=["itself", "its proxy"])
async def test_the_kernel_watches_over_a_connection_to_a_model(proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[int] = []
    ports: list[int | None] = []

    async def play(wire: Wire) -> None:
        ours = psutil.Process().net_connections("tcp")
        descriptor = next(one.fd for one in ours if one.raddr and one.raddr.port == ports[0])
        with socket.socket(fileno=os.dup(descriptor)) as link:
            watched.append(link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                watched.append(link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))

    async with wire_server(play) as server:
        ports.append(urlsplit(server.base_url).port)
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", server.base_url.removesuffix("/v1"))
            monkeypatch.delenv("NO_PROXY", raising=False)
        await chat_at(ELSEWHERE if proxied else server.base_url, plain_key=True).complete(ASKED)
    assert watched
    assert all(watched)


@pytest.mark.anyio
@pytest.mark.skipif(bool(network.available()), reason=network.available())
async def test_a_server_whose_machine_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    sooner = [(level, name, 1 if value < 1000 else 1000) for level, name, value in chat_carrier._WATCH]
    monkeypatch.setattr(chat_carrier, "_WATCH", sooner)
    replies: list[ChatReply] = []
    with network.cable() as cable:
        async with await anyio.open_process([*cable.prefix, sys.executable, "-c", SILENT, cable.there]) as server:
            assert server.stdout is not None
            said = BufferedByteReceiveStream(server.stdout)
            port = (await said.receive_until(b"\n", 20)).decode()
            chat = chat_at(f"http://{cable.there}:{port}/v1", plain_key=True)

            async def ask() -> None:
                replies.append(await chat.complete(ASKED))

            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                await said.receive_until(b"\n", 20)
                await anyio.run_process([*cable.prefix, "ip", "rule", "add", "to", cable.here, "blackhole"])
            server.kill()
    assert replies[0].kind == "cut"
    assert "has not answered" in replies[0].message
