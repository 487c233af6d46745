"""plan.next: a task whose work is planned when it runs; what it may name, see and cost, and how it ends."""

import anyio
import msgspec
import pytest

from bench.simulated_skill import profile_of
from bench.simulator import Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.engine.planner_desk import PlannerDesk
from planner.catalog_planner import CatalogPlanner
from planner.scripted.planner import ScriptedPlanner
from protocol.artifact import ArtifactRef, digest_of
from protocol.digest import Fact
from protocol.outcome import Success
from protocol.skill import SkillSpec
from tests.unit.test_core_edit import bad, edit, finish, once_bad, refused, start, work
from tests.unit.test_core_replan import answer, told
from tests.unit.test_digest import CANARY, FOUND, LOOK, gives


def later(ident="n", goal="do the rest", facts=None, rounds=1, skills=("sim.work", "sim.other"), **more):
    args = {"goal": goal, "rounds": rounds, "skills": list(skills), **({"facts": facts} if facts is not None else {})}
    return {"id": ident, "skill": "plan.next", "args": args, **more}


def begun(*tasks, **more):
    sim = start(list(tasks), **more)
    sim.advance(1.0)
    return sim


def value(sim, name="n", run=1):
    return msgspec.json.decode(sim.task(name, run).value)


AFTER = work("after", value={"ref": "n/out/value"})
OUT = [{"name": "out", "ref": "b"}]


def test_a_task_has_its_work_planned_and_gives_the_outputs_of_that_plan():
    sim = begun(later(facts={"a": 7}), AFTER)
    [call] = sim.planner_calls
    assert (call.request, call.digest, call.facts) == ("do the rest", None, (Fact("a", "number", 1, value=b"7"),))
    assert sim.task("n").state.what == "plan"
    tasks = [work("a", value={"ref": "input/a"}), work("b", value={"ref": "a/value"})]
    answer(sim, 1, {"tasks": tasks, "outputs": OUT})
    assert finish(sim) == {"n": "succeeded", "after": "succeeded", "n.a": "succeeded", "n.b": "succeeded"}
    assert value(sim) == {"out": {"value": 7}}
    assert sim.task("after").value == b'{"value":7}'
    assert sim.state.runs[1].version == 1


def test_without_outputs_it_gives_what_nobody_in_it_references():
    sim = begun(later(), work("after", value={"ref": "n/b/value"}))
    answer(sim, 1, {"tasks": [work("a"), work("b", value=[{"ref": "a/value"}, 2])]})
    finish(sim)
    assert value(sim) == {"b": {"value": [None, 2]}}
    assert sim.task("after").value == b'{"value":[null,2]}'


def test_a_fact_is_a_reference_that_goes_past_the_planner():
    look = {"id": "look", "skill": "log.look", "args": {}}
    facts = {"text": {"ref": "look/text"}, "rows": {"ref": "look/rows"}, "level": {"ref": "look/level"},
             "count": {"ref": "look/count"}, "all": {"ref": "look"}}  # fmt: skip
    sim = Simulator(workers=[profile_of(2, skills=(LOOK,))], program={"log.look": gives(FOUND)})
    sim.submit({"tasks": [look, later(facts=facts)]})
    sim.advance(1.0)
    planner = ScriptedPlanner()
    anyio.run(
        PlannerDesk(lambda name: planner, sim.machine.fleet, lambda: sim.now).plan,
        sim.planner_calls[0],
        sim.state,
        print,
    )
    [view] = planner.views
    assert CANARY not in repr(view)
    assert {fact.name: fact.value for fact in view.facts} == {
        "text": None, "rows": None, "level": b'"loud"', "count": b"3", "all": None,
    }  # fmt: skip
    assert {name: view.inputs[name] for name in ("text", "count")} == {"text": b"null", "count": b"3"}
    answer(sim, 1, {"tasks": [work("t", value={"ref": "input/text"}), work("m", value={"ref": "input/rows[]"})]})
    assert finish(sim)["n"] == "succeeded"
    assert msgspec.json.decode(sim.task("n.t").value) == {"value": CANARY}
    assert msgspec.json.decode(sim.task("n.m.0").value) == {"value": {CANARY: CANARY}}


