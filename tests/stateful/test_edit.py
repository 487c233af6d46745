"""Edits x execution x recovery, against a small oracle that knows what graph.md promises of patches, and nothing else.

The oracle keeps the graph as dictionaries, version by version. It says of every patch whether it must be accepted, and
what the graph is then; whatever workers, streams, persons and crashes do in between, the core has to agree.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.core import stimulus as s
from orchestrator.core.graph import Task
from orchestrator.core.lifecycle import AwaitingApproval, Closed, Paused, Pending, Ready, Settled, Unknown, Waiting
from orchestrator.core.setting import CoreSettings
from protocol.errors import PlanRefused
from protocol.outcome import Failure, Success
from protocol.plan import parse_patch
from protocol.task import RunSettings
from tests.stateful.rig import RUNS, World, replayed
from tests.stateful.trace import work

NAMES = [f"t{n}" for n in range(8)]
NAME = st.sampled_from(NAMES)
Graph = dict[str, dict[str, Any]]


class Model:
    """What was accepted: the tasks of every version, and when each was last changed."""

    def __init__(self) -> None:
        self.history: list[Graph] = [{}]
        self.touched: list[set[str]] = [set()]
        self.changed: dict[str, int] = {}
        self.acted: list[bool] = [False]
        """Whether a version did more than to write tasks: then it can't be taken back."""

    @property
    def graph(self) -> Graph:
        return self.history[-1]

    def accept(self, graph: Graph, touched: set[str], acted: bool = False) -> None:
        self.acted.append(acted)
        self.history.append(graph)
        self.touched.append(touched)
        self.changed |= dict.fromkeys(touched & set(graph), len(self.history) - 1)

    def after(self, document: dict[str, Any]) -> tuple[Graph, set[str], set[str]]:
        """The graph that the patch would make, whom it writes anew, and whom it relies on."""
        graph = {name: dict(task) for name, task in self.graph.items()}
        touched, relies = set(), set(document.get("relies", ()))
        for task in document.get("tasks", ()):
            graph[task["id"]] = task
            touched.add(task["id"])
            relies |= sources(task)
        for up, down in document.get("links", ()):
            if down in graph:
                graph[down] = {**graph[down], "after": [*graph[down].get("after", []), up]}
            touched.add(down)
            relies.add(up)
        for up, down in document.get("unlinks", ()):
            if down in graph:
                graph[down] = {**graph[down], "after": [one for one in graph[down].get("after", []) if one != up]}
            touched.add(down)
            relies.add(up)
        for edit in document.get("edits", ()):
            relies.add(edit["id"])
        return graph, touched, relies


def sources(task: dict[str, Any]) -> set[str]:
    value = task.get("args", {}).get("value")
    return set(task.get("after", ())) | ({value["ref"]} if isinstance(value, dict) else set())


def cyclic(graph: Graph) -> bool:
    left = {name: sources(task) & set(graph) for name, task in graph.items()}
    while ready := [name for name, up in left.items() if not up & set(left)]:
        for name in ready:
            del left[name]
    return bool(left)


@st.composite
def tasks(draw: st.DrawFn) -> dict[str, Any]:
    up = draw(st.none() | st.sampled_from(["keep", *NAMES[:6]]))
    value = {"ref": up} if up is not None and draw(st.booleans()) else draw(st.integers(0, 9))
    more: dict[str, Any] = {"after": [up]} if up is not None and not isinstance(value, dict) else {}
    if draw(st.integers(0, 5)) == 0:
        more["approve"] = True
    skill = draw(st.sampled_from(["x.pure", "x.pure", "x.idem", "x.once"]))
    return work(draw(NAME), skill, value, **more)


