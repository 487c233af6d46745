"""The daemon's hosts: started through the launcher, kept warm, given attempts, stopped, buried.

Invariant: an attempt is reported as ended only when its host is idle again or its whole process group is gone. User
code runs on the far side of these pipes, never here. It knows no link and no machine: it talks to a `Sink`.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import Final, Protocol

import anyio
import anyio.abc
import msgspec

from protocol.errors import AsterismError, Unavailable, WireError, from_wire
from protocol.ids import AttemptId
from protocol.json_bytes import read_json
from protocol.outcome import Failure, Outcome, Usage
from protocol.skill import Level, SkillSpec

from .custody import Custody
from .host_end import HostEnd
from .pipe import (
    FROM_LAUNCHER,
    Answered,
    Asking,
    Begin,
    Described,
    Exited,
    Fetch,
    Fetched,
    Finished,
    FromHost,
    Launch,
    Line,
    Loaded,
    Noted,
    Setup,
    Signal,
    Stop,
    ToHost,
    Tried,
    Unpacker,
    pack,
)
from .spawned import Spawned
from .statement import examine

LINE_BYTES: Final = 8 * 1024
START_GRACE_S: Final = 60.0


class Sink(Protocol):
    """Where a pool reports to."""

    def ended(
        self, attempt: AttemptId, outcome: Outcome, usage: Usage, spill: str, issued: tuple[str, ...]
    ) -> None: ...
    def asked(self, attempt: AttemptId, k: int, what: str, body: bytes) -> None: ...
    def noted(self, attempt: AttemptId, body: bytes) -> None: ...
    def logged(self, attempt: AttemptId, stream: str, text: str) -> None: ...
    async def located(self, attempt: AttemptId, digest: str) -> str: ...


class Pool:
    """All hosts of one daemon. `run` is its one owner; the other methods only queue what it does."""

    def __init__(
        self, spawned: Spawned, setup: Setup, sink: Sink, slots: int, custody: Custody, memory_bytes: int = 0
    ) -> None:
        self._spawned = spawned
        self._setup = setup
        self._sink = sink
        self._slots = slots
        self._rules = custody.rules
        self._redactor = custody.redactor
        self._memory = memory_bytes
        self._access = custody.access
        self.known: tuple[SkillSpec, ...] = ()
        """The skills that an agent of this worker may use."""
        self.held: frozenset[Level] = frozenset()
        """The sandbox levels that hold here, known once `describe` has returned."""
        self._hosts: dict[int, HostEnd] = {}
        self._of: dict[AttemptId, HostEnd] = {}
        self._numbers = 0
        self._group: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; then everything it started is killed."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                task_status.started()
                while True:
                    await self._listen()
                    dead, self._spawned = (
                        self._spawned,
                        Spawned(self._spawned.tag),
                    )  # the launcher died, and its hosts with it
                    dead.close()
                    for host in list(self._hosts.values()):
                        self._bury(host, -signal.SIGKILL)
        finally:
            self._group = None
            self._hosts.clear()
            self._spawned.close()

    async def describe(self, cell: tuple[str, ...] = (), source: str = "") -> tuple[Described, ...]:
        """What the skills are, as a fresh host has loaded them. Raises: the error of the loading.

        With `cell` a host of its own loads `source` alone, and is gone afterwards.
        """
        host = self._launch(cell=cell, source=source)
        with anyio.fail_after(START_GRACE_S):
            await host.loaded.wait()
        if cell:
            self._control(Signal(host.number, signal.SIGKILL))
            await host.gone.wait()
        if host.error is not None:
            raise host.error
        self._rules.check(self.held)
        return host.skills

    def begin(
        self, begin: Begin, *, is_async: bool, keyed: bool = False, cell: tuple[str, ...] = (), source: str = ""
    ) -> None:
        """Give the attempt to a host; the sink hears of its end.

        `cell` is the command line of a host for this attempt alone, which loads only `source`. `keyed`: a host that
        is given the access to the worker's model, and loads nobody's code.
        """
        if cell:
            host: HostEnd | None = self._launch(cell=cell, source=source, keyed=keyed)
        else:
            host = self._shared(keyed) if is_async else self._idle(begin.environment)
        if host is None:
            host = self._launch(shared=is_async, keyed=keyed)
        if begin.environment:
            host.environment = begin.environment
        attempt = begin.assign.attempt
        host.attempts[attempt] = None
        host.since[attempt] = time.monotonic()
        self._of[attempt] = host
        self._post(host, begin)

    def _shared(self, keyed: bool) -> HostEnd | None:
        shared = (host for host in self._hosts.values() if host.shared and not host.stopping)
        return next((host for host in shared if host.keyed == keyed), None)

    def _idle(self, environment: dict[str, str]) -> HostEnd | None:
        """A warm host. One that has used certain cards keeps them: libraries look at the environment only once."""
        idle = [host for host in self._hosts.values() if host.idle]
        same = next((host for host in idle if host.environment == environment), None)
        if same is None and environment:
            same = next((host for host in idle if not host.environment), None)
            if same is not None and len(self._own()) < 2 * self._slots:
                self._launch()  # what needs no card finds as many warm ones as before
        if same is None and len(idle) >= self._slots:
            self._control(Signal(idle[0].number, signal.SIGTERM))
            idle[0].stopping = True
        return same

    def answer(self, attempt: AttemptId, k: int, value: bytes, error: bytes) -> None:
        host = self._of.get(attempt)
        if host is not None:
            self._post(host, Answered(attempt, k, value, error))

    def stop(self, attempt: AttemptId, grace_s: float) -> bool:
        """End the attempt, its process group if need be. False if no host has it."""
        host = self._of.get(attempt)
        if host is None or self._group is None:
            return False
        if host.single and not host.stopping and grace_s > 0:
            host.stopping = True
            self._post(host, Stop(attempt))
            self._group.start_soon(self._kill_later, host, grace_s)
        elif host.shared and not host.stopping:
            self._post(host, Stop(attempt))
            self._group.start_soon(self._stop_later, host, attempt, grace_s)
        elif not host.shared:
            if not host.stopping:
                host.stopping = True
                self._group.start_soon(self._kill_later, host, grace_s)
            soft = grace_s > 0 and not host.single
            self._control(Signal(host.number, signal.SIGTERM if soft else signal.SIGKILL))
        return True

    async def _stop_later(self, host: HostEnd, attempt: AttemptId, grace_s: float) -> None:
        with anyio.move_on_after(grace_s):
            if attempt in host.attempts:
                await host.ended.setdefault(attempt, anyio.Event()).wait()
        if attempt in host.attempts and not host.gone.is_set():
            host.stopping = True
            self._control(Signal(host.number, signal.SIGKILL))

    async def _kill_later(self, host: HostEnd, grace_s: float) -> None:
        with anyio.move_on_after(grace_s):
            await host.gone.wait()
        if not host.gone.is_set():
            self._control(Signal(host.number, signal.SIGKILL))

    def pids_alive(self) -> int:
        """How many hosts there are, for `worker probe` and tests."""
        return len(self._hosts)

    # Launching and burying

    def _launch(
        self, *, shared: bool = False, cell: tuple[str, ...] = (), source: str = "", keyed: bool = False
    ) -> HostEnd:
        if self._group is None:
            raise Unavailable("this worker is ending")
        self._numbers += 1
        host = HostEnd(self._numbers, shared, bool(cell), keyed)
        self._hosts[host.number] = host
        level = "bubblewrap" if cell else self._rules.plain
        message = pack(Launch(host.number, self._memory, level, cell))
        try:
            socket.send_fds(self._spawned.control, [message], [host.theirs.fileno(), *host.their_pipes])
        except OSError as error:
            del self._hosts[host.number]
            host.close()
            raise Unavailable(f"no host can be started: {error.strerror}") from None
        finally:
            host.theirs.close()
            for descriptor in host.their_pipes:
                os.close(descriptor)
        skills = self._setup.skills if not (cell or keyed) else (source,) if source else ()
        setup = msgspec.structs.replace(self._setup, shared=shared, skills=skills)
        if keyed:
            setup = msgspec.structs.replace(setup, access=self._access, known=self.known)
        self._post(host, setup)
        self._group.start_soon(self._serve, host)
        return host

    def _control(self, message: Signal) -> None:
        try:
            self._spawned.control.send(pack(message))
        except (BrokenPipeError, ConnectionResetError):
            return  # the launcher is gone, and with it every host

    async def _listen(self) -> None:
        """What the launcher says; returns when it is dead."""
        control, unpacker = self._spawned.control, Unpacker(FROM_LAUNCHER)
        while True:
            await anyio.wait_readable(control)
            try:
                data = control.recv(65536)
            except ConnectionResetError:
                return
            if not data:
                return
            for message in unpacker.feed(data):
                if isinstance(message, Tried):
                    self.held = message.found.held
                elif isinstance(message, Exited) and message.host in self._hosts:
                    self._bury(self._hosts[message.host], message.status)

    def _bury(self, host: HostEnd, status: int) -> None:
        """The host is known to be gone: read what it left, end its attempts, put a fresh one in its place."""
        self._hosts.pop(host.number, None)
        self._read(host)
        for stream in host.pipes:
            self._drain(host, stream)
            self._line(host, host.only, stream, host.partial[stream])
            host.partial[stream] = b""
        if not host.loaded.is_set():
            story = "\n".join(host.tail)
            host.error = Unavailable(f"a skill host ended before it was ready (status {status}): {story}")
            host.loaded.set()
        host.gone.set()
        host.scope.cancel()
        for attempt, finished in list(host.attempts.items()):
            if finished is not None:
                self._end(host, finished)
            else:
                innocent = host.shared and host.stopping
                how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit {status}"
                failure = Failure(
                    "HostDied",
                    f"the process of the skill ended with {how}",
                    "infra" if innocent else "transient",
                    "\n".join(host.tail),
                )
                self._end(host, Finished(attempt, failure, Usage(time.monotonic() - host.since[attempt])))
        if self._group is not None and host.loaded.is_set() and host.error is None and self._missed(host):
            self._launch()

    def _missed(self, gone: HostEnd) -> bool:
        """Whether a fresh one takes its place: a map that comes next finds as many warm ones as before."""
        if gone.single or gone.shared or gone.environment:
            return not (gone.single or any(one.idle for one in self._hosts.values())) and len(self._own()) < self._slots
        return sum(not one.environment for one in self._own()) < self._slots

    def _own(self) -> list[HostEnd]:
        """Hosts that take any attempt, one at a time."""
        return [one for one in self._hosts.values() if not (one.shared or one.single)]

    # Traffic

    def _post(self, host: HostEnd, message: ToHost) -> None:
        host.outgoing.append(pack(message))
        if len(host.outgoing) == 1:
            self._write(host)
        host.wake.set()

    def _write(self, host: HostEnd) -> bool:
        """Send what the pipe takes now. True when nothing is left."""
        while host.outgoing:
            data = host.outgoing[0]
            try:
                sent = host.sock.send(data)
            except BlockingIOError:
                return False
            except OSError:
                host.outgoing.clear()  # the host is dying: Exited says the rest
                return True
            if sent == len(data):
                host.outgoing.popleft()
            else:
                host.outgoing[0] = data[sent:]
        return True

    async def _serve(self, host: HostEnd) -> None:
        try:
            with host.scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._flush, host)
                    for stream in host.pipes:
                        group.start_soon(self._follow, host, stream)
                    await anyio.wait_readable(host.sock)
                    while self._read(host):
                        await anyio.wait_readable(host.sock)
                    await host.gone.wait()
        finally:
            host.close()  # only now: nobody waits for these descriptors any more

    async def _flush(self, host: HostEnd) -> None:
        while True:
            if not self._write(host):
                await anyio.wait_writable(host.sock)
                continue
            host.wake = anyio.Event()
            await host.wake.wait()

    async def _follow(self, host: HostEnd, stream: str) -> None:
        await anyio.wait_readable(host.pipes[stream])
        while self._drain(host, stream):
            await anyio.wait_readable(host.pipes[stream])

    def _read(self, host: HostEnd) -> bool:
        """Handle what the host has said so far. False at the end of its pipe."""
        while True:
            try:
                data = host.sock.recv(1 << 18)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            try:
                for message in host.unpacker.feed(data):
                    examine(message)
                    self._heard(host, message)
            except WireError:
                self._control(Signal(host.number, signal.SIGKILL))  # half a message, or a skill wrote on our pipe
                return False

    def _heard(self, host: HostEnd, message: FromHost) -> None:
        if not isinstance(message, Loaded) and message.attempt not in host.attempts:
            return  # a host speaks of its own attempts only
        match message:
            case Finished():
                for stream in host.pipes:
                    self._drain(host, stream)
                if host.stopping or host.single:
                    host.attempts[message.attempt] = message  # said only once the process is gone
                    if host.single:
                        self._control(Signal(host.number, signal.SIGKILL))
                else:
                    self._end(host, message)
            case Line(attempt, stream, text):
                self._sink.logged(attempt, stream, self._redactor.text(text)[:LINE_BYTES])
            case Noted(attempt, body):
                self._sink.noted(attempt, self._redactor.clean(body))
            case Asking(attempt, k, what, body):
                self._sink.asked(attempt, k, what, self._redactor.clean(body))
            case Fetch(attempt, digest):
                assert self._group is not None
                self._group.start_soon(self._locate, host, attempt, digest)
            case Loaded(skills, error):
                host.skills = skills
                host.error = from_wire(read_json(self._redactor.clean(error))) if error else None
                host.loaded.set()

    async def _locate(self, host: HostEnd, attempt: AttemptId, digest: str) -> None:
        try:
            self._post(host, Fetched(attempt, digest, await self._sink.located(attempt, digest)))
        except AsterismError as error:
            self._post(host, Fetched(attempt, digest, "", error.code, error.message))

    def _end(self, host: HostEnd, finished: Finished) -> None:
        if host.attempts.pop(finished.attempt, 0) == 0:
            return
        self._of.pop(finished.attempt, None)
        del host.since[finished.attempt]
        for stream, rest in host.partial.items():
            if rest and not host.shared:
                self._line(host, finished.attempt, stream, rest)
                host.partial[stream] = b""
        host.tail.clear()
        if (waiter := host.ended.pop(finished.attempt, None)) is not None:
            waiter.set()
        outcome = self._redactor.outcome(finished.outcome)
        self._sink.ended(finished.attempt, outcome, finished.usage, finished.spill, finished.issued)

    def _drain(self, host: HostEnd, stream: str) -> bool:
        """Read one of the host's outputs as far as it is. False when it has ended."""
        while True:
            try:
                data = os.read(host.pipes[stream], 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, rest = (host.partial[stream] + data).split(b"\n")
            host.partial[stream] = rest[-LINE_BYTES:]
            for line in lines:
                self._line(host, host.only, stream, line)

    def _line(self, host: HostEnd, attempt: AttemptId | None, stream: str, line: bytes) -> None:
        if not line:
            return
        text = self._redactor.text(line.decode("utf-8", "replace"))[:LINE_BYTES]
        if stream == "stderr":
            host.tail.append(text)
        if attempt is not None:
            self._sink.logged(attempt, stream, text)
