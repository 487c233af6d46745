"""An orchestrator for worker tests: real gRPC, real frames, and a test that decides what it answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from protocol import transport
from protocol.artifact import SMALL_BYTES, Content, digest_of
from protocol.bundle import split
from protocol.errors import AsterismError, NotFound, UsageError
from protocol.frame import (
    Ack,
    Assign,
    Heartbeat,
    HeartbeatAck,
    HeldVerdict,
    Hello,
    Input,
    Item,
    Progress,
    Report,
    Return,
    Welcome,
    WorkSpec,
)
from protocol.ids import AttemptId, Fence
from protocol.link import Fault, Link
from protocol.port import FrameStream, Server
from protocol.security import Keyring, Principal, secret_hash

JOURNAL = "0123456789abcdef0123456789abcdef"
SECRET = "worker-secret"


class ScriptedServer:
    """Acknowledges heartbeats and reports; remembers everything; sends what the test says."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.hellos: list[Hello] = []
        self.store: dict[str, bytes] = {}
        self.bundles = 0
        self.count = 0
        self.acks = True
        self.heartbeats = True
        self.verdicts: Callable[[Hello], tuple[HeldVerdict, ...]] = lambda hello: ()
        self.answer: Callable[[Any], bytes] = lambda call: b"null"
        self.lease_s = 5.0
        self._link: Link | None = None
        self._stream: FrameStream | None = None
        self._wake = anyio.Event()
        self._more = anyio.Event()
        self.port = 0
        self._server: Server | None = None
        self._keyring = Keyring()
        self._keyring.add(secret_hash(SECRET), Principal("pi-1", "worker", 1))

    async def start(self, port: int = 0) -> None:
        self._server = await transport.serve(f"127.0.0.1:{port}", self, self._keyring.authenticate)
        self.port = self._server.port

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.aclose(0.1)
            self._server = None
        self._link = None

    # Services

    async def link(self, stream: FrameStream) -> None:
        link = Link("orchestrator")
        self._link, self._stream = link, stream
        async with anyio.create_task_group() as group:
            group.start_soon(self._write, link, stream)
            while (frame := await stream.receive()) is not None:
                taken = link.take(frame)
                if isinstance(taken, Fault):
                    raise AssertionError(taken)
                for item in taken.items:
                    self._hear(link, item)
                self._wake.set()
                self._note()
            group.cancel_scope.cancel()
        if self._link is link:
            self._link = None

    def _note(self) -> None:
        self._more.set()
        self._more = anyio.Event()

    async def _write(self, link: Link, stream: FrameStream) -> None:
        while True:
            while (frame := link.cut()) is not None:
                await stream.send(frame)
            self._wake = anyio.Event()
            await self._wake.wait()

    def _hear(self, link: Link, item: Item) -> None:
        self.items.append(item)
        if isinstance(item, Hello):
            self.hellos.append(item)
            link.put(Welcome(JOURNAL, 1, len(self.hellos), 1, self.lease_s, 0.05, self.verdicts(item)))
        elif isinstance(item, Heartbeat) and self.heartbeats:
            link.put(HeartbeatAck(item.at))
        elif isinstance(item, Report):
            self.count += 1
            if self.acks:
                link.put(Ack((item.attempt,)))
        elif type(item).__name__ == "Call":
            link.put(Return(item.attempt, item.k, self.answer(item)))

    def send(self, *items: Item) -> None:
        assert self._link is not None, "no worker is connected"
        for item in items:
            assert self._link.put(item) is None
        self._wake.set()

    async def until(self, found: Callable[[], Any]) -> Any:
        with anyio.fail_after(20):
            while not (value := found()):
                more = self._more
                with anyio.move_on_after(0.05):
                    await more.wait()
            return value

    async def joined(self, count: int = 1) -> None:
        await self.until(lambda: len(self.hellos) >= count and self._link is not None and self._heard_beat(count))

    def _heard_beat(self, count: int) -> bool:
        hellos = 0
        for item in self.items:
            hellos += isinstance(item, Hello)
            if hellos >= count and isinstance(item, Heartbeat):
                return True
        return False

    async def report(self, number: int) -> Report:
        return await self.until(
            lambda: next((one for one in self.items if isinstance(one, Report) and one.attempt.task == number), None)
        )

    def logs(self, number: int) -> list[str]:
        return [
            item.body.decode()
            for item in self.items
            if isinstance(item, Progress) and item.kind == "log" and item.attempt.task == number
        ]

    def holds_nothing(self) -> bool:
        """Whether the last heartbeat says that the worker holds no attempt and owes no report."""
        beat = next((item for item in reversed(self.items) if isinstance(item, Heartbeat)), None)
        return beat is not None and not beat.inventory

    async def invoke(self, who: Principal, method: str, body: bytes) -> bytes:
        raise UsageError(f"no {method} here")

    def watch(self, who: Principal, method: str, body: bytes) -> AsyncIterator[bytes]:
        raise UsageError(f"no {method} here")

    async def submit(self, who: Principal, header: bytes, chunks: AsyncIterator[bytes]) -> bytes:
        raise UsageError("no submit here")

    async def put(self, who: Principal, digest: str, media: str, offset: int, chunks: AsyncIterator[bytes]) -> int:
        data = b"".join([chunk async for chunk in chunks])
        assert digest_of(data) == digest
        self.store[digest] = data
        return -1

    async def has(self, who: Principal, digest: str) -> int:
        return -1 if digest in self.store else 0

    async def get(self, who: Principal, digest: str, offset: int) -> AsyncIterator[bytes]:
        if digest not in self.store:
            raise NotFound(digest)
        yield self.store[digest][offset:]

    async def put_many(self, who: Principal, bundles: AsyncIterator[tuple[Content, ...]]) -> dict[str, AsterismError]:
        async for contents in bundles:
            self.bundles += 1
            assert all(digest_of(one.data) == one.digest for one in contents)
            self.store.update((one.digest, one.data) for one in contents)
        return {}

    async def has_many(self, who: Principal, digests: Sequence[str]) -> list[int]:
        return [await self.has(who, digest) for digest in digests]

    async def get_many(self, who: Principal, digests: Sequence[str]) -> AsyncIterator[tuple[Content, ...]]:
        here = [Content(one, "", self.store[one]) for one in digests if one in self.store]
        for contents in split(one for one in here if len(one.data) <= SMALL_BYTES):
            self.bundles += 1
            yield contents


