"""The rules of the worker link in the core: identities, verdicts, leases, lies. Every word is said by the test."""

from __future__ import annotations

from typing import Any

import pytest

from bench.simulated_skill import profile_of
from orchestrator.core import command as c
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.adoption import REFUSED_KEPT
from orchestrator.core.event_codec import decode_events, encode_events
from orchestrator.core.fleet import ANNOUNCED_MOST, ANNOUNCED_S
from orchestrator.core.joining import EPOCHS_AHEAD, HELD_MOST
from orchestrator.core.lifecycle import Ready, Running, Settled, Unknown
from orchestrator.core.machine import Machine
from orchestrator.core.reconcile import JUNK_MOST, STRAYS_A_BEAT
from orchestrator.core.state import State
from protocol.document import canonical
from protocol.frame import (
    Ack,
    Assign,
    Bye,
    Call,
    Cancel,
    Heartbeat,
    HeartbeatAck,
    Held,
    Hello,
    Rejected,
    Report,
    Welcome,
)
from protocol.ids import AttemptId, Fence
from protocol.outcome import Failure, Outcome, Stopped, Success
from protocol.patch import Patch
from protocol.profile import WorkerProfile
from protocol.skill import SkillSpec
from protocol.task import RunSettings, TaskSpec

JOURNAL = "5eed" * 8
LEASE_S = 6.0


class Floor:
    """A machine with workers whose every word a test says itself. `now` only goes where it is told to."""

    def __init__(self, workers: int = 1, epoch: int = 7) -> None:
        self.now = 100.0
        self.events: list[Any] = []
        self.commands: list[Any] = []
        self.machine = Machine(State())
        self.conns = 0
        self.conn: dict[int, int] = {}
        self.handle(s.Started(epoch, JOURNAL))
        for k in range(1, workers + 1):
            self.handle(s.Enrolled(0, f"w{k}", f"hash{k}"))

    def handle(self, stimulus: s.Stimulus) -> c.Decision:
        decision = self.machine.handle(stimulus, self.now)
        self.events += decision.events
        self.commands += decision.commands
        self.machine.check()
        return decision

    def turn(self, stimulus: s.Stimulus) -> None:
        self.handle(stimulus)
        self.handle(s.Flush())

    def wait(self, seconds: float) -> None:
        """Time passes; every timer rings in time."""
        goal = self.now + seconds
        while (wake := self.machine.next_wake()) is not None and wake <= goal:
            self.now = max(self.now, wake)
            self.turn(s.Tick())
        self.now = goal

    def join(self, worker: int = 1, boot: str = "boot", **more: Any) -> int:
        """A new stream says Hello, and something after it: what it gets does not wait for its Welcome any more."""
        self.conns += 1
        self.conn[worker] = self.conns
        options: dict[str, Any] = {"journal": JOURNAL, "last_epoch": 0, **more}
        profile = options.pop("profile", None) or profile_of()
        hello = Hello(f"w{worker}", boot, profile, **options)
        self.turn(s.WorkerJoined(self.conns, worker, hello))
        return self.conns

    def says(self, *items: Any, worker: int = 1, delivered: tuple[AttemptId, ...] = ()) -> None:
        self.turn(s.WorkerSent(self.conn[worker], worker, items, delivered))

    def beat(self, *held: AttemptId, worker: int = 1, **more: Any) -> None:
        self.says(Heartbeat(self.now, held, **more), worker=worker)

    def leave(self, worker: int = 1) -> None:
        self.turn(s.WorkerGone(self.conn[worker], worker))

    def submit(self, *skills: str, on: tuple[str, ...] = ()) -> None:
        specs = tuple(TaskSpec(f"t{k}", skill, canonical({"literal": {}}), on=on) for k, skill in enumerate(skills))
        self.turn(s.Submitted(0, "", "", "me", RunSettings(), patch=Patch("person:me", specs)))

    def sent(self, kind: type, worker: int | None = None) -> list[Any]:
        """What was sent of this kind, the latest last."""
        sends = [one for one in self.commands if isinstance(one, c.Send) and type(one.item) is kind]
        return [one.item for one in sends if worker is None or one.conn == self.conn[worker]]

    def refused(self) -> list[str]:
        return [one.code for one in self.commands if isinstance(one, c.Refuse)]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    def task(self, ix: int = 0) -> Any:
        return self.machine.state.runs[1].tasks[ix]

    def proved(self) -> None:
        """Replay equals live."""
        state = State()
        for event in self.events:
            state.apply(decode_events(encode_events((event,)))[0])
        assert state.snapshot() == self.machine.state.snapshot()


