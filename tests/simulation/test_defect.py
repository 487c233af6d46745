"""Defects that drawn schedules have found, each by itself: they must not come back."""

import msgspec
import pytest

from bench.fault import Faults
from bench.simulated_worker import profile_of
from bench.simulator import JOURNAL, Refused, Simulator
from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.adoption import HELD_LEASES, judged
from orchestrator.core.fleet import Load, Session
from orchestrator.core.poison import cell
from orchestrator.core.setting import CoreSettings
from protocol.frame import (
    Ack,
    Assign,
    Call,
    Cancel,
    Heartbeat,
    HeartbeatAck,
    Held,
    HeldVerdict,
    Hello,
    Rejected,
    Report,
    Welcome,
)
from protocol.ids import AttemptId, Fence
from protocol.outcome import Failure, Success
from protocol.patch import Edit, Patch
from protocol.plan import parse_patch
from workers import instruction as do
from workers import stimulus as on
from workers.machine import Machine
from workers.setting import MachineSettings


def work(ident, skill="sim.work", run_s=0.05, value=None, **more):
    return {"id": ident, "skill": skill, "args": {"value": value, "run_s": run_s}, **more}


def fails(job):
    yield 0.01
    return Failure("Bad", "as told", "permanent")


def replanning(tasks, **more):
    sim = Simulator(settings=CoreSettings(planner_s=5.0), **more)
    sim.submit({"tasks": tasks, "run": {"on_failure": "replan"}})
    return sim


def propose(sim, patch):
    return sim.ask(lambda reply: s.PatchProposed(reply, 1, patch))


def finish(sim):
    sim.settle()
    sim.prove_replay()
    return sim.states()


# The core


def test_a_task_that_failed_before_it_could_run_waits_again_when_it_is_retried():
    sim = replanning([work("a", run_s=3.0), work("b", value={"ref": "a/value"}, deadline=0.5)])
    sim.advance(1.0)
    assert sim.states()["b"] == "failed"
    propose(sim, Patch("person:ann", edits=(Edit("retry", "b"),)))
    sim.advance(0.5)
    assert not sim.task("b").attempts
    assert finish(sim) == {"a": "succeeded", "b": "succeeded"}


def test_elements_that_failed_with_their_upstreams_fail_again_when_the_map_is_retried():
    tasks = [
        {"id": "l", "skill": "flow.list", "args": {"items": [1, 2]}},
        work("m", value={"ref": "l/items[]"}, map={"on_error": "collect"}),
        work("n", value={"ref": "m[]"}),
    ]
    sim = replanning(tasks, program={"m": fails})
    sim.advance(1.0)
    propose(sim, Patch("person:ann", edits=(Edit("retry", "n"),)))
    assert finish(sim)["n"] == "failed"


@pytest.mark.parametrize("ops", [("remove",), ("retry", "give_up"), ("give_up", "retry"), ("remove", "remove")])
def test_edits_of_one_open_failure_follow_one_another(ops):
    sim = replanning([work("a"), work("b", run_s=2.0)], program={"a": fails})
    sim.advance(0.5)
    propose(sim, Patch("person:ann", edits=tuple(Edit(op, "a") for op in ops)))
    assert finish(sim)["b"] == "succeeded"


def test_a_link_that_is_there_already_is_counted_once():
    sim = Simulator()
    sim.submit({"tasks": [work("a", run_s=1.0), work("b", after=["a"]), work("c", after=["a"])]})
    propose(sim, parse_patch({"links": [["a", "b"]], "tasks": []}, author="person:ann"))
    assert set(finish(sim).values()) == {"succeeded"}


def test_a_fork_of_a_graph_that_needs_what_was_removed_is_refused():
    sim = Simulator()
    sim.submit({"tasks": [work("a", run_s=2.0), work("b", after=["a"]), work("c", value={"ref": "b/value"})]})
    propose(sim, Patch("person:ann", edits=(Edit("remove", "b"),)))
    with pytest.raises(Refused) as refused:
        sim.ask(lambda reply: s.ForkRequested(reply, 1, -1, "ann"))
    assert refused.value.code == "Conflict"
    assert finish(sim) == {"a": "succeeded", "b": "cancelled", "c": "skipped"}


