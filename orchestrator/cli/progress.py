"""A run as its events tell it: a pure fold from event rows to what a view shows.

Invariant: it shows what the events said and nothing else; an unknown kind changes nothing. It holds no more than a
line per task that was named. It must not know terminals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal

from .forecast import beside

STATES: Final = ("running", "awaiting_approval", "waiting", "unknown", "ready", "pending")
Wants = Literal["everything", "story", "asks"]
"""Which events a view shows: each of them, those that a story is made of, or only what a person has to answer."""
_ASKED: Final = {"replan": "for another way", "review": "to review", "propose": "for more", "next": "what comes next"}
"""What a planner is asked for after its first plan, by the purpose of the call."""
_ANSWERED: Final = {"replan": "re-planned", "review": "reviewed"}
_FINAL: Final = frozenset({"succeeded", "failed", "skipped", "cancelled"})


class Line:
    """One task as a view shows it."""

    __slots__ = ("attempt", "children", "done", "ended", "name", "note", "started", "state", "worker")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = "pending"
        self.worker = ""
        self.attempt = 0
        self.started: float | None = None
        self.ended: float | None = None
        self.note = ""
        self.children = 0
        self.done = 0


class Progress:
    """Feed it rows in order. Of a `large` run it is told failures only, and the counts of all tasks by `count`."""

    def __init__(self) -> None:
        self.large = False
        self._counted: Counter[str] = Counter()
        self.lines: dict[str, Line] = {}
        self.began: float | None = None
        self.now = 0.0
        self.state = "planning"
        self.more = 0
        self.planner = ""
        """Who is planning at this moment."""
        self.planned = ""
        """Who planned the run, and how that ended."""
        self._calls: dict[int, str] = {}
        self.asked: dict[str, str] = {}
        """Tasks that wait for a person: what for."""

    def counts(self) -> Counter[str]:
        return self._counted if self.large else Counter(line.state for line in self.lines.values())

    def count(self, counted: Mapping[str, int]) -> None:
        """The tasks of a large run by state, as the server counts them."""
        self._counted = Counter({state: number for state, number in counted.items() if number})
        self.more = max(0, sum(counted.values()) - len(self.lines))

    def feed(self, row: Mapping[str, Any]) -> str:
        """Take one event row; returns what it is worth saying."""
        self.now = row["at"]
        if self.began is None:
            self.began = self.now
        kind, name = row["kind"], row.get("task")
        if kind == "patch_accepted":
            return self._accepted(row)
        if kind == "patch_refused":
            problems = row.get("problems") or []
            return f"an edit of {row.get('author', 'somebody')} was refused ({len(problems)} problems)"
        if kind in ("planner_call_opened", "planner_call_closed"):
            return self._planning(kind, row)
        if kind == "run_settled":
            self.state = str(row["state"])
            return ""
        if kind == "run_foreseen":
            return beside(row) + (": it will hardly meet its deadline" if row.get("late") else "")
        if kind in ("run_paused", "run_resumed"):
            self.state = "paused" if kind == "run_paused" else "open"
            return f"{'paused' if kind == 'run_paused' else 'resumed'} by {row.get('by', 'somebody')}"
        if name is None:
            return ""
        tell = _TASK.get(kind)
        if tell is None:
            return ""
        child = "." in name
        line = self.lines.get(name) or Line(name)
        if not child:
            self.lines.setdefault(name, line)
        said = tell(self, line, row)
        if child:
            return self._child(name, kind, row) if said else ""
        return said

    def _accepted(self, row: Mapping[str, Any]) -> str:
        if not self.large:
            for name in row.get("ids", ()):
                self.lines.setdefault(name, Line(name))
            self.more = max(0, self.more + int(row.get("tasks", 0)) - len(row.get("ids", ())))
        self.state = "open"
        if row.get("version", 1) == 1 and not row.get("why"):
            return ""
        why = f": {row['why']}" if row.get("why") else ""
        return f"version {row.get('version')} by {row.get('author', 'somebody')}{why}"

    def _planning(self, kind: str, row: Mapping[str, Any]) -> str:
        number, who = int(row.get("call", 0)), str(row.get("planner") or "the planner")
        if kind == "planner_call_opened":
            purpose = self._calls[number] = str(row.get("purpose", "plan"))
            self.planner = who
            if purpose == "plan":
                return f"planning with {who}" if who != "catalog" else ""
            return f"{who} is asked {_ASKED.get(purpose, 'again')}" + (f": {row['why']}" if row.get("why") else "")
        purpose, self.planner = self._calls.pop(number, "plan"), ""
        message, outcome, first = str(row.get("message") or ""), row.get("outcome"), purpose == "plan"
        if outcome == "complete":
            said = f"{_ANSWERED.get(purpose, 'planned')} by {message or who}"
        else:
            said = f"{who} has no whole plan ({outcome}): {message.partition(chr(10))[0]}"
        self.planned = said if first else self.planned
        return said

    def _child(self, name: str, kind: str, row: Mapping[str, Any]) -> str:
        """Children are counted at their parent, and only their failures told."""
        parent = self.lines.get(name.partition(".")[0])
        if parent is not None and kind == "task_settled":
            parent.done += 1
        return f"{name} failed: {row.get('message') or row.get('code')}" if row.get("state") == "failed" else ""

    # One method per kind of task event: change the line, return the sentence.

    def _dispatched(self, line: Line, row: Mapping[str, Any]) -> str:
        line.state = "running"
        line.worker = str(row.get("worker", ""))
        line.attempt = int(row.get("attempt", 1))
        line.started = row["at"]
        if row.get("hedge"):
            return f"{line.name}: a second attempt beside the slow one, on {line.worker}"
        return f"{line.name} started on {line.worker}" if line.attempt == 1 else ""

    def _expanded(self, line: Line, row: Mapping[str, Any]) -> str:
        line.state = "running"
        line.started = line.started or row["at"]
        chunk = int(row.get("chunk") or 1)
        line.children = -(-int(row.get("items", 0)) // chunk)
        return f"{line.name} runs once for each of {row.get('items', 0)}"

    def _requeued(self, line: Line, row: Mapping[str, Any]) -> str:
        line.state = "ready"
        line.note = str(row.get("why", ""))
        return f"{line.name} will be tried again: {line.note}"

    def _settled(self, line: Line, row: Mapping[str, Any]) -> str:
        line.state = str(row["state"])
        line.ended = row["at"]
        line.note = str(row.get("message", ""))
        self.asked.pop(line.name, None)
        where = f" on {line.worker}" if line.worker else ""
        if line.state == "failed":
            return f"{line.name} failed{where}: {line.note or row.get('code', '')}"
        took = f" in {line.ended - line.started:.2f} s" if line.started is not None else ""
        why = f": {line.note}" if line.note else ""
        return f"{line.name} {line.state}{where}{took}{why}"

    def _unknown(self, line: Line, row: Mapping[str, Any]) -> str:
        line.state = "unknown"
        self.asked[line.name] = "its effect may have happened: asterism resolve"
        return f"{line.name} was lost after its effect began; only a person can say what happened"

    def _asked_approval(self, line: Line, row: Mapping[str, Any]) -> str:
        line.state = "awaiting_approval"
        line.note = str(row.get("why", ""))
        self.asked[line.name] = line.note or "approval"
        return f"{line.name} waits for approval: {line.note}" if line.note else f"{line.name} waits for approval"

    def _given(self, line: Line, row: Mapping[str, Any]) -> str:
        line.state, line.note = "ready", ""
        self.asked.pop(line.name, None)
        return f"{line.name} was approved by {row.get('by', 'somebody')}"

    def _refused(self, line: Line, row: Mapping[str, Any]) -> str:
        self.asked.pop(line.name, None)
        return f"{line.name} was rejected by {row.get('by', 'somebody')}"

    def _waited(self, line: Line, row: Mapping[str, Any]) -> str:
        line.state = "waiting"
        line.note = str(row.get("detail", ""))
        if row.get("what") != "ask":
            return ""
        self.asked[line.name] = line.note or "an answer"
        return f"{line.name} asks: {line.note}"

    def _resumed(self, line: Line, row: Mapping[str, Any]) -> str:
        line.state, line.note = "running", ""
        self.asked.pop(line.name, None)
        return ""


_TASK: Final = {
    "attempt_dispatched": Progress._dispatched,
    "map_expanded": Progress._expanded,
    "task_requeued": Progress._requeued,
    "task_settled": Progress._settled,
    "task_unknown": Progress._unknown,
    "approval_asked": Progress._asked_approval,
    "approval_given": Progress._given,
    "approval_refused": Progress._refused,
    "task_waited": Progress._waited,
    "task_resumed": Progress._resumed,
}
