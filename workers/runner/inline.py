"""Runs built-ins marked inline on the daemon's own loop: they never block, so thousands a second cost no process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from protocol.errors import NotAllowed, NotFound
from protocol.frame import Assign, WorkSpec

from .job import Callee, Job, prepare

Find = Callable[[str], Callee | None]


class InlineRunner:
    """`find` looks a skill up in the registry; only skills that the registry itself marks inline are run."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._known: dict[str, Callee] = {}

    def start(self, assign: Assign, work: WorkSpec, locate: Callable[[str], str]) -> bytes | Awaitable[bytes]:
        """The value as JSON at once, or an awaitable of it where the skill has to wait.

        Raises: what the skill or its arguments raise.
        """
        entry = self._known.get(work.skill)
        if entry is None:
            found = self._find(work.skill)
            if found is None or not found.spec.inline:
                raise NotFound(f"{work.skill} is no inline skill")
            entry = self._known[work.skill] = found
        job = prepare(entry, assign, work, locate)
        if entry.is_async:
            return self._await(job)
        return job.value([job.call(**entry.bind(args, None, _no_file)) for args in job.arguments], _no_uri)

    async def _await(self, job: Job) -> bytes:
        results = [await job.call(**job.bind(args, None, None)) for args in job.arguments]
        return job.value(results, _no_uri)


def _no_file(text: str) -> Any:
    raise NotAllowed("an inline skill opens no files")


def _no_uri(path: str) -> str:
    raise NotAllowed("an inline skill makes no files")
