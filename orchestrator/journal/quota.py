"""How much log text a task and a run may keep: 10 MB a task, 200 MB a run, then one marker line.

Pure: bytes in, decisions out. The journal that owns it says how much was already stored before a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from .journal import LogLine

TASK_BYTES: Final = 10_000_000
RUN_BYTES: Final = 200_000_000
MARKER_STREAM: Final = "asterism"


class LogQuota:
    """`stored(run)` gives the bytes kept per task of a run, asked once per run."""

    def __init__(
        self,
        stored: Callable[[int], dict[int, int]],
        task_bytes: int = TASK_BYTES,
        run_bytes: int = RUN_BYTES,
    ) -> None:
        self._stored = stored
        self._task_bytes = task_bytes
        self._run_bytes = run_bytes
        self._tasks: dict[int, dict[int, int]] = {}
        self._runs: dict[int, int] = {}

    def admit(self, lines: Iterable[LogLine]) -> list[LogLine]:
        """The lines to keep, with a marker in place of the first one that is over a cap."""
        kept: list[LogLine] = []
        for line in lines:
            tasks = self._tasks.get(line.run)
            if tasks is None:
                tasks = self._tasks[line.run] = self._stored(line.run)
                self._runs[line.run] = sum(tasks.values())
            used, run_used = tasks.get(line.task, 0), self._runs[line.run]
            size = len(line.text.encode("utf-8", "surrogatepass"))
            over = ""
            if used + size > self._task_bytes:
                over = f"log of this task cut at {self._task_bytes:,} bytes"
            elif run_used + size > self._run_bytes:
                over = f"log of this run cut at {self._run_bytes:,} bytes"
            if not over:
                kept.append(line)
            elif used <= self._task_bytes:
                kept.append(msgspec.structs.replace(line, stream=MARKER_STREAM, text=over))
                size = self._task_bytes + 1 - used  # over for good: the marker comes once
            else:
                continue
            tasks[line.task] = used + size
            self._runs[line.run] = run_used + (size if not over else 0)
        return kept

    def forget(self, runs: Iterable[int]) -> None:
        for run in runs:
            self._tasks.pop(run, None)
            self._runs.pop(run, None)
