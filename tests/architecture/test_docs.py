"""The docs are complete and fresh: what a person can meet (flag, code, event, skill, setting) is on its page."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestrator.core import event
from protocol import errors
from protocol.builtin import BUILTINS
from protocol.config import load
from protocol.event_row import event_kind

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PACKAGES = ("protocol", "planner", "orchestrator", "workers", "devices")
CODE = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)*")


def generator() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_generate"] = module
    spec.loader.exec_module(module)
    return module


def page(name: str) -> str:
    return (REFERENCE / name).read_text("utf-8")


def test_generated_parts_are_fresh() -> None:
    made = generator()
    assert {path.name for path in made.pages()} == {
        "cli.md", "configuration.md", "events.md", "lifecycle.md", "skills.md",
    }  # fmt: skip
    for path in made.pages():
        text = path.read_text("utf-8")
        assert made.filled(text) == text, f"{path.name} is stale: run make docs"


def test_every_command_and_flag_is_documented() -> None:
    text = page("cli.md")
    for path, command in generator().every_command():
        assert f"### asterism {path}\n" in text
        part = text.partition(f"### asterism {path}\n")[2].partition("\n### ")[0]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(name in part for name in option.opts), f"{path}: {option.opts}"


def test_every_error_of_the_tree_is_documented_with_its_exit_code() -> None:
    text = page("errors.md")
    for cls in subclasses(errors.AsterismError):
        assert f"| `{cls.code}` | {cls.exit_code} |" in text, cls.code


def test_every_code_of_a_problem_or_failure_is_documented() -> None:
    text = page("errors.md")
    missing = sorted({(code, where) for code, where in codes() if f"`{code}`" not in text})
    assert not missing


def test_every_event_kind_is_documented() -> None:
    text = page("events.md")
    for cls in typing.get_args(event.Event):
        kind = generator().kind_of(cls.__name__)
        assert f"| `{kind}` |" in text


def test_event_kinds_are_named_as_the_report_names_them() -> None:
    paused = event.RunPaused(1, "person:ada")
    assert generator().kind_of(type(paused).__name__) == event_kind(paused)


def test_every_built_in_skill_and_argument_is_documented() -> None:
    text = page("skills.md")
    for spec in BUILTINS:
        part = text.partition(f"### {spec.name}\n")[2].partition("\n### ")[0]
        assert part
        assert all(f"| `{name}` |" in part for name in spec.params["properties"])


def test_every_setting_is_documented() -> None:
    text = page("configuration.md")
    for key, _, _ in load({}, {}, ROOT / "docs").leaves():
        assert f"| `{key}` |" in text


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")) + sorted(ROOT.glob("*.md")), ids=str)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_example_is_listed() -> None:
    text = (ROOT / "examples" / "README.md").read_text("utf-8")
    for path in (ROOT / "examples").iterdir():
        if path.is_file() and path.name != "README.md":
            assert f"`{path.name}`" in text


def subclasses(root: type[errors.AsterismError]) -> Iterator[type[errors.AsterismError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from subclasses(child)


def codes() -> Iterator[tuple[str, str]]:
    """Every literal first argument of Problem(...), Failure(...) and problems.add(...), and where it stands."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and _makes_a_code(node.func):
                    for argument in node.args[:4]:
                        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                            if CODE.fullmatch(argument.value):
                                yield argument.value, f"{path.relative_to(ROOT)}:{argument.lineno}"
                            break


def _makes_a_code(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("Problem", "Failure", "add", "refused", "_problem", "fail")
