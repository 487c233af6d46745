"""Content between this machine and the artifact store: values too large for a report, files others asked for.

Small files travel in bundles, larger ones each on its own, resumed where the last try broke off. Invariant: what was
confirmed to somebody has been confirmed by the far side under its digest. It knows no machine and decides no
permission but one: a file leaves only from below a root, if it was issued or named, and if it holds no secret.
"""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO, Final

import anyio
import anyio.to_thread
import msgspec

from protocol.artifact import CHUNK_BYTES, SMALL_BYTES, ArtifactRef, Content, digest_of, parse_file
from protocol.bundle import split, weight
from protocol.errors import AsterismError, NotAllowed, Unavailable
from protocol.frame import Stage, Staged, StagedFile
from protocol.port import Channel

from .redaction import Redactor
from .root import Issued, Roots
from .shaping import Lane, Shape

Online = Callable[[], Awaitable[Channel]]
"""Waits for a channel to the orchestrator."""
RunFolder = Callable[[int], Path]
"""Where a run's files lie on this machine."""

_BATCH_BYTES: Final = 4 * 1024 * 1024
_BATCH_FILES: Final = 1024
MOVED_TOLD: Final = 64
"""Fetches that a heartbeat tells of."""
_LANES: Final = 8
"""Larger files uploaded side by side."""


class _Batch(msgspec.Struct):
    """Files as they were read: those that travel together, those that don't, those that may not."""

    small: list[tuple[Stage, Content]] = msgspec.field(default_factory=list)
    large: list[Stage] = msgspec.field(default_factory=list)
    refused: list[Staged] = msgspec.field(default_factory=list)


