"""What a run has loaded on a worker draws its next task there, as far as that costs little."""

import msgspec

from bench.simulated_skill import profile_of
from bench.simulator import Simulator
from orchestrator.core.setting import CoreSettings
from orchestrator.core.warmth import warm_at
from protocol.profile import DeviceProfile

WARM, PLAIN = "sim.idem", "sim.work"


def fleet(*speeds):
    profiles = [
        msgspec.structs.replace(profile_of(1), devices=(DeviceProfile("cpu", f"x{speed}", speed=speed),))
        for speed in speeds
    ]
    return Simulator(workers=profiles, settings=CoreSettings(prefetch_target_s=0.0))


def chain(skill, count=6, gap_s=0.0):
    """Tasks that follow each other, each after a sleep that holds no core."""
    rows = []
    for n in range(count):
        after = [f"t{n - 1}"] if n else []
        if n and gap_s:
            rows.append({"id": f"gap{n}", "skill": "flow.sleep", "args": {"seconds": gap_s}, "after": after})
            after = [f"gap{n}"]
        rows.append({"id": f"t{n}", "skill": skill, "args": {"value": n, "run_s": 0.5}, "after": after})
    return {"tasks": rows}


def where(sim, run=1):
    return [task.winner().worker for task in sim.state.runs[run].tasks if task.spec.id.startswith("t")]


def test_tasks_of_a_run_that_follow_each_other_stay_where_its_session_is_warm():
    sim = fleet(1.0, 1.0, 1.0)
    for skill in (WARM, PLAIN):
        sim.settle(100.0)
        sim.submit(chain(skill))
    sim.settle(100.0)
    assert len(set(where(sim, 1))) == 1
    assert len(set(where(sim, 2))) > 1  # each in turn


def test_what_is_ready_at_once_spreads_as_ever():
    sim = fleet(1.0, 1.0, 1.0)
    sim.submit(chain(WARM, 1))
    sim.settle(100.0)
    sim.submit({"tasks": [{"id": f"t{n}", "skill": WARM, "args": {"value": n, "run_s": 0.5}} for n in range(3)]})
    sim.settle(100.0)
    assert set(where(sim, 2)) == {1, 2, 3}


def test_a_session_is_cold_after_its_time_and_after_a_new_start_of_its_worker():
    sim = fleet(1.0, 1.0, 1.0)
    sim.submit(chain(WARM, 3, gap_s=70.0))
    turn, run = sim.machine._turn, sim.state.runs[1]
    sim.advance(1.0)
    first = warm_at(turn, run, WARM)
    assert first == {sim.task("t0").winner().worker}
    assert warm_at(turn, run, PLAIN) == set()
    sim.advance(65.0)
    assert warm_at(turn, run, WARM) == set()
    sim.advance(7.0)
    (second,) = warm_at(turn, run, WARM)
    sim.workers[second - 1].kill(0.1, True)
    sim.advance(5.0)
    assert second in sim.machine.fleet.sessions
    assert warm_at(turn, run, WARM) == set()
    sim.settle(1000.0)
    assert set(sim.states().values()) == {"succeeded"}
    assert turn.warm == {}  # of a run that is over nothing is remembered


def test_a_device_that_ends_it_far_sooner_is_taken_all_the_same():
    sim = fleet(1.0, 8.0)
    told = {"id": "t0", "skill": WARM, "args": {"value": 0, "run_s": 4.0}}
    sim.submit({"tasks": [{"id": "busy", "skill": PLAIN, "args": {"value": 0, "run_s": 6.0}, "on": ["w2"]}]})
    sim.advance(0.1)
    sim.submit({"tasks": [{**told, "on": ["w1"]}, {**told, "id": "t1", "after": ["t0", "wait"]},
                          {"id": "wait", "skill": "flow.sleep", "args": {"seconds": 8.0}}]})  # fmt: skip
    sim.settle(100.0)
    assert where(sim, 2) == [1, 2]
