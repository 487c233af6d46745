"""The engine with the real core and real journals: what leaves when, what watchers see, what a crash takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.command import Resolve, StartPlanner
from orchestrator.core.event_codec import decode_events
from orchestrator.core.machine import Machine
from orchestrator.core.state import State
from orchestrator.core.stimulus import Resolved
from orchestrator.engine import pressure
from orchestrator.engine.artifact_desk import ArtifactDesk, heavy
from orchestrator.engine.engine import Engine
from orchestrator.engine.planner_desk import PlannerDesk
from orchestrator.engine.watch import QUEUE_EVENTS
from orchestrator.journal import snapshot
from orchestrator.journal.journal import Commit, Journal, Record
from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.recovery import recover
from orchestrator.journal.scribe import Scribe
from orchestrator.journal.snapshot import Snapshots
from orchestrator.journal.sqlite import SqliteJournal
from planner.planner import PlanOutcome
from protocol.artifact import ArtifactRef
from protocol.builtin import BUILTINS
from protocol.errors import AsterismError, Conflict, NotFound, Overloaded, SchemaMismatch, Unavailable, UsageError
from protocol.frame import Ack, Assign, Cancel, Hello, Input, Report, ToWorker, Welcome
from protocol.ids import AttemptId, Fence
from protocol.outcome import Success
from protocol.patch import Patch
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import Resources
from protocol.task import RunSettings, TaskSpec


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class Streams:
    """A gateway that keeps what it was given."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, ToWorker]] = []
        self.closed: list[int] = []
        self._news = anyio.Event()

    def send(self, conn: int, item: ToWorker) -> None:
        self.sent.append((conn, item))
        self._news.set()

    def close(self, conn: int) -> None:
        self.closed.append(conn)
        self._news.set()

    def of(self, kind: type) -> list[Any]:
        return [item for _, item in self.sent if type(item) is kind]

    async def until(self, seen: Callable[[], bool]) -> None:
        while not seen():
            self._news = anyio.Event()
            await self._news.wait()


