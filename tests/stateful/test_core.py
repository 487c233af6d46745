"""A person edits while workers run, die and return and the orchestrator crashes: a small oracle follows along."""

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bench.simulator import Refused, Simulator
from orchestrator.core import stimulus as s
from orchestrator.core.lifecycle import Closed, Settled
from orchestrator.core.setting import CoreSettings
from protocol.plan import parse_patch

NAMES = [f"t{n}" for n in range(8)]


class Editing(RuleBasedStateMachine):
    """`specs`: what each task was last accepted as. Whatever settles must have been accepted so, and stays so."""

    def __init__(self) -> None:
        super().__init__()
        self.sim = Simulator(workers=2, settings=CoreSettings(max_losses=100, poison_deaths=100), replay=True)
        self.sim.submit({"tasks": [{"id": "first", "skill": "sim.work", "args": {"value": 0, "run_s": 2.0}}]})
        self.sim.ask(lambda reply: s.PauseRequested(reply, 1, "ann"))
        self.specs: dict[str, Any] = {"first": 0}
        self.settled: dict[str, Any] = {}
        self.closed = False

    def _try(self, make: Any) -> bool:
        try:
            self.sim.ask(make)
        except Refused as error:
            if error.code not in ("PlanRefused", "Conflict", "NotFound"):
                raise
            return False
        return True

    @rule(
        name=st.sampled_from(NAMES),
        after=st.sampled_from(["first", *NAMES]),
        value=st.integers(0, 9),
        long=st.booleans(),
    )
    def put(self, name: str, after: str, value: int, long: bool) -> None:
        task = {"id": name, "skill": "sim.work", "args": {"value": value, "run_s": 3.0 if long else 0.05}}
        if after != name and after in self.specs:
            task["after"] = [after]
        patch = parse_patch({"tasks": [task]}, author="person:ann")
        if self._try(lambda reply: s.PatchProposed(reply, 1, patch)):
            self.specs[name] = value

    @rule(up=st.sampled_from(NAMES), down=st.sampled_from(NAMES), off=st.booleans())
    def link(self, up: str, down: str, off: bool) -> None:
        if up == down:
            return
        key = "unlinks" if off else "links"
        patch = parse_patch({key: [[up, down]], "tasks": []}, author="person:ann")
        self._try(lambda reply: s.PatchProposed(reply, 1, patch))

    @rule(name=st.sampled_from(NAMES), op=st.sampled_from(["cancel", "remove"]))
    def stop(self, name: str, op: str) -> None:
        patch = parse_patch({"edits": [{"op": op, "id": name}], "tasks": []}, author="person:ann")
        self._try(lambda reply: s.PatchProposed(reply, 1, patch))

    @rule(version=st.integers(1, 6))
    def undo(self, version: int) -> None:
        run = self.sim.state.runs[1]
        if self._try(lambda reply: s.UndoRequested(reply, 1, version, "ann")):
            for task in run.roots():
                args = json.loads(task.spec.args)
                self.specs[task.spec.id] = args["value"]

    @rule(resume=st.booleans())
    def pause(self, resume: bool) -> None:
        self._try(lambda reply: s.PauseRequested(reply, 1, "ann", resume))

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 8.0]))
    def wait(self, seconds: float) -> None:
        self.sim.advance(seconds)

    @rule(worker=st.integers(0, 1), what=st.sampled_from(["boot", "stream"]), away=st.sampled_from([0.2, 7.0]))
    def kill(self, worker: int, what: str, away: float) -> None:
        self.sim.workers[worker].kill(away, what == "boot")

    @rule()
    def crash(self) -> None:
        if self.sim.up:
            self.sim.advance(0.01)  # what was asked above was acknowledged, so it is on disk
            self.sim.crash()
        self.sim.advance(0.3)

    @invariant()
    def what_settled_was_accepted_and_stays(self) -> None:
        if not self.sim.up:
            return
        run = self.sim.state.runs[1]
        assert set(run.names) == set(self.specs)
        for task in run.roots():
            name = task.spec.id
            if isinstance(task.state, Settled) and self.sim.durable:
                assert self.settled.setdefault(name, (task.state, task.value)) == (task.state, task.value)
                if task.succeeded:
                    assert task.value == b'{"value":%d}' % self.specs[name]

    def teardown(self) -> None:
        self.sim.advance(1.0)
        self._try(lambda reply: s.PauseRequested(reply, 1, "ann", True))
        self.sim.settle(120.0)
        self.sim.prove_replay()
        assert all(type(run.state) is Closed for run in self.sim.state.runs.values())


TestEditing = Editing.TestCase
TestEditing.settings = settings(
    derandomize=True, deadline=None, max_examples=80, stateful_step_count=25, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
