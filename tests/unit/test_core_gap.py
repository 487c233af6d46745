"""What a run is held to: its token and price budgets, waiting parents, needs of children, detaching, retried maps."""

import msgspec
import pytest

from bench.simulated_skill import default_program
from bench.simulator import Refused, Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.lifecycle import Waiting
from protocol.outcome import Failure, Success, Usage
from protocol.patch import Edit, Patch
from workers import stimulus as on


def work(ident, skill="sim.work", run_s=0.05, **more):
    return {"id": ident, "skill": skill, "args": {"value": ident, "run_s": run_s}, **more}


def events(sim, kind):
    return [event for _, _, decision in sim.log for event in decision.events if isinstance(event, kind)]


def report(sim, name, usage):
    """The task's live attempt reports success, and what it has used."""
    (attempt,) = sim.task(name).live()
    ident = next(one for one in sim.workers[attempt.worker - 1].live if one.task == sim.task(name).ix)
    sim.workers[attempt.worker - 1].step(on.Ended((on.Result(ident, Success(b'{"value":1}'), usage),)))


@pytest.mark.parametrize(
    ("budget", "usage"), [({"tokens": 100}, Usage(tokens_in=80, tokens_out=30)), ({"price": 0.5}, Usage(price=0.6))]
)
def test_a_run_over_what_its_attempts_may_use_is_stopped_with_what_it_has(budget, usage):
    sim = Simulator()
    tasks = [work("a", run_s=50), work("b", run_s=50), work("c", after=["a", "b"])]
    sim.submit({"tasks": tasks, "run": {"budget": budget}})
    sim.advance(0.5)
    report(sim, "a", usage)
    sim.settle()
    state = sim.state.runs[1].state
    assert (state.state, state.code) == ("failed", "BudgetSpent")
    assert "its budget has" in state.message
    assert sim.states() == {"a": "succeeded", "b": "cancelled", "c": "cancelled"}
    sim.prove_replay()


def test_a_run_within_its_budget_goes_on():
    sim = Simulator()
    sim.submit({"tasks": [work("a", run_s=50), work("b", after=["a"])], "run": {"budget": {"tokens": 100}}})
    sim.advance(0.5)
    report(sim, "a", Usage(tokens_in=70, tokens_out=30))
    sim.settle()
    assert sim.states() == {"a": "succeeded", "b": "succeeded"}


def test_a_child_has_the_needs_it_was_spawned_with():
    def parent(job):
        child = yield "spawn", {"skill": "sim.work", "args": {"value": 1}, "needs": {"cpu": 2, "memory": "1MiB"}}
        yield "join", {"ids": [child["id"]]}
        return {"value": 1}

    sim = Simulator(program={"sim.parent": parent, "sim.work": default_program})
    sim.submit({"tasks": [work("p", "sim.parent")]})
    sim.settle()
    needs = sim.task("p.0").spec.needs
    assert (needs.cpu, needs.memory) == (2.0, 2**20)


@pytest.mark.parametrize(
    "body", [{"needs": 3}, {"needs": {"cpu": "x"}}, {"on": 5}, {"on": [{"ref": "p"}]}, {"needs": {"cpus": 1}}]
)
def test_a_child_that_makes_no_sense_is_refused_to_its_parent(body):
    def parent(job):
        yield "spawn", {"skill": "sim.work", "args": {"value": 1}, **body}

    sim = Simulator(program={"p": parent})
    sim.submit({"tasks": [work("p", "sim.parent")]})
    sim.settle()
    assert sim.task("p").state.code == "CallRefused"


def parents_of(slots, count=6):
    def parent(job):
        child = yield "spawn", {"skill": "sim.work", "args": {"value": 1, "run_s": 1.0}}
        yield "join", {"ids": [child["id"]]}
        return {"value": 1}

    sim = Simulator(workers=1, slots=slots, program={"sim.parent": parent, "sim.work": default_program})
    sim.submit({"tasks": [work(f"p{n}", "sim.parent") for n in range(count)]})
    return sim


