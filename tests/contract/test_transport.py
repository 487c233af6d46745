"""One suite for every transport: what a worker and a client may rely on, in memory and over real gRPC alike."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import grpc.aio
import pytest

from protocol import loopback, transport
from protocol.artifact import CHUNK_BYTES, SMALL_BYTES, Content, digest_of
from protocol.authority import Authority
from protocol.bundle import ASKED_LIMIT, split
from protocol.certificate import make_ca, new_key
from protocol.certificate import request as request_
from protocol.clock import VirtualClock
from protocol.codec import METHODS, SERVICE
from protocol.errors import (
    AsterismError,
    Conflict,
    NotAllowed,
    NotFound,
    PlanRefused,
    Problem,
    ServerUnreachable,
    Unavailable,
    UsageError,
    WireError,
)
from protocol.frame import Ack, Assign, Bye, Drained, Frame, Goodbye, Heartbeat
from protocol.grpc_call import LINK, client_options, server_options
from protocol.ids import AttemptId, Fence
from protocol.pipe import Fate
from protocol.port import Channel, FrameStream
from protocol.security import Keyring, Principal, Tls, key_credential, secret_hash

SECRETS = {
    "worker-secret": Principal("pi-1", "worker", 3),
    "viewer-secret": Principal("ann", "viewer"),
    "admin-secret": Principal("root", "admin"),
}
RING = Keyring()
CA_KEY = new_key()
CA = make_ca("test", CA_KEY, time.time())
AUTHORITY = Authority(CA, CA_KEY, ("localhost",), 3600.0)
for _secret, _principal in SECRETS.items():
    RING.add(secret_hash(_secret), _principal)


class Desk:
    """Services that do little and remember much."""

    def __init__(self) -> None:
        self.streams: list[FrameStream] = []
        self.frames: list[Frame | None] = []
        self.serve_link: Callable[[FrameStream], Awaitable[None]] = self.echo
        self.ended = anyio.Event()
        self.asked = anyio.Event()
        self.watchers = 0
        self.watch_left = anyio.Event()
        self.submitted: list[tuple[str, bytes, bytes]] = []
        self.cut_off = anyio.Event()
        self.held: dict[str, bytes] = {}
        self.messages: list[int] = []

    async def link(self, stream: FrameStream) -> None:
        self.streams.append(stream)
        try:
            await self.serve_link(stream)
        finally:
            self.ended.set()

    async def echo(self, stream: FrameStream) -> None:
        """Answer every frame with an Ack frame of the same number, until it ends."""
        while True:
            frame = await stream.receive()
            self.frames.append(frame)
            if frame is None:
                return
            await stream.send(Frame(frame.n, frame.n, (Ack((AttemptId(1, 2, 3),)),)))
            if frame.items and isinstance(frame.items[0], Goodbye):
                return

    async def invoke(self, who: Principal, method: str, body: bytes) -> bytes:
        match body:
            case b'"refuse"':
                problem = Problem("P-01", "tasks/0", "no such skill", "choose another")
                raise PlanRefused("two problems", hint="fix them", where="plan.json", problems=[problem])
            case b'"long"':
                many = [Problem("P-01", f"tasks/{k}", "x" * 200) for k in range(2000)]
                raise PlanRefused("many problems \udcff", problems=many)
            case b'"bug"':
                raise KeyError("oops")
            case b'"wait"':
                self.asked.set()
                await anyio.sleep_forever()
            case b'"big"':
                return b'"' + b"x" * (3 * 1024 * 1024) + b'"'
        return b"[" + who.name.encode() + b"," + method.encode() + b"," + body + b"]"

    async def watch(self, who: Principal, method: str, body: bytes) -> AsyncIterator[bytes]:
        self.watchers += 1
        try:
            for k in range(int(body)):
                yield b"%d" % k
            if body == b"3":
                raise NotFound("no such run", ref="r9")
            if body == b"0":
                await anyio.sleep_forever()
        finally:
            self.watchers -= 1
            self.watch_left.set()

    async def submit(self, who: Principal, header: bytes, chunks: AsyncIterator[bytes]) -> bytes:
        if header == b'"refused"':
            raise NotAllowed("not today")
        if header == b'"refused late"':
            await anext(chunks)
            raise NotAllowed("not any more")
        try:
            data = b"".join([chunk async for chunk in chunks])
        except (WireError, anyio.get_cancelled_exc_class()):
            self.cut_off.set()
            raise
        self.submitted.append((who.name, header, data))
        return b'{"run":7}'

    async def put(self, who: Principal, digest: str, media: str, offset: int, chunks: AsyncIterator[bytes]) -> int:
        if offset != len(self.held.get(digest, b"")):
            raise Conflict("the upload starts elsewhere")
        async for chunk in chunks:
            assert len(chunk) <= CHUNK_BYTES
            self.held[digest] = self.held.get(digest, b"") + chunk
        return -1

    async def has(self, who: Principal, digest: str) -> int:
        data = self.held.get(digest, b"")
        return -1 if digest_of(data) == digest else len(data)

    async def get(self, who: Principal, digest: str, offset: int) -> AsyncIterator[bytes]:
        if digest not in self.held:
            raise NotFound(f"no {digest}")
        yield self.held[digest][offset:]

    async def put_many(self, who: Principal, bundles: AsyncIterator[tuple[Content, ...]]) -> dict[str, AsterismError]:
        refused: dict[str, AsterismError] = {}
        try:
            async for contents in bundles:
                self.messages.append(len(contents))
                if any(one.media == "disk/full" for one in contents):
                    raise Unavailable("the disk is full")
                for one in contents:
                    if digest_of(one.data) == one.digest:
                        self.held[one.digest] = one.data
                    else:
                        refused[one.digest] = WireError("another content", hint="send it again")
        except (WireError, anyio.get_cancelled_exc_class()):
            self.cut_off.set()
            raise
        return refused

    async def has_many(self, who: Principal, digests: Sequence[str]) -> list[int]:
        return [await self.has(who, digest) for digest in digests]

    async def get_many(self, who: Principal, digests: Sequence[str]) -> AsyncIterator[tuple[Content, ...]]:
        if "sha256:bad" in digests:
            raise UsageError("no digest")
        for contents in split(Content(one, "", self.held[one]) for one in digests if one in self.held):
            yield contents


Dial = Callable[[str], AbstractAsyncContextManager[Channel]]
Open = Callable[[Desk], AbstractAsyncContextManager[Dial]]


@asynccontextmanager
async def grpc_pair(desk: Desk) -> AsyncIterator[Dial]:
    server = await transport.serve("127.0.0.1:0", desk, RING.authenticate)
    try:
        yield lambda secret: transport.dial(f"127.0.0.1:{server.port}", secret)
    finally:
        await server.aclose(0.1)


@asynccontextmanager
async def memory_pair(desk: Desk) -> AsyncIterator[Dial]:
    async with loopback.serve(desk, RING.authenticate) as server:
        yield lambda secret: loopback.dial(server, secret)


@asynccontextmanager
async def tls_pair(desk: Desk) -> AsyncIterator[Dial]:
    """As grpc_pair, with a certificate for each of the secrets; others are strangers."""
    ring, members = Keyring(), {}
    for secret, who in SECRETS.items():
        key = new_key()
        kind = "worker" if who.role == "worker" else "client"
        certificate, held = AUTHORITY.sign(request_(key), kind, who.name)
        members[secret] = Tls(AUTHORITY.ca, certificate, key)
        ring.add(key_credential(held), who)
    server = await transport.serve("127.0.0.1:0", desk, ring.authenticate, authority=AUTHORITY)
    where, stranger = f"127.0.0.1:{server.port}", Tls(AUTHORITY.ca)
    try:
        yield lambda secret: transport.dial(
            where, "" if secret in members else secret, tls=members.get(secret, stranger)
        )
    finally:
        await server.aclose(0.1)


@pytest.fixture(params=[memory_pair, grpc_pair, tls_pair], ids=["loopback", "grpc", "tls"])
def pair(request: pytest.FixtureRequest) -> Open:
    opened: Open = request.param
    return opened


def both(test: Callable[[Desk, Dial], Awaitable[None]]) -> Callable[[Open], None]:
    """Run the test's body against an open pair, with a bound that only a hang reaches."""

    @functools.wraps(test, assigned=("__name__", "__doc__"), updated=())
    def run(pair: Open) -> None:
        async def main() -> None:
            with anyio.fail_after(30):
                desk = Desk()
                async with pair(desk) as dial:
                    await test(desk, dial)

        anyio.run(main)

    del run.__wrapped__
    return run