def test_a_failed_chunk_stands_for_each_of_its_elements():
    def second(job):
        yield 0.01
        if isinstance(job.args, list) and job.args[0]["value"] == 3:
            return Failure("Bad", "as told", "permanent")
        return [{"value": row["value"]} for row in job.args]

    tasks = [
        {"id": "l", "skill": "flow.list", "args": {"items": [1, 2, 3]}},
        work("m", value={"ref": "l/items[]"}, map={"on_error": "collect", "chunk": 2}),
        work("whole", value={"ref": "m"}),
    ]
    sim = Simulator(program={"m": second})
    sim.submit({"tasks": tasks})
    assert finish(sim)["whole"] == "succeeded"
    assert (
        sim.task("whole").value == b'{"value":[{"value":1},{"value":2},{"error":{"code":"Bad","message":"as told"}}]}'
    )


def test_a_planner_that_a_run_was_set_aside_with_still_has_its_deadline():
    sim = Simulator(settings=CoreSettings(planner_s=5.0))
    number = sim.request()
    state = sim.written.replay(unwritten=True)
    sim.handle(s.TakenBack(state, "again", "Tick", "simulated", number, aside=True))
    assert sim.state.runs[number].aside
    sim.ask(lambda reply: s.PauseRequested(reply, number, "ann", resume=True))
    sim.settle(10.0)
    assert sim.state.runs[number].state.code == "PlannerFailed"


def test_a_map_that_others_were_expanded_from_is_not_rewritten():
    tasks = [
        {"id": "l", "skill": "flow.list", "args": {"items": [1, 2]}},
        work("m", value={"ref": "l/items[]"}),
        work("n", value={"ref": "m[]"}),
        work("other"),
    ]
    sim = replanning(tasks, program={"m": fails})
    sim.advance(1.0)
    assert sim.states()["m"] == "failed"
    with pytest.raises(Refused) as refused:
        propose(sim, parse_patch({"links": [["other", "m"]], "tasks": []}, author="person:ann"))
    assert refused.value.codes == ["AlreadyDispatched"]
    assert finish(sim)["n"] in ("failed", "skipped")


def test_a_task_that_must_run_alone_does_so_beside_its_own_parent_that_waits():
    def parent(job):
        child = yield "spawn", {"skill": "sim.work", "args": {"value": 1, "run_s": 1.0}}
        yield "join", {"ids": [child["id"]]}
        return {"value": 1}

    sim = Simulator(workers=2, slots=1, program={"p": parent})
    sim.submit({"tasks": [work("p", "sim.parent", on=["w1"])]})
    sim.advance(0.2)
    child = sim.task("p.0")
    session = sim.machine.fleet.sessions[1]
    offered = [(session, "cpu", {"cpu": 1.0})]
    session.drop((1, child.ix, 1))
    assert session.paused == len(session.loads) == 1
    assert cell(sim.machine._turn, sim.state.runs[1], child, offered) == offered[0]


def test_of_two_attempts_the_one_behind_is_stopped_when_the_other_waits_for_its_children():
    def parent(job):
        yield 4.0
        child = yield "spawn", {"skill": "sim.work", "args": {"value": 1, "run_s": 5.0}}
        yield "join", {"ids": [child["id"]]}
        return {"value": 1}

    sim = Simulator(workers=2, slots=1, program={"p": parent}, faults=Faults(freezes=((0.5, 0, 3.0), (0.5, 1, 0.0))))
    sim.submit({"tasks": [work("p", "sim.parent")]})
    assert sim.task("p").attempts[0].worker == 1
    assert finish(sim)["p"] == "succeeded"
    assert [attempt.ended for attempt in sim.task("p").attempts] == ["succeeded", "stopped"]


# The link, at the orchestrator


def acks(sim):
    sent = (one.item for _, _, decision in sim.log for one in decision.commands if isinstance(one, c.Send))
    return [ident for item in sent if isinstance(item, Ack) for ident in item.attempts]


def test_a_report_that_will_never_be_wanted_is_acknowledged():
    sim = Simulator(workers=2)
    sim.submit({"tasks": [work("a", run_s=5.0)]})
    sim.advance(0.5)
    attempt = sim.task("a").attempts[0]
    other = sim.machine.fleet.sessions[3 - attempt.worker]
    report = Report(AttemptId(1, 0, 1), Fence(0, 7), b"older", Success(b"1"))
    sim.handle(s.WorkerSent(other.conn, other.worker, (report,)))
    assert AttemptId(1, 0, 1) in acks(sim)


