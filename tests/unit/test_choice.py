"""Which planner a name means: the model where one is set, a saved template before it, else the catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.choice import PlannerChoice
from planner.planner import collect
from planner.view import PlanView
from protocol.builtin import BUILTINS
from protocol.errors import ConfigInvalid, PlannerFailed, UsageError
from protocol.setting import LlmDefaults, PlannerDefaults

URL = "http://127.0.0.1:9/v1"
TEMPLATE = {
    "schema": "asterism/template/v1",
    "name": "hello",
    "requests": ["say hello"],
    "plan": {"tasks": [{"id": "a", "skill": "flow.echo", "args": {"value": "hello"}}]},
}


def choice(folder: Path, **settings: Any) -> PlannerChoice:
    llm = LlmDefaults(base_url=settings.pop("base_url", ""), model="m")
    return PlannerChoice(llm, PlannerDefaults(**settings), {"ASTERISM_HOME": str(folder)})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASTERISM_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "name", "found"),
    [
        ({}, "", "catalog"),
        ({"base_url": URL}, "", "llm:m"),
        ({"base_url": URL}, "catalog", "catalog"),
        ({"base_url": URL}, "llm:m", "llm:m"),
        ({"base_url": URL}, "template:x", "llm:m"),
        ({}, "template:x", "catalog"),
        ({"base_url": URL, "default": "catalog"}, "", "catalog"),
        ({"base_url": URL, "default": "catalog"}, "llm", "llm:m"),
    ],
)
def test_a_name_means_a_planner(home: Path, settings: dict[str, Any], name: str, found: str) -> None:
    assert choice(home, **settings)(name).name == found


def test_what_there_is_not_is_said(home: Path) -> None:
    with pytest.raises(UsageError, match="no planner oracle"):
        choice(home)("oracle")
    with pytest.raises(UsageError, match="no model is set"):
        choice(home)("llm")
    with pytest.raises(ConfigInvalid):
        choice(home, base_url="no url")("")
    assert choice(home, base_url="no url").describe().startswith("none: ")
    assert choice(home, base_url=URL).describe() == f"llm:m at {URL}"
    assert choice(home).describe() == "catalog"


def test_what_a_person_has_saved_is_planned_without_the_model(home: Path) -> None:
    (home / "templates").mkdir()
    (home / "templates" / "hello.json").write_text(json.dumps(TEMPLATE))
    planner = choice(home, base_url=URL, fallback="none")("")
    assert (planner.name, planner.replans) == ("llm:m", True)
    plan, outcome = anyio.run(collect, planner, PlanView("Say hello", skills=BUILTINS))
    assert (outcome.planner, outcome.calls, [task.id for task in plan.tasks]) == ("template:hello", 0, ["a"])
    with pytest.raises(PlannerFailed, match="can't be reached"):
        anyio.run(collect, planner, PlanView("say something else", skills=BUILTINS))
