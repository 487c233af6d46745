"""The virtual clock: what a policy or a plan comes to, with links of one's own and with shared ones."""

from __future__ import annotations

import pytest

from orchestrator.placement.clock import Played, follow, play
from orchestrator.placement.dice import Dice
from orchestrator.placement.eft import Eft
from orchestrator.placement.flow import Flows
from orchestrator.placement.late_binding import LateBinding
from orchestrator.placement.problem import INF, Contention, Placed, Problem, Site

LAN = 1e6
"""Bytes/s."""


def problem(
    run_s: list[list[float]],
    edges: list[tuple[int, int, float]] = [],  # noqa: B006 read only
    sites: int = 2,
    contention: Contention = "free",
    slots: int = 1,
    **more: object,
) -> Problem:
    parents: list[list[tuple[int, float]]] = [[] for _ in run_s]
    children: list[list[tuple[int, float]]] = [[] for _ in run_s]
    for up, down, size in edges:
        parents[down].append((up, size))
        children[up].append((down, size))
    where = tuple(Site(f"s{n}", kind=n, worker=n, bandwidth=LAN, slots=slots) for n in range(sites))
    return Problem(where, run_s, parents, children, contention=contention, **more)  # type: ignore[arg-type]


def played(one: Problem, window: int = 0) -> Played:
    return play(one, LateBinding(Eft(), [float(-n) for n in range(one.size)], window))


def test_what_waits_for_a_site_books_it_for_those_behind_it() -> None:
    one = problem([[1.0, 4.0]] * 10)
    found = played(one)
    assert found.schedule.makespan_s == 8.0  # eight on the fast site, two on the slow one; nobody waits for a ninth


def test_inputs_travel_once_placed_and_a_site_that_holds_them_needs_no_time() -> None:
    found = played(problem([[1.0, 1.0], [1.0, 1.0]], [(0, 1, 2 * LAN)]))
    assert (found.schedule.makespan_s, found.moved_bytes) == (2.0, 0.0)
    found = played(problem([[1.0, INF], [INF, 1.0]], [(0, 1, 2 * LAN)]))
    assert (found.schedule.makespan_s, found.moved_bytes) == (4.0, 2 * LAN)


def test_shared_links_are_shared_and_an_output_goes_to_a_worker_once() -> None:
    edges = [(0, n, 2 * LAN) for n in (1, 2, 3)]
    run = [[1.0, INF, INF, INF]] + [[INF if n != k else 1.0 for n in range(4)] for k in (1, 2, 3)]
    free, shared = (played(problem(run, edges, sites=4, contention=how)) for how in ("free", "shared"))
    assert free.schedule.makespan_s == pytest.approx(4.0)
    assert shared.schedule.makespan_s == pytest.approx(8.0)  # three flows of 2 s each over one uplink
    run = [[1.0, INF]] + [[INF, 1.0]] * 3
    once = played(problem(run, edges, contention="shared", slots=3))
    assert once.schedule.makespan_s == pytest.approx(4.0)
    assert once.moved_bytes == 2 * LAN


def test_a_followed_plan_keeps_its_order_however_long_things_take() -> None:
    one = problem([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], [(0, 2, LAN)])
    plan = played(one).schedule
    assert follow(one, plan).schedule.finish_s == plan.finish_s
    slow = follow(one, plan, took=lambda task, site: 10.0 * one.run(task, site))
    assert slow.schedule.site == plan.site
    assert slow.schedule.makespan_s > 5 * plan.makespan_s


def test_the_past_is_kept_and_a_slot_is_free_when_it_says() -> None:
    sites = (Site("s0", worker=0, free_s=(5.0,)), Site("s1", kind=1, worker=1))
    edges = [[], [(0, 0.0)]], [[(1, 0.0)], []]
    one = Problem(sites, [[1.0, 1.0], [1.0, INF]], *edges, placed={0: Placed(1, 3.0)}, now_s=2.0)
    found = played(one).schedule
    assert (found.finish_s, found.order) == ([3.0, 6.0], [1])


def test_a_task_that_may_run_nowhere_never_ends_and_keeps_nobody_from_ending() -> None:
    found = played(problem([[INF, INF], [1.0, 1.0]])).schedule
    assert (found.finish_s, found.makespan_s) == ([INF, 1.0], INF)


def test_a_released_task_waits_for_its_time() -> None:
    assert played(problem([[1.0, 1.0]], release_s=[3.0])).schedule.start_s == [3.0]


def test_rates_are_max_min_fair() -> None:
    dice = Dice(3)
    for _ in range(60):
        count = 2 + dice.below(4)
        width = [1.0 + 9.0 * dice.uniform() for _ in range(count)]
        flows: Flows[int] = Flows(width)
        ends: list[tuple[int, int]] = []
        for name in range(1 + dice.below(9)):
            source = dice.below(count)
            target = (source + 1 + dice.below(count - 1)) % count
            ends.append((source, target))
            flows.begin(source, target, 1e9, name)
        flows.next_s()
        mine = [(pair, flows.rate(*pair)) for pair in ends]
        for pair, rate in mine:  # each has a full link on which nobody has more
            on = [[other for ends, other in mine if ends[way] == pair[way]] for way in (0, 1)]
            assert all(sum(on[way]) <= width[pair[way]] * (1 + 1e-9) for way in (0, 1))
            assert any(
                sum(on[way]) >= width[pair[way]] * (1 - 1e-9) and max(on[way]) <= rate * (1 + 1e-9) for way in (0, 1)
            )


def test_every_byte_arrives_and_time_never_stands_still() -> None:
    dice = Dice(5)
    flows: Flows[int] = Flows([1e9, 1e6, 3e8])
    now, left = 0.0, 0
    for name in range(200):
        flows.begin(dice.below(3), dice.below(3), 1e9 * dice.uniform(), name)
        left += 1
        if name % 3 == 0:
            now = flows.next_s()
            left -= len(flows.advance(now))
    while left:
        now = flows.next_s()
        ended = flows.advance(now)
        assert ended
        left -= len(ended)
    assert flows.next_s() == INF
