"""Twenty-odd traces: runs that between them use every kind of task, edit and request, each the same every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.lifecycle import AwaitingApproval, Closed, Running, Unknown, Waiting
from orchestrator.core.setting import CoreSettings
from protocol.outcome import Failure
from protocol.patch import Patch
from protocol.plan import parse_patch, parse_plan
from protocol.task import RunSettings

from .rig import RUNS, Job, Program, Step, World, give_back


class Trace(msgspec.Struct, frozen=True):
    """`loose`: how the run may also end when the orchestrator is killed at a bad time (code by code)."""

    steps: tuple[Step, ...]
    programs: dict[str, Program] = {}
    settings: CoreSettings = CoreSettings()
    planner: Callable[[c.StartPlanner], list[Any]] | None = None
    loose: tuple[str, ...] = ()
    once: int = 1
    """How often the effect of a `once` task may happen: more only where a person said so."""


def work(name: str, skill: str = "x.pure", value: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": name, "skill": skill, "args": {"value": value}, **more}


def listing(name: str = "l", *items: Any) -> dict[str, Any]:
    return {"id": name, "skill": "flow.list", "args": {"items": list(items)}}


def always(_: World) -> bool:
    return True


def submit(*tasks: dict[str, Any], key: str = "first", **more: Any) -> Step:
    plan = parse_plan({"tasks": list(tasks), **more})
    patch = Patch("person:ann", plan.tasks, outputs=plan.outputs or None)
    inputs = {one.name: one.default for one in plan.inputs if one.default is not None}
    return Step(always, lambda reply: s.Submitted(reply, "", key, "ann", plan.settings, inputs, patch=patch))


def edit(document: dict[str, Any], when: Callable[[World], bool] = always, run: int = 1) -> Step:
    patch = parse_patch({"tasks": [], **document}, author="person:ann")
    return Step(when, lambda reply: s.PatchProposed(reply, run, patch), refusable=True)


def ask(make: Callable[[int], Any], when: Callable[[World], bool] = always) -> Step:
    return Step(when, make, refusable=True)


def state_of(name: str, kind: type, run: int = 1) -> Callable[[World], bool]:
    def holds(world: World) -> bool:
        record = world.state.runs.get(run)
        task = record.find(name) if record is not None else None
        return task is not None and type(task.state) is kind

    return holds


def closed(run: int = 1) -> Callable[[World], bool]:
    return lambda world: run in world.state.runs and type(world.state.runs[run].state) is Closed


def began(name: str) -> Callable[[World], bool]:
    return lambda world: world.fleet.executions.get(name, 0) > 0


ANSWER: Final = ask(lambda reply: s.AnswerGiven(reply, 1, "gate", "ann", b"1"), state_of("gate", Waiting))
GATE: Final = work("gate")


def gate(job: Job) -> Any:
    """Asks a person, so that everything after it waits until the client has said what it had to say."""
    return {"value": job.answers[0]["answer"]} if job.answers else ("ask", {"question": "go on?"})


def fails(klass: Any, times: int = 10**9) -> Program:
    def program(job: Job) -> Any:
        return Failure("Bad", "as told", klass) if job.number <= times else {"value": "at last"}

    return program


def effect(job: Job) -> Any:
    return {"value": "done"} if job.answers else ("begin_effect", None)


def stays(job: Job) -> Any:
    """Begins its effect and never ends."""
    return RUNS if job.answers else ("begin_effect", None)


def asks_for_more(job: Job) -> Any:
    return {"value": 2} if job.answers else ("propose", {"goal": "more of it"})


def parent(job: Job) -> Any:
    known = job.answers
    if len(known) < 2:
        return "spawn", {"skill": "x.pure", "args": {"value": len(known)}}
    if len(known) == 2:
        return "join", {"ids": [one["id"] for one in known]}
    return {"value": known[2]}


def _die_with(name: str) -> Step:
    """The worker that runs the task dies, once its effect has begun."""

    def act(world: World) -> None:
        for hand in world.fleet.hands:
            if any(live.assign.name.partition("#")[0] == name for live in hand.live.values()):
                world.die(hand)

    return Step(lambda world: world.fleet.effects.get(name, 0) > 0, act=act)


def _allowing(name: str) -> Step:
    """A person allows what asks because the plan it is of was cut off by a crash."""
    asks = state_of(name, AwaitingApproval)

    def act(world: World) -> None:
        if asks(world):
            world._do(s.ApprovalDecided(0, 1, name, "ann", True))

    return Step(lambda world: asks(world) or closed()(world), act=act)


def _replan(command: c.StartPlanner) -> list[Any]:
    run, call = command.run, command.call
    patch = parse_patch(
        {"tasks": [work("b2", value="instead")], "edits": [{"op": "give_up", "id": "b"}]}, author="planner"
    )
    return [s.PatchProposed(0, run, patch, call), s.PlanFinished(run, call, "complete", "", 10, 10)]


def _stream(command: c.StartPlanner) -> list[Any]:
    run, call = command.run, command.call
    parts = [parse_patch({"tasks": [task]}, author="planner") for task in (
        work("a", value=1), work("b", value={"ref": "a/value"}), work("o", "x.once", {"ref": "b/value"})
    )]  # fmt: skip
    return [*(s.PatchProposed(0, run, part, call) for part in parts), s.PlanFinished(run, call)]


_STREAMED: Final = Step(
    always, lambda reply: s.Submitted(reply, "do it", "streamed", "ann", RunSettings(), {}, plan=True)
)

LATER: Final = {"id": "n", "skill": "plan.next", "args": {
    "goal": "the rest", "facts": {"x": {"ref": "a/value"}}, "rounds": 2, "skills": ["x.pure", "x.once"],
}}  # fmt: skip


def _in_parts(command: c.StartPlanner) -> list[Any]:
    """The whole plan each time it is asked for, in two parts: what there is of it is known."""
    parts = [parse_patch({"tasks": [task], **more}, author="planner") for task, more in (
        (work("pure", value={"ref": "input/x"}), {}),
        (work("once", "x.once", value={"ref": "pure/value"}), {"outputs": [{"name": "o", "ref": "once/value"}]}),
    )]  # fmt: skip
    said = [s.PatchProposed(0, command.run, part, command.call) for part in parts]
    return [*said, s.PlanFinished(command.run, command.call)]


def _more(command: c.StartPlanner) -> list[Any]:
    """One more task, unless it is there."""
    assert command.digest is not None
    said: list[Any] = [s.PlanFinished(command.run, command.call)]
    if all(task.id != "extra" for task in command.digest.tasks):
        patch = parse_patch({"tasks": [work("extra", value=3)]}, author="planner")
        said.insert(0, s.PatchProposed(0, command.run, patch, command.call))
    return said


TRACES: Final[dict[str, Trace]] = {
    "chain": Trace((
        submit(work("a", value=1), work("b", value={"ref": "a/value"}), work("c", "x.idem", {"ref": "b"})),
    )),
    "fan_out": Trace((
        submit(work("a", value=1), *(work(f"b{n}", value={"ref": "a/value"}) for n in range(4)),
               work("d", value=[{"ref": f"b{n}"} for n in range(4)])),
    )),
    "chained_maps": Trace((
        submit(listing("l", 1, 2, 3), work("m", value={"ref": "l/items[]"}), work("n", value={"ref": "m[]/value"}),
               work("all", value={"ref": "n"})),
    )),
    "zip": Trace((
        submit(listing("l", 1, 2), listing("k", 3, 4), work("z", value=[{"ref": "l/items[]"}, {"ref": "k/items[]"}])),
    )),
    "chunks": Trace((
        submit(listing("l", 1, 2, 3, 4, 5), work("m", value={"ref": "l/items[]"}, map={"chunk": 2, "limit": 2}),
               work("all", value={"ref": "m"})),
    )),
    "map_with_failures": Trace((
        submit(listing("l", 1, 2, 3), work("m", value={"ref": "l/items[]"}, map={"on_error": "collect"}),
               work("all", value={"ref": "m"})),
    ), {"m.1": fails("permanent")}),
    "when": Trace((
        submit(work("a", value=5), work("yes", when=[{"ref": "a/value", "op": ">", "value": 3}]),
               work("no", when=[{"ref": "a/value", "op": "<", "value": 3}]), work("after", value={"ref": "no"})),
    )),
    "first_of": Trace((
        submit(work("a"), work("b", value=2), work("one", value={"ref": ["a/value", "b/value"]})),
    ), {"a": fails("permanent")}),
    "alt": Trace((submit(work("a", value=1, alt=["x.idem"]), work("b", value={"ref": "a"})),), {
        "a": lambda job: Failure("Bad", "as told", "permanent") if job.number == 1 else {"value": 2},
    }),
    "retry": Trace((submit(work("a"), work("b", value={"ref": "a/value"})),), {"a": fails("transient", 1)}),
    "once": Trace((
        submit(work("a", value=1), work("o", "x.once", {"ref": "a/value"}), work("b", value={"ref": "o/value"})),
    ), {"o": effect}),
    "unknown_resolved": Trace((
        submit(work("o", "x.once"), work("b", value={"ref": "o/value"})),
        _die_with("r1/o"),
        ask(lambda reply: s.UnknownResolved(reply, 1, "o", "ann", "succeeded", b'{"value":7}'), state_of("o", Unknown)),
    ), {"o": stays}),
    "unknown_again": Trace((
        submit(work("o", "x.once")),
        _die_with("r1/o"),
        ask(lambda reply: s.UnknownResolved(reply, 1, "o", "ann", "retry"), state_of("o", Unknown)),
    ), {"o": lambda job: (stays if job.number == 1 else effect)(job)}, once=2),
    "approval": Trace((
        submit(work("a", value=1), work("b", value={"ref": "a/value"}, approve=True), work("c", approve=True)),
        ask(lambda reply: s.ApprovalDecided(reply, 1, "b", "ann", True), state_of("b", AwaitingApproval)),
        ask(lambda reply: s.ApprovalDecided(reply, 1, "c", "ann", False), state_of("c", AwaitingApproval)),
    )),
    "spawn_join": Trace((submit(work("p", "x.parent"), work("b", value={"ref": "p/value"})),), {
        "p": parent, "p.0": give_back, "p.1": give_back,
    }),
    "question": Trace((submit(GATE, work("b", value={"ref": "gate/value"})), ANSWER), {"gate": gate}),
    "patches": Trace((
        submit(GATE, work("a", value=1, after=["gate"]), work("b", value={"ref": "a/value"}),
               work("r", after=["gate"])),
        edit({"tasks": [work("n", value={"ref": "b/value"})]}, state_of("gate", Waiting)),
        edit({"tasks": [work("a", value=2, after=["gate"])]}),
        edit({"links": [["r", "n"]]}),
        edit({"links": [["r", "n"], ["r", "n"]]}),
        edit({"unlinks": [["r", "n"]]}),
        edit({"edits": [{"op": "remove", "id": "r"}]}),
        ANSWER,
    ), {"gate": gate}),
    "undo": Trace((
        submit(GATE, work("a", value=1, after=["gate"])),
        edit({"tasks": [work("a", value=2, after=["gate"]), work("n", after=["a"])]}, state_of("gate", Waiting)),
        ask(lambda reply: s.UndoRequested(reply, 1, 2, "ann")),
        ANSWER,
    ), {"gate": gate}),
    "cancel": Trace((
        submit(work("a", value=1), work("b", value={"ref": "a/value"}), work("c", after=["b"])),
        ask(lambda reply: s.CancelRequested(reply, 1, "", "ann"), state_of("b", Running)),
    ), {"b": lambda job: RUNS}),
    "pause": Trace((
        submit(work("a", value=1), work("b", value={"ref": "a/value"}), work("c", value={"ref": "b/value"})),
        ask(lambda reply: s.PauseRequested(reply, 1, "ann"), began("r1/a")),
        ask(lambda reply: s.PauseRequested(reply, 1, "ann", resume=True)),
    )),
    "fork": Trace((
        submit(work("a", value=1), work("o", "x.once", {"ref": "a/value"}), work("b", value={"ref": "o/value"})),
        ask(lambda reply: s.ForkRequested(reply, 1, by="ann", key="fork"), closed()),
        ask(lambda reply: s.RemoveRequested(reply, 1), closed(2)),
    ), {"o": effect}),
    "replan": Trace((
        submit(work("a", value=1), work("b", after=["a"]), work("c", after=["b"]), run={"on_failure": "replan"},
               outputs=[{"name": "o", "ref": "a"}]),
    ), {"b": fails("permanent")}, planner=_replan),
    "streamed_plan": Trace((_STREAMED, _allowing("o")), {"o": effect}, planner=_stream),
    "sub_plan": Trace((
        submit(work("a", value=1), LATER, work("after", value={"ref": "n/o"}), outputs=[{"name": "o", "ref": "after"}]),
        _allowing("n.once"),
    ), {"n.once": effect}, planner=_in_parts),
    "goal": Trace((submit(work("p", "x.pure", value=1), work("q", value={"ref": "p/value"})),), {"p": asks_for_more},
                  planner=_more),
    "review": Trace((submit(work("a", value=1), work("b", after=["a"]), work("c", after=["b"]), run={"review": 1}),),
                    planner=_more),
    "enrolment": Trace((
        ask(lambda reply: s.TokenAsked(reply, "1" * 64, "worker", 2, 900.0, "ann")),
        ask(lambda reply: s.Enrolled(reply, "w9", "2" * 64, token=1)),
        ask(lambda reply: s.TokenAsked(reply, "3" * 64, "viewer", 1, 0.0, "ann")),
        ask(lambda reply: s.ClientEnrolled(reply, 2, "bob", "4" * 64)),
        ask(lambda reply: s.TokenRevocation(reply, 1, "ann")),
        submit(work("a", value=1)),
    )),
    "deadline": Trace((submit(work("a", value=1), work("b", after=["a"]), run={"deadline": 20}),),
                      {"b": lambda job: RUNS}),
    "budget": Trace((
        submit(listing("l", 1, 2, 3), work("m", value={"ref": "l/items[]"}), run={"budget": {"tasks": 3}}),
    )),
}  # fmt: skip
