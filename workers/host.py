"""A skill host: the process in which user code runs. Forked by the launcher, ended by the end of its pipe.

One per slot for sync skills (one attempt at a time, on the main thread), one shared with its own loop for async ones.
Invariant: nothing here outlives the daemon's end of the pipe. It knows no link, no outbox and no gRPC.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from protocol.builtin import BY_NAME
from protocol.errors import AsterismError, NotFound, UsageError, from_wire
from protocol.ids import AttemptId
from protocol.outcome import Outcome, Stopped, Usage

from .context import AsyncSkillContext, Situation, SkillContext, answered
from .model import Model
from .pipe import (
    TO_HOST,
    Answered,
    Asking,
    Begin,
    Described,
    Fetch,
    Fetched,
    Finished,
    Line,
    Loaded,
    Noted,
    Setup,
    Stop,
    Unpacker,
    pack,
    receive,
)
from .registry import Registry
from .root import Roots
from .runner.batch import Batches
from .runner.failure import failure_of
from .runner.job import SPEC, Desk, outcome_of, prepare
from .runner.python import AsyncPythonRunner, PythonRunner


class Cancelled(BaseException):
    """Raised in the skill's own thread by SIGTERM, so that its `finally` blocks run before the SIGKILL."""


def serve(pipe: int) -> int:
    """The life of a host: load, then run attempts until the pipe ends. Returns the exit status."""
    sys.stdout, sys.stderr = _text(1), _text(2)
    with socket.socket(fileno=pipe) as sock:
        setup = receive(sock, TO_HOST)
        if not isinstance(setup, Setup):
            return 0
        registry = Registry()
        try:
            sources = {entry.spec.name: source for source in setup.skills for entry in registry.load(source)}
            loaded = Loaded(tuple(_describe(registry, sources)) if not setup.shared else ())
        except AsterismError as error:
            loaded = Loaded((), msgspec.json.encode(error.to_wire()))
        sock.sendall(pack(loaded))
        if loaded.error:
            return 0
        roots = Roots(setup.worker, setup.roots, setup.home)
        model = Model(setup.access, setup.known) if setup.access is not None else None
        if setup.shared:
            anyio.run(SharedHost(sock, registry, roots, model).run)
        else:
            SlotHost(sock, registry, roots, model).run()
        return 0


def _text(descriptor: int) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="replace", line_buffering=True)


def _describe(registry: Registry, sources: Mapping[str, str]) -> Iterator[Described]:
    """Imports no built-in family: those are known as data, and run in slots even where they are async."""
    for spec in registry.specs():
        entry = registry.get(spec.name) if spec.name not in BY_NAME else None
        shared = entry is not None and (entry.is_async or spec.batch > 0)
        yield Described(spec, shared, sources.get(spec.name, ""))


class _Host:
    """What both kinds share: the registry, the roots, and a lock on the pipe's sending side."""

    def __init__(self, sock: socket.socket, registry: Registry, roots: Roots, model: Model | None = None) -> None:
        self._sock = sock
        self._registry = registry
        self._roots = roots
        self._model = model
        self._sending = threading.Lock()

    def _send(self, message: Any) -> None:
        data = pack(message)
        with self._sending, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(data)

    def note(self, attempt: AttemptId, body: bytes) -> None:
        self._send(Noted(attempt, body))

    def log(self, attempt: AttemptId, text: str) -> None:
        for line in text.splitlines():
            self._send(Line(attempt, "log", line))

    def _entry(self, name: str) -> Any:
        entry = self._registry.get(name)
        if entry is None:
            raise NotFound(f"this host has no skill {name}")
        return entry

    def _finish(self, begin: Begin, outcome: Outcome, meter: _Meter, desk: Desk | None, spill: str = "") -> None:
        issued = tuple(desk.issued) if desk is not None else ()
        self._send(Finished(begin.assign.attempt, outcome, meter.usage(), spill, issued))


