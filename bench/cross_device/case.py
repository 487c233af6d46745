"""A case of the suite: one task for the five machines, as its file says it, read without trust.

A file that is broken names itself, the key, why, and what to do; the other files are read all the same. Invariant: a
`Case` that exists has a gold plan that parses, and checks that name what is there. It must not know how it is played.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from pydantic import ValidationError

from protocol.builtin_model import MODEL_SKILLS
from protocol.document import Problems, nearest, read_document
from protocol.errors import NotFound, PlanRefused, Problem, UsageError
from protocol.plan import parse_patch, parse_plan

from .case_file import PREDICATES, CaseFile, ClaimTable

SCHEMA: Final = "asterism/case/v1"
FOLDER: Final = Path(__file__).parent / "tasks"
MACHINES: Final = ("workstation", "gpu-box", "db-server", "log-server", "edge-cam")
CATEGORIES: Final = (
    "collection", "log-analysis", "data-pipeline", "heavy-compute", "administration",
    "backup", "monitoring", "build-test", "content", "recovery",
)  # fmt: skip


class Fixture(msgspec.Struct, frozen=True):
    """What lies on machines before a play; `name` is that of its truth, which is by machine if there are several.

    Fixtures of one `draw` are drawn alike, whatever their name and machine.
    """

    make: str
    on: tuple[str, ...]
    path: str
    name: str
    args: dict[str, Any] = {}
    draw: str = ""


class Said(msgspec.Struct, frozen=True):
    """What the scripted model says to a further call: a document, a plain text, or tool calls.

    `match`: only to a call whose messages hold this text.
    """

    reply: dict[str, Any] | None = None
    text: str = ""
    calls: tuple[dict[str, Any], ...] = ()
    match: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What is done when this task waits for a person; `task` may be a pattern.

    `retry` and `fail` are for a task of which nobody knows whether it acted.
    """

    task: str
    do: Literal["approve", "reject", "answer", "retry", "fail"]
    value: Any = None


class Claim(msgspec.Struct, frozen=True):
    """Where to look and what must be there. `expects`: predicates by name, all of which must hold.

    Of a subtask: the value of task `id`. Of a check: the output `output`, with a `form` the file that this is; or the
    file `file` ("MACHINE:PATH"), as text if no `form` is given. `value` points into it.
    """

    expects: dict[str, Any]
    id: str = ""
    output: str = ""
    file: str = ""
    form: str = ""
    query: str = ""
    value: str = ""
    within: float = 0.0

    @property
    def kind(self) -> Literal["subtask", "check"]:
        return "subtask" if self.id else "check"

    @property
    def name(self) -> str:
        """What people see of it: unlike those of a case's other claims, unless these look at the same place."""
        place = self.id or self.output or self.file
        return f"{place}/{self.value.removeprefix('/')}" if self.value else place


class Case(msgspec.Struct, frozen=True):
    """One task. Its texts may hold `{dir}`, its folder below any machine's root, and `{dir@MACHINE}`, that in full."""

    name: str
    category: str
    title: str
    request: str
    plan: dict[str, Any]
    subtasks: tuple[Claim, ...]
    checks: tuple[Claim, ...]
    tags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    run: dict[str, Any] = {}
    state: str = "succeeded"
    fixtures: tuple[Fixture, ...] = ()
    replans: tuple[Said, ...] = ()
    answers: tuple[Answer, ...] = ()

    @property
    def changes(self) -> bool:
        """Its graph has to change while it runs."""
        return "changes" in self.tags

    @property
    def thinking(self) -> frozenset[str]:
        """The machines whose model its plan asks."""
        asking = (task for task in self.plan["tasks"] if task["skill"] in MODEL_SKILLS)
        return frozenset(name for task in asking for name in task.get("on", ()))

    def placed(self, roots: Mapping[str, Path]) -> Case:
        """The same with the folders that it has on these machines."""
        words = {"{dir}": self.name, **{f"{{dir@{name}}}": str(root / self.name) for name, root in roots.items()}}
        return msgspec.convert(_filled(msgspec.to_builtins(self), words), Case)


