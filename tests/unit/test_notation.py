"""The explicit notation: what it means, and that anything else is left alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from planner.arrow import draw
from planner.catalog import Catalog
from planner.compiler import compile_plan
from planner.notation import Call, Pipeline, parse_notation
from planner.value import Quoted
from protocol.builtin import BUILTINS
from protocol.plan import plan_document
from protocol.skill import SkillSpec

CATALOG = Catalog(BUILTINS)


def tasks(text: str) -> dict[str, dict[str, Any]]:
    pipelines = parse_notation(text)
    assert pipelines is not None
    drawn = draw(pipelines, CATALOG)
    assert not drawn.unknown
    assert not drawn.draft.problems
    plan = drawn.draft.plan()
    assert compile_plan(plan, CATALOG)
    return {task["id"]: task for task in plan_document(plan)["tasks"]}


def problems(text: str, catalog: Catalog = CATALOG) -> list[str]:
    pipelines = parse_notation(text)
    assert pipelines is not None
    drawn = draw(pipelines, catalog)
    return [problem.code for problem in (*drawn.unknown, *drawn.draft.problems)]


def test_the_line_of_the_design_page() -> None:
    found = tasks("find(logs, *.log) -> count(ERROR) each -> markdown(Errors)")
    assert found["find"]["args"] == {"path": "logs", "glob": "*.log"}
    assert found["count"]["args"] == {"file": {"ref": "find/files[]/file"}, "pattern": "ERROR"}
    assert found["markdown"]["args"] == {"title": "Errors", "parts": [{"name": "count", "rows": {"ref": "count"}}]}


def test_steps_beside_each_other_are_fed_by_the_same_stage() -> None:
    found = tasks("find(logs) -> (count(ERROR) each & hash each) -> markdown(Report)")
    assert found["count"]["args"]["file"] == found["hash"]["args"]["file"] == {"ref": "find/files[]/file"}
    assert [part["rows"] for part in found["markdown"]["args"]["parts"]] == [{"ref": "count"}, {"ref": "hash"}]
    inner = tasks("find(logs) -> (hash each -> markdown(A) & count(x) each) -> write(out.md, done)")
    assert set(inner["write"]["after"]) == {"markdown", "count"}


def test_an_arrow_without_a_fit_is_a_sequence() -> None:
    assert tasks("sleep(1) -> echo(hi)")["echo"]["after"] == ["sleep"]
    assert tasks("find(logs) -> sleep(2)")["sleep"] == {
        "id": "sleep",
        "skill": "flow.sleep",
        "args": {"seconds": 2},
        "after": ["find"],
    }


def test_whole_lists_are_taken_whole_and_records_become_rows() -> None:
    assert tasks("find(logs) -> pack(logs.zip)")["pack"]["args"] == {
        "files": {"ref": "find/parts/0/files"},
        "name": "logs.zip",
    }
    assert tasks("find(logs, parts=4) -> pack each")["pack"]["args"]["files"] == {"ref": "find/parts[]/files"}
    parts = tasks("hash(a) & hash(b) -> markdown(Hashes)")["markdown"]["args"]["parts"]
    assert parts == [{"name": "hash", "rows": [{"ref": "hash"}]}, {"name": "hash_2", "rows": [{"ref": "hash_2"}]}]


def test_a_field_that_is_only_there_by_choice_is_wired_only_then() -> None:
    rows = tasks("read(a.csv, csv) -> sql('select 1') -> write(out.csv)")
    assert rows["sql"]["args"]["tables"] == [{"name": "read", "rows": {"ref": "read/rows"}}]
    assert rows["write"]["args"] == {"path": "out.csv", "data": {"ref": "sql/rows"}}
    text = tasks("read(a.txt) -> markdown(Text)")
    assert text["markdown"]["args"]["parts"] == [{"name": "read", "text": {"ref": "read/text"}}]


def test_modifiers() -> None:
    found = tasks("info on all as facts -> markdown(title=Fleet)")
    assert found["facts"]["on"] == ["all"]
    assert found["markdown"]["args"]["parts"] == [{"name": "facts", "rows": {"ref": "facts"}}]
    assert tasks("sleep(1) on gpu, zone=a")["sleep"]["on"] == ["gpu", "zone=a"]


def test_values_are_read_by_their_schema() -> None:
    found = tasks('list([1, "a, b", {"c": 2}]) & check(1, ==, 1) & echo("3") & echo(3) & echo(a b)')
    assert found["list"]["args"] == {"items": [1, "a, b", {"c": 2}]}
    assert found["check"]["args"] == {"left": 1, "op": "==", "right": 1}
    assert [found[name]["args"]["value"] for name in ("echo", "echo_2", "echo_3")] == ["3", 3, "a b"]


def test_quotes_protect_commas_and_equals_signs() -> None:
    assert tasks(r'match(a.log, "level=(?P<l>\w+), \"x\"")')["match"]["args"]["pattern"]
    assert tasks("count(a.log, 'a=b, (c')")["count"]["args"]["pattern"] == "a=b, (c"
    assert tasks(r'match(a.log, "\d+")')["match"]["args"]["pattern"] == r"\d+"


def test_independent_pipelines() -> None:
    found = tasks("hash(a); hash(b);")
    assert all("after" not in task for task in found.values())


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("find(logs) -> count(level=ERROR)", ["UnknownArgument"]),
        ("hash(a, b, c)", ["TooManyArguments"]),
        ("markdown(Errors)", ["MissingArgument"]),
        ("info -> hash", ["MissingArgument"]),
        ("sleep(1) -> sleep(2) each", ["NothingToMap"]),
        ("hash(a) as x & hash(b) as x", ["DuplicateId"]),
        ("find(logs) -> email(bob)", ["UnknownSkill"]),
        ("info -> counts", ["UnknownSkill"]),
    ],
)
def test_what_does_not_fit_is_a_problem_of_its_step(text: str, codes: list[str]) -> None:
    assert problems(text) == codes


def test_a_last_part_that_two_skills_share_is_not_resolved() -> None:
    catalog = Catalog([*BUILTINS, SkillSpec("mail.find")])
    pipelines = parse_notation("find(logs)")
    assert pipelines is not None
    (problem,) = draw(pipelines, catalog).unknown
    assert problem.fix == "write fs.find or mail.find"
    assert not problems("fs.find(logs)", catalog)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "echo",
        "count the errors",
        "rename a -> b",
        "a ->",
        "-> a",
        "f(",
        "f(a",
        "f(,)",
        "f(a) g(b)",
        "f(a) each each",
        "f(a) on",
        "f(a) as 9",
        "x = 3 -> y",
        "(" * 50 + "a" + ")" * 50,
        "(" * 30_000,
        "a & & b",
        '"a" -> "b"',
        "é -> b",
    ],
)
def test_other_texts_are_not_the_notation(text: str) -> None:
    assert parse_notation(text) is None


def test_what_is_read_is_kept_as_written() -> None:
    (pipeline,) = parse_notation('f( "x" , b = 2 ) each → g') or ()
    call = pipeline.stages[0][0]
    assert isinstance(call, Call)
    assert call.args == (("", "x"), ("b", "2"))
    assert isinstance(call.args[0][1], Quoted)
    assert call.each
    assert call.text == 'f( "x" , b = 2 ) each'
    assert pipeline == Pipeline((pipeline.stages[0], (Call("g", text="g"),)))
    assert json.dumps(call.args)
