"""Remarks on plans that are right: only what is certain."""

from __future__ import annotations

from typing import Any

import pytest

from planner.catalog import Catalog
from planner.critic import criticise
from protocol.builtin import BUILTINS
from protocol.plan import parse_plan

CATALOG = Catalog(BUILTINS)
SCAN: dict[str, Any] = {"id": "scan", "skill": "fs.find", "args": {"path": "logs"}}
COUNT: dict[str, Any] = {"id": "count", "skill": "text.count", "args": {"file": {"ref": "scan/files[]/file"}}}
WRITE: dict[str, Any] = {"id": "w", "skill": "fs.write", "args": {"path": "a.csv", "data": {"ref": "count"}}}
OUT = [{"name": "n", "ref": "count"}]


def remarks(*tasks: dict[str, Any], outputs: list[dict[str, str]] | None = None) -> list[tuple[str, str]]:
    plan = parse_plan({"tasks": list(tasks), "outputs": outputs or []})
    return [(one.code, one.where) for one in criticise(plan.tasks, plan.outputs, CATALOG)]


@pytest.mark.parametrize(
    ("tasks", "found"),
    [
        ([SCAN, COUNT], []),
        ([SCAN, COUNT, WRITE], []),
        ([SCAN, COUNT, {**SCAN, "id": "again"}], [("UnusedTask", "again"), ("SameTask", "again")]),
        ([SCAN, COUNT, {**SCAN, "id": "b"}, {**COUNT, "id": "c", "args": {"file": {"ref": "b/files[]/file"}}}],
         [("UnusedTask", "b, c"), ("SameTask", "b")]),
        ([SCAN, COUNT, WRITE, {**WRITE, "id": "x"}], [("WriteRace", "x")]),
        ([SCAN, COUNT, WRITE, {**WRITE, "id": "x", "args": {"path": "b.csv", "data": 1}}], []),
        ([SCAN, COUNT, WRITE, {**WRITE, "id": "x", "when": [{"ref": "w", "is": "failed"}]}], []),
        ([SCAN, COUNT, WRITE, {**WRITE, "id": "x", "args": {"path": "a.csv", "data": {"ref": "w/file"}}}], []),
    ],
)  # fmt: skip
def test_only_what_is_certain_is_remarked_on(tasks: list[dict[str, Any]], found: list[tuple[str, str]]) -> None:
    assert remarks(*tasks, outputs=OUT) == found


def test_without_outputs_every_task_may_be_one() -> None:
    assert remarks(SCAN, {**SCAN, "id": "b", "args": {"path": "x"}}) == []


def test_what_is_true_of_many_tasks_is_said_once() -> None:
    more = [{"id": f"x{i}", "skill": "flow.echo", "args": {"value": i}} for i in range(30)]
    assert remarks(SCAN, COUNT, *more, outputs=OUT) == [("UnusedTask", "x0, x1, x2, x3, x4 and 25 more")]
