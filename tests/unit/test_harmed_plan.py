"""What a model writes may be harmed in any way: nothing wrong is accepted, nothing good lost, nobody left guessing."""

from __future__ import annotations

import pytest

from bench.planner.damage import KINDS, MENDED, damaged, truncations
from bench.planner.reading import CHANGE, Reader, read
from bench.planner.truth import judge


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_harmed_plan_the_good_tasks_are_accepted_and_no_other(kind):
    reader = Reader()
    for seed in range(8):
        reader.take(kind, seed, damaged(kind, seed))
    found = reader.of()
    assert found.wrong == ()
    assert found.silent == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_harmed_change_to_a_running_graph_is_made_whole_or_not_at_all(kind):
    for seed in range(3):
        text, truth = damaged(kind, seed)
        found = read(text, seed, kind not in MENDED, CHANGE)
        ids = {task["id"] for task in truth.good["tasks"]}
        assert not judge(truth, found.tasks, found.outputs).false_accepts
        assert {task.id for task in found.tasks} in (set(), ids)
        assert found.tasks or found.problems or kind == "no tasks"


@pytest.mark.parametrize("seed", range(3))
def test_of_a_plan_that_is_cut_off_anywhere_every_whole_task_is_kept(seed):
    reader = Reader()
    for found in truncations(seed):
        reader.take("cut off", seed, found, cut=True)
    assert reader.of().wrong == ()
    assert reader.of().truncations > 400
