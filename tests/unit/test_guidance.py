"""A run on unlike devices goes by a plan where there can be one, and by earliest finish time where there can't."""

from random import Random

import msgspec
import pytest

from bench.simulated_skill import profile_of
from bench.simulator import Simulator
from orchestrator.core.command import Count
from orchestrator.core.setting import CoreSettings, HedgeSettings
from orchestrator.core.stimulus import Flush, Lull
from protocol.profile import DeviceProfile

SPEED = {"w1": 1.0, "w2": 1.0, "w3": 4.0, "w4": 8.0}


def worker(speed):
    device = DeviceProfile("cpu", speed=speed, simulated=True)
    return msgspec.structs.replace(profile_of(1), devices=(device,))


def on_its_device(job):
    yield job.args["run_s"] / SPEED[job.worker]
    return {"value": None}


def work(ident, long, ups=()):
    args = {"run_s": 40.0 if long else 8.0, "value": [{"ref": up} for up in ups]}
    return {"id": ident, "skill": "sim.other" if long else "sim.work", "args": args}


def graph(count, seed):
    luck = Random(seed)
    tasks = []
    for k in range(count):
        ups = {f"t{luck.randrange(max(0, k - 15), k)}": None for _ in range(luck.choice([1, 1, 2, 3]))} if k > 4 else {}
        tasks.append(work(f"t{k}", luck.random() < 0.25, ups))
    return tasks


def learned(policy):
    """A fleet that has done such work before."""
    settings = CoreSettings(placement=policy, prefetch_target_s=0.0, hedge=HedgeSettings(on=False))
    workers = [worker(speed) for speed in SPEED.values()]
    sim = Simulator(workers=workers, settings=settings, program={"*": on_its_device}, check=False)
    sim.submit({"tasks": [work(f"w{long:d}-{n}", long) for n in range(16) for long in (False, True)]})
    sim.settle(2000.0)
    return sim


def plans(sim, since=0.0):
    """How many were made."""
    made = [one for at, _, decision in sim.log if at >= since for one in decision.commands]
    return sum(isinstance(one, Count) and one.name == "planned" for one in made)


def played(policy, tasks):
    sim = learned(policy)
    began = sim.now
    sim.submit({"tasks": tasks})
    sim.settle(2000.0)
    return sim, sim.state.runs[2].settled_at - began


def test_a_plan_ends_a_run_sooner_and_is_kept_while_it_holds():
    (eft, without_s), (heft, with_s) = (played(policy, graph(80, 1)) for policy in ("eft", "heft"))
    assert with_s < without_s
    assert plans(eft) == 0
    assert 1 <= plans(heft, heft.state.runs[2].submitted_at) <= 10
    whys = [attempt.why for task in heft.state.runs[2].tasks for attempt in task.attempts]
    assert sum(why.startswith("heft: planned there") for why in whys) > 60


def test_a_plan_that_the_facts_have_left_is_made_again_after_what_was_decided_has_left():
    sim, _ = played("heft", graph(80, 1))
    made = [
        type(stimulus)
        for at, stimulus, decision in sim.log
        if at >= sim.state.runs[2].submitted_at
        for one in decision.commands
        if isinstance(one, Count) and one.name == "planned"
    ]
    assert made[0] is Flush
    assert Lull in made


@pytest.mark.parametrize("policy", ["auto", "heft"])
def test_a_planned_device_that_goes_stalls_nothing(policy):
    sim = learned(policy)
    sim.submit({"tasks": graph(40, 2)})
    sim.advance(15.0)
    sim.workers[3].kill(1000.0, True)
    sim.settle(2000.0)
    assert set(sim.states(2).values()) == {"succeeded"}


def test_a_plan_that_can_not_be_made_is_held_against_its_run(monkeypatch):
    sim = learned("heft")

    def broken(problem):
        raise ZeroDivisionError

    monkeypatch.setattr("orchestrator.core.guidance.heft", broken)
    with pytest.raises(ZeroDivisionError):
        sim.submit({"tasks": graph(40, 2)})
    assert sim.machine.focus == 2


def test_nothing_is_planned_of_work_that_nobody_knows():
    sim = Simulator(workers=[worker(speed) for speed in SPEED.values()], settings=CoreSettings(placement="heft"))
    sim.submit({"tasks": [work(f"t{n}", False) for n in range(3)]})
    sim.advance(1.0)
    assert plans(sim) == 0


@pytest.mark.parametrize(("policy", "told"), [("eft", "waiting for w4, which ends it in"), ("heft", "the plan of r2")])
def test_explain_tells_what_a_task_waits_for_while_others_have_room(policy, told):
    sim = learned(policy)
    sim.submit({"tasks": [work(f"t{n}", True) for n in range(6)]})
    sim.advance(0.5)
    assert sim.machine.fleet.sessions[1].slots_free == 1
    waiting = [sim.machine.explain(2, f"t{n}")["why"] for n in range(6)]
    assert any(told in why for why in waiting), waiting
    sim.settle(2000.0)


@pytest.mark.parametrize(("policy", "planned"), [("heft", True), ("eft", False), ("fastest", False)])
def test_under_auto_a_run_goes_by_the_policy_that_was_foretold_to_be_best(policy, planned):
    sim = learned("auto")
    sim.foretells = (policy,)
    began = sim.now
    sim.submit({"tasks": [work(f"t{n}", True) for n in range(20)]})
    sim.settle(2000.0)
    attempts = [attempt for task in sim.state.runs[2].tasks for attempt in task.attempts if attempt.at > began + 1.0]
    assert len(attempts) > 10
    assert any(attempt.why.startswith("heft") for attempt in attempts) == planned
    assert ({attempt.worker for attempt in attempts} == {4}) == (policy == "fastest")


def test_what_was_foretold_under_auto_is_nothing_to_another_policy():
    sim = learned("eft")
    sim.foretells = ("fastest",)
    sim.submit({"tasks": [work(f"t{n}", True) for n in range(20)]})
    sim.settle(2000.0)
    assert len({attempt.worker for task in sim.state.runs[2].tasks for attempt in task.attempts}) > 1