class Ears:
    """The engine's health, overheard."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.full = anyio.Event()

    def disk_full(self, full: bool) -> None:
        self._engine.disk_full(full)
        self.full.set()

    def failed(self, error: AsterismError) -> None:
        self._engine.failed(error)


class Rig:
    def __init__(self, journal: Journal, **parts: Any) -> None:
        self.clock = Clock()
        self.streams = Streams()
        state = State(journal=journal.id)
        if "draft" in parts:
            parts["snapshots"] = Snapshots(journal, state, {}, {}, parts.pop("draft"))
        self.engine = Engine(Machine(state), journal, self.clock, **parts)
        self.engine.connect(self.streams)
        self.ears = Ears(self.engine)
        self.worker = 0

    async def join(self, name: str = "pi-1") -> None:
        found = await self.engine.ask(lambda reply: s.Enrolled(reply, name, "hash"))
        self.worker = found["worker"]
        profile = WorkerProfile(
            slots=4,
            capacity=Resources(cpu=4.0),
            devices=(DeviceProfile("cpu"),),
            skills=tuple(spec for spec in BUILTINS if spec.name.startswith("flow.")),
        )
        self.engine.post(s.WorkerJoined(self.worker, self.worker, Hello(name, "boot", profile)))
        await self.streams.until(lambda: bool(self.streams.of(Welcome)))

    async def submit(self, *specs: TaskSpec) -> int:
        patch = Patch("person:me", specs)
        found = await self.engine.ask(
            lambda reply: s.Submitted(reply, "", "", "me", RunSettings(), patch=patch),
        )
        return int(found["run"])

    def report(self, assign: Assign, value: bytes = b"1") -> None:
        report = Report(assign.attempt, assign.fence, assign.pin, Success(value))
        self.engine.post(s.WorkerSent(self.worker, self.worker, (report,)))


@asynccontextmanager
async def running(journal: Journal, **parts: Any) -> AsyncIterator[Rig]:
    rig = Rig(journal, **parts)
    journal.start(rig.ears)
    await rig.engine.begin(1)
    async with anyio.create_task_group() as group:
        await group.start(rig.engine.run)
        yield rig
        group.cancel_scope.cancel()
    await journal.aclose()


class HeldJournal(MemoryJournal):
    """Commits only when told to, as a slow disk would."""

    def __init__(self) -> None:
        super().__init__()
        self.hold = False

    def _schedule(self) -> None:
        if not self.hold:
            super()._schedule()


def echo(name: str, value: int = 1) -> TaskSpec:
    return TaskSpec(name, "flow.echo", b'{"value":%d}' % value)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_pure_work_leaves_ahead_of_the_disk_but_nothing_is_acknowledged_or_shown_before() -> None:
    journal = HeldJournal()
    async with running(journal) as rig:
        await rig.join()
        run = await rig.submit(echo("a"), echo("b"))
        await rig.streams.until(lambda: len(rig.streams.of(Assign)) == 2)
        await rig.engine.on_disk()
        async with rig.engine.watches.events(run, rig.engine.watches.committed) as watch:
            assert await watch.next(wait=False) == []
            journal.hold = True
            for assign in rig.streams.of(Assign):
                rig.report(assign)
            await turns()
            assert rig.streams.of(Ack) == []
            assert await watch.next(wait=False) == []
            assert rig.engine.machine.state.runs[run].unsettled == 0
            journal.hold = False
            journal.commit()
            acked = {attempt for ack in rig.streams.of(Ack) for attempt in ack.attempts}
            assert acked == {assign.attempt for assign in rig.streams.of(Assign)}
            kinds = [type(event) for _, _, event in await watch.next()]
            assert kinds[-1] is e.RunSettled
            assert kinds.count(e.TaskSettled) == 2


@pytest.mark.anyio
async def test_what_only_later_decisions_need_is_seen_to_once_work_has_left() -> None:
    async with running(MemoryJournal()) as rig:
        await rig.join()
        await rig.submit(echo("a"), TaskSpec("b", "flow.echo", b'{"value":{"ref":"a"}}'))
        await rig.streams.until(lambda: bool(rig.streams.of(Assign)))
        (first,) = rig.streams.of(Assign)
        rig.report(first)
        await rig.streams.until(lambda: len(rig.streams.of(Assign)) == 2)
        assert rig.engine.machine.owes
        await turns()
        assert not rig.engine.machine.owes


@pytest.mark.anyio
async def test_an_answer_comes_after_its_commit_and_after_all_commits_before() -> None:
    journal = HeldJournal()
    async with running(journal) as rig:
        journal.hold = True
        answers: list[int] = []

        async def submit() -> None:
            answers.append(await rig.submit(echo("a")))

        async def pause() -> None:
            with pytest.raises(NotFound):
                await rig.engine.ask(lambda reply: s.PauseRequested(reply, 99, "me"))
            answers.append(-1)

        async with anyio.create_task_group() as group:
            group.start_soon(submit)
            await turns()
            group.start_soon(pause)
            await turns()
            assert answers == []
            journal.hold = False
            journal.commit()
        assert sorted(answers) == [-1, 1]


@pytest.mark.anyio
async def test_an_alarm_that_was_set_as_the_last_one_rang_ends_nothing() -> None:
    async with running(MemoryJournal()) as rig:
        await turns()
        assert rig.engine._alarm is None
        rig.engine._alarm_set.set()  # what is left when both fall into one turn of the loop
        await turns()
        await rig.join()
        assert rig.streams.of(Welcome)


class HeardJournal(MemoryJournal):
    """Remembers what it was told to hurry with."""

    def __init__(self) -> None:
        super().__init__()
        self.pressing: set[type[object]] = set()
        self.waiting: set[type[object]] = set()

    def append(self, records: Sequence[Record], *args: Any, pressing: bool = True, **options: Any) -> Commit:
        kinds = {type(event) for record in records for event in decode_events(record.body)}
        (self.pressing if pressing else self.waiting).update(kinds)
        return super().append(records, *args, pressing=pressing, **options)


@pytest.mark.anyio
async def test_what_a_person_is_asked_is_on_disk_at_once_and_what_nobody_waits_for_need_not_be() -> None:
    journal = HeardJournal()
    async with running(journal) as rig:
        await rig.join()
        asked = msgspec.structs.replace(echo("c"), approve=True, after=("b",))
        await rig.submit(echo("a"), msgspec.structs.replace(echo("b"), after=("a",)), asked)
        for count in (1, 2):
            await rig.streams.until(lambda count=count: len(rig.streams.of(Assign)) == count)  # type: ignore[misc]
            assert e.ApprovalAsked not in journal.pressing
            rig.report(rig.streams.of(Assign)[-1])
        await rig.streams.until(lambda: len(rig.streams.of(Ack)) == 2)
        assert e.ApprovalAsked in journal.pressing
        assert e.TaskSettled in journal.waiting


@pytest.mark.anyio
async def test_an_attempts_end_and_what_it_settled_share_a_record() -> None:
    journal = MemoryJournal()
    async with running(journal) as rig:
        await rig.join()
        await rig.submit(echo("a"))
        await rig.streams.until(lambda: bool(rig.streams.of(Assign)))
        rig.report(rig.streams.of(Assign)[0])
        await rig.streams.until(lambda: bool(rig.streams.of(Ack)))
        bodies = [decode_events(record.body) for record in journal.read()]
        ended = next(body for body in bodies if type(body[0]) is e.AttemptEnded)
        assert [type(event) for event in ended] == [e.AttemptEnded, e.TaskSettled]
        seq = 0
        for record, body in zip(journal.read(), bodies, strict=True):
            assert record.seq == seq + 1
            seq += len(body)
        assert seq == rig.engine.seq


@pytest.mark.anyio
async def test_a_slow_watcher_goes_on_from_the_journal_without_a_gap(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    async with running(journal) as rig:
        await rig.join()
        async with rig.engine.watches.events(None) as watch:
            seen = await watch.next()
            run = await rig.submit(*(echo(f"t{k}") for k in range(2000)))
            done = 0
            while rig.engine.machine.state.runs[run].unsettled:
                assigns = rig.streams.of(Assign)
                for assign in assigns[done:]:
                    rig.report(assign)
                done = len(assigns)
                await turns(2)
            await rig.engine.on_disk()
            assert rig.engine.seq > QUEUE_EVENTS
            while seen[-1][0] < rig.engine.seq:
                seen += await watch.next()
        assert [seq for seq, _, _ in seen] == list(range(1, rig.engine.seq + 1))
        state = State(journal=journal.id)
        for _, _, event in seen:
            state.apply(event)
        assert state.snapshot()[run] == State.restore(rig.engine.machine.state.snapshot()).snapshot()[run]


@pytest.mark.anyio
async def test_a_full_disk_stops_dispatch_and_says_so_and_what_was_asked_counts_once_there_is_room(
    tmp_path: Path,
) -> None:
    journal = SqliteJournal(tmp_path / "journal.db", limit_bytes=400_000)
    async with running(journal) as rig:
        await rig.join()
        before = len(rig.streams.of(Assign))
        args = b'{"value":"' + bytes(b"x" * 500_000) + b'"}'
        with pytest.raises(Unavailable, match="became full before"):
            await rig.submit(TaskSpec("big", "flow.echo", args))
        with pytest.raises(Unavailable, match="nothing new can be written"):
            await rig.submit(echo("small"))
        await turns()
        assert len(rig.streams.of(Assign)) == before
        assert rig.engine.watches.committed < rig.engine.seq
        journal.resize(0)
        await rig.engine.on_disk()
        await rig.streams.until(lambda: len(rig.streams.of(Assign)) == before + 1)
        assert await rig.submit(echo("small")) == 2


@pytest.mark.anyio
async def test_a_disk_that_falls_behind_holds_dispatch_and_new_requests_back_until_it_has_caught_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pressure, "HOLD_EVENTS", 20)
    journal = HeldJournal()
    async with running(journal) as rig:
        await rig.join()
        journal.hold = True
        done = 0
        async with anyio.create_task_group() as group:
            while rig.engine.pressure.waiting <= 20:
                group.start_soon(rig.submit, *(echo(f"t{n}") for n in range(4)))
                await turns()
                for assign in rig.streams.of(Assign)[done:]:
                    rig.report(assign)
                    done += 1
            await turns()
            with pytest.raises(Overloaded, match="events behind"):
                await rig.submit(echo("more"))
            sent = len(rig.streams.of(Assign))
            for assign in rig.streams.of(Assign)[done:]:
                rig.report(assign)
            await turns()
            assert len(rig.streams.of(Assign)) == sent, "slots are free, but nothing more is started"
            journal.hold = False
            journal.commit()
        await rig.streams.until(lambda: len(rig.streams.of(Assign)) > sent)
        assert await rig.submit(echo("more")) > 0


@pytest.mark.anyio
async def test_a_failed_write_ends_the_engine_and_every_question(tmp_path: Path) -> None:
    journal = MemoryJournal()
    rig = Rig(journal)
    journal.start(rig.engine)
    await rig.engine.begin(1)
    rig.engine.failed(Unavailable("the disk said no"))
    with pytest.raises(BaseExceptionGroup) as caught:
        await rig.engine.run()
    assert caught.group_contains(Unavailable, match="the disk said no", depth=None)
    with pytest.raises(Unavailable, match="stopping"):
        await rig.engine.ask(lambda reply: s.PauseRequested(reply, 1, "me"))


@pytest.mark.anyio
async def test_a_running_engine_has_its_snapshots_made_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "TAIL_EVENTS", 12)
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    async with running(journal, draft=Scribe(path)) as rig:
        await rig.join()
        await rig.submit(*(echo(f"t{n}") for n in range(8)))
        while journal.load_snapshot() is None:
            for assign in rig.streams.of(Assign):
                rig.report(assign)
            await rig.engine.on_disk()
            await turns()
        held, found = journal.load_snapshot(), recover(journal)
        assert held is not None
        assert 0 < held.seq <= rig.engine.seq
        assert not found.note
        assert found.state.snapshot() == recover(journal, snapshot=False).state.snapshot()


@pytest.mark.anyio
async def test_a_clean_stop_leaves_a_snapshot_and_no_tail(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    rig = Rig(journal)
    journal.start(rig.engine)
    await rig.engine.begin(1)
    async with anyio.create_task_group() as group:
        await group.start(rig.engine.run)
        await rig.join()
        await rig.submit(echo("a"))
        await rig.engine.stop()
    await journal.aclose()
    again = SqliteJournal(tmp_path / "journal.db")
    found = recover(again)
    assert found.tail == {}
    assert found.state.snapshot() == State.restore(rig.engine.machine.state.snapshot()).snapshot()
    await again.aclose()


@pytest.mark.anyio
async def test_a_timer_of_the_core_rings_when_its_time_has_come() -> None:
    journal = MemoryJournal()
    async with running(journal) as rig:
        await rig.join()
        settings = RunSettings(deadline_s=0.02)
        found = await rig.engine.ask(
            lambda reply: s.Submitted(reply, "", "", "me", settings, patch=Patch("person:me", (echo("a"),)))
        )
        rig.clock.at += 1.0
        await rig.streams.until(lambda: bool(rig.streams.of(Cancel)))
        assert rig.engine.machine.state.runs[found["run"]].cancelled


# Artifacts


class Shelf:
    """A store in memory."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.puts = 0

    def size(self, digest: str) -> int:
        if digest not in self.contents:
            raise NotFound(f"{digest} isn't here")
        return len(self.contents[digest])

    def json_at(self, digest: str, pointer: tuple[str, ...] = ()) -> bytes:
        value = msgspec.json.decode(self.contents[digest])
        for part in pointer:
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, ValueError):
                raise NotFound("nothing there") from None
        return msgspec.json.encode(value)

    def length_at(self, digest: str, pointer: tuple[str, ...] = ()) -> int:
        value = msgspec.json.decode(self.json_at(digest, pointer))
        if not isinstance(value, list):
            raise SchemaMismatch("there is no list")
        return len(value)

    def put(self, data: bytes, media: str = "application/json") -> ArtifactRef:
        self.puts += 1
        digest = f"sha256:{len(self.contents):064x}"
        self.contents[digest] = data
        return ArtifactRef(digest, media, len(data))