def test_an_older_report_of_a_live_attempt_is_not_acknowledged_but_answered_by_its_assign():
    sim = Simulator(workers=1)
    sim.submit({"tasks": [work("a", run_s=5.0)]})
    sim.advance(0.5)
    session = sim.machine.fleet.sessions[1]
    report = Report(AttemptId(1, 0, 1), Fence(0, 7), b"older", Success(b"1"))
    sim.handle(s.WorkerSent(session.conn, 1, (report,)))
    _, _, decision = sim.log[-1]
    sent = [one.item for one in decision.commands if isinstance(one, c.Send)]
    assert [type(item) for item in sent] == [Assign]
    assert sent[0].fence == sim.task("a").attempts[0].fence
    assert finish(sim) == {"a": "succeeded"}
    assert len(sim.task("a").attempts) == 1


def test_a_worker_that_runs_an_older_attempt_of_a_number_is_told_the_newer_one_again():
    sim = Simulator(workers=1)
    sim.submit({"tasks": [work("a", run_s=5.0)]})
    sim.advance(0.5)
    session = sim.machine.fleet.sessions[1]
    sim.handle(s.WorkerSent(session.conn, 1, (Call(AttemptId(1, 0, 1), Fence(0, 7), 1, "spawn"),)))
    _, _, decision = sim.log[-1]
    sent = [one.item for one in decision.commands if isinstance(one, c.Send)]
    assert [(type(item), item.fence) for item in sent] == [(Assign, sim.task("a").attempts[0].fence)]
    assert finish(sim) == {"a": "succeeded"}


def test_a_task_that_is_won_does_not_run_again_because_another_attempt_is_handed_back():
    sim = Simulator(workers=2, slots=1, faults=Faults(freezes=((0.5, 0, 3.5),)))
    sim.submit({"tasks": [work("a", run_s=3.9)]})
    sim.run_until(sim.now + 10.0, lambda: sim.task("a").succeeded)
    assert [attempt.live for attempt in sim.task("a").attempts] == [False, True]
    session = sim.machine.fleet.sessions[2]
    sim.handle(s.WorkerSent(session.conn, 2, (Rejected(AttemptId(1, 0, 2), "DiskFull"),)))
    assert sim.task("a").succeeded
    assert finish(sim) == {"a": "succeeded"}


def test_an_attempt_that_is_over_and_still_asks_is_stopped():
    sim = Simulator(workers=1)
    sim.submit({"tasks": [work("a", run_s=5.0)]})
    sim.advance(0.5)
    session, attempt = sim.machine.fleet.sessions[1], sim.task("a").attempts[0]
    ident = AttemptId(1, 0, 1)
    sim.handle(s.WorkerSent(session.conn, 1, (Rejected(ident, "Fenced"), Call(ident, attempt.fence, 1, "spawn"))))
    _, _, decision = sim.log[-1]
    assert Cancel(ident, 2.0) in [one.item for one in decision.commands if isinstance(one, c.Send)]
    assert finish(sim) == {"a": "succeeded"}


def test_what_is_on_hold_gives_its_slot_to_the_work_it_is_on_hold_for():
    sim = Simulator(workers=1, slots=1)
    sim.submit({"tasks": [work("a", run_s=60.0), work("b", after=["a"])]})
    sim.advance(1.0)
    session, orphan = sim.machine.fleet.sessions[1], Held(AttemptId(1, 1, 1), Fence(0, 9), b"pin")
    turn = sim.machine._turn
    assert judged(turn, session, orphan) == "hold"
    turn.now += HELD_LEASES * session.lease_s
    assert judged(turn, session, orphan) == "hold"
    turn.now += 0.1
    assert judged(turn, session, orphan) == "kill"
    spooled = msgspec.structs.replace(orphan, attempt=AttemptId(1, 1, 2), digest=b"d")
    assert judged(turn, session, spooled) == "hold"
    turn.now += 60.0
    assert judged(turn, session, spooled) == "hold"


def test_a_hold_is_said_with_every_answer_until_it_is_over():
    sim = Simulator(workers=1)
    sim.submit({"tasks": [work("a", run_s=5.0), work("b", after=["a"])]})
    held = AttemptId(1, 1, 1)
    hello = Hello("w1", "w1.1", profile_of(), JOURNAL, 1, running=(Held(held, Fence(0, 9), b"pin"),))
    sim.handle(s.WorkerJoined(500, 1, hello))
    for _ in range(2):
        sim.handle(s.WorkerSent(500, 1, (Heartbeat(1.0, (held,)),)))
        _, _, decision = sim.log[-1]
        answer = next(one.item for one in decision.commands if isinstance(one.item, HeartbeatAck))
        assert answer.verdicts == (HeldVerdict(held, "hold"),)


