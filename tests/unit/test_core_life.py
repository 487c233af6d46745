"""How tasks live: retries by class, spawn, join, questions, approvals, pause, cancel, budgets, deadlines, places."""

import msgspec
import pytest

from bench.fault import Faults
from bench.simulated_worker import SimulatedCallRefused, profile_of
from bench.simulator import Refused, Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.dispatch import OWED_S
from orchestrator.core.lifecycle import AwaitingApproval, Ready, Unknown, Waiting
from orchestrator.core.setting import CoreSettings
from protocol.outcome import Failure
from protocol.plan import parse_patch


def work(ident, skill="sim.work", run_s=0.05, **more):
    return {"id": ident, "skill": skill, "args": {"value": ident, "run_s": run_s}, **more}


SOON = CoreSettings(approval_s=100.0)


def start(tasks, *, program=None, settings=None, home="w1", core=None, **more):
    sim = Simulator(program=program, settings=core, **more)
    sim.submit({"tasks": tasks, "run": settings or {}}, home=home)
    return sim


def run(tasks, limit_s=120.0, **more):
    sim = start(tasks, **more)
    sim.settle(limit_s)
    sim.prove_replay()
    return sim


def failing(klass, times=99):
    def program(job):
        yield 0.01
        return Failure("Bad", "as told", klass) if job.number <= times else {"value": job.skill}

    return program


def events(sim, kind):
    return [event for _, _, decision in sim.log for event in decision.events if isinstance(event, kind)]


def value(sim, name):
    return msgspec.json.decode(sim.task(name).value)["value"]


# Next means


def test_transient_failures_are_retried_with_growing_backoff_then_fail():
    sim = run([work("a", retry={"max": 3, "backoff": 1.0})], program={"a": failing("transient")})
    delays = [one.until - one.at for one in events(sim, e.TaskRequeued)]
    assert len(sim.task("a").attempts) == 4
    assert all(0 <= delay <= 2.0**n for n, delay in enumerate(delays))
    assert sim.states()["a"] == "failed"


def test_a_transient_failure_goes_to_another_worker_if_one_is_free():
    sim = run([work("a")], program={"a": failing("transient", 1)})
    first, second = (attempt.worker for attempt in sim.task("a").attempts)
    assert first != second


def test_a_transient_failure_stays_if_there_is_no_other():
    sim = run([work("a")], program={"a": failing("transient", 1)}, workers=1)
    assert [attempt.worker for attempt in sim.task("a").attempts] == [1, 1]


def test_permanent_failures_go_to_the_next_alt_with_a_fresh_count():
    program = {"sim.work": failing("permanent"), "sim.other": failing("transient", 2)}
    sim = run([work("a", alt=["sim.other"])], program=program)
    assert [attempt.skill for attempt in sim.task("a").attempts] == ["sim.work", "sim.other", "sim.other"]
    assert value(sim, "a") == "sim.other"


def test_lost_work_is_uncounted_but_not_for_ever():
    program = failing("infra")
    sim = run([work("a", retry={"max": 0})], program={"a": program})
    assert len(sim.task("a").attempts) == 6
    assert run([work("a", retry={"max": 0})], program={"a": failing("infra", 5)}).states()["a"] == "succeeded"


def test_a_once_task_is_not_retried():
    sim = run([work("a", "sim.once")], program={"a": failing("transient")})
    assert len(sim.task("a").attempts) == 1
    assert sim.states()["a"] == "failed"


def test_stop_cancels_the_rest():
    tasks = [work("a"), work("b", run_s=50), work("c", after=["b"])]
    sim = run(tasks, program={"a": failing("permanent")}, settings={"on_failure": "stop"})
    assert sim.states() == {"a": "failed", "b": "cancelled", "c": "cancelled"}


def test_a_policy_failure_asks_a_person_and_runs_again_when_allowed():
    sim = start([work("a")], program={"a": failing("policy", 1)})
    sim.advance(1.0)
    assert type(sim.task("a").state) is AwaitingApproval
    sim.ask(lambda reply: s.ApprovalDecided(reply, 1, "a", "ann", True))
    sim.settle()
    assert sim.states()["a"] == "succeeded"


# Spawn, join, ask


