"""The lossy lane: log lines and progress of running attempts, on their way to the side table of the journal.

A worker may speak only of attempts that were dispatched to it; anything else is dropped and counted. Nothing here
reaches the core.
"""

from __future__ import annotations

from typing import Final

from protocol.frame import Progress

from ..journal.journal import LogLine
from .engine import Engine

LINE_CHARS: Final = 8192


class ProgressDesk:
    """Give `take` to the gateway."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def take(self, worker: int, item: Progress) -> None:
        """Keep one line; a progress body (JSON) is a line of the stream `progress`."""
        run, task, number = item.attempt.run, item.attempt.task, item.attempt.number
        if not self._admissible(worker, run, task, number):
            self._engine.instrument.count("progress_refused")
            return
        text = item.body.decode("utf-8", "replace")[:LINE_CHARS]
        stream = item.stream[:32] or ("stdout" if item.kind == "log" else "progress")
        self._engine.log(LogLine(run, task, number, item.seq, self._engine.clock(), stream, text))

    def _admissible(self, worker: int, run: int, task: int, number: int) -> bool:
        found = self._engine.machine.state.runs.get(run)
        if found is None or not 0 <= task < len(found.tasks):
            return False
        attempt = found.tasks[task].attempt(number)
        return attempt is not None and attempt.worker == worker
