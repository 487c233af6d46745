"""What a run may use: lent before a planner's call and an attempt that spends, given back, never more than there is."""

import msgspec
import pytest

from bench.simulated_skill import profile_of
from bench.simulator import Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.setting import CoreSettings
from orchestrator.service.query import planner_use, run_error, run_row, spend_row
from protocol.frame import Assign, WorkSpec
from protocol.outcome import Failure, Success, Usage
from protocol.plan import parse_patch
from protocol.skill import SkillSpec
from protocol.task import RunBudget, RunSettings
from workers import stimulus as on

OPEN = {"type": "object", "properties": {"value": {}, "run_s": {"type": "number"}}, "additionalProperties": False}
MODEL = SkillSpec("x.model", params=OPEN, effect="pure", spends=True)


def work(ident, skill="sim.work", run_s=0.05, **more):
    return {"id": ident, "skill": skill, "args": {"value": ident, "run_s": run_s}, **more}


def start(tasks, budget, core=None, program=None, **run):
    sim = Simulator(workers=[profile_of(8, skills=(MODEL,))], settings=core, program=program)
    sim.submit({"tasks": tasks, "run": {"budget": budget, **run}})
    sim.advance(0.5)
    return sim


def report(sim, name, usage):
    ident = next(one for one in sim.workers[0].live if one.task == sim.task(name).ix)
    sim.workers[0].step(on.Ended((on.Result(ident, Success(b'{"value":1}'), usage),)))
    sim.advance(0.2)


def lent(sim):
    spend = sim.state.runs[1].spend
    return spend.tokens, spend.lent_tokens, sum(spend.reserved.values())


def bad(job):
    yield 0.05
    return Failure("Bad", "no", "permanent")


def test_attempts_that_spend_borrow_and_give_back_and_who_finds_nothing_waits_for_them():
    core = CoreSettings(attempt_tokens=400)
    sim = start([work(name, "x.model", 60.0) for name in "abc"] + [work("free")], {"tokens": 800}, core)
    assert lent(sim) == (0, 800, 0)
    assert (sim.states()["free"], sim.task("c").attempts) == ("succeeded", ())
    assert "lent to others" in sim.machine.explain(1, "c")["why"]
    report(sim, "a", Usage(tokens_in=100, tokens_out=200))
    assert lent(sim) == (300, 500, 0)
    assert [one.tokens for one in sim.task("c").live()] == [100]
    report(sim, "b", Usage(tokens_in=1))
    report(sim, "c", Usage(tokens_in=20))
    sim.settle()
    sim.prove_replay()
    assert lent(sim) == (321, 0, 0)
    row = spend_row(sim.state.runs[1])
    assert (row.skills.calls, row.skills.tokens_in, row.planner.tokens_in, row.budget["tokens"]) == (3, 121, 0, 800)


def test_the_worker_is_told_what_it_may_use():
    sim = start([work("a", "x.model")], {"tokens": 500, "price": 2.0})
    sent = [
        c.item for _, _, decision in sim.log for c in decision.commands if isinstance(getattr(c, "item", 0), Assign)
    ]
    spec = msgspec.json.decode(sent[0].spec, type=WorkSpec)
    assert (spec.tokens, spec.price) == (500, 0.2)


def test_once_all_is_spent_nothing_that_spends_starts_and_the_rest_goes_on():
    tasks = [
        work("a", "x.model", 60.0),
        work("b", "x.model", after=["a"]),
        work("c", after=["a"]),
        work("d", after=["b"]),
    ]
    sim = start(tasks, {"tokens": 100})
    report(sim, "a", Usage(tokens_out=100))
    sim.settle()
    assert sim.states() == {"a": "succeeded", "b": "failed", "c": "succeeded", "d": "skipped"}
    error = run_error(sim.state.runs[1])
    assert error["code"] == "BudgetSpent"
    assert "tokens: 100 of 100 are used" in error["message"]
    assert "larger" in error["hint"]
    assert spend_row(sim.state.runs[1]).spent


def test_a_lost_attempt_keeps_what_it_was_lent_until_it_says_what_it_used():
    sim = start([work("a", "x.model", 2.0)], {"tokens": 1000}, CoreSettings(attempt_tokens=300))
    sim.workers[0].mute = True
    sim.advance(20.0)
    assert sim.task("a").attempts[0].ended == "lost"
    assert lent(sim)[0] == 300
    sim.workers[0].mute = False
    sim.settle()
    sim.advance(5.0)
    sim.prove_replay()
    assert [one.ended for one in sim.task("a").attempts if one.ended == "lost"] == []
    assert lent(sim) == (0, 0, 0)