def parent(count=3, skill="sim.work", catch=False):
    def program(job):
        ids = []
        for k in range(count):
            ids.append((yield "spawn", {"skill": skill, "args": {"value": k}})["id"])
            yield 0.01
        try:
            found = yield "join", {"ids": ids}
        except SimulatedCallRefused as error:
            if not catch:
                raise
            return {"value": str(error)}
        return {"value": [one["value"] for one in found]}

    return program


def test_children_are_named_by_place_and_join_gives_their_values_in_order():
    sim = run([work("p", "sim.parent")], program={"sim.parent": parent()})
    assert value(sim, "p") == [0, 1, 2]
    assert set(sim.states()) == {"p", "p.0", "p.1", "p.2"}


def test_a_waiting_parent_gives_its_cpu_back():
    sim = run([work("p", "sim.parent")], program={"sim.parent": parent()}, workers=1, slots=1)
    assert value(sim, "p") == [0, 1, 2]


def test_a_run_again_parent_finds_its_children():
    def program(job):
        first = yield "spawn", {"skill": "sim.work", "args": {"value": 1}}
        second = yield "spawn", {"skill": "sim.work", "args": {"value": 2}, "key": "two"}
        found = yield "join", {"ids": [first["id"], second["id"]]}
        if job.number == 1:
            return Failure("Flaky", "again", "transient")
        return {"value": [one["value"] for one in found]}

    sim = run([work("p", "sim.parent")], program={"p": program, "sim.work": failing("x", 0)})
    assert len(sim.state.runs[1].tasks) == 3
    assert set(sim.states()) == {"p", "p.0", "p.two"}
    assert len(sim.task("p").attempts) == 2


def test_a_diverging_spawn_is_refused():
    def program(job):
        yield "spawn", {"skill": "sim.work", "args": {"value": job.number}}
        yield 0.01
        return Failure("Flaky", "again", "transient")

    sim = run([work("p", "sim.parent")], program={"p": program})
    assert sim.task("p").state.code == "CallRefused"
    assert "SpawnDiverged" in sim.task("p").state.message


def test_a_failed_child_is_an_error_of_the_join():
    sim = run([work("p", "sim.parent")], program={"sim.parent": parent(catch=True), "sim.work": failing("permanent")})
    assert "p.0 failed" in value(sim, "p")


def test_spawning_too_deep_or_too_much_is_refused():
    def deeper(job):
        found = yield "spawn", {"skill": "sim.parent", "args": {}}
        yield "join", {"ids": [found["id"]]}
        return {"value": 1}

    sim = run([work("p", "sim.parent")], program={"*": deeper, "p": deeper}, settings={"budget": {"depth": 3}}, slots=8)
    assert max(name.count(".") for name in sim.states()) == 3
    sim = run([work("p", "sim.parent")], program={"sim.parent": parent(5)}, settings={"budget": {"tasks": 3}})
    assert sim.task("p").state.code == "CallRefused"


def test_children_end_with_their_parent():
    sim = start([work("p", "sim.parent")], program={"sim.parent": parent(), "sim.work": lambda job: iter([500.0])})
    sim.advance(1.0)
    assert type(sim.task("p").state) is Waiting
    sim.ask(lambda reply: s.CancelRequested(reply, 1, "p", "ann"))
    sim.settle()
    assert set(sim.states().values()) == {"cancelled"}


def test_a_question_waits_for_its_answer_and_only_for_one_of_its_choices():
    def program(job):
        return (yield "ask", {"question": "red?", "choices": ["yes", "no"]})

    sim = start([work("q")], program={"q": program})
    sim.advance(1.0)
    assert type(sim.task("q").state) is Waiting
    with pytest.raises(Refused) as wrong:
        sim.ask(lambda reply: s.AnswerGiven(reply, 1, "q", "ann", b'"perhaps"'))
    assert wrong.value.code == "Usage"
    sim.ask(lambda reply: s.AnswerGiven(reply, 1, "q", "ann", b'"yes"'))
    sim.settle()
    assert msgspec.json.decode(sim.task("q").value) == {"answer": "yes", "by": "ann"}


def test_a_question_nobody_answers_times_out():
    sim = start([work("q")], program={"q": lambda job: (yield "ask", {"question": "?"})}, core=SOON)
    sim.settle(200.0)
    assert sim.task("q").state.code == "TimedOut"


# Approvals


