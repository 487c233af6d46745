"""Failure classes: what is lost, what is poison, and how much a run may do again."""

import pytest

from bench.fault import Faults
from bench.simulator import Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.setting import CoreSettings
from protocol.outcome import Failure


def work(ident, run_s=0.05, **more):
    return {"id": ident, "skill": "sim.idem", "args": {"value": ident, "run_s": run_s}, **more}


def events(sim, kind):
    return [event for _, _, decision in sim.log for event in decision.events if isinstance(event, kind)]


def deadly(sim, name="bad", lives=99):
    """Every daemon that runs the task dies of it, `lives` times."""

    def program(job):
        yield 0.2
        if job.number <= lives:
            worker = next(one for one in sim[0].workers if one.name == job.worker)
            sim[0].at(sim[0].now, lambda: worker.kill(1.0, True))
            yield 50.0
        return {"value": 1}

    return {name: program}


def start(tasks, lives=99, **more):
    box = []
    sim = Simulator(program=deadly(box, lives=lives), **more)
    box.append(sim)
    sim.submit({"tasks": tasks})
    return sim


def test_a_poison_task_is_tried_alone_and_then_failed_with_the_evidence():
    sim = start([work("bad")], workers=4)
    sim.settle(120.0)
    task = sim.task("bad")
    assert task.state.code == "Poison"
    assert len(task.attempts) == 3
    assert task.deaths == 3
    assert [one.why.partition(":")[0] for one in task.attempts][-1] == "alone"
    for attempt in task.attempts:
        assert f"#{attempt.number} on w{attempt.worker}" in task.state.message
    sim.prove_replay()


def test_the_last_try_takes_nothing_with_it():
    tasks = [work("bad"), *(work(f"t{n}", run_s=0.5) for n in range(60))]
    sim = start(tasks, workers=3)
    sim.settle(300.0)
    alone = sim.task("bad").attempts[-1]
    assert alone.why.startswith("alone")
    beside = [
        one for n in range(60) for one in sim.task(f"t{n}").attempts
        if one.worker == alone.worker and one.at < alone.ended_at and one.ended_at > alone.at
    ]  # fmt: skip
    assert not beside
    assert {sim.states()[f"t{n}"] for n in range(60)} == {"succeeded"}


def test_an_innocent_bystander_of_two_deaths_runs_alone_and_succeeds():
    sim = start([work("bad")], lives=2, workers=2)
    sim.settle(120.0)
    assert sim.states() == {"bad": "succeeded"}
    assert sim.task("bad").attempts[-1].why.startswith("alone")
    assert all(session.kept_for is None for session in sim.machine.fleet.sessions.values())


def test_a_worker_is_kept_empty_for_its_suspect_and_no_longer_than_that_needs_it():
    sim = start([work("bad")], workers=1, slots=2)
    while len(sim.task("bad").attempts) < 2 or sim.machine.fleet.sessions:
        sim.advance(0.05)  # until the second daemon is dead
    sim.submit({"tasks": [work("long", run_s=20.0)]})
    sim.advance(3.0)
    sim.submit({"tasks": [work("next")]})
    sim.advance(3.0)
    (session,) = sim.machine.fleet.sessions.values()
    assert session.kept_for == (1, 0)  # `long` has a slot, and nothing else gets the other one
    assert sim.states(3) == {"next": ""}
    sim.ask(lambda reply: s.CancelRequested(reply, 1, "bad", "ann"))
    sim.advance(1.0)
    assert session.kept_for is None
    assert sim.states(3) == {"next": "succeeded"}


def test_deaths_and_their_count_survive_a_restart():
    sim = start([work("bad")], workers=4)
    sim.advance(8.0)
    sim.crash()
    sim.settle(120.0)
    assert sim.task("bad").state.code == "Poison"
    assert len(sim.task("bad").attempts) == 3


def test_a_partition_that_ends_is_no_death():
    sim = Simulator(workers=1, faults=Faults(cuts=((0.5, 0, 9.0),)))
    sim.submit({"tasks": [work("a", run_s=20.0)]})
    sim.settle(120.0)
    assert sim.states() == {"a": "succeeded"}
    assert sim.task("a").deaths == 0


def flaky(klass):
    def program(job):
        yield 0.01
        return Failure("Outage", "the other side is down", klass)

    return {"*": program}


@pytest.mark.parametrize(("klass", "count"), [("transient", "retries"), ("infra", "losses")])
def test_an_outage_does_not_multiply_the_load_of_a_run(klass, count):
    core = CoreSettings(retry_floor=10, loss_floor=10)
    sim = Simulator(workers=4, program=flaky(klass), settings=core)
    sim.submit({"tasks": [work(f"t{n}") for n in range(40)]})
    sim.settle(300.0)
    attempts = sum(len(sim.task(f"t{n}").attempts) for n in range(40))
    assert attempts == 50
    assert getattr(sim.state.runs[1].spend, count) == 10
    assert any(f"budget of 10 {count} is used up" in sim.task(f"t{n}").state.message for n in range(40))
    sim.prove_replay()


def test_what_succeeds_earns_retries():
    def program(job):
        yield 0.01
        return Failure("Flaky", "", "transient") if job.number == 1 else {"value": 1}

    core = CoreSettings(retry_floor=2, retry_ratio=1.0)
    sim = Simulator(workers=1, slots=1, program={"*": program}, settings=core)
    sim.submit({"tasks": [work(f"t{n}", after=[f"t{n - 1}"] if n else []) for n in range(10)]})
    sim.settle(300.0)
    assert set(sim.states().values()) == {"succeeded"}
    assert sim.state.runs[1].spend.retries == 10
    assert "10 retries" in sim.machine.explain(1, "t3")["budget"]


def test_a_persons_retry_and_an_approval_use_up_nothing():
    def program(job):
        yield 0.01
        return Failure("NeedsApproval", "", "policy") if job.number == 1 else {"value": 1}

    sim = Simulator(program={"a": program})
    sim.submit({"tasks": [work("a")]})
    sim.advance(1.0)
    sim.ask(lambda reply: s.ApprovalDecided(reply, 1, "a", "ann", True))
    sim.settle()
    assert (sim.task("a").losses, sim.task("a").tries) == (0, 0)
    assert [one.lost for one in events(sim, e.TaskRequeued)] == [False]
