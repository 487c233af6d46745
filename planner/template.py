"""Saved templates: a plan with parameters, and the requests that ask for it.

A template is a JSON file, shipped in planner/templates/ or saved under ASTERISM_HOME/templates/:

    {"schema": "asterism/template/v1",
     "name": "log-errors",                                      [a-z][a-z0-9_-]*, shown as template:log-errors
     "doc": "Counts error lines in every log of a folder.",
     "requests": ["count the errors in {dir}",                  sentences with slots (each slot is a parameter), or
                  "Give me the usual Monday report."],          exact texts; case, blanks and a last . ! ? don't matter
     "parameters": [{"name": "dir", "type": "path", "default": "logs", "doc": "where the logs are"}],
     "plan": {"tasks": [...], "outputs": [...]}}                a plan document (graph.md) without inputs and run

Parameter types: string (one word, or quoted), text (quoted), path, file, glob, url, integer, number, boolean, choice
(with "choices": [...]), array, object. In the plan's `args` a parameter is the reference {"ref": "input/NAME"}, with a
JSON pointer after it if needed; it is replaced by the value before anything runs, so `[]` and `when` can't use it. A
value comes from the sentence, else from the run's inputs of that name, else from the default.

Invariant: a template that loads is whole (every slot a parameter, every parameter used by name only); `fill` never
leaves a parameter open. It must not know skills: the compiler judges the plan like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.document import Problems, canonical, nearest, read_document
from protocol.errors import AsterismError, PlanRefused, Problem
from protocol.plan import parse_plan
from protocol.task import INPUT, FirstOf, Plan, Ref, TaskSpec, reference_in, references

from .phrase import LONGEST, Phrase
from .sentence import Sentence
from .slot import Kind, Slot

SCHEMA: Final = "asterism/template/v1"

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_PARAMETER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SLOT: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ALONE: Final = re.compile(r"\{\w+\}[,;:.!?]*")
_KEYS: Final = ("schema", "name", "doc", "requests", "parameters", "plan")
_KINDS: Final[dict[str, Kind]] = {
    "string": "word",
    "text": "prose",
    "path": "path",
    "file": "file",
    "glob": "glob",
    "url": "url",
    "integer": "number",
    "number": "number",
    "boolean": "flag",
    "choice": "choice",
    "array": "json",
    "object": "json",
}


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One value that a template leaves open. `default` is JSON; UNSET: it must be given."""

    name: str
    type: str = "string"
    default: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    doc: str = ""
    choices: tuple[str, ...] = ()


class Template:
    """A loaded template. `matches` says whether a request asks for it, `fill` makes the plan."""

    def __init__(
        self, name: str, doc: str, requests: tuple[str, ...], parameters: tuple[Parameter, ...], plan: Plan
    ) -> None:
        self.name = name
        self.doc = doc
        self.requests = requests
        self.parameters = {one.name: one for one in parameters}
        self.plan = plan
        slots = {one.name: Slot(one.name, _KINDS[one.type], one.choices) for one in parameters}
        self._exact = {_plain(text) for text in requests if not _SLOT.search(text)}
        self._sentences = [Sentence(text, slots) for text in requests if _SLOT.search(text)]

    def matches(self, request: str) -> tuple[int, dict[str, Any]] | None:
        """How closely the request asks for this template, and the values it gives; None if it doesn't."""
        if _plain(request) in self._exact:
            return 10_000, {}
        if len(request) > LONGEST:
            return None
        phrase = Phrase(request)
        best: tuple[int, dict[str, Any]] | None = None
        for sentence in self._sentences:
            reading = sentence.read(phrase, phrase.text, False)
            if reading is None:
                continue
            values = {**reading.args, **{name: "/".join(spread) for name, spread in reading.spread.items()}}
            if best is None or reading.words > best[0]:
                best = (reading.words, values)
        return best

    def fill(self, values: Mapping[str, Any], inputs: Mapping[str, bytes]) -> Plan:
        """The plan with every parameter replaced. Raises: PlanRefused for one that has no value."""
        known: dict[str, Any] = {}
        problems = Problems()
        for name, parameter in self.parameters.items():
            if name in values:
                known[name] = values[name]
            elif name in inputs:
                known[name] = msgspec.json.decode(inputs[name])
            elif parameter.default is not msgspec.UNSET:
                known[name] = msgspec.json.decode(parameter.default)
            else:
                problems.add("MissingParameter", name, f"the template {self.name} needs {name}", f"--input {name}=...")
        problems.raise_any(f"the template {self.name}")
        tasks = tuple(_filled(task, known) for task in self.plan.tasks)
        return msgspec.structs.replace(self.plan, tasks=tasks)


def read_template(source: bytes) -> Template:
    """Read one template file. Raises: PlanRefused with every problem."""
    document = read_document(source)
    problems = Problems()
    for key in document:
        if key not in _KEYS:
            problems.add("UnknownKey", key, "no such key of a template", nearest(key, _KEYS) or ", ".join(_KEYS))
    if document.get("schema") != SCHEMA:
        problems.add("SchemaVersion", "schema", "it is not a template of this version", f'write "{SCHEMA}"')
    name = document.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        problems.add("BadId", "name", f"{name!s:.60} is not a name", "a letter a-z, then a-z 0-9 _ -")
    parameters = _parameters(document.get("parameters") or [], problems)
    requests = document.get("requests")
    if not isinstance(requests, list) or not requests or not all(isinstance(one, str) and one for one in requests):
        problems.add("WrongType", "requests", "it is a list of sentences", '"requests": ["count the errors in {dir}"]')
        requests = []
    names = {one.name for one in parameters}
    for i, text in enumerate(requests):
        slots = _SLOT.findall(text)
        for slot in slots:
            if slot not in names:
                problems.add("UnknownInput", f"requests/{i}", f"{{{slot}}} is no parameter", nearest(slot, names))
        if len(set(slots)) != len(slots):
            problems.add("BadValue", f"requests/{i}", "a slot stands in a sentence once", "use each slot once")
        if any(_SLOT.search(word) and not _ALONE.fullmatch(word) for word in text.split()):
            problems.add("BadValue", f"requests/{i}", "a slot is a word by itself", "write blanks around it")
    plan = _plan(document.get("plan"), names, problems)
    problems.raise_any("the template")
    assert plan is not None
    assert isinstance(name, str)
    return Template(name, str(document.get("doc") or ""), tuple(requests), parameters, plan)


