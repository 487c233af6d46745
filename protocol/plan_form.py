"""The parts of a plan or patch document, each read into its noun, with every defect kept.

Invariant: total; the order of the methods is the order of a plan, `outputs` after `tasks`. Who names whom is judged
here: in a plan references point backwards, in a patch they may also name tasks of the graph. It must not know skills.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

from .cycle import find_cycle
from .document import Limits, Problems, canonical, kind_of, nearest, too_large
from .field import FAR, FieldReader, Path, short
from .patch import Edit
from .task import (
    INPUT,
    SLA_CLASSES,
    AnyRef,
    FirstOf,
    InputSpec,
    Output,
    ReplanBounds,
    RunBudget,
    RunSettings,
    TaskSpec,
    reference_in,
)
from .task_form import SKILL_NAME, SOURCE, TaskReader

SCHEMA: Final = "asterism/plan/v1"
INPUT_TYPES: Final = ("string", "integer", "number", "boolean", "file", "array", "object", "any")
PLAN_KEYS: Final = ("schema", "inputs", "run", "tasks", "outputs", "planner", "forecast")
"""`planner`: who planned it, as `asterism plan` says. Only for people."""
PATCH_KEYS: Final = ("schema", "base", "why", "relies", "edits", "links", "unlinks", "tasks", "outputs")

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_OPS: Final = ("retry", "cancel", "remove", "finish", "give_up")
_SETTINGS_KEYS: Final = (
    "on_failure", "deadline", "budget", "review", "home", "schedule_grace", "priority", "labels", "replan",
    "sla", "prefer", "best_effort",
)  # fmt: skip
_REPLAN_KEYS: Final = ("rounds", "edits", "tasks", "proposals")
_BUDGET_KEYS: Final = ("tasks", "depth", "attempts", "calls", "tokens", "price", "wall")


class PlanReader(FieldReader):
    """The parts of one document, read in any order."""

    def __init__(self, limits: Limits, raw: dict[str, Any]) -> None:
        super().__init__(Problems(), limits.max_string)
        self.limits = limits
        self.raw = raw
        self.raw_tasks = self.items(raw["tasks"], "tasks") if raw.get("tasks") is not None else []
        self.known: Collection[str] | None = None
        self.known_inputs: Collection[str] | None = None
        self.order: dict[str, int] = {}
        self.places: list[int] = []
        """Where in the document each task is that was read well."""
        self.upstream: dict[str, tuple[str, ...]] = {}
        if len(self.raw_tasks) > limits.max_tasks:
            raise too_large("max_tasks", limits.max_tasks, f"it has {len(self.raw_tasks)} tasks", "tasks")

    def keys(self, allowed: tuple[str, ...], what: str) -> None:
        for key in self.raw:
            if key not in allowed:
                known = key in PLAN_KEYS or key in PATCH_KEYS
                fix = f"{what} has {', '.join(allowed)}" if known else nearest(key, allowed) or ", ".join(allowed)
                self.add("UnknownKey", short(key), f"no such key of {what}", fix)
        if self.raw.get("schema") not in (None, SCHEMA):
            self.add("SchemaVersion", "schema", f"{short(self.raw['schema'])} is not read here", f'write "{SCHEMA}"')
        if allowed is PLAN_KEYS and self.raw.get("tasks") is None:
            self.add("NotAPlan", "tasks", "there is no list of tasks", 'write "tasks": [...]')

    # tasks and who names whom

    def tasks(self, known: Collection[str] | None, inputs: Collection[str] | None) -> tuple[TaskSpec, ...]:
        """All tasks. With `known` None (a plan) a reference must name an earlier task of the document."""
        self.known, self.known_inputs = known, inputs
        order = self.order
        reader = TaskReader(self.problems, self.max_string)
        found: list[TaskSpec] = []
        open_uses: list[tuple[int, str, str, Path]] = []
        for i, raw in enumerate(self.raw_tasks):
            self.raw_tasks[i] = None  # the garbage collector need not walk what is read
            task = reader.read(raw, f"tasks/{i}")
            name = raw.get("id") if isinstance(raw, dict) else None
            for source, path, kind in reader.uses:
                if source == name:
                    reader.add("SelfReference", path, f"{name} names itself", "name an earlier task")
                elif source not in order:
                    open_uses.append((i, source, kind, path))
            for source, path in reader.input_uses:
                self._input_use(source, reader.where, path)
            if isinstance(name, str):
                if name in order:
                    reader.add("DuplicateId", "/id", f"{short(name)} is also tasks/{order[name]}", "rename one of them")
                else:
                    order[name] = i
                    self.upstream[name] = tuple([use[0] for use in reader.uses])
            if task is not None:
                found.append(task)
                self.places.append(i)
        self._judge(open_uses)
        if not self.problems.found and any(source in order for _, source, _, _ in open_uses):
            self._acyclic()
        return tuple(found)

    def _acyclic(self) -> None:
        """What points backwards can't close a cycle, so this is only asked once something pointed forwards."""
        loop = find_cycle(self.upstream)
        if loop:
            shown = " -> ".join([*loop[:8], *(["..."] if len(loop) > 8 else []), loop[0]])
            at = f"tasks/{self.order[loop[0]]}"
            self.add("Cycle", at, f"these wait for each other: {shown}", "remove one of these edges")

    def _judge(self, open_uses: list[tuple[int, str, str, Path]]) -> None:
        if self.known is not None:
            return
        for i, source, kind, where in open_uses:
            self.where = f"tasks/{i}"
            if source not in self.order:
                fix = nearest(source, self.order)
                self.add("UnknownReference", where, f"there is no task {source}", fix or "name a task of this plan")
            elif kind != "after":
                self.add("ForwardReference", where, f"{source} comes later", f"move {source} before this task")
        self.where = ""

    def _input_use(self, name: str, where: str, path: Path) -> None:
        if self.known_inputs is None or name in self.known_inputs:
            return
        self.where = where
        fix = nearest(name, self.known_inputs) or f'declare it: "inputs": [{{"name": "{short(name)}"}}]'
        self.add("UnknownInput", path, f"there is no input {short(name)}", fix)
        self.where = ""

    # the rest of a plan

    def inputs(self) -> tuple[InputSpec, ...]:
        found: dict[str, InputSpec] = {}
        for i, raw in enumerate(self._entries("inputs")):
            at = f"inputs/{i}"
            given = self.members(raw, at, ("name", "type", "default", "doc"))
            name, kind = given.get("name"), given.get("type", "string")
            if kind == "any" and isinstance(raw, dict) and "default" in raw:
                given["default"] = raw["default"]  # here null is a value like any other
            if not isinstance(name, str) or _NAME.fullmatch(name) is None:
                self.add("BadInput", f"{at}/name", f"{short(name)} is not a name", "letters, digits, _ . -")
            elif name in found:
                self.add("DuplicateInput", f"{at}/name", f"{name} is declared twice", "rename one of them")
            elif kind not in INPUT_TYPES:
                self.add("BadInput", f"{at}/type", f"{short(kind)} is no type", ", ".join(INPUT_TYPES))
            elif "default" in given and not _fits(given["default"], kind):
                self.add("BadInput", f"{at}/default", f"{kind_of(given['default'])} does not fit the type {kind}")
            else:
                default = canonical(given["default"]) if "default" in given else None
                found[name] = InputSpec(name, kind, default, self.text(given.get("doc", ""), f"{at}/doc"))
        return tuple(found.values())

    def settings(self) -> RunSettings:
        raw = self.raw.get("run")
        given = self.members(raw, "run", _SETTINGS_KEYS) if raw is not None else {}
        on_failure = given.get("on_failure", "continue")
        if on_failure not in ("continue", "stop", "replan"):
            self.add("BadValue", "run/on_failure", f"{short(on_failure)} is not one of continue, stop, replan")
        sla = given.get("sla", "standard")
        if sla not in SLA_CLASSES:
            self.add("BadValue", "run/sla", f"{short(sla)} is not one of {', '.join(SLA_CLASSES)}")
        prefer, best_effort = given.get("prefer", "time"), given.get("best_effort", False)
        if prefer not in ("time", "price", "energy"):
            self.add("BadValue", "run/prefer", f"{short(prefer)} is not one of time, price, energy")
            prefer = "time"
        if not isinstance(best_effort, bool):
            self.add("WrongType", "run/best_effort", f"{kind_of(best_effort)} is not true or false")
        return RunSettings(
            on_failure=on_failure,
            deadline_s=self.span(given.get("deadline", 0.0), "run/deadline"),
            budget=self._budget(given.get("budget")),
            review=self.integer(given.get("review", 0), "run/review", 0, 0),
            home=self.text(given.get("home", ""), "run/home"),
            schedule_grace_s=self.span(given.get("schedule_grace", 30.0), "run/schedule_grace"),
            priority=self.integer(given.get("priority", 0), "run/priority", -FAR, 0),
            labels=self.texts(given.get("labels", {}), "run/labels"),
            replan=self._bounds(given.get("replan")),
            sla=sla,
            prefer=prefer,
            best_effort=best_effort is True,
        )

    def _bounds(self, raw: object) -> ReplanBounds:
        given = self.members(raw, "run/replan", _REPLAN_KEYS) if raw is not None else {}
        return ReplanBounds(**{key: self.integer(given[key], f"run/replan/{key}", 0, -1) for key in given})

    def _budget(self, raw: object) -> RunBudget:
        given = self.members(raw, "run/budget", _BUDGET_KEYS) if raw is not None else {}
        counts = {
            key: self.integer(given.get(key, default), f"run/budget/{key}", 0, default)
            for key, default in (("tasks", 0), ("depth", 8), ("attempts", 0), ("calls", 0), ("tokens", 0))
        }
        price = self.number(given.get("price", 0.0), "run/budget/price")
        return RunBudget(**counts, price=price, wall_s=self.span(given.get("wall", 0.0), "run/budget/wall"))

    def outputs(self) -> tuple[Output, ...]:
        found: dict[str, Output] = {}
        for i, raw in enumerate(self._entries("outputs")):
            at = f"outputs/{i}"
            given = self.members(raw, at, ("name", "ref"))
            name, ref = given.get("name"), self._output_ref(given.get("ref"), at)
            if not isinstance(name, str) or _NAME.fullmatch(name) is None:
                self.add("BadOutput", f"{at}/name", f"{short(name)} is not a name", "letters, digits, _ . -")
            elif name in found:
                self.add("DuplicateOutput", f"{at}/name", f"{name} is declared twice", "rename one of them")
            elif ref is not None:
                found[name] = Output(name, ref)
        return tuple(found.values())

    def _output_ref(self, raw: object, at: str) -> AnyRef | None:
        try:
            ref = reference_in({"ref": raw})
        except ValueError as error:
            self.add("BadReference", f"{at}/ref", str(error), 'write "ref": "task/path"')
            return None
        for one in ref.refs if isinstance(ref, FirstOf) else (ref,):
            if one is None or one.each:
                self.add("BadOutput", f"{at}/ref", "an output is a whole value", "name the task without []")
            elif one.source == INPUT:
                self._input_use(one.path[0], at, "/ref")
            elif SOURCE.fullmatch(one.source) is None:
                self.add("BadReference", f"{at}/ref", f"{short(one.source)!r} is not the id of a task")
            elif self.known is None and one.source not in self.order:
                fix = nearest(one.source, self.order) or "name a task of this plan"
                self.add("UnknownReference", f"{at}/ref", f"there is no task {one.source}", fix)
        return ref

    # the rest of a patch

    def ids(self, key: str) -> tuple[str, ...]:
        names = self._entries(key)
        for i, name in enumerate(names):
            self._id(name, f"{key}/{i}")
        return tuple(names)

    def edits(self) -> tuple[Edit, ...]:
        found: list[Edit] = []
        for i, raw in enumerate(self._entries("edits")):
            at = f"edits/{i}"
            given = self.members(raw, at, ("op", "id", "note", "alt"))
            op, alt = given.get("op"), given.get("alt") or ""
            if op not in _OPS:
                self.add("BadEdit", f"{at}/op", f"{short(op)} is no edit", ", ".join(_OPS))
                continue
            if op == "finish" and given.get("id"):
                self.add("BadEdit", f"{at}/id", "finish is about the whole run", "leave id out")
            elif op != "finish":
                self._id(given.get("id"), f"{at}/id")
            if alt and (op != "retry" or not isinstance(alt, str) or SKILL_NAME.fullmatch(alt) is None):
                self.add("BadEdit", f"{at}/alt", "only retry takes alt, the name of a skill", "leave alt out")
            elif op == "finish" or isinstance(given.get("id"), str):
                found.append(Edit(op, given.get("id") or "", self.text(given.get("note", ""), f"{at}/note"), alt))
        return tuple(found)

    def links(self, key: str) -> tuple[tuple[str, str], ...]:
        found: list[tuple[str, str]] = []
        for i, pair in enumerate(self._entries(key)):
            at = f"{key}/{i}"
            if not isinstance(pair, list) or len(pair) != 2:
                self.add("BadLink", at, "a link is a pair", 'write ["upstream", "downstream"]')
                continue
            good = [self._id(name, f"{at}/{k}") for k, name in enumerate(pair)]
            if all(good) and pair[0] == pair[1]:
                self.add("SelfReference", at, f"{pair[0]} is linked to itself", "name two tasks")
            found.append((pair[0], pair[1]))
        return tuple(found)

    def _id(self, name: object, at: str) -> bool:
        good = isinstance(name, str) and name != INPUT and SOURCE.fullmatch(name) is not None
        if not good:
            self.add("BadReference", at, f"{short(name)} is not the id of a task")
        return good

    def _entries(self, key: str) -> list[Any]:
        return self.items(self.raw[key], key) if self.raw.get(key) is not None else []


def _fits(value: object, kind: str) -> bool:
    if kind == "any":
        return True
    if kind in ("string", "file"):
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, list if kind == "array" else dict)
