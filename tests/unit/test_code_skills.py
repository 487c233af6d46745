"""bench/code.py: the code.* skills on real source."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import code, syntax
from protocol.errors import SkillFailed, UsageError
from protocol.frame import Assign
from protocol.ids import AttemptId, Fence
from protocol.schema import check
from workers.context import Situation, SkillContext
from workers.file import File
from workers.registry import Registry
from workers.root import Roots

SOURCE = '''
import os

def simple(a):
    """Says hello. """
    return a

class Box:
    def hard(self, xs):
        """Works hard.

        Really.
        """
        for x in xs:                     # +1
            if x and x > 1 or x < -1:    # +1 +1 +1
                with open(x) as f:
                    self.use(f)
            elif x:                      # +1
                os.path.join("a", x)
        def inner(y):
            return [z for z in y if z]   # +1 +1
        try:
            eval("1")
        except ValueError:               # +1
            assert xs                    # +1
        return inner if xs else exec     # +1

    async def other(self):
        while True:                      # +1
            match self:
                case 1: exec("2")        # +1
                case _: pass             # +1

if __name__ == "__main__":               # +1 of the module
    simple(1)
'''


@pytest.fixture
def source(tmp_path: Path) -> File:
    path = tmp_path / "source.py"
    path.write_text(SOURCE)
    return File(path, "file://pi/source.py")


def _uri(path: str) -> str:
    return f"file://here{path}"


def _dumped(name: str, value: Any) -> Any:
    """The value as it would be sent, after the check that a worker makes."""
    registry = Registry(builtins=False)
    registry.load("bench.code")
    entry = registry.get(name)
    assert entry is not None
    dumped = entry.dump(value, _uri)
    assert check(entry.spec.result, dumped) == []
    return dumped


def test_measure_counts_functions_branches_and_flags(source: File) -> None:
    made = _dumped("code.measure", code.measure_code([source]))
    assert made["files"] == 1
    assert made["lines"] == SOURCE.count("\n")
    assert made["functions"] == 4
    assert made["classes"] == 1
    assert [(row["function"], row["complexity"]) for row in made["top"]] == [
        ("Box.hard", 9),
        ("Box.other", 4),
        ("Box.hard.inner", 3),
        ("simple", 1),
    ]
    assert made["complexity"] == 9 + 4 + 3 + 1 + 1
    assert [(flag["name"], SOURCE.splitlines()[flag["line"] - 1].strip()[:4]) for flag in made["flagged"]] == [
        ("eval", "eval"),
        ("exec", "case"),
    ]
    assert made["top"][0]["file"] == "file://pi/source.py"


def test_measure_goes_on_past_what_is_no_python(tmp_path: Path, source: File) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def (:")
    deep = tmp_path / "deep.py"
    deep.write_text("(" * 5000 + ")" * 5000)
    made = code.measure_code([File(bad), File(deep), source], top=1)
    assert made["unreadable"] == 2
    assert made["functions"] == 4
    assert len(made["top"]) == 1


def test_measure_agrees_with_a_plain_walk_over_the_standard_library() -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob("[a-d]*.py")):
        tree = ast.parse(path.read_bytes())
        found = syntax.measure(tree)
        nodes = list(ast.walk(tree))
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        kinds = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert, ast.match_case)
        branches = sum(isinstance(node, kinds) for node in nodes)
        operands = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
        loops = sum(1 + len(node.ifs) for node in nodes if isinstance(node, ast.comprehension))
        assert len(found.functions) == len(functions), path
        assert found.classes == sum(isinstance(node, ast.ClassDef) for node in nodes), path
        assert found.complexity == len(functions) + branches + operands + loops, path


def test_inspect_looks_at_one_function(source: File) -> None:
    made = _dumped("code.inspect", code.inspect_function(source, "Box.hard"))
    assert made["complexity"] == 9
    assert made["nesting"] == 3
    assert made["doc"] == "Works hard."
    assert made["calls"] == ["eval", "open", "os.path.join", "self.use"]
    with pytest.raises(SkillFailed, match="no function hard") as error:
        code.inspect_function(source, "hard")
    assert "Box.hard" in error.value.hint


def _body(name: str, variable: str, extra: str = "") -> str:
    return f"""
