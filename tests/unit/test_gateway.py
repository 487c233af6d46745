"""Worker streams at the orchestrator: what the core hears, what the worker gets, and who loses by misbehaving."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from orchestrator.core.stimulus import Stimulus, WorkerGone, WorkerJoined, WorkerSent
from orchestrator.gateway import Gateway, GatewaySettings
from orchestrator.pace import HELLOS, RATES
from protocol import loopback
from protocol.errors import WireError
from protocol.frame import (
    Ack,
    Assign,
    Bye,
    Frame,
    Goodbye,
    Heartbeat,
    Hello,
    Item,
    Progress,
    Rejected,
    Report,
    Return,
    Welcome,
)
from protocol.ids import AttemptId, Fence
from protocol.link import ITEM_BYTES, Fault, Link
from protocol.outcome import Success
from protocol.port import FrameStream
from protocol.profile import WorkerProfile
from protocol.security import Keyring, Principal, bearer, secret_hash

RING = Keyring()
for _k in range(1, 4):
    RING.add(secret_hash(f"secret-{_k}"), Principal(f"w{_k}", "worker", _k))


def assign(k: int, size: int = 10) -> Assign:
    return Assign(AttemptId(1, k, 1), Fence(1, k), b"p" * 32, b"s" * size, f"r1/t{k}#1")


def report(k: int) -> Report:
    return Report(AttemptId(1, k, 1), Fence(1, k), b"p" * 32, Success(b"1"))


class Core:
    """What the gateway posts to, in order, and something to wait on."""

    def __init__(self) -> None:
        self.heard: list[Stimulus] = []
        self.progress: list[tuple[int, Progress]] = []
        self._news = anyio.Event()

    def post(self, stimulus: Stimulus) -> None:
        self.heard.append(stimulus)
        self._news.set()

    def on_progress(self, worker: int, item: Progress) -> None:
        self.progress.append((worker, item))

    async def until(self, kind: type[Any], count: int = 1) -> Any:
        while len(found := [one for one in self.heard if isinstance(one, kind)]) < count:
            self._news = anyio.Event()
            await self._news.wait()
        return found[count - 1]


class Peer:
    """The far end, honest: a real link over a real stream."""

    def __init__(self, stream: FrameStream) -> None:
        self.stream = stream
        self.link = Link("worker")
        self.got: list[Item] = []

    async def say(self, *items: Item) -> None:
        for item in items:
            assert self.link.put(item) is None
        while (frame := self.link.cut()) is not None:
            await self.stream.send(frame)

    async def hear(self) -> list[Item]:
        """The items of the next frame; empty at the end of the stream."""
        frame = await self.stream.receive()
        if frame is None:
            return []
        taken = self.link.take(frame)
        assert not isinstance(taken, Fault), taken
        self.got.extend(taken.items)
        return list(taken.items)


class Scene:
    def __init__(
        self, core: Core, gateway: Gateway, server: loopback.LoopbackServer, refused: list[tuple[str, str, str]]
    ) -> None:
        self.refused = refused
        self.core = core
        self.gateway = gateway
        self._server = server

    @asynccontextmanager
    async def worker(self, k: int = 1) -> AsyncIterator[Peer]:
        async with loopback.dial(self._server, f"secret-{k}") as channel:
            yield Peer(await channel.link())

    @asynccontextmanager
    async def joined(self, k: int = 1) -> AsyncIterator[tuple[Peer, int]]:
        async with self.worker(k) as peer:
            before = len([one for one in self.core.heard if isinstance(one, WorkerJoined)])
            await peer.say(Hello(f"w{k}", "boot", WorkerProfile()))
            conn = (await self.core.until(WorkerJoined, before + 1)).conn
            self.gateway.send(conn, Welcome("j", 1, conn))
            assert isinstance((await peer.hear())[0], Welcome)
            yield peer, conn


class _Only:
    """Services with a link and nothing else."""

    def __init__(self, link: Callable[[FrameStream], Awaitable[None]]) -> None:
        self.link = link


def play(body: Callable[[Scene], Awaitable[None]], settings: GatewaySettings | None = None) -> Scene:
    scenes: list[Scene] = []

    async def main() -> None:
        core = Core()
        refused: list[tuple[str, str, str]] = []
        gateway = Gateway(core.post, core.on_progress, settings, lambda *told: refused.append(told))
        services: Any = _Only(gateway.link)
        with anyio.fail_after(30):
            async with loopback.serve(services, RING.authenticate) as server:
                scenes.append(Scene(core, gateway, server, refused))
                await body(scenes[0])

    anyio.run(main)
    return scenes[0]


def test_a_worker_joins_reports_and_leaves_and_the_core_hears_it_in_order() -> None:
    hello = Hello("w2", "boot", WorkerProfile())

    async def body(scene: Scene) -> None:
        async with scene.joined(2) as (peer, conn):
            scene.gateway.send(conn, assign(5))
            assert await peer.hear() == [assign(5)]
            await peer.say(Progress(AttemptId(1, 5, 1), 1, "log", b"hi"), report(5), Heartbeat(1.0))
            await scene.core.until(WorkerSent)
            scene.gateway.send(conn, Ack((AttemptId(1, 5, 1),)))
            await peer.hear()
            await peer.say(Goodbye("done"))
            await scene.core.until(WorkerGone)

    scene = play(body)
    assert scene.core.heard == [
        WorkerJoined(1, 2, hello),
        WorkerSent(1, 2, (report(5), Heartbeat(1.0)), (AttemptId(1, 5, 1),)),
        WorkerSent(1, 2, (Goodbye("done"),)),
        WorkerGone(1, 2, clean=True),
    ]
    assert scene.core.progress == [(2, Progress(AttemptId(1, 5, 1), 1, "log", b"hi"))]


def test_what_is_sent_in_one_turn_leaves_in_one_frame() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined() as (peer, conn):
            for k in range(64):
                scene.gateway.send(conn, assign(k))
            assert len(await peer.hear()) == 64
            for k in range(100):
                scene.gateway.send(conn, assign(k))
                scene.gateway.send(conn, Ack((AttemptId(1, k, 1),)))
            assert [len(await peer.hear()) for _ in range(2)] == [64, 37]

    play(body)


def test_a_stream_that_breaks_is_gone_and_not_clean() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined():
            pass
        assert await scene.core.until(WorkerGone) == WorkerGone(1, 1, clean=False)
        scene.gateway.send(1, assign(1))
        scene.gateway.close(1)

    play(body)


def test_every_stream_has_its_own_number_and_newer_ones_do_not_end_older_ones() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined(1) as (first, one), scene.joined(1) as (second, two), scene.joined(3) as (_, three):
            assert [one, two, three] == [1, 2, 3]
            scene.gateway.send(one, assign(1))
            scene.gateway.send(two, assign(2))
            assert await first.hear() == [assign(1)]
            assert await second.hear() == [assign(2)]

    play(body)


def test_close_lets_everything_sent_before_leave_and_says_bye_last() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined() as (peer, conn):
            for k in range(200):
                scene.gateway.send(conn, assign(k))
            scene.gateway.close(conn)
            scene.gateway.close(conn)
            while await peer.hear():
                pass
            assert peer.got[1:-1] == [assign(k) for k in range(200)]
            assert isinstance(peer.got[-1], Bye)
            await scene.core.until(WorkerGone)

    play(body)


def test_a_bye_of_the_core_is_the_one_that_is_said() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined() as (peer, conn):
            scene.gateway.send(conn, Bye(-1.0, "superseded", "Superseded"))
            scene.gateway.close(conn)
            assert await peer.hear() == [Bye(-1.0, "superseded", "Superseded")]
            assert await peer.hear() == []

    play(body)


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (Hello("somebody", "boot", WorkerProfile()), "NotAllowed"),
        (Hello("w1", "boot", WorkerProfile(), versions=(2, 9)), "VersionMismatch"),
    ],
)
def test_a_worker_under_a_wrong_name_or_version_is_sent_away_for_good(hello: Hello, code: str) -> None:
    async def body(scene: Scene) -> None:
        async with scene.worker() as peer:
            await peer.say(hello)
            bye = (await peer.hear())[0]
            assert isinstance(bye, Bye)
            assert (bye.code, bye.retry_after_s < 0) == (code, True)
            assert await peer.hear() == []

    assert play(body).core.heard == []


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(1, 0, (report(1),))],
        [Frame(1, 0, (Heartbeat(1.0),))],
        [Frame(1, 0, (assign(1),))],
        [Frame(1, 7, (Hello("w1", "b", WorkerProfile()),))],
        [Frame(0, 0, (Hello("w1", "b", WorkerProfile()),))],
        [Frame(1, 0, (Hello("w1", "b", WorkerProfile()),)), Frame(2, 0, (report(1),))],
        [Frame(1, 0, (Hello("w1", "b", WorkerProfile()),)), Frame(2, 0, (Hello("w1", "b", WorkerProfile()),))],
    ],
)
def test_a_frame_out_of_place_ends_its_session_with_bye_and_nothing_else(frames: list[Frame]) -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined(2) as (bystander, conn), scene.worker() as peer:
            for frame in frames:
                await peer.stream.send(frame)
            last = await peer.stream.receive()
            assert last is not None
            bye = last.items[-1]
            assert isinstance(bye, Bye)
            assert bye.code in ("OutOfPlace", "BadNumber")
            assert bye.retry_after_s > 0
            assert await peer.stream.receive() is None
            scene.gateway.send(conn, assign(1))
            assert await bystander.hear() == [assign(1)]
            await bystander.say(report(1))
            await scene.core.until(WorkerSent)

    scene = play(body)
    assert scene.gateway.counts["out_of_place"] == 1
    assert [type(one) for one in scene.core.heard if one.conn == 1] == [WorkerJoined, WorkerSent, WorkerGone]  # type: ignore[union-attr]


class Garbled:
    """A stream whose frames can't be decoded."""

    peer = {"worker": "1", "name": "w1", "role": "worker"}

    def __init__(self) -> None:
        self.sent: list[Frame] = []

    async def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    async def receive(self) -> Frame | None:
        raise WireError("a frame can't be decoded")

    async def aclose(self) -> None:
        pass