def test_a_parent_that_its_worker_began_before_its_turn_returns_its_slot_when_it_waits():
    session, first, parent, child = Session(1, 1, "w1", "b", profile_of(1), 0.0), (1, 0, 1), (1, 1, 1), (1, 2, 1)
    for key in (first, parent):
        session.take(key, Load({"cpu": 1.0}, Fence(1, key[1]), "sim.work", "cpu", 0.0, False))
    assert not session.loads[parent].started
    session.yield_cpu(parent)
    session.check()
    assert (session.loads[parent].paused, session.loads[first].started) == (True, True)
    session.drop(first)
    session.take(child, Load({"cpu": 1.0}, Fence(1, 3), "sim.work", "cpu", 0.0, False))
    session.check()
    assert session.loads[child].started


def test_a_worker_kept_empty_is_not_kept_from_what_its_own_parent_waits_for():
    session, parent = Session(1, 1, "w1", "b", profile_of(2), 0.0), (1, 0, 1)
    session.take(parent, Load({"cpu": 1.0}, Fence(1, 1), "sim.parent", "cpu", 0.0, False))
    session.kept_for = (1, 7)
    assert not session.has_room({"cpu": 1.0}, 0)
    session.yield_cpu(parent)
    assert session.has_room({"cpu": 1.0}, 0)


def test_no_verdict_speaks_of_an_older_attempt_once_its_number_is_given_anew():
    session, key = Session(1, 1, "w1", "b", profile_of(), 0.0), (1, 1, 1)
    session.holds[key] = Held(AttemptId(*key), Fence(0, 9), b"pin")
    session.take(key, Load({"cpu": 1.0}, Fence(1, 1), "sim.work", "cpu", 0.0, False))
    assert session.holds == {}


# The worker


def welcomed(verdicts=()):
    machine = Machine(MachineSettings("w1", "boot", profile_of()))
    machine.handle(on.Connected(), 0.0)
    return machine, machine.handle(on.Received((Welcome(JOURNAL, 1, 1, verdicts=verdicts),)), 0.1)


def test_a_hello_that_nobody_answers_ends_the_stream():
    machine = Machine(MachineSettings("w1", "boot", profile_of()))
    out = machine.handle(on.Connected(), 100.0)
    assert [type(one.item) for one in out] == [Hello]
    wake = machine.next_wake()
    assert wake is not None
    assert [type(one) for one in machine.handle(on.Tick(), wake)] == [do.HangUp]
    assert machine.next_wake() is None


def test_what_is_no_longer_held_goes_on_though_its_verdict_got_lost():
    machine, _ = welcomed()
    ident = AttemptId(1, 0, 1)
    spec = b'{"skill":"sim.work","digest":"","args":{},"effect":"pure"}'
    machine.handle(on.Received((Assign(ident, Fence(1, 1), b"pin", spec, "r1/a#1"),)), 0.2)
    machine.handle(on.Broken(), 0.3)
    machine.handle(on.Connected(), 0.4)
    machine.handle(on.Received((Welcome(JOURNAL, 2, 2, verdicts=(HeldVerdict(ident, "hold"),)),)), 0.5)
    assert not [one for one in machine.handle(on.Asked(ident, 1, "spawn", b"{}"), 0.6) if isinstance(one, do.Send)]
    held = (HeldVerdict(ident, "hold"),)
    assert not machine.handle(on.Received((HeartbeatAck(0.5, held),)), 0.7)
    out = machine.handle(on.Received((HeartbeatAck(0.6),)), 0.8)
    assert [type(one.item).__name__ for one in out] == ["Call"]


def test_a_report_is_offered_once_to_an_orchestrator_that_welcomes_its_worker():
    machine, _ = welcomed()
    ident = AttemptId(1, 0, 1)
    spec = b'{"skill":"sim.work","digest":"","args":{},"effect":"pure"}'
    machine.handle(on.Received((Assign(ident, Fence(1, 1), b"pin", spec, "r1/a#1"),)), 0.2)
    machine.handle(on.Broken(), 0.3)
    machine.handle(on.Ended((on.Result(ident, Success(b"1")),)), 0.4)
    machine.handle(on.Connected(), 0.5)
    out = machine.handle(on.Received((Welcome(JOURNAL, 2, 2, verdicts=(HeldVerdict(ident, "resend"),)),)), 0.6)
    assert [one.attempts for one in out if isinstance(one, do.Offer)] == [(ident,)]
