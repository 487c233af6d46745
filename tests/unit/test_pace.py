"""How much a stream may say and how often a worker may come: buckets, and the door."""

from __future__ import annotations

import anyio
import pytest

from orchestrator.door import MOST, REMEMBERED, WIDTH, Door
from orchestrator.pace import FRAMES, HELLOS, RATES, Bucket, Pace
from protocol.frame import Call, Heartbeat, Progress, Report


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(10.0, 5.0, 0.0)
    assert sum(bucket.take(0.0) for _ in range(100)) == 5
    assert bucket.wait_s(0.0) == pytest.approx(0.1)
    assert sum(bucket.take(1.0) for _ in range(100)) == 5
    assert sum(bucket.take(1.0 + k / 100) for k in range(1, 101)) == 10
    assert not bucket.take(1.5), "a clock that goes back gives nothing"


@pytest.mark.parametrize("kind", [Heartbeat, Call, Progress])
def test_what_a_stream_says_is_heard_up_to_its_rate(kind: type) -> None:
    pace, (rate, burst) = Pace(0.0), RATES[kind]
    heard = sum(pace.admits(kind, k / 50_000) for k in range(100_000))
    assert burst + rate <= heard <= burst + 2 * rate + 1


def test_reports_are_never_dropped_and_frames_only_slow_down() -> None:
    pace, (rate, burst) = Pace(0.0), FRAMES
    assert all(pace.admits(Report, 0.0) for _ in range(10_000))
    waits = [pace.frame(0.0) for _ in range(int(burst) + 100)]
    assert set(waits[: int(burst)]) == {0.0}
    assert waits[-1] == pytest.approx(100 / rate)


def test_a_worker_that_comes_again_and_again_stays_away_and_others_do_not() -> None:
    door, (_, burst) = Door(), HELLOS
    assert [door.often(1, 0.0) > 0 for _ in range(8)] == [False] * int(burst) + [True] * (8 - int(burst))
    assert door.often(2, 0.0) == 0
    assert door.often(1, 1.0) == 0
    for worker in range(10, 10 + 2 * REMEMBERED):
        door.often(worker, 100.0 + worker)
    assert len(door._visits) <= REMEMBERED


def test_a_turn_of_the_loop_lets_a_few_in_and_none_is_forgotten() -> None:
    async def main() -> list[int]:
        door, inside, turns = Door(), [], [0]

        async def come(k: int) -> None:
            await door.enter()
            inside.append((turns[0], k))

        async with anyio.create_task_group() as group:
            for k in range(200):
                group.start_soon(come, k)
            while len(inside) < 200:
                await anyio.lowlevel.checkpoint()
                turns[0] += 1
        assert [k for _, k in inside] == list(range(200))
        return [sum(at == turn for at, _ in inside) for turn in range(turns[0] + 1)]

    assert max(anyio.run(main)) <= 2 * WIDTH


def test_who_would_wait_too_long_is_told_when_to_come_again() -> None:
    door = Door()
    door._waiting = 100
    assert door.busy(0.5) == 0
    door._a_turn_s = 0.05
    assert door.busy(0.5) == pytest.approx(5.0)
    assert door.busy(0.0) < door.busy(0.9)
    door._waiting, door._a_turn_s = MOST, 0.0001
    assert door.busy(0.5) > 0
