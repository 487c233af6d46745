"""When things happened in one run, read from its events: asked, planned, dispatched, run, settled.

Invariant: pure; each time is as the server's clock shows it. It must not know who wrote the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .makespan import Played


class Timeline(msgspec.Struct, frozen=True):
    """`planned`: when the planner's call was over. `began` and `ended` are of the last attempts, by task.

    `written` and `document`: when the model had written each task and all of it, if that is known. `said`: every
    message on the way.
    """

    submitted: float
    planned: float
    settled: float
    state: str
    dispatched: Mapping[str, float]
    began: Mapping[str, float]
    ended: Mapping[str, float]
    said: str = ""
    document: float = 0.0
    written: Mapping[str, float] = {}

    def played(self) -> Played:
        written = {name: at - self.submitted for name, at in self.written.items()}
        document, settled = self.document - self.submitted, self.settled - self.submitted
        return Played(written, document, settled, self.state == "succeeded")

    @property
    def planning_s(self) -> float:
        return self.planned - self.submitted

    @property
    def first_s(self) -> float | None:
        """Until the first dispatch."""
        return min(self.dispatched.values()) - self.submitted if self.dispatched else None

    def busy_s(self) -> float:
        """While the planner was writing: how long at least one task ran."""
        busy, reached = 0.0, self.submitted
        for begin, end in sorted((self.began[name], self.ended[name]) for name in self.ended):
            begin, end = max(begin, reached), min(end, self.planned)
            busy += max(0.0, end - begin)
            reached = max(reached, end)
        return busy


def timeline(rows: Iterable[Mapping[str, Any]]) -> Timeline:
    """All events of a run that is settled."""
    last: dict[str, float] = {}
    dispatched: dict[str, float] = {}
    began: dict[str, float] = {}
    ended: dict[str, float] = {}
    state, said = "", []
    for row in rows:
        kind, at = row["kind"], row["at"]
        last[kind] = at
        if kind == "attempt_dispatched":
            dispatched[row["task"]] = at
        elif kind == "attempt_ended":
            began[row["task"]], ended[row["task"]] = at - row["usage"]["run_s"], at
        elif kind == "run_settled":
            state = row["state"]
        if row.get("message"):
            said.append(str(row["message"]))
    return Timeline(
        submitted=last["run_submitted"],
        planned=last.get("plan_closed", last["run_settled"]),
        settled=last["run_settled"],
        state=state,
        dispatched=dispatched,
        began=began,
        ended=ended,
        said="; ".join(dict.fromkeys(said)),
    )