def assign(*inputs: Input, items: tuple[tuple[Input, ...], ...] = ()) -> Assign:
    return Assign(AttemptId(1, 0, 1), Fence(1, 1), b"pin", b"{}", "r1/a#1", inputs, items)


@asynccontextmanager
async def desk(store: Shelf) -> AsyncIterator[tuple[ArtifactDesk, Streams]]:
    made, streams = ArtifactDesk(store), Streams()
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        yield made, streams
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_heavy_inputs_travel_by_digest_and_order_on_the_stream_is_kept() -> None:
    store = Shelf()
    large, small = b'"' + b"x" * 70_000 + b'"', b'"y"'
    parts = tuple([b'"' + b"z" * 30_000 + b'"'] * 5)
    item = assign(Input("big", large), Input("small", small), Input("all", parts=parts))
    assert heavy(item)
    assert not heavy(assign(Input("small", small)))
    async with desk(store) as (made, streams):
        made.send_light(1, item, streams.send)
        assert made.holds(1)
        assert not made.holds(2)
        made.send_light(1, Cancel(item.attempt), streams.send)
        await streams.until(lambda: len(streams.sent) == 2)
        assert not made.holds(1)
    light = streams.sent[0][1]
    assert isinstance(light, Assign)
    assert isinstance(streams.sent[1][1], Cancel)
    values = {one.key: one for one in light.inputs}
    assert values["small"].value == small
    assert isinstance(values["big"].value, ArtifactRef)
    assert store.contents[values["big"].value.digest] == large
    whole = values["all"].value
    assert isinstance(whole, ArtifactRef)
    assert values["all"].parts is None
    assert msgspec.json.decode(store.contents[whole.digest]) == ["z" * 30_000] * 5