def assign(k: int, size: int = 10) -> Assign:
    return Assign(AttemptId(7, k, 1), Fence(3, k), b"p" * 32, b'"' + b"s" * size + b'"', f"r7/t{k}#1")


@both
async def test_frames_arrive_whole_and_in_order(desk: Desk, dial: Dial) -> None:
    async with dial("worker-secret") as channel:
        stream = await channel.link()
        for n in range(1, 51):
            await stream.send(Frame(n, n - 1, (Heartbeat(at=float(n)), Drained())))
        got = [await stream.receive() for _ in range(50)]
    assert got == [Frame(n, n, (Ack((AttemptId(1, 2, 3),)),)) for n in range(1, 51)]
    assert desk.frames[:50] == [Frame(n, n - 1, (Heartbeat(at=float(n)), Drained())) for n in range(1, 51)]


@both
async def test_the_server_knows_which_worker_a_stream_is_from_and_no_secret(desk: Desk, dial: Dial) -> None:
    async with dial("worker-secret") as channel:
        await channel.link()
        while not desk.streams:
            await anyio.lowlevel.checkpoint()
        peer = dict(desk.streams[0].peer)
        assert float(peer.pop("lasts_s", "1")) > 0
        assert peer == {"worker": "3", "name": "pi-1", "role": "worker"}


