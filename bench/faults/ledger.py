"""What really ran: the executions that skills signed for in one file, read by the bench alone.

Invariant: append-only; a line that is not whole yet is not read. It must not know journals, reports or workers' links.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

import anyio
import msgspec

T = TypeVar("T")
_LOOK_S: Final = 0.004


class Execution(msgspec.Struct):
    """One run of a skill's code. `ended` and `acted` are 0 until it ended, or had its effect."""

    task: str
    attempt: int
    token: str
    worker: str
    pid: int
    began: float
    ended: float = 0.0
    acted: float = 0.0


class Ledger:
    """The ledger of one run; its times are Unix times of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._found: dict[str, Execution] = {}

    def executions(self) -> list[Execution]:
        """All of them, in the order in which they began."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                fresh = file.read()
        except FileNotFoundError:
            return []
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            self._note(line)
        return list(self._found.values())

    def _note(self, line: str) -> None:
        what, token, attempt, worker, pid, at = line.split()
        if what == "start":
            name, _, number = attempt.partition("/")[2].rpartition("#")
            self._found[token] = Execution(name, int(number), token, worker, int(pid), float(at))
        elif what == "effect":
            self._found[token].acted = float(at)
        else:
            self._found[token].ended = float(at)

    def by_task(self) -> dict[str, list[Execution]]:
        found: dict[str, list[Execution]] = defaultdict(list)
        for one in self.executions():
            found[one.task].append(one)
        return found

    async def until(self, seen: Callable[[dict[str, list[Execution]]], T]) -> T:
        """Wait for what `seen` makes of the executions to be true; its value."""
        while True:
            if found := seen(self.by_task()):
                return found
            await anyio.sleep(_LOOK_S)

    async def begun(self, tasks: Iterable[str]) -> dict[str, Execution]:
        """Wait until each of these tasks has begun; its latest execution."""
        wanted = list(tasks)
        found = await self.until(lambda by: by if all(by.get(name) for name in wanted) else None)
        assert found is not None
        return {name: found[name][-1] for name in wanted}