def test_approval_is_asked_when_inputs_are_known_and_bound_to_the_pin():
    sim = start([work("a"), {"id": "b", "skill": "sim.work", "args": {"value": {"ref": "a/value"}}, "approve": True}])
    sim.advance(2.0)
    state = sim.task("b").state
    assert isinstance(state, AwaitingApproval)
    sim.ask(lambda reply: s.ApprovalDecided(reply, 1, "b", "ann", True))
    sim.settle()
    assert sim.task("b").attempts[0].pin == state.pin
    assert sim.task("b").by == "ann"


def test_approval_holds_for_a_retry_of_the_same_work():
    sim = start([work("b", approve=True)], program={"b": failing("transient", 2)})
    sim.advance(0.5)
    sim.ask(lambda reply: s.ApprovalDecided(reply, 1, "b", "ann", True))
    sim.settle()
    assert len(events(sim, e.ApprovalAsked)) == 1
    assert len(sim.task("b").attempts) == 3


def test_a_rejected_or_unanswered_approval_fails_the_task():
    sim = start([work("a", "sim.asks"), work("b", "sim.asks")], core=SOON)
    sim.advance(0.5)
    sim.ask(lambda reply: s.ApprovalDecided(reply, 1, "a", "ann", False, "no"))
    sim.settle(200.0)
    assert [sim.task(name).state.code for name in "ab"] == ["Rejected", "ApprovalLapsed"]


def test_a_worker_that_allows_the_skill_is_not_asked_and_one_that_denies_gets_none():
    profiles = [profile_of(policies=(("sim.*", "deny"),)), profile_of(policies=(("sim.asks", "allow"),))]
    sim = run([work("a", "sim.asks"), work("b")], workers=profiles)
    assert {sim.task("a").winner().worker, sim.task("b").winner().worker} == {2}


def test_a_later_attempt_gets_the_last_checkpoint_also_after_a_restart():
    seen = []

    def program(job):
        kept = yield ("restore", None)
        seen.append(kept)
        if job.number > 2:
            return {"value": kept}
        yield ("checkpoint", {"done": job.number})
        yield ("checkpoint", {"done": job.number * 10})
        yield 1.0
        return Failure("Bad", "as told", "transient")

    sim = start([work("a")], program={"a": program})
    sim.advance(0.5)
    sim.crash()
    sim.settle()
    sim.prove_replay()
    assert seen[0] is None
    assert seen[-1] == {"done": 20}
    assert value(sim, "a") == {"done": 20}


def test_a_checkpoint_is_not_for_another_skill_and_not_made_by_emit():
    seen = []

    def program(job):
        seen.append((job.skill, (yield ("restore", None))))
        if job.skill == "sim.asks":
            return {"value": 1}
        with pytest.raises(SimulatedCallRefused):
            yield ("emit", {"kind": "checkpoint", "body": 1})
        yield ("checkpoint", {"done": 1})
        return Failure("Bad", "as told", "permanent")

    profile = profile_of(policies=(("*", "allow"),))
    run([work("a", alt=["sim.asks"])], program={"a": program}, workers=[profile])
    assert seen == [("sim.work", None), ("sim.asks", None)]


# Pause and cancel


def test_pause_starts_nothing_new_and_lets_what_runs_go_on():
    sim = start([work("a", run_s=1.0), work("b", after=["a"])])
    sim.advance(0.2)
    sim.ask(lambda reply: s.PauseRequested(reply, 1, "ann"))
    sim.advance(10.0)
    assert sim.states() == {"a": "succeeded", "b": ""}
    sim.ask(lambda reply: s.PauseRequested(reply, 1, "ann", resume=True))
    sim.settle()
    assert sim.states()["b"] == "succeeded"


def test_cancel_of_a_run_is_final_when_every_attempt_has_confirmed():
    sim = start([work("a", run_s=100.0), work("b", after=["a"])])
    sim.advance(0.5)
    sim.handle(s.CancelRequested(99, 1, "", "ann"))
    assert sim.states() == {"a": "", "b": "cancelled"}
    sim.settle()
    assert sim.states()["a"] == "cancelled"
    assert sim.task("a").attempts[0].ended == "stopped"
    assert sim.state.runs[1].state.state == "cancelled"


