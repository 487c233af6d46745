"""A run as a problem of placement, and what is forecast of it before it runs."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from bench.simulated_worker import profile_of
from bench.simulator import Simulator
from orchestrator.core import event as e
from orchestrator.core.command import Foresee
from orchestrator.core.outlook import Outlook
from orchestrator.core.precedent import Precedent
from orchestrator.core.setting import CoreSettings
from orchestrator.core.sketch import sketch
from orchestrator.engine.forecast_desk import ForecastDesk
from orchestrator.placement.forecast import bound_late, forecast, guided
from orchestrator.placement.heft import heft
from orchestrator.placement.problem import INF
from protocol.plan import parse_plan
from protocol.profile import DeviceProfile, LinkProfile
from protocol.resource import Resources
from protocol.skill import SkillSpec, Variant


def work(name: str, **more: object) -> dict[str, object]:
    return {"id": name, "skill": "sim.work", "args": {}, **more}


def seen(sim: Simulator, plan: dict[str, object]) -> Outlook:
    found = parse_plan(plan)
    inputs = {one.name: one.default for one in found.inputs if one.default is not None}
    return sim.machine.look_ahead(sketch(found.tasks, found.settings, inputs, "w1", sim.now), sim.now)


def teach(sim: Simulator, skill: str, run_s: float, device: str = "cpu", times: int = 21) -> None:
    """As if so many attempts had run."""
    for session in sim.machine.fleet.sessions.values():
        if device in session.device:
            kind, speed = session.device_class[device], session.speed[device]
            for n in range(times):
                sim.machine.predictor.note(skill, kind, session.worker, speed, 0, run_s * (0.95, 1.0, 1.05)[n % 3])
    sim.machine.predictor.refit()


def test_edges_order_and_elements_are_those_of_the_run_it_would_be() -> None:
    sim = Simulator(workers=2, slots=2)
    teach(sim, "sim.work", 2.0)
    found = seen(
        sim,
        {
            "inputs": [{"name": "files", "type": "array", "default": [1, 2, 3]}],
            "tasks": [
                work("a"),
                work("b", args={"value": {"ref": "a/value"}}),
                work("each", args={"value": {"ref": "input/files[]"}}, after=["a"]),
                work("next", args={"value": {"ref": "each[]/value"}}),
            ],
        },
    )
    problem = found.problem
    assert found.names == ("a", "b", "each[]", "each[]", "each[]", "next[]", "next[]", "next[]")
    assert [[up for up, _ in parents] for parents in problem.parents] == [[], [0], [0], [0], [0], [2], [3], [4]]
    assert [site.slots for site in problem.sites] == [2, 2]
    assert problem.run_s[0] == pytest.approx([2.0, 2.0], rel=0.05)
    assert (found.unknown, found.nowhere, found.assumed) == ({}, (), ())
    assert tuple(problem.doubt) == found.spread.own  # a plan of it is wary of slow sites
    ends = forecast(problem, bound_late(), found.spread)
    assert ends.low_s <= ends.makespan_s <= ends.high_s
    assert ends.course.schedule.makespan_s - problem.now_s == pytest.approx(6.0, rel=0.05)


def test_nobody_knows_an_unmeasured_skill_so_what_is_known_beside_it_is_a_lower_bound() -> None:
    sim = Simulator()
    teach(sim, "sim.work", 2.0)
    found = seen(sim, {"tasks": [work("a"), {"id": "b", "skill": "sim.other", "args": {}, "after": ["a"]}]})
    assert found.unknown == {"sim.other": 1}
    least = forecast(found.problem, bound_late(), found.spread).course.schedule.makespan_s - sim.now
    assert least == pytest.approx(2.0, rel=0.05)


def test_a_map_over_a_list_that_is_not_there_yet_is_counted_and_said() -> None:
    sim = Simulator()
    found = seen(sim, {"tasks": [work("l"), work("m", args={"value": {"ref": "l/items[]"}})]})
    assert found.names == ("l", "m[]")
    assert "m is spread over a list that is not there yet" in found.assumed[0]


def test_a_task_that_no_device_may_run_is_named() -> None:
    sim = Simulator()
    found = seen(sim, {"tasks": [{"id": "g", "skill": "sim.gpu", "args": {}}]})
    assert found.nowhere == ("g",)
    assert min(found.problem.run_s[0], default=INF) == INF


def test_unlike_devices_have_times_prices_and_links_of_their_own() -> None:
    dear = DeviceProfile("gpu", speed=4.0, price_per_s=2.0, watts=300.0)
    cheap = profile_of(1, link=LinkProfile(1e6, 0.01))
    other = msgspec.structs.replace(profile_of(2, gpu=1), devices=(DeviceProfile("cpu"), dear))
    sim = Simulator(workers=[cheap, other])
    teach(sim, "sim.gpu", 3.0, "gpu")
    found = seen(sim, {"tasks": [{"id": "g", "skill": "sim.gpu", "args": {}}]})
    assert [(site.name, site.device, site.price_per_s) for site in found.problem.sites] == [("w2", "gpu", 2.0)]
    ends = forecast(found.problem, bound_late(), found.spread, units=found.units)
    assert ends.course.schedule.makespan_s - sim.now == pytest.approx(3.0, rel=0.05)
    assert ends.price == pytest.approx(6.0, rel=0.5)


def test_a_variant_that_fits_nowhere_keeps_no_other_from_its_machine() -> None:
    small, large = Resources(memory=1 << 30), Resources(memory=64 << 30, gpu=1.0)
    skill = SkillSpec("sim.two", effect="pure", variants=(Variant("cpu", small), Variant("gpu", large)))
    machine = msgspec.structs.replace(profile_of(1), capacity=Resources(cpu=1.0, memory=8 << 30), skills=(skill,))
    sim = Simulator(workers=[machine, machine])
    teach(sim, "sim.two", 2.0)
    found = seen(sim, {"tasks": [{"id": "a", "skill": "sim.two", "args": {}}]})
    assert found.nowhere == ()
    assert heft(found.problem).makespan_s - sim.now == pytest.approx(2.0, rel=0.05)


def test_a_stated_duration_beyond_all_numbers_counts_as_very_long() -> None:
    sim = Simulator()
    for seconds in (10**400, 1e300, -3):
        found = seen(sim, {"tasks": [{"id": "s", "skill": "flow.sleep", "args": {"seconds": seconds}}]})
        assert 0.0 <= found.problem.run_s[0][0] < 1e7


def test_what_others_run_and_wait_for_is_ahead() -> None:
    def busy(job):  # type: ignore[no-untyped-def]
        yield 5.0
        return {}

    sim = Simulator(workers=1, slots=1, program={"sim.work": busy})
    teach(sim, "sim.work", 5.0)
    sim.submit({"tasks": [work("a"), work("b")]})
    sim.advance(1.0)
    found = seen(sim, {"tasks": [work("c")]})
    free = found.problem.sites[0].free_s[0] - sim.now
    assert free == pytest.approx(4.0 + 5.0, abs=0.2)  # what runs, and of what waits as much as ours takes


def test_a_stated_duration_is_taken_at_its_word() -> None:
    sim = Simulator()
    found = seen(sim, {"tasks": [{"id": "s", "skill": "flow.sleep", "args": {"seconds": 7}}]})
    ends = forecast(found.problem, bound_late(), found.spread)
    assert ends.low_s == ends.high_s == pytest.approx(7.0, rel=0.05)
    assert found.unknown == {}


def test_equal_seeds_forecast_alike() -> None:
    sim = Simulator()
    teach(sim, "sim.work", 2.0, times=3)
    found = seen(sim, {"tasks": [work(f"t{n}") for n in range(30)]})
    one, other = (forecast(found.problem, bound_late(), found.spread, seed=4) for _ in range(2))
    assert (one.makespan_s, one.low_s, one.high_s) == (other.makespan_s, other.low_s, other.high_s)
    assert one.low_s < one.makespan_s < one.high_s


def test_what_runs_holds_its_slot_and_ends_when_it_should() -> None:
    def busy(job):  # type: ignore[no-untyped-def]
        yield 5.0
        return {}

    sim = Simulator(workers=1, slots=1, program={"sim.work": busy})
    teach(sim, "sim.work", 5.0)
    number = sim.submit({"tasks": [work("a"), work("b"), work("c", after=["a"])]})
    sim.advance(2.0)
    found = sim.machine.look_ahead(sim.state.runs[number], sim.now)
    assert list(found.problem.placed) == [0]
    ends = forecast(found.problem, bound_late(), found.spread).course.schedule
    assert ends.makespan_s - sim.now == pytest.approx(13.0, rel=0.05)


def test_a_run_that_is_worth_it_keeps_what_was_expected_of_it() -> None:
    sim = Simulator()
    sim.submit({"tasks": [work("a")]})
    sim.settle()
    assert sim.state.runs[1].expected is None  # nobody knew, and it was short
    teach(sim, "sim.work", 2.0)
    sim.submit({"tasks": [work("a")]}, key="again")
    sim.settle()
    assert sim.state.runs[2].expected is not None
    sim.prove_replay()


def test_devices_that_are_alike_make_one_site_where_there_are_many() -> None:
    speeds = [1.0 if n % 2 else 0.5 for n in range(20)]
    profiles = [
        msgspec.structs.replace(profile_of(2), devices=(DeviceProfile("cpu", f"x{speed}", speed=speed),))
        for speed in speeds
    ]
    sim = Simulator(workers=profiles, check=False)
    teach(sim, "sim.work", 2.0)
    found = seen(sim, {"tasks": [work(f"t{n}") for n in range(40)]})
    assert sorted((site.name[:9], site.slots, site.speed) for site in found.problem.sites) == [
        ("10 like w", 20, 0.5),
        ("10 like w", 20, 1.0),
    ]
    assert {len(row) for row in found.problem.run_s} == {2}
    assert forecast(found.problem, bound_late(), found.spread).course.schedule.makespan_s - sim.now < 2.5


def test_a_run_that_will_miss_its_deadline_says_so_as_it_starts() -> None:
    sim = Simulator()
    teach(sim, "sim.work", 2.0)
    for deadline in ("500ms", "60s"):
        sim.submit({"run": {"deadline": deadline}, "tasks": [work("a")]}, key=deadline)
        sim.advance(0.1)
    told = [event for _, _, decision in sim.log for event in decision.events if isinstance(event, e.RunForeseen)]
    assert [event.late for event in told] == [True, False]


def test_a_plan_of_a_run_under_way_is_foretold_with_what_runs_already() -> None:
    def busy(job):  # type: ignore[no-untyped-def]
        yield 2.0 if job.worker == 1 else 4.0
        return {}

    profiles = [
        msgspec.structs.replace(profile_of(1), devices=(DeviceProfile("cpu", f"x{speed}", speed=speed),))
        for speed in (1.0, 0.5)
    ]
    sim = Simulator(workers=profiles, program={"sim.work": busy})
    teach(sim, "sim.work", 2.0)
    sim.submit({"tasks": [work(f"t{n}", **({"after": [f"t{n - 3}"]} if n > 2 else {})) for n in range(12)]})
    sim.advance(0.5)
    found = sim.machine.look_ahead(sim.state.runs[1], sim.now)
    assert len(found.problem.placed) == 2
    ends = forecast(found.problem, guided, found.spread)
    assert ends.course.schedule.makespan_s < INF
    assert 0 < ends.low_s <= ends.makespan_s <= ends.high_s


def test_a_defect_in_looking_ahead_costs_a_forecast_and_nothing_else() -> None:
    sim = Simulator()
    number = sim.submit({"tasks": [work("a")]})
    counted: list[str] = []
    posted: list[object] = []
    desk = ForecastDesk(sim.machine, lambda: sim.now, counted.append)
    sim.machine._turn.predictor = None  # type: ignore[assignment]
    anyio.run(desk.foresee, Foresee(number), posted.append)
    assert (counted, posted) == (["forecast_failed"], [])


def test_a_hop_that_was_seen_while_many_waited_is_no_hop() -> None:
    def swift(job):  # type: ignore[no-untyped-def]
        yield 0.2
        return {}

    sim = Simulator(workers=1, slots=1, program={"sim.work": swift}, settings=CoreSettings(prefetch_target_s=10.0))
    teach(sim, "sim.work", 0.2)
    sim.submit({"tasks": [work(f"t{n}") for n in range(30)]})
    sim.settle(60.0)
    waited = [task.attempts[0].ended_at - task.attempts[0].at for task in sim.state.runs[1].tasks]
    assert max(waited) > 1.0  # they were handed over ahead, and queued there
    assert Precedent([sim.state.runs[1]]).hop_s < 0.05


def test_what_a_run_tells_is_known_once_it_has_ended() -> None:
    sim = Simulator()
    each = {"tasks": [work("list"), work("each", args={"value": {"ref": "list/value[]"}})]}
    for count in (2, 3):
        assert f"counted as {count}" not in seen(sim, each).assumed[0]
        given = {"name": "files", "type": "array", "default": list(range(count))}
        sim.submit({"inputs": [given], "tasks": [work("each", args={"value": {"ref": "input/files[]"}})]})
        sim.settle(60.0)
        assert f"counted as {count}" in seen(sim, each).assumed[0]