@both
async def test_a_full_frame_of_two_megabytes_travels_and_a_larger_one_is_refused_at_home(
    desk: Desk, dial: Dial
) -> None:
    async def send_large(stream: FrameStream) -> None:
        await stream.send(Frame(1, 0, (assign(1, 2 * 1024 * 1024 - 200),)))
        with pytest.raises(WireError):
            await stream.send(Frame(2, 0, (assign(1, 2 * 1024 * 1024),)))
        await stream.send(Frame(2, 0, (Bye(),)))

    desk.serve_link = send_large
    async with dial("worker-secret") as channel:
        stream = await channel.link()
        first, second, end = await stream.receive(), await stream.receive(), await stream.receive()
    assert first is not None
    assert isinstance(first.items[0], Assign)
    assert second == Frame(2, 0, (Bye(),))
    assert end is None


@both
async def test_a_cancelled_receive_loses_nothing(desk: Desk, dial: Dial) -> None:
    async with dial("worker-secret") as channel:
        stream = await channel.link()
        for _ in range(3):
            with anyio.move_on_after(0.01):
                await stream.receive()
        for n in range(1, 4):
            await stream.send(Frame(n, 0, ()))
        assert [frame.n for frame in [await stream.receive() for _ in range(3)] if frame] == [1, 2, 3]


@both
async def test_after_the_server_returns_the_worker_receives_what_was_sent_and_then_none_for_ever(
    desk: Desk, dial: Dial
) -> None:
    async with dial("worker-secret") as channel:
        stream = await channel.link()
        await stream.send(Frame(1, 0, (Goodbye("done"),)))
        assert await stream.receive() is not None
        assert [await stream.receive() for _ in range(3)] == [None, None, None]
        await stream.send(Frame(2, 0, ()))  # to nobody: no error, no effect
        await stream.aclose()
        await stream.aclose()


@both
async def test_a_worker_that_vanishes_ends_the_servers_stream(desk: Desk, dial: Dial) -> None:
    async with dial("worker-secret") as channel:
        stream = await channel.link()
        await stream.send(Frame(1, 0, ()))
        await stream.receive()
    await desk.ended.wait()
    assert desk.frames == [Frame(1, 0, ()), None]


