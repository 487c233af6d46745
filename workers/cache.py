"""Artifacts this worker has read, by digest: downloaded once, verified, kept under a size cap.

Invariant: a file under its final name has exactly the content that its name says; a broken download leaves a `.part`
that the next one resumes. What an attempt is reading (`hold`) is never evicted. It knows no channel: `Fetch` is given.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from protocol.artifact import Content, digest_of, is_digest
from protocol.errors import DiskFull, Unavailable, UsageError

T = TypeVar("T")
Fetch = Callable[[str, int], AsyncIterator[bytes]]
"""`fetch(digest, offset)`: the bytes of the artifact from `offset` on."""

FetchMany = Callable[[Sequence[str]], AsyncIterator[Sequence[Content]]]
"""`fetch_many(digests)`: those of the artifacts that are small, in groups; the others are left out."""

DEFAULT_CAP_BYTES: Final = 10 * 1024**3
_TOLD_AT_ONCE: Final = 512
"""Changes that one heartbeat carries."""


class Cache:
    """One folder. Used from one event loop; downloads of one digest are shared by all who ask for it."""

    def __init__(self, folder: Path, cap_bytes: int = DEFAULT_CAP_BYTES) -> None:
        self._folder = folder = Path(os.path.realpath(folder))
        self._cap = cap_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sizes: dict[str, int] = {}
        found = [(path.stat().st_mtime, path) for path in folder.iterdir() if is_digest("sha256:" + path.name)]
        for _, path in sorted(found):
            self._sizes["sha256:" + path.name] = path.stat().st_size
        self._total = sum(self._sizes.values())
        self._held: Counter[str] = Counter()
        self._locks: dict[str, anyio.Lock] = {}
        self._changed: dict[str, bool] = {}
        self._unclaimed: set[str] = set()
        self.received_bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._total

    def path(self, digest: str) -> Path | None:
        """Where the content is, if it is here; counts as a use."""
        if digest not in self._sizes:
            return None
        self._sizes[digest] = self._sizes.pop(digest)
        return self._folder / digest[7:]

    def claim(self, digests: Iterable[str]) -> int:
        """Bytes of those that were fetched and that nobody has claimed: what bringing them has moved, counted once."""
        mine = self._unclaimed.intersection(digests)
        self._unclaimed -= mine
        return sum(self._sizes[digest] for digest in mine)

    def hold(self, digests: Iterable[str]) -> None:
        """Keep these from eviction until as many `release`s."""
        self._held.update(digests)

    def release(self, digests: Iterable[str]) -> None:
        self._held.subtract(digests)

    async def get(self, digest: str, fetch: Fetch) -> Path:
        """The local file of `digest`, downloaded (or the download resumed) if it is not here.

        Raises: UsageError for a malformed digest; Unavailable when the content does not match it; DiskFull; whatever
        `fetch` raises, after which what has arrived is kept for the next attempt.
        """
        if not is_digest(digest):
            raise UsageError(f"{digest!r} is not a digest", hint="sha256: and 64 hex digits")
        found = self.path(digest)
        if found is not None:
            return found
        lock = self._locks.setdefault(digest, anyio.Lock())
        async with lock:
            found = self.path(digest)
            if found is None:
                try:
                    found = await self._download(digest, fetch)
                except OSError as error:
                    if not self._make_room(error):
                        raise self._unwritable(error) from None
                    try:
                        found = await self._download(digest, fetch)  # what has arrived is not fetched again
                    except OSError as again:
                        raise self._unwritable(again) from None
        self._forget_lock(digest, lock)
        return found

    async def fill(self, digests: Iterable[str], fetch: FetchMany) -> None:
        """Bring small artifacts that are not here, many at a time.

        Whatever doesn't come this way is left to `get`: what is large, what came with another content, and what
        another download is bringing. Raises: Unavailable when the disk is full; whatever `fetch` raises. What has
        arrived by then stays.
        """
        mine: dict[str, anyio.Lock] = {}
        for digest in digests:
            if digest not in self._sizes and is_digest(digest):
                lock = self._locks.setdefault(digest, anyio.Lock())
                if not lock.locked():
                    lock.acquire_nowait()
                    mine[digest] = lock
        try:
            if mine:
                async with contextlib.aclosing(_closing(fetch(list(mine)))) as groups:
                    async for group in groups:
                        wanted = [one for one in group if one.digest in mine and one.digest not in self._sizes]
                        self._received(await anyio.to_thread.run_sync(self._write, wanted), keep=mine)
        finally:
            for digest, lock in mine.items():
                lock.release()
                self._forget_lock(digest, lock)

    def _write(self, group: Sequence[Content]) -> list[Content]:
        """Those of them that are what they say, as files under their final names. In a thread."""
        true = [one for one in group if digest_of(one.data) == one.digest]
        try:
            for one in true:
                final = f"{self._folder}/{one.digest[7:]}"
                with open(f"{final}.part", "wb", buffering=0) as file:
                    rest = memoryview(one.data)
                    while rest:
                        rest = rest[file.write(rest) :]
                    os.fchmod(file.fileno(), 0o444)
                os.replace(f"{final}.part", final)
        except OSError as error:
            raise self._unwritable(error) from None
        return true

    def _unwritable(self, error: OSError) -> Unavailable:
        hint = f"make room in {self._folder}"
        return DiskFull(f"the cache can't be written: {error.strerror}", hint=hint)

    def _received(self, group: Sequence[Content], keep: Container[str]) -> None:
        for one in group:
            self.received_bytes += len(one.data)
            self._enter(one.digest, len(one.data))
        self._evict(keep)

    def _forget_lock(self, digest: str, lock: anyio.Lock) -> None:
        if not lock.statistics().tasks_waiting:
            self._locks.pop(digest, None)

    async def _download(self, digest: str, fetch: Fetch) -> Path:
        part = self._folder / (digest[7:] + ".part")
        hasher = hashlib.sha256()
        with part.open("a+b") as file:
            file.seek(0)
            while chunk := file.read(1024 * 1024):
                hasher.update(chunk)
                await anyio.lowlevel.checkpoint()
            async with contextlib.aclosing(_closing(fetch(digest, file.tell()))) as chunks:
                async for chunk in chunks:
                    hasher.update(chunk)
                    file.write(chunk)
                    self.received_bytes += len(chunk)
            size = file.tell()
        if "sha256:" + hasher.hexdigest() != digest:
            part.unlink()
            raise Unavailable(f"what arrived as {digest[:19]} has another content", hint="it is fetched again")
        return self._adopt(digest, part, size)

    def _adopt(self, digest: str, part: Path, size: int) -> Path:
        final = self._folder / digest[7:]
        os.chmod(part, 0o444)
        os.replace(part, final)
        self._enter(digest, size)
        self._evict(keep=(digest,))
        return final

    def _enter(self, digest: str, size: int) -> None:
        self._total += size - self._sizes.pop(digest, 0)
        self._sizes[digest] = size
        self._unclaimed.add(digest)
        self._tell(digest, here=True)

    def _evict(self, keep: Container[str]) -> None:
        if self._total <= self._cap:
            return
        for digest in list(self._sizes):
            if self._total <= self._cap:
                return
            if digest in keep or self._held[digest] > 0:
                continue
            self._total -= self._sizes.pop(digest)
            self._unclaimed.discard(digest)
            with contextlib.suppress(FileNotFoundError):
                (self._folder / digest[7:]).unlink()
            self._tell(digest, here=False)

    def _make_room(self, error: OSError) -> bool:
        """On a full disk, give up everything that nobody reads now. Whether that was anything."""
        before, cap = self._total, self._cap
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return False
        self._cap = 0
        try:
            self._evict(keep=())
        finally:
            self._cap = cap
        return self._total < before

    def _tell(self, digest: str, *, here: bool) -> None:
        self._changed.pop(digest, None)  # the latest change is told last
        self._changed[digest] = here

    def changes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What came and what went since the last call, for the heartbeat; what doesn't fit is told by the next."""
        told = [(digest, self._changed.pop(digest)) for digest in list(itertools.islice(self._changed, _TOLD_AT_ONCE))]
        return tuple(digest for digest, here in told if here), tuple(digest for digest, here in told if not here)


async def _closing(parts: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """So that leaving early ends the download even where `fetch` is no generator."""
    async for part in parts:
        yield part