class _Meter:
    """What an attempt took, from now on."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._at = time.monotonic()
        self._cpu = _cpu_s()
        self._tokens_in = self._tokens_out = 0
        self._price = 0.0
        self.took_s: float | None = None
        """Of the call it shared with others, where it did."""

    def pay(self, tokens_in: int, tokens_out: int, price: float) -> None:
        self._tokens_in += tokens_in
        self._tokens_out += tokens_out
        self._price += price

    def usage(self) -> Usage:
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        unit = 1 if sys.platform == "darwin" else 1024
        return Usage(
            time.monotonic() - self._at if self.took_s is None else self.took_s,
            self._device,
            max(0.0, _cpu_s() - self._cpu),
            peak * unit,
            self._tokens_in,
            self._tokens_out,
            self._price,
        )


def _cpu_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class SlotHost(_Host):
    """Runs sync skills one at a time on the main thread; a second thread only reads the pipe."""

    def __init__(self, sock: socket.socket, registry: Registry, roots: Roots, model: Model | None = None) -> None:
        super().__init__(sock, registry, roots, model)
        self._inbox: queue.SimpleQueue[Begin] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answered | Fetched] = queue.SimpleQueue()
        self._runner = PythonRunner()
        self._async_runner = AsyncPythonRunner()
        self._inside = False
        self._cancelled = False

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._terminate)
        threading.Thread(target=self._read, name="pipe", daemon=True).start()
        while not self._cancelled:
            self._attempt(self._inbox.get())

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while (message := receive(self._sock, TO_HOST)) is not None:
                if isinstance(message, Begin):
                    self._inbox.put(message)
                elif isinstance(message, Stop):  # where no signal reaches: in namespaces of our own
                    os.kill(os.getpid(), signal.SIGTERM)
                elif isinstance(message, Answered | Fetched):
                    self._answers.put(message)
        os.killpg(os.getpgid(0), signal.SIGKILL)  # the daemon is gone: so is everything it started

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._cancelled = True
        if self._inside:
            self._inside = False
            raise Cancelled
        os._exit(128 + number)

    def _attempt(self, begin: Begin) -> None:
        assign = begin.assign
        meter = _Meter("cpu")
        desk: Desk | None = None
        spill = ""
        outcome: Outcome
        try:
            self._inside = True
            os.environ.update(begin.environment)
            work = SPEC.decode(assign.spec)
            meter = _Meter(work.device)
            entry = self._entry(work.skill)

            def locate(digest: str) -> str:
                return begin.paths.get(digest) or self.fetch(assign.attempt, digest)

            job = prepare(entry, assign, work, locate, begin.secrets)
            desk = Desk(assign, self._roots, begin.folder, locate)
            until = time.monotonic() + work.timeout_s
            situation = Situation(
                assign,
                work.device,
                begin.folder,
                begin.run_folder,
                self._roots,
                until,
                desk.uri,
                self._is_cancelled,
                tuple(begin.secrets.values()),
                meter.pay,
                (work.tokens, work.price),
                self._model,
            )
            if entry.is_async:
                value = anyio.run(self._async_runner.run, job, AsyncSkillContext(self, situation), desk)
            else:
                value = self._runner.run(job, SkillContext(self, situation), desk)
            outcome, spill = outcome_of(value, begin.folder)
        except Cancelled:
            outcome = Stopped("cancelled")
        except BaseException as error:  # noqa: BLE001 - whatever a skill raises ends its attempt, never its host
            outcome = failure_of(error)
        self._inside = False
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        self._finish(begin, outcome, meter, desk, spill)

    def _is_cancelled(self) -> bool:
        return self._cancelled

    def ask(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        self._send(Asking(attempt, k, what, body))
        while True:
            answer = self._answers.get()
            if isinstance(answer, Answered) and answer.attempt == attempt and answer.k == k:
                return answered(answer.value, answer.error)

    async def ask_async(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        return await anyio.to_thread.run_sync(self.ask, attempt, k, what, body)

    def fetch(self, attempt: AttemptId, digest: str) -> str:
        self._send(Fetch(attempt, digest))
        while True:
            answer = self._answers.get()
            if isinstance(answer, Fetched) and answer.attempt == attempt and answer.digest == digest:
                return _fetched(answer)

    async def fetch_async(self, attempt: AttemptId, digest: str) -> str:
        return await anyio.to_thread.run_sync(self.fetch, attempt, digest)


_running: Final[contextvars.ContextVar[AttemptId | None]] = contextvars.ContextVar("attempt", default=None)


class SharedHost(_Host):
    """Runs all async skills of the worker on one loop. One that does not end in time takes the host with it."""

    def __init__(self, sock: socket.socket, registry: Registry, roots: Roots, model: Model | None = None) -> None:
        super().__init__(sock, registry, roots, model)
        self._scopes: dict[AttemptId, anyio.CancelScope] = {}
        self._waiting: dict[tuple[AttemptId, int | str], tuple[anyio.Event, list[Answered | Fetched]]] = {}
        self._runner = AsyncPythonRunner()
        self._batches: Batches

    async def run(self) -> None:
        sys.stdout = _Tap(self, "stdout", sys.stdout)
        sys.stderr = _Tap(self, "stderr", sys.stderr)
        unpacker = Unpacker(TO_HOST)
        async with anyio.create_task_group() as group:
            self._batches = Batches(group, _running.set)
            while True:
                await anyio.wait_readable(self._sock)
                data = self._sock.recv(1 << 18)
                if not data:
                    os.killpg(os.getpgid(0), signal.SIGKILL)
                for message in unpacker.feed(data):
                    if isinstance(message, Begin):
                        self._scopes[message.assign.attempt] = anyio.CancelScope()
                        group.start_soon(self._attempt, message)
                    elif isinstance(message, Stop) and message.attempt in self._scopes:
                        self._scopes[message.attempt].cancel()
                    elif isinstance(message, Answered | Fetched):
                        key = message.k if isinstance(message, Answered) else message.digest
                        event, box = self._waiting.pop((message.attempt, key), (None, []))
                        if event is not None:
                            box.append(message)
                            event.set()

    async def _attempt(self, begin: Begin) -> None:
        assign = begin.assign
        attempt = assign.attempt
        _running.set(attempt)
        meter = _Meter("cpu")
        desk: Desk | None = None
        spill = ""
        outcome: Outcome = Stopped("cancelled")
        scope = self._scopes[attempt]
        try:
            with scope:
                work = SPEC.decode(assign.spec)
                meter = _Meter(work.device)
                paths = dict(begin.paths)
                for digest in _digests_in(assign.spec):
                    if digest not in paths:
                        paths[digest] = await self.fetch_async(attempt, digest)
                entry = self._entry(work.skill)
                job = prepare(entry, assign, work, lambda digest: _held(paths, digest), begin.secrets)
                desk = Desk(assign, self._roots, begin.folder, lambda digest: _held(paths, digest))
                until = time.monotonic() + work.timeout_s
                situation = Situation(
                    assign,
                    work.device,
                    begin.folder,
                    begin.run_folder,
                    self._roots,
                    until,
                    desk.uri,
                    lambda: scope.cancel_called,
                    tuple(begin.secrets.values()),
                    meter.pay,
                    (work.tokens, work.price),
                    self._model,
                )
                if entry.spec.batch:
                    value, meter.took_s = await self._batches.run(job, desk)
                else:
                    value = await self._runner.run(job, AsyncSkillContext(self, situation), desk)
                outcome, spill = outcome_of(value, begin.folder)
        except Exception as error:  # noqa: BLE001 - whatever a skill raises ends its attempt, never its host
            outcome = failure_of(error)
        del self._scopes[attempt]
        self._finish(begin, outcome, meter, desk, spill)

    def ask(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        raise UsageError("await it: an async def skill takes an AsyncSkillContext")

    async def ask_async(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        answer = await self._round_trip((attempt, k), Asking(attempt, k, what, body))
        assert isinstance(answer, Answered)
        return answered(answer.value, answer.error)

    def fetch(self, attempt: AttemptId, digest: str) -> str:
        raise UsageError("await it: an async def skill takes an AsyncSkillContext")

    async def fetch_async(self, attempt: AttemptId, digest: str) -> str:
        answer = await self._round_trip((attempt, digest), Fetch(attempt, digest))
        assert isinstance(answer, Fetched)
        return _fetched(answer)

    async def _round_trip(self, key: tuple[AttemptId, int | str], message: Asking | Fetch) -> Answered | Fetched:
        event = anyio.Event()
        box: list[Answered | Fetched] = []
        self._waiting[key] = (event, box)
        self._send(message)
        try:
            await event.wait()
        finally:
            self._waiting.pop(key, None)
        return box[0]


class _Tap(io.TextIOBase):
    """Stands for stdout or stderr in the shared host: each line goes to the log of the attempt that printed it."""

    def __init__(self, host: SharedHost, stream: str, real: Any) -> None:
        self._host = host
        self._stream = stream
        self._real = real
        self._partial: dict[AttemptId, str] = {}

    def write(self, text: str) -> int:
        attempt = _running.get()
        if attempt is None:
            return int(self._real.write(text))
        *whole, rest = (self._partial.pop(attempt, "") + text).split("\n")
        for line in whole:
            self._host._send(Line(attempt, self._stream, line))
        if rest:
            self._partial[attempt] = rest
        return len(text)

    def writable(self) -> bool:
        return True


def _fetched(answer: Fetched) -> str:
    if answer.code:
        raise from_wire({"code": answer.code, "message": answer.message})
    return answer.path


def _held(paths: dict[str, str], digest: str) -> str:
    found = paths.get(digest)
    if found is None:
        raise NotFound(f"{digest[:19]} is not here", hint="pass the file itself to an async skill, not inside a value")
    return found


def _digests_in(spec: bytes) -> list[str]:
    """Digests written literally into the arguments of the plan."""
    text = spec.decode("utf-8", "replace")
    found = []
    at = text.find('"sha256:')
    while at >= 0:
        found.append(text[at + 1 : at + 72])
        at = text.find('"sha256:', at + 1)
    return found


if __name__ == "__main__":  # exec'ed, not forked: at level bubblewrap
    sys.path.append(sys.argv[2])  # last: skills are found by module name, and hide nothing of ours
    sys.exit(serve(int(sys.argv[1])))
