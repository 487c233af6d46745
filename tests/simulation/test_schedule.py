"""Drawn schedules of faults against the real core, worker machine and link: 300 fixed ones, always the same."""

import os
import subprocess
import sys

import pytest

from bench.farm import reap
from bench.mutant import MUTANTS, killed
from bench.schedule import LISTS, MOST_STEPS, MOST_TASKS, MOST_WORKERS, draw
from bench.shrink import kind, narrow, shrink
from bench.simulation import simulate, simulate_seed

DIGESTS = """
from bench.simulation import simulate_seed
for seed in range(40, 60):
    print(seed, simulate_seed(seed).digest)
"""


@pytest.fixture(scope="module")
def fixed():
    return reap(range(300), 2)


def test_nothing_is_lost_doubled_or_stuck_in_the_fixed_schedules(fixed):
    assert [one.seed for one in fixed.failures] == [], f"{fixed.failures[0].error}\n{fixed.failures[0].story}"
    assert fixed.schedules == 300
    assert fixed.results > 300


def test_the_fixed_schedules_meet_every_fault(fixed):
    wanted = {
        "crash at an effect", "crash behind a dispatch", "cut", "one-way cut", "disk full", "disk stall",
        "frame cut off", "frame delayed", "frame doubled", "frame lost", "freeze", "kill: boot", "kill: half",
        "kill: power", "kill: stream", "lie: report", "lie: fence", "snapshot", "started from a snapshot",
        "decision that failed", "worker disk full",
    }  # fmt: skip
    assert wanted <= set(fixed.hits)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.title for mutant in MUTANTS])
def test_a_rule_taken_out_is_noticed(mutant):
    outcome = killed(mutant, mutant.seeds())
    assert outcome is not None
    assert simulate_seed(outcome.seed).error == ""


def test_a_seed_repeats_byte_for_byte_whatever_the_hashes():
    told = []
    for hashes in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": hashes}
        told.append(subprocess.check_output([sys.executable, "-c", DIGESTS], env=environ, text=True))
    assert told[0] == told[1]
    assert len(set(told[0].split())) == 40


def test_schedules_stay_within_their_bounds():
    for seed in range(200):
        schedule = draw(seed)
        assert schedule == draw(seed)
        assert len(schedule.tasks) <= MOST_TASKS
        assert len(schedule.slots) <= MOST_WORKERS
        assert schedule.steps <= MOST_STEPS


def test_every_part_of_a_schedule_can_be_left_out():
    schedule = next(one for one in map(draw, range(500)) if sum(len(getattr(one.faults, name)) for name in LISTS) > 9)
    for part in schedule.parts():
        less = schedule.without({part})
        assert less != schedule, part
        assert set(less.parts()) < set(schedule.parts()) or part.startswith("task:"), part
    bare = schedule.without(set(schedule.parts()))
    assert (len(bare.tasks), len(bare.slots), bare.acts, bare.script) == (1, 1, (), {})
    assert simulate(bare).error == ""


def test_a_failing_schedule_is_made_smaller_and_still_fails():
    mutant = next(one for one in MUTANTS if one.title == "once dispatched before commit")
    outcome = killed(mutant, mutant.seeds())
    schedule = draw(outcome.seed)
    with mutant.applied():
        shrunk = shrink(schedule, outcome)
        assert kind(shrunk.outcome) == kind(outcome)
        again = simulate(narrow(schedule, shrunk.without, shrunk.schedule.steps))
        assert again.digest == shrunk.outcome.digest
    assert len(list(shrunk.schedule.parts())) < len(list(schedule.parts())) / 2
    assert f"--seed {outcome.seed}" in shrunk.command
    assert "AttemptDispatched" in shrunk.outcome.story
    assert simulate(shrunk.schedule).error == ""
