"""The generator of harmed plans is right itself: held against the parser and the compiler, which it does not use."""

from __future__ import annotations

import itertools

import pytest

from bench.planner.damage import KINDS, damaged, truncations
from bench.planner.sample import good, text_of
from bench.planner.task_damage import HARMS
from bench.planner.truth import Verdict, judge
from planner.catalog import Catalog
from planner.compiler import check_task, compile_plan
from protocol.builtin import BUILTINS
from protocol.document import PLANNER_LIMITS
from protocol.errors import PlanRefused
from protocol.plan import parse_plan, read_plan
from protocol.task import TaskSpec

CATALOG = Catalog(BUILTINS)
LENIENT = {"key twice"}
"""What the parser of files reads: of two equal keys the last."""


def strictly(text: str) -> list[TaskSpec]:
    """The good tasks of a text that is one document of good JSON; none of any other."""
    try:
        found = read_plan(text, limits=PLANNER_LIMITS)
    except PlanRefused:
        return []
    wrong = {int(one.where.split("/")[1]) for one in found.problems.found if one.where.startswith("tasks/")}
    known: dict[str, TaskSpec] = {}
    for task, place in zip(found.plan.tasks, found.places):
        if place not in wrong and not check_task(task, CATALOG, known, (), "task"):
            known[task.id] = task
    return list(known.values())


def test_a_drawn_plan_is_good():
    for seed in range(100):
        plan = good(seed, 4 + seed % 20)
        compile_plan(parse_plan(text_of(plan, seed)), CATALOG)


def test_there_are_many_kinds_and_each_repeats():
    assert len(KINDS) == len(set(KINDS)) > 100
    for kind in KINDS:
        assert damaged(kind, 3) == damaged(kind, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_of_a_kind_is_what_parser_and_compiler_say_of_it(kind):
    for seed in range(5):
        text, truth = damaged(kind, seed)
        accepted = strictly(text)
        verdict = judge(truth, accepted)
        assert kind in LENIENT or not verdict.false_accepts
        if kind in HARMS and accepted:
            assert not verdict.lost
            assert set(truth.keep) == {task.id for task in accepted} < {task["id"] for task in truth.good["tasks"]}


def test_the_judge_sees_a_false_accept_and_a_loss():
    _text, truth = damaged("unknown skill", 1)
    tasks = parse_plan(truth.good).tasks
    kept = [task for task in tasks if task.id in truth.keep]
    assert judge(truth, kept) == Verdict()
    assert judge(truth, kept[1:]).lost
    assert judge(truth, tasks).false_accepts
    assert judge(truth, [*kept, kept[0]]).false_accepts == (f"{kept[0].id}: accepted twice",)
    assert judge(truth, kept[::-1]).false_accepts


def test_a_cut_keeps_what_was_closed_before_it():
    kept = [truth.keep for _, truth in truncations(0)]
    assert kept[0] == frozenset()
    assert len(kept[-1]) == 4
    assert all(one <= other for one, other in itertools.pairwise(kept))
