"""Workers come and go, the orchestrator dies: leases, verdicts, inventory, adoption, timers after a restart."""

import pytest

from bench.fault import Faults
from bench.simulated_worker import profile_of
from bench.simulator import Simulator
from orchestrator.core import command as c
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.fleet import Load, Session
from orchestrator.core.lifecycle import Ready, Running, Waiting
from orchestrator.core.setting import CoreSettings
from protocol.frame import Ack, Assign, Cancel, Heartbeat, HeartbeatAck, Hello, Report, Return, Welcome
from protocol.ids import AttemptId, Fence
from protocol.outcome import Failure, Success


def work(ident, skill="sim.work", run_s=0.05, value=None, **more):
    return {"id": ident, "skill": skill, "args": {"value": value, "run_s": run_s}, **more}


def start(tasks, *, settings=None, core=None, **more):
    sim = Simulator(settings=core, **more)
    sim.submit({"tasks": tasks, "run": settings or {}})
    return sim


def events(sim, kind):
    return [event for _, _, decision in sim.log for event in decision.events if isinstance(event, kind)]


def sends(sim, kind):
    found = (command for _, _, decision in sim.log for command in decision.commands if isinstance(command, c.Send))
    return [command.item for command in found if isinstance(command.item, kind)]


def finish(sim, limit_s=60.0):
    sim.settle(limit_s)
    sim.prove_replay()
    return sim.states()


def test_a_broken_stream_costs_nothing_when_the_worker_is_back_in_time():
    sim = start([work("a", run_s=3.0)], workers=1, faults=Faults(kills=((0.5, 0, 0.0, "stream"),)))
    assert finish(sim) == {"a": "succeeded"}
    assert len(sim.task("a").attempts) == 1


def test_pure_work_of_a_dead_worker_starts_elsewhere_within_half_a_second():
    sim = start([work("a", run_s=3.0)])
    first = sim.task("a").attempts[0].worker
    at = sim.now
    sim.workers[first - 1].kill(60.0)
    sim.advance(0.5)
    hedge = sim.task("a").attempts[1]
    assert (hedge.hedge, hedge.worker != first, hedge.at - at <= 0.5) == (True, True, True)
    assert finish(sim) == {"a": "succeeded"}


@pytest.mark.parametrize("skill", ["sim.idem", "sim.once"])
def test_work_that_is_not_pure_waits_for_the_lease(skill):
    sim = start([work("a", skill, run_s=3.0)], faults=Faults(delay_s=(0.05, 0.05)))
    sim.advance(0.01)
    first = sim.task("a").attempts[0].worker
    sim.workers[first - 1].kill(60.0)
    sim.advance(3.0)
    assert len(sim.task("a").attempts) == 1
    assert finish(sim) == {"a": "succeeded"}
    assert sim.task("a").attempts[0].ended == "lost"


def test_another_boot_loses_at_once_what_it_does_not_hold():
    sim = start([work("a", "sim.idem", run_s=3.0)], workers=1, faults=Faults(kills=((0.5, 0, 0.2, "boot"),)))
    assert finish(sim, 6.0) == {"a": "succeeded"}
    assert [attempt.ended for attempt in sim.task("a").attempts] == ["lost", "succeeded"]


def test_a_late_report_of_lost_pure_work_still_wins_and_its_copy_is_cancelled():
    sim = start([work("a", "sim.idem", run_s=7.0)], workers=1, faults=Faults(cuts=((0.5, 0, 20.0),)))
    sim.advance(12.0)
    assert type(sim.task("a").state) is Ready
    assert finish(sim) == {"a": "succeeded"}
    assert sim.task("a").state.winner == 1
    assert sim.task("a").attempts[0].ended == "succeeded"


def test_a_late_failure_of_lost_work_changes_nothing():
    def program(job):
        yield 7.0
        return Failure("Bad", "late", "permanent") if job.number == 1 else {"value": 1}

    sim = start([work("a", "sim.idem")], workers=1, program={"a": program}, faults=Faults(cuts=((0.5, 0, 20.0),)))
    assert finish(sim) == {"a": "succeeded"}
    assert sim.counts["report_late_failure"] == 1


