"""The worker's decisions, one sentence of wire.md at a time: no process, no clock, no socket."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import msgspec
import pytest

from protocol.artifact import ArtifactRef
from protocol.frame import (
    Ack,
    Assign,
    Bye,
    Call,
    Cancel,
    Drain,
    Drained,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Held,
    HeldVerdict,
    Hello,
    Input,
    Rejected,
    Report,
    Return,
    Welcome,
    WorkSpec,
)
from protocol.ids import AttemptId, Fence
from protocol.outcome import Failure, Stopped, Success
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import Resources
from protocol.skill import SkillSpec
from workers import instruction as do
from workers import stimulus as on
from workers.attempt import LIFE, Fact, Phase
from workers.delivery import RESEND_S
from workers.machine import Machine
from workers.setting import MachineSettings
from workers.spool import Owed, Spools

JOURNAL = "j1"
PROFILE = WorkerProfile(
    slots=2,
    capacity=Resources(cpu=2.0, memory=1000, gpu=1.0),
    skills=(
        SkillSpec("pure", effect="pure"), SkillSpec("echo", effect="pure", inline=True),
        SkillSpec("risky", effect="once", asks=True),
    ),
    policies=(("denied.*", "deny"),),
)  # fmt: skip
OK = Success(b"1")


def machine(**settings: Any) -> Machine:
    return Machine(MachineSettings("w", "boot", PROFILE, **settings))


def online(made: Machine, at: float = 0.0, **verdicts: Any) -> list[do.Instruction]:
    made.handle(on.Connected(), at)
    return made.handle(on.Received((Welcome(JOURNAL, 3, 1, **verdicts),)), at)


def joined(**settings: Any) -> Machine:
    made = machine(**settings)
    online(made)
    return made


def attempt(task: int, number: int = 1) -> AttemptId:
    return AttemptId(1, task, number)


def assign(task: int, skill: str = "pure", counter: int = 0, approved: bool = False, **spec: Any) -> Assign:
    work = WorkSpec(skill, "", msgspec.Raw(b"{}"), **{"effect": "pure", "timeout_s": 10.0, **spec})
    fence = Fence(3, counter or task)
    return Assign(
        attempt(task), fence, b"pin", msgspec.json.encode(work), f"r1/t{task}#1", approval=b"pin" if approved else b""
    )


def give(made: Machine, *items: Any, at: float = 0.0) -> list[do.Instruction]:
    return made.handle(on.Received(items), at)


def end(made: Machine, task: int, outcome: Any = OK, at: float = 0.0) -> list[do.Instruction]:
    return made.handle(on.Ended((on.Result(attempt(task), outcome),)), at)


def sent(out: list[do.Instruction], kind: type) -> list[Any]:
    return [one.item for one in out if isinstance(one, do.Send) and isinstance(one.item, kind)]


def kinds(out: list[do.Instruction]) -> list[str]:
    return [type(one).__name__ for one in out]


def started(out: list[do.Instruction]) -> list[int]:
    return [one.assign.attempt.task for one in out if isinstance(one, do.Start)]


def test_table_never_leaves_ended_and_ends_every_live_phase() -> None:
    for phase, fact in itertools.product(get_args(Phase), get_args(Fact)):
        following = LIFE.get((phase, fact))
        assert following is None or following in get_args(Phase)
        assert phase != "ended" or following is None
    assert all(LIFE[phase, "ended"] == "ended" for phase in get_args(Phase) if phase != "ended")


def test_slots_bound_what_runs_and_the_queue_keeps_its_order() -> None:
    made = joined()
    assert started(give(made, assign(1), assign(2), assign(3), assign(4))) == [1, 2]
    assert started(end(made, 2)) == [3]
    assert started(end(made, 1)) == [4]


def test_inline_attempts_need_no_slot() -> None:
    made = joined()
    assert started(give(made, *(assign(n, "echo") for n in range(1, 9)))) == list(range(1, 9))


def test_report_is_spooled_before_it_is_sent_and_forgotten_only_when_acknowledged() -> None:
    made = joined()
    give(made, assign(1))
    out = end(made, 1)
    assert kinds(out) == ["Append", "Send"]
    assert attempt(1) in made.spool.entries
    assert kinds(give(made, Ack((attempt(1),)))) == ["Forget"]
    assert not made.spool.entries


def test_once_report_leaves_only_after_it_is_on_disk() -> None:
    made = joined()
    give(made, assign(1, "risky", effect="once", approved=True))
    out = end(made, 1)
    assert [one.durable for one in out if isinstance(one, do.Append)] == [True]
    assert not sent(out, Report)
    assert kinds(made.handle(on.Saved((attempt(1),)), 0.0)) == ["Offer"]


def test_report_that_names_an_artifact_leaves_only_after_it_is_stored() -> None:
    made = joined()
    give(made, assign(1))
    ref = ArtifactRef("sha256:" + "a" * 64, "application/json", 100_000)
    assert kinds(end(made, 1, Success(ref))) == ["Append", "Store"]
    assert not [one for one in made.handle(on.Tick(), RESEND_S + 1) if isinstance(one, do.Offer)]
    assert kinds(made.handle(on.Stored(attempt(1)), 4.0)) == ["Offer"]


def test_unacknowledged_report_is_offered_again_every_two_seconds() -> None:
    made = joined()
    give(made, assign(1))
    end(made, 1)
    for at in (RESEND_S, 2 * RESEND_S, 3 * RESEND_S):
        give(made, HeartbeatAck(at), at=at)
        offers = [one for one in made.handle(on.Tick(), at) if isinstance(one, do.Offer)]
        assert offers == [do.Offer((attempt(1),))]


def test_silence_stops_nothing_and_the_late_report_is_offered_on_return() -> None:
    made = joined()
    give(made, assign(1, timeout_s=1e9))
    made.handle(on.Broken(), 1.0)
    assert kinds(made.handle(on.Tick(), 1000.0)) == []
    assert kinds(end(made, 1, at=1001.0)) == ["Append"]
    hello = sent(made.handle(on.Connected(), 1002.0), Hello)[0]
    assert [held.attempt for held in hello.spooled] == [attempt(1)]
    assert "Offer" in kinds(give(made, Welcome(JOURNAL, 4, 2), at=1002.0))


def test_verdicts_keep_hold_kill_resend_and_drop() -> None:
    made = joined()
    give(made, assign(1), assign(2))
    made.handle(on.Broken(), 0.0)
    end(made, 2)
    give_up = (HeldVerdict(attempt(1), "kill"), HeldVerdict(attempt(2), "drop"))
    out = online(made, verdicts=give_up)
    assert [one.attempt for one in out if isinstance(one, do.Kill)] == [attempt(1)]
    assert [one.attempts for one in out if isinstance(one, do.Forget)] == [(attempt(2),)]
    held = joined()
    give(held, assign(1), assign(2))
    held.handle(on.Broken(), 0.0)
    end(held, 2)
    out = online(held, verdicts=(HeldVerdict(attempt(1), "hold"), HeldVerdict(attempt(2), "hold")))
    assert "Offer" not in kinds(out)
    assert kinds(end(held, 1)) == ["Append"]
    freed = give(held, HeartbeatAck(0.0, (HeldVerdict(attempt(1), "keep"), HeldVerdict(attempt(2), "resend"))))
    assert [one.attempts for one in freed if isinstance(one, do.Offer)] == [(attempt(1),), (attempt(2),)]


def test_fenced_worker_starts_no_once_work_but_goes_on_with_the_rest() -> None:
    made = joined()
    assert sent(give(made, assign(1, "risky", effect="once", approved=True), at=5.1), Rejected)[0].code == "Fenced"
    assert started(give(made, assign(2), at=5.1)) == [2]
    give(made, HeartbeatAck(5.0), at=5.2)
    assert started(give(made, assign(3, "risky", effect="once", approved=True), at=9.9)) == [3]


def test_queued_once_work_waits_for_the_lease_and_lets_others_pass() -> None:
    made = joined()
    give(made, assign(1), assign(2), assign(3, "risky", effect="once", approved=True), assign(4))
    assert started(end(made, 1, at=6.0)) == [4]
    give(made, HeartbeatAck(6.0), at=6.0)
    assert started(end(made, 2, at=6.0)) == [3]


def test_begin_effect_is_refused_after_the_lease_even_if_the_answer_is_yes() -> None:
    made = joined()
    give(made, assign(1, "risky", effect="once", approved=True))
    assert sent(made.handle(on.Asked(attempt(1), 1, "begin_effect", b"null"), 1.0), Call)
    answer = give(made, Return(attempt(1), 1), at=20.0)[0]
    assert isinstance(answer, do.Answer)
    assert b"lease" in answer.error
    again = made.handle(on.Asked(attempt(1), 2, "begin_effect", b"null"), 20.0)[0]
    assert isinstance(again, do.Answer)
    assert again.error


def test_call_is_sent_again_until_its_return_and_after_a_reconnect() -> None:
    made = joined()
    give(made, assign(1))
    made.handle(on.Asked(attempt(1), 1, "spawn", b"{}"), 0.0)
    assert sent(made.handle(on.Tick(), RESEND_S), Call)
    made.handle(on.Broken(), 3.0)
    assert sent(online(made, 4.0), Call)
    assert kinds(give(made, Return(attempt(1), 1, b"7"), at=4.0)) == ["Answer"]
    assert not sent(made.handle(on.Tick(), 20.0), Call)


def test_an_attempt_that_is_being_stopped_may_still_keep_how_far_it_came() -> None:
    made = joined()
    give(made, assign(1))
    give(made, Cancel(attempt(1)))
    assert not sent(made.handle(on.Asked(attempt(1), 1, "spawn", b"{}"), 0.0), Call)
    assert sent(made.handle(on.Asked(attempt(1), 2, "checkpoint", b"7"), 0.0), Call)
    assert kinds(give(made, Return(attempt(1), 2))) == ["Answer"]


def test_joining_parent_lends_its_slot_and_resumes_before_the_queue() -> None:
    made = joined()
    give(made, assign(1), assign(2), assign(3), assign(4))
    assert started(made.handle(on.Asked(attempt(1), 1, "join", b"{}"), 0.0)) == [3]
    assert "Answer" not in kinds(give(made, Return(attempt(1), 1, b"[]")))
    out = end(made, 2)
    assert "Answer" in kinds(out)
    assert started(out) == []
    assert started(end(made, 1)) == [4]


def test_time_spent_waiting_does_not_count_towards_the_timeout() -> None:
    made = joined()
    give(made, assign(1, timeout_s=10.0))
    made.handle(on.Asked(attempt(1), 1, "join", b"{}"), 5.0)
    made.handle(on.Broken(), 5.0)
    assert "Kill" not in kinds(made.handle(on.Tick(), 50.0))
    online(made, 100.0)
    give(made, Return(attempt(1), 1, b"[]"), at=100.0)
    assert "Kill" not in kinds(made.handle(on.Tick(), 104.0))
    assert "Kill" in kinds(made.handle(on.Tick(), 105.5))


def test_time_in_which_the_machine_slept_does_not_count_towards_the_timeout() -> None:
    made = joined()
    give(made, assign(1, timeout_s=10.0), assign(2, timeout_s=10.0))
    made.handle(on.Asked(attempt(2), 1, "join", b"{}"), 4.0)
    made.handle(on.Broken(), 5.0)
    made.handle(on.Slept(7200.0), 7205.0)
    assert "Kill" not in kinds(made.handle(on.Tick(), 7205.0))
    online(made, 7206.0)
    give(made, Return(attempt(2), 1, b"[]"), at=7206.0)
    assert [one.attempt for one in made.handle(on.Tick(), 7210.5) if isinstance(one, do.Kill)] == [attempt(1)]
    assert [one.attempt for one in made.handle(on.Tick(), 7212.5) if isinstance(one, do.Kill)] == [attempt(2)]


def test_a_worker_that_slept_says_what_it_has_and_is_fenced_until_it_is_welcomed() -> None:
    made = joined()
    give(made, assign(1), assign(2, effect="once"))
    made.handle(on.Slept(7200.0), 7201.0)
    assert kinds(made.handle(on.Tick(), 7201.0)) == ["HangUp"]
    assert made.fenced(7201.0)
    hello = sent(made.handle(on.Connected(), 7202.0), Hello)[0]
    assert [one.attempt for one in hello.running] == [attempt(1), attempt(2)]
    made.handle(on.Received((Welcome(JOURNAL, 3, 2),)), 7202.0)
    assert not made.fenced(7203.0)


def test_timeout_becomes_a_transient_failure_after_the_confirmed_exit() -> None:
    made = joined()
    give(made, assign(1, timeout_s=2.0), assign(2), assign(3))
    assert [one.attempt for one in made.handle(on.Tick(), 2.0) if isinstance(one, do.Kill)] == [attempt(1)]
    out = end(made, 1, Failure("HostDied", "signal SIGKILL", "transient"), at=3.0)
    late = sent(out, Report)[0].outcome
    assert (late.code, late.klass) == ("Timeout", "transient")
    assert started(out) == [3]


def test_cancel_is_confirmed_by_its_report_and_frees_the_slot_only_then() -> None:
    made = joined()
    give(made, assign(1), assign(2), assign(3))
    assert kinds(give(made, Cancel(attempt(1), 1.0))) == ["Kill"]
    assert not started(give(made, Cancel(attempt(1), 1.0)))
    out = end(made, 1, Stopped("gone"))
    assert isinstance(sent(out, Report)[0].outcome, Stopped)
    assert started(out) == [3]


def test_result_that_beats_its_cancel_is_reported_as_it_is() -> None:
    made = joined()
    give(made, assign(1))
    give(made, Cancel(attempt(1), 1.0))
    assert sent(end(made, 1), Report)[0].outcome == OK


def test_stealing_takes_only_what_has_not_started() -> None:
    made = joined()
    give(made, assign(1), assign(2), assign(3))
    assert give(made, Cancel(attempt(1), if_not_started=True)) == []
    stolen = sent(give(made, Cancel(attempt(3), if_not_started=True)), Report)
    assert isinstance(stolen[0].outcome, Stopped)


def test_repeated_assign_runs_once_and_an_ended_one_is_only_offered_again() -> None:
    made = joined()
    give(made, assign(1))
    assert give(made, assign(1)) == []
    end(made, 1)
    assert kinds(give(made, assign(1))) == ["Offer"]


def test_attempt_number_given_anew_runs_after_the_old_one_is_gone() -> None:
    made = joined()
    give(made, assign(1))
    assert kinds(give(made, assign(1, counter=9))) == ["Kill"]
    out = end(made, 1, Stopped("gone"))
    assert not sent(out, Report)
    assert [one.assign.fence for one in out if isinstance(one, do.Start)] == [Fence(3, 9)]


@pytest.mark.parametrize(
    ("skill", "spec", "code"),
    [("unknown", {}, "NoSuchSkill"), ("pure", {"cpu": 64.0}, "BadSpec"), ("pure", {"gpu": 2.0}, "BadSpec")],
)
def test_what_cannot_run_here_is_rejected_with_a_code(skill: str, spec: dict[str, Any], code: str) -> None:
    assert sent(give(joined(), assign(1, skill, **spec)), Rejected)[0].code == code


def test_bad_spec_and_other_version_are_rejected() -> None:
    made = joined()
    broken = msgspec.structs.replace(assign(1), spec=b"{nonsense")
    assert sent(give(made, broken), Rejected)[0].code == "BadSpec"
    other = WorkSpec("pure", "0" * 32, msgspec.Raw(b"{}"))
    assert sent(give(made, msgspec.structs.replace(assign(2), spec=msgspec.json.encode(other))), Rejected)


def test_full_outbox_accepts_nothing_and_announces_no_free_slot() -> None:
    made = joined(spool_count=1)
    give(made, assign(1))
    end(made, 1)
    assert sent(give(made, assign(2)), Rejected)[0].code == "OutboxFull"
    beat = sent(made.handle(on.Tick(), 1.0), Heartbeat)[0]
    assert (beat.free, beat.short) == (0.0, "OutboxFull")
    give(made, Ack((attempt(1),)))
    assert sent(made.handle(on.Tick(), 2.0), Heartbeat)[0].short == ""


def test_skill_that_asks_is_run_only_with_an_approval() -> None:
    refused = sent(give(joined(), assign(1, "risky")), Report)[0].outcome
    assert (refused.code, refused.klass) == ("NotApproved", "policy")
    assert started(give(joined(), assign(1, "risky", approved=True))) == [1]


def test_heartbeat_carries_the_whole_inventory() -> None:
    made = joined()
    give(made, assign(1), assign(2), assign(3))
    end(made, 1)
    beat = sent(made.handle(on.Tick(), 1.0), Heartbeat)[0]
    assert set(beat.inventory) == {attempt(1), attempt(2), attempt(3)}
    assert beat.at == 1.0


def test_stream_that_stays_silent_for_three_leases_is_given_up() -> None:
    made = joined()
    made.handle(on.Tick(), 1.0)
    assert kinds(made.handle(on.Tick(), 15.1)) == ["HangUp"]


def test_drain_hands_back_what_waits_finishes_what_runs_and_says_goodbye() -> None:
    made = joined()
    give(made, assign(1), assign(2), assign(3))
    out = give(made, Drain(10.0))
    assert [one.attempt for one in sent(out, Rejected)] == [attempt(3)]
    end(made, 1)
    end(made, 2)
    out = give(made, Ack((attempt(1), attempt(2))))
    assert sent(out, Drained)
    assert sent(out, Goodbye)
    assert kinds(out)[-1] == "Leave"


def test_drain_deadline_stops_what_still_runs_once_and_reports_it_as_nobodys_fault() -> None:
    made = joined()
    give(made, assign(1))
    give(made, Drain(2.0))
    assert "Kill" in kinds(made.handle(on.Tick(), 2.0))
    wake = made.next_wake()
    assert wake is not None
    assert wake > 2.0
    assert sent(end(made, 1, Stopped("x"), at=2.1), Report)[0].outcome.klass == "infra"


def test_other_journal_stops_what_runs_and_keeps_its_reports_apart() -> None:
    owed = Owed(Held(attempt(7), Fence(1, 1), b"pin"), 10)
    made = Machine(MachineSettings("w", "boot", PROFILE), Spools("old", {"old": 5}, {"old": {attempt(7): owed}}))
    hello = sent(made.handle(on.Connected(), 0.0), Hello)[0]
    assert (hello.journal, hello.last_epoch, len(hello.spooled)) == ("old", 5, 1)
    out = give(made, Welcome("new", 1, 1))
    assert do.Adopt("new", 1) in out
    assert "Offer" not in kinds(out)
    assert not made.spool.entries
    give(made, assign(1))
    made.handle(on.Connected(), 1.0)
    out = give(made, Welcome("old", 6, 1), at=1.0)
    assert [one.attempt for one in out if isinstance(one, do.Kill)] == [attempt(1)]
    assert not [one for one in end(made, 1) if isinstance(one, do.Append)]
    assert set(made.spool.entries) == {attempt(7)}


def test_reports_owed_to_a_journal_are_there_again_when_it_is_back() -> None:
    made = joined()
    give(made, assign(1), assign(2))
    end(made, 1)
    end(made, 2)
    give(made, Ack((attempt(2),)))
    made.handle(on.Connected(), 1.0)
    give(made, Welcome("other", 9, 1), at=1.0)
    assert not made.spool.entries
    hello = sent(made.handle(on.Connected(), 2.0), Hello)[0]
    assert (hello.journal, hello.last_epoch, hello.spooled) == ("other", 9, ())
    offers = [one for one in give(made, Welcome(JOURNAL, 4, 1), at=2.0) if isinstance(one, do.Offer)]
    assert offers == [do.Offer((attempt(1),))]


def test_a_report_is_due_again_once_however_often_it_is_asked_for() -> None:
    made = joined()
    give(made, assign(1))
    end(made, 1)
    for _ in range(5):
        give(made, assign(1))
    made.handle(on.Tick(), 1.0)
    assert kinds(made.handle(on.Tick(), 2.0)).count("Offer") == 1


def test_an_acknowledgement_of_a_heartbeat_that_was_never_sent_extends_no_lease() -> None:
    made = joined()
    give(made, HeartbeatAck(1e9), at=1.0)
    assert made.fenced(6.0)


def test_bye_that_says_never_ends_the_daemon_and_another_is_dialled_again() -> None:
    assert give(joined(), Bye(0.5)) == [do.HangUp(0.5)]
    assert give(joined(), Bye(-1.0, "superseded", "Superseded")) == [do.Leave("Superseded", "superseded")]


def test_full_disk_accepts_nothing_until_there_is_room_and_says_so_at_once() -> None:
    made = joined()
    give(made, assign(1))
    filled = made.handle(on.DiskFilled(True), 0.5) + made.handle(on.Tick(), 0.5)
    assert (sent(filled, Heartbeat)[0].free, sent(filled, Heartbeat)[0].short) == (0.0, "DiskFull")
    assert sent(give(made, assign(2)), Rejected)[0].code == "DiskFull"
    assert sent(end(made, 1), Report), "what runs is reported all the same"
    well = made.handle(on.DiskFilled(False), 0.6) + made.handle(on.Tick(), 0.6)
    assert sent(well, Heartbeat)[0].short == ""
    assert not sent(give(made, assign(3)), Rejected)


def test_artifacts_of_what_waits_for_room_are_fetched_meanwhile() -> None:
    made = joined()
    ref = ArtifactRef("sha256:" + "a" * 64, "", 10)

    def heavy(task: int) -> Assign:
        return msgspec.structs.replace(assign(task, cpu=1.0), inputs=(Input("x", ref),))

    assert kinds(give(made, heavy(1), assign(2, cpu=1.0))) == ["Start", "Start"]
    assert kinds(give(made, heavy(3), assign(4, cpu=1.0))) == ["Fetch"]
    assert started(end(made, 1)) == [3]


TWO_CARDS = msgspec.structs.replace(
    PROFILE,
    slots=4,
    capacity=Resources(cpu=4.0, gpu=2.0, vram=32),
    devices=(DeviceProfile("cpu"), DeviceProfile("gpu", "A", memory=8), DeviceProfile("gpu", "B", memory=24)),
)


def test_a_card_that_falls_off_ends_what_ran_there_and_is_announced_no_more() -> None:
    made = Machine(MachineSettings("w", "boot", TWO_CARDS))
    online(made)
    out = give(made, assign(1, gpu=1.0, vram=6), assign(2, gpu=1.0, vram=20), assign(3, gpu=1.0, vram=20), assign(4))
    assert [one.dealt for one in out if isinstance(one, do.Start)] == [(0,), (1,), ()]
    out = made.handle(on.CardsLost(frozenset({1})), 1.0)
    assert [one.attempt.task for one in out if isinstance(one, do.Kill)] == [2]
    (report,) = [one.reports[0] for one in out if isinstance(one, do.Append)]
    assert (report.attempt.task, report.outcome.code, report.outcome.klass) == (3, "DeviceLost", "infra")
    assert kinds(out)[-1] == "HangUp"
    assert not made.handle(on.CardsLost(frozenset({1})), 2.0)
    (hello,) = sent(made.handle(on.Connected(), 3.0), Hello)
    assert [one.name for one in hello.profile.devices] == ["", "A"]
    assert (hello.profile.capacity.gpu, hello.profile.capacity.vram) == (1.0, 8)
    assert {held.attempt.task for held in (*hello.running, *hello.spooled)} == {1, 2, 3, 4}
    give(made, Welcome(JOURNAL, 3, 2), at=3.0)
    (lost,) = sent(end(made, 2, Failure("CudaError", "no such device"), at=4.0), Report)
    assert (lost.outcome.code, lost.outcome.klass) == ("DeviceLost", "infra")
    assert [one.code for one in sent(give(made, assign(5, gpu=1.0, vram=20), at=5.0), Rejected)] == ["BadSpec"]
    assert started(give(made, assign(6, gpu=1.0, vram=6), at=5.0)) == []
    assert started(end(made, 1, at=6.0)) == [6]
