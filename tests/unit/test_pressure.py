"""What waits while the disk is behind: dispatch, new requests, log lines; and that it goes on afterwards."""

from __future__ import annotations

import pytest

from orchestrator.core.stimulus import DiskState
from orchestrator.engine.pressure import LOG_LINES, Pressure
from orchestrator.instrument import Instrument
from protocol.errors import Overloaded, Unavailable


class Desk:
    def __init__(self) -> None:
        self.said: list[bool] = []
        self.instrument = Instrument()
        self.pressure = Pressure(self.say, self.instrument, hold=10)

    def say(self, stimulus: DiskState) -> None:
        self.said.append(stimulus.full)


def test_dispatch_stops_over_the_bound_and_goes_on_at_half_of_it() -> None:
    desk = Desk()
    desk.pressure.appended(10)
    desk.pressure.admit()
    desk.pressure.appended(1)
    assert desk.said == [True]
    with pytest.raises(Overloaded, match="11 events behind") as refused:
        desk.pressure.admit()
    assert (refused.value.exit_code, "again in" in refused.value.hint) == (5, True)
    assert "11 events behind" in desk.pressure.warnings()[0]
    desk.pressure.committed(5)
    assert desk.said == [True]
    desk.pressure.committed(1)
    assert desk.said == [True, False]
    desk.pressure.admit()
    assert desk.pressure.warnings() == ()


def test_a_full_disk_stops_everything_new_until_there_is_room() -> None:
    desk = Desk()
    desk.pressure.disk_full(True)
    with pytest.raises(Unavailable, match="disk of the server is full") as refused:
        desk.pressure.admit()
    assert "asterism gc" in refused.value.hint
    assert "full" in desk.pressure.warnings()[0]
    desk.pressure.appended(11)
    desk.pressure.disk_full(False)
    assert desk.said == [True]  # there is room, but it is behind
    desk.pressure.committed(11)
    assert desk.said == [True, False]


def test_log_lines_are_let_go_and_counted_rather_than_kept_without_bound() -> None:
    desk = Desk()
    assert desk.pressure.takes_line(0)
    assert not desk.pressure.takes_line(LOG_LINES)
    desk.pressure.disk_full(True)
    assert not desk.pressure.takes_line(0)
    assert desk.instrument.counts["log_lines_let_go"] == 2
