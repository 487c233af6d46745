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
from protocol.task import INPUT, Condition, Plan, TaskSpec, references

from .catalog import Catalog, short_name
from .query import columns_of, gives_one_row
from .slot import FileName, slot_of
from .value import read_value
from .wiring import ANYTHING, EXACT, Source, Wire, absent_fields, fit, is_content, offers, wires

FINDER: Final = "fs.find"
"""Known by name: it turns a folder into files, which a folder given for a file means."""
HASHER: Final = "file.hash"
"""Known by name: it gives whatever file it is asked for, on whatever machine, to be taken elsewhere."""

_NOT_ID: Final = re.compile(r"[^a-z0-9_]+")


class Step(msgspec.Struct, frozen=True):
    """What was written for one task. `args` are JSON values by name, `positional` texts in schema order.

    `wanted`: arguments that must come from earlier steps. `spread`: argument -> (folder, glob) whose files it means,
    which lie on `found_on`, as do files named by their path. `when`: what has to hold; `alt`: what does it if the skill
    fails; `approve`: a person has to allow it.
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
    when: tuple[Condition, ...] = ()
    alt: tuple[str, ...] = ()
    approve: bool = False
    text: str = ""


class Draft:
    """Add steps in order; `plan()` when there are no `problems`."""

    def __init__(self, catalog: Catalog) -> None:
        self._finder = catalog.by_name.get(FINDER)
        self._hasher = catalog.by_name.get(HASHER)
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
            wanted = Step(self._finder, {"path": folder, "glob": glob}, on=step.found_on, when=step.when, text=where)
            each = self._spread(args, name, properties[name], self.add(wanted, sources, sequence=sequence)) or each
        for name, value in step.args.items():
            if isinstance(value, FileName) or (step.found_on and step.found_on != step.on):
                args[name] = self._carried(step, value, slot_of(name, properties.get(name, {})).kind, sources)
        fed, each = self._wire(step, args, sources, each, where)
        self._place(step, args, where)
        for source in sources:
            if source.other:
                args = _either(args, source)
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
        self.tasks[task_id] = TaskSpec(
            id=task_id,
            skill=step.skill.name,
            args=canonical(args),
            on=step.on,
            when=step.when,
            after=after,
            alt=step.alt,
            approve=step.approve,
        )
        absent = absent_fields(step.skill, args) | (
            {"parts"} if step.skill is self._finder and "parts" not in args else set()
        )
        sql = args.get("sql") if "rows" in step.skill.result.get("properties", {}) else None
        columns, single = (columns_of(sql), gives_one_row(sql)) if isinstance(sql, str) else ((), False)
        mapped = each or "all" in step.on
        return Source(task_id, step.skill, mapped, absent, columns, single, _stem(step, args, absent))

    def rename(self, source: Source, name: str) -> Source | None:
        """The task that was made last by another name, which nothing says yet; None if it can't be called so."""
        if self._fresh(name) != name:
            return None
        self.tasks[name] = msgspec.structs.replace(self.tasks.pop(source.id), id=name)
        return msgspec.structs.replace(source, id=name)

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
            unsaid = each and not step.each  # a map that nobody asked for takes only what certainly fits
            found = [
                wire
                for name in names
                for wire in wires(name, properties[name], group, each)
                if wire.score >= least and not (unsaid and wire.score == ANYTHING)
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

    def _carried(self, step: Step, value: Any, kind: str, sources: tuple[Source, ...]) -> Any:
        """A file that is named by its path, from where it lies to where the step runs."""
        if isinstance(value, list):
            return [self._carried(step, one, kind, sources) for one in value] if kind == "files" else value
        named = isinstance(value, FileName) or (kind in ("file", "files") and isinstance(value, str))
        if not named or value.startswith(("file://", "sha256:")):
            return value
        if self._hasher is None:
            self._problem("NoFit", step.text, f"no skill here gives the file {value}", "name it by its URI")
            return value
        on = step.found_on or step.on
        original = Step(self._hasher, {"file": str(value)}, on=on, id="original", when=step.when)
        return {"ref": f"{self.add(original, sources).id}/file"}

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


def _stem(step: Step, args: Mapping[str, Any], absent: frozenset[str]) -> str:
    """`orders` of rows that were read from `shop/orders.csv`."""
    properties = step.skill.params.get("properties", {})
    files = [one for name, one in args.items() if properties.get(name, {}).get("type") == "file"]
    if len(files) != 1 or not isinstance(files[0], str) or "rows" in absent:
        return ""
    return files[0].rpartition("/")[2].partition(".")[0] if "rows" in step.skill.result.get("properties", {}) else ""


def _either(value: Any, source: Source) -> Any:
    """The value with each reference to the source made one to whichever of the two was done."""
    if isinstance(value, list):
        return [_either(one, source) for one in value]
    if not isinstance(value, dict):
        return value
    ref = value.get("ref")
    if len(value) == 1 and isinstance(ref, str) and ref.partition("/")[0] == source.id and "[]" not in ref:
        return {"ref": [ref, source.other + ref.removeprefix(source.id)]}
    return {key: _either(one, source) for key, one in value.items()}