@both
async def test_a_session_that_reads_late_gets_what_arrived_and_then_the_end(desk: Desk, dial: Dial) -> None:
    go_on = anyio.Event()

    async def late(stream: FrameStream) -> None:
        await go_on.wait()
        while (frame := await stream.receive()) is not None:
            desk.frames.append(frame)

    desk.serve_link = late
    async with dial("worker-secret") as channel:
        stream = await channel.link()
        for n in range(1, 41):
            await stream.send(Frame(n, 0, ()))
    go_on.set()
    await desk.ended.wait()
    assert desk.frames == [Frame(n, 0, ()) for n in range(1, len(desk.frames) + 1)]


@both
async def test_what_a_worker_sent_before_closing_still_arrives(desk: Desk, dial: Dial) -> None:
    async def read_all(stream: FrameStream) -> None:
        while (frame := await stream.receive()) is not None:
            desk.frames.append(frame)
            await stream.send(frame)

    desk.serve_link = read_all
    async with dial("worker-secret") as channel:
        stream = await channel.link()
        await stream.send(Frame(1, 0, (Goodbye(),)))
        assert await stream.receive() == Frame(1, 0, (Goodbye(),))
    await desk.ended.wait()
    assert desk.frames == [Frame(1, 0, (Goodbye(),))]


@both
async def test_a_session_that_fails_reaches_the_worker_typed(desk: Desk, dial: Dial) -> None:
    async def refuse(stream: FrameStream) -> None:
        raise NotAllowed("this worker is not welcome", hint="leave")

    desk.serve_link = refuse
    async with dial("worker-secret") as channel:
        with pytest.raises(NotAllowed, match="not welcome"):
            await first_frame(channel)


async def first_frame(channel: Channel) -> Frame | None:
    stream = await channel.link()
    return await stream.receive()


@both
async def test_a_server_that_stops_reading_holds_its_worker_back_and_is_left_behind_at_once(
    desk: Desk, dial: Dial
) -> None:
    async def deaf(stream: FrameStream) -> None:
        await anyio.sleep_forever()

    desk.serve_link = deaf
    async with dial("worker-secret") as channel:
        stream = await channel.link()
        sent = 0
        with anyio.move_on_after(0.3):
            while True:
                await stream.send(Frame(sent + 1, 0, (assign(1, 1024 * 1024),)))
                sent += 1
        assert sent < 100


@both
async def test_no_credential_no_entry(desk: Desk, dial: Dial) -> None:
    async with dial("someone-else") as channel:
        for call in (channel.invoke("ps", b"{}"), channel.link(), channel.has("sha256:" + "0" * 64)):
            with pytest.raises(NotAllowed) as caught:
                await call
            assert caught.value.exit_code == 4
    assert not desk.streams


@both
async def test_a_role_opens_its_methods_and_no_other(desk: Desk, dial: Dial) -> None:
    async with dial("viewer-secret") as viewer:
        assert await viewer.invoke("ps", b"{}") == b"[ann,ps,{}]"
        for call in (viewer.invoke("shutdown", b"{}"), viewer.invoke("nonsense", b"{}"), viewer.link()):
            with pytest.raises(NotAllowed):
                await call
        with pytest.raises(NotAllowed):
            await viewer.submit(b"{}", chunks(b"x"))
    async with dial("worker-secret") as worker:
        with pytest.raises(NotAllowed):
            await worker.invoke("ps", b"{}")


@both
async def test_errors_of_the_far_side_arrive_as_themselves(desk: Desk, dial: Dial) -> None:
    async with dial("admin-secret") as channel:
        with pytest.raises(PlanRefused) as caught:
            await channel.invoke("ps", b'"refuse"')
        assert caught.value.message == "two problems"
        assert caught.value.hint == "fix them"
        assert caught.value.where == "plan.json"
        assert caught.value.problems == (Problem("P-01", "tasks/0", "no such skill", "choose another"),)
        with pytest.raises(PlanRefused) as caught:
            await channel.invoke("ps", b'"long"')
        assert caught.value.problems
        with pytest.raises(AsterismError, match="KeyError") as bug:
            await channel.invoke("ps", b'"bug"')
        assert type(bug.value) is AsterismError
        assert await channel.invoke("ps", b"1") == b"[root,ps,1]"


