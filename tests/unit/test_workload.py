"""protocol.workload: what others recorded becomes a plan of loads, or is refused by what is wrong with it."""

from __future__ import annotations

import copy
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.placement.workflow import read_workflow
from orchestrator.client.submission import plan_text, submission
from protocol.errors import PlanRefused, UsageError
from protocol.plan import parse_plan
from protocol.workload import is_workload, plan_of, read_workload

WF: dict[str, Any] = {
    "name": "tiny",
    "schemaVersion": "1.5",
    "workflow": {
        "specification": {
            "tasks": [
                {"name": "sum", "id": "ID.3_Sum", "parents": ["ID.1", "ID.2"], "children": [],
                 "inputFiles": ["a", "b"]},
                {"name": "cut", "id": "ID.1", "parents": [], "children": ["ID.2"], "inputFiles": ["raw"],
                 "outputFiles": ["a", "unread"]},
                {"name": "cut", "id": "ID.2", "parents": [], "children": ["ID.3_Sum"], "outputFiles": ["b"]},
            ],
            "files": [{"id": "raw", "sizeInBytes": 9}, {"id": "a", "sizeInBytes": 1000},
                      {"id": "b", "sizeInBytes": 50}],
        },
        "execution": {
            "makespanInSeconds": 9.0,
            "executedAt": "2024-01-01T00:00:00Z",
            "tasks": [
                {"id": "ID.1", "runtimeInSeconds": 10.0, "memoryInBytes": 77},
                {"id": "ID.2", "runtimeInSeconds": 20, "coreCount": 1},
                {"id": "ID.3_Sum", "runtimeInSeconds": 0.5},
            ],
        },
    },
}  # fmt: skip
NEUTRAL: dict[str, Any] = {
    "schema": "taskdag/1",
    "name": "tiny",
    "tasks": [
        {"id": "t0", "work_s": 10.0, "inputs": [], "outputs": [{"name": "a", "bytes": 1000}]},
        {"id": "t1", "work_s": 0.5, "inputs": [{"name": "a", "bytes": 1000}], "mem_bytes": None},
    ],
    "edges": [["t0", "t1", 1000]],
}


def text(form: dict[str, Any]) -> bytes:
    return msgspec.json.encode(form)


def test_a_recorded_workflow_becomes_loads_behind_each_other_that_write_what_others_read() -> None:
    plan = plan_of(read_workload(text(WF)), {"scale": 0.1, "shrink": 0.5})
    tasks = [(one["id"], one["args"], one.get("after")) for one in plan["tasks"]]
    assert tasks == [
        ("id-1", {"seconds": 1.0, "seed": 1, "sizes": [500]}, None),
        ("id-2", {"seconds": 2.0, "seed": 2, "sizes": [25]}, ["id-1"]),
        ("id-3_sum", {"seconds": 0.05, "seed": 0, "inputs": [{"ref": "id-1/files/0"}, {"ref": "id-2/files/0"}]}, None),
    ]
    assert len(parse_plan(text(plan)).tasks) == 3
    assert all(one["args"]["spin"] for one in plan_of(read_workload(text(WF)), {"spin": True})["tasks"])


def test_the_neutral_form_is_read_too_and_by_the_bench_alike(tmp_path: Path) -> None:
    for name, form, edges in (
        ("n", NEUTRAL, [[], [(0, 1000.0)]]),
        ("w", WF, [[(1, 1000.0), (2, 50.0)], [], [(1, 0.0)]]),
    ):
        path = tmp_path / f"{name}.json.gz"
        path.write_bytes(gzip.compress(text(form)))
        assert [sorted(one) for one in read_workflow(path).parents] == edges
        plan = parse_plan(plan_text(path))
        assert {task.skill for task in plan.tasks} == {"bench.load"}
    made = submission(tmp_path / "n.json.gz", inputs={"scale": 0.0})
    assert msgspec.json.decode(made.text)["tasks"][0]["args"]["seconds"] == 0.0


def test_names_stay_different_when_they_are_made_legal() -> None:
    ids = ["A", "a", "1", "t-1", "..", "\u00e9" * 90, "\u00e8" * 90]
    form = {**NEUTRAL, "edges": [], "tasks": [{"id": one, "work_s": 0.0} for one in ids]}
    found = [task["id"] for task in plan_of(read_workload(text(form)), {})["tasks"]]
    assert len(set(found)) == len(ids)
    assert len(parse_plan(text(plan_of(read_workload(text(form)), {}))).tasks) == len(ids)


def test_plans_are_no_workflows() -> None:
    for plan in (b'{"tasks": []}', b'{"schema": "asterism/plan/v1"}', b"[]", b"{", b'{"schemaVersion": 3}'):
        assert not is_workload(plan)


def broken(change: Callable[[dict[str, Any]], object], form: dict[str, Any] = WF) -> bytes:
    made = copy.deepcopy(form)
    change(made)
    return text(made)


def specified(form: dict[str, Any]) -> Any:
    return form["workflow"]["specification"]["tasks"]


def ran(form: dict[str, Any]) -> Any:
    return form["workflow"]["execution"]["tasks"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda form: form.update(schemaVersion="1.3"), "WfFormat 1.3 is not read"),
        (lambda form: form["workflow"].pop("execution"), "how long its tasks take is not known"),
        (lambda form: ran(form).pop(), "'ID.3_Sum' takes is not recorded"),
        (lambda form: ran(form)[0].update(runtimeInSeconds=-1), "'ID.1' takes -1 s"),
        (lambda form: specified(form)[0]["parents"].append("ID.9"), "'ID.9' -> 'ID.3_Sum' names a task"),
        (lambda form: specified(form)[0]["children"].append("ID.1"), "wait for each other in a circle"),
        (lambda form: specified(form)[0]["children"].append("ID.3_Sum"), "wait for each other in a circle"),
        (lambda form: specified(form).append(specified(form)[0]), "the same id"),
        (lambda form: form["workflow"]["specification"]["files"][1].update(sizeInBytes=-5), "has -5 bytes"),
        (lambda form: form.update(workflow=[]), "Expected `object`"),
    ],
)
def test_what_is_wrong_with_a_workflow_is_said(change: Callable[[dict[str, Any]], object], why: str) -> None:
    with pytest.raises(PlanRefused, match=why):
        read_workload(broken(change))


@pytest.mark.parametrize("inputs", [{"scale": "fast"}, {"scale": -1}, {"shrink": True}, {"scale": float("nan")}])
def test_a_scale_that_is_no_number_is_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(PlanRefused, match="is no number from 0 on"):
        plan_of(read_workload(text(NEUTRAL)), inputs)


def test_a_torn_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.json.gz").write_bytes(gzip.compress(text(WF))[:-20])
    with pytest.raises(UsageError, match="can't be read"):
        plan_text(tmp_path / "w.json.gz")
