"""Runs Python functions (and tools, which are called like them) in a host process."""

from __future__ import annotations

from workers.context import AsyncSkillContext, SkillContext

from .batch import columns, values
from .job import Desk, Job


class PythonRunner:
    """Sync functions: one at a time, on the host's main thread."""

    def run(self, job: Job, context: SkillContext, desk: Desk) -> bytes:
        bound = [job.bind(args, context, desk) for args in job.arguments]
        if job.asks_first:
            context.begin_effect()
        spec = job.entry.spec
        if spec.batch:  # alone in this host: nothing else can join
            return job.value(values(job.call(**columns(bound)), len(bound), spec.name), desk.uri)
        return job.value([job.call(**kwargs) for kwargs in bound], desk.uri)


class AsyncPythonRunner:
    """Coroutine functions, on the loop of the shared host."""

    async def run(self, job: Job, context: SkillContext, desk: Desk) -> bytes:
        bound = [job.bind(args, context, desk) for args in job.arguments]
        if job.asks_first:
            assert isinstance(context, AsyncSkillContext)
            await context.begin_effect()
        spec = job.entry.spec
        if spec.batch:
            return job.value(values(await job.call(**columns(bound)), len(bound), spec.name), desk.uri)
        return job.value([await job.call(**kwargs) for kwargs in bound], desk.uri)
