"""`asterism bench schedule` on a small folder of one's own: what it reads, what it promises, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from bench.cli import bench
from bench.placement.answer import Answer, Core, table
from bench.placement.case import Known, Row
from bench.placement.decision import Decision
from bench.placement.page import write_schedule
from bench.placement.suite import Sizes, schedule
from bench.placement.workflow import read_workflow
from protocol.errors import PlanRefused, UsageError

FLEET = [
    {"id": "fast", "kind": "gpu", "speed": 4, "bps": 8e6, "lat_s": 0.01},
    {"id": "slow", "kind": "cpu", "speed": 1, "bps": 8e6, "lat_s": 0.01},
]


def task(name: str, work_s: float) -> dict[str, object]:
    return {"id": name, "kind": "k", "work_s": work_s, "mem_bytes": None}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    tasks = [task("a", 4.0), task("b", 8.0), task("c", 2.0), task("d", 4.0)]
    edges = [["a", "b", 1e6], ["a", "c", 1e6], ["b", "d", 1e3], ["c", "d", 1e3]]
    (tmp_path / "fork.json").write_text(
        json.dumps({"schema": "taskdag/1", "name": "fork", "tasks": tasks, "edges": edges})
    )
    (tmp_path / "fleets.json").write_text(json.dumps({"fleets": [{"id": "F", "devices": FLEET}]}))
    return tmp_path


def test_a_folder_without_a_reference_is_measured_against_its_own_bound(data: Path) -> None:
    sizes = Sizes(decodes=1000, futures=2, devices=(), luck=0, live=False)
    answer = schedule(data, sizes, lambda text: None, processes=1)
    found = json.loads(json.dumps(answer.document()))
    (row,) = found["instances"]
    assert (row["lb_s"], row["online_s"], row["heft_s"]) == (4.0, 4.5, 4.5)  # 16 s of path on a site of speed 4
    assert found["online_geomean_lb2"] == 1.125
    assert found["heft_max_deviation"] is None
    assert found["noise_geomean_lb"] > 1.0
    assert found["decision_us"] is found["hedging_shorter"] is None
    write_schedule(answer, data / "page.html")
    assert "<svg" in (data / "page.html").read_text()


def test_a_folder_that_doesn_t_hold_it_is_refused(data: Path) -> None:
    (data / "fleets.json").unlink()
    result = CliRunner().invoke(bench, ["schedule", "--data", str(data)])
    assert isinstance(result.exception, UsageError)
    assert "fleets.json" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "truncated"),
        ('{"schema": "taskdag/1", "name": "x", "tasks": [{"id": "a", "work_s": -1}], "edges": []}', "at least 0"),
        ('{"schema": "taskdag/1", "name": "x", "tasks": [], "edges": []}', "no task"),
    ],
)
def test_a_file_that_is_no_workflow_is_refused_by_its_name(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "one.json"
    path.write_text(text)
    with pytest.raises(PlanRefused, match=why) as refused:
        read_workflow(path)
    assert "one.json" in str(refused.value)


def test_what_is_over_its_bound_is_marked() -> None:
    row = Row("one", "F", 3, False, 10.0, Known(10.0, 10.0, 10.0), 10.2, online_s=12.0, searched_s=10.1)
    found = Answer((row,), Core((Decision(100, 9, 16.0, 20.0, 4.0),)), decodes=1, futures=1, processes=1, seconds=1.0)
    assert found.missed() == pytest.approx(
        {"online_geomean_lb2": 1.2, "online_worst_best_known": 1.2, "heft_max_deviation": 0.02, "decision_us": 16.0}
    )
    lines = table(found).splitlines()
    assert [line.split()[0] for line in lines if line.endswith("missed")] == list(found.missed())


def test_regret_is_that_of_the_forecast_s_pick_in_futures_that_came() -> None:
    ways = {"online": (1.0, 4.0), "eft": (2.0, 2.0), "fastest": (3.0, 3.0)}
    row = Row("one", "F", 3, False, 10.0, None, 10.0, noise=ways, pick="fastest")
    known = [msgspec.structs.replace(row, pick=name) for name in ("heft", "eft", "fastest")]
    answers = [Answer((one,), Core(), decodes=1, futures=16, processes=1, seconds=1.0).regret() for one in known]
    assert answers == pytest.approx([0.0, 0.0, 0.5])
    assert Answer((msgspec.structs.replace(row, pick=""),), Core(), 1, 4, 1, 1.0).regret() is None
