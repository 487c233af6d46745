"""What a run prefers to time, once its deadline allows it: the policy, on the clock, and in the core."""

from __future__ import annotations

import msgspec
import pytest

from bench.simulated_worker import profile_of
from bench.simulator import Simulator
from orchestrator.placement.forecast import Spread, bound_late, cost, ends_by, forecast
from orchestrator.placement.policy import WAIT, Offer
from orchestrator.placement.problem import INF, Problem, Site
from orchestrator.placement.thrift import Thrift
from protocol.profile import DeviceProfile

DEAR = Offer(1, "cpu", True, 0.0, 1.0, price=10.0, energy_j=5.0)
CHEAP = Offer(2, "cpu", True, 0.0, 4.0, price=1.0, energy_j=50.0)


def test_the_cheapest_that_ends_in_time_is_taken_else_the_first_to_end() -> None:
    offers = [DEAR, CHEAP]
    assert Thrift("price", 5.0).choose(offers) == 1
    assert Thrift("price", 3.0).choose(offers) == 0
    assert Thrift("price", 0.5).choose(offers) == 0
    assert Thrift("energy", 5.0).choose(offers) == 0
    assert Thrift("price", INF).choose([]) == WAIT
    assert "the least of 2" in Thrift("price", 5.0).why(offers, 1)
    assert "none ends within" in Thrift("price", 0.5).why(offers, 0)


def test_what_it_wants_may_be_busy_and_then_it_waits_as_long_as_that_ends_in_time() -> None:
    busy = msgspec.structs.replace(CHEAP, room=False, start_s=2.0)
    assert (Thrift("price", 7.0).choose([DEAR, busy]), Thrift("price", 7.0).best([DEAR, busy])) == (WAIT, 1)
    assert Thrift("price", 5.0).choose([DEAR, busy]) == 0


def fan(tasks: int = 8) -> Problem:
    sites = (Site("dear", 0, worker=0, price_per_s=10.0), Site("cheap", 1, worker=1, price_per_s=0.1))
    return Problem(sites, [[1.0, 2.0]] * tasks, [[] for _ in range(tasks)], [[] for _ in range(tasks)])


def test_on_the_clock_a_longer_deadline_costs_less_and_is_kept() -> None:
    problem, found = fan(), []
    for deadline in (7.0, 9.0, 12.0, 18.0, INF):
        played = bound_late(prefer="price", deadline_s=deadline)(problem, None)
        assert played.schedule.makespan_s <= deadline
        found.append(cost(problem, played)[0])
    assert found == sorted(found, reverse=True)
    assert found[0] > 3 * found[-1]
    hasty = bound_late()(problem, None)
    assert cost(problem, hasty)[0] >= found[0]


def test_what_hangs_on_a_task_makes_it_end_earlier() -> None:
    problem = Problem((Site("s", worker=0),), [[1.0], [2.0]], [[], [(0, 0.0)]], [[(1, 0.0)], []])
    assert ends_by(problem, 10.0) == pytest.approx([7.0, 9.0])
    assert ends_by(problem, INF) == [INF, INF]


def test_a_course_is_foretold_with_its_price() -> None:
    spread = Spread((0.0,) * 8, (0,) * 8, (0.0,))
    cheap, hasty = (forecast(fan(), bound_late(prefer=one), spread) for one in ("price", "time"))
    assert cheap.price < hasty.price
    assert cheap.makespan_s > hasty.makespan_s


def busy(job):  # type: ignore[no-untyped-def]
    yield 1.0 if job.worker == 1 else 2.0
    return {}


@pytest.mark.parametrize(
    ("settings", "dear"), [({}, 5), ({"prefer": "price"}, 0), ({"prefer": "price", "deadline": "12s"}, 3)]
)
def test_the_core_places_as_a_run_prefers(settings: dict[str, str], dear: int) -> None:
    workers = [
        msgspec.structs.replace(profile_of(1), devices=(DeviceProfile("cpu", name, speed=speed, price_per_s=price),))
        for name, speed, price in (("dear", 1.0, 10.0), ("cheap", 0.5, 0.1))
    ]
    sim = Simulator(workers=workers, slots=1, program={"sim.work": busy})
    for session in sim.machine.fleet.sessions.values():
        for _ in range(10):
            run_s = 1.0 / session.speed["cpu"]
            sim.machine.predictor.note("sim.work", session.device_class["cpu"], session.worker, 1.0, 0, run_s)
    sim.machine.predictor.refit()
    sim.submit({"run": settings, "tasks": [{"id": f"t{n}", "skill": "sim.work", "args": {}} for n in range(8)]})
    sim.settle(60.0)
    run = sim.state.runs[1]
    first = [sim.machine.state.workers[task.attempts[0].worker].name for task in run.tasks]
    assert run.state.state == "succeeded"  # type: ignore[union-attr]
    assert first.count("w1") == pytest.approx(dear, abs=1)
    if dear == 0:
        assert "price: 0.2, the least of 2" in run.tasks[0].attempts[0].why
