"""Weighted dominant resource fairness with memory: whose share is how large, and how it fades."""

import pytest

from orchestrator.placement.fairness import MOST_ABSENT, Fairness

HALF_LIFE_S = 60.0
CPU, MEMORY = (1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 4e9, 0.0)


def fair(**weights):
    found = Fairness(weights, HALF_LIFE_S)
    found.capacity = (10.0, 2.0, 20e9, 0.0)
    for run, user in enumerate(("ann", "ben"), 1):
        found.open(run, user)
    return found


def share(found, user, now=0.0):
    return found.dominant(found.users[user], now)


def test_the_largest_part_of_any_resource_is_the_share():
    found = fair()
    found.hold(1, MEMORY, 1.0, 1)
    found.hold(2, CPU, 1.0, 1)
    assert share(found, "ann") == ("memory", pytest.approx(0.2))
    assert share(found, "ben") == ("cpu", pytest.approx(0.1))


def test_long_work_under_way_counts_whole_and_short_work_hardly():
    found = fair()
    assert found.part(3600.0) == 1.0
    assert found.part(0.001) == pytest.approx(0.001 / found.memory_s)


def test_what_was_held_is_given_back_whole():
    found = fair()
    found.hold(1, CPU, 0.25, 1)
    found.hold(1, CPU, 0.25, -1)
    assert share(found, "ann")[1] == 0.0


def test_use_fades_with_the_half_life():
    found = fair()
    found.use(1, CPU, 30.0, 0.0, now=100.0)
    at_once = share(found, "ann", 100.0)[1]
    assert at_once == pytest.approx(30.0 / found.memory_s / 10.0)
    assert share(found, "ann", 100.0 + HALF_LIFE_S)[1] == pytest.approx(at_once / 2)


def test_a_core_in_use_for_ever_is_one_core():
    found = fair()
    for second in range(1, 1200):
        found.use(1, CPU, 1.0, 0.0, now=float(second))
    assert share(found, "ann", 1199.0)[1] == pytest.approx(0.1, rel=0.02)


def test_money_counts_where_the_fleet_has_a_price():
    found = fair()
    found.use(1, (0.0, 0.0, 0.0, 0.5), 10.0, 3.0, now=0.0)
    assert share(found, "ann") == ("cpu", 0.0)
    found.capacity = (10.0, 2.0, 20e9, 2.0)
    assert share(found, "ann") == ("price", pytest.approx(8.0 / found.memory_s / 2.0))


def test_who_has_twice_the_weight_may_have_twice_as_much():
    found = fair(ann=2.0)
    found.hold(1, CPU, 1.0, 1)
    found.hold(1, CPU, 1.0, 1)
    found.hold(2, CPU, 1.0, 1)
    ann, ben = (found.step(found.users[user], 0.0) for user in ("ann", "ben"))
    assert ann == ben
    found.hold(1, CPU, 1.0, 1)
    assert found.step(found.users["ann"], 0.0) > ben


def test_runs_of_one_user_have_shares_of_their_own():
    found = fair()
    found.open(3, "ann")
    found.hold(1, CPU, 1.0, 1)
    first, third = (found.step(found.runs[run][0], 0.0) for run in (1, 3))
    assert first > third
    assert found.runs[3][1] is found.users["ann"]


def test_users_without_a_run_are_forgotten_once_their_use_has_faded():
    found = fair()
    found.use(1, CPU, 30.0, 0.0, now=100.0)
    found.clear([1], 100.0 + HALF_LIFE_S)
    assert share(found, "ann", 100.0)[1] > 0.0
    found.clear([], 100.0 + 40 * HALF_LIFE_S)
    assert set(found.users) == {"ben"}  # whose run is open, whatever he has used


def test_no_number_of_names_makes_it_remember_more_than_so_many():
    found, strangers = fair(), range(10, 10 + 2 * MOST_ABSENT)
    for n in strangers:
        found.open(n, f"user{n}")
        found.use(n, CPU, 1.0, 0.0, now=n / 1000)
    found.clear(strangers, 2.0)
    assert len(found.users) == MOST_ABSENT + 2
    assert {f"user{strangers[-1]}", "ann", "ben"} <= set(found.users)