def test_the_loser_of_a_hedge_is_cancelled_and_its_resources_come_back():
    sim = start([work("a", run_s=4.0)], workers=2, faults=Faults(cuts=((0.2, 0, 3.5), (0.2, 1, 3.5))))
    finish(sim)
    sim.advance(5.0)
    assert all(not session.loads for session in sim.machine.fleet.sessions.values())


def test_a_suspect_that_returns_wants_no_copy_any_more():
    sim = start([work("a", run_s=6.0), work("b", run_s=6.0)], workers=2, slots=1)
    sim.workers[0].mute = True
    sim.advance(3.0)
    assert sim.machine.fleet.sessions[1].phase == "suspect"
    sim.workers[0].mute = False
    sim.advance(2.0)
    assert sim.machine.fleet.sessions[1].phase == "up"
    assert finish(sim) == {"a": "succeeded", "b": "succeeded"}
    assert len(events(sim, e.AttemptDispatched)) == 2


def test_an_assign_that_got_lost_is_sent_once_more_and_then_lost():
    sim = Simulator(workers=1)
    dropped = []

    def hears(item):
        lost = isinstance(item, Assign) and len(dropped) < 2
        if lost:
            dropped.append(item)
        return not lost

    sim.workers[0].hears = hears
    sim.submit({"tasks": [work("a", "sim.idem")]})
    assert finish(sim) == {"a": "succeeded"}
    assert [item.attempt.number for item in dropped] == [1, 1]
    assert [attempt.ended for attempt in sim.task("a").attempts] == ["lost", "succeeded"]


def test_an_assign_on_its_way_when_the_stream_broke_is_sent_again_on_the_next():
    sim = Simulator(workers=1)
    sim.submit({"tasks": [work("a", "sim.idem")]})
    sim.break_stream(sim.workers[0].stream)
    assert finish(sim, 5.0) == {"a": "succeeded"}
    assert len(sim.task("a").attempts) == 1


def test_a_lost_cancel_is_sent_again():
    sim = start([work("a", run_s=500.0)], workers=1)
    sim.advance(0.5)
    dropped = []

    def hears(item):
        lost = isinstance(item, Cancel) and not dropped
        if lost:
            dropped.append(item)
        return not lost

    sim.workers[0].hears = hears
    sim.handle(s.CancelRequested(99, 1, "", "ann"))
    assert finish(sim, 10.0) == {"a": "cancelled"}


def test_acks_leave_after_the_commit_and_nothing_overtakes_a_welcome():
    sim = start([work("a")])
    finish(sim)
    for _, _, decision in sim.log:
        for command in decision.commands:
            if isinstance(command, c.Send) and isinstance(command.item, Ack | Return | Welcome):
                assert command.after_commit
    sim = Simulator(workers=1)
    hello = Hello("w1", "again", profile_of())
    sim.submit({"tasks": [work("a")]}, key="x")
    machine = sim.machine
    machine.handle(s.WorkerJoined(77, 1, hello), sim.now)
    out = machine.handle(s.Flush(), sim.now).commands
    assert all(command.after_commit for command in out if isinstance(command, c.Send))


def test_dispatch_ahead_only_for_pure_and_for_idempotent_without_inputs():
    tasks = [work("p"), work("i", "sim.idem"), work("o", "sim.once"), work("n", "sim.idem", value={"ref": "p/value"})]
    sim = start(tasks)
    finish(sim)
    ahead = {
        command.item.name: not command.after_commit
        for _, _, decision in sim.log
        for command in decision.commands
        if isinstance(command, c.Send) and isinstance(command.item, Assign)
    }
    assert ahead == {"r1/p#1": True, "r1/i#1": True, "r1/o#1": False, "r1/n#1": False}