def assign(
    number: int,
    skill: str,
    args: dict[str, Any] | None = None,
    *,
    effect: str = "pure",
    timeout_s: float = 30.0,
    inputs: tuple[Input, ...] = (),
    items: tuple[tuple[Input, ...], ...] = (),
    cpu: float = 0.25,
    **more: Any,
) -> Assign:
    spec = WorkSpec(
        skill, "", msgspec.Raw(msgspec.json.encode(args or {})), effect=effect, timeout_s=timeout_s, cpu=cpu
    )
    attempt = AttemptId(1, number, 1)
    key = f"key-{number}"
    return Assign(
        attempt, Fence(1, number), b"pin", msgspec.json.encode(spec), f"r1/t{number}#1", inputs, items,
        idempotency_key=key, **more,
    )  # fmt: skip


class Daemon:
    """A real `asterism worker start` process."""

    def __init__(self, home: Path, port: int, *flags: str, name: str = "pi-1") -> None:
        environment = {**os.environ, "ASTERISM_HOME": str(home), "GRPC_ENABLE_FORK_SUPPORT": "0"}
        code = "from workers.cli import worker; worker(standalone_mode=False)"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "start", "--join", "-", "--name", name, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=(home / "daemon.err").open("ab"),
            env=environment,
            start_new_session=True,
        )
        identity = {"address": f"127.0.0.1:{port}", "name": name, "secret": SECRET, "worker": 1}
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(identity) + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.close()

    async def exit_status(self) -> int:
        return int(await anyio.to_thread.run_sync(self.process.wait, 20))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


@asynccontextmanager
async def scene(tmp_path: Path, server: ScriptedServer, *flags: str) -> AsyncIterator[tuple[ScriptedServer, Daemon]]:
    """A server and a daemon that has joined it."""
    await server.start()
    daemon = Daemon(tmp_path, server.port, *flags)
    try:
        await server.joined()
        yield server, daemon
    finally:
        await anyio.to_thread.run_sync(daemon.close)
        await server.stop()


def said(server: ScriptedServer, kind: type) -> bool:
    return any(isinstance(item, kind) for item in server.items)