class Loaded(msgspec.Struct, frozen=True):
    """`problems`: what kept a file from being a case."""

    cases: tuple[Case, ...]
    problems: tuple[str, ...] = ()


def load_cases(folder: Path = FOLDER, select: Sequence[str] = (), names: Sequence[str] = ()) -> Loaded:
    """The cases below `folder` by category and name: those that any of `select` and any of `names` chooses.

    `select` are `category:NAME`, `tag:WORD`, `machine:NAME`. Raises: UsageError for a selection that is none, NotFound
    for a name that no file has.
    """
    wanted = [_selection(one) for one in select]
    files = sorted(folder.glob("*/*.toml"), key=lambda path: (_rank(path.parent.name), path.name))
    known = {path.stem for path in files}
    for name in names:
        if name not in known:
            raise NotFound(f"no task is called {name}", hint=nearest(name, known) or f"those of {folder}")
    cases: dict[str, Case] = {}
    problems: list[str] = []
    for path in files:
        if names and path.stem not in names:
            continue
        if path.stem in cases:
            problems.append(f"{_short(path)}: another category has a task of this name; rename one")
            continue
        try:
            case = read_case(path)
        except UsageError as error:
            problems.append(f"{_short(path)}: {error}")
        else:
            if not wanted or any(_chosen(case, key, word) for key, word in wanted):
                cases[case.name] = case
    return Loaded(tuple(cases.values()), tuple(problems))


def read_case(path: Path) -> Case:
    """Raises: UsageError with every problem of the file."""
    try:
        raw = read_document(path.read_bytes(), "toml")
    except OSError as error:
        raise UsageError(f"can't be read: {error.strerror}") from error
    except PlanRefused as error:
        raise UsageError(f"can't be read: {error.problems[0].message}") from error
    case, problems = None, Problems()
    try:
        case = _case(path.stem, CaseFile.model_validate(raw))
    except ValidationError as error:
        for one in error.errors(include_url=False):
            where = ".".join(str(part) for part in one["loc"])
            problems.add(_code(one["type"]), where, str(one["msg"]), _fix(one["type"]))
    if case is not None:
        if case.category != path.parent.name:
            problems.add("Category", "category", f"it lies in the folder {path.parent.name}", "move it, or rename this")
        for problem in _wrong(case):
            problems.add(problem.code, problem.where, problem.message, problem.fix)
    if problems.found or case is None:
        raise UsageError("is no case", hint="docs/how-to/measure-machines-together.md", problems=problems.found)
    return case


