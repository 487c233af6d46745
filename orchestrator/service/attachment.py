"""Runs that live with their watcher: an attached run is cancelled 10 s after nobody watches it any more.

A run is attached when it was submitted without `detach`, until somebody detaches it. After a restart of the server its
watcher has a minute to come back, and a run whose `here` is connected is left alone: its worker would be gone if nobody
had wanted it to stay. A detached run's temporary workers are dismissed once none of their runs is open, and so are
those whose client was killed, when they have been away for a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from ..core.state import State
from ..core.stimulus import CancelRequested
from ..engine.engine import Engine
from .lookup import is_open

LEAVE_S: Final = 10.0
RETURN_S: Final = 60.0
BY: Final = "server"


class Attachments:
    """Counts the watchers of every run; `run` in the server's task group acts on the silence."""

    def __init__(self, engine: Engine, state: State, dismiss: Callable[[int], None], leave_s: float = LEAVE_S) -> None:
        self._engine = engine
        self._state = state
        self._dismiss = dismiss
        self._leave_s = leave_s
        self._watchers: dict[int, int] = {}
        self._left_at: dict[int, float] = {}
        self._returning: set[int] = set()
        self._kept: set[str] = set()
        self._away_since: dict[int, float] = {}
        self._news = anyio.Event()
        for run in state.runs.values():
            if is_open(run) and run.detached and run.home:
                self._kept.add(run.home)
            elif is_open(run) and run.settings.attached and run.home:
                self._left_at[run.ix] = anyio.current_time() + RETURN_S - leave_s
                self._returning.add(run.ix)

    @property
    def watchers(self) -> int:
        return sum(self._watchers.values())

    def attach(self, run: int) -> None:
        """A run was submitted: its watcher has so long to come."""
        if run not in self._watchers:
            self._leave(run)

    def detached(self, run: int) -> None:
        """It goes on when nobody watches (RunDetached)."""
        self._left_at.pop(run, None)
        home = self._state.runs[run].home
        if home:
            self._kept.add(home)
            self._news.set()

    @contextmanager
    def watching(self, run: int) -> Iterator[None]:
        """Somebody watches the run while inside."""
        self._watchers[run] = self._watchers.get(run, 0) + 1
        self._left_at.pop(run, None)
        self._returning.discard(run)
        try:
            yield
        finally:
            self._watchers[run] -= 1
            if not self._watchers[run]:
                del self._watchers[run]
                self._leave(run)

    async def run(self) -> None:
        """Cancel what was left alone for too long, and let kept workers go."""
        while True:
            await self._until(self._next())
            now = anyio.current_time()
            for run, at in list(self._left_at.items()):
                if at + self._leave_s <= now:
                    del self._left_at[run]
                    if self._is_attached(run) and not (run in self._returning and self._has_home(run)):
                        why = f"its watcher has been gone for {self._leave_s:g} s"
                        self._engine.post(CancelRequested(0, run, "", BY, why))
            self._dismiss_kept()
            self._dismiss_lost()

    def _leave(self, run: int) -> None:
        if self._is_attached(run):
            self._left_at[run] = anyio.current_time()
            self._news.set()

    def _is_attached(self, run: int) -> bool:
        found = self._state.runs.get(run)
        return found is not None and is_open(found) and found.settings.attached and not found.detached

    def _has_home(self, run: int) -> bool:
        home = self._state.runs[run].home
        return any(session.name == home for session in self._engine.machine.fleet.sessions.values())

    def _next(self) -> float | None:
        """When to look again."""
        due = min(self._left_at.values(), default=None)
        if due is not None:
            due += self._leave_s
        if self._kept or any(record.serves and not record.gone for record in self._state.workers.values()):
            later = anyio.current_time() + self._leave_s
            due = later if due is None else min(due, later)
        return due

    async def _until(self, at: float | None) -> None:
        if at is None:
            await self._news.wait()
        else:
            with anyio.move_on_at(at):
                await self._news.wait()
        self._news = anyio.Event()

    def _dismiss_lost(self) -> None:
        """Temporary workers that nobody will bring back."""
        now, sessions = anyio.current_time(), self._engine.machine.fleet.sessions
        needed = {run.home for run in self._state.runs.values() if is_open(run)}
        away = {
            record.ix
            for record in self._state.workers.values()
            if record.serves and not record.gone and record.ix not in sessions and record.serves not in needed
        }
        self._away_since = {worker: self._away_since.get(worker, now) for worker in away}
        for worker, since in list(self._away_since.items()):
            if now - since >= RETURN_S:
                del self._away_since[worker]
                self._dismiss(worker)

    def _dismiss_kept(self) -> None:
        for home in list(self._kept):
            if any(run.home == home and is_open(run) for run in self._state.runs.values()):
                continue
            self._kept.discard(home)
            for record in list(self._state.workers.values()):
                if not record.gone and home in (record.name, record.serves):
                    self._dismiss(record.ix)
