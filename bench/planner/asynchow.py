"""AsyncHow (Lin et al., 2024): everyday plans with durations, order and the optimal time with unlimited helpers.

Read from a file of the user's, never shipped: `plans.jsonl.gz`, a row a plan. Each becomes a plan document in which a
step is a `flow.sleep` and an edge a reference. Invariant: pure but for reading; a file that is not of this form is
refused by row. It must not know what plays a plan.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.cycle import find_cycle
from protocol.errors import UsageError

from .sample import Document

FILE: Final = "plans.jsonl.gz"
_PLACES: Final = ("asynchow", "")


class Case(msgspec.Struct, frozen=True):
    """One plan. `tasks`: seconds by name; `edges`: (before, after); `gold_seconds`: as the authors give it."""

    id: str
    kind: str
    tasks: dict[str, float]
    edges: tuple[tuple[str, str], ...]
    gold_seconds: float

    def before(self) -> dict[str, list[str]]:
        """What each task waits for. In the order in which a writer puts them: by number, each after what it needs."""
        upstream: dict[str, list[str]] = {name: [] for name in sorted(self.tasks, key=_number)}
        for first, then in self.edges:
            upstream[then].append(first)
        rows: dict[str, list[str]] = {}
        while len(rows) < len(upstream):
            name = next(one for one in upstream if one not in rows and all(up in rows for up in upstream[one]))
            rows[name] = upstream[name]
        return rows


def read_cases(folder: Path) -> list[Case]:
    """Every plan of the file in `folder` or in its `asynchow`. Raises: UsageError that says which row is wrong."""
    found = next((path for place in _PLACES if (path := folder / place / FILE).is_file()), None)
    if found is None:
        raise UsageError(f"there is no {FILE} in {folder}", hint="see docs/how-to/measure.md for its form")
    with gzip.open(found, "rb") as file:
        return list(_read(file.read().splitlines(), found))


def _read(lines: list[bytes], path: Path) -> Iterator[Case]:
    for number, line in enumerate(lines, 1):
        try:
            case = msgspec.json.decode(line, type=Case)
        except msgspec.MsgspecError as error:
            raise UsageError(f"{path}, row {number}: {error}") from None
        strange = {name for edge in case.edges for name in edge} - case.tasks.keys()
        upstream = {name: [up for up, down in case.edges if down == name] for name in case.tasks}
        if not case.tasks or strange or find_cycle(upstream) or min(case.tasks.values()) < 0:
            raise UsageError(
                f"{path}, row {number}: {case.id} is no plan: no task, no such task, a cycle, or back in time"
            )
        yield case


def bound_s(case: Case, scale: float = 1.0, written_s: Mapping[str, float] | None = None) -> float:
    """When the last task ends if nothing costs time and nobody is busy: no task before it was `written_s`."""
    ends: dict[str, float] = {}
    for name, upstream in case.before().items():
        known = written_s[name] if written_s is not None else 0.0
        ends[name] = max([known, *(ends[up] for up in upstream)]) + case.tasks[name] * scale
    return max(ends.values())


def document(case: Case, scale: float) -> Document:
    """The plan of one case, a second of it in `scale` seconds. A value is one number, however deep the graph."""
    tasks = []
    for name, upstream in case.before().items():
        value: Any = [{"ref": f"{up}/value/0"} for up in upstream] or [0]
        seconds = round(case.tasks[name] * scale, 6)
        tasks.append({"id": name, "skill": "flow.sleep", "args": {"seconds": seconds, "value": value}})
    return {"tasks": tasks, "outputs": []}


def _number(name: str) -> tuple[int, str]:
    digits = re.sub(r"\D", "", name)
    return (int(digits) if digits else 0, name)