@both
async def test_a_question_that_is_given_up_ends_nothing_but_its_own_scope(desk: Desk, dial: Dial) -> None:
    given_up = anyio.CancelScope()

    async def ask(channel: Channel) -> None:
        with given_up:
            await channel.invoke("info", b'"wait"')

    async with dial("viewer-secret") as channel, anyio.create_task_group() as group:
        group.start_soon(ask, channel)
        await desk.asked.wait()
        given_up.cancel()
        assert await channel.invoke("info", b"1")
    assert given_up.cancelled_caught
    assert not group.cancel_scope.cancel_called


@both
async def test_a_long_answer_arrives_whole(desk: Desk, dial: Dial) -> None:
    async with dial("admin-secret") as channel:
        assert len(await channel.invoke("result", b'"big"')) == 3 * 1024 * 1024 + 2


@both
async def test_a_watch_streams_and_ends(desk: Desk, dial: Dial) -> None:
    async with dial("viewer-secret") as channel:
        assert [body async for body in channel.watch("events", b"5")] == [b"0", b"1", b"2", b"3", b"4"]
        events = aiter(channel.watch("events", b"3"))
        assert [await anext(events) for _ in range(3)] == [b"0", b"1", b"2"]
        with pytest.raises(NotFound, match="no such run"):
            await anext(events)
        with pytest.raises(NotAllowed):
            await anext(channel.watch("shutdown", b"5"))


@both
async def test_a_watcher_that_leaves_is_let_go_at_the_server(desk: Desk, dial: Dial) -> None:
    async with dial("viewer-secret") as channel:
        with anyio.move_on_after(0.05):
            async for _ in channel.watch("events", b"0"):
                pass
        await desk.watch_left.wait()
        assert desk.watchers == 0
        desk.watch_left = anyio.Event()
        forgotten = channel.watch("events", b"100")
        assert await anext(forgotten) == b"0"
    await desk.watch_left.wait()
    assert desk.watchers == 0


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@both
async def test_a_submission_arrives_whole_in_pieces(desk: Desk, dial: Dial) -> None:
    async with dial("admin-secret") as channel:
        plan = b"x" * (CHUNK_BYTES * 3 + 17)
        assert await channel.submit(b'{"key":"k"}', chunks(plan, b"", b"tail")) == b'{"run":7}'
        assert await channel.submit(b'{"key":"l"}', chunks()) == b'{"run":7}'
    assert desk.submitted == [("root", b'{"key":"k"}', plan + b"tail"), ("root", b'{"key":"l"}', b"")]


@both
async def test_a_submission_that_is_cut_off_did_not_happen(desk: Desk, dial: Dial) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise OSError("the file is gone")

    async with dial("admin-secret") as channel:
        with pytest.raises(OSError, match="the file is gone"):
            await channel.submit(b"{}", broken())
        await desk.cut_off.wait()
    assert not desk.submitted


@both
async def test_a_refused_upload_says_why_although_nobody_reads_it(desk: Desk, dial: Dial) -> None:
    async with dial("admin-secret") as channel:
        with pytest.raises(NotAllowed, match="not today"):
            await channel.submit(b'"refused"', chunks(*[b"x" * CHUNK_BYTES] * 40))
        with pytest.raises(NotAllowed, match="not any more"):
            await channel.submit(b'"refused late"', chunks(*[b"x" * CHUNK_BYTES] * 40))