@pytest.mark.anyio
async def test_a_manifest_that_many_tasks_share_is_written_once_and_chunks_are_joined_flat() -> None:
    store = Shelf()
    parts = (b"[1,2]", b"[]", b"[3]", b'["' + b"x" * 70_000 + b'"]')
    async with desk(store) as (made, streams):
        for _ in range(10):
            made.send_light(1, assign(Input("all", parts=parts, flat=True)), streams.send)
        await streams.until(lambda: len(streams.sent) == 10)
    assert store.puts == 1
    (content,) = store.contents.values()
    assert msgspec.json.decode(content) == [1, 2, 3, "x" * 70_000]


@pytest.mark.anyio
async def test_many_small_inputs_are_lightened_until_the_rest_fits() -> None:
    store = Shelf()
    inputs = tuple(Input(f"i{k}", b'"' + b"x" * (20_000 + k) + b'"') for k in range(30))
    async with desk(store) as (made, streams):
        made.send_light(1, assign(items=(inputs,)), streams.send)
        await streams.until(lambda: bool(streams.sent))
    (light,) = streams.of(Assign)
    left = sum(len(one.value) for row in light.items for one in row if isinstance(one.value, bytes))
    assert left <= 192 * 1024
    assert len(light.items[0]) == 30


@pytest.mark.parametrize(
    ("pointer", "what", "expected"),
    [
        (("rows",), "length", (b"3", True, "")),
        (("rows", "1"), "value", (b"5", True, "")),
        (("absent",), "value", (b"null", False, "")),
        (("name",), "length", (b"null", False, "there is no list")),
    ],
)
def test_what_the_core_asks_of_an_artifact_is_answered(
    pointer: tuple[str, ...], what: str, expected: tuple[bytes, bool, str]
) -> None:
    store = Shelf()
    ref = store.put(b'{"rows":[4,5,6],"name":"n"}')
    posted: list[Any] = []
    anyio.run(ArtifactDesk(store).resolve, Resolve(1, 2, "k", ref, pointer, what), posted.append)
    assert posted == [Resolved(1, 2, "k", *expected)]