def test_a_crash_kills_no_attempt_and_runs_nothing_twice():
    sim = start([work("a", run_s=3.0), work("o", "sim.once", run_s=3.0), work("b", value={"ref": "a/value"})])
    sim.advance(1.0)
    sim.crash()
    assert set(finish(sim).values()) == {"succeeded"}
    assert [len(sim.task(name).attempts) for name in "aob"] == [1, 1, 1]
    assert sum(sim.effects.values()) == 1


def test_an_attempt_the_journal_does_not_know_is_adopted_by_its_pin():
    sim = Simulator(workers=1, fsync_s=0.05)
    sim.submit({"tasks": [work("a", run_s=0.06), work("b", run_s=3.0, value={"ref": "a/value"})]})
    while not (sim.workers[0].live and any(a.task == 1 for a in sim.workers[0].live)):
        sim.advance(0.001)
    assert sim.task("b").attempts
    sim.crash(away_s=0.1)
    assert set(finish(sim).values()) == {"succeeded"}
    assert sim.counts["adopted"] >= 1
    assert sim.executions[1, 1] == 1


def test_what_is_on_hold_is_judged_again_at_the_heartbeat():
    sim = Simulator(workers=2, fsync_s=0.05)
    sim.submit({"tasks": [work("a", run_s=0.06), work("b", run_s=4.0, value={"ref": "a/value"})]})
    while not any(a.task == 1 for worker in sim.workers for a in worker.live):
        sim.advance(0.001)
    winner = sim.task("a").winner().worker
    sim.workers[winner - 1].mute = True  # its report waits in its outbox, b's input has no winner yet
    sim.crash(away_s=0.1)
    sim.advance(1.0)
    sim.workers[winner - 1].mute = False
    holder = next(worker for worker in sim.workers if any(a.task == 1 for a in worker.live))
    assert set(finish(sim).values()) == {"succeeded"}
    if holder is not sim.workers[winner - 1]:
        assert sim.task("b").attempts[0].worker == holder.ident
        assert any(ack.verdicts for ack in sends(sim, HeartbeatAck))


def test_numbers_of_adopted_attempts_leave_no_room_for_a_second_of_the_same():
    sim = Simulator(workers=1)
    sim.submit({"tasks": [work("a", run_s=9.0)]})
    run = sim.state.runs[1]
    task = run.tasks[0]
    task.attempts[0].number = 3
    assert run.next_attempt(task) == 4


def test_a_join_goes_on_after_a_restart():
    def program(job):
        found = yield "spawn", {"skill": "sim.work", "args": {"value": 1, "run_s": 3.0}}
        values = yield "join", {"ids": [found["id"]]}
        return values[0]

    sim = start([work("p", "sim.parent")], program={"p": program})
    sim.advance(1.0)
    assert type(sim.task("p").state) is Waiting
    sim.crash()
    assert set(finish(sim).values()) == {"succeeded"}
    assert len(sim.task("p").attempts) == 1


def test_a_question_keeps_its_answer_across_a_restart():
    sim = start([work("q")], program={"q": lambda job: (yield "ask", {"question": "?"})})
    sim.advance(1.0)
    sim.crash()
    sim.advance(3.0)
    sim.ask(lambda reply: s.AnswerGiven(reply, 1, "q", "ann", b"1"))
    assert finish(sim) == {"q": "succeeded"}


def test_backoff_and_approval_timers_are_set_again_after_a_restart():
    def program(job):
        yield 0.01
        return Failure("Bad", "x", "transient") if job.number == 1 else {"value": 1}

    tasks = [work("a", retry={"max": 1, "backoff": 20}), work("b", approve=True)]
    sim = start(tasks, program={"a": program}, core=CoreSettings(approval_s=100.0))
    sim.advance(1.0)
    sim.crash()
    assert set(finish(sim, 200.0).values()) == {"succeeded", "failed"}
    assert sim.task("b").state.code == "ApprovalLapsed"


def test_a_started_epoch_always_grows():
    sim = Simulator()
    before = sim.state.epoch
    sim.machine.handle(s.Started(before, "j"), sim.now)
    assert sim.state.epoch == before + 1


