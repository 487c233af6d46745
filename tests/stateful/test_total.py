"""The core is total: whatever is asked or reported of a task in whatever state is carried out or refused in words.

The whole cross product: tasks in every state of their life, times every request and every item a worker can send.
Nothing raises; what is refused has changed nothing; a task that was settled stays as it was; and only a task that was
never dispatched, or that failed and is open, is altered by an edit (G3, G4, G9).
"""

from __future__ import annotations

import typing
from typing import Any

import pytest

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.event_codec import decode_events, encode_events
from orchestrator.core.graph import Task
from orchestrator.core.lifecycle import (
    SHOWN,
    AwaitingApproval,
    Expanded,
    Pending,
    Ready,
    Running,
    Settled,
    Unknown,
    Waiting,
)
from orchestrator.core.machine import Machine
from orchestrator.core.state import State
from protocol.errors import AsterismError, _tree
from protocol.frame import Call, CallKind, Heartbeat, Held, Hello, Rejected, Report
from protocol.ids import AttemptId, Fence
from protocol.outcome import Failure, Stopped, Success
from protocol.plan import parse_patch
from tests.stateful.rig import JOURNAL, PROFILE, RUNS, World
from tests.stateful.trace import (
    GATE,
    LATER,
    Step,
    _die_with,
    ask,
    closed,
    fails,
    gate,
    listing,
    state_of,
    stays,
    submit,
    work,
)

T = work("t")
NEVER = lambda job: RUNS  # noqa: E731
SETTINGS: dict[str, Any] = {"run": {"on_failure": "replan"}}
PAUSE = ask(lambda reply: s.PauseRequested(reply, 1, "ann"), state_of("gate", Waiting))
ANSWER = ask(lambda reply: s.AnswerGiven(reply, 1, "gate", "ann", b"1"))
CANCEL = ask(lambda reply: s.CancelRequested(reply, 1, "t", "ann"), state_of("t", Running))

PLACES: dict[str, tuple[tuple[Step, ...], dict[str, Any], Any]] = {
    "pending": ((submit(GATE, work("t", after=["gate"])),), {"gate": gate}, state_of("gate", Waiting)),
    "ready": ((submit(GATE, work("t", after=["gate"])), PAUSE, ANSWER), {"gate": gate}, state_of("t", Ready)),
    "awaiting": ((submit(work("t", approve=True)),), {}, state_of("t", AwaitingApproval)),
    "running": ((submit(T),), {"t": NEVER}, state_of("t", Running)),
    "running_once": ((submit(work("t", "x.once")),), {"t": stays}, lambda world: world.fleet.effects.get("r1/t")),
    "expanded": ((submit(listing("l", 1, 2), work("t", value={"ref": "l/items[]"})),), {"t": NEVER},
                 state_of("t", Expanded)),
    "asking": ((submit(T),), {"t": gate}, state_of("t", Waiting)),
    "joining": ((submit(T),), {
        "t": lambda job: [("spawn", {"skill": "x.pure"}), ("join", {"ids": ["t.0"]})][len(job.answers)], "t.0": NEVER,
    }, state_of("t", Waiting)),
    "wishing": ((submit(T),), {"t": lambda job: ("propose", {"goal": "more"})}, state_of("t", Waiting)),
    "planned": ((submit(work("a", value=1), LATER | {"id": "t"}),), {}, state_of("t", Waiting)),
    "unknown": ((submit(work("t", "x.once")), _die_with("r1/t")), {"t": stays}, state_of("t", Unknown)),
    "succeeded": ((submit(T, work("u")),), {"u": NEVER}, state_of("t", Settled)),
    "failed": ((submit(T, work("u")),), {"t": fails("permanent"), "u": NEVER}, state_of("t", Settled)),
    "failed_open": ((submit(T, work("u"), **SETTINGS),), {"t": fails("permanent"), "u": NEVER}, state_of("t", Settled)),
    "failed_map": ((submit(listing("l", 1, 2), work("t", value={"ref": "l/items[]"}), work("u"), **SETTINGS),),
                   {"t": fails("permanent"), "u": NEVER}, state_of("t", Settled)),
    "skipped": ((submit(work("v"), work("t", after=["v"]), work("u")),),
                {"v": fails("permanent"), "u": NEVER}, state_of("t", Settled)),
    "cancelled": ((submit(T, work("u")), CANCEL), {"t": NEVER, "u": NEVER}, state_of("t", Settled)),
    "closed": ((submit(T),), {}, closed()),
}  # fmt: skip
KINDS = {
    "pending": Pending, "ready": Ready, "awaiting": AwaitingApproval, "running": Running, "running_once": Running,
    "expanded": Expanded, "asking": Waiting, "joining": Waiting,
    "wishing": Waiting, "planned": Waiting, "unknown": Unknown, "succeeded": Settled,
    "failed": Settled, "failed_open": Settled, "failed_map": Settled,
    "skipped": Settled, "cancelled": Settled, "closed": Settled,
}  # fmt: skip


