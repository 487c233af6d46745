"""A plan written in Python: `Graph` collects tasks and hands back handles; what comes out is a plan document.

A handle is a reference in the making: `scan["files"]` goes into the value, `.each()` makes the task that reads it a
map, `.failed` or `scan["n"] > 3` is a condition for `when`. Nothing runs here and nothing is checked beyond what
Python must: the document is judged by the same compiler as a plan file. A graph also makes a patch of a run
(`base`, `why`, edits, links). It must not know clients, servers or files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from .errors import NotFound, UsageError
from .plan_form import SCHEMA

_OPTIONS: Final = (
    "on after when map alt needs retry timeout deadline priority effect cache label approve".split()  # noqa: SIM905
)
_NOT_ID: Final = re.compile(r"[^a-z0-9_-]+")

Skill = str | Callable[..., Any]


class Condition:
    """One line of `when`. It has no truth value: only the run can judge it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def __bool__(self) -> bool:
        raise TypeError("a condition on a task is judged when the run gets there: pass it as when=[...]")

    def __repr__(self) -> str:
        return f"Condition({self.document})"


class Handle:
    """A value that a task (or an input) will have. Index it to go deeper; compare it to get a condition.

    Trap: `==` makes a Condition, so handles can't be compared with each other in plain Python.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, source: str, path: str = "", mapped: bool = False) -> None:
        self._source = source
        self._path = path
        self._mapped = mapped

    @property
    def id(self) -> str:
        """The task this value comes from (`input/NAME` for an input)."""
        return self._source

    @property
    def ref(self) -> str:
        return self._source + self._path

    def __getitem__(self, key: str | int) -> Handle:
        part = str(key).replace("~", "~0").replace("/", "~1")
        return Handle(self._source, f"{self._path}/{part}", self._mapped)

    def __iter__(self) -> Any:
        raise TypeError(f"{self.ref} has no elements yet: write .each() and the task that reads it runs once for each")

    def each(self) -> Handle:
        """Once per element of this list: the task that reads it becomes a map."""
        if self._mapped:
            raise UsageError(
                f"{self.ref} is spread already", hint="only one [] per reference: put a task between two maps"
            )
        return Handle(self._source, f"{self._path}[]", True)

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return self._compare("!=", other)

    def __lt__(self, other: object) -> Condition:
        return self._compare("<", other)

    def __le__(self, other: object) -> Condition:
        return self._compare("<=", other)

    def __gt__(self, other: object) -> Condition:
        return self._compare(">", other)

    def __ge__(self, other: object) -> Condition:
        return self._compare(">=", other)

    def among(self, values: Sequence[Any]) -> Condition:
        """The value is one of these."""
        return self._compare("in", list(values))

    def exists(self) -> Condition:
        """The path is there."""
        return Condition({"ref": self.ref, "op": "exists"})

    @property
    def succeeded(self) -> Condition:
        return Condition({"ref": self._source, "is": "succeeded"})

    @property
    def failed(self) -> Condition:
        return Condition({"ref": self._source, "is": "failed"})

    @property
    def skipped(self) -> Condition:
        return Condition({"ref": self._source, "is": "skipped"})

    @property
    def finished(self) -> Condition:
        return Condition({"ref": self._source, "is": "finished"})

    def __repr__(self) -> str:
        return f"Handle({self.ref})"

    def _compare(self, op: str, value: object) -> Condition:
        return Condition({"ref": self.ref, "op": op, "value": value})


class First:
    """The first of several handles whose task succeeded (either/or join, fallback)."""

    def __init__(self, *handles: Handle) -> None:
        if not handles:
            raise UsageError("first() needs at least one value", hint="first(a, b)")
        self.refs = [handle.ref for handle in handles]


class Graph:
    """A task graph being written.

    `inputs` are values the run is given, by name; they can be replaced at submission. Other keyword arguments are the
    `run` object of the plan: on_failure, deadline, budget, review, home, schedule_grace, priority, sla.
    """

    def __init__(self, inputs: Mapping[str, Any] | None = None, **run: Any) -> None:
        self.skills: list[Callable[..., Any]] = []
        self._inputs = dict(inputs or {})
        self._run = run
        self._tasks: dict[str, dict[str, Any]] = {}
        self._outputs: list[dict[str, Any]] = []
        self._edits: list[dict[str, Any]] = []
        self._links: list[list[str]] = []
        self._unlinks: list[list[str]] = []
        self._updates: dict[str, dict[str, Any]] = {}

    def input(self, name: str) -> Handle:
        """A run input. It has to be declared in the constructor or given at submission."""
        return Handle("input", "/" + name.replace("~", "~0").replace("/", "~1"))

    def task(self, id: str) -> Handle:
        """A task that is already there: of the run that this graph will patch, or added earlier."""
        return Handle(id)

    def add(
        self, skill: Skill, /, id: str | None = None, *, args: Mapping[str, Any] | None = None, **given: Any
    ) -> Handle:
        """Add a task and return the handle of its value.

        Keywords that are task options (on, after, when, map, alt, needs, retry, timeout, deadline, priority, effect,
        cache, label, approve) set those; all others are arguments of the skill. An argument with the name of an
        option goes into `args`.
        """
        name = skill_name(skill)
        if callable(skill) and skill not in self.skills:
            self.skills.append(skill)
        options = {key: given.pop(key) for key in _OPTIONS if key in given}
        task_id = id or self._fresh(name)
        if task_id in self._tasks:
            raise UsageError(f"there is a task {task_id} already", hint="give each task its own id")
        row: dict[str, Any] = {"id": task_id, "skill": name}
        row["args"] = {key: _argument(value) for key, value in {**given, **(args or {})}.items()}
        row.update({key: _option(key, value) for key, value in options.items() if value is not None})
        self._tasks[task_id] = row
        return Handle(task_id)

    def output(self, name: str, value: Handle | First) -> None:
        """Declare an output of the run. Without any, the tasks that nobody reads are the outputs."""
        ref = value.refs if isinstance(value, First) else value.ref
        self._outputs.append({"name": name, "ref": ref})

    def first(self, *handles: Handle) -> First:
        """An argument: the first of these whose task succeeded."""
        return First(*handles)

    # Edits: only in a graph that patches a run.

    def retry(self, task: Handle | str, alt: str = "", note: str = "") -> None:
        """Try an open failed task again, by `alt` if that is given."""
        self._edit("retry", task, note, alt)

    def cancel(self, task: Handle | str, note: str = "") -> None:
        self._edit("cancel", task, note)

    def remove(self, task: Handle | str, note: str = "") -> None:
        self._edit("remove", task, note)

    def give_up(self, task: Handle | str, note: str = "") -> None:
        """Settle an open failed task: what needs it is skipped."""
        self._edit("give_up", task, note)

    def finish(self, note: str = "") -> None:
        """Cancel whatever the outputs do not need."""
        self._edits.append({"op": "finish", **({"note": note} if note else {})})

    def link(self, before: Handle | str, after: Handle | str) -> None:
        """`after` waits for `before` to be final and not failed."""
        self._links.append([_id(before), _id(after)])

    def unlink(self, before: Handle | str, after: Handle | str) -> None:
        self._unlinks.append([_id(before), _id(after)])

    def update(self, task: Handle | str, **fields: Any) -> None:
        """Change options or arguments (`args={...}`, merged) of a task that has not been dispatched."""
        given = dict(fields)
        row = {"args": {key: _argument(value) for key, value in given.pop("args").items()}} if "args" in given else {}
        row.update({key: _option(key, value) for key, value in given.items()})
        self._updates.setdefault(_id(task), {}).update(row)

    @property
    def updates(self) -> tuple[str, ...]:
        """The tasks that `update` names; `document` needs to know them as they are."""
        return tuple(self._updates)

    def document(self) -> dict[str, Any]:
        """The plan document. Raises: UsageError if the graph holds edits, which only a run can take."""
        if self._edits or self._links or self._unlinks or self._updates:
            raise UsageError("this graph edits a run", hint="give it to the run: live.patch(graph)")
        document: dict[str, Any] = {"schema": SCHEMA}
        if self._inputs:
            document["inputs"] = [
                {"name": name, "type": _type_name(value), "default": value} for name, value in self._inputs.items()
            ]
        if self._run:
            document["run"] = dict(self._run)
        return {**document, **self._body()}

    def patch(
        self, *, base: int | None = None, why: str = "", known: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, Any]:
        """The document of a patch. `known` are the tasks named by `updates`, in the notation, as they are now."""
        document: dict[str, Any] = {"schema": SCHEMA}
        if base is not None:
            document["base"] = base
        if why:
            document["why"] = why
        for key, rows in (("edits", self._edits), ("links", self._links), ("unlinks", self._unlinks)):
            if rows:
                document[key] = list(rows)
        body = self._body()
        for task_id, fields in self._updates.items():
            now = (known or {}).get(task_id)
            if now is None:
                raise NotFound(f"there is no task {task_id} to update", hint="asterism graph lists the tasks of a run")
            args = {**now.get("args", {}), **fields.get("args", {})}
            body["tasks"].append({**now, **fields, "args": args})
        if not body["tasks"]:
            del body["tasks"]
        return {**document, **body}

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"tasks": list(self._tasks.values())}
        if self._outputs:
            body["outputs"] = list(self._outputs)
        return body

    def _edit(self, op: str, task: Handle | str, note: str, alt: str = "") -> None:
        row = {"op": op, "id": _id(task), "note": note, "alt": alt}
        self._edits.append({key: value for key, value in row.items() if value})

    def _fresh(self, skill: str) -> str:
        stem = _NOT_ID.sub("-", skill.rpartition(".")[2].lower()).strip("-_") or "task"
        stem = stem if stem[0].isalpha() else f"t{stem}"
        stem = stem[:56]
        if stem not in self._tasks and stem != "input":
            return stem
        number = 2
        while f"{stem}-{number}" in self._tasks:
            number += 1
        return f"{stem}-{number}"


def skill_name(skill: Skill) -> str:
    """The name of a skill given by name or by its decorated function. Raises: UsageError for a plain function."""
    if isinstance(skill, str):
        return skill
    name = getattr(getattr(skill, "spec", None), "name", None)
    if isinstance(name, str):
        return name
    shown = getattr(skill, "__name__", repr(skill))
    raise UsageError(f"{shown} is not a skill", hint="decorate the function with @skill, or name a skill as text")


def _id(task: Handle | str) -> str:
    return task if isinstance(task, str) else task.id


def _argument(value: Any) -> Any:
    """An argument as JSON: handles become references, an object that merely looks like one is protected."""
    if isinstance(value, Handle):
        return {"ref": value.ref}
    if isinstance(value, First):
        return {"ref": value.refs}
    if isinstance(value, Mapping):
        row = {str(key): _argument(item) for key, item in value.items()}
        plain = not any(isinstance(item, Handle | First) for item in value.values())
        return {"literal": row} if plain and set(row) in ({"ref"}, {"literal"}) else row
    if isinstance(value, list | tuple):
        return [_argument(item) for item in value]
    if isinstance(value, Condition):
        raise UsageError("a condition is no argument", hint="pass it as when=[...]")
    return msgspec.to_builtins(value, enc_hook=_foreign)


def _foreign(value: Any) -> Any:
    """Paths, pydantic models and other values that know how to be JSON."""
    if hasattr(value, "__fspath__"):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise UsageError(f"{type(value).__name__} can't be an argument", hint="pass JSON values, files or handles")


def _option(key: str, value: Any) -> Any:
    if key == "on":
        places = value if isinstance(value, list | tuple) else [value]
        return [{"ref": place.id} if isinstance(place, Handle) else place for place in places]
    if key == "after":
        tasks = value if isinstance(value, list | tuple) else [value]
        return [_id(task) for task in tasks]
    if key == "when":
        conditions = value if isinstance(value, list | tuple) else [value]
        return [one.document if isinstance(one, Condition) else dict(one) for one in conditions]
    if key == "alt":
        return [skill_name(one) for one in (value if isinstance(value, list | tuple) else [value])]
    return msgspec.to_builtins(value)


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    for kind, name in ((int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object")):
        if isinstance(value, kind):
            return name
    return "any" if value is None else "string"