def test_forged_and_stale_reports_change_nothing():
    sim = start([work("a", run_s=5.0)], workers=2)
    sim.advance(0.5)
    attempt = sim.task("a").attempts[0]
    mine, other = sim.machine.fleet.sessions[attempt.worker], sim.machine.fleet.sessions[3 - attempt.worker]
    ident, good = AttemptId(1, 0, 1), Success(b"666")
    forged = [
        (other, Report(ident, attempt.fence, attempt.pin, good)),
        (mine, Report(ident, Fence(0, 1), attempt.pin, good)),
        (mine, Report(ident, attempt.fence, b"pin", good)),
        (mine, Report(AttemptId(1, 0, 7), attempt.fence, b"pin", good)),
        (mine, Report(AttemptId(1, 99, 1), attempt.fence, attempt.pin, good)),
        (mine, Report(AttemptId(9, 0, 1), attempt.fence, attempt.pin, good)),
    ]
    before = sim.state.snapshot()
    for session, report in forged:
        sim.handle(s.WorkerSent(session.conn, session.worker, (report,)))
    sim.handle(s.WorkerSent(999, attempt.worker, (Report(ident, attempt.fence, attempt.pin, good),)))
    assert sim.state.snapshot() == before
    assert type(sim.task("a").state) is Running


def test_a_second_stream_supersedes_the_first_whose_frames_count_for_nothing():
    sim = start([work("a", run_s=2.0)], workers=1)
    sim.advance(0.2)
    old = sim.machine.fleet.sessions[1].conn
    sim.handle(s.WorkerJoined(500, 1, Hello("w1", "w1.1", profile_of())))
    sim.handle(s.WorkerSent(old, 1, (Heartbeat(1.0),)))
    assert sim.counts["stale_session"] == 1


def test_resources_are_counted_through_waits_and_ends():
    session = Session(1, 1, "w", "b", profile_of(2), 0.0)
    key = [(1, k, 1) for k in range(5)]

    def load():
        return Load({"cpu": 1.0}, Fence(1, 1), "x", "cpu", 0.0, False)

    for k in range(3):
        session.take(key[k], load())
    assert (session.slots_free, list(session.queue)) == (0, [key[2]])
    session.yield_cpu(key[0])
    session.check()
    assert session.loads[key[2]].started
    session.take(key[3], load())
    session.reclaim_cpu(key[0])
    assert not session.has_room({"cpu": 1.0}, 0)
    session.drop(key[1])
    session.check()
    assert not session.loads[key[0]].paused
    assert list(session.queue) == [key[3]]
    session.yield_cpu(key[0])
    session.drop(key[0])
    session.drop(key[2])
    session.drop(key[3])
    session.drop(key[4])
    session.check()
    assert (session.slots_free, session.free["cpu"], session.paused) == (2, 2.0, 0)


def test_a_full_disk_stops_dispatch_until_there_is_room():
    sim = Simulator()
    sim.handle(s.DiskState(True))
    sim.submit({"tasks": [work("a")]})
    sim.advance(3.0)
    assert not sim.task("a").attempts
    sim.handle(s.DiskState(False))
    assert finish(sim) == {"a": "succeeded"}


def test_a_dismissed_worker_is_waited_for_by_nobody():
    sim = start([work("a", run_s=50.0, on=["w2"])], settings={"schedule_grace": 2})
    sim.advance(0.5)
    sim.handle(s.WorkerDismissed(2))
    sim.settle(10.0)
    assert sim.state.runs[1].state.code == "NoEligibleWorker"


def test_an_element_of_all_names_the_dismissed_worker_that_it_was_for():
    sim = start([work("a", run_s=5.0, on=["all"])], workers=2, settings={"schedule_grace": 2})
    sim.advance(0.5)
    sim.handle(s.WorkerDismissed(2))
    sim.settle(60.0)
    assert "no worker offers sim.work on w2;" in sim.task("a").state.message