def edit(document: dict[str, Any], author: str = "person:ann") -> Any:
    patch = parse_patch({"tasks": [], **document}, author=author)
    return lambda task: s.PatchProposed(9, 1, patch)


REQUESTS: dict[str, Any] = {
    "replace": edit({"tasks": [work("t", value="other")]}),
    "remove": edit({"edits": [{"op": "remove", "id": "t"}]}),
    "retry": edit({"edits": [{"op": "retry", "id": "t"}]}),
    "give_up": edit({"edits": [{"op": "give_up", "id": "t"}]}),
    "cancel_edit": edit({"edits": [{"op": "cancel", "id": "t"}]}),
    "finish": edit({"edits": [{"op": "finish"}]}),
    "link_up": edit({"tasks": [work("n")], "links": [["n", "t"]]}),
    "link_down": edit({"tasks": [work("n")], "links": [["t", "n"]]}),
    "unlink": edit({"unlinks": [["gate", "t"]]}),
    "depend": edit({"tasks": [work("n", value={"ref": "t/value"})]}),
    "map_over": edit({"tasks": [work("n", value={"ref": "t[]"})]}),
    "stale": edit({"base": 0, "tasks": [work("n", value={"ref": "t/value"})]}),
    "relies": edit({"base": 0, "relies": ["t"], "tasks": [work("n")]}),
    "cycle": edit({"tasks": [work("n", after=["t"])], "links": [["n", "t"]]}),
    "outputs": edit({"outputs": [{"name": "o", "ref": "t"}]}),
    "by_the_planner_asked": lambda task: s.PatchProposed(
        9, 1, parse_patch({"tasks": [work("n")]}, author="planner"), 1
    ),
    "by_a_planner": edit({"tasks": [work("t", value="other")]}, "planner"),
    "cancel": lambda task: s.CancelRequested(9, 1, "t", "ann"),
    "cancel_run": lambda task: s.CancelRequested(9, 1, "", "ann"),
    "pause": lambda task: s.PauseRequested(9, 1, "ann"),
    "resume": lambda task: s.PauseRequested(9, 1, "ann", resume=True),
    "approve": lambda task: s.ApprovalDecided(9, 1, "t", "ann", True),
    "reject": lambda task: s.ApprovalDecided(9, 1, "t", "ann", False),
    "approve_all": lambda task: s.ApprovalDecided(9, 1, "", "ann", True),
    "answer": lambda task: s.AnswerGiven(9, 1, "t", "ann", b'"yes"'),
    "resolve_succeeded": lambda task: s.UnknownResolved(9, 1, "t", "ann", "succeeded", b"7"),
    "resolve_retry": lambda task: s.UnknownResolved(9, 1, "t", "ann", "retry"),
    "resolve_fail": lambda task: s.UnknownResolved(9, 1, "t", "ann", "fail"),
    "fork": lambda task: s.ForkRequested(9, 1, by="ann"),
    "fork_of_nothing": lambda task: s.ForkRequested(9, 1, 99, "ann"),
    "undo": lambda task: s.UndoRequested(9, 1, 1, "ann"),
    "forget": lambda task: s.RemoveRequested(9, 1),
    "plan_finished": lambda task: s.PlanFinished(1, 1),
    "resolved": lambda task: s.Resolved(1, task.ix, "l/items[]", b"5"),
    "resolved_badly": lambda task: s.Resolved(1, task.ix, "l/items[]", b"null", False, "gone"),
    "stage": lambda task: s.StageAsked(9, 1, 1, ("file://w1/a", "file://w9/b")),
    "drain": lambda task: s.DrainAsked(9, "w1"),
    "dismiss": lambda task: s.WorkerDismissed(1),
    "disk_full": lambda task: s.DiskState(True),
}


def report(outcome: Any, **other: Any) -> Any:
    def make(task: Task) -> Any:
        number, fence, pin = _attempt(task)
        return Report(
            AttemptId(1, task.ix, other.get("number", number)),
            other.get("fence", fence),
            other.get("pin", pin),
            outcome,
        )

    return make


def call(what: Any, body: bytes = b"{}") -> Any:
    def make(task: Task) -> Any:
        number, fence, _ = _attempt(task)
        return Call(AttemptId(1, task.ix, number), fence, 50, what, body)

    return make


def _attempt(task: Task) -> tuple[int, Fence, bytes]:
    last = task.attempts[-1] if task.attempts else None
    return (last.number, last.fence, last.pin) if last is not None else (1, Fence(1, 1), b"p" * 32)


