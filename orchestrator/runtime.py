"""The server process, assembled: journal, recovery, engine, gateway, artifacts, service, port, and its clean end.

Order is the invariant. Start: the journal's lock, replay, the new epoch on disk, then the port, then `server.json`;
so whoever finds the file finds a server that answers, and nothing is dispatched under an epoch that could be lost.
End: `server.json` goes first, workers are told to come back, what arrived is handled, a snapshot is written, the
journal closes. An end that is not clean skips the snapshot: the state may be ahead of the disk, and replay is right.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from protocol.clock import RunClock
from protocol.collector import tune
from protocol.door import Refused
from protocol.port import Server as Port
from protocol.report import ServerInfo
from protocol.security import ServerFile, forget_server, home, private_directory
from protocol.setting import LlmDefaults, PlannerDefaults, RetentionDefaults

from .artifacts.store import ArtifactStore
from .artifacts.transfer import Transfer
from .choice import PlannerChoice
from .core.machine import Machine
from .core.setting import CoreSettings, HedgeSettings, PreemptSettings, QuarantineSettings
from .engine.artifact_desk import ArtifactDesk
from .engine.engine import Engine
from .engine.example_desk import ExampleDesk
from .engine.planner_desk import PlannerDesk
from .engine.progress_desk import ProgressDesk
from .gateway import Gateway
from .instrument import Instrument
from .journal.recovery import recover
from .journal.scribe import Scribe
from .journal.snapshot import Snapshots
from .journal.sqlite import SqliteJournal
from .placement.history import WINDOW
from .service import query
from .service.attachment import LEAVE_S, Attachments
from .service.enrolment import Enrolment
from .service.entrance import Entrance, EntranceSettings
from .service.garbage import Garbage
from .service.lookup import is_open
from .service.reading import Reading
from .service.retention import Retention
from .service.service import Service
from .service.submission import Submissions
from .service.value import Values
from .service.watching import Watching

IDLE_S: Final = 300.0
STOP_S: Final = 10.0
"""How long a clean stop may wait for the disk."""


class ServerSettings(msgspec.Struct, frozen=True):
    """How a server is started. `idle_s`: a private one ends after so long without run, watcher or client.
    `leave_s`: an attached run is cancelled so long after its last watcher left. `llm`, `planner`: who plans.
    `predictions`: how many are kept."""

    directory: Path
    entrance: EntranceSettings = EntranceSettings()
    private: bool = False
    idle_s: float = IDLE_S
    leave_s: float = LEAVE_S
    core: CoreSettings = CoreSettings()
    retention: RetentionDefaults = RetentionDefaults()
    llm: LlmDefaults = LlmDefaults()
    planner: PlannerDefaults = PlannerDefaults()
    predictions: int = 100_000


class Runtime:
    """One server. `run` from start to end; `shut_down` asks for the end. `entrance` makes where it can be reached."""

    def __init__(
        self,
        settings: ServerSettings,
        version: str = "",
        entrance: Callable[[EntranceSettings, Path, Refused], Entrance] = Entrance,
    ) -> None:
        self._settings = settings
        self._version = version
        self._open = entrance
        self._choice = PlannerChoice(settings.llm, settings.planner, os.environ)
        self._started = time.time()
        self._called_at = time.monotonic()
        self._stop = anyio.Event()
        self._entrance: Entrance | None = None
        self._journal: SqliteJournal | None = None
        self._engine: Engine | None = None
        self._attachments: Attachments | None = None
        self._gateway: Gateway | None = None

    async def run(self, ready: Callable[[ServerFile], None]) -> None:
        """Serve until told to stop or idle; `ready` is called once, when clients can come.

        Raises: JournalBusy, JournalCorrupt, VersionMismatch; Unavailable for a port in use or a failed write.
        """
        directory = private_directory(self._settings.directory)
        path = private_directory(directory / "server") / "journal.db"
        journal = self._journal = SqliteJournal(path, predictions=self._settings.predictions)
        try:
            await self._serve(directory, journal, ready)
        finally:
            forget_server(directory, os.getpid())
            await journal.aclose()

    async def _serve(self, directory: Path, journal: SqliteJournal, ready: Callable[[ServerFile], None]) -> None:
        recovered = await anyio.to_thread.run_sync(recover, journal)
        if recovered.note:
            sys.stderr.write(f"asterism server: {recovered.note}\n")
        state, clock = recovered.state, RunClock(recovered.at)
        machine = Machine(state, self._settings.core)
        machine.predictor.recall(await anyio.to_thread.run_sync(journal.recent_predictions, WINDOW))
        instrument = Instrument()
        store = ArtifactStore(directory / "server" / "artifacts")
        planners = PlannerDesk(self._choice, machine.fleet, clock.now, ExampleDesk(self._settings.planner.examples))
        engine = self._engine = Engine(
            machine,
            journal,
            clock.now,
            seq=recovered.seq,
            snapshots=Snapshots(journal, state, recovered.behind, recovered.tail, Scribe(journal.path)),
            instrument=instrument,
            artifacts=ArtifactDesk(store),
            planners=planners,
        )
        journal.open_epoch(recovered.epoch)
        journal.start(engine)
        gateway = self._gateway = Gateway(engine.post, ProgressDesk(engine).take, refused=engine.refusals.refused)
        engine.connect(gateway)
        entrance = self._entrance = self._open(self._settings.entrance, directory / "server", engine.refusals.refused)
        enrolment = Enrolment(engine, state, clock.now, entrance.authority)
        attachments = self._attachments = Attachments(engine, state, enrolment.dismiss, self._settings.leave_s)
        garbage = Garbage(store, state, directory / "workers")
        retention = Retention(engine, garbage, self._settings.retention, journal.used_bytes)
        service = Service(
            engine,
            gateway,
            Transfer(store),
            Values(store),
            Submissions(engine, planners, attachments),
            Watching(engine, journal, attachments),
            attachments,
            enrolment,
            garbage,
            Reading(lambda: engine.machine.state, store),
            self,
        )
        tune()
        async with anyio.create_task_group() as group:
            await engine.begin(recovered.epoch)
            await group.start(engine.run)
            group.start_soon(attachments.run)
            group.start_soon(retention.run)
            port = await entrance.open(service, enrolment)
            try:
                file = entrance.announce(directory, enrolment, journal.id, self._started, self._version)
                group.start_soon(entrance.watch_door)
                group.start_soon(entrance.stay_fresh, directory, enrolment, file)
                group.start_soon(self._signals)
                if self._settings.private:
                    group.start_soon(self._idle)
                ready(file)
                await self._stop.wait()
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await port.aclose(0.0)
                raise
            await self._end(directory, port, engine, gateway)
            group.cancel_scope.cancel()

    async def _end(self, directory: Path, port: Port, engine: Engine, gateway: Gateway) -> None:
        with anyio.CancelScope(shield=True):
            forget_server(directory, os.getpid())
            await gateway.aclose()
            with anyio.move_on_after(STOP_S):  # a full disk must not keep us: replay has it all
                await engine.stop()
            await port.aclose()

    # service.Place

    def touch(self) -> None:
        self._called_at = time.monotonic()

    def shut_down(self) -> None:
        """End cleanly; returns at once."""
        self._stop.set()

    def info(self) -> dict[str, Any]:
        assert self._engine is not None
        assert self._journal is not None
        assert self._gateway is not None
        assert self._entrance is not None
        machine, counts = self._engine.machine, self._engine.instrument.counts
        directory = self._settings.directory
        return ServerInfo(
            version=self._version,
            address=self._entrance.address,
            pid=os.getpid(),
            journal=self._journal.id,
            epoch=machine.state.epoch,
            home=str(directory),
            private=self._settings.private,
            uptime_s=time.time() - self._started,
            workers=len(machine.fleet.sessions),
            runs=query.count_runs(machine.state),
            dropped=counts | {name: n for name, n in self._gateway.counts.items() if n and name in _DROPPED},
            warnings=(
                *self._engine.pressure.warnings(),
                *query.warnings(str(directory), machine.state),
                *query.clock_warnings(self._engine.clock() - time.time()),
            ),
            tls=self._entrance.info(),
            loop_tasks=len(anyio.get_running_tasks()),
            planner=self._choice.describe(),
        ).to_dict()

    # its end

    async def _signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                self.shut_down()

    async def _idle(self) -> None:
        """End a private server that nobody needs any more."""
        while True:
            quiet = time.monotonic() - self._called_at
            if self._needed():
                self.touch()
            elif quiet >= self._settings.idle_s:
                self.shut_down()
                return
            await anyio.sleep(max(0.05, min(self._settings.idle_s - quiet, self._settings.idle_s / 4)))

    def _needed(self) -> bool:
        """A run is open, somebody watches, or a client is here with its temporary worker."""
        assert self._engine is not None
        machine = self._engine.machine
        return (
            len(self._engine.watches) > 0
            or any(is_open(run) for run in machine.state.runs.values())
            or any(session.profile.serves for session in machine.fleet.sessions.values())
        )


_DROPPED: Final = frozenset(
    {"bad_frames", "out_of_place", "stale", "missed", "overflowed", "too_large", "too_fast", "postponed"}
)


def serve(*, private: bool = False, flags: Mapping[str, Any] | None = None) -> None:
    """Be the server until it ends: what `asterism server start` does. Prints the join string, unless it would land in
    a log. Raises: what ended it, if it did not end as asked."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from importlib.metadata import PackageNotFoundError, version

    from protocol.config import load

    try:
        number = version("asterism")
    except PackageNotFoundError:
        number = ""
    given = load(flags).settings
    daemon, policy = given.daemon, given.policy
    entrance = EntranceSettings(
        listen=daemon.listen,
        names=daemon.name,
        tls=daemon.tls,
        life_s=daemon.certificate_life,
        session_s=daemon.session_age,
    )
    settings = ServerSettings(
        directory=home(),
        entrance=entrance,
        private=private,
        idle_s=daemon.idle,
        core=CoreSettings(
            dispatch_ahead=daemon.dispatch == "ahead",
            placement=given.placement.policy,
            policies=policy.rules(),
            self_approval=policy.self_approval,
            untrusted=policy.untrusted,
            planner_s=given.planner.deadline,
            claim_s=given.replan.claim,
            replan_rounds=given.replan.rounds,
            edits_a_round=given.replan.edits,
            tasks_a_round=given.replan.tasks,
            proposals=given.replan.proposals,
            call_tokens=given.lending.call,
            attempt_tokens=given.lending.attempt,
            keep_predictions=given.predictor.keep > 0,
            retry_floor=given.retry.floor,
            retry_ratio=given.retry.ratio,
            hedge=HedgeSettings(
                on=given.hedge.enabled,
                factor=given.hedge.factor,
                budget=given.hedge.budget,
                least_s=given.hedge.least,
                known=given.hedge.known,
                move_s=given.hedge.move,
            ),
            quarantine=QuarantineSettings(
                on=given.quarantine.enabled,
                rate=given.quarantine.rate,
                delay_s=given.quarantine.delay,
                rest_s=given.quarantine.rest,
            ),
            shares=tuple(given.fair.shares.items()),
            share_half_life_s=given.fair.half_life,
            preempt=PreemptSettings(
                on=given.fair.preempt, after_s=given.fair.preempt_after, grace_s=given.fair.preempt_grace
            ),
        ),
        retention=given.retention,
        llm=given.llm,
        planner=given.planner,
        predictions=given.predictor.keep,
    )
    try:
        anyio.run(Runtime(settings, number).run, _say_ready)
    except BaseExceptionGroup as group:
        raise alone(group) from None


def alone(error: BaseException) -> BaseException:
    """The error inside task groups that had no other."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _say_ready(file: ServerFile) -> None:
    sys.stderr.write(f"asterism server: listening on {file.address}, process {file.pid}\n")
    if not _is_log(sys.stdout.fileno(), sys.stderr.fileno()):
        sys.stdout.write(f"{file.join}\n")
        sys.stdout.flush()


def _is_log(out: int, err: int) -> bool:
    """Whether both streams go to one regular file: then it is a log, and the join string is a secret."""
    first, second = os.fstat(out), os.fstat(err)
    return stat.S_ISREG(first.st_mode) and (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
