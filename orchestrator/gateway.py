"""The worker streams of an orchestrator: frames in become stimuli, commands out become frames.

Invariant: a worker, however slow, broken or hostile, can only lose its own stream. Nothing here blocks the engine:
`send` and `close` only queue, and a stream whose queue passes its bound is ended. A frame that makes no sense ends its
session with Bye and is counted. Between Hello and the end of a stream the core hears WorkerJoined once, WorkerSent in
order, WorkerGone once. It must not know what the items mean, nor anything of the core but its stimuli.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Final

import anyio
import anyio.abc
import msgspec

from orchestrator.core.stimulus import Stimulus, WorkerGone, WorkerJoined, WorkerSent
from protocol.bell import Bell
from protocol.errors import AsterismError, WireError
from protocol.frame import (
    PROTOCOL_VERSIONS,
    Ack,
    Assign,
    Bye,
    FromWorker,
    Hello,
    Progress,
    Rejected,
    Return,
    ToWorker,
)
from protocol.link import Fault, Link
from protocol.port import FrameStream

from .door import Door
from .pace import Pace

NEVER: Final = -1.0
"""`Bye.retry_after_s` of a worker that should not come back as it is."""

CLOSED: Final = Bye(reason="the orchestrator closed this stream", code="Closed")
OLD: Final = Bye(retry_after_s=0.1, reason="the stream has grown old", code="Old")
STOPPING: Final = Bye(retry_after_s=0.5, reason="the server stops", code="Stopping")


class GatewaySettings(msgspec.Struct, frozen=True):
    """Bounds of one stream. What waits beyond them belongs to a peer that doesn't read, or doesn't say that it has
    (`unconfirmed` frames with work); `bye_s` is how long a stream that is being ended may take to hear why, `hello_s`
    how long one may be open without a Hello. A worker has at most so many `streams` at a time, the newest counts."""

    queue_items: int = 16_384
    queue_bytes: int = 16 * 1024 * 1024
    ack_delay_s: float = 0.02
    unconfirmed: int = 16_384
    bye_s: float = 2.0
    retry_after_s: float = 1.0
    hello_s: float = 30.0
    streams: int = 4


class _Session:
    """One stream: its link, and what wakes and ends its tasks."""

    def __init__(self, conn: int, worker: int, name: str) -> None:
        self.conn = conn
        self.worker = worker
        self.name = name
        self.link = Link("orchestrator")
        self.joined = False
        self.clean = False
        self.news = Bell()
        self.acks = Bell()
        """Acknowledgements wait, and nothing else."""
        self.late = False
        """They have waited long enough."""
        self.ended = anyio.Event()
        self.scope = anyio.CancelScope()
        self.pace = Pace(anyio.current_time())


class Gateway:
    """Services.link of a server, and the streams' end of the engine.

    `post` takes stimuli and never blocks; `on_progress` gets (worker id, item) of the lossy lane; `refused` (source,
    code, message) hears of every session that ended for what its worker said.
    """

    def __init__(
        self,
        post: Callable[[Stimulus], None],
        on_progress: Callable[[int, Progress], None],
        settings: GatewaySettings | None = None,
        refused: Callable[[str, str, str], None] | None = None,
    ) -> None:
        self._post = post
        self._tell = refused or (lambda source, code, message: None)
        self._on_progress = on_progress
        self._settings = settings or GatewaySettings()
        self._sessions: dict[int, _Session] = {}
        self._streams: Counter[int] = Counter()
        self._door = Door()
        self._conns = 0
        self._closing: Bye | None = None
        self.counts: Counter[str] = Counter()
        """frames_in, frames_out, items_in, items_out; bad_frames, out_of_place, stale, missed, overflowed, too_large,
        unsendable, too_fast (items over their rate, dropped), postponed (streams that were told to come again)."""

    def send(self, conn: int, item: ToWorker) -> None:
        """Queue an item for a stream; it leaves with whatever else is queued in this turn of the loop. Never blocks.

        Nothing happens when the stream is gone. An Assign that no message can carry comes back as Rejected(TooLarge).
        """
        session = self._sessions.get(conn)
        if session is None:
            return
        fault = session.link.put(item)
        if fault is not None:
            self._refused(session, item, fault)
            return
        bounds, link = self._settings, session.link
        if link.queued > bounds.queue_items or link.queued_bytes > bounds.queue_bytes:
            self._overflowed(session, f"{link.queued} items wait: it doesn't read")
            return
        if link.unconfirmed > bounds.unconfirmed:
            self._overflowed(session, f"{link.unconfirmed} frames of work went out, and it confirms none")
            return
        (session.acks if type(item) is Ack and link.only_acks else session.news).ring()

    def _overflowed(self, session: _Session, why: str) -> None:
        self.counts["overflowed"] += 1
        self._tell(f"worker:{session.name}", "Overflowed", why)
        session.scope.cancel()

    def close(self, conn: int, bye: Bye = CLOSED) -> None:
        """End a stream once everything sent before has left; says Bye unless that was sent already."""
        session = self._sessions.get(conn)
        if session is not None:
            self._say_bye(session, bye)

    async def aclose(self, bye: Bye = STOPPING) -> None:
        """Say Bye on every stream, those to come included, and wait (bounded) until all have ended."""
        self._closing = bye
        for session in [*self._sessions.values()]:
            self._say_bye(session, bye)
        with anyio.move_on_after(self._settings.bye_s, shield=True):
            for session in [*self._sessions.values()]:
                await session.ended.wait()
        for session in [*self._sessions.values()]:
            session.scope.cancel()

    async def link(self, stream: FrameStream) -> None:
        """Serve one authenticated stream (`stream.peer`: worker, name) to its end."""
        self._conns += 1
        session = _Session(self._conns, int(stream.peer["worker"]), stream.peer["name"])
        self._sessions[session.conn] = session
        self._streams[session.worker] += 1
        session.scope.deadline = anyio.current_time() + self._settings.hello_s
        try:
            with session.scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._write, session, stream)
                    group.start_soon(self._remind, session)
                    group.start_soon(self._grow_old, session, float(stream.peer.get("lasts_s", "inf")))
                    if self._closing is not None:
                        self._say_bye(session, self._closing)
                    if await self._admit(session):
                        await self._read(session, stream)
                    if session.clean or not session.link.left:
                        session.scope.cancel()  # else a Bye is on its way, and the writer ends when it has left
        finally:
            del self._sessions[session.conn]
            self._streams[session.worker] -= 1
            if not self._streams[session.worker]:
                del self._streams[session.worker]
            if not (session.joined or session.link.left) and anyio.current_time() >= session.scope.deadline:
                self._tell(f"worker:{session.name}", "NoHello", "a stream without a Hello")
            session.ended.set()
            if session.joined:
                self._post(WorkerGone(session.conn, session.worker, session.clean))

    async def _grow_old(self, session: _Session, lasts_s: float) -> None:
        """A stream outlives its certificate: the worker opens another, and whatever was on its way is said again."""
        await anyio.sleep(lasts_s)
        self._say_bye(session, OLD)

    async def _admit(self, session: _Session) -> bool:
        """Whether its Hello is read, now that it is its turn; else it hears when to come again."""
        now = anyio.current_time()
        if (away_s := self._door.often(session.worker, now)) > 0:
            self._bye_for(session, "TooManyHellos", "this worker comes again and again", away_s + random.random())
            return False
        if self._streams[session.worker] > self._settings.streams:
            self._bye_for(session, "TooManyStreams", f"more than {self._settings.streams} streams of one worker")
            return False
        if (later_s := self._door.busy(random.random())) > 0:
            self.counts["postponed"] += 1
            self._say_bye(session, Bye(later_s, "many workers come at once", "Busy"))
            return False
        await self._door.enter()
        return True

    async def _read(self, session: _Session, stream: FrameStream) -> None:
        """Until the stream ends, the worker said Goodbye, or something made no sense (then a Bye is queued)."""
        while True:
            try:
                frame = await stream.receive()
            except WireError as error:
                self.counts["bad_frames"] += 1
                self._bye_for(session, error.code, error.message)
                return
            except AsterismError:
                return
            if frame is None:
                return
            self.counts["frames_in"] += 1
            taken = session.link.take(frame)
            if isinstance(taken, Fault):
                self.counts["out_of_place"] += 1
                self._bye_for(session, taken.code, taken.message)
                return
            if taken.stale:
                self.counts["stale"] += 1
                continue
            now = anyio.current_time()
            wait_s = session.pace.frame(now)
            self.counts["items_in"] += len(taken.items)
            self.counts["missed"] += taken.missed
            items: list[FromWorker] = []
            for item in taken.items:
                if not session.pace.admits(type(item), now):
                    self.counts["too_fast"] += 1
                elif type(item) is Progress:
                    self._on_progress(session.worker, item)
                elif type(item) is Hello:
                    if not self._join(session, item):
                        return
                else:
                    items.append(item)  # type: ignore[arg-type]
            if session.joined and (items or taken.delivered):
                self._post(WorkerSent(session.conn, session.worker, tuple(items), taken.delivered))
            if session.link.peer_left:
                session.clean = True
                return
            if wait_s:
                await anyio.sleep(wait_s)  # its sender waits with us: nothing more is read of it

    def _join(self, session: _Session, hello: Hello) -> bool:
        low, high = PROTOCOL_VERSIONS
        if hello.worker != session.name:
            reason = f"this credential belongs to {session.name}, not to {hello.worker}"
            self._bye_for(session, "NotAllowed", reason, NEVER)
        elif hello.versions[0] > high or hello.versions[1] < low:
            reason = (
                f"the worker speaks versions {hello.versions[0]} to {hello.versions[1]}, this server {low} to {high}"
            )
            self._bye_for(session, "VersionMismatch", reason, NEVER)
        elif not session.link.left:
            session.joined = True
            session.scope.deadline = inf
            session.link.edge = hello.profile.edge
            self._post(WorkerJoined(session.conn, session.worker, hello))
            return True
        return False

    async def _write(self, session: _Session, stream: FrameStream) -> None:
        """The stream's one writer: everything that is ready goes in one frame, and nothing waits for time.

        Except acknowledgements, for which nobody waits: they go with the next frame, or after `ack_delay_s` alone. A
        message costs about 100 us on each side whatever is in it, and a chain of tasks would pay for one more a hop.
        """
        link = session.link
        while True:
            frame = link.cut() if session.late or link.left or not link.only_acks else None
            if frame is not None:
                self.counts["frames_out"] += 1
                self.counts["items_out"] += len(frame.items)
                try:
                    await stream.send(frame)
                except WireError:  # an item of the core's that no wire can carry: the peer can't be in step any more
                    self.counts["unsendable"] += 1
                    break
            elif link.left:
                break
            else:
                session.late = False
                session.news.still()
                await session.news.wait()
        session.scope.cancel()

    async def _remind(self, session: _Session) -> None:
        """Wake the writer for acknowledgements that nothing has come along to take: once a delay, not once for each."""
        while True:
            await session.acks.wait()
            await anyio.sleep(self._settings.ack_delay_s)
            session.acks.still()
            session.late = True
            session.news.ring()

    def _say_bye(self, session: _Session, bye: Bye) -> None:
        """Queue the last word; the stream ends when it has left, or `bye_s` from now."""
        session.link.put(bye)  # out of place only where it was said before
        session.scope.deadline = min(session.scope.deadline, anyio.current_time() + self._settings.bye_s)
        session.news.ring()

    def _bye_for(self, session: _Session, code: str, reason: str, retry_after_s: float | None = None) -> None:
        """It said something that ends its session; it hears why, and so do people."""
        self._tell(f"worker:{session.name}", code, reason)
        retry_after_s = self._settings.retry_after_s if retry_after_s is None else retry_after_s
        self._say_bye(session, Bye(retry_after_s, reason[:1000], code))

    def _refused(self, session: _Session, item: ToWorker, fault: Fault) -> None:
        if fault.code != "TooLarge":
            self.counts["out_of_place"] += 1
            return
        self.counts["too_large"] += 1
        if isinstance(item, Assign):
            rejected = Rejected(item.attempt, "TooLarge", fault.message)
            self._post(WorkerSent(session.conn, session.worker, (rejected,)))
        elif isinstance(item, Return):
            error = AsterismError(f"the answer can't travel: {fault.message}", hint="return less, or a file")
            self.send(session.conn, Return(item.attempt, item.k, error=msgspec.json.encode(error.to_wire())))
