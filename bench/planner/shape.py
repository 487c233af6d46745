"""Plans of known shape whose tools take as long as their writing: what streaming can win, and where it can't.

Tasks are `flow.sleep`; the longest way through the graph takes as long as the model writes. Invariant: pure. It must
not know what plays them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .sample import COMPACT, Document, task_ends, text_of
from .simulated_model import TOKEN

TASKS: Final = 16
_SIDE: Final = 4

Upstream = Callable[[int], list[int]]

SHAPES: Final[Mapping[str, tuple[Upstream, int]]] = {
    "layers": (lambda at: [at - _SIDE, (at // _SIDE - 1) * _SIDE + (at + 1) % _SIDE] if at >= _SIDE else [], _SIDE),
    "lanes": (lambda at: [at - 1] if at % _SIDE else [], _SIDE),
    "chain": (lambda at: [at - 1] if at else [], TASKS),
}
"""By name: what the task at a place waits for, and how many are on the longest way. layers: four of four, each waits
for two of the layer before; lanes: four independent chains of four, one after the other; chain: one of sixteen."""


def shaped(name: str, token_s: float) -> tuple[Document, float]:
    """The plan, and how long a task of it takes."""
    upstream, deep = SHAPES[name]
    seconds = 0.1
    for _ in range(3):  # what a duration is written with is part of what is written
        plan = _plan(upstream, seconds)
        seconds = round(-(-len(text_of(plan, COMPACT)) // TOKEN) * token_s / deep, 4)
    return plan, plan["tasks"][0]["args"]["seconds"]


def bound_s(name: str, task_s: float, token_s: float, *, streamed: bool) -> float:
    """When the last task ends if nothing but writing and working takes time."""
    upstream, _ = SHAPES[name]
    plan = _plan(upstream, task_s)
    text = text_of(plan, COMPACT)
    ends: list[float] = []
    for at, end in enumerate(task_ends(text, plan)):
        known = -(-(end if streamed else len(text)) // TOKEN) * token_s
        ends.append(max([known, *(ends[up] for up in upstream(at))]) + task_s)
    return max(ends)


def _plan(upstream: Upstream, seconds: float) -> Document:
    rows = []
    for at in range(TASKS):
        value: Any = [{"ref": f"step-{up}/value/0"} for up in upstream(at)] or [0]
        rows.append({"id": f"step-{at}", "skill": "flow.sleep", "args": {"seconds": seconds, "value": value}})
    return {"tasks": rows, "outputs": []}