@both
async def test_an_artifact_goes_up_in_chunks_resumes_and_comes_back_from_any_offset(desk: Desk, dial: Dial) -> None:
    data = bytes(range(256)) * 5000
    digest = digest_of(data)
    async with dial("worker-secret") as channel:
        assert await channel.has(digest) == 0
        await channel.put(digest, "text/plain", chunks(data[:700_000]))
        assert await channel.has(digest) == 700_000
        with pytest.raises(Conflict):
            await channel.put(digest, "text/plain", chunks(data))
        await channel.put(digest, "text/plain", chunks(data[700_000:]), offset=700_000)
        assert await channel.has(digest) == -1
        assert b"".join([chunk async for chunk in channel.get(digest)]) == data
        assert b"".join([chunk async for chunk in channel.get(digest, 1_000_000)]) == data[1_000_000:]
        with pytest.raises(NotFound):
            await anext(channel.get("sha256:" + "0" * 64))


def content(data: bytes, media: str = "text/plain") -> Content:
    return Content(digest_of(data), media, data)


async def groups(*parts: Sequence[Content]) -> AsyncIterator[Sequence[Content]]:
    for part in parts:
        yield part


MANY = [content(b"%d " % k * (k % 7) * 1000 + b"%d" % k) for k in range(300)]


@both
async def test_many_small_contents_go_up_and_come_back_in_few_messages(desk: Desk, dial: Dial) -> None:
    digests = [one.digest for one in MANY]
    async with dial("worker-secret") as channel:
        assert await channel.has_many(digests) == [0] * len(MANY)
        assert await channel.put_many(groups(MANY[:250], MANY[250:])) == {}
        assert desk.held == {one.digest: one.data for one in MANY}
        size = sum(len(one.data) for one in MANY)
        assert sum(desk.messages) == len(MANY)
        assert len(desk.messages) <= 2 * size // CHUNK_BYTES + 3
        absent = "sha256:" + "0" * 64
        assert await channel.has_many([*digests, absent]) == [-1] * len(MANY) + [0]
        got = [contents async for contents in channel.get_many([absent, *digests])]
        assert [(one.digest, one.data) for contents in got for one in contents] == [
            (one.digest, one.data) for one in MANY
        ]
        assert len(got) <= 2 * size // CHUNK_BYTES + 3


@both
async def test_one_bundle_or_none_or_empty_contents_are_bundles_too(desk: Desk, dial: Dial) -> None:
    async with dial("worker-secret") as channel:
        assert await channel.put_many(groups()) == {}
        assert await channel.put_many(groups([], ())) == {}
        assert await channel.has_many([]) == []
        assert [contents async for contents in channel.get_many([])] == []
        assert desk.messages == []
        assert await channel.put_many(groups([content(b"")])) == {}
        assert [contents async for contents in channel.get_many([digest_of(b"")])] == [
            (Content(digest_of(b""), "", b""),)
        ]


@both
async def test_more_digests_than_one_ask_carries_are_asked_in_several(desk: Desk, dial: Dial) -> None:
    desk.held[digest_of(b"x")] = b"x"
    absent = [f"sha256:{k:064x}" for k in range(ASKED_LIMIT + 5)]
    async with dial("worker-secret") as channel:
        assert await channel.has_many([*absent, digest_of(b"x")]) == [0] * len(absent) + [-1]
        got = [contents async for contents in channel.get_many([*absent, digest_of(b"x")])]
        assert got == [(Content(digest_of(b"x"), "", b"x"),)]


@both
async def test_what_is_refused_of_many_harms_no_other(desk: Desk, dial: Dial) -> None:
    wrong = Content(digest_of(b"right"), "text/plain", b"wrong")
    large = content(b"x" * (SMALL_BYTES + 1))
    largest = content(b"y" * SMALL_BYTES)
    huge = content(b"z" * (5 * 1024 * 1024))
    async with dial("worker-secret") as channel:
        refused = await channel.put_many(groups([MANY[0], wrong, large], [largest, huge, MANY[1]]))
        assert {digest: type(error) for digest, error in refused.items()} == {
            wrong.digest: WireError,
            large.digest: UsageError,
            huge.digest: UsageError,
        }
        assert refused[wrong.digest].hint == "send it again"
        assert set(desk.held) == {MANY[0].digest, MANY[1].digest, largest.digest}


