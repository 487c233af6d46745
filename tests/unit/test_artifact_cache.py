"""The artifact cache: verified, resumed, shared, bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
import pytest

from protocol.artifact import Content, digest_of
from protocol.errors import Unavailable, UsageError
from workers.cache import Cache


class Source:
    """Serves contents in small chunks; breaks off where it is told to."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = {digest_of(content): content for content in contents}
        self.asked: list[tuple[str, int]] = []
        self.asked_many: list[list[str]] = []
        self.breaks_at: int | None = None

    async def fetch_many(self, digests: Sequence[str]) -> AsyncIterator[Sequence[Content]]:
        self.asked_many.append(list(digests))
        for start in range(0, len(digests), 3):
            if self.breaks_at is not None and start >= self.breaks_at:
                raise Unavailable("broken off")
            await anyio.lowlevel.checkpoint()
            yield [Content(one, "", self.contents[one]) for one in digests[start : start + 3] if one in self.contents]

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


def test_what_was_fetched_is_claimed_once(tmp_path: Path) -> None:
    contents = [b"a" * 30, b"b" * 12]
    source, names = Source(*contents), [digest_of(one) for one in contents]

    async def main() -> None:
        cache = Cache(tmp_path, cap_bytes=60)
        for name in names:
            await cache.get(name, source.fetch)
        assert cache.claim(names[:1]) == 30
        assert cache.claim([*names, digest_of(b"never came")]) == 12
        assert cache.claim(names) == 0
        large = Source(b"c" * 55)
        await cache.get(digest_of(b"c" * 55), large.fetch)  # the others had to make room
        assert cache.claim(names) == 0
        await cache.get(names[0], source.fetch)
        assert cache.claim(names) == 30

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


def test_many_arrive_together_and_are_asked_for_once(tmp_path: Path) -> None:
    contents = [b"content %d" % k for k in range(10)]
    digests = [digest_of(one) for one in contents]
    source = Source(*contents)
    absent = digest_of(b"absent")

    async def main() -> None:
        cache = Cache(tmp_path)
        await cache.get(digests[0], source.fetch)
        await cache.fill([*digests, "nonsense", absent], source.fetch_many)
        assert source.asked_many == [[*digests[1:], absent]]
        assert [path.read_bytes() for one in digests if (path := cache.path(one))] == contents
        assert cache.path(absent) is None
        assert cache.size_bytes == sum(map(len, contents))
        await cache.fill(digests, source.fetch_many)
        assert len(source.asked_many) == 1
        assert cache.changes() == (tuple(digests), ())
        assert Cache(tmp_path).path(digests[9]) is not None

    anyio.run(main)


def test_of_many_the_wrong_one_is_left_out_and_what_came_before_a_break_stays(tmp_path: Path) -> None:
    contents = [b"content %d" % k for k in range(9)]
    digests = [digest_of(one) for one in contents]
    source = Source(*contents)
    source.contents[digests[1]] = b"another"

    async def main() -> None:
        cache = Cache(tmp_path)
        source.breaks_at = 6
        with pytest.raises(Unavailable):
            await cache.fill(digests, source.fetch_many)
        assert [cache.path(one) is not None for one in digests] == [True, False, *[True] * 4, *[False] * 3]
        source.contents[digests[1]] = contents[1]
        source.breaks_at = None
        await cache.fill(digests, source.fetch_many)
        assert source.asked_many[-1] == [digests[1], *digests[6:]]
        assert all(cache.path(one) for one in digests)
        assert not list(tmp_path.glob("*.part"))

    anyio.run(main)


def test_what_is_already_on_its_way_is_left_to_that_download(tmp_path: Path) -> None:
    contents = [b"x" * 95, b"y" * 95]
    first, second = map(digest_of, contents)
    source = Source(*contents)

    async def main() -> None:
        cache = Cache(tmp_path)
        async with anyio.create_task_group() as group:
            group.start_soon(cache.get, first, source.fetch)
            await anyio.lowlevel.checkpoint()
            await cache.fill([first, second], source.fetch_many)
        assert source.asked_many == [[second]]
        async with anyio.create_task_group() as group:
            third = digest_of(b"z")
            source.contents[third] = b"z"
            group.start_soon(cache.fill, [third], source.fetch_many)
            await anyio.lowlevel.checkpoint()
            assert (await cache.get(third, source.fetch)).read_bytes() == b"z"
        assert [digest for digest, _ in source.asked] == [first]

    anyio.run(main)


def test_many_stay_within_the_cap_and_are_told_heartbeat_by_heartbeat(tmp_path: Path) -> None:
    contents = [b"%4d" % k for k in range(1000)]
    digests = [digest_of(one) for one in contents]
    source = Source(*contents)

    async def main() -> None:
        cache = Cache(tmp_path, cap_bytes=2000)
        await cache.fill(digests[:500], source.fetch_many)
        await cache.fill(digests[500:], source.fetch_many)
        assert cache.size_bytes == 2000
        assert [one for one in digests if cache.path(one)] == digests[500:]
        told: set[str] = set()
        while any(changes := cache.changes()):
            assert len(changes[0]) + len(changes[1]) <= 512
            told = (told | set(changes[0])) - set(changes[1])
        assert told == set(digests[500:])

    anyio.run(main)