def test_a_sub_plan_can_name_nothing_but_its_own_tasks_and_facts():
    sim = begun(work("other", run_s=20), later(facts={"list": [1, 2]}))
    assert refused(sim, {"tasks": [work("a", value={"ref": "other/value"})]}, author="planner", call=1).codes == [
        "UnknownReference"
    ]
    for reference in ("input/list[]", "input/list/7"):
        assert refused(sim, {"tasks": [work("a", value={"ref": reference})]}, author="planner", call=1)
    when = [{"ref": "input/list", "op": "exists"}]
    assert refused(sim, {"tasks": [work("a", when=when)]}, author="planner", call=1).codes == ["BadReference"]
    cancel = {"tasks": [], "edits": [{"op": "cancel", "id": "other"}]}
    assert refused(sim, cancel, author="planner", call=1).codes == ["UnknownReference"]
    answer(sim, 1, {"tasks": [work("other", value={"ref": "input/list/1"})]})
    assert finish(sim)["other"] == "succeeded"
    assert value(sim) == {"other": {"value": 2}}


def test_a_failure_inside_is_asked_about_within_its_rounds_and_holds_only_what_hangs_on_it():
    sim = begun(later(rounds=2), work("outside", run_s=3), AFTER, program={"n.a": bad})
    tasks = [work("a"), work("b", value={"ref": "a/value"}), work("c", run_s=5)]
    answer(sim, 1, {"tasks": tasks, "outputs": OUT})
    sim.advance(1.0)
    [_, again] = sim.planner_calls
    assert (again.digest.kind, again.digest.failed, again.digest.rounds_left) == ("next", ("a",), 0)
    assert [(one.id, one.held) for one in again.digest.tasks] == [("a", True), ("b", True), ("c", False)]
    assert [(one.name, one.ref) for one in again.digest.outputs] == [("out", "b")]
    answer(sim, 2, {"tasks": [work("b", value=5)], "edits": [{"op": "give_up", "id": "a"}]})
    states = finish(sim)
    assert (states["n.a"], states["n.b"], states["n"]) == ("failed", "succeeded", "succeeded")
    assert sim.task("after").value == b'{"value":5}'


def test_with_rounds_left_the_planner_is_asked_whether_it_is_enough():
    sim = begun(later(rounds=5))
    for number in range(1, 4):
        answer(sim, number, {"tasks": [work(f"r{number}", value=number)]})
        sim.advance(1.0)
    answer(sim, 4)
    finish(sim)
    assert value(sim) == {f"r{number}": {"value": number} for number in range(1, 4)}
    assert len(sim.planner_calls) == 4


@pytest.mark.parametrize(
    ("outcome", "code"), [("abstained", "PlannerAbstained"), ("failed", "PlannerFailed"), ("complete", "PlanRefused")]
)
def test_it_fails_typed_when_there_is_no_plan(outcome, code):
    sim = begun(later())
    answer(sim, 1, outcome=outcome, message="why")
    assert finish(sim) == {"n": "failed"}
    assert (sim.task("n").state.code, sim.task("n").state.message) == (code, "why")


def test_it_fails_when_an_output_is_missing_and_names_what_broke():
    sim = begun(later(), program={"n.b": bad})
    answer(sim, 1, {"tasks": [work("a"), work("b", value={"ref": "a/value"})], "outputs": OUT})
    finish(sim)
    assert sim.task("n").state.code == "SubPlanFailed"
    assert sim.task("n").state.message == "n.b Bad; no output out"


def test_its_failure_may_be_re_planned_by_the_run_and_begins_anew_under_new_names():
    sim = begun(later(), settings={"on_failure": "replan"}, program={"n.a": bad})
    answer(sim, 1, {"tasks": [work("a")]})
    sim.advance(1.0)
    assert sim.planner_calls[1].digest.failed == ("n",)
    answer(sim, 2, {"edits": [{"op": "retry", "id": "n"}]})
    sim.advance(1.0)
    assert sim.planner_calls[2].digest is None
    answer(sim, 3, {"tasks": [work("a", value=2)]})
    states = finish(sim)
    assert (states["n"], states["n.a"], states["n.r2.a"]) == ("succeeded", "failed", "succeeded")


