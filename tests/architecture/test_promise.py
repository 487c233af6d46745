"""The README's table of promises names what shows each sentence: every test and command in it exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (?P<promise>[^|]+) \| (?P<shown>[^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`(?P<path>tests/[a-z_/]+\.py)(?:::(?P<name>\w+))?`")
TARGET = re.compile(r"`make (?P<name>\w+)")


def rows() -> list[tuple[str, str]]:
    part = (ROOT / "README.md").read_text("utf-8").partition("## What is promised")[2].partition("\n## ")[0]
    found = [(row["promise"], row["shown"]) for row in ROW.finditer(part)]
    return [row for row in found if set(row[0]) - set("- ")][1:]


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


def test_every_promise_is_shown_by_something_that_exists() -> None:
    table = rows()
    assert len(table) >= 10
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for promise, shown in table:
        tests, makes = list(TEST.finditer(shown)), list(TARGET.finditer(shown))
        assert tests or makes or "`asterism " in shown, promise
        for test in tests:
            path = ROOT / test["path"]
            assert path.is_file(), f"{promise}: {test['path']}"
            assert not test["name"] or test["name"] in functions(path), f"{promise}: {test[0]}"
        for make in makes:
            assert make["name"] in targets, f"{promise}: {make[0]}"
