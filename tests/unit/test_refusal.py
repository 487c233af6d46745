"""The refusal desk: told at once, counted after, bounded whatever peers do."""

from __future__ import annotations

from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.machine import Machine
from orchestrator.core.state import State
from orchestrator.engine.refusal import KEYS, LONGEST_S, Refusals
from orchestrator.instrument import Instrument


class Desk:
    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[s.Refused] = []
        self.instrument = Instrument()
        self.refusals = Refusals(self.told.append, lambda: self.now, self.instrument)

    def wait(self, seconds: float) -> None:
        """Tell whenever the desk asks for it, until then."""
        goal = self.now + seconds
        while (wake := self.refusals.next_wake()) is not None and wake <= goal:
            self.now = wake
            self.refusals.tell()
        self.now = goal


def test_the_first_refusal_is_told_at_once_and_the_rest_of_the_window_in_one() -> None:
    desk = Desk()
    for k in range(1000):
        desk.refusals.refused("worker:w1", "StaleFence", f"a report of r1/a#{k}", 1, 0)
    assert desk.told == [s.Refused("worker:w1", "StaleFence", "a report of r1/a#0", 1, 1, 0)]
    desk.wait(10.0)
    assert desk.told[1:] == [s.Refused("worker:w1", "StaleFence", "a report of r1/a#999", 999, 1, 0)]
    assert desk.instrument.counts == {"peer_refused": 1000}


def test_what_goes_on_is_told_ever_less_often_and_nothing_is_left_uncounted() -> None:
    desk = Desk()
    for _ in range(3600):
        desk.refusals.refused("address:10.0.0.1", "NotAllowed")
        desk.wait(1.0)
    desk.wait(LONGEST_S)
    assert sum(one.count for one in desk.told) == 3600
    assert len(desk.told) < 20
    assert desk.refusals.next_wake() is not None
    desk.wait(LONGEST_S)
    assert desk.refusals.next_wake() is None


def test_however_many_names_they_invent_the_desk_stays_small() -> None:
    desk = Desk()
    for k in range(10_000):
        desk.refusals.refused(f"worker:w{k}", f"Code{k}", "x" * 5000)
    desk.wait(10.0)
    assert len(desk.told) <= KEYS + 2
    assert sum(one.count for one in desk.told) == 10_000
    assert sum(one.count for one in desk.told if one.source == "others") == 10_000 - KEYS
    assert max(len(one.message) for one in desk.told) <= 300


def test_a_strangers_text_is_printable_and_can_be_written() -> None:
    desk = Desk()
    desk.refusals.refused("worker:\x1b[31m\ud800", "A\nB", "tab\there")
    (told,) = desk.told
    assert (told.source, told.code, told.message) == ("worker:?[31m?", "A?B", "tab?here")
    assert f"{told.source}{told.code}".encode()


def test_a_refusal_names_a_run_only_if_there_is_one() -> None:
    machine = Machine(State())
    machine.handle(s.Started(1, "j"), 1.0)
    decision = machine.handle(s.Refused("worker:w1", "UnknownAttempt", "a report of r9/0#1", 3, 9, 4), 2.0)
    assert decision.events == (e.PeerRefused("worker:w1", "UnknownAttempt", "a report of r9/0#1", 3, 0, -1, 2.0),)
