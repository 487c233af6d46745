"""Ids of other systems made legal: `Load Data!` becomes `load-data`, the old name stays as the label.

Invariant: the renaming is one to one, and every place that names a task follows it (references, conditions, edges,
outputs). It works on a decoded document before anything is checked, so it leaves what it doesn't understand alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from .ids import TASK_ID
from .task import INPUT

_OTHER: Final = re.compile(r"[^a-z0-9_]+")


def legalise(document: dict[str, Any]) -> dict[str, Any]:
    """A copy of the document whose task ids are legal; ids that already are keep their names."""
    tasks = document.get("tasks")
    if not isinstance(tasks, list):
        return document
    old = [task["id"] for task in tasks if isinstance(task, dict) and isinstance(task.get("id"), str)]
    taken = {name for name in old if _legal(name)}
    names: dict[str, str] = {}
    for name in old:
        if not _legal(name) and name not in names:
            names[name] = _fresh(name, taken)
            taken.add(names[name])
    if not names:
        return document
    rename = _renamer(names)
    found = {**document, "tasks": [_task(task, names, rename) for task in tasks]}
    if isinstance(document.get("outputs"), list):
        found["outputs"] = [_output(output, rename) for output in document["outputs"]]
    return found


def _legal(name: str) -> bool:
    return name != INPUT and TASK_ID.fullmatch(name) is not None


def _fresh(name: str, taken: set[str]) -> str:
    stem = _OTHER.sub("-", name.lower()).strip("-_")
    if not stem or not stem[0].isalpha():
        stem = f"t-{stem}".strip("-")
    stem = stem[:64].rstrip("-")
    if stem == INPUT:
        stem = "input-task"
    found, k = stem, 1
    while found in taken:
        k += 1
        found = f"{stem[: 63 - len(str(k))]}-{k}"
    return found


def _renamer(names: dict[str, str]) -> Callable[[str], str]:
    """Replaces the id at the start of a reference; the longest that is followed by a border wins."""
    by_length = sorted(names, key=len, reverse=True)
    pattern = re.compile("(?:" + "|".join(map(re.escape, by_length)) + r")(?=/|\[\]|\Z)", re.DOTALL)

    def rename(text: str) -> str:
        match = pattern.match(text)
        return names[match[0]] + text[match.end() :] if match is not None else text

    return rename


def _task(task: Any, names: dict[str, str], rename: Callable[[str], str]) -> Any:
    if not isinstance(task, dict):
        return task
    found = dict(task)
    if found.get("id") in names if isinstance(found.get("id"), str) else False:
        found["id"] = names[task["id"]]
        found.setdefault("label", task["id"])
    for key in ("args", "on"):
        if key in found:
            found[key] = _values(found[key], rename)
    if isinstance(found.get("when"), list):
        found["when"] = [_output(line, rename) for line in found["when"]]
    if isinstance(found.get("after"), list):
        found["after"] = [names.get(name, name) if isinstance(name, str) else name for name in found["after"]]
    return found


def _values(node: Any, rename: Callable[[str], str]) -> Any:
    """A document is at most 64 levels deep, so recursion is safe here."""
    if isinstance(node, dict):
        if set(node) == {"ref"}:
            return _output(node, rename)
        if set(node) == {"literal"}:
            return node
        return {key: _values(item, rename) for key, item in node.items()}
    if isinstance(node, list):
        return [_values(item, rename) for item in node]
    return node


def _output(node: Any, rename: Callable[[str], str]) -> Any:
    """An object whose `ref` is a reference, or a list of them."""
    if not isinstance(node, dict) or "ref" not in node:
        return node
    ref = node["ref"]
    if isinstance(ref, str):
        return {**node, "ref": rename(ref)}
    if isinstance(ref, list):
        return {**node, "ref": [rename(one) if isinstance(one, str) else one for one in ref]}
    return node
