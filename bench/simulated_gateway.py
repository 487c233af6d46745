"""The orchestrator's end of all simulated streams: the rules of `orchestrator.gateway` over the real link table.

Between Hello and the end of a stream the core hears WorkerJoined once, WorkerSent in order, WorkerGone once; what the
core sends leaves in the same turn, acknowledgements alone a moment later. One per life of the orchestrator: it dies
with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from orchestrator.core.stimulus import Stimulus, WorkerGone, WorkerJoined, WorkerSent
from orchestrator.gateway import CLOSED, NEVER, GatewaySettings
from protocol.frame import Bye, Frame, FromWorker, Hello, Progress, ToWorker
from protocol.link import Fault

from .simulated_network import SimulatedNetwork, SimulatedStream

_SETTINGS: Final = GatewaySettings()
LINGER_S: Final = _SETTINGS.bye_s


class _Session:
    """What the gateway remembers of a stream."""

    def __init__(self, stream: SimulatedStream, worker: int, name: str) -> None:
        self.stream = stream
        self.worker = worker
        self.name = name
        self.joined = False
        self.clean = False
        self.writing = False
        self.patient = False


class SimulatedGateway:
    """`handle` takes stimuli; `at` does something later in this life only; `linger`: how long a
    stream that is being ended stays."""

    def __init__(
        self,
        network: SimulatedNetwork,
        handle: Callable[[Stimulus], None],
        at: Callable[[float, Callable[[], None]], None],
        now: Callable[[], float],
        linger: Callable[[], float],
    ) -> None:
        self._network = network
        self._handle = handle
        self._at = at
        self._now = now
        self._linger = linger
        self._sessions: dict[int, _Session] = {}

    def accept(self, stream: SimulatedStream, worker: int, name: str) -> None:
        """A stream that was opened, authenticated as this worker's."""
        self._sessions[stream.conn] = _Session(stream, worker, name)

    def send(self, conn: int, item: ToWorker) -> None:
        """As Gateway.send. What the link does not take is dropped, as there."""
        session = self._sessions.get(conn)
        if session is not None and session.stream.server.put(item) is None:
            self._wake(session)

    def close(self, conn: int) -> None:
        """As Gateway.close."""
        session = self._sessions.get(conn)
        if session is not None:
            self._bye(session, CLOSED)

    def die(self) -> None:
        """The process is gone: every stream's end with it."""
        for session in self._sessions.values():
            self._network.close(session.stream, True)
        self._sessions.clear()

    # network.Wire

    def heard(self, stream: SimulatedStream, frame: Frame) -> None:
        session = self._sessions.get(stream.conn)
        if session is None or session.clean:
            return
        taken = stream.server.take(frame)
        if isinstance(taken, Fault):
            self._bye(session, Bye(_SETTINGS.retry_after_s, taken.message, taken.code))
            return
        items: list[FromWorker] = []
        for item in taken.items:
            if type(item) is Hello:
                if item.worker != session.name:
                    self._bye(session, Bye(NEVER, "another's name", "NotAllowed"))
                elif not stream.server.left:
                    session.joined = True
                    stream.server.edge = item.profile.edge
                    self._handle(WorkerJoined(stream.conn, session.worker, item))
            elif type(item) is not Progress:
                items.append(item)  # type: ignore[arg-type]
        if session.joined and (items or taken.delivered):
            self._handle(WorkerSent(stream.conn, session.worker, tuple(items), taken.delivered))
        if stream.server.peer_left:
            session.clean = True
            self._over(session)

    def ended(self, stream: SimulatedStream) -> None:
        session = self._sessions.get(stream.conn)
        if session is not None:
            self._over(session)

    # the writer

    def _bye(self, session: _Session, bye: Bye) -> None:
        session.stream.server.put(bye)  # out of place only where it was said before
        self._wake(session)

    def _wake(self, session: _Session) -> None:
        if not session.writing:
            session.writing = True
            self._at(self._now(), lambda: self._write(session))
        elif session.patient and not session.stream.server.only_acks:
            session.patient = False
            self._at(self._now(), lambda: self._write(session))

    def _write(self, session: _Session, waited: bool = False) -> None:
        link = session.stream.server
        if not session.writing or session.stream.conn not in self._sessions:
            return
        if link.only_acks and not waited:
            session.patient = True
            self._at(self._now() + _SETTINGS.ack_delay_s, lambda: self._write(session, True))
            return
        session.writing = session.patient = False
        while (frame := link.cut()) is not None:
            self._network.transmit(session.stream, False, frame)
        if link.left:  # a peer that does not read keeps its stream, and what it says, for a while
            self._at(self._now() + self._linger(), lambda: self._over(session))

    def _over(self, session: _Session) -> None:
        if self._sessions.pop(session.stream.conn, None) is None:
            return
        self._network.close(session.stream, True)
        if session.joined:
            self._handle(WorkerGone(session.stream.conn, session.worker, session.clean))
