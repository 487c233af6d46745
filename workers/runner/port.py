"""The port of a runner: one way to run a job's calls. One conformance suite runs on all of them."""

from __future__ import annotations

from typing import Protocol

from workers.context import SkillContext

from .job import Desk, Job


class Runner(Protocol):
    """Runs every call of the job in order and gives its value as JSON.

    Raises: whatever the skill raises; the caller turns it into a Failure.
    """

    def run(self, job: Job, context: SkillContext, desk: Desk) -> bytes: ...


class AsyncRunner(Protocol):
    """The same for async skills; cancelling the caller's scope cancels the skill."""

    async def run(self, job: Job, context: SkillContext, desk: Desk) -> bytes: ...
