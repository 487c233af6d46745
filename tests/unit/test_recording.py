from __future__ import annotations

from orchestrator.core import event as e
from orchestrator.core.event_codec import decode_events
from orchestrator.engine.recording import MOST, records_of
from protocol.ids import Fence
from protocol.outcome import Success


def dispatched(run: int, task: int) -> e.AttemptDispatched:
    return e.AttemptDispatched(run, task, 1, 1, Fence(1, task), b"pin")


def finished(run: int, task: int) -> list[e.Event]:
    return [e.AttemptEnded(run, task, 1, Success(b"1")), e.TaskSettled(run, task, "succeeded", 1)]


def test_records_hold_every_event_once_in_order_under_its_number() -> None:
    events = [*finished(1, 0), *finished(2, 0), e.RunSettled(2, "succeeded"), dispatched(1, 1), dispatched(1, 2)]
    records = records_of(events, 7, 5.0)
    assert [event for record in records for event in decode_events(record.body)] == events
    assert [(one.seq, one.run, one.kind, one.at) for one in records] == [
        (7, 1, "AttemptEnded", 5.0),
        (9, 2, "AttemptEnded", 5.0),
        (11, 2, "RunSettled", 5.0),
        (12, 1, "AttemptDispatched", 5.0),
    ]


def test_a_record_is_bounded_and_never_parts_an_end_from_what_it_settled() -> None:
    events = [dispatched(1, 0), *(event for task in range(MOST) for event in finished(1, task))]
    bodies = [decode_events(record.body) for record in records_of(events, 1, 0.0)]
    assert [len(body) for body in bodies] == [MOST + 1, MOST]
    assert all(type(body[0]) is not e.TaskSettled for body in bodies)


def test_events_of_other_kinds_have_a_record_of_their_own() -> None:
    events: list[e.Event] = [e.RunPaused(1, "me"), e.RunResumed(1, "me")]
    assert [len(decode_events(record.body)) for record in records_of(events, 1, 0.0)] == [1, 1]
