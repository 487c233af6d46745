"""A request and its plan become a template: what is opened, how it is asked for, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from planner.catalog_planner import CatalogPlanner
from planner.template_draft import Draft, draft_template
from planner.view import PlanView
from protocol.builtin import BUILTINS
from protocol.errors import PlanRefused, UsageError
from protocol.plan import parse_plan, patch_document, plan_document


def plan_of(request: str, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    given = {name: msgspec.json.encode(value) for name, value in (inputs or {}).items()}
    decided = CatalogPlanner().decide(PlanView(request, skills=BUILTINS, inputs=given))
    assert decided.outcome.kind == "complete", decided.outcome
    return {"tasks": plan_document_of(decided.patches)}


def plan_document_of(patches: Any) -> list[dict[str, Any]]:
    return [task for patch in patches for task in patch_document(patch)["tasks"]]


def drafted(request: str, inputs: Mapping[str, Any] | None = None, **params: str) -> Draft:
    return draft_template("mine", request, plan_of(request, inputs), params, inputs or {})


def served(draft: Draft, request: str) -> list[dict[str, Any]] | None:
    """What the catalog planner makes of a request with this template beside its skills."""
    decided = CatalogPlanner([draft.template]).decide(PlanView(request, skills=BUILTINS))
    return plan_document_of(decided.patches) if decided.outcome.planner == "template:mine" else None


@pytest.mark.parametrize(
    ("request_text", "params", "sentence", "like", "the_same_as"),
    [
        (
            "find *.log in logs, then count ERROR in each",
            {"dir": "logs", "word": "ERROR"},
            "find *.log in {dir}, then count {word} in each",
            "find *.log in /var/log, then count WARN in each",
            "find *.log in /var/log, then count WARN in each",
        ),
        (
            'Please search a.log for "out of memory", then write a report called Memory!',
            {"what": "out of memory"},
            "search a.log for {what}, then write a report called Memory",
            'search a.log for "no space" then write a report called Memory',
            None,
        ),
        (
            'search a.log for "out of memory" then write a report called Memory',
            {"title": "Memory"},
            'search a.log for "out of memory" then write a report called {title}',
            'search a.log for "out of memory" then write a report called Space',
            'search a.log for "out of memory" then write a report called Space',
        ),
        ("wait 5 seconds", {"time": "5"}, "wait {time} seconds", "wait 7 seconds", "wait 7 seconds"),
        ("fetch https://a.example", {"site": "https://a.example"}, "fetch {site}", "fetch https://b.example", "fetch https://b.example"),
        ("read a.csv as csv", {"kind": "csv"}, "read a.csv as {kind}", "read a.csv as json", "read a.csv as json"),
        ("find(logs, *.log) -> count(ERROR) each", {}, "find(logs, *.log) -> count(ERROR) each", "", None),
    ],
)  # fmt: skip
def test_values_that_are_named_become_slots_and_the_like_is_served(
    request_text: str, params: dict[str, str], sentence: str, like: str, the_same_as: str | None
) -> None:
    draft = drafted(request_text, **params)
    assert draft.document["requests"] == [sentence]
    assert served(draft, request_text) == plan_of(request_text)["tasks"]
    if the_same_as is not None:
        assert served(draft, like) == plan_of(the_same_as)["tasks"]


def test_a_value_in_two_places_of_the_plan_is_one_parameter() -> None:
    request = "count the lines in a.txt and hash a.txt"
    with pytest.raises(UsageError, match="stands 2 times"):
        drafted(request, file="a.txt")
    draft = draft_template("mine", "my usual a.txt", plan_of(request), {"file": "a.txt"}, {})
    assert draft.places == {"file": (2, True)}
    made = served(draft, "my usual b.txt")
    assert made == plan_of(request.replace("a.txt", "b.txt"))["tasks"]


def test_a_value_that_is_not_a_word_of_the_request_is_a_default_and_an_input() -> None:
    draft = drafted("count ERROR in logs/*.log", dir="logs")
    assert draft.places == {"dir": (1, False)}
    assert served(draft, "count ERROR in logs/*.log") == plan_of("count ERROR in logs/*.log")["tasks"]
    filled = draft.template.fill({}, {"dir": b'"/var"'})
    assert b'"/var"' in filled.tasks[0].args


def test_inputs_become_parameters_with_what_was_given_as_default() -> None:
    plan = {"tasks": [{"id": "f", "skill": "fs.find", "args": {"path": {"ref": "input/dir"}}}]}
    draft = draft_template("mine", "look there", plan, {}, {"dir": "logs", "unused": 1})
    assert [one["name"] for one in draft.document["parameters"]] == ["dir"]
    assert draft.template.fill({}, {}) == parse_plan({"tasks": [{**plan["tasks"][0], "args": {"path": "logs"}}]})
    with pytest.raises(UsageError, match="is an input already"):
        draft_template("mine", "look there", plan, {"dir": "logs"}, {"dir": "logs"})


def test_numbers_are_matched_as_numbers_before_text() -> None:
    plan = {"tasks": [{"id": "a", "skill": "flow.echo", "args": {"value": {"n": 3, "s": "3", "t": True}}}]}
    draft = draft_template("mine", "do 3", plan, {"n": "3"}, {})
    (task,) = plan_document(draft.template.fill({"n": 4}, {}))["tasks"]
    assert task["args"]["value"] == {"n": 4, "s": "3", "t": True}


def test_lists_and_objects_become_parameters() -> None:
    request = 'echo({"a": {"b": [1, 2]}})'
    draft = drafted(request, v='{"a":{"b":[1,2]}}')
    assert draft.document["parameters"] == [{"name": "v", "type": "object", "default": {"a": {"b": [1, 2]}}}]
    assert drafted(request, v="[1, 2]").places == {"v": (1, False)}


def test_what_is_protected_or_a_reference_is_no_value() -> None:
    plan = {"tasks": [{"id": "a", "skill": "flow.echo", "args": {"value": {"literal": {"ref": "x"}}}}]}
    with pytest.raises(UsageError, match="no value in the plan"):
        draft_template("mine", "do x", plan, {"n": "x"}, {})


@pytest.mark.parametrize("name", ["Bad Name", "", "x" * 65])
def test_what_can_be_no_template_is_refused_with_its_problems(name: str) -> None:
    with pytest.raises(PlanRefused) as caught:
        draft_template(name, "hash a.txt", plan_of("hash a.txt"), {}, {})
    assert [problem.code for problem in caught.value.problems] == ["BadId"]
    with pytest.raises(PlanRefused):
        draft_template("mine", "hash {a}", plan_of("hash a.txt"), {}, {})
