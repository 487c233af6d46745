"""The `code.*` skills: measuring Python code, the shipped example of how skills are written.

`asterism run --skills bench.code ...` loads them. Each is a plain function with annotations; results are flat records,
so that data.sql can rank and join them. Load them by module name; nothing here knows who runs them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from protocol.errors import SkillFailed, UsageError
from protocol.resource import Resources
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

from .duplicate import near_pairs, shingles
from .syntax import calls, measure, nesting, parse

_MIN_DUPLICATE_LINES: Final = 8
_MAX_FUNCTIONS: Final = 50_000


class Flag(TypedDict):
    file: File
    line: int
    name: str


class Ranked(TypedDict):
    file: File
    function: str
    line: int
    complexity: int
    lines: int


class Measures(TypedDict):
    files: int
    lines: int
    functions: int
    classes: int
    complexity: int
    unreadable: int
    flagged: list[Flag]
    top: list[Ranked]


@skill(
    name="code.measure",
    effect="pure",
    timeout="10m",
    examples=("measure the code in {files}", "measure {files}"),
    tags=("python", "complexity", "functions", "lines", "eval", "metrics"),
)
def measure_code(
    files: Annotated[list[File], "Python files"],
    top: Annotated[int, "how many of the hardest functions to list"] = 10,
) -> Measures:
    """Counts lines, functions and branches of Python files, flags eval and exec, ranks the hardest functions."""
    totals = Measures(files=len(files), lines=0, functions=0, classes=0, complexity=0, unreadable=0, flagged=[], top=[])
    ranked: list[Ranked] = []
    for file in files:
        source = file.read_bytes()
        totals["lines"] += source.count(b"\n") + (not source.endswith(b"\n") and bool(source))
        tree = parse(source)
        if tree is None:
            totals["unreadable"] += 1
            continue
        found = measure(tree)
        totals["functions"] += len(found.functions)
        totals["classes"] += found.classes
        totals["complexity"] += found.complexity
        totals["flagged"] += [Flag(file=file, line=line, name=name) for line, name in found.flagged]
        hardest = sorted(found.functions, key=lambda one: (-one.complexity, one.line))[:top]
        ranked += [
            Ranked(file=file, function=one.name, line=one.line, complexity=one.complexity, lines=one.lines)
            for one in hardest
        ]
    totals["top"] = sorted(ranked, key=lambda one: (-one["complexity"], one["file"], one["line"]))[:top]
    return totals


class Twins(TypedDict):
    similarity: float
    file: File
    function: str
    line: int
    other_file: File
    other_function: str
    other_line: int


class Duplicates(TypedDict):
    pairs: list[Twins]
    functions: int
    device: str
    simulated: bool


@skill(
    name="code.near_duplicates",
    effect="pure",
    timeout="10m",
    examples=("find near duplicates in {files}", "find duplicated functions in {files}"),
    tags=("python", "duplicates", "clones", "similarity", "minhash"),
)
def near_duplicates(
    files: Annotated[list[File], "Python files"],
    threshold: Annotated[float, "least share of the code that two functions have in common"] = 0.8,
    limit: Annotated[int, "keep so many pairs"] = 100,
) -> Duplicates:
    """Finds pairs of functions that are nearly the same, names of variables aside."""
    return _duplicates(files, threshold, limit, "cpu", simulated=False)


@near_duplicates.on("gpu", needs=Resources(cpu=1, gpu=1))
def _(files: list[File], threshold: float = 0.8, limit: int = 100) -> Duplicates:
    # There is no kernel for it: the work is done on the host's processor, and the result says so.
    return _duplicates(files, threshold, limit, "gpu", simulated=True)


def _duplicates(files: list[File], threshold: float, limit: int, device: str, *, simulated: bool) -> Duplicates:
    if not 0.0 < threshold <= 1.0:
        raise UsageError(f"threshold {threshold} is no share", hint="give a number above 0, at most 1")
    places: list[tuple[File, str, int]] = []
    sets: list[frozenset[int]] = []
    for file in files:
        tree = parse(file.read_bytes())
        for one in measure(tree).functions if tree is not None else ():
            if one.lines >= _MIN_DUPLICATE_LINES and (found := shingles(one.node)):
                places.append((file, one.name, one.line))
                sets.append(found)
        if len(sets) > _MAX_FUNCTIONS:
            raise SkillFailed(f"more than {_MAX_FUNCTIONS} functions", hint="give it fewer files at a time")
    pairs = []
    for left, right, similarity in near_pairs(sets, threshold)[:limit]:
        (file, name, line), (other_file, other_name, other_line) = places[left], places[right]
        pairs.append(
            Twins(
                similarity=similarity,
                file=file,
                function=name,
                line=line,
                other_file=other_file,
                other_function=other_name,
                other_line=other_line,
            )
        )
    return Duplicates(pairs=pairs, functions=len(sets), device=device, simulated=simulated)


class Outliers(TypedDict):
    outliers: list[dict[str, Any]]
    limit: float
    tasks: list[str]
    version: NotRequired[int]
    inspected: NotRequired[list[Any]]


@skill(
    name="code.outliers",
    effect="pure",
    timeout="1h",
    spawns=("code.inspect",),
    cached=False,
    examples=("inspect the outliers of {rows}",),
    tags=("python", "outliers", "inspect", "complexity", "ranking"),
)
def outliers(
    ctx: SkillContext,
    rows: Annotated[list[Any], "records with file, function and the ranked column"],
    by: Annotated[str, "the ranked column"] = "complexity",
    factor: Annotated[float, "how many spreads above the median is far out"] = 3.0,
    most: Annotated[int, "inspect at most so many"] = 5,
    how: Annotated[Literal["propose", "spawn"], "new tasks of the run, or children that are waited for"] = "propose",
) -> Outliers:
    """Finds the rows far above the rest and adds one code.inspect task for each: the graph grows by what was found."""
    measured = [row for row in rows if isinstance(row, Mapping) and isinstance(row.get(by), int | float)]
    limit = _far_out([float(row[by]) for row in measured], factor)
    far = sorted((row for row in measured if row[by] > limit), key=lambda row: -row[by])[:most]
    for row in far:
        if not row.get("file") or not row.get("function"):
            raise UsageError("the rows name no file and function", hint="select file, function and the ranked column")
    result = Outliers(outliers=[dict(row) for row in far], limit=round(limit, 3), tasks=[])
    if not far:
        return result
    wanted = [{"file": row["file"], "function": row["function"]} for row in far]
    if how == "spawn":
        handles = [ctx.spawn("code.inspect", **args) for args in wanted]
        result["tasks"] = [handle.id for handle in handles]
        result["inspected"] = ctx.join(*handles)
        return result
    tasks = [{"id": f"inspect-{at}", "skill": "code.inspect", "args": args} for at, args in enumerate(wanted, 1)]
    why = f"{len(far)} functions lie above {by} {limit:.3g}"
    answer = ctx.propose({"schema": "asterism/plan/v1", "why": why, "tasks": tasks})
    result["tasks"] = [str(task["id"]) for task in tasks]
    result["version"] = int(answer["version"])
    return result


def _far_out(values: list[float], factor: float) -> float:
    """Median plus so many median absolute deviations (scaled to standard ones): a few giants can't hide themselves."""
    if len(values) < 3:
        return float("inf") if not values else max(values)
    middle = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in values)
    # Where most values are equal, the spread is zero and any step up would be far out.
    return middle + factor * max(spread, 0.05 * abs(middle), 1e-9)


