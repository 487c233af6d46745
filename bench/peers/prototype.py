"""The ceiling of our own stack: grpc.aio, batched frames, SQLite in synchronous FULL, and nothing else.

The graph stands in this process, workers dial in with one stream each, a thread commits events in groups, and what
depends on a task is released once its result is on the disk. No retries, leases, schemas, inputs or client: what a
chain costs here is what the libraries cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import sqlite3
import subprocess
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from .peer import Action, part_argv
from .shape import Shape, result_of, upstreams

_CREDIT = 256
_FRAME = 64
_GROUP = 4096
_BODY = bytes(120)

_SET_UP = (
    "pragma journal_mode=wal",
    "pragma synchronous=full",
    "create table event(seq integer primary key, task text, kind int, at real, body blob)",
)

Event = tuple[str, int, float, bytes]
_DISPATCHED, _SUCCEEDED = 2, 3


def _frames() -> Any:
    """Message classes of the link, made at run time: Down{tasks}, Up{results}."""
    pb: Any = import_module("google.protobuf.descriptor_pb2")
    field = pb.FieldDescriptorProto
    file = pb.FileDescriptorProto(name="prototype.proto", package="prototype", syntax="proto3")
    bodies: dict[str, list[tuple[str, int, str]]] = {
        "Task": [("id", field.TYPE_STRING, ""), ("run", field.TYPE_STRING, ""), ("attempt", field.TYPE_UINT64, ""),
                 ("body", field.TYPE_BYTES, "")],
        "Result": [("id", field.TYPE_STRING, ""), ("body", field.TYPE_BYTES, "")],
        "Down": [("tasks", field.TYPE_MESSAGE, "Task")],
        "Up": [("results", field.TYPE_MESSAGE, "Result")],
    }  # fmt: skip
    for name, fields in bodies.items():
        message = file.message_type.add(name=name)
        for number, (key, kind, of) in enumerate(fields, 1):
            label = field.LABEL_REPEATED if of else field.LABEL_OPTIONAL
            message.field.add(
                name=key, number=number, type=kind, label=label, type_name=f".prototype.{of}" if of else None
            )
    pool: Any = import_module("google.protobuf.descriptor_pool").DescriptorPool()
    pool.Add(file)
    made = import_module("google.protobuf.message_factory").GetMessageClass
    return {name: made(pool.FindMessageTypeByName(f"prototype.{name}")) for name in bodies}


def part(address: str) -> None:
    """A worker."""
    asyncio.run(_work(address))


async def _work(address: str) -> None:
    """Every task gives the first bytes of its body."""
    aio: Any = import_module("grpc.aio")
    kinds = _frames()
    up, result = kinds["Up"], kinds["Result"]
    async with aio.insecure_channel(address) as channel:
        call = channel.stream_stream("/prototype.Link/Join", up.SerializeToString, kinds["Down"].FromString)(
            wait_for_ready=True
        )
        await call.write(up())
        async for down in call:
            await call.write(up(results=[result(id=task.id, body=task.body[:8]) for task in down.tasks]))


class _Journal(threading.Thread):
    """Commits what is queued as one group; then tells the loop what has succeeded."""

    def __init__(self, path: Path, done: Callable[[list[str]], object]) -> None:
        super().__init__(daemon=True)
        self.queue: queue.SimpleQueue[list[Event]] = queue.SimpleQueue()
        self._path, self._done = path, done
        self.start()

    def run(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None)
        for line in _SET_UP:
            database.execute(line)
        while True:
            events = self.queue.get()
            with contextlib.suppress(queue.Empty):
                while len(events) < _GROUP:
                    events = events + self.queue.get_nowait()
            database.execute("begin immediate")
            database.executemany("insert into event(task, kind, at, body) values(?, ?, ?, ?)", events)
            database.execute("commit")
            if done := [event[0] for event in events if event[1] == _SUCCEEDED]:
                self._done(done)


class _Orchestrator:
    """The graph, the ready queue, the streams."""

    def __init__(self, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        self._journal = _Journal(folder / "journal.db", lambda done: loop.call_soon_threadsafe(self._release, done))
        self._kinds = _frames()
        self._ready: deque[str] = deque()
        self._wakers: list[asyncio.Event] = []
        self._waits: dict[str, int] = {}
        self._down: dict[str, list[str]] = {}
        self._left = 0
        self._over = asyncio.Event()
        self.joined = asyncio.Semaphore(0)

    async def serve(self) -> tuple[Any, int]:
        grpc: Any = import_module("grpc")
        server = import_module("grpc.aio").server()
        method = grpc.stream_stream_rpc_method_handler(
            self._join, self._kinds["Up"].FromString, self._kinds["Down"].SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("prototype.Link", {"Join": method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    async def run(self, needs: dict[str, Sequence[str]]) -> None:
        self._waits = {task: len(before) for task, before in needs.items()}
        self._down = defaultdict(list)
        for task, before in needs.items():
            for up in before:
                self._down[up].append(task)
        self._left = len(needs)
        self._over.clear()
        self._ready.extend(task for task, before in needs.items() if not before)
        self._wake()
        await self._over.wait()

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    def _release(self, done: list[str]) -> None:
        for task in done:
            self._left -= 1
            for down in self._down.get(task, ()):
                self._waits[down] -= 1
                if not self._waits[down]:
                    self._ready.append(down)
        if self._ready:
            self._wake()
        if not self._left:
            self._over.set()

    async def _join(self, requests: Any, context: Any) -> None:
        aio: Any = import_module("grpc.aio")
        await context.read()
        waker, credit = asyncio.Event(), _CREDIT
        self._wakers.append(waker)
        self.joined.release()

        async def read() -> None:
            nonlocal credit
            while (up := await context.read()) is not aio.EOF:
                credit += len(up.results)
                now = time.time()
                self._journal.queue.put([(one.id, _SUCCEEDED, now, one.body) for one in up.results])
                waker.set()

        reader = asyncio.create_task(read())
        task, down = self._kinds["Task"], self._kinds["Down"]
        try:
            while True:
                if not self._ready or credit <= 0:
                    waker.clear()
                    await waker.wait()
                    continue
                count = min(_FRAME, credit, -(-len(self._ready) // len(self._wakers)))
                ids = [self._ready.popleft() for _ in range(count)]
                credit -= count
                now = time.time()
                self._journal.queue.put([(one, _DISPATCHED, now, b"") for one in ids])
                await context.write(
                    down(tasks=[task(id=one, run="run-0123456789", attempt=1, body=_BODY) for one in ids])
                )
        finally:
            reader.cancel()


class Prototype:
    """See the module."""

    def __init__(self, loop: asyncio.Runner, orchestrator: _Orchestrator) -> None:
        self.version = f"grpcio {import_module('grpc').__version__}"
        self._loop = loop
        self._orchestrator = orchestrator
        self._runs = itertools.count()

    def prepare(self, shape: Shape, size: int) -> Action:
        head = f"r{next(self._runs)}"
        needs: dict[str, Sequence[str]] = {}
        if shape == "fan_out":
            needs = {f"{head}-{at:08d}": () for at in range(size)}
        elif shape == "chain":
            needs = {f"{head}-{at}": (f"{head}-{at - 1}",) if at else () for at in range(size)}
        else:
            for layer, at in itertools.product(range(size), range(size)):
                above = tuple(f"{head}-{layer - 1}-{up}" for up in upstreams(at, size))
                needs[f"{head}-{layer}-{at}"] = above if layer else ()

        def run() -> int:
            self._loop.run(self._orchestrator.run(needs))
            return result_of(shape, size)  # its tasks give bytes that nobody adds up; `run` returns when all are in

        return run


@contextmanager
def open_peer(workers: int, folder: Path) -> Iterator[Prototype]:
    """See peer.Opener."""
    processes: list[subprocess.Popen[bytes]] = []

    async def start() -> tuple[_Orchestrator, Any, int]:
        orchestrator = _Orchestrator(folder)
        server, port = await orchestrator.serve()
        return orchestrator, server, port

    with asyncio.Runner() as loop:
        try:
            orchestrator, server, port = loop.run(start())
            for _ in range(workers):
                processes.append(subprocess.Popen(part_argv("prototype", f"127.0.0.1:{port}")))
            for _ in range(workers):
                loop.run(orchestrator.joined.acquire())
            peer = Prototype(loop, orchestrator)
            peer.prepare("fan_out", 200)()
            yield peer
            loop.run(server.stop(0))
        finally:
            for process in processes:
                process.kill()
                process.wait()
