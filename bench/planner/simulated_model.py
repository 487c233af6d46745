"""A simulated model in the simulated world: it writes plans token by token on the virtual clock.

Real: the decoder that reads it, the compiler, the core, the worker machine and the link. Simulated: the model's pace,
and network, disk and processes (bench.simulator). Invariant: no task exists for the core before the text up to its
closing brace was written. It must not know what a plan is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.lifecycle import Closed
from planner.catalog import Catalog
from planner.compiler import check_task
from planner.decoder import TASKS, Decoder
from protocol.builtin import BUILTINS
from protocol.errors import PlanRefused
from protocol.patch import Patch
from protocol.plan import parse_task
from protocol.task import TaskSpec

from ..simulated_skill import profile_of
from ..simulator import Simulator
from .makespan import Played
from .sample import Document, task_ends, text_of

TOKEN: Final = 4
"""Characters a token."""
TOKEN_S: Final = 0.004
_MANY: Final = 64
"""More than any plan is wide: helpers without limit."""


def tokens(text: str) -> Iterator[str]:
    return (text[at : at + TOKEN] for at in range(0, len(text), TOKEN))


class SimulatedModel(Simulator):
    """One server, one worker with room for everything; plans are played one after the other."""

    def __init__(self, *, token_s: float = TOKEN_S) -> None:
        self._token_s = token_s
        self._plan: Document = {}
        self._streamed = True
        self._written_s: dict[str, float] = {}
        self._document_at = 0.0
        super().__init__(workers=[profile_of(_MANY)], check=False)

    def play(self, plan: Document, *, streamed: bool) -> Played:
        """Ask for a plan, have this one written, wait for its end. Not `streamed`: read when it is complete."""
        self._plan, self._streamed, self._written_s = plan, streamed, {}
        began = self.now
        run = self.state.runs[self.request()]
        if not self.run_until(self.now + 3600.0, lambda: type(run.state) is Closed):
            raise AssertionError(self.story())
        written = {name: at - began for name, at in self._written_s.items()}
        succeeded = set(self.states(run.ix).values()) == {"succeeded"}
        return Played(written, self._document_at - began, run.settled_at - began, succeeded)

    def planned(self, command: c.StartPlanner) -> None:
        text = text_of(self._plan)
        ends = dict(zip(task_ends(text, self._plan), (task["id"] for task in self._plan["tasks"]), strict=True))
        reading = _Reading()
        at, done = self.now, 0
        for token in tokens(text):
            at, done = at + self._token_s, done + len(token)
            self._written_s |= {name: at for end, name in ends.items() if done - len(token) < end <= done}
            if self._streamed:
                self._later(at, command, reading, token)
        self._document_at = at
        if not self._streamed:
            self._later(at, command, reading, text)
        outcome = s.PlanFinished(command.run, command.call, "complete", "", 0, len(text) // TOKEN)
        self._at_here(at, lambda: self.handle(outcome))

    def _later(self, at: float, command: c.StartPlanner, reading: _Reading, text: str) -> None:
        def hear() -> None:
            tasks = reading.feed(text)
            if tasks:
                self.handle(s.PatchProposed(0, command.run, Patch("planner", tuple(tasks)), command.call))

        self._at_here(at, hear)


class _Reading:
    def __init__(self) -> None:
        self._decoder = Decoder()
        self._catalog = Catalog(BUILTINS)
        self._known: dict[str, TaskSpec] = {}

    def feed(self, text: str) -> Sequence[TaskSpec]:
        found = []
        for piece in self._decoder.feed(text):
            if piece.key == TASKS and piece.problem is None:
                spec = parse_task(piece.value)
                problems = check_task(spec, self._catalog, self._known, (), piece.where)
                if problems:
                    raise PlanRefused("a plan of the bench", problems=problems)
                self._known[spec.id] = spec
                found.append(spec)
        return found
