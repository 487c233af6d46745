"""The orchestrator's machine slept: run time went on, and every worker has a whole lease to say that it is there."""

from __future__ import annotations

import pytest

from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from protocol.frame import Assign, Held, Welcome
from tests.unit.test_core_link import JOURNAL, LEASE_S, Floor

HOUR_S = 3600.0


def asleep() -> Floor:
    """Two workers, each with a task; then an hour passes in which nothing rings and nobody is heard."""
    floor = Floor(2)
    floor.join(1)
    floor.join(2)
    floor.beat(worker=1)
    floor.beat(worker=2)
    floor.submit("sim.idem", "sim.idem")
    assert len(floor.sent(Assign)) == 2
    floor.wait(0.5)
    floor.now += HOUR_S
    return floor


def lost(floor: Floor) -> int:
    return sum(one.lost for one in floor.of(e.AttemptEnded)) + len(floor.of(e.WorkerLost))


@pytest.mark.parametrize("order", ["timer first", "streams first"])
def test_whoever_comes_back_within_a_lease_goes_on_and_who_does_not_is_lost(order: str) -> None:
    floor = asleep()
    assign = floor.sent(Assign, 1)[0]
    if order == "timer first":
        floor.turn(s.Tick())
        floor.leave(1)
        floor.leave(2)
    else:
        floor.leave(1)
        floor.leave(2)
        floor.turn(s.Tick())
    floor.wait(LEASE_S - 0.5)
    assert lost(floor) == 0
    floor.join(1, last_epoch=7, running=(Held(assign.attempt, assign.fence, assign.pin),))
    assert [one.verdict for one in floor.sent(Welcome)[-1].verdicts] == ["keep"]
    floor.wait(1.0)
    assert [one.worker for one in floor.of(e.WorkerLost)] == [2]


def test_streams_that_outlived_the_sleep_are_not_suspected_before_they_can_speak() -> None:
    floor = asleep()
    floor.turn(s.Tick())
    floor.wait(1.0)
    for worker in (1, 2):
        assign = floor.sent(Assign, worker)[0]
        floor.beat(assign.attempt, worker=worker)
    floor.wait(1.5)
    assert lost(floor) == 0
    assert len(floor.sent(Assign)) == 2, "nothing was started a second time"
    assert floor.machine.state.journal == JOURNAL
