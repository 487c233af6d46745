"""The link's table is total, its frames are full but never too full, and its numbers tell what was delivered."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import decode_frame
from protocol.frame import (
    FEATURES,
    PACKED,
    Ack,
    Assign,
    Bye,
    Cancel,
    Drained,
    Frame,
    FromWorker,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Item,
    Progress,
    Report,
    Return,
    ToWorker,
    Welcome,
)
from protocol.ids import AttemptId, Fence
from protocol.link import (
    EDGE,
    EDGE_FRAME_BYTES,
    FRAME_BYTES,
    ITEM_BYTES,
    ITEMS_LIMIT,
    LANES,
    NORMAL,
    PROGRESS_KEPT,
    TABLE,
    End,
    Fault,
    Link,
    Phase,
    Taken,
    failures_after,
    lost_from,
    redial_s,
    suspect_from,
    weight,
    worker_fence,
)
from protocol.outcome import Success
from protocol.pipe import Pipe, Weather
from protocol.profile import WorkerProfile

GOLDEN = Path(__file__).resolve().parents[1] / "golden/frames_v1.json"
SAMPLES = {name: decode_frame(bytes.fromhex(text)).items[0] for name, text in json.loads(GOLDEN.read_text()).items()}
HELLO = Hello("w", "b", WorkerProfile())
WELCOME = Welcome("j", 1, 1)


def assign(k: int, size: int = 10) -> Assign:
    return Assign(AttemptId(1, k, 1), Fence(1, k), b"p" * 32, b"s" * size, f"r1/t{k}#1")


def report(k: int, size: int = 10) -> Report:
    return Report(AttemptId(1, k, 1), Fence(1, k), b"p" * 32, Success(b"1" * size))


def cut(link: Link) -> Frame:
    frame = link.cut()
    assert frame is not None
    return frame


def taken(link: Link, frame: Frame) -> Taken:
    found = link.take(frame)
    assert isinstance(found, Taken), found
    return found


def open_pair(edge: bool = False) -> tuple[Link, Link]:
    worker, server = Link("worker", edge=edge), Link("orchestrator", edge=edge)
    assert worker.put(HELLO) is None
    taken(server, cut(worker))
    assert server.put(WELCOME) is None
    taken(worker, cut(server))
    assert worker.phase is server.phase is Phase.OPEN
    return worker, server


def test_the_table_knows_every_item_in_every_phase_and_moves_only_forward() -> None:
    order = [*Phase]
    kinds = [*get_args(FromWorker), *get_args(ToWorker)]
    assert set(LANES) == set(kinds)
    for phase, kind in product(Phase, kinds):
        after = TABLE.get((phase, kind))
        if after is not None:
            assert order.index(after) >= order.index(phase)
    assert {kind for phase, kind in TABLE if phase is Phase.OPEN} == {*kinds} - {Hello, Welcome}
    assert not [kind for phase, kind in TABLE if phase is Phase.CLOSED]


@pytest.mark.parametrize("end", ["worker", "orchestrator"])
def test_whatever_arrives_in_whatever_phase_is_taken_or_a_fault(end: End) -> None:
    for phase, item in product(Phase, SAMPLES.values()):
        link = Link(end)
        link.phase = phase
        found = link.take(Frame(1, 0, (item,)))
        mine = type(item) in get_args(FromWorker if end == "worker" else ToWorker)
        if mine or (phase, type(item)) not in TABLE:
            assert isinstance(found, Fault)
            assert link.phase is phase
        else:
            assert found == Taken((item,))
            assert link.phase is TABLE[phase, type(item)]


@pytest.mark.parametrize("end", ["worker", "orchestrator"])
def test_nothing_out_of_place_can_be_put(end: End) -> None:
    for phase, item in product(Phase, SAMPLES.values()):
        link = Link(end)
        link.phase = phase
        mine = type(item) in get_args(FromWorker if end == "worker" else ToWorker)
        fits = mine and (phase, type(item)) in TABLE
        fault = link.put(item)
        assert (fault is None) == fits
        assert (link.cut() is not None) == fits


@pytest.mark.parametrize(("says", "packs"), [(0, False), (FEATURES & ~PACKED, False), (FEATURES, True), (PACKED, True)])
def test_both_ends_pack_once_a_welcome_says_that_both_can_and_never_before(says: int, packs: bool) -> None:
    worker, server = Link("worker"), Link("orchestrator")
    assert worker.put(HELLO) is None
    hello = cut(worker)
    server.take(hello)
    assert server.put(Welcome("j", 1, 1, features=says)) is None
    assert server.put(assign(1)) is None
    orders = cut(server)
    worker.take(orders)
    assert worker.put(report(1)) is None
    assert [hello.packed, orders.packed, cut(worker).packed] == [False, packs, packs]


def test_a_fault_takes_nothing_of_its_frame() -> None:
    _, server = open_pair()
    before = server.seen
    found = server.take(Frame(before + 1, 0, (report(1), HELLO)))
    assert found == Fault("OutOfPlace", "Hello from the worker while the link is open")
    assert server.seen == before


def test_goodbye_and_bye_in_either_order_close_the_link_and_let_pass_what_is_in_flight() -> None:
    worker, server = open_pair()
    server.put(assign(1))
    server.put(Bye())
    worker.put(report(2))
    worker.put(Goodbye())
    assert isinstance(worker.put(report(3)), Fault)
    assert isinstance(server.put(assign(4)), Fault)
    down, up = cut(server), cut(worker)
    assert taken(worker, down).items == (assign(1), Bye())
    assert taken(server, up).items == (report(2), Goodbye())
    assert worker.phase is server.phase is Phase.CLOSED
    assert worker.left
    assert worker.peer_left


def test_a_refusal_before_hello_is_heard() -> None:
    worker, server = Link("worker"), Link("orchestrator")
    server.put(Bye(-1.0, "no", "NotAllowed"))
    worker.put(HELLO)
    taken(worker, cut(server))
    assert worker.peer_left
    assert taken(server, cut(worker)).items == (HELLO,)


def test_delivered_names_each_assign_once_and_only_after_its_frame_was_seen() -> None:
    worker, server = open_pair()
    for k in range(3):
        server.put(assign(k))
    first = cut(server)
    server.put(assign(3))
    server.put(Cancel(AttemptId(1, 0, 1)))
    second = cut(server)
    worker.put(report(9))
    unaware = cut(worker)
    taken(worker, first)
    worker.put(report(8))
    aware = cut(worker)
    taken(worker, second)
    worker.put(Heartbeat(1.0))
    all_seen = cut(worker)
    assert taken(server, unaware).delivered == ()
    assert taken(server, aware).delivered == (AttemptId(1, 0, 1), AttemptId(1, 1, 1), AttemptId(1, 2, 1))
    assert taken(server, all_seen).delivered == (AttemptId(1, 3, 1),)


def test_a_repeated_or_overtaken_frame_changes_nothing_and_a_gap_is_counted() -> None:
    worker, server = open_pair()
    frames = []
    for k in range(3):
        worker.put(report(k))
        frames.append(cut(worker))
    assert taken(server, frames[0]).items == (report(0),)
    assert taken(server, frames[0]) == Taken(stale=True)
    assert taken(server, frames[2]).missed == 1
    assert taken(server, frames[1]) == Taken(stale=True)


def test_numbers_that_cannot_be_are_faults() -> None:
    _, server = open_pair()
    assert server.take(Frame(0, 0, ())) == Fault("BadNumber", "frames are numbered from 1")
    found = server.take(Frame(9, 2, ()))
    assert isinstance(found, Fault)
    assert found.code == "BadNumber"


def test_a_frame_is_cut_at_64_items_and_at_its_bytes() -> None:
    for edge, most in ((False, FRAME_BYTES), (True, EDGE_FRAME_BYTES)):
        _, server = open_pair(edge)
        for k in range(100):
            server.put(assign(k))
        assert [len(cut(server).items), len(cut(server).items), server.cut()] == [ITEMS_LIMIT, 36, None]
        for k in range(10):
            server.put(assign(k, most // 4))
        sizes = []
        while (frame := server.cut()) is not None:
            sizes.append(sum(map(weight, frame.items)))
        assert all(size <= most for size in sizes)
        assert len(sizes) == 4


def test_a_large_item_travels_alone_and_one_too_large_not_at_all() -> None:
    _, server = open_pair()
    server.put(assign(1))
    server.put(assign(2, FRAME_BYTES * 2))
    server.put(assign(3))
    assert [[item.attempt.task for item in cut(server).items if isinstance(item, Assign)] for _ in range(3)] == [
        [1],
        [2],
        [3],
    ]
    fault = server.put(assign(4, ITEM_BYTES))
    assert isinstance(fault, Fault)
    assert fault.code == "TooLarge"
    assert server.cut() is None
    assert server.queued == server.queued_bytes == 0


def test_results_go_first_and_progress_gives_way() -> None:
    worker, _ = open_pair()
    for k in range(PROGRESS_KEPT + 50):
        worker.put(Progress(AttemptId(1, 1, 1), k, "log", b"line"))
    for k in range(70):
        worker.put(report(k))
    assert worker.dropped_progress == 50
    first, second = cut(worker), cut(worker)
    assert all(isinstance(item, Report) for item in first.items)
    assert [type(item) for item in second.items[:7]] == [Report] * 6 + [Progress]


def test_acks_are_gathered_and_neither_they_nor_work_starve() -> None:
    _, server = open_pair()
    for k in range(200):
        server.put(Return(AttemptId(1, k, 1), 1))
        server.put(assign(k))
        server.put(Ack((AttemptId(2, k, 1), AttemptId(3, k, 1))))
    frame = cut(server)
    kinds = [type(item) for item in frame.items]
    assert kinds.count(Ack) == 1
    assert kinds.count(Assign) == 16
    assert kinds.count(Return) == 47
    ack = frame.items[kinds.index(Ack)]
    assert isinstance(ack, Ack)
    assert len(ack.attempts) == 400


def test_a_cancel_never_passes_its_assign_and_the_last_word_is_last() -> None:
    _, server = open_pair()
    for k in range(100):
        server.put(assign(k))
    server.put(Cancel(AttemptId(1, 99, 1)))
    server.put(HeartbeatAck(1.0))
    server.put(Ack((AttemptId(1, 1, 1),)))
    server.put(Bye())
    items: list[Item] = []
    while (frame := server.cut()) is not None:
        items.extend(frame.items)
    assert isinstance(items[0], HeartbeatAck)
    assert items[-3:] == [assign(99), Cancel(AttemptId(1, 99, 1)), Bye()]
    assert server.queued == server.queued_bytes == 0


@given(st.lists(st.sampled_from(sorted(SAMPLES)), max_size=200))
def test_the_count_of_what_waits_is_right_whatever_was_put(names: list[str]) -> None:
    _, server = open_pair()
    worker, _ = open_pair()
    for link in (server, worker):
        for name in names:
            link.put(SAMPLES[name])
        while (frame := link.cut()) is not None:
            assert 0 < len(frame.items) <= ITEMS_LIMIT
        assert link.queued == link.queued_bytes == 0


@pytest.mark.parametrize("seed", range(20))
def test_over_a_bad_network_every_frame_taken_is_new_and_delivered_is_never_a_lie(seed: int) -> None:
    worker, server = open_pair()
    fate = Weather(loss=0.1, double=0.1, late=0.3).fate(seed)
    down, up = Pipe[Frame]("to_worker", fate), Pipe[Frame]("to_server", fate)
    draw = random.Random(seed)
    got: list[AttemptId] = []
    delivered: list[AttemptId] = []
    for step in range(400):
        now = step * 0.005
        if step < 300:
            server.put(assign(step))
            if draw.random() < 0.5:
                worker.put(Heartbeat(now))
        else:
            worker.put(Drained())
        for link, pipe in ((server, down), (worker, up)):
            while (frame := link.cut()) is not None:
                pipe.push(frame, now)
        for frame in down.pull(now):
            got += [item.attempt for item in taken(worker, frame).items if isinstance(item, Assign)]
        for frame in up.pull(now):
            delivered += taken(server, frame).delivered
    assert len(got) == len(set(got))
    assert len(delivered) == len(set(delivered)) > 200
    lost = set(delivered) - set(got)
    assert len(lost) < 150  # passed by a later frame: the inventories find them


def test_leases_end_at_the_worker_before_they_end_at_the_orchestrator() -> None:
    for times in (NORMAL, EDGE):
        sent_at = 100.0
        for delay_s in (0.0, 0.5, 10.0):
            assert worker_fence(sent_at, times) < lost_from(sent_at + delay_s, times)
    assert worker_fence(100.0, NORMAL) == 105.0
    assert lost_from(100.0, NORMAL) == 106.0
    assert lost_from(100.0, NORMAL, loop_lag_s=2.0) == 108.0
    assert lost_from(100.0, EDGE) == 136.0


def test_a_worker_is_doubted_after_silence_or_soon_after_its_stream_broke() -> None:
    assert suspect_from(100.0, None, NORMAL) == 102.5
    assert suspect_from(100.0, 100.1, NORMAL) == pytest.approx(100.4)
    assert suspect_from(100.0, 102.4, NORMAL) == 102.5
    assert suspect_from(100.0, None, EDGE) == 112.0


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_dialling_again_waits_between_a_tenth_and_five_seconds(failures: int, luck: float) -> None:
    assert 0.1 <= redial_s(failures, luck) <= 5.0
    assert redial_s(0, luck) == 0.1


def test_only_a_stream_that_died_at_once_is_a_failure() -> None:
    assert failures_after(0, 0.0) == 1
    assert failures_after(7, 0.1) == 8
    assert failures_after(7, 0.5) == 0
