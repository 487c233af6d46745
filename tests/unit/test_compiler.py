"""A plan against the skills there are."""

from __future__ import annotations

from typing import Any

import pytest

from planner.catalog import Catalog
from planner.compiler import check_task, compile_plan
from protocol.builtin import BUILTINS
from protocol.errors import PlanRefused
from protocol.plan import parse_plan, parse_task

CATALOG = Catalog(BUILTINS)
FIND = {"id": "scan", "skill": "fs.find", "args": {"path": "logs"}}
COUNT = {"id": "count", "skill": "text.count", "args": {"file": {"ref": "scan/files[]/file"}}}


def problems(*tasks: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(PlanRefused) as caught:
        compile_plan(parse_plan({"tasks": list(tasks)}), CATALOG)
    return [(problem.code, problem.where) for problem in caught.value.problems]


def test_a_good_plan_becomes_patches_and_the_last_one_carries_the_outputs() -> None:
    plan = parse_plan({"tasks": [FIND, COUNT], "outputs": [{"name": "o", "ref": "count"}]})
    (whole,) = compile_plan(plan, CATALOG)
    assert whole.tasks == plan.tasks
    first, last = compile_plan(plan, CATALOG, size=1)
    assert (first.outputs, last.outputs) == (None, plan.outputs)


def test_every_problem_of_every_task_is_named() -> None:
    found = problems(
        {"id": "a", "skill": "fs.fnd", "args": {}},
        {"id": "b", "skill": "fs.find", "args": {"glob": 7, "pth": "x"}},
        {"id": "c", "skill": "http.send", "args": {"method": "POST", "url": "u"}, "effect": "pure", "alt": ["gone"]},
    )
    assert set(found) == {
        ("UnknownSkill", "tasks/0/skill"),
        ("SchemaRequired", "tasks/1/args/path"),
        ("SchemaUnknown", "tasks/1/args/pth"),
        ("SchemaType", "tasks/1/args/glob"),
        ("Loosens", "tasks/2/effect"),
        ("UnknownSkill", "tasks/2/alt/0"),
    }


def test_a_wrong_name_comes_with_the_nearest_ones() -> None:
    (problem,) = check_task(parse_task({"id": "a", "skill": "text.cuont", "args": {}}), CATALOG, {}, (), "t")
    assert "text.count" in problem.fix
    found = check_task(parse_task({"id": "a", "skill": "fs.find", "args": {"pth": "x"}}), CATALOG, {}, (), "t")
    assert any("path" in problem.fix for problem in found if problem.code == "SchemaUnknown")


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        ("scan/flies", "UnknownField"),
        ("scan/files/x", "UnknownField"),
        ("scan/files/0/name/x", "UnknownField"),
        ("scan/files[]/path", "UnknownField"),
        ("scan/count[]", "MapType"),
        ("count/matches", "UnknownField"),
        ("count/*/match", "UnknownField"),
        ("scan/*/name", "UnknownField"),
        ("scan/files/*/name/x", "UnknownField"),
    ],
)
def test_a_reference_into_nothing_is_a_problem(ref: str, code: str) -> None:
    echo = {"id": "echo", "skill": "flow.echo", "args": {"value": {"ref": ref}}}
    assert problems(FIND, COUNT, echo) == [(code, "tasks/2/args")]


@pytest.mark.parametrize(
    "ref",
    [
        "scan",
        "scan/files/0/name",
        "scan/files[]",
        "count",
        "count/0/matches",
        "count[]/lines",
        "count/*/file",
        "scan/files/*/name[]",
    ],
)
def test_a_reference_that_fits_is_none(ref: str) -> None:
    echo = {"id": "echo", "skill": "flow.echo", "args": {"value": {"ref": ref}}}
    assert compile_plan(parse_plan({"tasks": [FIND, COUNT, echo]}), CATALOG)


def test_a_planner_names_only_what_it_wrote_before_or_the_graph_has() -> None:
    task = parse_task({"id": "a", "skill": "flow.echo", "args": {"value": [{"ref": "x"}, {"ref": "input/y"}]}})
    codes = {problem.code for problem in check_task(task, CATALOG, {}, (), "t")}
    assert codes == {"UnknownReference", "UnknownInput"}
    assert not check_task(task, CATALOG, {}, ("y",), "t", graph=("x",))