def test_a_frame_that_cannot_be_decoded_ends_its_session_with_its_code() -> None:
    async def main() -> None:
        core, stream = Core(), Garbled()
        gateway = Gateway(core.post, core.on_progress)
        await gateway.link(stream)
        assert stream.sent == [Frame(1, 0, (Bye(1.0, "a frame can't be decoded", "WireError"),))]
        assert gateway.counts["bad_frames"] == 1
        assert core.heard == []

    anyio.run(main)


def test_a_worker_that_does_not_read_loses_its_stream_and_holds_up_nobody() -> None:
    settings = GatewaySettings(queue_items=500, queue_bytes=4 * 1024 * 1024)

    async def body(scene: Scene) -> None:
        async with scene.joined(1) as (_, deaf), scene.joined(2) as (healthy, conn):
            k = 0
            while scene.gateway.counts["overflowed"] == 0:
                scene.gateway.send(deaf, assign(k, 100_000))
                k += 1
                await anyio.lowlevel.checkpoint()
            assert (await scene.core.until(WorkerGone)).conn == deaf
            scene.gateway.send(conn, assign(1))
            assert await healthy.hear() == [assign(1)]

    assert play(body, settings).gateway.counts["overflowed"] == 1


def test_a_bye_that_cannot_be_said_is_given_up() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined() as (_, conn):
            for k in range(1000):
                scene.gateway.send(conn, assign(k, 200_000 if k < 70 else 10))
            scene.gateway.close(conn)
            await scene.core.until(WorkerGone)

    play(body, GatewaySettings(bye_s=0.05))