def {name}({variable}s):
    total = 0
    for {variable} in {variable}s:
        if {variable} > 10:
            total += {variable} * 2
        elif {variable}.ready():
            total -= compute({variable}, 1)
        else:
            print({variable}, total)
    {extra}
    return [each.value for each in {variable}s if each], total
"""


def test_near_duplicates_are_found_although_renamed(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text(
        _body("first", "x") + "\n\ndef unlike(a):\n" + "".join(f"    a.call_{i}(a[{i}])\n" for i in range(12))
    )
    two.write_text(_body("second", "item") + _body("third", "y", "y = 1"))
    made = _dumped("code.near_duplicates", code.near_duplicates([File(one), File(two)], threshold=0.7))
    found = {(pair["function"], pair["other_function"]): pair["similarity"] for pair in made["pairs"]}
    assert found[("first", "second")] == 1.0
    assert set(found) == {("first", "second"), ("first", "third"), ("second", "third")}
    assert 0.7 <= found[("first", "third")] < 1.0
    assert made["functions"] == 4
    assert (made["device"], made["simulated"]) == ("cpu", False)
    gpu = code.near_duplicates.variants["gpu"]([File(one), File(two)], threshold=0.7)
    assert (gpu["device"], gpu["simulated"]) == ("gpu", True)
    assert [pair["similarity"] for pair in gpu["pairs"]] == [pair["similarity"] for pair in made["pairs"]]
    with pytest.raises(UsageError, match="no share"):
        code.near_duplicates([], threshold=0.0)


class Scripted:
    """A wire that answers each kind of question from a table and remembers what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []

    def ask(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        self.asked.append((what, msgspec.json.decode(body)))
        answer = self.answers[what]
        return msgspec.json.encode(answer(k) if callable(answer) else answer)

    async def ask_async(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        return self.ask(attempt, k, what, body)

    def note(self, attempt: AttemptId, body: bytes) -> None: ...
    def log(self, attempt: AttemptId, text: str) -> None: ...


def _context(wire: Scripted, folder: Path) -> SkillContext:
    assign = Assign(AttemptId(1, 1, 1), Fence(1, 1), b"", b"{}", "r1/outliers#1")
    roots = Roots("here", [])
    return SkillContext(wire, Situation(assign, "cpu", str(folder), str(folder), roots, 1e12, _uri))


def _ranking() -> list[dict[str, Any]]:
    values = [3, 4, 5, 4, 3, 5, 4, 90, 60, 4]
    return [
        {"file": f"file://pi/{at}.py", "function": f"f{at}", "complexity": value} for at, value in enumerate(values)
    ]


def test_outliers_propose_one_inspection_each(tmp_path: Path) -> None:
    wire = Scripted(propose={"version": 2})
    made = _dumped("code.outliers", code.outliers(_context(wire, tmp_path), _ranking()))
    assert [row["function"] for row in made["outliers"]] == ["f7", "f8"]
    assert made["tasks"] == ["inspect-1", "inspect-2"]
    assert made["version"] == 2
    [(what, body)] = wire.asked
    assert what == "propose"
    assert body["patch"]["tasks"] == [
        {"id": "inspect-1", "skill": "code.inspect", "args": {"file": "file://pi/7.py", "function": "f7"}},
        {"id": "inspect-2", "skill": "code.inspect", "args": {"file": "file://pi/8.py", "function": "f8"}},
    ]


def test_outliers_can_wait_for_children_instead(tmp_path: Path) -> None:
    wire = Scripted(spawn=lambda k: {"id": f"outliers.{k}"}, join=["one", "two"])
    made = code.outliers(_context(wire, tmp_path), _ranking(), how="spawn")
    assert made["tasks"] == ["outliers.1", "outliers.2"]
    assert made["inspected"] == ["one", "two"]
    assert [what for what, _ in wire.asked] == ["spawn", "spawn", "join"]


def test_without_outliers_the_graph_is_left_alone(tmp_path: Path) -> None:
    wire = Scripted()
    for rows in ([], [{"file": "a", "function": "f", "complexity": 3}] * 5, ["x", {"complexity": "high"}]):
        made = code.outliers(_context(wire, tmp_path), rows)
        assert made["outliers"] == []
        assert made["tasks"] == []
    assert wire.asked == []
    with pytest.raises(UsageError, match="no file and function"):
        code.outliers(_context(wire, tmp_path), [{"complexity": value} for value in (1, 1, 1, 1, 50)])
