"""What a forecast says, to programs and to people; deadlines that can't be met."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from bench.placement.foretold import SHAPES
from orchestrator.cli import forecast as shown
from orchestrator.core.outlook import Outlook
from orchestrator.engine.forecast_desk import refuse_late, row
from orchestrator.placement.clock import Played, Took
from orchestrator.placement.forecast import PORTFOLIO, Spread, bound_late, forecast, foremost, quantile
from orchestrator.placement.problem import INF, Placed, Problem, Site
from protocol.errors import DeadlineTooShort, from_wire
from protocol.forecast_row import ForecastRow
from protocol.plan import parse_plan
from protocol.task import RunSettings

FAST = Site("fast", kind=0, worker=0, price_per_s=2.0, watts=100.0)
SLOW = Site("slow", kind=1, worker=1, price_per_s=0.1, watts=10.0)


def problem(tasks: int = 4, run_s: tuple[float, float] = (1.0, 3.0)) -> Problem:
    return Problem((FAST, SLOW), [list(run_s)] * tasks, [[] for _ in range(tasks)], [[] for _ in range(tasks)])


def spread(tasks: int = 4, own: float = 0.2, shared: float = 0.1) -> Spread:
    return Spread((own,) * tasks, (0,) * tasks, (shared,))


def outlook(one: Problem, **more: Any) -> Outlook:
    names = tuple(f"t{n}" for n in range(one.size))
    told: dict[str, Any] = {"unknown": {}, "nowhere": (), "assumed": (), **more}
    return Outlook(one, spread(one.size), tuple(range(one.size)), names, (1.0,) * one.size, **told)


def test_the_spread_of_predictions_becomes_that_of_the_makespan() -> None:
    sure, doubtful = (forecast(problem(), bound_late(), spread(own=own)) for own in (0.02, 0.5))
    assert sure.low_s < sure.makespan_s < sure.high_s
    assert doubtful.high_s - doubtful.low_s > 3 * (sure.high_s - sure.low_s)
    exact = forecast(problem(), bound_late(), spread(own=0.0, shared=0.0))
    assert (exact.low_s, exact.makespan_s, exact.high_s, exact.samples) == (3.0, 3.0, 3.0, 1)


def test_price_and_energy_are_those_of_the_seconds_that_devices_are_held() -> None:
    found = forecast(problem(), bound_late(), spread(own=0.0, shared=0.0), units=[1.0, 1.0, 1.0, 2.0])
    held = {site: sum(1 for at in found.course.schedule.site if at == site) for site in (0, 1)}
    assert held == {0: 3, 1: 1}
    assert found.price in (pytest.approx(2.0 * 3 + 0.1 * 6.0), pytest.approx(2.0 * 4 + 0.1 * 3.0))


def fan(out_bytes: float) -> Problem:
    """A join of six tasks, whose results have to come together over a link of 1 byte/s."""
    sites = tuple(msgspec.structs.replace(site, bandwidth=1.0) for site in (FAST, SLOW))
    edges = [(n, out_bytes) for n in range(6)]
    children = [[(6, out_bytes)] for _ in range(6)] + [[]]
    return Problem(sites, [[1.0, 1.2]] * 6 + [[1.0, 1.2]], [[] for _ in range(6)] + [edges], children)


@pytest.mark.parametrize(("out_bytes", "best"), [(0.1, "heft"), (20.0, "fastest")])
def test_the_way_that_ends_first_in_most_futures_and_on_average_is_taken(out_bytes: float, best: str) -> None:
    found = foremost(fan(out_bytes), PORTFOLIO, spread(7))
    assert found.policy == best
    alone = {name: forecast(fan(out_bytes), course, spread(7)) for name, course in PORTFOLIO.items()}
    assert alone[best].makespan_s < 1.02 * min(one.makespan_s for one in alone.values())
    assert foremost(fan(out_bytes), PORTFOLIO, spread(7)) == found


def test_too_few_futures_take_no_way_but_the_first() -> None:
    assert foremost(fan(20.0), PORTFOLIO, spread(7), work=3 * 7 * 4).policy == "heft"
    sure = foremost(fan(20.0), PORTFOLIO, spread(7, own=0.0, shared=0.0), work=1)
    assert sure.policy == "fastest"  # nothing is left to luck: one is enough


def test_a_way_that_is_better_mostly_and_far_worse_at_times_is_not_taken() -> None:
    def gamble(one: Problem, took: Took | None) -> Played:
        """Two thirds of the time of the other way, but a hundred times that in one future of four."""
        lucky = took is None or took(0, 0) < 1.1
        return bound_late()(one, lambda task, site: (0.66 if lucky else 66.0) * (took or one.run)(task, site))

    ways = {"steady": bound_late(), "gamble": gamble}
    steady, found = (forecast(problem(1), way, spread(1)) for way in ways.values())
    assert found.makespan_s < steady.makespan_s
    assert foremost(problem(1), ways, spread(1)).policy == "steady"


def test_what_is_under_way_is_paid_as_a_whole() -> None:
    one = msgspec.structs.replace(problem(2), placed={0: Placed(0, 0.4), 1: Placed(1, -1.0)})
    found = forecast(one, bound_late(), spread(2, own=0.0, shared=0.0))
    assert (found.price, found.energy_j) == (pytest.approx(2.0), pytest.approx(100.0))


def test_quantiles_are_linear_between_neighbours() -> None:
    assert [quantile([1.0, 2.0, 4.0], part) for part in (0.0, 0.25, 0.5, 1.0)] == [1.0, 1.5, 2.0, 4.0]
    assert quantile([1.0, INF, INF], 0.9) == INF


def test_a_row_tells_who_does_what_when() -> None:
    one = problem()
    found = row(outlook(one), forecast(one, bound_late(), spread()), home="slow")
    assert {lane.worker for lane in found.devices} == {"fast", "here"}
    assert sum(lane.tasks for lane in found.devices) == 4
    assert found.makespan_s is not None
    lines = list(shown.lines(msgspec.to_builtins(found)))
    assert lines[0].startswith("expected: ")
    assert "8 times in 10 between" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["fast", "here"]


def test_what_nobody_knows_has_no_estimate_and_no_bars() -> None:
    one = problem()
    found = row(outlook(one, unknown={"render": 2}), forecast(one, bound_late(), spread()))
    assert (found.makespan_s, found.low_s, found.high_s) == (None, None, None)
    assert found.least_s > 0
    lines = list(shown.lines(msgspec.to_builtins(found)))
    assert lines == [f"no estimate yet: nobody knows how long render (2 tasks) takes; all else takes {lines[0][-6:]}"]


def test_what_can_not_run_now_is_said() -> None:
    one = problem(run_s=(INF, INF))
    found = row(outlook(one, nowhere=("t0", "t1")), forecast(one, bound_late(), spread()))
    assert (found.makespan_s, found.least_s) == (None, 0.0)
    assert "no device may run t0 now" in "\n".join(shown.lines(msgspec.to_builtins(found)))


def said(least_s: float, makespan_s: float | None = None) -> ForecastRow:
    return ForecastRow("eft", 3, makespan_s, None, None, least_s)


def test_a_deadline_that_can_not_be_met_is_refused_with_the_forecast() -> None:
    with pytest.raises(DeadlineTooShort) as refused:
        refuse_late(said(8.0, 9.0), RunSettings(deadline_s=5.0))
    assert refused.value.exit_code == 6
    again = from_wire(refused.value.to_wire())
    assert isinstance(again, DeadlineTooShort)
    assert again.partial is not None
    assert again.partial["least_s"] == 8.0


@pytest.mark.parametrize(
    ("found", "settings"),
    [
        (None, RunSettings(deadline_s=5.0)),  # too large to foretell
        (said(0.0), RunSettings(deadline_s=5.0)),  # nobody knows
        (said(4.0, 6.0), RunSettings(deadline_s=5.0)),  # it may be met
        (said(8.0, 9.0), RunSettings()),
        (said(8.0, 9.0), RunSettings(deadline_s=5.0, best_effort=True)),
    ],
)
def test_nothing_else_is_refused(found: ForecastRow | None, settings: RunSettings) -> None:
    refuse_late(found, settings)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_shapes_that_forecasts_are_measured_on_are_plans_of_a_second_or_two(name: str) -> None:
    drawn = SHAPES[name](Random(1))
    assert drawn == SHAPES[name](Random(1))
    plan = parse_plan({"tasks": drawn})
    assert 10 <= len(plan.tasks) <= 50


def test_half_of_the_slots_all_the_time_make_one_unbroken_bar() -> None:
    assert shown.bar([["a", 0.0, 3.0], ["b", 3.0, 6.01]], 2, 6.01) == "#" * 48
    assert shown.bar([["a", 0.0, 1.0]], 4, 2.0) == "+" * 24 + "." * 24
