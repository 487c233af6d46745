"""What a run keeps of its open planner calls, and of what plan.next tasks have had planned. Data only, durable."""

from __future__ import annotations

import msgspec

from protocol.task import Output


class Wish(msgspec.Struct, frozen=True):
    """What a waiting task wants planned: the detail of its state, as JSON."""

    goal: str
    rounds: int = 1
    quoted: bool = False
    """The goal is a value of the run: data for the planner, as what a running task asks for."""

    @classmethod
    def read(cls, detail: str) -> Wish:
        return msgspec.json.decode(detail, type=cls)

    def detail(self) -> str:
        return msgspec.json.encode(self).decode()


class SubPlan(msgspec.Struct, array_like=True):
    """What a plan.next task has had planned: `tasks` are roots of the graph, named `PREFIX.ID`, which belong to it."""

    prefix: str
    most: int
    """Rounds it may have; `rounds` have begun."""
    rounds: int = 0
    tasks: list[int] = []
    outputs: tuple[Output, ...] = ()
    ended: tuple[str, str] = ("", "")
    """How its last planner call ended: outcome and message."""
    added: int = 0
    """How many tasks and edits the last call has made."""
    open: int = 0
    """Derived: tasks of it that are not final."""


class PlannerCall(msgspec.Struct, array_like=True):
    """An open call of a planner. `claim` is what a re-plan holds (0: none); for `task`, `number`, `k` and `failed` see
    PlannerCallOpened. `edits`, `added` and `versions` are what it has made so far."""

    call: int
    kind: str
    claim: int
    deadline: float
    why: str = ""
    started: float = 0.0
    task: int = -1
    number: int = 0
    k: int = 0
    failed: dict[int, bytes] = {}
    edits: int = 0
    added: list[int] = []
    versions: list[int] = []
    changed: bool = False
    """It has written or removed a task: the graph is another one."""