def load_templates(folders: Iterable[Path]) -> tuple[tuple[Template, ...], tuple[Problem, ...]]:
    """Every `*.json` of the folders, in order; a later name replaces an earlier one. Bad files become problems."""
    found: dict[str, Template] = {}
    problems: list[Problem] = []
    for folder in folders:
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            try:
                seen = path.stat()
                template = _read(path, seen.st_mtime_ns, seen.st_size)
            except AsterismError as error:
                problems.append(Problem("BadTemplate", str(path), str(error), "correct it, or remove the file"))
            except OSError as error:
                problems.append(Problem("BadTemplate", str(path), error.strerror or str(error), "make it readable"))
            else:
                found[template.name] = template
    return tuple(found.values()), tuple(problems)


@lru_cache(maxsize=256)
def _read(path: Path, mtime_ns: int, size: int) -> Template:
    """Once, while the file stays as it is: they are looked up for each request."""
    return read_template(path.read_bytes())


def shipped_folder() -> Path:
    """Where the templates of this package are."""
    return Path(__file__).parent / "templates"


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(".!? ")


def _parameters(raw: Any, problems: Problems) -> tuple[Parameter, ...]:
    found: dict[str, Parameter] = {}
    for i, one in enumerate(raw if isinstance(raw, list) else [raw]):
        try:
            parameter = msgspec.json.decode(msgspec.json.encode(one), type=Parameter)
        except msgspec.ValidationError as error:
            problems.add("WrongType", f"parameters/{i}", str(error), '{"name": "dir", "type": "path"}')
            continue
        if _PARAMETER.fullmatch(parameter.name) is None or parameter.name in found:
            problems.add("BadInput", f"parameters/{i}/name", f"{parameter.name!s:.60} is no name, or used twice")
        elif parameter.type not in _KINDS:
            problems.add("BadInput", f"parameters/{i}/type", f"{parameter.type!s:.60} is no type", ", ".join(_KINDS))
        elif (parameter.type == "choice") != bool(parameter.choices):
            problems.add("BadInput", f"parameters/{i}/choices", "choices belong to the type choice, which needs them")
        else:
            found[parameter.name] = parameter
    return tuple(found.values())


def _plan(raw: Any, names: set[str], problems: Problems) -> Plan | None:
    if not isinstance(raw, dict):
        problems.add("MissingKey", "plan", "a template has a plan", '"plan": {"tasks": [...]}')
        return None
    for key in ("inputs", "run"):
        if key in raw:
            problems.add("UnknownKey", f"plan/{key}", "not in a template", "use parameters, and flags of the run")
    try:
        plan = parse_plan({key: value for key, value in raw.items() if key not in ("inputs", "run")}, inputs=names)
    except PlanRefused as error:
        for problem in error.problems:
            problems.add(problem.code, f"plan/{problem.where}", problem.message, problem.fix)
        return None
    for i, task in enumerate(plan.tasks):
        used = [ref for found in references(msgspec.json.decode(task.args)) for ref in _each(found)]
        if any(ref.source == INPUT and ref.each for ref in used) or any(line.ref.source == INPUT for line in task.when):
            message = "a parameter is only a value: [] and when can't use it"
            problems.add("BadReference", f"plan/tasks/{i}", message, "put a flow.list or flow.echo task in between")
    for output in plan.outputs:
        if any(ref.source == INPUT for ref in _each(output.ref)):
            problems.add("BadOutput", f"plan/outputs/{output.name}", "a parameter is no output", "name a task")
    return plan


def _each(found: Ref | FirstOf) -> tuple[Ref, ...]:
    return found.refs if isinstance(found, FirstOf) else (found,)


def _filled(task: TaskSpec, known: Mapping[str, Any]) -> TaskSpec:
    if b'"input/' not in task.args:
        return task
    return msgspec.structs.replace(task, args=canonical(_replace(msgspec.json.decode(task.args), known)))


def _replace(node: Any, known: Mapping[str, Any]) -> Any:
    """Parsed plans are at most 64 levels deep, so recursion is safe."""
    if isinstance(node, list):
        return [_replace(item, known) for item in node]
    if not isinstance(node, dict) or set(node) == {"literal"}:
        return node
    found = reference_in(node)
    if isinstance(found, Ref) and found.source == INPUT:
        value = _at(known[found.path[0]], found.path[1:])
        return {"literal": value} if _says_more(value) else value
    if found is not None:
        return node
    return {key: _replace(item, known) for key, item in node.items()}


def _says_more(value: Any) -> bool:
    """Whether a value would be read as more than a value, at any depth."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if len(node) == 1 and next(iter(node)) in ("ref", "secret", "literal"):
                return True
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return False


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            raise PlanRefused(f"the parameter has nothing at /{'/'.join(path)}", hint="give a value that has it")
    return value
