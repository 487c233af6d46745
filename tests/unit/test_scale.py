from __future__ import annotations

from pathlib import Path

import pytest

from bench.rehearsal import Cost, Rehearsal
from bench.scale import Growth, Scale, fit, table, write_scale
from bench.workload import chain, fan_out, layered


def test_a_rehearsal_plays_every_task_of_a_run_through_the_core_and_the_codec() -> None:
    rehearsal = Rehearsal(3)
    for plan, tasks in ((fan_out(130), 130), (layered(4, 10), 40), (chain(12), 12), (fan_out(130), 130)):
        cost = rehearsal.play(plan)
        assert (cost.tasks, cost.workers) == (tasks, 3)
        assert min(cost.submit_s, cost.run_s) > 0


def test_a_fit_finds_the_line_and_the_exponent_that_points_were_made_with() -> None:
    found = fit([(x, 0.5 + 2.0 * x) for x in (1.0, 2.0, 5.0, 9.0)])
    assert (found.slope, found.base, found.r2) == pytest.approx((2.0, 0.5, 1.0))
    assert fit([(x, 3.0 * x**1.5) for x in (1.0, 10.0, 100.0)]).exponent == pytest.approx(1.5)
    assert fit([(x, 7.0) for x in (2.0, 10.0, 100.0)]).exponent == pytest.approx(0.0)


def test_growth_that_bends_upwards_shows_in_the_exponent() -> None:
    assert fit([(x, 1e-5 * x + 1e-9 * x * x) for x in (1e3, 1e4, 1e5)]).exponent > 1.3


def test_a_fit_of_one_place_is_refused() -> None:
    with pytest.raises(ValueError, match="two different places"):
        fit([(1.0, 1.0), (1.0, 2.0)])


def test_the_answer_is_told_as_a_table_and_drawn(tmp_path: Path) -> None:
    by_tasks = tuple(Cost(2, tasks, tasks * 1e-5, tasks * 3e-5) for tasks in (1_000, 10_000))
    by_workers = tuple(Cost(workers, 10_000, 0.1, 0.3) for workers in (2, 100))
    growths = [
        Growth(name, across, costs, fit([(1.0, 4e-5), (2.0, 8e-5)]))
        for name, across, costs in (("fan-out", "tasks", by_tasks), ("many workers", "workers", by_workers))
    ]
    answer = Scale(tuple(growths))
    told = table(answer)
    assert "10,000        2  0.400       40.0" in told
    assert "fan-out: CPU = 40.0 us a task" in told
    assert "many workers: CPU a task grows as workers ^ 1.000" in told
    write_scale(answer, tmp_path / "scale.html")
    assert (tmp_path / "scale.html").read_text().count("<svg") == 2