def report(assign: Assign, outcome: Outcome | None = None) -> Report:
    return Report(assign.attempt, assign.fence, assign.pin, outcome or Success(b"1"))


def held(assign: Assign, digest: bytes = b"") -> Held:
    return Held(assign.attempt, assign.fence, assign.pin, digest)


def working(*skills: str, workers: int = 1) -> tuple[Floor, list[Assign]]:
    """Every worker has joined, the first task of each kind is assigned."""
    floor = Floor(workers)
    for k in range(1, workers + 1):
        floor.join(k)
        floor.beat(worker=k)
    floor.submit(*skills)
    return floor, floor.sent(Assign)


def lost(*skills: str) -> tuple[Floor, Assign]:
    """The only worker was away for longer than its lease."""
    floor, (assign,) = working(*skills)
    floor.says(Heartbeat(floor.now, (assign.attempt,)), delivered=(assign.attempt,))
    floor.leave()
    floor.wait(LEASE_S + 0.1)
    assert floor.task().attempts[0].ended == "lost"
    return floor, assign


# identities


def test_a_copy_of_the_journal_begins_behind_every_epoch_that_a_worker_has_seen() -> None:
    floor = Floor(2, epoch=7)
    floor.join(1, last_epoch=12)
    assert floor.of(e.EpochStarted)[-1] == e.EpochStarted(13, JOURNAL, "w1", 100.0)
    assert (floor.sent(Welcome)[-1].epoch, floor.machine.state.epoch, floor.machine.state.restored) == (13, 13, "w1")
    floor.beat()
    floor.submit("sim.work")
    assert floor.sent(Assign)[-1].fence > Fence(12, 2**60)
    floor.join(2, last_epoch=7)
    assert len(floor.of(e.EpochStarted)) == 2
    floor.proved()


def test_the_same_epoch_of_another_start_gives_a_copy_away_and_one_of_this_start_does_not() -> None:
    floor = Floor(1, epoch=7)
    floor.join(last_epoch=6)
    floor.join(last_epoch=7)
    floor.join(last_epoch=7, boot="restarted")
    assert floor.machine.state.epoch == 7
    copy = Floor(1, epoch=7)
    copy.join(last_epoch=7)
    assert copy.machine.state.epoch == 8


def test_an_epoch_that_nobody_can_have_reached_is_refused() -> None:
    floor = Floor(1, epoch=7)
    floor.join(last_epoch=8 + EPOCHS_AHEAD)
    assert floor.refused() == ["ImpossibleEpoch"]
    assert floor.sent(Bye)[-1].retry_after_s < 0
    assert not floor.machine.fleet.sessions


def test_what_is_held_for_another_journal_is_not_judged() -> None:
    floor, (assign,) = working("sim.work")
    floor.leave()
    floor.join(journal="f00d" * 8, last_epoch=99, running=(held(assign),), spooled=(held(assign, b"d"),))
    assert floor.sent(Welcome)[-1].verdicts == ()
    assert floor.machine.state.epoch == 7


def test_the_newer_stream_of_a_boot_takes_over_and_its_attempts_go_on() -> None:
    floor, (assign,) = working("sim.work")
    old = floor.conn[1]
    floor.join(running=(held(assign),))
    assert c.Close(old) in floor.commands
    assert [one.verdict for one in floor.sent(Welcome)[-1].verdicts] == ["keep"]
    floor.turn(s.WorkerSent(old, 1, (report(assign, Success(b'"old stream"')),)))
    assert type(floor.task().state) is Running
    floor.says(report(assign))
    assert floor.task().succeeded
    assert floor.refused() == []


def test_another_boot_loses_at_once_what_it_does_not_hold() -> None:
    floor, (assign,) = working("sim.idem")
    floor.join(boot="another")
    assert floor.task().attempts[0].ended == "lost"
    assert floor.sent(Assign)[-1].attempt.number == 2
    assert floor.sent(Assign)[-1].fence > assign.fence


def test_two_daemons_with_one_identity_are_told_when_the_replaced_one_is_back() -> None:
    floor = Floor(1)
    floor.join(boot="a")
    floor.join(boot="b")
    assert floor.refused() == []
    floor.join(boot="a")
    assert floor.refused() == ["TwoDaemons"]
    assert floor.machine.fleet.sessions[1].boot_id == "a"