def truths(value: Any) -> Iterator[str]:
    """The pointers of all `{truth = ...}` in a value."""
    if isinstance(value, dict):
        if [*value] == ["truth"]:
            yield str(value["truth"])
        else:
            for one in value.values():
                yield from truths(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from truths(one)


def _wrong(case: Case) -> Iterator[Problem]:
    """What a file of the right form gets wrong all the same."""
    placed = case.placed({name: Path("/root") for name in MACHINES})
    yield from _refused("plan", lambda: parse_plan(placed.plan))
    for number, said in enumerate(placed.replans):
        reply = said.reply
        if reply is not None and (reply.get("tasks") or reply.get("edits")):
            body = {key: value for key, value in reply.items() if key != "base"}
            yield from _refused(f"replan.{number}", lambda body=body: parse_patch(body, author="script"))
    documents = [case.plan, *(said.reply for said in case.replans if said.reply is not None)]
    for number, claim in enumerate(case.subtasks):
        yield from _unfounded(f"subtask.{number}", claim, case, _named(documents, "tasks", "id"))
    for number, claim in enumerate(case.checks):
        yield from _unfounded(f"check.{number}", claim, case, _named(documents, "outputs", "name"))


def _named(documents: Sequence[Mapping[str, Any]], part: str, key: str) -> set[str]:
    return {str(row[key]) for one in documents for row in one.get(part, ()) if isinstance(row, dict) and key in row}


def _unfounded(where: str, claim: Claim, case: Case, there: Collection[str]) -> Iterator[Problem]:
    """A claim about what can't be there; `there` are the tasks, or the outputs, of the case."""
    if not claim.expects:
        yield Problem("NoPredicate", where, "nothing is expected", f"say one of {', '.join(PREDICATES)}")
    named = claim.id.split(".")[0] or claim.output
    # What a task proposes while it runs stands in no file.
    if named and there and named not in there and not case.changes:
        yield Problem("UnknownName", where, f"no plan of the case has {named}", nearest(named, there))
    machine, colon, rest = claim.file.partition(":")
    if claim.file and not (colon and rest and machine in MACHINES):
        yield Problem("BadFile", f"{where}.file", "it is not MACHINE:PATH", f"machines: {', '.join(MACHINES)}")
    if claim.kind == "check" and bool(claim.output) == bool(claim.file):
        yield Problem("BadCheck", where, "a check looks at one output or at one file", "give one of the two")
    fixtures = {fixture.name for fixture in case.fixtures}
    for name in sorted({pointer.split("/")[0] for pointer in truths(claim.expects)} - fixtures):
        fix = nearest(name, fixtures) or "name it with `as` of a fixture"
        yield Problem("UnknownTruth", where, f"no fixture is called {name}", fix)


def _refused(where: str, read: Any) -> Iterator[Problem]:
    try:
        read()
    except PlanRefused as error:
        for one in error.problems:
            yield Problem(one.code, f"{where}.{one.where}", one.message, one.fix)


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(word, text)
        return value
    if isinstance(value, dict):
        return {_filled(key, words): _filled(one, words) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(one, words) for one in value]
    return value


def _selection(text: str) -> tuple[str, str]:
    key, colon, word = text.partition(":")
    if not (colon and word and key in ("category", "tag", "machine")):
        raise UsageError(f"{text} selects nothing", hint="--select category:NAME, tag:WORD or machine:NAME")
    if key == "category" and word not in CATEGORIES:
        raise UsageError(f"there is no category {word}", hint=nearest(word, CATEGORIES) or ", ".join(CATEGORIES))
    return key, word


def _chosen(case: Case, key: str, word: str) -> bool:
    of: Mapping[str, Collection[str]] = {"category": (case.category,), "tag": case.tags, "machine": case.needs}
    return word in of[key]


def _rank(category: str) -> int:
    return CATEGORIES.index(category) if category in CATEGORIES else len(CATEGORIES)


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _code(kind: str) -> str:
    return {"missing": "MissingKey", "extra_forbidden": "UnknownKey"}.get(kind, "BadValue")


def _fix(kind: str) -> str:
    return {"missing": "add it", "extra_forbidden": "remove it, or spell it as in the how-to"}.get(kind, "")


def _case(name: str, file: CaseFile) -> Case:
    return Case(
        name=name,
        category=file.category,
        title=file.title,
        request=file.request,
        plan=file.plan,
        subtasks=tuple(_claim(one, id=one.id) for one in file.subtask),
        checks=tuple(
            _claim(one, output=one.output, file=one.file, form=one.form, query=one.query) for one in file.check
        ),
        tags=tuple(file.tags),
        needs=tuple(file.needs),
        absent=tuple(file.absent),
        run=file.run.model_dump(exclude_none=True),
        state=file.state,
        fixtures=tuple(
            Fixture(one.make, tuple(one.on), one.path, one.name, one.args, one.draw) for one in file.fixture
        ),
        replans=tuple(msgspec.convert(one.model_dump(), Said) for one in file.replan),
        answers=tuple(Answer(one.task, one.do, one.value) for one in file.answer),
    )


def _claim(table: ClaimTable, **place: str) -> Claim:
    return Claim(table.expects, value=table.value, within=table.within, **place)