@pytest.mark.parametrize("outcome", ["complete", "failed"])
def test_a_planner_call_borrows_a_share_and_is_settled_by_what_it_really_used(outcome):
    sim = Simulator(settings=CoreSettings(call_tokens=400))
    sim.request(RunSettings(budget=RunBudget(tokens=1000, price=1.0, calls=4)))
    spend = sim.state.runs[1].spend
    assert (lent(sim), spend.priced) == ((0, 0, 400), {1: 0.25})
    patch = parse_patch({"tasks": [work("a")]}, author="planner")
    sim.ask(lambda reply: s.PatchProposed(reply, 1, patch, call=1))
    sim.handle(s.PlanFinished(1, 1, outcome, "", 50, 20, 0.1, calls=2))
    assert lent(sim) == (70, 0, 0)
    assert (spend.calls, spend.price_left(RunBudget(price=1.0))) == (2, 0.9)
    used = planner_use(sim.state.runs[1])
    assert (used.calls, used.tokens_in, used.tokens_out) == (2, 50, 20)
    assert run_row(sim.state.runs[1], sim.now).tokens == 70
    sim.handle(s.PlanFinished(1, 1, outcome, "", 50, 20, 0.1, calls=2))
    assert lent(sim) == (70, 0, 0)


def test_a_lost_call_keeps_what_it_was_lent():
    sim = Simulator(settings=CoreSettings(call_tokens=400))
    sim.request(RunSettings(budget=RunBudget(tokens=1000)))
    sim.crash()
    sim.advance(3.0)
    assert lent(sim)[0] == 400
    sim.prove_replay()


def test_a_call_that_overran_its_deadline_counts_as_all_that_it_was_lent():
    sim = Simulator(settings=CoreSettings(call_tokens=400))
    sim.request(RunSettings(budget=RunBudget(tokens=1000)))
    sim.settle(300.0)
    assert lent(sim) == (400, 0, 0)


@pytest.mark.parametrize(
    ("budget", "word"), [({"tokens": 100}, "tokens"), ({"price": 0.2}, "price"), ({"calls": 1}, "calls")]
)
def test_a_replan_that_the_budget_does_not_allow_ends_the_run_as_budget_spent(budget, word):
    sim = start([work("a"), work("z", run_s=1.0)], budget, program={"a": bad}, on_failure="replan")
    patch = parse_patch({"tasks": [work("a", run_s=0.06)]}, author="planner")
    sim.ask(lambda reply: s.PatchProposed(reply, 1, patch, call=1))
    sim.handle(s.PlanFinished(1, 1, "complete", "", 60, 40, 0.2))
    sim.settle()
    assert (len(sim.planner_calls), sim.states()) == (1, {"a": "failed", "z": "succeeded"})
    assert run_error(sim.state.runs[1])["code"] == "BudgetSpent"
    assert spend_row(sim.state.runs[1]).spent.startswith(word)
    settled = [event.how for _, _, d in sim.log for event in d.events if isinstance(event, e.FailureSettled)]
    assert settled == ["unaffordable"]


def test_a_planner_that_used_more_than_there_is_stops_the_run():
    sim = start([work("a"), work("z", run_s=60.0)], {"tokens": 100}, program={"a": bad}, on_failure="replan")
    sim.handle(s.PlanFinished(1, 1, "complete", "", 90, 40))
    sim.settle()
    assert (sim.state.runs[1].state.code, sim.states()["z"]) == ("BudgetSpent", "cancelled")
    assert "130 tokens, its budget has 100" in sim.state.runs[1].state.message


def test_without_a_cap_nothing_is_lent():
    sim = start([work("a", "x.model", 9.0)], {})
    assert lent(sim) == (0, 0, 0)
    assert spend_row(sim.state.runs[1]).budget == {"depth": 8} or not spend_row(sim.state.runs[1]).budget


def test_a_plan_of_more_tasks_than_the_budget_has_ends_as_budget_spent_with_what_fits():
    sim = Simulator()
    sim.request(RunSettings(budget=RunBudget(tasks=2)))
    for name in "abc":
        patch = parse_patch({"tasks": [work(name)]}, author="planner")
        sim.handle(s.PatchProposed(0, 1, patch, call=1))
    sim.handle(s.PlanFinished(1, 1))
    sim.settle()
    assert sim.states() == {"a": "succeeded", "b": "succeeded"}
    assert run_error(sim.state.runs[1])["code"] == "BudgetSpent"


@pytest.mark.parametrize("first", [True, False])
def test_a_call_that_finds_too_little_to_ask_makes_the_run_budget_spent(first):
    if first:
        sim = Simulator()
        sim.request(RunSettings(budget=RunBudget(tokens=10)))
    else:
        sim = start([work("a")], {"tokens": 10}, program={"a": bad}, on_failure="replan")
    sim.handle(s.PlanFinished(1, 1, "unaffordable", "a question takes more"))
    sim.settle()
    assert run_error(sim.state.runs[1])["code"] == "BudgetSpent"