def test_daemons_that_restart_each_other_are_told_by_how_often() -> None:
    floor = Floor(1)
    for k in range(5):
        floor.join(boot=f"boot{k}")
        floor.now += 2.0
    assert floor.refused() == ["TwoDaemons"]
    calm = Floor(1)
    for k in range(5):
        calm.join(boot=f"boot{k}")
        calm.now += 61.0
    assert calm.refused() == []


def test_a_worker_that_changes_the_contract_of_a_built_in_is_the_one_that_is_not_eligible() -> None:
    floor = Floor(2)
    echo = next(one for one in profile_of().skills if one.name == "flow.echo")
    other = SkillSpec("flow.echo", "Mine.", echo.params, effect="once")
    for k, skills in ((1, (other,)), (2, (echo,))):
        floor.join(k, profile=WorkerProfile(skills=skills))
        floor.beat(worker=k)
    specs = (TaskSpec("t0", "flow.echo", canonical({"literal": {"value": 1}})),)
    floor.turn(s.Submitted(0, "", "", "me", RunSettings(), patch=Patch("person:me", specs)))
    assert [floor.task().attempts[0].worker] == [2]


def test_the_contract_that_most_workers_have_wins_and_a_snapshot_remembers_the_votes() -> None:
    floor = Floor(4)
    old, new = (SkillSpec("my.skill", word, effect="pure") for word in ("old", "new"))
    for k, skill in enumerate((old, new, new), 1):
        floor.join(k, profile=WorkerProfile(skills=(skill,)))
    state = floor.machine.state
    assert state.digests["my.skill"] == new.digest()
    copy = State.restore(state.snapshot())
    for one in (state, copy):
        one.apply(e.SkillsAnnounced(2, (old,)))
        assert one.digests["my.skill"] == old.digest()
        one.apply(e.WorkerForgotten(1))
        assert one.digests["my.skill"] == new.digest()
        for worker in (2, 3):
            one.apply(e.WorkerForgotten(worker))
        assert one.digests["my.skill"] == new.digest()
    assert state.snapshot() == copy.snapshot()


# verdicts


def test_a_lost_attempt_that_still_runs_at_its_returning_worker_goes_on() -> None:
    floor, assign = lost("sim.work")
    assert type(floor.task().state) is Ready
    floor.join(running=(held(assign),))
    assert [one.verdict for one in floor.sent(Welcome)[-1].verdicts] == ["keep"]
    assert floor.of(e.AttemptRegained) == [e.AttemptRegained(1, 0, 1, False, floor.now)]
    assert (type(floor.task().state), floor.task().losses) == (Running, 0)
    floor.beat(assign.attempt)
    assert len(floor.sent(Assign)) == 1
    assert not floor.sent(Cancel)
    floor.says(report(assign))
    assert floor.task().state.winner == 1
    assert floor.of(e.WorkerLost)
    assert floor.of(e.WorkerReturned)
    floor.proved()


def test_a_lost_attempt_beside_its_copy_goes_on_and_the_first_result_wins() -> None:
    floor, (assign,) = working("sim.idem", workers=2)
    first = floor.task().attempts[0].worker
    other = 3 - first
    floor.leave(first)
    for _ in range(7):
        floor.wait(1.0)
        floor.beat(*[one.attempt for one in floor.sent(Assign, other)], worker=other)
    copy = floor.sent(Assign, other)[-1]
    assert copy.attempt.number == 2
    floor.join(first, running=(held(assign),))
    assert floor.sent(Welcome)[-1].verdicts[0].verdict == "keep"
    assert [one.hedge for one in floor.task().live()] == [True, False]
    floor.beat(assign.attempt, worker=first)
    assert not floor.sent(Cancel)
    floor.says(report(assign), worker=first)
    assert floor.task().state.winner == 1
    assert [one.attempt for one in floor.sent(Cancel, other)] == [copy.attempt]
    floor.says(report(copy, Stopped("cancelled")), worker=other)
    assert not floor.task().live()
    floor.proved()


def test_a_lost_once_attempt_beside_its_copy_is_killed() -> None:
    floor, (assign,) = working("sim.once", workers=2)
    first = floor.task().attempts[0].worker
    floor.leave(first)
    for _ in range(7):
        floor.wait(1.0)
        floor.beat(*[one.attempt for one in floor.sent(Assign, 3 - first)], worker=3 - first)
    floor.join(first, running=(held(assign),))
    assert floor.sent(Welcome)[-1].verdicts[0].verdict == "kill"


