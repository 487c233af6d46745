"""What an attempt waited for is told with its usage, and is not made longer where a device is slow."""

from __future__ import annotations

import pytest

from protocol.ids import AttemptId
from protocol.outcome import Usage
from workers.shaping import Shape
from workers.tally import Tally

ONE, OTHER = AttemptId(1, 0, 1), AttemptId(1, 1, 1)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [10.0]
    monkeypatch.setattr("workers.tally.time.perf_counter", lambda: time[0])
    return time


def test_what_an_attempt_waited_for_is_none_of_its_own_work(now: list[float]) -> None:
    tally = Tally(Shape(speed=0.5))
    tally.asked(ONE, 1)
    tally.asked(OTHER, 1)
    now[0] = 12.0
    tally.asked(ONE, 1)  # said again: it waits since the first time
    now[0] = 13.0
    tally.answered(ONE, 1)
    assert tally.extra_s(ONE, Usage(4.0)) == 1.0
    assert tally.extra_s(ONE, Usage(4.0)) == 4.0  # it was forgotten
    assert tally.extra_s(OTHER, Usage(4.0)) == 4.0  # nothing was answered


def test_two_answers_that_were_waited_for_at_once_leave_no_less_than_nothing(now: list[float]) -> None:
    tally = Tally(Shape(speed=0.5))
    for k in (1, 2):
        tally.asked(ONE, k)
    now[0] = 12.0
    for k in (1, 2):
        tally.answered(ONE, k)
    assert tally.extra_s(ONE, Usage(3.0)) == 0.0


def test_the_time_of_a_language_model_is_none_of_the_devices_own() -> None:
    tally = Tally(Shape(speed=0.5))
    assert tally.thinks(ONE, "agent.run")
    assert not tally.thinks(OTHER, "text.count")
    assert tally.extra_s(ONE, Usage(4.0, cpu_s=0.25)) == 0.25
    assert tally.extra_s(ONE, Usage(4.0, cpu_s=9.0)) == 4.0  # of others in the same process, too
    assert tally.extra_s(OTHER, Usage(4.0, cpu_s=0.25)) == 4.0
    tally.whole(ONE, Usage(4.0))
    assert tally.extra_s(ONE, Usage(4.0, cpu_s=0.25)) == 4.0  # it was forgotten


def test_what_was_brought_is_told_once() -> None:
    tally = Tally(Shape())
    tally.brought(ONE, 700, 0.25)
    tally.brought(ONE, 300)
    assert tally.whole(ONE, Usage(2.0)) == Usage(2.0, bytes_in=1000, bring_s=0.25)
    assert tally.whole(ONE, Usage(2.0)) == tally.whole(OTHER, Usage(2.0)) == Usage(2.0)
