"""Stragglers on the virtual clock: who gets a second attempt, where, and who never does."""

import msgspec
import pytest

from bench.fault import Faults
from bench.simulated_skill import SIMULATED_SKILLS, profile_of
from bench.simulator import Simulator
from orchestrator.core import event as e
from orchestrator.core.setting import CoreSettings, HedgeSettings
from protocol.outcome import Failure
from protocol.profile import DeviceProfile
from protocol.skill import SkillSpec

OPEN = SIMULATED_SKILLS[0].params
MILD = SkillSpec(name="sim.mild", params=OPEN, effect="idempotent", hedge=True)
STEPS = SkillSpec(name="sim.steps", params=OPEN, effect="pure", checkpoints=True)


def work(ident, skill="sim.work", run_s=1.0, **more):
    return {"id": ident, "skill": skill, "args": {"value": ident, "run_s": run_s}, **more}


def unlucky(times=10.0, first=1):
    """The first attempt takes so many times longer."""

    def program(job):
        yield job.args["run_s"] * (times if job.number <= first else 1.0)
        return {"value": job.args["value"]}

    return program


def crowd(count, skill="sim.work"):
    return [work(f"c{n}", skill) for n in range(count)]


def start(tasks, *, workers=3, slots=4, hedge=None, skills=(MILD, STEPS), **more):
    profiles = [profile_of(slots, skills=skills) for _ in range(workers)] if isinstance(workers, int) else workers
    sim = Simulator(workers=profiles, settings=CoreSettings(hedge=hedge or HedgeSettings()), **more)
    sim.submit({"tasks": tasks})
    return sim


def run(tasks, limit_s=200.0, **more):
    sim = start(tasks, **more)
    sim.settle(limit_s)
    sim.advance(1.0)
    sim.prove_replay()
    return sim


def took(sim):
    return sim.state.runs[1].settled_at - sim.started_at


def events(sim, kind):
    return [event for _, _, made in sim.log for event in made.events if type(event) is kind]


def copies(sim):
    return [event for event in events(sim, e.AttemptDispatched) if event.hedge]


def test_a_straggler_gets_a_copy_that_wins_and_is_stopped_itself():
    sim = run([*crowd(8), work("slow")], program={"slow": unlucky()})
    first, second = sim.task("slow").attempts
    assert (first.ended, second.ended, second.hedge) == ("stopped", "succeeded", True)
    assert first.worker != second.worker
    assert second.why.startswith("hedge: ")
    assert took(sim) < 6.0


def test_without_hedging_it_takes_its_time():
    sim = run([*crowd(8), work("slow")], program={"slow": unlucky()}, hedge=HedgeSettings(on=False))
    assert not copies(sim)
    assert took(sim) > 10.0


def test_of_a_skill_that_nobody_knows_yet_nothing_is_too_long():
    sim = run([work("slow")], program={"slow": unlucky()})
    assert not copies(sim)


def test_nothing_is_copied_to_a_device_that_something_ready_waits_for():
    tasks = [*crowd(9), work("slow"), *(work(f"d{n}", run_s=1.0) for n in range(30))]
    sim = run(tasks, program={"slow": unlucky(30.0)}, workers=2, slots=2)
    last = max(task.attempts[0].at for task in sim.state.runs[1].tasks)
    assert [copy.at >= last for copy in copies(sim)] == [True]


@pytest.mark.parametrize(("skill", "copied"), [("sim.idem", 0), ("sim.once", 0), ("sim.mild", 1), ("sim.work", 1)])
def test_only_what_is_pure_or_says_that_it_may_be_is_copied(skill, copied):
    sim = run([*crowd(8, skill), work("slow", skill)], program={"slow": unlucky()})
    assert len(copies(sim)) == copied


def test_what_has_spawned_is_not_copied():
    def parent(job):
        yield ("spawn", {"skill": "sim.work", "args": {"value": 1, "run_s": 0.1}})
        yield 20.0
        return {"value": 1}

    sim = run([*crowd(8, "sim.parent"), work("slow", "sim.parent")], program={"slow": parent})
    assert not copies(sim)