def test_an_unknown_effect_that_still_runs_is_not_unknown_any_more() -> None:
    floor, (assign,) = working("sim.once")
    floor.says(Call(assign.attempt, assign.fence, 1, "begin_effect"), delivered=(assign.attempt,))
    floor.leave()
    floor.wait(LEASE_S + 0.1)
    assert type(floor.task().state) is Unknown
    floor.join(running=(held(assign),))
    assert type(floor.task().state) is Running
    floor.says(report(assign))
    assert floor.task().succeeded
    floor.proved()


def test_a_lost_attempt_of_a_task_that_is_another_by_now_is_killed() -> None:
    floor, assign = lost("sim.work")
    wrong = Held(assign.attempt, assign.fence, b"another pin")
    floor.join(running=(wrong,))
    assert floor.sent(Welcome)[-1].verdicts[0].verdict == "kill"
    floor.leave()
    floor.turn(s.CancelRequested(0, 1, "t0", "me"))
    floor.join(running=(held(assign),))
    assert floor.sent(Welcome)[-1].verdicts[0].verdict == "kill"


def test_a_late_report_of_a_lost_attempt_wins_and_a_late_failure_changes_nothing() -> None:
    floor, assign = lost("sim.work")
    floor.join(spooled=(held(assign, b"digest"),))
    assert floor.sent(Welcome)[-1].verdicts[0].verdict == "resend"
    floor.says(report(assign, Failure("Boom", "late")))
    assert type(floor.task().state) is not Settled
    floor.says(report(assign))
    assert floor.task().state.winner == 1
    assert floor.sent(Ack)[-1].attempts == (assign.attempt,)


def test_a_refused_attempt_stays_refused_for_the_epoch() -> None:
    floor, (assign,) = working("sim.work")
    stray = Held(AttemptId(1, 0, 2), Fence(7, 99), b"pin")
    floor.join(running=(held(assign), stray))
    assert [one.verdict for one in floor.sent(Welcome)[-1].verdicts] == ["keep", "kill"]
    floor.leave()
    floor.wait(LEASE_S + 0.1)
    pin = floor.task().attempts[0].pin
    floor.join(running=(Held(stray.attempt, stray.fence, pin),))
    assert floor.sent(Welcome)[-1].verdicts[0].verdict == "kill"


def test_an_assign_that_got_lost_and_is_another_by_now_is_not_sent_again() -> None:
    floor, (assign,) = working("sim.work")
    floor.join(2 - 1)  # the same boot, and it never saw its Assign
    again = floor.sent(Assign)[-1]
    assert (again.attempt, again.fence) == (assign.attempt, assign.fence)
    floor.machine.state.runs[1].tasks[0].attempts[0].pin = b"of other inputs"
    floor.join()
    assert floor.task().attempts[0].ended == "lost"


# leases


def test_a_stall_of_our_own_loop_is_nobodys_silence() -> None:
    floor, (assign,) = working("sim.idem")
    floor.wait(1.0)
    floor.beat(assign.attempt)
    floor.now += 30.0
    floor.turn(s.Tick())
    assert floor.machine.fleet.sessions[1].phase == "up"
    floor.wait(0.5)
    floor.beat(assign.attempt)
    assert not floor.of(e.AttemptEnded)
    floor.wait(LEASE_S + 0.1)
    assert [one.outcome.code for one in floor.of(e.AttemptEnded)] == ["Lost"]


def test_a_loop_that_always_lags_still_finds_out_who_is_gone() -> None:
    for leaves in (False, True):
        floor, (assign,) = working("sim.idem")
        floor.beat(assign.attempt)
        if leaves:
            floor.leave()
        start = floor.now
        while floor.task().attempts[0].live:
            wake = floor.machine.next_wake()
            assert wake is not None
            floor.now = max(floor.now, wake) + 0.4
            floor.turn(s.Tick())
        assert LEASE_S < floor.now - start < 2 * LEASE_S


def test_a_stall_gives_those_that_are_away_the_time_to_come_back() -> None:
    floor, (assign,) = working("sim.idem")
    floor.leave()
    floor.now += 30.0
    floor.turn(s.Tick())
    assert floor.task().attempts[0].live
    floor.join(running=(held(assign),))
    assert floor.task().attempts[0].live
    floor.leave()
    floor.wait(LEASE_S + 0.1)
    assert floor.task().attempts[0].ended == "lost"


