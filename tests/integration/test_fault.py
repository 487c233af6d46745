"""A core that raises: the decision is taken back, the peer hears a reference, and no other run is any the worse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.event_codec import decode_events
from orchestrator.core.lifecycle import Closed, Paused
from orchestrator.core.machine import Machine
from orchestrator.core.setting import CoreSettings
from orchestrator.core.state import State
from orchestrator.engine.engine import Engine
from orchestrator.journal.journal import Journal
from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.recovery import recover
from orchestrator.placement.eft import Eft
from orchestrator.placement.policy import Offer
from orchestrator.service.query import run_error
from protocol.builtin import BUILTINS
from protocol.errors import InternalError
from protocol.frame import Assign, Bye, Heartbeat, Hello, Report, Welcome
from protocol.outcome import Success
from protocol.patch import Patch
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import Resources
from protocol.task import TaskSpec
from tests.integration.test_engine import Clock, Ears, Rig, Streams, echo


class Broken(Eft):
    """Placement with a defect: it raises at the calls that are named, or while `always`."""

    def __init__(self, *calls: int) -> None:
        self.calls = set(calls)
        self.made = 0
        self.always = False

    def choose(self, offers: Sequence[Offer]) -> int:
        self.made += 1
        if self.always or self.made in self.calls:
            raise ZeroDivisionError("a defect")
        return super().choose(offers)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def broken(policy: Broken, journal: Journal | None = None) -> AsyncIterator[Rig]:
    journal = journal or MemoryJournal()
    rig = Rig.__new__(Rig)
    rig.clock, rig.streams, rig.worker = Clock(), Streams(), 0
    recovered = recover(journal)
    machine = Machine(recovered.state, CoreSettings(placement="eft"), policy)  # no plan goes before it
    rig.engine = Engine(machine, journal, rig.clock, seq=recovered.seq)
    rig.engine.connect(rig.streams)
    rig.ears = Ears(rig.engine)
    journal.open_epoch(recovered.epoch)
    journal.start(rig.ears)
    await rig.engine.begin(recovered.epoch)
    async with anyio.create_task_group() as group:
        await group.start(rig.engine.run)
        yield rig
        group.cancel_scope.cancel()
    await journal.aclose()


def told(journal: Journal, kind: type) -> list[Any]:
    return [event for record in journal.read() for event in decode_events(record.body) if isinstance(event, kind)]


async def join(rig: Rig, *names: str) -> None:
    """Workers of unlike speed: placement is asked about every task."""
    for name in names:
        found = await rig.engine.ask(lambda reply, name=name: s.Enrolled(reply, name, "hash"))  # type: ignore[misc]
        rig.worker = found["worker"]
        profile = WorkerProfile(
            slots=4,
            capacity=Resources(cpu=4.0),
            devices=(DeviceProfile("cpu", speed=1.0 + rig.worker),),
            skills=tuple(spec for spec in BUILTINS if spec.name.startswith("flow.")),
        )
        rig.engine.post(s.WorkerJoined(rig.worker, rig.worker, Hello(name, "boot", profile)))
        await rig.streams.until(
            lambda: rig.worker in {conn for conn, item in rig.streams.sent if type(item) is Welcome}
        )


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await anyio.lowlevel.checkpoint()


async def finished(rig: Rig, run: int) -> None:
    """Report whatever is assigned until the run is closed."""
    done: set[Any] = set()
    while type(rig.engine.machine.state.runs[run].state) is not Closed:
        for conn, item in list(rig.streams.sent):
            if isinstance(item, Assign) and item.fence not in done:
                done.add(item.fence)
                report = Report(item.attempt, item.fence, item.pin, Success(b"1"))
                rig.engine.post(s.WorkerSent(conn, conn, (report,)))
        await anyio.lowlevel.checkpoint()


def replayed(journal: Journal) -> State:
    return recover(journal).state


@pytest.mark.anyio
@pytest.mark.parametrize("call", [1, 2, 3])
async def test_a_decision_that_raises_is_taken_back_and_made_again(call: int) -> None:
    policy, journal = Broken(call), MemoryJournal()
    async with broken(policy, journal) as rig:
        await join(rig, "pi-1", "pi-2")
        run = await rig.submit(*(echo(name) for name in "abc"))
        await finished(rig, run)
        await rig.engine.on_disk()
        assert rig.engine.machine.state.snapshot() == replayed(journal).snapshot()
        rig.engine.machine.check()
    (failed,) = told(journal, e.DecisionFailed)
    assert (failed.stimulus, failed.run) == ("Flush", run)
    assert failed.error.startswith("ZeroDivisionError at test_fault:")
    assert not told(journal, e.RunSetAside)


@pytest.mark.anyio
async def test_a_run_that_makes_it_raise_again_is_set_aside_and_the_others_go_on() -> None:
    policy, journal = Broken(), MemoryJournal()
    async with broken(policy, journal) as rig:
        await join(rig, "pi-1", "pi-2")
        policy.always = True
        bad = await rig.submit(echo("a"))
        state = rig.engine.machine.state
        await until(lambda: bool(state.runs[bad].aside))
        policy.always = False
        good = await rig.submit(echo("a"))
        await finished(rig, good)
        assert type(state.runs[bad].state) is Paused
        reference = state.runs[bad].aside
        assert reference in rig.engine.machine.explain(bad, "a")["why"]
        assert (run_error(state.runs[bad]) or {})["ref"] == reference
    assert len(told(journal, e.DecisionFailed)) == 2
    assert [one.run for one in told(journal, e.RunSetAside)] == [bad]

    async with broken(policy, journal) as rig:  # a restart changes nothing of that; a person does
        state = rig.engine.machine.state
        assert state.runs[bad].aside == reference
        await join(rig, "pi-3", "pi-4")
        await rig.engine.ask(lambda reply: s.PauseRequested(reply, bad, "ann", resume=True))
        await finished(rig, bad)
        assert state.runs[bad].tasks[0].succeeded
        await rig.engine.on_disk()
        assert state.snapshot() == replayed(journal).snapshot()


@pytest.mark.anyio
async def test_reports_for_a_run_that_was_set_aside_stay_with_their_worker() -> None:
    policy, journal = Broken(), MemoryJournal()
    async with broken(policy, journal) as rig:
        await join(rig, "pi-1", "pi-2")
        run = await rig.submit(echo("a"), TaskSpec("b", "flow.echo", b'{"value":{"ref":"a"}}'))
        await rig.streams.until(lambda: bool(rig.streams.of(Assign)))
        (assign,) = rig.streams.of(Assign)
        policy.always = True
        rig.report(assign)
        state = rig.engine.machine.state
        await until(lambda: bool(state.runs[run].aside))
        assert state.runs[run].tasks[0].succeeded  # what had been decided before the failure stands
        policy.always = False
        await rig.engine.ask(lambda reply: s.CancelRequested(reply, run, "", "ann"))
        assert type(state.runs[run].state) is Closed
        await rig.engine.on_disk()
        assert state.snapshot() == replayed(journal).snapshot()


@pytest.mark.anyio
async def test_who_asked_hears_a_reference_and_nothing_was_changed() -> None:
    journal = MemoryJournal()
    async with broken(Broken(), journal) as rig:
        await join(rig, "pi-1", "pi-2")
        await rig.engine.on_disk()
        before = rig.engine.machine.state.snapshot()
        with pytest.raises(InternalError) as told_so:  # a settings object that no service would hand in
            await rig.engine.ask(lambda reply: s.Submitted(reply, "", "", "me", None, patch=Patch("p", (echo("a"),))))  # type: ignore[arg-type]
        await rig.engine.on_disk()
        assert rig.engine.machine.state.snapshot() == before
        (failed,) = told(journal, e.DecisionFailed)
        assert failed.reference == told_so.value.ref
        run = await rig.submit(echo("a"))
        await finished(rig, run)


@pytest.mark.anyio
async def test_a_stream_that_makes_it_raise_is_closed_and_may_come_back() -> None:
    journal = MemoryJournal()
    async with broken(Broken(), journal) as rig:
        await join(rig, "pi-1", "pi-2")
        for _ in range(2):
            rig.engine.post(s.WorkerSent(rig.worker, rig.worker, (Heartbeat(at=1.0, inventory=None),)))  # type: ignore[arg-type]
        await rig.streams.until(lambda: bool(rig.streams.closed))
        assert rig.streams.of(Bye)[0].code == "InternalError"
        rig.streams.sent.clear()
        await join(rig, "pi-3", "pi-4")
        run = await rig.submit(echo("a"))
        await finished(rig, run)
    assert len(told(journal, e.DecisionFailed)) == 2


@pytest.mark.anyio
async def test_a_run_that_makes_the_start_raise_is_set_aside() -> None:
    journal = MemoryJournal()
    async with broken(Broken(), journal) as rig:
        bad = await rig.submit(echo("a"))
        good = await rig.submit(echo("a"))
        await rig.engine.on_disk()

    class Poisoned(Machine):
        """Stands for a defect that only one run touches."""

        def handle(self, stimulus: s.Stimulus, now: float, luck: float = 0.5) -> Any:
            run = self.state.runs.get(bad)
            if isinstance(stimulus, s.Started) and run is not None and not run.aside:
                self._turn.focus = bad
                raise ZeroDivisionError("a defect")
            return super().handle(stimulus, now, luck)

    clock, streams = Clock(), Streams()
    recovered = recover(journal)
    engine = Engine(Poisoned(recovered.state), journal, clock, seq=recovered.seq)
    engine.connect(streams)
    journal.open_epoch(recovered.epoch)
    journal.start(engine)
    await engine.begin(recovered.epoch)
    state = engine.machine.state
    assert (bool(state.runs[bad].aside), bool(state.runs[good].aside)) == (True, False)
    assert state.epoch == recovered.epoch
    assert state.snapshot() == replayed(journal).snapshot()
