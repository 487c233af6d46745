"""Saved templates: what asks for them, what fills them, and that a bad file only costs itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from planner.catalog import Catalog
from planner.catalog_planner import CatalogPlanner
from planner.compiler import compile_plan
from planner.template import Template, load_templates, read_template, shipped_folder
from planner.view import PlanView
from protocol.builtin import BUILTINS
from protocol.errors import PlanRefused

DOCUMENT: dict[str, Any] = {
    "schema": "asterism/template/v1",
    "name": "greet",
    "doc": "Greets.",
    "requests": ["greet {who}", "greet {who} {times} times", "Give everybody the usual welcome."],
    "parameters": [
        {"name": "who", "default": "world"},
        {"name": "times", "type": "integer", "default": 1},
        {"name": "more", "type": "object", "default": {"ref": ["x"], "deep": [7]}},
    ],
    "plan": {
        "tasks": [
            {
                "id": "say",
                "skill": "flow.echo",
                "args": {
                    "value": {
                        "who": {"ref": "input/who"},
                        "times": {"ref": "input/times"},
                        "more": {"ref": "input/more"},
                        "deep": {"ref": "input/more/deep/0"},
                        "kept": {"literal": {"ref": "input/who"}},
                    }
                },
            }
        ]
    },
}


def template(**changes: Any) -> Template:
    return read_template(json.dumps({**DOCUMENT, **changes}).encode())


def value(plan: Any) -> Any:
    return msgspec.json.decode(plan.tasks[0].args)["value"]


def codes(**changes: Any) -> set[str]:
    with pytest.raises(PlanRefused) as caught:
        template(**changes)
    return {problem.code for problem in caught.value.problems}


def test_a_sentence_gives_the_values_of_its_slots() -> None:
    assert template().matches("Greet ada.") == (1, {"who": "ada"})
    assert template().matches('please greet "Ada L." 3 times') == (2, {"who": "Ada L.", "times": 3})
    assert template().matches("greet ada and bob") is None
    assert template().matches("greet ada three times") is None


def test_an_exact_text_is_the_closest_match() -> None:
    found = template().matches("  give everybody\nthe usual   WELCOME ")
    assert found is not None
    assert found[0] > 100


def test_filling_takes_the_sentence_then_the_inputs_then_the_default() -> None:
    filled = value(template().fill({"who": "ada"}, {"who": b'"bob"', "times": b"5"}))
    assert (filled["who"], filled["times"]) == ("ada", 5)
    assert filled["deep"] == 7


def test_a_value_that_looks_like_a_reference_stays_a_value() -> None:
    filled = value(template().fill({}, {}))
    assert filled["more"] == {"ref": ["x"], "deep": [7]}
    for special in ({"ref": "x"}, {"secret": "X"}, {"literal": 1}):
        told = {"deep": [{"a": special}]}
        assert value(template().fill({"more": told}, {}))["more"] == {"literal": told}
    assert filled["kept"] == {"literal": {"ref": "input/who"}}


def test_a_parameter_without_a_value_is_named() -> None:
    open_one = template(parameters=[{"name": "who"}, *DOCUMENT["parameters"][1:]])
    with pytest.raises(PlanRefused) as caught:
        open_one.fill({}, {})
    assert [(one.code, one.where) for one in caught.value.problems] == [("MissingParameter", "who")]


def test_everything_wrong_with_a_file_is_named_at_once() -> None:
    assert codes(schema="v0", name="No", colour=1, requests=[]) == {
        "SchemaVersion",
        "BadId",
        "UnknownKey",
        "WrongType",
    }
    assert codes(requests=["greet {whom}"]) == {"UnknownInput"}
    assert codes(requests=["{who} and {who}"]) == {"BadValue"}
    assert codes(requests=["greet {who},{times}"]) == codes(requests=["greet {who}s"]) == {"BadValue"}
    assert "BadInput" in codes(parameters=[{"name": "who", "type": "person"}])
    assert "BadInput" in codes(parameters=[{"name": "who", "type": "choice"}])
    assert "WrongType" in codes(parameters=[{"nome": "who"}])
    assert codes(plan=7) == {"MissingKey"}


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ({"tasks": [], "run": {}}, "UnknownKey"),
        ({"tasks": [{"id": "a", "skill": "x", "args": {"v": {"ref": "input/nobody"}}}]}, "UnknownInput"),
        ({"tasks": [{"id": "a", "skill": "x", "args": {"v": {"ref": "input/who[]"}}}]}, "BadReference"),
        (
            {"tasks": [{"id": "a", "skill": "x", "when": [{"ref": "input/who", "op": "exists"}]}]},
            "BadReference",
        ),
        ({"tasks": [{"id": "a", "skill": "x"}], "outputs": [{"name": "o", "ref": "input/who"}]}, "BadOutput"),
    ],
)
def test_a_plan_that_a_template_cannot_have(plan: dict[str, Any], code: str) -> None:
    assert code in codes(plan=plan)


def test_a_bad_file_costs_only_itself_and_a_saved_one_replaces_a_shipped_one(tmp_path: Path) -> None:
    shipped, saved = tmp_path / "shipped", tmp_path / "saved"
    shipped.mkdir()
    saved.mkdir()
    (shipped / "a.json").write_text(json.dumps(DOCUMENT))
    (saved / "a.json").write_text(json.dumps({**DOCUMENT, "doc": "Mine."}))
    (saved / "b.json").write_text("{")
    (saved / "c.json").write_text(json.dumps({**DOCUMENT, "name": "other"}))
    templates, problems = load_templates([shipped, saved, tmp_path / "nowhere"])
    assert [(one.name, one.doc) for one in templates] == [("greet", "Mine."), ("other", "Greets.")]
    assert [problem.where for problem in problems] == [str(saved / "b.json")]


def test_a_file_is_read_again_once_it_has_changed_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(next(shipped_folder().glob("*.json")).read_bytes())
    ((first,), _), ((again,), _) = load_templates([tmp_path]), load_templates([tmp_path])
    assert again is first
    path.write_bytes(path.read_bytes().replace(first.doc.encode(), b"changed"))
    ((changed,), _) = load_templates([tmp_path])
    assert changed.doc == "changed"


def test_shipped_templates_load_and_the_readme_request_is_one_of_them() -> None:
    templates, problems = load_templates([shipped_folder()])
    assert not problems
    view = PlanView("count the errors in logs/", skills=BUILTINS)
    decided = CatalogPlanner(templates).decide(view)
    assert decided.outcome.planner == "template:errors"
    assert [task.id for task in decided.patches[0].tasks] == ["scan", "count", "table"]
    assert decided.patches[0].outputs is not None
    errors = next(one for one in templates if one.name == "errors")
    assert compile_plan(errors.fill({"dir": "x"}, {}), Catalog(BUILTINS))


def test_a_template_whose_skills_are_not_there_says_which() -> None:
    decided = CatalogPlanner([template()]).decide(PlanView("greet ada", skills=BUILTINS[:3]))
    assert decided.outcome.kind == "refused"
    assert [problem.code for problem in decided.outcome.problems] == ["UnknownSkill"]