def test_an_assign_that_no_message_can_carry_is_rejected_for_its_worker() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined() as (peer, conn):
            scene.gateway.send(conn, assign(1, ITEM_BYTES))
            scene.gateway.send(conn, Return(AttemptId(1, 1, 1), 2, b'"' + b"x" * ITEM_BYTES + b'"'))
            (answer,) = await peer.hear()
            assert isinstance(answer, Return)
            assert (answer.k, b"can't travel" in answer.error) == (2, True)
            (rejected,) = (await scene.core.until(WorkerSent)).items
            assert isinstance(rejected, Rejected)
            assert (rejected.attempt, rejected.code) == (AttemptId(1, 1, 1), "TooLarge")

    play(body)


def test_closing_the_gateway_says_bye_to_all_and_to_those_who_come_after() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined(1) as (one, _), scene.joined(2) as (two, _):
            await scene.gateway.aclose()
            for peer in (one, two):
                (bye,) = await peer.hear()
                assert isinstance(bye, Bye)
                assert bye.code == "Stopping"
        async with scene.worker(3) as late:
            (bye,) = await late.hear()
            assert isinstance(bye, Bye)
            assert await late.hear() == []

    scene = play(body)
    assert [type(one) for one in scene.core.heard] == [WorkerJoined, WorkerJoined, WorkerGone, WorkerGone]


