"""A plan being put together step by step: ids, arguments, wires and edges, each defect kept.

A step names a skill and what was written for it; the draft fills the rest from the steps before it, by types. Both
the notation and the clauses end here, so they can't wire differently. Invariant: pure; what can't be filled is a
problem, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from protocol.document import canonical, nearest
from protocol.errors import Problem
from protocol.skill import SkillSpec
from protocol.task import INPUT, Plan, TaskSpec, references

from .catalog import short_name
from .value import read_value
from .wiring import ANYTHING, EXACT, Source, Wire, absent_fields, fit, is_content, offers, wires

FINDER: Final = "fs.find"
"""The one skill known by name here: it turns a folder into files, which a folder given for a file means."""

_NOT_ID: Final = re.compile(r"[^a-z0-9_]+")


class Step(msgspec.Struct, frozen=True):
    """What was written for one task. `args` are JSON values by name, `positional` texts in schema order.

    `wanted`: arguments that must come from earlier steps. `spread`: argument -> (folder, glob) whose files it means,
    which lie on `found_on`.
    """

    skill: SkillSpec
    args: Mapping[str, Any] = {}
    positional: tuple[Any, ...] = ()
    each: bool = False
    on: tuple[str, ...] = ()
    id: str = ""
    wanted: tuple[str, ...] = ()
    spread: Mapping[str, tuple[str, str]] = {}
    found_on: tuple[str, ...] = ()
    text: str = ""


class Draft:
    """Add steps in order; `plan()` when there are no `problems`. `finder` is the catalog's FINDER, if it has it."""

    def __init__(self, finder: SkillSpec | None = None) -> None:
        self._finder = finder
        self.tasks: dict[str, TaskSpec] = {}
        self.problems: list[Problem] = []

    def add(self, step: Step, sources: tuple[Source, ...] = (), *, sequence: bool = True) -> Source:
        """One more task, fed by `sources` where it has gaps. With `sequence` it waits for those that feed nothing."""
        task_id = self._fresh(step.id or short_name(step.skill.name))
        where = step.text or task_id
        args = dict(step.args)
        each = False
        properties: Mapping[str, Any] = step.skill.params.get("properties", {})
        for name in args.keys() - properties.keys():
            fix = (
                nearest(name, properties) or f"it takes {', '.join(properties) or 'nothing'}; quote a text with = in it"
            )
            self._problem("UnknownArgument", where, f"{step.skill.name} has no argument {name}", fix)
        for name, (folder, glob) in step.spread.items():
            if self._finder is None:
                self._problem("NoFit", where, f"no skill here finds the files of {folder}", "name one file")
                continue
            found = self.add(Step(self._finder, {"path": folder, "glob": glob}, on=step.found_on, text=where))
            each = self._spread(args, name, properties[name], found) or each
        fed, each = self._wire(step, args, sources, each, where)
        self._place(step, args, where)
        for name in step.skill.params.get("required", ()):
            if name not in args:
                fix = f"write {short_name(step.skill.name)}({name}=...)"
                self._problem("MissingArgument", where, f"{step.skill.name} needs {name}", fix)
        if step.each and not each:
            self._problem("NothingToMap", where, "`each` needs a list from the step before", "leave each out")
        try:
            for _ in references(args):
                pass
        except ValueError as error:
            self._problem("BadReference", where, str(error), 'a reference is {"ref": "task/path"}')
        after = tuple(dict.fromkeys(one.id for one in sources if one.id not in fed)) if sequence else ()
        self.tasks[task_id] = TaskSpec(id=task_id, skill=step.skill.name, args=canonical(args), on=step.on, after=after)
        absent = absent_fields(step.skill, args) | (
            {"parts"} if step.skill is self._finder and "parts" not in args else set()
        )
        return Source(task_id, step.skill, each or "all" in step.on, absent)

    def plan(self) -> Plan:
        return Plan(tasks=tuple(self.tasks.values()))

    # filling

    def _wire(
        self, step: Step, args: dict[str, Any], sources: tuple[Source, ...], each: bool, where: str
    ) -> tuple[set[str], bool]:
        """Fill the gaps that earlier tasks can fill; which of them were used, and whether the task became a map."""
        fed: set[str] = set()
        full = len(step.positional) + len(args) >= len(step.skill.params.get("properties", {}))
        if not sources or (full and not step.wanted):
            return fed, each  # everything is written down: the arrow is only a sequence
        open_names = self._gaps(step, args)
        least = EXACT if step.positional else ANYTHING
        groups = [sources] if len(sources) > 1 else []
        groups += [(source,) for source in sources]
        for group in groups:
            if any(source.id in fed for source in group):
                continue
            best = self._best(step, open_names, group, each, least)
            if best is None:
                continue
            args[best.argument] = best.value
            each = each or best.each
            fed |= {source.id for source in group}
            open_names = [name for name in open_names if name != best.argument]
        for name in step.wanted:
            if name not in args:
                self._problem("NoFit", where, f"nothing before {step.skill.name} fits its {name}", "write it out")
        return fed, each

    def _gaps(self, step: Step, args: Mapping[str, Any]) -> list[str]:
        required = step.skill.params.get("required", ())
        if step.wanted:
            return [name for name in step.wanted if name not in args]
        return [name for name in step.skill.params.get("properties", {}) if name in required and name not in args]

    def _best(self, step: Step, names: list[str], group: tuple[Source, ...], mapped: bool, least: int) -> Wire | None:
        """The best wire of a group. Whole values come before maps, unless the step says `each`; a tie is no answer."""
        properties = step.skill.params["properties"] if names else {}
        for each in (True,) if step.each else (False, True):
            if each and mapped:
                continue  # one map a task: a second list would have to be of the same length
            if each and not step.each and any(is_content(properties[name]) for name in names):
                continue  # saving what somebody listed is not saving each of it
            found = [
                wire for name in names for wire in wires(name, properties[name], group, each) if wire.score >= least
            ]
            if not found and not each and len(group) == 1:
                found = [wire for name in names if (wire := self._parts(name, properties[name], group[0])) is not None]
            if found:
                top = max(wire.score for wire in found)
                first = next(wire for wire in found if wire.score == top)
                same = [wire for wire in found if wire.score == top and wire.argument == first.argument]
                return first if len(same) == 1 else None
        return None

    def _parts(self, name: str, param: Mapping[str, Any], source: Source) -> Wire | None:
        """Files as one list: a finder asked for one part has it at `parts/0/files`."""
        if source.skill.name != FINDER or source.id not in self.tasks:
            return None
        whole = msgspec.structs.replace(source, absent=frozenset())
        offer = next((one for one in offers(whole, True) if one.ref.path == ("parts",) and one.name == "files"), None)
        if offer is None or fit(param, offer.schema) < EXACT:
            return None
        task = self.tasks[source.id]
        args = msgspec.json.decode(task.args)
        if args.setdefault("parts", 1) != 1:
            return None
        self.tasks[source.id] = msgspec.structs.replace(task, args=canonical(args))
        return Wire(name, {"ref": f"{source.id}/parts/0/files"}, EXACT)

    def _spread(self, args: dict[str, Any], name: str, param: Mapping[str, Any], found: Source) -> bool:
        whole = self._parts(name, param, found)
        if whole is not None:
            args[name] = whole.value
            return False
        args[name] = {"ref": f"{found.id}/files[]/file"}
        return True

    def _place(self, step: Step, args: dict[str, Any], where: str) -> None:
        """Positional texts, in schema order over what is still open."""
        properties: Mapping[str, Any] = step.skill.params.get("properties", {})
        names = [name for name in properties if name not in args]
        for name, text in zip(names, step.positional, strict=False):
            args[name] = read_value(text, properties[name])
        if len(step.positional) > len(names):
            message = f"{step.skill.name} takes {len(names)} more, {len(step.positional)} are given"
            self._problem("TooManyArguments", where, message, "quote a text that has a comma in it")

    def _fresh(self, name: str) -> str:
        stem = _NOT_ID.sub("_", name.lower()).strip("_")[:56] or "task"
        stem = stem if stem[0].isalpha() else f"t{stem}"
        found, k = stem, 1
        while found in self.tasks or found == INPUT:
            k += 1
            found = f"{stem}_{k}"
        return found

    def _problem(self, code: str, where: str, message: str, fix: str) -> None:
        self.problems.append(Problem(code, where, message, fix))
