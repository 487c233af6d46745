"""Join tokens in the core: what they buy, how often, until when, and that a replay knows it too."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.command import Reply
from orchestrator.core.event_codec import decode_events, encode_events
from orchestrator.core.machine import Machine
from orchestrator.core.state import State


class Desk:
    """A machine, the journal of its events, and the answer to each request."""

    def __init__(self) -> None:
        self.machine = Machine(State())
        self.bodies: list[bytes] = []
        self.tell(s.Started(1, "j" * 32))

    def tell(self, stimulus: Any, now: float = 1.0) -> Any:
        """The answer; a refusal as its code."""
        decision = self.machine.handle(stimulus, now)
        self.bodies += [encode_events((event,)) for event in decision.events]
        for command in decision.commands:
            if isinstance(command, Reply):
                return command.error["code"] if command.error is not None else command.value
        return None

    def replayed(self) -> State:
        state = State()
        for body in self.bodies:
            for event in decode_events(body):
                state.apply(event)
        return state


def token(desk: Desk, role: str = "worker", **options: Any) -> int:
    return int(desk.tell(s.TokenAsked(1, "t" * 64, role, by="ada", **options))["token"])


def test_a_token_buys_as_many_identities_as_it_has_uses_and_no_more() -> None:
    desk = Desk()
    number = token(desk, uses=2)
    assert desk.tell(s.Enrolled(1, "w1", "a" * 64, "", number))["worker"] == 1
    assert desk.tell(s.Enrolled(1, "w2", "b" * 64, "", number))["worker"] == 2
    assert desk.tell(s.Enrolled(1, "w3", "c" * 64, "", number)) == "NotAllowed"
    assert [record.name for record in desk.machine.state.workers.values()] == ["w1", "w2"]


def test_a_token_without_a_number_of_uses_is_good_until_its_time() -> None:
    desk = Desk()
    number = token(desk, uses=0, ttl_s=10.0)
    for at in range(9):
        assert desk.tell(s.Enrolled(1, f"w{at}", "a" * 64, "", number), float(at))["worker"] == at + 1
    assert desk.tell(s.Enrolled(1, "late", "a" * 64, "", number), 11.0) == "NotAllowed"


@pytest.mark.parametrize("role", ["viewer", "submitter", "approver", "admin"])
def test_a_clients_token_buys_no_worker_and_a_workers_token_no_client(role: str) -> None:
    desk = Desk()
    client, worker = token(desk, role), token(desk, "worker")
    assert desk.tell(s.Enrolled(1, "w1", "a" * 64, "", client)) == "NotAllowed"
    assert desk.tell(s.ClientEnrolled(1, worker, "ada", "a" * 64)) == "NotAllowed"
    assert desk.tell(s.ClientEnrolled(1, client, "ada", "a" * 64))["role"] == role


def test_revoking_ends_the_token_and_its_clients_once() -> None:
    desk = Desk()
    number = token(desk, "viewer", uses=0)
    desk.tell(s.ClientEnrolled(1, number, "ada", "a" * 64))
    desk.tell(s.TokenRevocation(1, number, "root"))
    assert desk.machine.state.tokens[number].clients == []
    assert desk.tell(s.ClientEnrolled(1, number, "bob", "b" * 64)) == "NotAllowed"
    assert desk.tell(s.TokenRevocation(1, number, "root")) == "Conflict"
    assert desk.tell(s.TokenRevocation(1, 99, "root")) == "NotFound"


def test_revoking_ends_the_workers_too_but_for_those_who_came_again_with_another_token() -> None:
    desk = Desk()
    first, second = token(desk, "worker", uses=0), token(desk, "worker", uses=0)
    desk.tell(s.Enrolled(1, "w1", "a" * 64, "", first))
    desk.tell(s.Enrolled(1, "w2", "b" * 64, "", first))
    desk.tell(s.Enrolled(1, "w2", "c" * 64, "", second))
    desk.tell(s.TokenRevocation(1, first, "root"))
    state = desk.machine.state
    assert {record.name: record.secret_hash for record in state.workers.values()} == {"w1": "", "w2": "c" * 64}
    assert state.tokens[first].ended == ["a" * 64]
    assert desk.replayed().snapshot() == state.snapshot()


def test_the_owners_own_token_leaves_one_that_can_be_revoked() -> None:
    desk = Desk()
    found = desk.tell(s.ClientEnrolled(1, 0, "ada", "a" * 64))
    assert found["role"] == "admin"
    assert desk.machine.state.tokens[found["token"]].state(2.0) == "used up"


def test_replay_and_snapshot_know_every_token() -> None:
    desk = Desk()
    number = token(desk, "submitter", uses=3, ttl_s=60.0)
    desk.tell(s.ClientEnrolled(1, number, "ada", "a" * 64))
    desk.tell(s.TokenRevocation(1, token(desk, "worker"), "root"))
    live = desk.machine.state
    assert desk.replayed().snapshot() == live.snapshot()
    assert State.restore(live.snapshot()).tokens == live.tokens


def test_a_head_that_was_written_before_there_were_tokens_is_read() -> None:
    import msgspec

    parts = State(3, "j" * 32).snapshot()
    head = msgspec.msgpack.decode(parts[0])
    assert State.restore({0: msgspec.msgpack.encode(head[:7])}).tokens == {}
    assert e.run_of(e.TokenRevoked(1)) == 0
