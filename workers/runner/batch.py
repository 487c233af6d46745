"""Skills that take several elements in one call: what waits is fused, as far as the skill's size and patience go.

One call of a skill and device runs at a time; meanwhile the next elements gather. Invariants: an element is in at most
one call at a time, and its end is its own. Where a call raises, its halves are called on their own until the one that
is to blame stands alone; one that is cancelled leaves at once, unless it is the last of a call, which it then ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import anyio
import anyio.abc
import anyio.to_thread

from protocol.errors import UsageError
from protocol.ids import AttemptId
from protocol.skill import SkillSpec

from .job import Desk, Job

_HIT: Final = "a batched skill returns a list with one entry per element: its value, or the exception it fails with"


def columns(elements: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Keyword arguments of the call of at least one element: a list of each. All must name the same."""
    return {name: [one[name] for one in elements] for name in elements[0]}


def entries(results: Any, count: int, name: str) -> list[Any]:
    """What the call returned, if it is that. Raises: UsageError."""
    if not isinstance(results, list | tuple) or len(results) != count:
        what = f"{len(results)} entries" if isinstance(results, list | tuple) else type(results).__name__
        raise UsageError(f"{name} returned {what} for {count} elements", hint=_HIT)
    return list(results)


def values(results: Any, count: int, name: str) -> list[Any]:
    """The same where all elements are one attempt's. Raises: what the first of them fails with, too."""
    found = entries(results, count, name)
    for one in found:
        if isinstance(one, Exception):
            raise one
    return found


class _Element:
    def __init__(self, arguments: Mapping[str, Any], attempt: AttemptId) -> None:
        self.arguments = arguments
        self.attempt = attempt
        self.at = anyio.current_time()
        self.left = False
        self.ended = anyio.Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self.took_s = 0.0


class Batcher:
    """One skill on one kind of device. `run` for as long as the host lives; `begins` is told the first attempt of each
    call, which what it prints is ascribed to."""

    def __init__(
        self, call: Callable[..., Any], spec: SkillSpec, *, is_async: bool, begins: Callable[[AttemptId], object]
    ) -> None:
        self._call = call
        self._spec = spec
        self._is_async = is_async
        self._begins = begins
        self._waiting: list[_Element] = []
        self._running: list[_Element] = []
        self._scope = anyio.CancelScope()
        self._news = anyio.Event()

    async def join(self, arguments: Mapping[str, Any], attempt: AttemptId) -> tuple[Any, float]:
        """The value for one element, and how long the call took that it came from. Raises: what it fails with."""
        element = _Element(arguments, attempt)
        self._waiting.append(element)
        self._news.set()
        try:
            await element.ended.wait()
        except anyio.get_cancelled_exc_class():
            element.left = True
            if element in self._waiting:
                self._waiting.remove(element)
                self._news.set()
            elif element in self._running and all(one.left for one in self._running):
                self._scope.cancel()
                with anyio.CancelScope(shield=True):  # its code may still run: who stops it must know
                    await element.ended.wait()
            raise
        if element.error is not None:
            raise element.error
        return element.value, element.took_s

    async def run(self) -> None:
        while True:
            if not self._waiting:
                await self._changed()
                continue
            with anyio.CancelScope(deadline=self._waiting[0].at + self._spec.batch_wait_s):
                while 0 < len(self._waiting) < self._spec.batch:
                    await self._changed()
            batch = self._take()
            await self._fused(batch)
            for element in batch:
                element.ended.set()

    def _take(self) -> list[_Element]:
        """The next call's: those that wait longest and name the same arguments. What one leaves out has a default for
        the whole call, and what another one gives must not get lost."""
        named = self._waiting[0].arguments.keys() if self._waiting else ()
        batch = [one for one in self._waiting if one.arguments.keys() == named][: self._spec.batch]
        taken = set(map(id, batch))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return batch

    async def _changed(self) -> None:
        self._news = anyio.Event()
        await self._news.wait()

    async def _fused(self, batch: list[_Element]) -> None:
        batch = self._running = [one for one in batch if not one.left]
        if not batch:
            return
        self._begins(batch[0].attempt)
        began = time.monotonic()
        results: list[Any] = []
        call = partial(self._call, **columns([one.arguments for one in batch]))
        self._scope = anyio.CancelScope()
        try:
            with self._scope:
                found = await (call() if self._is_async else anyio.to_thread.run_sync(call))
                results = entries(found, len(batch), self._spec.name)
        except Exception as error:  # noqa: BLE001 - whatever a skill raises ends its elements, never its host
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._fused(batch[:middle])
                await self._fused(batch[middle:])
                return
            results = [error]
        took_s = time.monotonic() - began
        for element, result in zip(batch, results, strict=False):  # no results where all have left
            element.took_s = took_s
            element.error = result if isinstance(result, Exception) else None
            element.value = result
            element.ended.set()


class Batches:
    """All of one host's, by skill and kind of device; they run in its task group."""

    def __init__(self, group: anyio.abc.TaskGroup, begins: Callable[[AttemptId], object]) -> None:
        self._group = group
        self._begins = begins
        self._found: dict[tuple[str, str], Batcher] = {}

    async def run(self, job: Job, desk: Desk) -> tuple[bytes, float]:
        """The value of the attempt, and how long the longest of its calls took. Raises: its first element's failure."""
        bound = [job.bind(args, None, desk) for args in job.arguments]
        batcher = self._batcher(job)
        found: list[Any] = [None] * len(bound)
        errors: list[Exception] = []

        async def one(k: int) -> None:
            try:
                found[k] = await batcher.join(bound[k], job.assign.attempt)
            except Exception as error:  # noqa: BLE001 - told below, the first of them
                errors.append(error)

        async with anyio.create_task_group() as group:
            for k in range(len(bound)):
                group.start_soon(one, k)
        if errors:
            raise errors[0]
        return job.value([value for value, _ in found], desk.uri), max(took_s for _, took_s in found)

    def _batcher(self, job: Job) -> Batcher:
        key = job.work.skill, job.work.device
        batcher = self._found.get(key)
        if batcher is None:
            entry = job.entry
            batcher = Batcher(job.call, entry.spec, is_async=entry.is_async, begins=self._begins)
            self._found[key] = batcher
            self._group.start_soon(batcher.run)
        return batcher