@pytest.mark.parametrize(("edge", "suspect_s", "lease_s"), [(False, 2.5, 6.0), (True, 12.0, 36.0)])
def test_the_class_of_a_worker_sets_its_lease_also_after_a_start(edge: bool, suspect_s: float, lease_s: float) -> None:
    floor = Floor(1)
    floor.join(profile=profile_of(edge=edge))
    floor.beat()
    floor.submit("sim.idem")
    floor.wait(suspect_s - 0.01)
    assert floor.machine.fleet.sessions[1].phase == "up"
    floor.wait(0.02)
    assert floor.machine.fleet.sessions[1].phase == "suspect"
    floor.wait(lease_s - suspect_s - 0.02)
    assert floor.task().attempts[0].live
    floor.machine = Machine(floor.machine.state)
    floor.handle(s.Started(8, JOURNAL))
    floor.wait(lease_s - 0.1)
    assert floor.task().attempts[0].live
    floor.wait(0.2)
    assert not floor.task().attempts[0].live


# credit


def test_a_worker_that_is_full_gets_no_work_until_it_says_otherwise() -> None:
    floor = Floor(1)
    floor.join()
    floor.beat(short="DiskFull")
    floor.submit("sim.work")
    assert not floor.sent(Assign)
    floor.beat(short="DiskFull")
    assert not floor.sent(Assign)
    assert floor.machine.explain(1, "t0")["workers"][0]["why"] == "takes no new work: disk full"
    floor.beat()
    assert len(floor.sent(Assign)) == 1


@pytest.mark.parametrize("code", ["Draining", "OutboxFull", "DiskFull"])
def test_work_that_is_handed_back_loses_nothing_and_does_not_come_again_at_once(code: str) -> None:
    floor, (assign,) = working("sim.once")
    floor.says(Rejected(assign.attempt, code))
    assert (type(floor.task().state), floor.task().losses, floor.task().tries) == (Ready, 0, 0)
    assert len(floor.sent(Assign)) == 1
    if code != "Draining":
        floor.beat()
        assert len(floor.sent(Assign)) == 2
    floor.proved()


def test_a_fenced_worker_is_asked_again_a_heartbeat_later() -> None:
    floor, (assign,) = working("sim.once")
    floor.says(Rejected(assign.attempt, "Fenced"))
    assert len(floor.sent(Assign)) == 1
    floor.wait(1.01)
    assert len(floor.sent(Assign)) == 2


# lies


def test_an_inventory_of_nothing_costs_a_bounded_answer_and_is_told() -> None:
    floor = Floor(1)
    floor.join()
    floor.beat(*[AttemptId(9, k, 1) for k in range(5000)])
    assert len(floor.sent(Cancel)) == STRAYS_A_BEAT
    assert floor.refused() == ["StrangeInventory"]
    assert floor.sent(HeartbeatAck)


def test_a_worker_that_is_another_every_time_is_believed_only_so_often() -> None:
    floor = Floor(1)
    for k in range(ANNOUNCED_MOST + 5):
        floor.join(profile=profile_of(labels={"mood": str(k)}))
    assert len(floor.of(e.SkillsAnnounced)) == ANNOUNCED_MOST
    assert floor.refused() == ["TooManyProfiles"] * 5
    assert floor.sent(Bye)[-1].retry_after_s > 0
    floor.now += ANNOUNCED_S
    floor.join(profile=profile_of(labels={"mood": "new"}))
    assert len(floor.of(e.SkillsAnnounced)) == ANNOUNCED_MOST + 1


def test_a_worker_that_a_person_dismisses_and_enrols_anew_may_say_who_it_is() -> None:
    floor = Floor(1)
    for _ in range(ANNOUNCED_MOST + 5):
        floor.join()
        floor.turn(s.WorkerDismissed(1))
        floor.handle(s.Enrolled(0, "w1", "hash"))
    assert floor.refused() == []