def test_copies_that_lose_take_no_more_than_their_share_of_the_work():
    slow = [f"s{n}" for n in range(6)]
    tasks = [*crowd(20), *map(work, slow)]
    for budget, copied in ((0.05, 2), (0.5, 6)):
        hedge = HedgeSettings(budget=budget)
        sim = run(tasks, program={name: unlucky(first=2) for name in slow}, workers=8, hedge=hedge)
        assert len(copies(sim)) == copied


def test_those_that_nobody_may_copy_bar_no_others():
    stuck = [f"o{n}" for n in range(20)]
    tasks = [*crowd(8), *crowd(8, "sim.idem"), *(work(name, "sim.idem") for name in stuck), work("slow", run_s=0.9)]
    for n, task in enumerate(tasks[8:16]):
        task["id"] = f"i{n}"
    sim = run(tasks, program={name: unlucky(60.0) for name in [*stuck, "slow"]}, workers=10)
    assert sim.task("slow").winner().hedge
    assert sim.task("slow").winner().ended_at - sim.started_at < 20.0


def test_a_copy_that_wins_costs_nothing():
    slow = [f"s{n}" for n in range(6)]
    sim = run([*crowd(20), *map(work, slow)], program={name: unlucky(20.0) for name in slow}, workers=8)
    assert len(copies(sim)) == 6
    assert took(sim) < 16.0


def test_a_task_that_fails_wherever_it_runs_has_one_copy_a_try():
    def hopeless(job):
        yield 8.0
        return Failure("Bad", "as told", "transient")

    sim = run([*crowd(8), work("slow", retry={"max": 2, "backoff": 0.1})], program={"slow": hopeless})
    assert sim.states()["slow"] == "failed"
    assert len(copies(sim)) <= 3


def keeps(done):
    """Eight steps; each is kept. `done` gets (worker, step) of every one that is done."""

    def program(job):
        step = (yield "restore", None) or 0
        while step < 8:
            yield 1.0 if job.worker == "w1" else 0.25
            step += 1
            done.append((job.name, job.worker, step))
            yield "checkpoint", step
        return {"value": step}

    return program


def plain(job):
    yield 8.0 if job.worker == "w1" else 2.0
    return {"value": 1}


def pair(skill, program):
    """A task that begins on a slow device while the worker that is four times as fast is away for another moment."""
    devices = [DeviceProfile("cpu", speed=speed, simulated=True) for speed in (1.0, 4.0)]
    profiles = [msgspec.structs.replace(profile_of(1, skills=(MILD, STEPS)), devices=(one,)) for one in devices]
    sim = Simulator(workers=profiles, program={skill: program}, faults=Faults(kills=((0.0, 1, 34.0, "boot"),)))
    warm = [work(f"w{n}", skill) for n in range(4)]
    sim.submit({"tasks": [*warm, work("long", skill, after=[one["id"] for one in warm])]})
    sim.settle(100.0)
    sim.advance(1.0)
    sim.prove_replay()
    return sim


def test_what_is_long_on_a_slow_device_goes_on_where_it_is_faster():
    sim = pair("sim.work", plain)
    (moved,) = copies(sim)
    assert moved.why.startswith("moved: ")
    assert sim.task("long").winner().worker == 2
    assert took(sim) < 38.0


def test_what_keeps_checkpoints_goes_on_from_the_last_one_and_does_nothing_twice():
    done = []
    sim = pair("sim.steps", keeps(done))
    assert not copies(sim)
    steps = [(worker, step) for name, worker, step in done if name == "long"]
    assert [step for _, step in steps] == list(range(1, 9))
    assert steps[0][0] == "w1"
    assert steps[-1][0] == "w2"
    first, second = sim.task("long").attempts
    assert (first.ended, second.ended) == ("stopped", "succeeded")
    assert events(sim, e.TaskRequeued)[-1].why.endswith(" s on w1 so far, slower there; w2 idles")
    assert sim.task("long").losses == 0
    assert took(sim) < 38.0


@pytest.mark.parametrize("skill", ["sim.idem", "sim.once"])
def test_what_may_not_run_twice_and_keeps_nothing_stays_where_it_is(skill):
    sim = pair(skill, plain)
    assert len(sim.task("long").attempts) == 1
    assert sim.task("long").winner().worker == 1
