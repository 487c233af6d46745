"""AutoGen's gRPC runtime: a host process, a process for each worker agent, and this one, which walks the graph itself.

AutoGen has no graph: what a task needs is awaited here, with at most `_IN_FLIGHT` requests open.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .peer import Action, part_argv
from .shape import Shape, upstreams

_IN_FLIGHT = 256


@dataclass
class Count:
    """The message."""

    n: int


def part(address: str, kind: str) -> None:
    """The host, or the worker with the agents of a kind."""
    asyncio.run(worker(address, kind) if kind else host(address))


async def host(address: str) -> None:
    """The process of the host."""
    grpc: Any = import_module("autogen_ext.runtimes.grpc")
    grpc.GrpcWorkerAgentRuntimeHost(address).start()
    await asyncio.Event().wait()


async def worker(address: str, kind: str) -> None:
    """A process with one agent, which counts one further."""
    core: Any = import_module("autogen_core")

    async def count(self: Any, message: Count, ctx: Any) -> Count:
        return Count(message.n + 1)

    count.__annotations__ = {"message": Count, "ctx": core.MessageContext, "return": Count}
    body = {"count": core.rpc(count), "__init__": lambda self: core.RoutedAgent.__init__(self, "counts")}
    agent: Any = type("Counter", (core.RoutedAgent,), body)
    runtime = import_module("autogen_ext.runtimes.grpc").GrpcWorkerAgentRuntime(address)
    await runtime.start()
    await agent.register(runtime, kind, agent)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


class AutoGen:
    """See the module."""

    def __init__(self, loop: asyncio.Runner, runtime: Any, workers: int) -> None:
        self.version = version("autogen-core")
        self._loop = loop
        self._runtime = runtime
        core: Any = import_module("autogen_core")
        self._agents = itertools.cycle([core.AgentId(f"counter{at}", "default") for at in range(workers)])

    def prepare(self, shape: Shape, size: int) -> Action:
        return lambda: self._loop.run(
            {"fan_out": self._fan_out, "chain": self._chain, "layered": self._layered}[shape](size)
        )

    async def _call(self, n: int) -> int:
        answer = await self._runtime.send_message(Count(n), next(self._agents))
        return int(answer.n)

    async def _fan_out(self, size: int) -> int:
        room = asyncio.Semaphore(_IN_FLIGHT)

        async def one() -> int:
            async with room:
                return await self._call(0)

        return sum(await asyncio.gather(*(one() for _ in range(size))))

    async def _chain(self, size: int) -> int:
        found = 0
        for _ in range(size):
            found = await self._call(found)
        return found

    async def _layered(self, size: int) -> int:
        room = asyncio.Semaphore(_IN_FLIGHT)

        async def one(before: list[asyncio.Task[int]]) -> int:
            found = [await task for task in before]
            async with room:
                return await self._call(max(found, default=0))

        row = [asyncio.create_task(one([])) for _ in range(size)]
        for _ in range(size - 1):
            row = [asyncio.create_task(one([row[up] for up in upstreams(at, size)])) for at in range(size)]
        return sum(await asyncio.gather(*row))


@contextmanager
def open_peer(workers: int, folder: Path) -> Iterator[AutoGen]:
    """See peer.Opener."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    processes = [subprocess.Popen(part_argv("autogen", address, ""))]
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                if processes[0].poll() is not None:
                    raise SystemExit("the host of AutoGen did not start") from None
                time.sleep(0.02)
        for at in range(workers):
            one = subprocess.Popen(part_argv("autogen", address, f"counter{at}"), stdout=subprocess.PIPE)
            processes.append(one)
            assert one.stdout is not None
            if not one.stdout.readline():
                raise SystemExit("a worker of AutoGen did not start")
        with asyncio.Runner() as loop:
            core: Any = import_module("autogen_core")
            runtime = import_module("autogen_ext.runtimes.grpc").GrpcWorkerAgentRuntime(address)
            loop.run(runtime.start())
            for serializer in core.try_get_known_serializers_for_type(Count):
                runtime.add_message_serializer([serializer])
            peer = AutoGen(loop, runtime, workers)
            peer.prepare("fan_out", 50)()
            yield peer
            loop.run(runtime.stop())
    finally:
        for process in processes:
            process.kill()
            process.wait()