@pytest.mark.parametrize("left", ["comes back before its old stream is known to be dead", "dismissed"])
def test_who_waits_for_a_file_of_a_worker_that_is_no_more_what_it_was_is_told_so(left: str) -> None:
    floor, _ = working("sim.work", workers=2)
    floor.handle(s.StageAsked(5, 0, 1, ("file://w1/a",)))
    if left == "dismissed":
        floor.turn(s.WorkerDismissed(1))
    else:
        floor.join(1, "another boot")
    floor.handle(s.StageAsked(6, 0, 1, ("file://w1/a",)))
    answers = [(one.reply, one.error["code"]) for one in floor.commands if isinstance(one, c.Reply) and one.error]
    assert answers == [(5, "Unavailable"), *([(6, "NotFound")] if left == "dismissed" else [])]


def test_a_report_that_is_offered_again_while_the_disk_is_full_is_acknowledged_once() -> None:
    floor, (assign,) = working("sim.work")
    floor.turn(s.DiskState(True))
    for _ in range(100):
        floor.says(report(assign))
    assert len(floor.sent(Ack)) == 1
    floor.turn(s.DiskState(False))
    floor.says(report(assign))
    assert len(floor.sent(Ack)) == 2


def test_a_hello_that_holds_more_than_any_worker_can_is_refused() -> None:
    floor = Floor(1)
    floor.join(running=tuple(Held(AttemptId(1, k, 1), Fence(1, 1), b"") for k in range(HELD_MOST + 1)))
    assert floor.refused() == ["TooMuchHeld"]


def test_what_is_remembered_of_invented_attempts_is_bounded() -> None:
    floor, (assign,) = working("sim.work", workers=2)
    for start in range(0, REFUSED_KEPT + 3000, 1000):
        items = [Report(AttemptId(5, k, 1), Fence(1, k), b"", Success(b"1")) for k in range(start, start + 1000)]
        floor.says(*items)
    turn = floor.machine._turn
    assert len(turn.refused) == REFUSED_KEPT
    assert len(floor.machine.fleet.sessions[1].holds) == 0
    floor.says(report(assign), worker=floor.task().attempts[0].worker)
    assert floor.task().succeeded


@pytest.mark.parametrize("k", [0, 1_000_000, 2**32 - 1])
def test_a_call_number_that_would_be_another_attempts_is_refused(k: int) -> None:
    floor, (assign,) = working("sim.work")
    floor.says(Call(assign.attempt, assign.fence, k, "checkpoint", b"1"))
    assert floor.refused() == ["BadCall"]


def test_a_rejection_says_no_more_than_a_line() -> None:
    floor, (assign,) = working("sim.work")
    floor.says(Rejected(assign.attempt, "X" * 10_000, "y" * 1_000_000))
    (ended,) = floor.of(e.AttemptEnded)
    assert (len(ended.outcome.code), len(ended.outcome.message)) == (40, 1000)


def test_a_stream_that_says_too_much_that_does_not_count_ends_once() -> None:
    floor, (assign,) = working("sim.work", workers=2)
    thief = 3 - floor.task().attempts[0].worker
    for _ in range(JUNK_MOST // 100 + 5):
        floor.says(*[report(assign)] * 100, worker=thief)
    assert floor.refused().count("Flooding") == 1
    assert floor.sent(Bye)[-1].code == "Flooding"
    assert floor.commands.count(c.Close(floor.conn[thief])) == 1
    assert type(floor.task().state) is Running


def test_all_are_also_those_whose_stream_broke_a_moment_ago_but_not_who_left() -> None:
    floor = Floor(3)
    for worker in (1, 2, 3):
        floor.join(worker)
    floor.leave(2)
    floor.turn(s.WorkerGone(floor.conn[3], 3, clean=True))
    floor.submit("sim.work", on=("all",))
    assert [one.workers for one in floor.of(e.MapExpanded)] == [(1, 2)]


@pytest.mark.parametrize("back", [True, False])
def test_all_waits_for_a_lease_after_a_start_for_those_that_may_be_back(back: bool) -> None:
    floor = Floor(2)
    for worker in (1, 2):
        floor.join(worker)
    floor.machine = Machine(floor.machine.state)
    floor.handle(s.Started(8, JOURNAL))
    floor.join(1, last_epoch=8)
    floor.submit("sim.work", on=("all",))
    floor.wait(1.0)
    assert not floor.of(e.MapExpanded)
    if back:
        floor.join(2, last_epoch=8)
        floor.wait(1.0)
    else:
        for _ in range(6):
            floor.beat()
            floor.wait(1.0)
    assert [one.workers for one in floor.of(e.MapExpanded)] == [(1, 2) if back else (1,)]