@both
async def test_many_that_are_cut_off_in_the_middle_fail_at_both_ends(desk: Desk, dial: Dial) -> None:
    async def broken() -> AsyncIterator[Sequence[Content]]:
        for start in range(0, 200, 50):
            yield MANY[start : start + 50]
        raise OSError("the disk is gone")

    async with dial("worker-secret") as channel:
        with pytest.raises(OSError, match="the disk is gone"):
            await channel.put_many(broken())
        await desk.cut_off.wait()
        assert set(desk.held) < {one.digest for one in MANY[:200]}
        assert await channel.put_many(groups(MANY)) == {}
        assert len(desk.held) == len(MANY)


@both
async def test_a_bundle_that_fails_at_the_far_side_says_why_wherever_it_was(desk: Desk, dial: Dial) -> None:
    full = Content(digest_of(b"full"), "disk/full", b"full")
    async with dial("worker-secret") as channel:
        for parts in ([[full]], [[full], *[MANY[k : k + 50] for k in range(0, 300, 50)]], [MANY, [full], MANY]):
            with pytest.raises(Unavailable, match="the disk is full"):
                await channel.put_many(groups(*parts))
        with pytest.raises(UsageError, match="no digest"):
            await anext(aiter(channel.get_many(["sha256:bad"])))


@both
async def test_leaving_many_early_leaves_the_channel_whole(desk: Desk, dial: Dial) -> None:
    async with dial("worker-secret") as channel:
        await channel.put_many(groups(MANY))
        found = channel.get_many([one.digest for one in MANY])
        assert await anext(found)
        await found.aclose()  # type: ignore[attr-defined]
        assert await channel.has_many([MANY[0].digest]) == [-1]


@both
async def test_many_are_for_the_roles_of_one(desk: Desk, dial: Dial) -> None:
    async with dial("viewer-secret") as viewer:
        for call in (viewer.put_many(groups(MANY)), viewer.put_many(groups()), viewer.has_many([MANY[0].digest])):
            with pytest.raises(NotAllowed):
                await call
        assert [contents async for contents in viewer.get_many([MANY[0].digest])] == []
    async with dial("someone-else") as nobody:
        with pytest.raises(NotAllowed):
            await anext(aiter(nobody.get_many([MANY[0].digest])))
    assert not desk.messages


@both
async def test_a_closed_server_is_unreachable(desk: Desk, dial: Dial) -> None:
    async def until_bye(stream: FrameStream) -> None:
        await stream.send(Frame(1, 0, (Bye(),)))

    desk.serve_link = until_bye
    async with dial("worker-secret") as channel:
        stream = await channel.link()
        assert await stream.receive() == Frame(1, 0, (Bye(),))
        assert await stream.receive() is None


