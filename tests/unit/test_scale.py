from __future__ import annotations

from pathlib import Path

import pytest

from bench.curve import fit
from bench.rehearsal import Cost, Rehearsal
from bench.scale import Growth, Scale, table, write_scale
from bench.scaling import play_apart
from bench.workload import chain, fan_out, layered
from protocol.errors import RunFailed


def test_a_rehearsal_plays_every_task_of_a_run_through_the_core_and_the_codec() -> None:
    rehearsal = Rehearsal(3)
    for plan, tasks in ((fan_out(130), 130), (layered(4, 10), 40), (chain(12), 12), (fan_out(130), 130)):
        cost = rehearsal.play(plan)
        assert (cost.tasks, cost.workers) == (tasks, 3)
        assert min(cost.submit_s, cost.run_s) > 0


def test_a_whole_server_and_its_workers_play_a_run_in_one_process() -> None:
    cost = play_apart("layers of 100", 200, 3)
    assert (cost.tasks, cost.workers) == (200, 3)
    assert cost.wall_s is not None
    assert min(cost.submit_s, cost.run_s, cost.wall_s) > 0
    told = table(Scale("server", (Growth("layers", "workers", (cost,), fit([(1.0, 1.0), (2.0, 2.0)])),), 2))
    assert "tasks/s  bytes kept" in told


def test_a_play_that_ends_early_is_named_and_gives_no_number() -> None:
    with pytest.raises(RunFailed, match="KeyError"):
        play_apart("star", 10, 1)


def test_the_answer_is_told_as_a_table_and_drawn(tmp_path: Path) -> None:
    by_tasks = tuple(Cost(2, tasks, tasks * 1e-5, tasks * 3e-5) for tasks in (1_000, 10_000))
    by_workers = tuple(Cost(workers, 10_000, 0.1, 0.3) for workers in (2, 100))
    growths = [
        Growth(name, across, costs, fit([(1.0, 4e-5), (2.0, 8e-5)]))
        for name, across, costs in (("fan-out", "tasks", by_tasks), ("many workers", "workers", by_workers))
    ]
    answer = Scale("core", tuple(growths), 2)
    told = table(answer)
    assert "10,000        2  0.400       40.0" in told
    assert "fan-out: CPU = 40.0 us a task" in told
    assert "many workers: CPU a task grows as workers ^ 1.000" in told
    write_scale(answer, tmp_path / "scale.html")
    assert (tmp_path / "scale.html").read_text().count("<svg") == 2
