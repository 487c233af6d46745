"""Quarantine: who gets no new work because things go wrong there and not elsewhere, and how they are let back in."""

from bench.simulated_skill import profile_of
from bench.simulator import Simulator
from orchestrator.core import event as e
from orchestrator.core.setting import CoreSettings, HedgeSettings
from orchestrator.service.query import workers
from protocol.frame import Heartbeat
from protocol.outcome import Failure
from tests.unit.test_core_link import Floor


def work(ident, run_s=0.5, **more):
    return {"id": ident, "skill": "sim.work", "args": {"value": ident, "run_s": run_s}, **more}


def sick(names, until=1e9, outcome=None):
    """Attempts at these workers fail until then (virtual seconds)."""
    world = {}

    def program(job):
        yield job.args["run_s"]
        if job.worker in names and world["sim"].now < world["sim"].started_at + until:
            return outcome or Failure("CudaError", "an illegal memory access", "infra")
        return {"value": job.worker}

    return program, world


def start(names=("w3",), *, until=1e9, fleet=4, tasks=120, outcome=None, **more):
    program, world = sick(names, until, outcome)
    profiles = [profile_of(1) for _ in range(fleet)]
    settings = CoreSettings(hedge=HedgeSettings(on=False))
    sim = world["sim"] = Simulator(workers=profiles, program={"*": program}, settings=settings)
    sim.submit({"tasks": [work(f"t{n}", **more) for n in range(tasks)]})
    return sim


def events(sim, kind):
    return [event for _, _, made in sim.log for event in made.events if type(event) is kind]


def test_a_worker_where_attempts_fail_that_succeed_elsewhere_gets_no_new_work():
    sim = start()
    sim.settle(300.0)
    sim.prove_replay()
    assert set(sim.states().values()) == {"succeeded"}
    told = events(sim, e.WorkerQuarantined)
    assert {sim.state.workers[one.worker].name for one in told} == {"w3"}
    assert "sim.work failed: CudaError" in told[0].why
    given = [one.at for task in sim.state.runs[1].tasks for one in task.attempts if one.worker == told[0].worker]
    assert not [at for at in given if told[0].at < at < told[0].until]


def test_its_rest_gets_longer_with_each_time_that_it_fails_again():
    sim = start(tasks=400)
    sim.settle(300.0)
    rests = [round(one.until - one.at, 6) for one in events(sim, e.WorkerQuarantined)]
    assert rests[:3] == [10.0, 20.0, 40.0]


def test_a_worker_that_does_well_when_it_is_tried_is_let_back_in():
    sim = start(until=15.0, tasks=300)
    sim.settle(300.0)
    (cleared,) = events(sim, e.WorkerCleared)
    after = [task for task in sim.state.runs[1].tasks if task.winner().worker == 3 and task.winner().at > cleared.at]
    assert len(after) > 5
    assert not sim.machine.fleet.sessions[3].sick


def test_what_goes_wrong_everywhere_is_no_workers_fault():
    sim = start(("w1", "w2", "w3", "w4"), until=20.0, outcome=Failure("Down", "the service is away", "transient"))
    sim.settle(300.0)
    assert not events(sim, e.WorkerQuarantined)


def test_what_a_skill_says_itself_is_no_workers_fault():
    sim = start(outcome=Failure("ValueError", "no such row", "permanent"))
    sim.settle(300.0)
    assert not events(sim, e.WorkerQuarantined)


def test_at_most_half_of_the_fleet_is_in_quarantine():
    sim = start(("w2", "w3"), fleet=3)
    most = []
    while not sim.settled():
        sim.advance(1.0)
        most.append(sum(bool(one.sick) for one in sim.machine.fleet.sessions.values()))
    assert max(most) == 1


def test_work_that_nobody_else_may_do_goes_there_all_the_same():
    sim = start(until=12.0, tasks=60)
    sim.submit({"tasks": [work(f"p{n}", on=["w3"]) for n in range(20)]})
    sim.settle(300.0)
    assert events(sim, e.WorkerQuarantined)
    assert all(task.attempts for task in sim.state.runs[2].tasks)
    assert set(sim.states(2).values()) <= {"succeeded", "failed"}


def test_people_are_told_who_is_in_quarantine_and_why():
    sim = start()
    sim.run_until(sim.now + 60.0, lambda: sim.machine.fleet.sessions[3].sick)
    row = next(one for one in workers(sim.state, sim.machine.fleet, sim.now).workers if one.worker == "w3")
    assert row.state == "quarantine"
    assert "CudaError" in row.short
    waiting = next(task for task in sim.state.runs[1].tasks if not task.attempts)
    (verdict,) = [one for one in sim.machine.explain(1, waiting.spec.id)["workers"] if one["worker"] == "w3"]
    assert verdict["why"].startswith("is in quarantine and gets only what nobody else may do: ")


# The link


def gather(count=4):
    floor = Floor(count)
    for worker in range(1, count + 1):
        floor.join(worker)
    return floor


def pulse(floor, late, rounds=1, workers_=(1, 2, 3, 4)):
    """Everybody's heartbeats, a second apart; those of some come `late` seconds after they were written."""
    for _ in range(rounds):
        floor.wait(1.0)
        for worker in workers_:
            floor.says(Heartbeat(floor.now - late.get(worker, 0.0)), worker=worker)


def test_a_worker_whose_word_comes_later_than_it_used_to_and_than_others_rests():
    floor = gather()
    pulse(floor, {}, 5)
    pulse(floor, {2: 1.5}, 3)
    (told,) = floor.of(e.WorkerQuarantined)
    assert told.worker == 2
    assert "later than usual" in told.why


def test_what_was_late_from_the_start_is_usual():
    floor = gather()
    pulse(floor, {2: 1.5}, 10)
    assert not floor.of(e.WorkerQuarantined)


def test_when_everybody_is_late_it_is_us():
    floor = gather()
    pulse(floor, {}, 5)
    pulse(floor, dict.fromkeys(range(1, 5), 1.5), 5)
    assert not floor.of(e.WorkerQuarantined)


def test_it_is_not_tried_while_its_word_still_comes_late():
    floor = gather()
    pulse(floor, {}, 5)
    pulse(floor, {2: 1.5}, 16)
    assert not floor.machine.fleet.sessions[2].probing
    pulse(floor, {}, 40)
    assert floor.machine.fleet.sessions[2].probing
    assert len(floor.of(e.WorkerQuarantined)) == 1


def test_a_stream_that_breaks_again_and_again_is_a_reason():
    floor = gather()
    for _ in range(4):
        floor.leave(3)
        pulse(floor, {}, workers_=(1, 2, 4))
        floor.join(3)
    (told,) = floor.of(e.WorkerQuarantined)
    assert told.why == "its stream broke 4 times in 120 s"
    assert floor.machine.fleet.sessions[3].sick


def test_a_worker_that_comes_back_is_still_in_quarantine():
    floor = gather()
    pulse(floor, {}, 5)
    pulse(floor, {2: 1.5}, 3)
    floor.leave(2)
    floor.join(2)
    assert floor.machine.fleet.sessions[2].sick


def test_a_clock_that_is_no_number_changes_nothing():
    floor = gather()
    for at in (float("nan"), float("inf"), -float("inf")):
        floor.says(Heartbeat(at), worker=1)
    pulse(floor, {}, 5)
    pulse(floor, {2: 1.5}, 3)
    assert [one.worker for one in floor.of(e.WorkerQuarantined)] == [2]