def test_an_artifact_that_is_gone_is_an_error_not_an_absence() -> None:
    posted: list[Any] = []
    missing = Resolve(1, 2, "k", ArtifactRef("sha256:" + "0" * 64, "", 1), (), "value")
    anyio.run(ArtifactDesk(Shelf()).resolve, missing, posted.append)
    assert posted[0].error
    assert not posted[0].found


# Planners


class Scripted:
    name = "scripted"

    def __init__(self, *patches: Patch, error: Exception | None = None, hang: bool = False) -> None:
        self._patches = patches
        self._error = error
        self._hang = hang

    async def plan(self, view: Any, patches: Any) -> PlanOutcome:
        async with patches:
            for patch in self._patches:
                await patches.send(patch)
            if self._hang:
                await anyio.sleep_forever()
            if self._error is not None:
                raise self._error
        return PlanOutcome("complete", planner="scripted", tokens_in=3, tokens_out=4)


def planned(planner: Any, clock: Callable[[], float] = lambda: 1000.0) -> Any:
    def choose(name: str) -> Any:
        if isinstance(planner, Exception):
            raise planner
        return planner

    return lambda fleet: PlannerDesk(choose, fleet, clock)


async def run_planner(planner: Any, meet: Callable[[Rig], None] = lambda rig: None) -> list[dict[str, Any]]:
    """Submit a request; the events until the run is settled, as (kind, struct)."""
    journal = MemoryJournal()
    machine_rig = Rig(journal)
    desk = planned(planner)(machine_rig.engine.machine.fleet)
    rig = Rig(journal, planners=desk)
    meet(rig)
    journal.start(rig.engine)
    await rig.engine.begin(1)
    seen: list[Any] = []
    async with anyio.create_task_group() as group:
        await group.start(rig.engine.run)
        await rig.join()

        async def work() -> None:
            done: list[Assign] = []
            while True:
                await rig.streams.until(lambda: len(rig.streams.of(Assign)) > len(done))
                for assign in rig.streams.of(Assign)[len(done) :]:
                    rig.report(assign)
                    done.append(assign)

        group.start_soon(work)
        found = await rig.engine.ask(lambda reply: s.Submitted(reply, "do it", "", "me", RunSettings(), plan=True))
        async with rig.engine.watches.events(found["run"]) as watch:
            while not seen or type(seen[-1]) is not e.RunSettled:
                seen += [event for _, _, event in await watch.next()]
        group.cancel_scope.cancel()
    await journal.aclose()
    return seen