def test_cancel_while_its_worker_is_away_ends_with_its_return_or_its_lease():
    for away in (1.0, 30.0):
        sim = start([work("a", run_s=100.0)], workers=1, faults=Faults(cuts=((0.5, 0, away),)))
        sim.advance(4.0 if away > 5 else 0.7)
        sim.handle(s.CancelRequested(99, 1, "", "ann"))
        sim.settle(20.0)
        assert sim.states()["a"] == "cancelled"


def test_cancel_of_a_map_in_flight_waits_for_its_elements():
    items = {"id": "l", "skill": "flow.list", "args": {"items": list(range(6))}}
    tasks = [items, {"id": "m", "skill": "sim.work", "args": {"value": {"ref": "l/items[]"}, "run_s": 90}}]
    sim = start(tasks)
    sim.advance(1.0)
    sim.handle(s.CancelRequested(99, 1, "m", "ann"))
    assert sim.states()["m"] == ""
    sim.settle()
    assert {name: state for name, state in sim.states().items() if state != "cancelled"} == {"l": "succeeded"}


def test_a_cancelled_attempt_may_spawn_nothing_more():
    def stubborn(job):
        try:
            yield 1.0
        finally:
            pass
        for _ in range(5):
            yield "spawn", {"skill": "sim.work", "args": {}}
        return {"value": 1}

    sim = start([work("p", "sim.parent")], program={"p": stubborn}, faults=Faults(delay_s=(0.3, 0.3)))
    sim.advance(1.0)
    sim.handle(s.CancelRequested(99, 1, "", "ann"))
    sim.settle()
    assert set(sim.states().values()) == {"cancelled"}


# Budgets, deadlines


def test_attempts_over_budget_are_not_made():
    sim = run([work(name) for name in "abcd"], settings={"budget": {"attempts": 2}})
    assert sim.state.runs[1].spend.attempts == 2
    assert (sim.state.runs[1].state.state, sim.state.runs[1].state.code) == ("failed", "BudgetSpent")


def test_a_plan_over_its_task_budget_is_refused():
    sim = Simulator()
    with pytest.raises(Refused) as found:
        sim.submit({"tasks": [work("a"), work("b")], "run": {"budget": {"tasks": 1}}})
    assert found.value.codes == ["BudgetSpent"]


@pytest.mark.parametrize(
    ("settings", "code"), [({"deadline": 2}, "TimedOut"), ({"budget": {"wall": 2}}, "BudgetSpent")]
)
def test_a_run_over_its_time_is_stopped_and_failed(settings, code):
    sim = run([work("a", run_s=100.0), work("b", after=["a"])], settings=settings, limit_s=10.0)
    assert (sim.state.runs[1].state.state, sim.state.runs[1].state.code) == ("failed", code)


def test_a_task_over_its_deadline_fails_and_may_be_handled():
    late = {"id": "c", "skill": "flow.echo", "args": {"value": 1}, "when": [{"ref": "a", "is": "failed"}]}
    sim = run([work("a", run_s=100.0, deadline=1.0), late], limit_s=10.0)
    assert sim.task("a").state.code == "TimedOut"
    assert sim.states()["c"] == "succeeded"
    assert sim.task("a").attempts[0].ended == "stopped"


def test_deadlines_survive_a_restart():
    sim = start([work("a", run_s=100.0, deadline=3.0)], settings={"deadline": 60})
    sim.advance(1.0)
    sim.crash()
    sim.settle(10.0)
    assert sim.task("a").state.code == "TimedOut"


# Where it may run


def test_nobody_can_run_it_fails_after_the_grace():
    sim = start([work("a", "sim.gpu")], settings={"schedule_grace": 3})
    sim.advance(2.0)
    assert type(sim.task("a").state) is Ready
    sim.settle(10.0)
    assert sim.state.runs[1].state.code == "NoEligibleWorker"


def test_a_known_worker_that_is_away_is_waited_for():
    sim = Simulator(workers=[profile_of(), profile_of(gpu=1)])
    sim.workers[1].kill(100.0)
    sim.advance(1.0)
    sim.submit({"tasks": [work("a", "sim.gpu")], "run": {"schedule_grace": 3}})
    sim.advance(50.0)
    assert "w2, which is away" in sim.machine.explain(1, "a")["why"]
    sim.settle(100.0)
    assert sim.states()["a"] == "succeeded"


