"""The same graph with nothing beside anything: what parallel work is measured against.

Each task also waits until the one before it has ended, however it did, and maps and `on: ["all"]` run one element at a
time; nothing else changes, so the results are the same. What a skill spawns at once is not bridled: that can only make
the sequential run quicker than it should be. It must not know fleets.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec

from protocol.plan import parse_task
from protocol.task import Ref, TaskSpec, references

from ..planner.truth import needs
from .case import Case


def sequential(case: Case) -> Case:
    """The case with its gold plan and its scripted replies made sequential."""
    said = [msgspec.structs.replace(one, reply=one.reply and in_turn(one.reply)) for one in case.replans]
    return msgspec.structs.replace(case, plan=in_turn(case.plan), replans=tuple(said))


def in_turn(document: Mapping[str, Any]) -> dict[str, Any]:
    """A plan or a patch whose new tasks run one after the other, in the order in which they stand there."""
    tasks: list[dict[str, Any]] = []
    for task in document.get("tasks", ()):
        tasks.append(_behind(task, str(tasks[-1]["id"]) if tasks else ""))
    return {**document, **({"tasks": tasks} if tasks else {})}


def is_chain(document: Mapping[str, Any]) -> bool:
    """Whether each task of a plan needs the one before it as it is; what a skill spawns may still run side by side."""
    tasks = [dict(task) for task in document.get("tasks", ())]
    specs = [*map(parse_task, tasks)]
    wide = any("all" in task.get("on", ()) for task in tasks) or any(map(_each, specs))
    return not wide and all(first.id in needs(then) for first, then in pairwise(specs))


def _each(spec: TaskSpec) -> set[str]:
    """The tasks whose elements it takes one by one."""
    return {one.source for one in references(msgspec.json.decode(spec.args)) if isinstance(one, Ref) and one.each}


def _behind(task: Mapping[str, Any], before: str) -> dict[str, Any]:
    changed = {**task, "map": {**task.get("map", {}), "limit": 1}}
    spec = parse_task(dict(task))
    if before in _each(spec):
        changed["after"] = [*task.get("after", ()), before]  # all of it, not just the element at hand
    elif before and before not in needs(spec):
        changed["when"] = [*task.get("when", ()), {"ref": before, "is": "finished"}]
    return changed