@pytest.mark.anyio
async def test_a_planners_patches_run_as_they_come_and_its_end_closes_the_plan() -> None:
    planner = Scripted(Patch("planner", (echo("a"),)), Patch("planner", (echo("b"),)))
    seen = await run_planner(planner)
    accepted = [event for event in seen if type(event) is e.PatchAccepted]
    assert [spec.id for event in accepted for spec in event.patch.tasks] == ["a", "b"]
    spent = next(event for event in seen if type(event) is e.BudgetSpent)
    assert (spent.tokens_in, spent.tokens_out) == (3, 4)
    assert seen[-1].state == "succeeded"


@pytest.mark.anyio
async def test_the_tasks_of_a_patch_have_left_before_its_planner_reads_on() -> None:
    rigs, left = list[Rig](), list[list[Assign]]()

    class Reads(Scripted):
        async def plan(self, view: Any, patches: Any) -> PlanOutcome:
            await patches.send(Patch("planner", (echo("a"),)))
            left.append(rigs[0].streams.of(Assign))
            return await super().plan(view, patches)

    await run_planner(Reads(), rigs.append)
    assert [assign.attempt.task for assign in left[0]] == [0]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("planner", "words"),
    [
        (Scripted(error=RuntimeError("oops")), "RuntimeError: oops"),
        (Scripted(error=Conflict("no", hint="do that")), "do that"),
        (UsageError("there is no planner x"), "no planner x"),
        (RuntimeError("no such folder"), "RuntimeError: no such folder"),
    ],
)
async def test_whatever_a_planner_does_the_core_hears_one_end(planner: Any, words: str) -> None:
    seen = await run_planner(planner)
    closed = [event for event in seen if type(event) is e.PlannerCallClosed]
    assert len(closed) == 1
    assert words in closed[0].message
    assert seen[-1].state == "failed"


@pytest.mark.anyio
async def test_a_planner_that_gives_no_end_is_stopped() -> None:
    posted: list[Any] = []
    state = State()
    state.apply(e.RunSubmitted(1, "r", "", "me", RunSettings(), {}))
    state.apply(e.PlannerCallOpened(1, 1, "plan"))
    rig = Rig(MemoryJournal())
    found = planned(Scripted(hang=True))(rig.engine.machine.fleet)
    async with anyio.create_task_group() as group:
        group.start_soon(found.plan, StartPlanner(1, 1, "r", 2000.0), state, posted.append)
        await turns()
        found.stop(1, 1)
    assert [(one.outcome, one.message) for one in posted] == [("failed", "the planner was stopped")]