class Inspection(TypedDict):
    file: File
    function: str
    line: int
    lines: int
    complexity: int
    nesting: int
    doc: str
    calls: list[str]


@skill(
    name="code.inspect",
    effect="pure",
    timeout="1m",
    examples=("inspect {function} in {file}",),
    tags=("python", "function", "nesting", "calls", "complexity"),
)
def inspect_function(
    file: Annotated[File, "a Python file"],
    function: Annotated[str, "the function's dotted name in it"],
) -> Inspection:
    """Looks at one function: its length, branches, nesting, first line of docs and what it calls."""
    import ast

    tree = parse(file.read_bytes())
    if tree is None:
        raise SkillFailed(f"{file.name} is no Python of this version")
    found = measure(tree).functions
    one = next((each for each in found if each.name == function), None)
    if one is None:
        near = ", ".join(sorted(each.name for each in found if function.rpartition(".")[2] in each.name)[:5])
        raise SkillFailed(f"{file.name} has no function {function}", hint=f"there is {near}" if near else "")
    return Inspection(
        file=file,
        function=one.name,
        line=one.line,
        lines=one.lines,
        complexity=one.complexity,
        nesting=nesting(one.node),
        doc=(ast.get_docstring(one.node) or "").partition("\n")[0],
        calls=calls(one.node),
    )