CALLS: dict[str, Callable[[Channel], Awaitable[object]]] = {
    "link": lambda channel: channel.link(),
    "invoke": lambda channel: channel.invoke("ps", b"{}"),
    "watch": lambda channel: anext(aiter(channel.watch("events", b"{}"))),
    "submit": lambda channel: channel.submit(b"{}", chunks(b"x")),
    "has": lambda channel: channel.has("sha256:" + "0" * 64),
    "put_many": lambda channel: channel.put_many(groups([content(b"x")])),
    "has_many": lambda channel: channel.has_many(["sha256:" + "0" * 64]),
    "get_many": lambda channel: anext(aiter(channel.get_many(["sha256:" + "0" * 64]))),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_is_not_there_is_unreachable(name: str) -> None:
    async def main() -> None:
        server = await transport.serve("127.0.0.1:0", Desk(), RING.authenticate)
        port = server.port
        await server.aclose(0)
        async with transport.dial(f"127.0.0.1:{port}", "admin-secret") as channel:
            with anyio.fail_after(20), pytest.raises(ServerUnreachable) as caught:
                await CALLS[name](channel)
            assert caught.value.exit_code == 5

    anyio.run(main)


def test_the_two_ends_agree_on_the_constants_of_the_link() -> None:
    for edge in (False, True):
        ours, theirs = dict(client_options(edge)), dict(server_options(edge))
        assert {key: ours[key] for key in LINK[edge]} == {key: theirs[key] for key in LINK[edge]} == dict(LINK[edge])
    assert dict(client_options())["grpc.keepalive_time_ms"] == 2_000
    assert dict(client_options(edge=True))["grpc.keepalive_time_ms"] == 20_000
    assert dict(server_options())["grpc.http2.min_ping_interval_without_data_ms"] == 1_000


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.7:7000", "example.org:7000", ":7000"])
def test_an_address_off_this_machine_is_refused_without_tls(listen: str) -> None:
    async def main() -> None:
        with pytest.raises(NotAllowed) as caught:
            await transport.serve(listen, Desk(), RING.authenticate)
        assert "127.0.0.1" in caught.value.hint
        with pytest.raises(NotAllowed):
            await transport.dial(listen, "secret").__aenter__()

    anyio.run(main)


def test_a_port_in_use_is_said_with_the_fix() -> None:
    async def main() -> None:
        server = await transport.serve("127.0.0.1:0", Desk(), RING.authenticate)
        with pytest.raises(Unavailable) as caught:
            await transport.serve(f"127.0.0.1:{server.port}", Desk(), RING.authenticate)
        assert "--listen" in caught.value.hint
        await server.aclose(0)

    anyio.run(main)


def test_in_memory_a_principal_whose_credential_ends_loses_its_streams_and_nobody_else_does() -> None:
    async def main() -> None:
        async with (
            loopback.serve(Desk(), RING.authenticate) as server,
            loopback.dial(server, "worker-secret") as channel,
        ):
            stream = await channel.link()
            await stream.send(Frame(1, 0, ()))
            assert await stream.receive() is not None
            server.end(SECRETS["admin-secret"])
            await stream.send(Frame(2, 0, ()))
            assert await stream.receive() is not None
            server.end(SECRETS["worker-secret"])
            assert await stream.receive() is None

    anyio.run(main)


def test_a_scripted_network_loses_delays_and_doubles_frames_in_virtual_time() -> None:
    fates = {1: (5.0,), 2: (), 3: (0.0, 2.0), 4: (0.0,)}
    clock = VirtualClock(0.0)

    async def main() -> None:
        desk = Desk()

        async def collect(stream: FrameStream) -> None:
            while (frame := await stream.receive()) is not None:
                desk.frames.append(frame)

        desk.serve_link = collect
        fate: Fate = lambda direction, k: fates[k]  # noqa: E731
        async with loopback.serve(desk, RING.authenticate, fate=fate, clock=clock) as server:
            async with loopback.dial(server, "worker-secret") as channel:
                stream = await channel.link()
                for n in range(1, 5):
                    await stream.send(Frame(n, 0, ()))
                seen = []
                for at in (0.0, 1.9, 2.0, 5.0):
                    clock.run_until(at)
                    await anyio.wait_all_tasks_blocked()
                    seen.append([frame.n for frame in desk.frames if frame])
                assert seen == [[3, 4], [3, 4], [3, 4, 3], [3, 4, 3, 1]]

    anyio.run(main)


def test_bytes_that_are_no_frame_are_a_value_of_the_receiver_and_the_stream_goes_on() -> None:
    got: list[object] = []

    async def collect(stream: FrameStream) -> None:
        for _ in range(2):
            try:
                got.append(await stream.receive())
            except WireError as error:
                got.append(error.code)

    async def main() -> None:
        desk = Desk()
        desk.serve_link = collect
        server = await transport.serve("127.0.0.1:0", desk, RING.authenticate)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call: Any = channel.stream_stream(f"/{SERVICE}/Link")(metadata=(("authorization", "Bearer worker-secret"),))
            await call.write(b"\xff\xfe not a frame")
            await call.write(METHODS["Link"].request.encode(Frame(2, 0, ())))
            await desk.ended.wait()
            call.cancel()
        await server.aclose(0)

    anyio.run(main)
    assert got == ["WireError", Frame(2, 0, ())]
