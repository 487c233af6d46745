"""Contents in and out of the store for the wire: the artifact part of protocol.port.Services.

Invariant: one upload of a content at a time (a second waits, and then finds it here), and an upload is confirmed only
once the content is verified and on disk. Disk work runs in threads, one hop for what is small (a look whether a file
is there, cheaper than the hop, is taken where it is asked for). It must not know what the contents are for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio
from anyio import to_thread

from protocol.artifact import CHUNK_BYTES, SMALL_BYTES, Content
from protocol.errors import AsterismError, UsageError, WireError
from protocol.security import Principal

from .store import COMPLETE, ArtifactStore, Kept


class Transfer:
    """The `put`, `has` and `get` of a server, of one content or of many."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store
        self._uploads: dict[str, tuple[anyio.Lock, int]] = {}

    async def put(self, who: Principal, digest: str, media: str, offset: int, chunks: AsyncIterator[bytes]) -> int:
        """Take a content from `offset` on; what came before a cut-off stays for the next attempt.

        Raises: Conflict, UsageError, WireError, Unavailable.
        """
        self.store.path(digest)
        if offset < 0:
            raise UsageError(f"an upload can't start at byte {offset}")
        lock, waiting = self._uploads.get(digest, (anyio.Lock(), 0))
        self._uploads[digest] = (lock, waiting + 1)
        try:
            async with lock:
                if self.store.has(digest) != COMPLETE:
                    await self._take(digest, offset, chunks)
                return COMPLETE
        finally:
            lock, waiting = self._uploads.pop(digest)
            if waiting > 1:
                self._uploads[digest] = (lock, waiting - 1)

    async def _take(self, digest: str, offset: int, chunks: AsyncIterator[bytes]) -> None:
        ahead = b""
        whole = False
        cut_off: WireError | None = None
        if offset == 0:
            try:
                while len(ahead) <= SMALL_BYTES and not whole:
                    chunk = await anext(chunks, None)
                    whole = chunk is None
                    ahead += chunk or b""
            except WireError as error:
                cut_off = error
        if whole:
            await to_thread.run_sync(self._keep, digest, ahead)
            return
        upload = await to_thread.run_sync(self.store.upload, digest, offset)
        try:
            if ahead:
                await to_thread.run_sync(upload.write, ahead)
            if cut_off is not None:
                raise cut_off
            async for chunk in chunks:
                await to_thread.run_sync(upload.write, chunk)
            await to_thread.run_sync(upload.finish)
        finally:
            upload.close()

    def _keep(self, digest: str, data: bytes) -> None:
        self.store.partial_path(digest).unlink(missing_ok=True)
        kept: list[Kept] = []
        refused = self.store.keep((Content(digest, "", data),), kept)
        self.store.settle(kept)
        if refused:
            raise refused[digest]

    async def has(self, who: Principal, digest: str) -> int:
        return self.store.has(digest)

    async def get(self, who: Principal, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Raises: NotFound."""
        chunk, file = await to_thread.run_sync(self.store.begin, digest, offset)
        try:
            while chunk:
                yield chunk
                chunk = await to_thread.run_sync(file.read, CHUNK_BYTES) if file is not None else b""
        finally:
            if file is not None:
                file.close()

    async def put_many(self, who: Principal, bundles: AsyncIterator[tuple[Content, ...]]) -> dict[str, AsterismError]:
        """Take small contents, a message at a time; what came before a cut-off stays.

        Raises: WireError, Unavailable.
        """
        refused: dict[str, AsterismError] = {}
        kept: list[Kept] = []
        try:
            async for contents in bundles:
                refused |= await to_thread.run_sync(self.store.keep, contents, kept)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self.store.settle, kept)
        return refused

    async def has_many(self, who: Principal, digests: Sequence[str]) -> list[int]:
        return await to_thread.run_sync(lambda: [self.store.has(digest) for digest in digests])

    async def get_many(self, who: Principal, digests: Sequence[str]) -> AsyncIterator[tuple[Content, ...]]:
        """Raises: UsageError for what is no digest."""
        while digests:
            contents, covered = await to_thread.run_sync(self.store.collect, digests)
            if contents:
                yield contents
            digests = digests[covered:]
