"""The artifact cache: verified, resumed, shared, bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from protocol.artifact import digest_of
from protocol.errors import Unavailable, UsageError
from workers.cache import Cache


class Source:
    """Serves contents in small chunks; breaks off where it is told to."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = {digest_of(content): content for content in contents}
        self.asked: list[tuple[str, int]] = []
        self.breaks_at: int | None = None

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        self.asked.append((digest, offset))
        content = self.contents[digest]
        for at in range(offset, len(content), 10):
            if self.breaks_at is not None and at >= self.breaks_at:
                raise Unavailable("broken off")
            await anyio.lowlevel.checkpoint()
            yield content[at : at + 10]


def test_download_is_verified_kept_and_found_again(tmp_path: Path) -> None:
    content = bytes(range(95))
    source = Source(content)

    async def main() -> None:
        cache = Cache(tmp_path)
        path = await cache.get(digest_of(content), source.fetch)
        assert path.read_bytes() == content
        assert await Cache(tmp_path).get(digest_of(content), source.fetch) == path
        assert len(source.asked) == 1
        assert cache.changes() == ((digest_of(content),), ())
        assert cache.changes() == ((), ())

    anyio.run(main)


def test_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    content = bytes(range(95))
    source = Source(content)

    async def main() -> None:
        cache = Cache(tmp_path)
        source.breaks_at = 50
        with pytest.raises(Unavailable):
            await cache.get(digest_of(content), source.fetch)
        assert cache.path(digest_of(content)) is None
        source.breaks_at = None
        assert (await Cache(tmp_path).get(digest_of(content), source.fetch)).read_bytes() == content
        assert [offset for _, offset in source.asked] == [0, 50]

    anyio.run(main)


def test_wrong_content_is_never_kept(tmp_path: Path) -> None:
    source = Source(b"right")
    digest = digest_of(b"right")
    source.contents[digest] = b"wrong"

    async def main() -> None:
        cache = Cache(tmp_path)
        with pytest.raises(Unavailable):
            await cache.get(digest, source.fetch)
        assert list(tmp_path.iterdir()) == []
        source.contents[digest] = b"right"
        assert (await cache.get(digest, source.fetch)).read_bytes() == b"right"
        with pytest.raises(UsageError):
            await cache.get("../../etc/passwd", source.fetch)

    anyio.run(main)


def test_many_who_ask_at_once_share_one_download(tmp_path: Path) -> None:
    content = b"x" * 95
    source = Source(content)

    async def main() -> None:
        cache = Cache(tmp_path)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(cache.get, digest_of(content), source.fetch)
        assert len(source.asked) == 1

    anyio.run(main)


def test_oldest_unused_goes_first_and_what_is_held_stays(tmp_path: Path) -> None:
    contents = [bytes([n]) * 40 for n in range(4)]
    first, second, third, fourth = map(digest_of, contents)
    source = Source(*contents)

    async def main() -> None:
        cache = Cache(tmp_path, cap_bytes=100)
        await cache.get(first, source.fetch)
        await cache.get(second, source.fetch)
        cache.hold([first])
        await cache.get(third, source.fetch)
        assert cache.path(first) is not None
        assert cache.path(second) is None
        cache.release([first])
        cache.path(third)
        await cache.get(fourth, source.fetch)
        assert cache.path(first) is None
        assert cache.size_bytes <= 100
        assert cache.changes()[1] == (second, first)

    anyio.run(main)
