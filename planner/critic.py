"""What a plan may be right and still poor at: remarks that are certain, on a plan that has passed the compiler.

A remark refuses nothing; it is shown with the plan, and to a model that mends it. Invariant: pure; what only may be a
fault is not remarked on. It must not know models or runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from protocol.document import canonical
from protocol.errors import Problem
from protocol.task import FirstOf, Output, Ref, TaskSpec, references

from .catalog import Catalog

MOST: Final = 20
NAMED: Final = 5
"""Tasks that a remark names."""


def criticise(tasks: Sequence[TaskSpec], outputs: Collection[Output], catalog: Catalog) -> tuple[Problem, ...]:
    """The remarks on a whole plan, in the order of its tasks."""
    below: dict[str, set[str]] = {task.id: set() for task in tasks}  # who names it
    above = {task.id: {name for name in _named(task) if name in below} for task in tasks}
    for name, sources in above.items():
        for source in sources:
            below[source].add(name)
    wanted = {ref.source for one in outputs for ref in (one.ref.refs if isinstance(one.ref, FirstOf) else (one.ref,))}
    found = [
        *(_unused(tasks, below, wanted, catalog) if outputs else ()),
        *_same(tasks, catalog),
        *_races(tasks, above, catalog),
    ]
    return _folded(found)


def _folded(found: Iterable[Problem]) -> tuple[Problem, ...]:
    """The same said of several tasks is said once, of all of them."""
    places: dict[Problem, list[str]] = {}
    for one in found:
        places.setdefault(msgspec.structs.replace(one, where=""), []).append(one.where)
    return tuple(
        msgspec.structs.replace(
            one, where=", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        )
        for one, names in list(places.items())[:MOST]
    )


def _unused(
    tasks: Sequence[TaskSpec], below: Mapping[str, set[str]], wanted: set[str], catalog: Catalog
) -> Iterable[Problem]:
    """Work that changes nothing and that no output comes from."""
    used = set(wanted)
    for task in reversed(tasks):
        skill = catalog.by_name.get(task.skill)
        if task.id in used or below[task.id] & used or skill is None or skill.effect != "pure" or task.approve:
            used.add(task.id)
    for task in tasks:
        if task.id not in used:
            yield Problem("UnusedTask", task.id, "no output comes from it, and it changes nothing", "leave it out")


def _same(tasks: Sequence[TaskSpec], catalog: Catalog) -> Iterable[Problem]:
    """The same work twice, where it must give the same."""
    seen: dict[bytes, str] = {}
    for task in tasks:
        skill = catalog.by_name.get(task.skill)
        if skill is None or skill.effect != "pure" or not skill.cached or skill.tainted or task.approve:
            continue
        key = canonical(msgspec.to_builtins(msgspec.structs.replace(task, id="", label="")))
        first = seen.setdefault(key, task.id)
        if first != task.id:
            yield Problem("SameTask", task.id, f"it does what {first} does", f"refer to {first}")


def _races(tasks: Sequence[TaskSpec], above: Mapping[str, set[str]], catalog: Catalog) -> Iterable[Problem]:
    """Two tasks that change the same thing, neither of which waits for the other."""
    changed: dict[bytes, str] = {}
    for task in tasks:
        skill = catalog.by_name.get(task.skill)
        if skill is None or skill.effect == "pure" or task.when:
            continue
        args = msgspec.json.decode(task.args)
        places = {name: args[name] for name in skill.sinks if isinstance(args.get(name), str)}
        if not places:
            continue
        key = canonical([task.skill, list(map(str, task.on)), places])
        first = changed.setdefault(key, task.id)
        if first != task.id and first not in _upstream(task.id, above):
            said = f"{first} changes the same, and neither waits for the other"
            yield Problem("WriteRace", task.id, said, f'"when": [{{"ref": "{first}", "is": "succeeded"}}]')


def _upstream(name: str, above: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    stack = [name]
    while stack:
        new = above[stack.pop()] - found
        found |= new
        stack += new
    return found


def _named(task: TaskSpec) -> Iterable[str]:
    yield from task.after
    yield from (line.ref.source for line in task.when)
    yield from (word.source for word in task.on if isinstance(word, Ref))
    for one in references(msgspec.json.decode(task.args)):
        yield from (ref.source for ref in (one.refs if isinstance(one, FirstOf) else (one,)))
