"""The build.* skills on the programs that the suite generates: what they give is what the generator knew."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.cross_device import build
from bench.cross_device.fixture import dice_of, make
from protocol.errors import SkillFailed, TryAgain, UsageError
from protocol.frame import Assign
from protocol.ids import AttemptId, Fence
from workers.context import Situation, SkillContext
from workers.file import File
from workers.root import Roots


class Children:
    """A wire on which a spawned task runs at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: dict[str, Any] = {}

    def ask(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        said = msgspec.json.decode(body)
        if what == "join":
            return msgspec.json.encode([self.values[one] for one in said["ids"]])
        name = f"child{k}"
        self.values[name] = build.run_tests(context(self.folder / name), File(said["args"]["file"]))
        return msgspec.json.encode({"id": name})


def context(folder: Path, number: int = 1, wire: Any = None) -> SkillContext:
    assign = Assign(AttemptId(1, 1, number), Fence(1, 1), b"", b"{}", f"r1/t#{number}")
    folder.mkdir(exist_ok=True)
    return SkillContext(wire, Situation(assign, "cpu", str(folder), str(folder), Roots("here", []), 1e12, str))


def packed(folder: Path, source: Path) -> File:
    with zipfile.ZipFile(folder / "tree.zip", "w") as archive:
        for path in sorted(source.glob("*.py")):
            archive.write(path, path.name)
    return File(folder / "tree.zip")


def test_a_built_program_prints_what_its_source_means(tmp_path: Path) -> None:
    truth = make("program", tmp_path / "src", {"modules": 3, "tests": 0}, dice_of(3))
    ctx = context(tmp_path / "work")
    modules = [build.compile_module(ctx, File(tmp_path / "src" / name)) for name in truth["sources"]]
    assert [one["module"] for one in modules] == truth["modules"]
    program = build.link(ctx, modules)
    assert build.start(ctx, program["file"])["output"] == truth["answer"]
    with pytest.raises(SkillFailed, match="no module is called __main__"):
        build.link(ctx, modules[1:])


def test_a_source_that_is_none_is_named_by_its_line(tmp_path: Path) -> None:
    truth = make("program", tmp_path, {"modules": 3, "broken": 1}, dice_of(3))
    with pytest.raises(SkillFailed, match=f"{truth['broken'][0]} does not compile: line 6"):
        build.compile_module(context(tmp_path / "work"), File(tmp_path / truth["broken"][0]))
    with pytest.raises(UsageError, match="can't be a module"):
        build.compile_module(context(tmp_path / "work"), File(tmp_path / "manifest.csv"))


def test_failing_tests_are_told_and_flaky_ones_tried_again(tmp_path: Path) -> None:
    truth = make("program", tmp_path / "src", {"modules": 3, "failing": 2, "flaky": 1}, dice_of(3))
    archive = packed(tmp_path, tmp_path / "src")
    with pytest.raises(TryAgain, match="test_simulated_flake lost its connection"):
        build.run_tests(context(tmp_path / "first"), archive)
    found = build.run_tests(context(tmp_path / "second", 2), archive)
    assert (found["tests"], found["failures"], found["retried"]) == (truth["tests"], truth["failures"], True)
    with pytest.raises(SkillFailed, match="2 of 7 tests fail"):
        build.run_tests(context(tmp_path / "third", 2), archive, strict=True)


def test_bisecting_ends_at_the_first_bad_revision(tmp_path: Path) -> None:
    truth = make("revisions", tmp_path / "history", {"count": 5, "modules": 1}, dice_of(3))
    files = [File(tmp_path / "history" / name) for name in truth["names"]]
    found = build.bisect(context(tmp_path / "work", wire=Children(tmp_path)), files)
    assert found["first_bad"] == truth["first_bad"]
    assert {truth["first_bad"], truth["before"]} <= set(found["tested"])