class Transfer:
    """All transfers of one worker; each waits for a connection and goes on where the last one broke off."""

    def __init__(self, online: Online, roots: Roots, issued: Issued, shape: Shape, redactor: Redactor) -> None:
        self._online = online
        self._roots = roots
        self._issued = issued
        self._up, self._down = Lane(shape), Lane(shape)
        self._redactor = redactor
        self._digests: dict[tuple[str, int, int, int], str] = {}
        self._lanes = anyio.Semaphore(_LANES)
        self._moved: deque[float] = deque(maxlen=2 * MOVED_TOLD)

    @property
    def worker(self) -> str:
        """The name whose files these are."""
        return self._roots.worker

    async def store(self, ref: ArtifactRef, file: BinaryIO) -> None:
        """Put the content, unless it is there. Raises: the refusal of the far side, ServerUnreachable."""
        channel = await self._online()
        held = await channel.has(ref.digest)
        if held < 0:
            return
        await channel.put(ref.digest, ref.media, self._up.slowed(_chunks(file, held), len), offset=held)

    async def fetch(self, digest: str, offset: int) -> AsyncGenerator[bytes, None]:
        """The content from `offset` on, for the cache."""
        channel = await self._online()
        began, size = time.monotonic(), 0
        async for chunk in self._down.slowed(channel.get(digest, offset), len):
            size += len(chunk)
            yield chunk
        self._moved.extend((float(size), time.monotonic() - began))

    async def fetch_many(self, digests: Sequence[str]) -> AsyncGenerator[tuple[Content, ...], None]:
        """The small ones among these, a message's worth at a time, for the cache."""
        channel = await self._online()
        async with aclosing(self._down.slowed(channel.get_many(digests), weight)) as found:
            began, size = time.monotonic(), 0
            async for contents in found:
                size += weight(contents)
                yield contents
            self._moved.extend((float(size), time.monotonic() - began))

    def moved(self) -> tuple[float, ...]:
        """What was fetched since this was asked last: bytes, seconds, in turns."""
        found = tuple(self._moved)
        self._moved.clear()
        return found

    async def staged(self, run: int, uris: list[str]) -> list[StagedFile]:
        """Have files of other machines put into the artifact store for this run. Raises: the far side's refusal."""
        channel = await self._online()
        body = msgspec.json.encode({"run": run, "uris": uris})
        found = msgspec.json.decode(await channel.invoke("stage", body), type=dict[str, ArtifactRef])
        return [StagedFile(uri, ref) for uri, ref in found.items()]

    async def bundle(self, stages: Iterable[Stage], folder: RunFolder, answer: Callable[[Staged], None]) -> list[Stage]:
        """Upload the small ones of these files together, or say why not; the larger ones, unanswered, are returned."""
        waiting = deque(stages)
        large: list[Stage] = []
        while waiting:
            batch = await anyio.to_thread.run_sync(self._read, waiting, folder)
            large += batch.large
            refused = await self._send({one.digest: one for _, one in batch.small})
            for one in batch.refused:
                answer(one)
            for stage, content in batch.small:
                error = refused.get(content.digest)
                ref = ArtifactRef(content.digest, content.media, len(content.data))
                answer(Staged(stage.run, stage.uri, ref) if error is None else _refusal(stage, error))
        return large

    async def _send(self, contents: dict[str, Content]) -> dict[str, AsterismError]:
        """Put what is not there yet; what could not be put, and why."""
        if not contents:
            return {}
        try:
            channel = await self._online()
            sizes = await channel.has_many(list(contents))
            missing = [one for one, size in zip(contents.values(), sizes, strict=True) if size >= 0]
            return dict(await channel.put_many(self._up.slowed(_messages(missing), weight))) if missing else {}
        except AsterismError as error:
            return dict.fromkeys(contents, error)

    def _read(self, waiting: deque[Stage], folder: RunFolder) -> _Batch:
        """The next files, as many as are sent together. In a thread."""
        batch = _Batch()
        size = 0
        while waiting and size < _BATCH_BYTES and len(batch.small) < _BATCH_FILES:
            stage = waiting.popleft()
            try:
                real, file = self._open(stage, folder)
                with file:
                    data = file.read(SMALL_BYTES + 1) if os.fstat(file.fileno()).st_size <= SMALL_BYTES else None
            except AsterismError as error:
                batch.refused.append(_refusal(stage, error))
            except OSError as error:
                batch.refused.append(_refusal(stage, Unavailable(f"{stage.uri} can't be read: {error.strerror}")))
            else:
                if data is None or len(data) > SMALL_BYTES:
                    batch.large.append(stage)
                elif held := self._redactor.found_in(io.BytesIO(data)):
                    batch.refused.append(_refusal(stage, _holds(stage, held)))
                else:
                    batch.small.append((stage, Content(digest_of(data), _media(real), data)))
                    size += len(data)
        return batch

    async def stage(self, stage: Stage, folder: RunFolder) -> Staged:
        """Upload one file of this machine, or say why not."""
        async with self._lanes:
            try:
                real, file = self._open(stage, folder)
                with file:
                    if held := await anyio.to_thread.run_sync(self._redactor.found_in, file):
                        raise _holds(stage, held)
                    file.seek(0)
                    ref = await self._describe(real, file)
                    await self.store(ref, file)
                return Staged(stage.run, stage.uri, ref)
            except AsterismError as error:
                return _refusal(stage, error)
            except OSError as error:
                return _refusal(stage, Unavailable(f"{stage.uri} can't be read: {error.strerror}"))

    def _open(self, stage: Stage, folder: RunFolder) -> tuple[str, BinaryIO]:
        """The real path and the file, if it may leave. Raises: NotAllowed, NotFound."""
        found = parse_file(stage.uri)
        if found is None or found.worker != self._roots.worker:
            raise NotAllowed(f"{stage.uri} is not a file of {self._roots.worker}")
        real = self._roots.allow(found.path)
        if not stage.named and not self._issued.holds(folder(stage.run), real):
            raise NotAllowed(
                f"{stage.uri} was never issued in this run", hint="name the file in the plan, or list it with fs.find"
            )
        return real, self._roots.open_real(real)

    async def _describe(self, path: str, file: BinaryIO) -> ArtifactRef:
        stat = os.fstat(file.fileno())
        key = (path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        digest = self._digests.get(key)
        if digest is None:
            digest = "sha256:" + await anyio.to_thread.run_sync(_sha256, file)
            if len(self._digests) >= 4096:
                del self._digests[next(iter(self._digests))]
            self._digests[key] = digest
        return ArtifactRef(digest, _media(path), stat.st_size)


def _holds(stage: Stage, held: str) -> NotAllowed:
    return NotAllowed(f"{stage.uri} holds the {held.strip('[]')}: it does not leave this machine")


def _refusal(stage: Stage, error: AsterismError) -> Staged:
    return Staged(stage.run, stage.uri, None, error.code, error.message)


def _media(path: str) -> str:
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


async def _messages(contents: Iterable[Content]) -> AsyncIterator[tuple[Content, ...]]:
    for group in split(contents):
        yield group


def _sha256(file: BinaryIO) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


async def _chunks(file: BinaryIO, offset: int) -> AsyncIterator[bytes]:
    file.seek(offset)
    while chunk := await anyio.to_thread.run_sync(file.read, CHUNK_BYTES):
        yield chunk
