"""What is in the store is whole, verified, private and findable; uploads resume where they broke off."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from orchestrator.artifacts.store import COMPLETE, JSON_ITEMS, ArtifactStore, Kept
from orchestrator.artifacts.transfer import Transfer
from protocol.artifact import CHUNK_BYTES, SMALL_BYTES, ArtifactRef, Content, digest_of
from protocol.errors import Conflict, NotFound, SchemaMismatch, UsageError, WireError
from protocol.security import Principal

WHO = Principal("pi-1", "worker", 1)
DATA = bytes(range(256)) * 5000
DIGEST = digest_of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "server" / "artifacts")


def files(store: ArtifactStore) -> list[Path]:
    return [path for path in store.path(DIGEST).parents[1].rglob("*") if path.is_file()]


async def chunks(*parts: bytes, then: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if then is not None:
        raise then


def test_a_content_goes_in_and_comes_out_whole_and_from_any_offset(store: ArtifactStore) -> None:
    assert store.put(DATA, "text/plain") == ArtifactRef(DIGEST, "text/plain", len(DATA))
    assert store.put(DATA).digest == DIGEST
    assert store.has(DIGEST) == COMPLETE
    assert store.size(DIGEST) == len(DATA)
    assert b"".join(store.read(DIGEST)) == DATA
    assert b"".join(store.read(DIGEST, 1_000_001)) == DATA[1_000_001:]
    assert max(len(chunk) for chunk in store.read(DIGEST)) == CHUNK_BYTES
    assert list(store.read(DIGEST, len(DATA) + 9)) == []


def test_only_the_owner_can_read_anything(store: ArtifactStore) -> None:
    store.put(DATA)
    store.upload(digest_of(b"other")).close()
    top = store.path(DIGEST).parents[1]
    for path in [top, top.parent, *top.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_broken_upload_goes_on_where_it_stopped(store: ArtifactStore) -> None:
    first = store.upload(DIGEST)
    first.write(DATA[:700_000])
    first.close()
    assert store.has(DIGEST) == 700_000
    second = store.upload(DIGEST, 700_000)
    second.write(DATA[700_000:])
    assert store.has(DIGEST) == len(DATA)
    second.finish()
    assert store.has(DIGEST) == COMPLETE
    assert b"".join(store.read(DIGEST)) == DATA
    assert len(files(store)) == 1


def test_an_upload_may_go_back_but_never_leave_a_hole(store: ArtifactStore) -> None:
    first = store.upload(DIGEST)
    first.write(b"wrong from the start")
    first.close()
    with pytest.raises(Conflict, match="20 are here"):
        store.upload(DIGEST, 21)
    again = store.upload(DIGEST, 0)
    again.write(DATA)
    again.finish()
    assert b"".join(store.read(DIGEST)) == DATA


def test_content_under_a_wrong_name_never_appears(store: ArtifactStore) -> None:
    upload = store.upload(DIGEST)
    upload.write(DATA[:-1] + b"?")
    with pytest.raises(WireError):
        upload.finish()
    assert store.has(DIGEST) == 0
    assert files(store) == []


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "../../etc/passwd", "sha256:" + "../" * 21 + "a", "sha256:" + "A" * 64]
)
def test_a_name_that_is_no_digest_leads_nowhere(store: ArtifactStore, digest: str) -> None:
    for call in (store.has, store.size, store.open, store.upload):
        with pytest.raises(UsageError):
            call(digest)


def test_what_is_not_there_is_not_found(store: ArtifactStore) -> None:
    for call in (store.size, store.open, store.json_at, lambda digest: list(store.read(digest))):
        with pytest.raises(NotFound):
            call(DIGEST)


def test_json_is_read_at_a_pointer_without_being_changed(store: ArtifactStore) -> None:
    text = b' {"files": [{"name": "a", "size":1.0}, null], "a/b": {"~": true}, "n": 12345678901234567890}'
    digest = store.put(text).digest
    assert store.json_at(digest) == text
    assert store.json_at(digest, ("files", "0")) == b'{"name": "a", "size":1.0}'
    assert store.json_at(digest, ("files", "0", "size")) == b"1.0"
    assert store.json_at(digest, ("a/b", "~")) == b"true"
    assert store.json_at(digest, ("n",)) == b"12345678901234567890"
    assert store.length_at(digest, ("files",)) == 2
    for pointer in (("nothing",), ("files", "2"), ("files", "-1"), ("files", "01"), ("files", "9" * 5000), ("n", "0")):
        with pytest.raises(NotFound):
            store.json_at(digest, pointer)
    with pytest.raises(SchemaMismatch, match="no list"):
        store.length_at(digest, ("a/b",))


def test_what_is_no_json_or_too_much_of_it_is_said(store: ArtifactStore) -> None:
    for text in (b"", b"not json", b"[1,", b'{"a":}', b"[" * 100_000, b'"\xff"', b'["\\ud800"]'):
        digest = store.put(text).digest
        with pytest.raises(SchemaMismatch):
            store.json_at(digest)
        with pytest.raises((SchemaMismatch, NotFound)):
            store.json_at(digest, ("0", "x"))
    most = store.put(json.dumps([0] * JSON_ITEMS).encode()).digest
    assert store.length_at(most) == JSON_ITEMS
    over = store.put(json.dumps([0] * (JSON_ITEMS + 1)).encode()).digest
    with pytest.raises(UsageError, match="items"):
        store.length_at(over)
    with pytest.raises(UsageError, match="items"):
        store.json_at(over, ("0",))


def test_an_artifact_beyond_the_limit_is_not_read_as_json(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.artifacts.store.JSON_BYTES", 10)
    with pytest.raises(UsageError, match="read up to 10"):
        store.json_at(store.put(b'"12345678901"').digest)


def test_a_transfer_that_is_cut_off_keeps_what_came(store: ArtifactStore) -> None:
    async def main() -> None:
        transfer = Transfer(store)
        with pytest.raises(WireError, match="cut off"):
            await transfer.put(WHO, DIGEST, "", 0, chunks(DATA[:600_000], then=WireError("cut off")))
        assert await transfer.has(WHO, DIGEST) == 600_000
        assert await transfer.put(WHO, DIGEST, "", 600_000, chunks(DATA[600_000:])) == COMPLETE
        assert b"".join([chunk async for chunk in transfer.get(WHO, DIGEST, 5)]) == DATA[5:]
        with pytest.raises(UsageError):
            await transfer.put(WHO, DIGEST, "", -1, chunks())

    anyio.run(main)


def test_two_uploads_of_one_content_take_turns_and_the_second_finds_it_here(store: ArtifactStore) -> None:
    async def main() -> None:
        transfer = Transfer(store)
        half_way, go_on = anyio.Event(), anyio.Event()
        pulled: list[str] = []

        async def slow() -> AsyncIterator[bytes]:
            yield DATA[:1000]
            half_way.set()
            await go_on.wait()
            yield DATA[1000:]

        async def other() -> AsyncIterator[bytes]:
            pulled.append("other")
            yield DATA

        async def second() -> None:
            await half_way.wait()
            go_on.set()
            assert await transfer.put(WHO, DIGEST, "", 0, other()) == COMPLETE

        async with anyio.create_task_group() as group:
            group.start_soon(second)
            assert await transfer.put(WHO, DIGEST, "", 0, slow()) == COMPLETE
        assert pulled == []
        assert b"".join(store.read(DIGEST)) == DATA
        assert not transfer._uploads

    anyio.run(main)


def test_contents_survive_a_restart(store: ArtifactStore) -> None:
    store.put(DATA)
    upload = store.upload(digest_of(b"partial"))
    upload.write(b"part")
    upload.close()
    store.keep([content(b"never settled")], [])
    again = ArtifactStore(store.path(DIGEST).parents[1])
    assert again.has(DIGEST) == COMPLETE
    assert again.has(digest_of(b"partial")) == 4
    assert again.has(digest_of(b"never settled")) == 0
    assert len(files(again)) == 2


def content(data: bytes) -> Content:
    return Content(digest_of(data), "", data)


def test_many_small_contents_are_kept_together_but_for_the_wrong_ones(store: ArtifactStore) -> None:
    good = [content(b"%d" % k) for k in range(200)]
    wrong = Content(digest_of(b"right"), "", b"wrong")
    large = content(b"x" * (SMALL_BYTES + 1))
    nonsense = Content("../../etc/passwd", "", b"x")
    kept: list[Kept] = []
    refused = store.keep([*good[:100], wrong, large, nonsense, *good[100:]], kept)
    assert {digest: type(error) for digest, error in refused.items()} == {
        wrong.digest: WireError,
        large.digest: UsageError,
        nonsense.digest: UsageError,
    }
    assert [store.has(one.digest) for one in good] == [0] * len(good)
    store.settle(kept)
    assert len(files(store)) == len(good)
    assert all(b"".join(store.read(one.digest)) == one.data for one in good)
    again: list[Kept] = []
    assert store.keep(good, again) == {}
    assert not again
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(store)} == {0o600}


def test_small_contents_are_collected_a_message_at_a_time_without_what_is_not_there(store: ArtifactStore) -> None:
    good = [content(bytes([k]) * 50_000) for k in range(30)]
    large = store.put(b"x" * (SMALL_BYTES + 1)).digest
    kept: list[Kept] = []
    store.keep(good, kept)
    store.settle(kept)
    digests = [digest_of(b"absent"), large, *(one.digest for one in good), digest_of(b"absent too")]
    got: list[Content] = []
    messages = 0
    while digests:
        found, covered = store.collect(digests)
        assert sum(len(one.data) for one in found) <= CHUNK_BYTES
        got += found
        messages += 1
        digests = digests[covered:]
    assert got == good
    assert messages == 3
    with pytest.raises(UsageError):
        store.collect(["nonsense"])


def test_a_transfer_of_many_keeps_what_came_before_a_cut_off(store: ArtifactStore) -> None:
    good = [content(b"%d" % k) for k in range(9)]

    async def bundles(then: Exception | None = None) -> AsyncIterator[tuple[Content, ...]]:
        yield tuple(good[:3])
        if then is not None:
            raise then
        yield tuple(good[3:])

    async def main() -> None:
        transfer = Transfer(store)
        digests = [one.digest for one in good]
        with pytest.raises(WireError, match="cut off"):
            await transfer.put_many(WHO, bundles(WireError("cut off")))
        assert await transfer.has_many(WHO, digests) == [COMPLETE] * 3 + [0] * 6
        assert await transfer.put_many(WHO, bundles()) == {}
        assert await transfer.has_many(WHO, digests) == [COMPLETE] * 9
        assert [found async for found in transfer.get_many(WHO, digests)] == [tuple(good)]
        assert [found async for found in transfer.get_many(WHO, [digest_of(b"absent")])] == []

    anyio.run(main)


def test_a_small_upload_is_kept_whole_refused_or_left_to_go_on_with(store: ArtifactStore) -> None:
    small = b"small" * 100
    digest = digest_of(small)

    async def main() -> None:
        transfer = Transfer(store)
        with pytest.raises(WireError, match="cut off"):
            await transfer.put(WHO, digest, "", 0, chunks(small[:100], then=WireError("cut off")))
        assert await transfer.has(WHO, digest) == 100
        with pytest.raises(WireError, match="not that of"):
            await transfer.put(WHO, digest, "", 0, chunks(b"wrong"))
        assert await transfer.has(WHO, digest) == 0
        assert await transfer.put(WHO, digest, "", 0, chunks(small[:100], small[100:])) == COMPLETE
        assert files(store) == [store.path(digest)]
        assert [chunk async for chunk in transfer.get(WHO, digest, 490)] == [small[490:]]
        assert [chunk async for chunk in transfer.get(WHO, digest, 500)] == []

    anyio.run(main)