def test_a_worker_that_is_away_and_too_small_is_not_waited_for():
    sim = Simulator(workers=[profile_of(), profile_of(gpu=1)])
    sim.workers[1].kill(1000.0)
    sim.submit({"tasks": [work("a", "sim.gpu", needs={"gpu": 4})], "run": {"schedule_grace": 3}})
    sim.settle(10.0)
    assert sim.state.runs[1].state.code == "NoEligibleWorker"


def test_priority_and_what_hangs_on_a_task_decide_who_goes_first():
    tasks = [work("low"), work("head"), work("tail", after=["head"]), work("high", priority=5)]
    sim = run(tasks, workers=1, slots=1)
    order = sorted((sim.task(name).attempts[0].fence, name) for name in ("low", "head", "high"))
    assert [name for _, name in order] == ["high", "head", "low"]


def test_a_draining_worker_gets_nothing_new():
    sim = Simulator(workers=2)
    sim.ask(lambda reply: s.DrainAsked(reply, "w1"))
    sim.submit({"tasks": [work(name) for name in "abcd"]})
    sim.settle()
    assert {sim.task(name).winner().worker for name in "abcd"} == {2}


def test_a_once_task_of_a_streamed_plan_waits_until_the_plan_is_complete():
    sim = Simulator()
    number = sim.request()
    patch = parse_patch({"tasks": [work("a", "sim.once"), work("b")]}, author="planner")
    sim.ask(lambda reply: s.PatchProposed(reply, number, patch, call=1))
    sim.advance(2.0)
    assert sim.states() == {"a": "", "b": "succeeded"}
    sim.handle(s.PlanFinished(number, 1))
    sim.settle()
    assert sim.states()["a"] == "succeeded"


def test_an_effect_of_unknown_outcome_stops_and_is_resolved_by_a_person():
    for how, state in (("succeeded", "succeeded"), ("fail", "failed"), ("retry", "succeeded")):
        sim = start([work("a", "sim.once", run_s=2.0)], workers=1, faults=Faults(kills=((0.5, 0, 1.0, "boot"),)))
        sim.advance(20.0)
        assert type(sim.task("a").state) is Unknown
        assert sum(sim.effects.values()) == 1
        sim.ask(lambda reply, how=how: s.UnknownResolved(reply, 1, "a", "ann", how, b'{"value":1}'))
        sim.settle()
        assert sim.states()["a"] == state
        assert sum(sim.effects.values()) == (2 if how == "retry" else 1)


def test_a_plan_of_which_a_part_is_refused_is_not_whole():
    sim = Simulator()
    number = sim.request()
    good, wrong = (parse_patch({"tasks": [one]}, author="planner") for one in (work("a"), work("b", "no.such")))
    sim.ask(lambda reply: s.PatchProposed(reply, number, good, call=1))
    with pytest.raises(Refused):
        sim.ask(lambda reply: s.PatchProposed(reply, number, wrong, call=1))
    sim.handle(s.PlanFinished(number, 1))
    sim.settle()
    run = sim.state.runs[number]
    assert sim.states() == {"a": "succeeded"}
    assert (run.state.state, run.state.code) == ("failed", "PlanRefused")
    assert "no.such" in run.state.message


def test_a_plan_for_which_the_budget_is_too_small_has_its_code():
    sim = Simulator()
    number = sim.request()
    sim.handle(s.PlanFinished(number, 1, outcome="failed", message="BudgetSpent: a question of about 900 tokens"))
    sim.settle()
    assert sim.state.runs[number].state.code == "BudgetSpent"


def test_what_is_owed_to_later_decisions_waits_for_a_lull_but_not_for_long():
    machine, predictor = (sim := Simulator(workers=1)).machine, sim.machine.predictor
    for n, skill in enumerate(("flow.echo", "flow.list"), 1):
        predictor.note(skill, "cpu", 1, 1.0, 0, 0.5)
        for since in (0.0, OWED_S / 2):
            machine.handle(s.Flush(brief=True), sim.now + n + since)
            assert machine.owes
            assert predictor.measured(skill) is None
        machine.handle(s.Lull() if n == 1 else s.Flush(brief=True), sim.now + n + 2 * OWED_S)
        assert not machine.owes
        assert predictor.measured(skill) == 0.5
