"""Room is made for who has waited, by tasks that keep checkpoints: for whom, whose, and what it costs them."""

import msgspec
import pytest

from bench.fault import Faults
from bench.simulated_skill import SIMULATED_SKILLS, profile_of
from bench.simulator import Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.lifecycle import Closed
from orchestrator.core.setting import CoreSettings, PreemptSettings
from protocol.skill import SkillSpec

OPEN = SIMULATED_SKILLS[0].params
STEPS = SkillSpec(name="sim.steps", params=OPEN, effect="pure", checkpoints=True)


def keeper(every_s=1.0, steps=40):
    """Keeps how far it is after each step, and goes on from there; its value is where it began, and its end."""

    def program(job):
        first = (yield "restore", None) or 0
        for step in range(first, steps):
            yield every_s
            yield "checkpoint", step + 1
        return {"value": [first, steps]}

    return program


def long(count, skill="sim.steps"):
    return [{"id": f"t{n}", "skill": skill, "args": {"value": n, "run_s": 40.0}} for n in range(count)]


def short(count=1):
    return [{"id": f"s{n}", "skill": "sim.work", "args": {"value": n, "run_s": 0.5}} for n in range(count)]


def start(*, workers=1, slots=2, program=None, settings=None, **more):
    profiles = [profile_of(slots, skills=(STEPS,)) for _ in range(workers)]
    return Simulator(
        workers=profiles, settings=settings or CoreSettings(), program=program or {"sim.steps": keeper()}, **more
    )


def submit(sim, tasks, author="ann", **settings):
    return sim.submit({"tasks": tasks, "run": settings}, author=author)


def took(sim, run):
    record = sim.state.runs[run]
    assert type(record.state) is Closed, sim.story()
    return record.settled_at - record.submitted_at


def requeued(sim):
    return [event for _, _, one in sim.log for event in one.events if isinstance(event, e.TaskRequeued)]


def test_a_higher_class_gets_room_behind_a_checkpoint_and_nothing_is_done_twice():
    sim = start()
    batch = submit(sim, long(2), sla="batch")
    sim.advance(5.3)
    urgent = submit(sim, short(), author="ben")
    sim.settle(200.0)
    sim.prove_replay()
    assert took(sim, urgent) < 5.0
    moved = [sim.task(f"t{n}", batch) for n in range(2) if len(sim.task(f"t{n}", batch).attempts) > 1]
    assert len(moved) == 1
    first, end = msgspec.json.decode(moved[0].value)["value"]
    assert first >= 7
    assert end == 40
    assert moved[0].attempts[0].ended == "stopped"
    assert f"make room for r{urgent}" in moved[0].attempts[0].message
    assert moved[0].losses == moved[0].tries == 0
    assert [event.lost for event in requeued(sim)] == [False]
    assert f"make room for r{urgent}, which is standard" in requeued(sim)[0].why
    assert sim.machine._turn.predictor.measured("sim.steps") > 40.0


def test_a_user_who_has_less_gets_room_until_both_have_as_much():
    sim = start(slots=4)
    ann = submit(sim, long(4), author="ann")
    sim.advance(5.0)
    ben = submit(sim, long(4), author="ben")
    sim.advance(32.0)
    running = [run for session in sim.machine.fleet.sessions.values() for run, _, _ in session.loads]
    assert sorted(running) == [ann, ann, ben, ben]
    sim.settle(400.0)
    assert len(requeued(sim)) <= 6


def test_runs_of_one_user_and_class_take_nothing_from_each_other():
    sim = start()
    submit(sim, long(2))
    sim.advance(5.0)
    later = submit(sim, short())
    sim.settle(200.0)
    assert not requeued(sim)
    assert took(sim, later) > 30.0


def test_a_skill_that_keeps_nothing_is_never_stopped():
    sim = start()
    submit(sim, long(2, "sim.work"), sla="batch")
    sim.advance(5.0)
    submit(sim, short(), author="ben", sla="interactive")
    sim.settle(200.0)
    assert not requeued(sim)


def test_one_that_never_comes_to_its_first_checkpoint_is_let_be():
    sim = start(program={"sim.steps": keeper(every_s=30.0, steps=2)})
    submit(sim, long(2), sla="batch")
    sim.advance(5.0)
    submit(sim, short(), author="ben")
    sim.settle(200.0)
    assert [event.at - sim.started_at > 29.0 for event in requeued(sim)] in ([], [True], [True, True])
    loads = [load for session in sim.machine.fleet.sessions.values() for load in session.loads.values()]
    assert not loads


def test_one_that_has_kept_something_and_then_stalls_is_stopped_after_the_grace():
    def program(job):
        first = (yield "restore", None) or 0
        if not first:
            yield 1.0
            yield "checkpoint", 1
            yield 100.0
        return {"value": first}

    sim = start(program={"sim.steps": program}, settings=CoreSettings(preempt=PreemptSettings(grace_s=3.0)))
    batch = submit(sim, long(2), sla="batch")
    sim.advance(5.0)
    urgent = submit(sim, short(), author="ben")
    sim.settle(200.0)
    assert 5.0 < took(sim, urgent) < 7.0
    assert {msgspec.json.decode(sim.task(f"t{n}", batch).value)["value"] for n in range(2)} == {0, 1}


def test_who_found_room_elsewhere_meanwhile_stops_nobody():
    sim = start(program={"sim.steps": keeper(every_s=6.0, steps=5)})
    submit(sim, [*long(1), *short(1)], sla="batch")
    submit(sim, [{"id": "b", "skill": "sim.work", "args": {"run_s": 9.0}}], sla="batch")
    sim.advance(6.5)
    submit(sim, short(), author="ben")
    sim.settle(200.0)
    assert not requeued(sim)


def test_preemption_can_be_turned_off():
    sim = start(settings=CoreSettings(preempt=PreemptSettings(on=False)))
    submit(sim, long(2), sla="batch")
    sim.advance(5.0)
    submit(sim, short(), author="ben", sla="interactive")
    sim.settle(200.0)
    assert not requeued(sim)


def test_as_many_make_room_as_are_waited_for():
    sim = start(workers=2, slots=2)
    submit(sim, long(4), sla="batch")
    sim.advance(5.0)
    urgent = submit(sim, short(3), author="ben", sla="interactive")
    sim.settle(400.0)
    assert len(requeued(sim)) == 3
    assert took(sim, urgent) < 6.0


def test_a_cancelled_run_does_not_come_back():
    sim = start()
    batch = submit(sim, long(2), sla="batch")
    sim.advance(5.3)
    submit(sim, short(), author="ben")
    sim.advance(2.1)
    sim.ask(lambda reply: s.CancelRequested(reply, batch, "", "ann"))
    sim.settle(60.0)
    assert sim.state.runs[batch].state.state == "cancelled"


@pytest.mark.parametrize("crash_s", [7.4, 8.05, 8.5])
def test_a_crash_in_between_loses_nothing(crash_s):
    sim = start(faults=Faults(crashes=(crash_s,)))
    batch = submit(sim, long(2), sla="batch")
    sim.advance(5.3)
    submit(sim, short(), author="ben")
    sim.settle(300.0)
    sim.prove_replay()
    assert set(sim.states(batch).values()) == {"succeeded"}