ITEMS: dict[str, Any] = {
    "success": report(Success(b'{"value":1}')),
    "no_json": report(Success(b"{")),
    **{
        f"failure_{klass}": report(Failure("Bad", "no", klass))
        for klass in ("infra", "transient", "permanent", "policy")
    },
    "stopped": report(Stopped("x")),
    "unknown_attempt": report(Success(b"1"), number=77),
    "stale_fence": report(Success(b"1"), fence=Fence(0, 0)),
    "other_pin": report(Success(b"1"), pin=b"q" * 32),
    **{f"call_{what}": call(what) for what in typing.get_args(CallKind)},
    "spawn": call("spawn", b'{"skill":"x.pure"}'),
    "join": call("join", b'{"ids":["t.0"]}'),
    "propose_goal": call("propose", b'{"goal":"more"}'),
    "propose_nothing": call("propose", b'{"goal":7}'),
    "propose": call("propose", b'{"patch":{"tasks":[{"id":"n","skill":"x.pure"}]}}'),
    "rejected": lambda task: Rejected(AttemptId(1, task.ix, _attempt(task)[0]), "BadSpec", "x"),
    "has_nothing": lambda task: Heartbeat(30.0),
    "has_it": lambda task: Heartbeat(30.0, (AttemptId(1, task.ix, _attempt(task)[0]), AttemptId(9, 9, 9))),
}


@pytest.fixture(scope="module")
def places() -> dict[str, World]:
    """A world for every state of a task, brought there once; each case goes on from its snapshot."""
    found = {}
    for name, (steps, programs, there) in PLACES.items():
        world = World(steps, programs)
        for _ in range(60):
            if there(world):
                break
            world.turn()
        world._commit()
        assert type(_task(world.state).state) is KINDS[name], world.story()
        found[name] = world
    return found


def _task(state: State) -> Task:
    task = state.runs[1].find("t")
    assert task is not None
    return task


def _revived(world: World) -> tuple[Machine, list[bytes]]:
    """A machine with that state after a restart, its workers back with what they hold."""
    machine = Machine(State.restore(world.state.snapshot()))
    records: list[bytes] = []
    now = world.fleet.now + 1.0
    _do(machine, s.Started(2, JOURNAL), now, records)
    for hand in world.fleet.hands:
        held = tuple(Held(key, live.assign.fence, live.assign.pin) for key, live in hand.live.items())
        hello = Hello(hand.name, f"{hand.name}.{hand.boot}", PROFILE, JOURNAL, 1, held)
        _do(machine, s.WorkerJoined(100 + hand.ident, hand.ident, hello), now, records)
    return machine, records


def _do(machine: Machine, stimulus: Any, now: float, records: list[bytes]) -> Any:
    decision = machine.handle(stimulus, now)
    machine.check()
    if decision.events:
        records.append(encode_events(decision.events))
    return decision


def _prove(world: World, stimuli: list[Any], edits: bool) -> None:
    machine, records = _revived(world)
    before = machine.state.snapshot()
    old = _task(machine.state)
    was = (type(old.state), old.spec, old.value, old.state, bool(old.attempts))
    editable = was[0] in (Pending, Ready, AwaitingApproval) and not was[4]
    editable = editable or (isinstance(old.state, Settled) and old.state.open)
    now = world.fleet.now + 1.0
    decision = _do(machine, stimuli[0](old), now, records)
    refusals = [one.error for one in decision.commands if isinstance(one, c.Reply) and one.error is not None]
    if refusals:
        assert all(one["code"] in _tree(AsterismError) for one in refusals)
        assert machine.state.snapshot() == before, f"refused, and something has changed: {refusals}"
    if 1 in machine.state.runs:
        new = _task(machine.state)
        if was[0] is Settled and not was[3].open:  # type: ignore[union-attr]
            assert (new.state, new.spec, new.value) == (was[3], was[1], was[2]), "a settled task has changed"
        if edits and not editable:
            assert new.spec == was[1], "a dispatched task was altered"
    for stimulus, at in ((s.Flush(), now), (s.Tick(), now + 90.0), (s.Flush(), now + 90.0)):
        _do(machine, stimulus, at, records)
    again = State.restore(world.state.snapshot())
    for record in records:
        for event in decode_events(record):
            again.apply(event)
    assert again.snapshot() == machine.state.snapshot(), "the replay differs"


def test_the_places_are_every_state_of_a_task() -> None:
    assert set(KINDS.values()) == {*SHOWN, Settled}
    assert set(KINDS) == set(PLACES)


@pytest.mark.parametrize("request_", REQUESTS)
def test_every_request_in_every_state_is_carried_out_or_refused(places: dict[str, World], request_: str) -> None:
    for name, world in places.items():
        try:
            _prove(world, [REQUESTS[request_]], True)
        except Exception as error:
            raise AssertionError(f"{request_} of a task that is {name}: {error!r:.600}") from error


@pytest.mark.parametrize("item", ITEMS)
def test_every_item_in_every_state_counts_or_changes_nothing(places: dict[str, World], item: str) -> None:
    for name, world in places.items():
        for worker in (1, 2):
            try:
                _prove(world, [lambda task, w=worker: s.WorkerSent(100 + w, w, (ITEMS[item](task),))], False)
            except Exception as error:
                raise AssertionError(f"{item} of worker {worker}, of a task that is {name}: {error!r:.600}") from error