def test_a_worker_has_no_more_waiting_parents_than_slots():
    sim = parents_of(2)
    most = 0
    for _ in range(400):
        sim.advance(0.05)
        waiting = sum(type(task.state) is Waiting for task in sim.state.runs[1].tasks)
        most = max(most, waiting)
    sim.settle()
    assert most == 2
    assert set(sim.states().values()) == {"succeeded"}


def test_a_parent_of_a_parent_is_no_deadlock():
    def deep(job):
        if job.args["value"] == "leaf":
            return {"value": 0}
        left = 3 if job.args["value"] == "p" else job.args["value"] - 1
        child = yield "spawn", {"skill": "sim.parent", "args": {"value": left or "leaf"}}
        yield "join", {"ids": [child["id"]]}
        return {"value": 1}

    sim = Simulator(workers=1, slots=1, program={"sim.parent": deep})
    sim.submit({"tasks": [work("p", "sim.parent")]})
    sim.settle()
    assert set(sim.states().values()) == {"succeeded"}


def test_detaching_is_kept_and_counts_once():
    sim = Simulator()
    sim.submit({"tasks": [work("a", run_s=20)]})
    for _ in range(2):
        sim.ask(lambda reply: s.DetachRequested(reply, 1, "ann"))
    sim.crash()
    sim.advance(1.0)
    assert sim.state.runs[1].detached
    assert [one.by for one in events(sim, e.RunDetached)] == ["ann"]
    with pytest.raises(Refused):
        sim.ask(lambda reply: s.DetachRequested(reply, 9, "ann"))


def test_a_retried_map_takes_its_chained_elements_along():
    def flaky(job):
        yield 0.05
        return Failure("Bad", "", "permanent") if job.args["value"] == 2 and job.number == 1 else job.args

    sim = Simulator(program={"m": flaky})
    items = {"id": "l", "skill": "flow.list", "args": {"items": [1, 2, 3]}}
    each = {"id": "m", "skill": "sim.work", "args": {"value": {"ref": "l/items[]"}}}
    chained = {"id": "d", "skill": "sim.other", "args": {"value": {"ref": "m[]/value"}}}
    sim.submit({"tasks": [items, each, chained], "run": {"on_failure": "replan"}})
    sim.advance(3.0)
    assert sim.task("m").state.open
    assert sim.states()["d.1"] == ""
    call = max(sim.state.runs[1].calls)
    sim.ask(lambda reply: s.PatchProposed(reply, 1, Patch("planner", edits=(Edit("retry", "m", "again"),)), call))
    sim.handle(s.PlanFinished(1, call))
    sim.settle()
    assert {sim.states()[name] for name in ("m", "d", "d.0", "d.1", "d.2")} == {"succeeded"}
    assert msgspec.json.decode(sim.task("d.1").value) == {"value": 2}
    sim.prove_replay()


def test_a_map_that_is_not_retried_lets_its_chained_elements_go():
    def bad(job):
        yield 0.05
        return Failure("Bad", "", "permanent") if job.args["value"] == 2 else job.args

    sim = Simulator(program={"m": bad})
    items = {"id": "l", "skill": "flow.list", "args": {"items": [1, 2, 3]}}
    each = {"id": "m", "skill": "sim.work", "args": {"value": {"ref": "l/items[]"}}}
    chained = {"id": "d", "skill": "sim.other", "args": {"value": {"ref": "m[]/value"}}}
    sim.submit({"tasks": [items, each, chained], "run": {"on_failure": "replan"}})
    sim.advance(3.0)
    sim.handle(s.PlanFinished(1, max(sim.state.runs[1].calls), "failed"))
    sim.settle()
    assert (sim.states()["m"], sim.states()["d"], sim.states()["d.1"]) == ("failed", "skipped", "skipped")