class Editing(RuleBasedStateMachine):
    """Run 1 is edited; forks only have to come to an end."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World((), {}, settings=CoreSettings(max_losses=1000))
        self.world.programs = dict.fromkeys(["keep", *NAMES], lambda job: RUNS)
        self.model = Model()
        self.settled: dict[str, Any] = {}
        self.reported: dict[str, set[bytes]] = {}
        self.tokens = 0

    @initialize(replanned=st.booleans(), lag=st.sampled_from([0, 0, 2]), failing=st.integers(0, 1))
    def submit(self, replanned: bool, lag: int, failing: int) -> None:
        """`keep` runs to the last and keeps the run open. `replanned`: failures stay open, nobody plans."""
        first = [
            work("keep"), work("t0"), work("t1", "x.once"), work("t2", after=["keep"]), work("t3", value={"ref": "t2"}),
            work("t4", approve=True), work("t5", after=["t0", "t1"]),
        ]  # fmt: skip
        patch = parse_patch({"tasks": first}, author="person:ann")
        run = RunSettings("replan" if replanned else "continue")
        self.world.lag = lag
        assert self.world.ask(lambda reply: s.Submitted(reply, "", "k", "ann", run, patch=patch)) is None
        self.model.accept({task["id"]: task for task in first}, {task["id"] for task in first})
        self.world.deliver()
        if replanned:
            self._end(failing, "permanent")

    # what the oracle says

    def _run(self) -> Any:
        return self.world.state.runs[1]

    def _task(self, name: str) -> Task | None:
        found: Task | None = self._run().find(name)
        return found

    def _editable(self, name: str) -> bool:
        task = self._task(name)
        if task is None:
            return True
        if isinstance(task.state, Settled):
            return task.state.open
        return isinstance(task.state, Pending | Ready | AwaitingApproval) and not task.attempts

    def _frozen(self) -> bool:
        return type(self._run().state) is Closed or self._run().cancelled

    def _legal(self, document: dict[str, Any]) -> bool:
        graph, touched, relies = self.model.after(document)
        base = document.get("base", -1)
        if self._frozen() or cyclic(graph):
            return False
        if base >= 0 and any(self.model.changed.get(name, 0) > base for name in touched | relies):
            return False
        known = set(graph)
        if not (touched | relies) <= known:
            return False
        altered = {task["id"] for task in document.get("tasks", ())}
        altered |= {pair[1] for key in ("links", "unlinks") for pair in document.get(key, ())}
        if not all(map(self._editable, altered)):
            return False
        return all(self._edit_is_legal(edit) for edit in document.get("edits", ()))

    def _edit_is_legal(self, edit: dict[str, Any]) -> bool:
        task = self._task(edit["id"])
        if task is None:
            return False
        is_open = isinstance(task.state, Settled) and task.state.open
        if edit["op"] in ("retry", "give_up"):
            return is_open
        if edit["op"] == "remove":
            return self._editable(edit["id"])
        return not isinstance(task.state, Settled)

    def _propose(self, document: dict[str, Any]) -> None:
        try:
            patch = parse_patch({"tasks": [], **document}, author="person:ann")
        except PlanRefused:
            return  # refused before it reaches the graph: names itself, twice the same name
        legal, before, version = self._legal(document), self.world.state.snapshot(), self._run().version
        specs = {task.spec.id: task.spec for task in self._run().roots()}
        error = self.world.ask(lambda reply: s.PatchProposed(reply, 1, patch))
        assert (error is None) == legal, f"{document}: {error}"
        if error is not None:
            assert self.world.state.snapshot() == before, "a refused patch has changed something"
            return
        assert self._run().version == version + 1
        graph, touched, _ = self.model.after(document)
        self.model.accept(graph, touched, "edits" in document)
        self.model.changed |= dict.fromkeys((edit["id"] for edit in document.get("edits", ())), version + 1)
        for name, spec in specs.items():
            assert name in touched or self._task(name).spec == spec  # type: ignore[union-attr]
        self._agrees()
        self.world.deliver()

    def _agrees(self) -> None:
        specs = {task.spec.id: task.spec for task in self._run().roots()}
        assert set(specs) >= set(self.model.graph)
        for name, task in self.model.graph.items():
            assert msgspec.json.decode(specs[name].args) == task["args"], name
            assert set(specs[name].after) == set(task.get("after", ())), name

    # persons

    @rule(new=st.lists(tasks(), min_size=1, max_size=2, unique_by=lambda one: one["id"]), back=st.integers(-1, 2))
    def put(self, new: list[dict[str, Any]], back: int) -> None:
        base = {} if back < 0 else {"base": max(0, self._run().version - back)}
        self._propose({"tasks": new, **base})

    @rule(up=NAME, down=NAME, off=st.booleans())
    def link(self, up: str, down: str, off: bool) -> None:
        self._propose({"unlinks" if off else "links": [[up, down]]})

    @rule(name=NAME, op=st.sampled_from(["cancel", "remove", "retry", "give_up"]))
    def edit(self, name: str, op: str) -> None:
        self._propose({"edits": [{"op": op, "id": name}]})

    def _open(self) -> list[str]:
        tasks = self._run().roots() if 1 in self.world.state.runs else ()
        return [task.spec.id for task in tasks if isinstance(task.state, Settled) and task.state.open]

    @precondition(lambda self: bool(self._open()))
    @rule(which=st.integers(0, 9), op=st.sampled_from(["retry", "give_up", "remove", "replace"]))
    def deal(self, which: int, op: str) -> None:
        """What failed, and is open until somebody says what becomes of it."""
        name = self._open()[which % len(self._open())]
        self._propose({"tasks": [work(name, value=3)]} if op == "replace" else {"edits": [{"op": op, "id": name}]})

    @rule(version=st.integers(1, 9))
    def undo(self, version: int) -> None:
        before, run = self.world.state.snapshot(), self._run()
        known = version < len(self.model.history)
        touched = self.model.touched[version] if known else set()
        error = self.world.ask(lambda reply: s.UndoRequested(reply, 1, version, "ann"))
        if error is not None:
            assert self.world.state.snapshot() == before
            return
        assert known
        assert not self.model.acted[version], "what was cancelled can't be taken back"
        assert not self.settled.keys() & touched, "what was settled was taken back"
        older = self.model.history[version - 1]
        graph = self.model.graph | {name: older[name] for name in touched if name in older}
        self.model.accept(graph, touched, not touched <= set(older))
        assert run.version == len(self.model.history) - 1
        self.world.deliver()

    @rule(at=st.integers(-1, 4))
    def fork(self, at: int) -> None:
        if len(self.world.state.runs) < 3:
            self.world.ask(lambda reply: s.ForkRequested(reply, 1, at, "ann"))
            self.world.deliver()

    @rule(resume=st.booleans())
    def pause(self, resume: bool) -> None:
        self.world.ask(lambda reply: s.PauseRequested(reply, 1, "ann", resume))
        self.world.deliver()

    @rule(name=NAME, yes=st.booleans())
    def approve(self, name: str, yes: bool) -> None:
        self.world.ask(lambda reply: s.ApprovalDecided(reply, 1, name, "ann", yes))
        self.world.deliver()

    @precondition(lambda self: len(self.model.history) > 6)
    @rule(sure=st.integers(0, 9))
    def cancel(self, sure: int) -> None:
        if sure == 0:
            self.world.ask(lambda reply: s.CancelRequested(reply, 1, "", "ann"))
            self.world.deliver()

    # workers, streams, the orchestrator

    @rule(which=st.integers(0, 9), how=st.sampled_from(["well", "well", "permanent", "permanent", "transient"]))
    def end(self, which: int, how: Any) -> None:
        """One of the attempts that run ends; every value there is comes from one attempt alone."""
        self._end(which, how)

    def _end(self, which: int, how: Any) -> None:
        live = [
            (hand, key, name) for hand in self.world.fleet.hands for key, one in hand.live.items()
            if not (name := one.assign.name.partition("#")[0]).endswith("keep")
        ]  # fmt: skip
        if not live:
            return
        hand, key, name = live[which % len(live)]
        self.tokens += 1
        value = b'{"value":%d}' % (1000 + self.tokens)
        outcome = Success(value) if how == "well" else Failure("Bad", "as told", how)
        if how == "well":
            self.reported.setdefault(name, set()).add(value)
        self.world._end(hand, key, outcome)
        self.world.deliver()

    @rule(worker=st.integers(0, 1), what=st.sampled_from(["dies", "redials", "loses"]))
    def disturb(self, worker: int, what: str) -> None:
        hand = self.world.fleet.hands[worker]
        if what == "dies":
            self.world.die(hand)
        elif what == "redials":
            self.world._do(s.WorkerGone(hand.conn, hand.ident))
            self.world.join(hand)
        else:
            self.world.fleet.inbox.clear()
        self.world.deliver()

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.0]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(one_by_one=st.booleans())
    def crash(self, one_by_one: bool) -> None:
        """What people were told is there again, byte for byte."""
        world = self.world
        last = next((state for state in reversed(world.states) if state), None)
        if last is not None:
            assert replayed(world.disk).snapshot() == last
        if not world._queued:
            assert replayed(world.disk).snapshot() == world.state.snapshot()
        self.world = world.crashed(one_by_one=one_by_one)
        self.world.deliver()

    @invariant()
    def what_is_settled_stays(self) -> None:
        if 1 not in self.world.state.runs or self.world._queued:
            return  # what waits for the disk was told to nobody
        for task in self._run().roots():
            state = task.state
            if isinstance(state, Settled) and not state.open:
                kept = self.settled.setdefault(task.spec.id, (state, task.value))
                assert kept == (state, task.value), f"{task.spec.id} was settled and has changed"
            if task.succeeded and task.state.winner:  # type: ignore[union-attr]
                assert task.value in self.reported[f"r1/{task.spec.id}"], "a result that nobody reported"

    def teardown(self) -> None:
        """Everything ends well: no run is stuck, whatever was done to it."""
        world = self.world
        if 1 not in world.state.runs:
            return
        world.programs = {}
        for run in list(world.state.runs.values()):
            if isinstance(run.state, Paused):
                world.ask(lambda reply, ix=run.ix: s.PauseRequested(reply, ix, "ann", resume=True))
        for _ in range(400):
            if all(type(run.state) is Closed for run in world.state.runs.values()):
                break
            world.turn()
            self._decide()
        assert all(type(run.state) is Closed for run in world.state.runs.values()), world.story()
        world._commit()
        assert replayed(world.disk).snapshot() == world.state.snapshot()

    def _decide(self) -> None:
        """Persons answer whatever asks them, planners give up."""
        for run in list(self.world.state.runs.values()):
            for call in list(run.calls):
                self.world._do(s.PlanFinished(run.ix, call))
            for task in list(run.tasks):
                name = run.name_of(task)
                if isinstance(task.state, AwaitingApproval):
                    self.world.ask(lambda reply, r=run.ix, n=name: s.ApprovalDecided(reply, r, n, "ann", True))
                elif isinstance(task.state, Unknown):
                    self.world.ask(lambda reply, r=run.ix, n=name: s.UnknownResolved(reply, r, n, "ann", "fail"))
                else:
                    assert not isinstance(task.state, Waiting)


TestEditing = Editing.TestCase
TestEditing.settings = settings(
    derandomize=True, deadline=None, max_examples=80, stateful_step_count=30, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.generate],  # thirty steps are read sooner than shrunk
)  # fmt: skip