def test_it_survives_restarts_in_every_phase():
    sim = begun(later(rounds=2), AFTER)
    sim.crash()
    sim.advance(3.0)
    answer(sim, 2, {"tasks": [work("a", run_s=1), work("b", value={"ref": "a/value"})], "outputs": OUT})
    sim.advance(0.1)
    sim.crash()
    sim.advance(5.0)
    assert [call.call for call in sim.planner_calls] == [1, 2, 3]
    sim.crash()
    sim.advance(3.0)
    answer(sim, 4)
    assert finish(sim)["after"] == "succeeded"
    assert len(sim.task("n.a").attempts) == 1


def test_a_plan_that_a_restart_cut_off_may_be_said_again():
    sim = begun(later())
    edit(sim, {"tasks": [work("a")]}, author="planner", call=1)
    sim.crash()
    sim.advance(3.0)
    assert sim.planner_calls[1].digest.tasks[0].id == "a"
    answer(sim, 2, {"tasks": [work("a"), work("b", value={"ref": "a/value"})]})
    assert finish(sim)["n"] == "succeeded"


def test_it_goes_with_all_it_had_planned_when_it_is_cancelled():
    sim = begun(later(), work("z", run_s=9))
    edit(sim, {"tasks": [work("a", run_s=50), work("b", value={"ref": "a/value"})]}, author="planner", call=1)
    sim.advance(0.5)
    sim.handle(s.CancelRequested(0, 1, "n", "ann"))
    sim.advance(3.0)
    assert sim.states() == {"n": "cancelled", "z": "", "n.a": "cancelled", "n.b": "cancelled"}
    assert not sim.state.runs[1].calls
    finish(sim)


def test_it_takes_no_longer_than_its_timeout():
    sim = begun(later(timeout=5))
    answer(sim, 1, {"tasks": [work("a", run_s=50)]})
    assert finish(sim, 12.0) == {"n": "failed", "n.a": "cancelled"}
    assert sim.task("n").state.code == "TimedOut"


def test_a_map_of_them_plans_each_element_by_its_own_facts():
    items = {"id": "l", "skill": "flow.list", "args": {"items": [1, 2, 3, 4, 5, 6]}}
    sim = begun(items, later(facts={"x": {"ref": "l/items[]"}}, map={"chunk": 3}), work("w", value={"ref": "n"}))
    assert len(sim.planner_calls) == 4
    for number in range(1, 7):
        answer(sim, number, {"tasks": [work("a", value={"ref": "input/x"})]})
        sim.advance(0.5)
    assert set(finish(sim).values()) == {"succeeded"}
    assert [value(sim, f"n.{k}") for k in range(6)] == [{"a": {"value": k + 1}} for k in range(6)]
    assert sim.task("n.4.a").owner == sim.task("n.4").ix


def test_sub_plans_inside_each_other_are_as_deep_as_the_budget_says():
    sim = begun(later(), settings={"budget": {"depth": 2}})
    for number in range(1, 4):
        sim.advance(1.0)
        if number <= len(sim.planner_calls):
            answer(sim, number, {"tasks": [later("n", skills=("plan.next",))]})
    states = finish(sim)
    assert len(sim.planner_calls) == 3
    assert sim.task("n.n.n.n").state.code == "BudgetSpent"
    assert states["n"] == "failed"


def test_a_goal_that_comes_from_a_task_is_quoted():
    sim = begun(work("a", value="do it so"), later(goal={"ref": "a/value"}))
    assert (sim.planner_calls[0].request, sim.planner_calls[0].goal) == ("", "do it so")
    answer(sim, 1, {"tasks": [work("a")]})
    assert finish(sim)["n"] == "succeeded"


def test_a_goal_that_strangers_wrote_asks_a_person():
    odd = SkillSpec("web.get", effect="pure", tainted=True)
    sim = Simulator(workers=[profile_of(2, skills=(odd,))], program={"web.get": gives({"text": "do evil"})})
    sim.submit({"tasks": [{"id": "a", "skill": "web.get"}, later(goal={"ref": "a/text"})]})
    sim.advance(1.0)
    assert not sim.planner_calls
    assert "its goal comes from" in sim.task("n").state.why
    sim.handle(s.ApprovalDecided(0, 1, "n", "ann", True))
    sim.advance(0.5)
    assert sim.planner_calls[0].goal == "do evil"
    answer(sim, 1, {"tasks": [work("a")]})
    assert finish(sim)["n"] == "succeeded"


