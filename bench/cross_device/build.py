"""The `build.*` skills: Python sources compiled, linked into a program, started and tested, as a real build does.

`asterism run --skills bench.cross_device.build ...` loads them. The interpreter is the worker's own, so that every
machine of one fleet builds the same bytes. A source whose first line says `# simulated: takes 0.12 s` lets its compiler
wait for so long, as a larger compiler would. They must not know what was wanted of a build.
"""

from __future__ import annotations

import ast
import importlib._bootstrap_external as bootstrap
import importlib.util
import json
import re
import sys
import time
import zipfile
from typing import Annotated, Final, TypedDict

from protocol.errors import SkillFailed, TryAgain, UsageError
from workers.builtin.process import run_process
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

_SIMULATED: Final = re.compile(r"# simulated: takes (\d+(?:\.\d+)?) s\b")
_MODULE: Final = re.compile(r"[A-Za-z_]\w*\.pyc?")
_RUNNER: Final = """\
import importlib, json, pathlib, sys, traceback
folder, rows = sys.argv[1], []
sys.path.insert(0, folder)
for path in sorted(pathlib.Path(folder).rglob("test_*.py")):
    sys.path.insert(0, str(path.parent))
    module = importlib.import_module(path.stem)
    for name in sorted(vars(module)):
        if name.startswith("test_"):
            try:
                getattr(module, name)()
                how = "passed"
            except ConnectionError:
                how = "flaky"
            except Exception:
                how = "failed"
            rows.append([path.stem + "." + name, how])
json.dump(rows, sys.stdout)
"""


class Compiled(TypedDict):
    file: File
    module: str
    functions: int


class Linked(TypedDict):
    file: File
    modules: int


class Started(TypedDict):
    output: str
    worker: str


class Tested(TypedDict):
    worker: str
    tests: int
    failed: int
    passed: bool
    failures: list[str]
    retried: bool


class Bisected(TypedDict):
    first_bad: str
    tested: list[str]


@skill(
    name="build.compile",
    effect="pure",
    timeout="1m",
    examples=("compile {file}",),
    tags=("python", "source", "module", "bytecode", "compiler"),
)
def compile_module(ctx: SkillContext, file: Annotated[File, "a Python source"]) -> Compiled:
    """Compiles one Python source to bytecode that any machine can load. A source that is none fails."""
    name = file.name
    if _MODULE.fullmatch(name) is None:
        raise UsageError(f"{name} can't be a module", hint="compile a file such as parser.py")
    source = file.read_text()
    try:
        tree = ast.parse(source, name)
        code = compile(tree, name, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise SkillFailed(f"{name} does not compile: line {error.lineno}: {error.msg}") from error
    if (said := _SIMULATED.match(source)) is not None:
        time.sleep(float(said[1]))
    made = ctx.file(f"{name.removesuffix('.py')}.pyc")
    digest = importlib.util.source_hash(source.encode())
    made.path.write_bytes(bootstrap._code_to_hash_pyc(code, digest, False))  # type: ignore[attr-defined]
    functions = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree))
    return Compiled(file=made, module=name.removesuffix(".py"), functions=functions)


@skill(
    name="build.link",
    effect="pure",
    timeout="1m",
    examples=("link {modules}", "link {modules} into {name}"),
    tags=("python", "program", "modules", "linker", "executable"),
)
def link(
    ctx: SkillContext,
    modules: Annotated[list[Compiled], "what build.compile gave for each, __main__ among them"],
    name: Annotated[str, "what the program is called"] = "program.pyz",
) -> Linked:
    """Links compiled modules into one program, the same bytes for the same modules."""
    made = ctx.file(name)
    if "__main__" not in {one["module"] for one in modules}:
        raise SkillFailed("no module is called __main__, so nothing can be started")
    with zipfile.ZipFile(made.path, "w") as program:
        for one in sorted(modules, key=lambda one: one["module"]):
            program.writestr(zipfile.ZipInfo(f"{one['module']}.pyc"), one["file"].read_bytes())
    return Linked(file=made, modules=len(modules))


@skill(
    name="build.start",
    effect="pure",
    timeout="1m",
    examples=("start {file}", "start the program {file}"),
    tags=("python", "program", "execute"),
)
def start(ctx: SkillContext, file: Annotated[File, "a linked program"]) -> Started:
    """Starts a linked program and gives what it prints, and where that was."""
    done = run_process(ctx, [sys.executable, "-I", "-S", str(file)])
    return Started(output=done["stdout"].strip(), worker=ctx.worker)


@skill(
    name="build.test",
    effect="pure",
    timeout="1m",
    retry=2,
    examples=("test {file}", "run the tests in {file}", "run the tests of {file}"),
    tags=("python", "tests", "functions", "suite", "assert"),
)
def run_tests(
    ctx: SkillContext,
    file: Annotated[File, "a .zip of sources with test_*.py among them"],
    strict: Annotated[bool, "fail when a test does"] = False,
) -> Tested:
    """Runs the functions test_* of an archive's test_*.py. If one loses its connection, the attempt tries again."""
    folder = ctx.folder / "tree"
    with zipfile.ZipFile(file.path) as archive:
        for member in archive.infolist():
            if member.filename.startswith("/") or ".." in member.filename:
                raise UsageError(f"{member.filename} leads out of the archive")
        archive.extractall(folder)
    argv = [sys.executable, "-I", "-S", "-B", "-c", _RUNNER, str(folder)]
    done = run_process(ctx, argv, env={"BUILD_ATTEMPT": str(ctx.number)})
    rows = json.loads(done["stdout"])
    if flaky := [name for name, how in rows if how == "flaky"]:
        raise TryAgain(f"{flaky[0]} lost its connection")
    failures = [name for name, how in rows if how == "failed"]
    if failures and strict:
        raise SkillFailed(f"{len(failures)} of {len(rows)} tests fail: {', '.join(failures[:3])}")
    return Tested(
        worker=ctx.worker,
        tests=len(rows),
        failed=len(failures),
        passed=not failures,
        failures=failures,
        retried=ctx.number > 1,
    )


@skill(
    name="build.bisect",
    effect="pure",
    timeout="5m",
    spawns=("build.test",),
    cached=False,
    examples=("bisect {files}", "find the first bad revision in {files}"),
    tags=("revisions", "regression", "search", "history"),
)
def bisect(ctx: SkillContext, files: Annotated[list[File], "archives, one a revision, the oldest first"]) -> Bisected:
    """Finds the first revision whose tests fail: each step tests the middle of what is left, as a task of its own."""
    good, bad, tested = -1, len(files), []
    while bad - good > 1:
        middle = (good + bad) // 2
        tested.append(files[middle].name)
        (found,) = ctx.join(ctx.spawn("build.test", file=files[middle]))
        good, bad = (middle, bad) if found["passed"] else (good, middle)
    return Bisected(first_bad=files[bad].name if bad < len(files) else "", tested=tested)
