"""A simulated model in the simulated world: it writes plans token by token on the virtual clock.

Real: the decoder and the compiler that read it, the core, the worker machine and the link. Simulated: the model's pace,
and network, disk and processes (bench.simulator). Invariant: no task exists for the core before the text up to its
closing brace was written. It must not know what a plan is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.lifecycle import Closed
from planner.catalog import Catalog
from planner.reply import Reply
from planner.view import PlanView
from protocol.builtin import BUILTINS

from ..simulated_skill import profile_of
from ..simulator import Simulator
from .makespan import Played
from .sample import COMPACT, Document, task_ends, text_of

TOKEN: Final = 4
"""Characters a token."""
TOKEN_S: Final = 0.004
_MANY: Final = 64
"""More than any plan is wide: helpers without limit."""
_VIEW: Final = PlanView("", skills=BUILTINS)
_CATALOG: Final = Catalog(BUILTINS)


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
        text = text_of(self._plan, COMPACT)
        ends = dict(zip(task_ends(text, self._plan), (task["id"] for task in self._plan["tasks"]), strict=True))
        reply = Reply(_VIEW, _CATALOG)
        at, done = self.now, 0
        for token in tokens(text):
            at, done = at + self._token_s, done + len(token)
            self._written_s |= {name: at for end, name in ends.items() if done - len(token) < end <= done}
            if self._streamed:
                self._later(at, command, reply, token)
        self._document_at = at
        if not self._streamed:
            self._later(at, command, reply, text)
        outcome = s.PlanFinished(command.run, command.call, "complete", "", 0, len(text) // TOKEN)
        self._at_here(at, lambda: self.handle(outcome))

    def _later(self, at: float, command: c.StartPlanner, reply: Reply, text: str) -> None:
        def hear() -> None:
            patch = reply.feed(text)
            if patch is not None:
                self.handle(s.PatchProposed(0, command.run, patch, command.call))

        self._at_here(at, hear)