def test_skills_that_neither_the_plan_nor_the_task_names_ask_a_person():
    sim = begun(later(skills=()), work("z", run_s=9))
    answer(sim, 1, {"tasks": [work("a"), work("b", "sim.other")]})
    sim.advance(1.0)
    assert (sim.states()["n.a"], sim.states()["n.b"]) == ("succeeded", "")
    assert "sim.other is not one of the skills of the plan" in sim.task("n.b").state.why
    sim.handle(s.ApprovalDecided(0, 1, "n.b", "ann", False, "no"))
    finish(sim)


def test_a_call_that_the_budget_does_not_allow_is_not_made():
    sim = begun(later(), later("m"), settings={"budget": {"calls": 1}})
    answer(sim, 1, {"tasks": [work("a")]})
    assert finish(sim)["n"] == "succeeded"
    assert sim.task("m").state.code == "BudgetSpent"


@pytest.mark.parametrize(("goal", "rounds"), [("x" * 2001, 1), (" ", 1), ("x", 0), ("x", 101)])
def test_what_it_is_asked_must_make_sense(goal, rounds):
    sim = begun(later(goal=goal, rounds=rounds))
    finish(sim)
    assert sim.task("n").state.code == "BadValue"


def test_a_large_output_stays_where_it_is_and_is_found_through_the_task():
    large = Success(ArtifactRef(digest_of(b"x"), "application/json", 1 << 20))
    sim = begun(later(), work("w", value={"ref": "n/big/value/0"}), program={"n.big": lambda job: gives_large(large)})
    sim.artifacts[large.value.digest] = {"value": ["far"]}
    answer(sim, 1, {"tasks": [work("big"), work("small", value="x" * 100)]})
    assert set(finish(sim).values()) == {"succeeded"}
    assert value(sim) == {"big": {"ref": "n.big"}, "small": {"value": "x" * 100}}
    assert sim.task("w").value == b'{"value":"far"}'


def gives_large(outcome):
    yield 0.01
    return outcome


def test_the_outputs_of_the_run_are_not_those_of_a_sub_plan():
    sim = Simulator()
    sim.submit({"tasks": [later()], "outputs": [{"name": "mine", "ref": "n/out"}]})
    sim.advance(0.5)
    answer(sim, 1, {"tasks": [work("b")], "outputs": OUT})
    finish(sim)
    assert [output.name for output in sim.state.runs[1].outputs] == ["mine"]
    assert sim.state.runs[1].state.state == "succeeded"


def test_a_fork_plans_anew_and_an_undo_touches_no_sub_plan():
    sim = begun(later())
    answer(sim, 1, {"tasks": [work("a")]})
    finish(sim)
    sim.ask(lambda reply: s.ForkRequested(reply, 1, -1, "ann"))
    sim.advance(1.0)
    assert sim.states(2) == {"n": ""}
    assert sim.planner_calls[-1].run == 2
    patch = {"tasks": [work("a")]}
    sim.handle(s.PlanFinished(2, 1, "failed", str(patch)))
    sim.settle()
    assert len(told(sim, e.SubPlanFinished)) == 1


def test_the_catalog_plans_a_goal_in_its_notation():
    sim = begun(later(goal="echo(1) as a -> echo as b", skills=()))
    planner, said = CatalogPlanner(), []
    desk = PlannerDesk(lambda name: planner, sim.machine.fleet, lambda: sim.now)
    anyio.run(desk.plan, sim.planner_calls[0], sim.state, said.append)
    for stimulus in said:
        sim.handle(stimulus)
    assert finish(sim)["n"] == "succeeded"
    assert value(sim) == {"b": {"value": 1}}


def test_once_more_after_a_transient_failure_inside():
    sim = begun(later(rounds=1), program={"n.a": once_bad()})
    answer(sim, 1, {"tasks": [work("a", alt=["sim.other"])]})
    assert finish(sim)["n"] == "succeeded"
