"""The attempts that run here: artifacts brought, a host or the inline runner given the work, the end passed on.

Invariant: every Start is answered by exactly one end, after everything the attempt held (cards, cached artifacts) is
given back. It decides nothing about reports or leases; those are its owner's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from devices.gpu import Gpu
from protocol.artifact import INLINE_LIMIT, ArtifactRef
from protocol.errors import (
    AsterismError,
    DiskFull,
    NotFound,
    NotYours,
    SecretDenied,
    ServerUnreachable,
    SkillFailed,
    TryAgain,
    Unavailable,
    UsageError,
)  # fmt: skip
from protocol.frame import Progress, StagedFile
from protocol.ids import AttemptId
from protocol.link import redial_s
from protocol.outcome import Failure, Outcome, Stopped, Success, Usage
from protocol.skill import SkillSpec
from protocol.task import secrets_in

from .argument import digests
from .cache import Cache
from .cell import Cell, taken
from .custody import Custody
from .folder import Folders
from .instruction import Answer, Fetch, Kill, Start
from .pipe import Begin
from .pool import Pool
from .root import Issued, Roots
from .rule import unheld
from .runner.failure import failure_of
from .runner.inline import InlineRunner
from .runner.job import outcome_of
from .shaping import Shape, sleep_until
from .staging import foreign, may_be_foreign, own
from .stimulus import Asked, Ended, Result, Stimulus
from .tally import Tally
from .transfer import Transfer

MOST_ASKED_BYTES: Final = 1024 * 1024
_NO_USAGE: Final = Usage()
AWAY_S: Final = 30.0
"""How long an attempt waits for another machine that holds its files, before it is tried again elsewhere."""
_LANES: Final = 8
"""Files fetched side by side for one attempt."""


class Owner(Protocol):
    """Who hears of what happens here. `results` collects what ended while a Start was being handled."""

    results: list[Result]

    def step(self, stimulus: Stimulus) -> None: ...
    def progress(self, item: Progress) -> None: ...
    async def look_at_cards(self) -> None: ...


class Errands:
    """Call `open` once the daemon's task group is there; `async_skills` once the skills are known."""

    def __init__(
        self,
        owner: Owner,
        folders: Folders,
        cache: Cache,
        transfer: Transfer,
        issued: Issued,
        inline: InlineRunner,
        cards: Gpu | None,
        shape: Shape,
        roots: Roots,
        custody: Custody,
    ) -> None:
        self._owner = owner
        self._folders = folders
        self._cache = cache
        self._transfer = transfer
        self._issued = issued
        self._inline = inline
        self._cards = cards
        self._shape = shape
        self._roots = roots
        self._custody = custody
        self.async_skills: frozenset[str] = frozenset()
        self.sources: dict[str, str] = {}
        """Where each skill was loaded from, of those that are not built in."""
        self._group: anyio.abc.TaskGroup
        self._pool: Pool
        self._preparing: dict[AttemptId, anyio.CancelScope] = {}
        self._holding: dict[AttemptId, list[str]] = {}
        self._made: dict[AttemptId, Path] = {}
        self._cells: dict[AttemptId, Cell] = {}
        self._on_cards: set[AttemptId] = set()
        self._seq: dict[AttemptId, int] = {}
        self._tally = Tally(shape)

    def open(self, group: anyio.abc.TaskGroup, pool: Pool) -> None:
        self._group, self._pool = group, pool

    def start(self, instruction: Start) -> None:
        assign = instruction.assign
        wanted = digests(assign)
        if (wanted and any(self._cache.path(digest) is None for digest in wanted)) or (
            not instruction.skill.inline and may_be_foreign(assign, instruction.work, instruction.skill)
        ):
            self._preparing[assign.attempt] = anyio.CancelScope()
            self._group.start_soon(self._prepare, instruction)
        else:
            self._run(instruction)

    def fetch(self, instruction: Fetch) -> None:
        """Begin to bring what the attempt will need."""
        self._group.start_soon(self._bring_early, digests(instruction.assign))

    async def _bring_early(self, wanted: list[str]) -> None:
        """What fails is tried again when the attempt starts, and said then."""
        with contextlib.suppress(AsterismError):
            await self._bring(wanted)

    async def _prepare(self, instruction: Start) -> None:
        """Bring the artifacts and the files of other machines that an attempt names here, then run it."""
        attempt, began = instruction.assign.attempt, time.perf_counter()
        with self._preparing[attempt] as scope:
            try:
                await self._bring(digests(instruction.assign))
                files = await self._bring_files(instruction)
            except AsterismError as error:
                self._preparing.pop(attempt, None)
                self._finish(attempt, failure_of(error))
                return
            if files:
                assign = msgspec.structs.replace(instruction.assign, files=(*instruction.assign.files, *files))
                instruction = msgspec.structs.replace(instruction, assign=assign)
        self._preparing.pop(attempt, None)
        if scope.cancelled_caught:
            self._finish(attempt, Stopped("cancelled"))
        else:
            fetched = self._cache.claim(digests(instruction.assign))
            self._tally.brought(attempt, fetched, time.perf_counter() - began)
            self._run(instruction)
            if self._owner.results:  # no Start is being handled that would pass on what ended at once
                self._owner.step(Ended(()))

    async def _bring(self, wanted: Iterable[str]) -> None:
        """Have these artifacts in the cache: the small ones in bundles, then the others side by side.

        A lost connection is waited out. Raises: the refusal of the far side.
        """
        missing = self._missing(wanted)
        if len(missing) > 1:
            await self._patiently(lambda: self._cache.fill(self._missing(missing), self._transfer.fetch_many))
            missing = self._missing(missing)
        refused: list[AsterismError] = []

        async def bring_each(lane: list[str]) -> None:
            try:
                for digest in lane:
                    await self._patiently(functools.partial(self._cache.get, digest, self._transfer.fetch))
            except AsterismError as error:
                refused.append(error)

        async with anyio.create_task_group() as group:
            for k in range(min(_LANES, len(missing))):
                group.start_soon(bring_each, missing[k::_LANES])
        if refused:
            raise refused[0]

    def _missing(self, wanted: Iterable[str]) -> list[str]:
        return [digest for digest in dict.fromkeys(wanted) if self._cache.path(digest) is None]

    async def _patiently(self, fetch: Callable[[], Awaitable[object]]) -> None:
        failures, deadline = 0, anyio.current_time() + AWAY_S
        while True:
            try:
                await fetch()
                return
            except DiskFull:
                raise  # another worker may have room
            except (ServerUnreachable, Unavailable):
                failures += 1
            except NotYours:  # an attempt that the server doesn't know for ours, after a restart, soon is or is killed
                if anyio.current_time() >= deadline:
                    raise
                failures += 1
            await anyio.sleep(redial_s(failures, random.random()))

    async def _bring_files(self, instruction: Start) -> list[StagedFile]:
        """Have the other machines' files moved, and fetch them. Raises: TryAgain while one is away."""
        assign, work, skill = instruction.assign, instruction.work, instruction.skill
        uris = foreign(assign, work, skill, self._transfer.worker, self._located)
        if not uris:
            return []
        staged = await self._staged(assign.attempt.run, uris)
        await self._bring(one.ref.digest for one in staged)
        return staged

    async def _staged(self, run: int, uris: list[str]) -> list[StagedFile]:
        """Wait for an owner that is away: after a restart of the orchestrator they come back one by one."""
        failures, deadline = 0, anyio.current_time() + AWAY_S
        while True:
            try:
                return await self._transfer.staged(run, uris)
            except (ServerUnreachable, Unavailable, NotYours) as error:
                if anyio.current_time() >= deadline:
                    raise TryAgain(error.message, hint=error.hint) from error
            failures += 1
            await anyio.sleep(redial_s(failures, random.random()))

    def _run(self, instruction: Start) -> None:
        if instruction.skill.inline:
            self._run_inline(instruction)
            return
        assign = instruction.assign
        wanted = digests(assign)
        self._cache.hold(wanted)
        self._holding[assign.attempt] = wanted
        level = self._custody.rules.level(instruction.skill, self._pool.held)
        if level is None:
            self._finish(assign.attempt, unheld(instruction.skill))
            return
        try:
            paths = {digest: self._located(digest) for digest in wanted}
            folder = self._made[assign.attempt] = self._folders.attempt(assign)
            begin = Begin(
                assign,
                paths,
                str(folder),
                str(folder.parent),
                self._environment(instruction),
                self._custody.secrets.of(_secret_names(instruction), instruction.skill.name),
            )
            keyed = self._tally.thinks(assign.attempt, instruction.work.skill)
            if level == "bubblewrap":
                self._run_in_cell(instruction, begin, keyed)
            else:
                self._pool.begin(begin, is_async=keyed or instruction.work.skill in self.async_skills, keyed=keyed)
        except SkillFailed as error:
            self._finish(assign.attempt, failure_of(error))
        except (AsterismError, OSError) as error:
            self._finish(assign.attempt, Failure("HostFailed", str(error), "infra"))

    def cell_for(self, source: str) -> tuple[str, ...]:
        """The command line of a host that only loads this source. Raises: UsageError where bubblewrap does not hold."""
        level = self._custody.rules.level(SkillSpec(source, sandbox="bubblewrap"), self._pool.held)
        if level is None:
            hint = "asterism worker probe says what is missing"
            raise UsageError(f"{source} is not trusted, and bubblewrap does not hold here", hint=hint)
        folder = self._folders.home / "inputs" / "loading"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        cell = Cell(folder, folder / "none", self._folders.home)
        return cell.command(SkillSpec(source), source, (), (), {})

    def _run_in_cell(self, instruction: Start, begin: Begin, keyed: bool) -> None:
        assign, skill = instruction.assign, instruction.skill
        folders = self._folders
        cell = Cell(Path(os.path.realpath(begin.folder)), folders.inputs(assign.attempt), folders.home)
        self._cells[assign.attempt] = cell
        files = own(assign, instruction.work, skill, self._roots, self._located)
        paths = {digest: cell.admit(path) for digest, path in begin.paths.items()}
        begin = msgspec.structs.replace(begin, paths=paths, folder=str(cell.folder), run_folder=str(cell.folder))
        source = self.sources.get(skill.name, "")
        command = cell.command(skill, source, files, self._roots.given, begin.environment)
        self._pool.begin(begin, is_async=False, keyed=keyed, cell=command, source=source)

    def _environment(self, instruction: Start) -> dict[str, str]:
        """Which cards the attempt sees, when it was given any."""
        if self._cards is None or not instruction.dealt:
            return {}
        self._on_cards.add(instruction.assign.attempt)
        return self._cards.environment(instruction.dealt)

    def _run_inline(self, instruction: Start) -> None:
        assign, work = instruction.assign, instruction.work
        began = time.perf_counter()
        try:
            if _secret_names(instruction):
                raise SecretDenied(f"{work.skill} is handed no secrets")
            value = self._inline.start(assign, work, self._located)
            outcome = self._kept(assign.attempt, value) if isinstance(value, bytes) else None
        except Exception as error:  # noqa: BLE001 - what a skill raises ends its attempt, never the daemon
            self._owner.results.append(self._result(assign.attempt, failure_of(error)))
            return
        if isinstance(value, bytes):
            assert outcome is not None
            usage = Usage(time.perf_counter() - began, work.device)
            self._owner.results.append(self._result(assign.attempt, outcome, usage))
            return
        self._preparing[assign.attempt] = anyio.CancelScope()
        self._group.start_soon(self._await_inline, assign.attempt, value)

    async def _await_inline(self, attempt: AttemptId, value: Awaitable[bytes]) -> None:
        began = time.perf_counter()
        outcome: Outcome = Stopped("cancelled")
        try:
            with self._preparing[attempt]:
                outcome = self._kept(attempt, await value)
        except Exception as error:  # noqa: BLE001 - what a skill raises ends its attempt, never the daemon
            outcome = failure_of(error)
        self._preparing.pop(attempt, None)
        self._finish(attempt, outcome, Usage(time.perf_counter() - began))

    def _kept(self, attempt: AttemptId, value: bytes) -> Success:
        if len(value) <= INLINE_LIMIT:
            return Success(value)
        outcome, spill = outcome_of(value, str(self._folders.spill(attempt).parent))
        if spill:
            os.replace(spill, self._folders.spill(attempt))
        return outcome

    def _finish(self, attempt: AttemptId, outcome: Outcome, usage: Usage = _NO_USAGE) -> None:
        held = self._holding.pop(attempt, None)
        if held:
            self._cache.release(held)
            if fetched := self._cache.claim(held):  # while it waited for room, or as it ran
                self._tally.brought(attempt, fetched)
        made = self._made.pop(attempt, None)
        if made is not None:
            with contextlib.suppress(OSError):
                made.rmdir()  # most attempts leave no file
        if (cell := self._cells.pop(attempt, None)) is not None:
            cell.close()
        self._seq.pop(attempt, None)
        result = self._result(attempt, outcome, usage)
        if attempt in self._on_cards:
            self._on_cards.remove(attempt)
            if isinstance(outcome, Failure):
                self._group.start_soon(self._finish_doubtful, result)
                return
        self._owner.step(Ended((result,)))

    def _result(self, attempt: AttemptId, outcome: Outcome, usage: Usage = _NO_USAGE) -> Result:
        return Result(attempt, outcome, self._tally.whole(attempt, usage))

    async def _finish_doubtful(self, result: Result) -> None:
        """It failed on a card. If that fell off, another one may do it: so look first."""
        await self._owner.look_at_cards()
        self._owner.step(Ended((result,)))

    def kill(self, instruction: Kill) -> None:
        preparing = self._preparing.get(instruction.attempt)
        if preparing is not None:
            preparing.cancel()
        else:
            self._pool.stop(instruction.attempt, instruction.grace_s)

    def _located(self, digest: str) -> str:
        found = self._cache.path(digest)
        if found is None:
            raise NotFound(f"{digest[:19]} is not on this machine")
        return str(found)

    def ended(self, attempt: AttemptId, outcome: Outcome, usage: Usage, spill: str, issued: tuple[str, ...]) -> None:
        if (cell := self._cells.get(attempt)) is not None:
            issued = cell.own(issued)
        try:
            self._issued.note(self._folders.run(attempt.run), issued)
        except OSError as error:
            outcome = failure_of(error)
        if isinstance(outcome, Success) and isinstance(outcome.value, ArtifactRef):
            self._group.start_soon(self._take_spill, attempt, usage, spill)
        else:
            self._conclude(attempt, outcome, usage)

    async def _take_spill(self, attempt: AttemptId, usage: Usage, spill: str) -> None:
        """Take a large value into our own keeping. Of the host's word about it only the folder's own file counts."""
        made, target = self._made[attempt], self._folders.spill(attempt)
        outcome: Outcome
        try:
            ref = await anyio.to_thread.run_sync(taken, spill, made, target, self._custody.redactor)
            outcome = Success(ref)
        except (AsterismError, OSError) as error:
            outcome = Failure("HostFailed", str(error), "infra" if isinstance(error, OSError) else "permanent")
        self._conclude(attempt, outcome, usage)

    def _conclude(self, attempt: AttemptId, outcome: Outcome, usage: Usage) -> None:
        extra_s = self._tally.extra_s(attempt, usage)
        if extra_s > 0 and not isinstance(outcome, Stopped):
            slower = msgspec.structs.replace(usage, run_s=usage.run_s + extra_s)
            self._group.start_soon(self._finish_later, anyio.current_time() + extra_s, attempt, outcome, slower)
        else:
            self._finish(attempt, outcome, usage)

    async def _finish_later(self, due: float, attempt: AttemptId, outcome: Outcome, usage: Usage) -> None:
        with anyio.CancelScope() as scope:
            self._preparing[attempt] = scope
            await sleep_until(due)
        self._preparing.pop(attempt, None)
        self._finish(attempt, outcome, usage)

    def asked(self, attempt: AttemptId, k: int, what: str, body: bytes) -> None:
        if len(body) > MOST_ASKED_BYTES:
            large = UsageError(f"{what} with {len(body)} bytes", hint="pass large values as files")
            self._pool.answer(attempt, k, b"null", msgspec.json.encode(large.to_wire()))
            return
        self._tally.asked(attempt, k)
        self._owner.step(Asked(attempt, k, what, body))

    def answer(self, instruction: Answer) -> None:
        self._tally.answered(instruction.attempt, instruction.k)
        self._pool.answer(instruction.attempt, instruction.k, instruction.value, instruction.error)

    def noted(self, attempt: AttemptId, body: bytes) -> None:
        if len(body) <= INLINE_LIMIT:  # the link takes no more of it, and progress may get lost
            self._progress(attempt, "progress", body, "")

    def logged(self, attempt: AttemptId, stream: str, text: str) -> None:
        self._progress(attempt, "log", text.encode(), stream)

    def _progress(self, attempt: AttemptId, kind: Any, body: bytes, stream: str) -> None:
        seq = self._seq[attempt] = self._seq.get(attempt, 0) + 1
        self._owner.progress(Progress(attempt, seq, kind, body, stream, time.time()))

    async def located(self, attempt: AttemptId, digest: str) -> str:
        path = await self._cache.get(digest, self._transfer.fetch)
        self._cache.hold([digest])
        self._holding.setdefault(attempt, []).append(digest)
        cell = self._cells.get(attempt)
        return str(path) if cell is None else cell.admit(str(path))


def _secret_names(instruction: Start) -> tuple[str, ...]:
    args = instruction.work.args
    if b'"secret"' not in bytes(args):
        return ()
    return tuple(dict.fromkeys(secrets_in(msgspec.json.decode(args))))