def test_repeated_frames_reach_the_core_once() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined() as (peer, _):
            frame = Frame(2, 1, (report(1),))
            await peer.stream.send(frame)
            await peer.stream.send(frame)
            await peer.stream.send(Frame(4, 1, (report(2),)))
            await scene.core.until(WorkerSent, 2)

    scene = play(body)
    assert (scene.gateway.counts["stale"], scene.gateway.counts["missed"]) == (1, 1)


def test_no_secret_reaches_the_gateway() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined():
            pass

    assert bearer("secret-1") not in repr(play(body).core.heard)


# peers that say too much, or nothing


def refusing(
    body: Callable[[Scene], Awaitable[None]], settings: GatewaySettings | None = None
) -> list[tuple[str, str]]:
    """What the refusal desk hears of such a scene: (source, code)."""
    return [(source, code) for source, code, _ in play(body, settings).refused]


def test_a_stream_without_a_hello_ends_and_is_told() -> None:
    async def body(scene: Scene) -> None:
        async with scene.worker() as peer:
            assert await peer.hear() == []

    assert refusing(body, GatewaySettings(hello_s=0.05)) == [("worker:w1", "NoHello")]


def test_a_stream_that_breaks_before_its_hello_is_nobodys_fault() -> None:
    async def body(scene: Scene) -> None:
        async with scene.worker():
            pass
        async with scene.joined():
            pass

    assert refusing(body) == []


def test_a_worker_has_a_few_streams_at_a_time() -> None:
    async def body(scene: Scene) -> None:
        async with scene.worker(), scene.worker():
            await anyio.wait_all_tasks_blocked()
            async with scene.worker() as third:
                assert [type(item) for item in await third.hear()] == [Bye]
            async with scene.joined(2):
                pass

    assert refusing(body, GatewaySettings(streams=2)) == [("worker:w1", "TooManyStreams")]


def test_a_worker_that_connects_again_and_again_is_told_how_long_to_stay_away() -> None:
    async def body(scene: Scene) -> None:
        for _ in range(int(HELLOS[1])):
            async with scene.joined():
                pass
        async with scene.worker() as peer:
            (bye,) = await peer.hear()
            assert (bye.code, bye.retry_after_s > 0) == ("TooManyHellos", True)
        async with scene.joined(2):
            pass

    assert refusing(body) == [("worker:w1", "TooManyHellos")]


def test_what_a_stream_says_over_its_rate_is_dropped_and_its_reports_are_not() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined() as (peer, _):
            for k in range(2000):
                await peer.say(Heartbeat(float(k)))
            await peer.say(*[Progress(AttemptId(1, 1, 1), k, "log", b"x") for k in range(200)])
            await peer.say(report(1))
            await peer.say(Goodbye())
            await scene.core.until(WorkerGone)

    scene = play(body)
    items = [item for one in scene.core.heard if isinstance(one, WorkerSent) for item in one.items]
    beats = sum(isinstance(item, Heartbeat) for item in items)
    assert RATES[Heartbeat][1] <= beats < 100
    assert scene.gateway.counts["too_fast"] >= 1900
    assert [item for item in items if isinstance(item, Report)] == [report(1)]


def test_a_peer_that_takes_work_and_never_says_that_it_has_seen_it_is_not_kept() -> None:
    async def body(scene: Scene) -> None:
        async with scene.joined() as (peer, conn):
            for k in range(100):
                scene.gateway.send(conn, assign(k))
                if await peer.hear() == []:
                    break
            await scene.core.until(WorkerGone)

    assert refusing(body, GatewaySettings(unconfirmed=50)) == [("worker:w1", "Overflowed")]
