"""Re-plans, reviews and goals of running tasks: what is asked, what is held back, what it costs the rest."""

import msgspec
import pytest

from bench.fault import Faults
from bench.simulated_skill import SimulatedCallRefused
from bench.simulator import Refused, Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.setting import CoreSettings
from protocol.outcome import Failure
from tests.unit.test_core_edit import REPLAN, bad, edit, finish, once_bad, refused, start, work


def answer(sim, call, *documents, outcome="complete", message=""):
    """The planner of this call says these documents and ends."""
    for document in documents:
        edit(sim, {"tasks": [], **document}, author="planner", call=call)
    sim.handle(s.PlanFinished(1, call, outcome, message))


def retry(name):
    return {"edits": [{"op": "retry", "id": name}]}


def told(sim, kind):
    return [event for _, _, decision in sim.log for event in decision.events if isinstance(event, kind)]


def timeline(sim, names):
    """When each of these tasks was dispatched and settled."""
    run = sim.state.runs[1]
    return [
        (run.name_of(task), [(one.at, one.ended_at) for one in task.attempts], task.state.at)
        for task in run.tasks
        if run.name_of(task).partition(".")[0] in names
    ]


def busy_graph(settings):
    """A failure early on, and a lot of work that has nothing to do with it, more than there are slots."""
    chain = [work("c0", run_s=0.7)]
    chain += [work(f"c{n}", run_s=0.7, value={"ref": f"c{n - 1}/value"}) for n in range(1, 60)]
    items = {"id": "l", "skill": "flow.list", "args": {"items": list(range(40))}}
    doomed = [work("x", run_s=0.3), work("y", value={"ref": "x/value"}), work("z", after=["y"])]
    tasks = [*doomed, *chain, items, work("m", value={"ref": "l/items[]"}, run_s=1.1), work("s", value={"ref": "m"})]
    faults = Faults(delay_s=(0.001, 0.001))
    return start(tasks, program={"x": bad}, settings=settings, workers=3, slots=1, faults=faults)


def test_a_call_of_30_s_delays_nothing_outside_its_claim_by_a_tick():
    rest = {"l", "m", "s", *(f"c{n}" for n in range(60))}
    without = busy_graph({"on_failure": "continue"})
    without.settle(200.0)
    sim = busy_graph(REPLAN)
    sim.run_until(sim.now + 5.0, lambda: bool(sim.planner_calls))
    opened = sim.now
    sim.advance(30.0)
    assert sim.state.runs[1].calls
    assert sorted(sim.state.runs[1].claims[1][0]) == [0, 1, 2]
    answer(sim, 1, {"edits": [{"op": "give_up", "id": "x"}]})
    sim.settle(200.0)
    assert timeline(sim, rest) == timeline(without, rest)
    within = [at for _, attempts, _ in timeline(sim, rest) for at, _ in attempts if opened < at < opened + 30.0]
    assert len(within) > 50


def test_a_claim_ends_at_its_deadline_though_its_call_goes_on():
    settings = CoreSettings(planner_s=60.0, claim_s=10.0)
    tasks = [work("a"), work("b", value={"ref": "a/value"})]
    sim = Simulator(program={"a": bad}, settings=settings)
    sim.submit({"tasks": tasks, "run": REPLAN})
    sim.advance(5.0)
    assert sim.state.runs[1].held(1)
    sim.advance(10.0)
    assert not sim.state.runs[1].claims
    assert sim.state.runs[1].calls
    finish(sim, 100.0)
    assert sim.state.runs[1].tasks[0].state.at < 10.0 + sim.started_at


def test_the_rounds_of_a_run_are_bounded_and_what_is_left_open_is_continued():
    sim = start([work("a", value=0), work("b", value={"ref": "a/value"})], program={"a": bad}, settings=REPLAN)
    for round_ in range(1, 4):
        sim.advance(1.0)
        assert sim.planner_calls[-1].digest.rounds_left == 3 - round_
        answer(sim, round_, {"tasks": [work("a", value=round_)]})
    assert finish(sim) == {"a": "failed", "b": "skipped"}
    assert len(sim.planner_calls) == 3
    assert "3 re-plans are all it may have" in sim.task("a").state.message


@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_the_bounds_are_the_runs_own(rounds):
    sim = start([work("a", value=-1)], program={"a": bad}, settings={**REPLAN, "replan": {"rounds": rounds}})
    for number in range(rounds + 2):
        sim.advance(1.0)
        if number < len(sim.planner_calls):
            answer(sim, number + 1, {"tasks": [work("a", value=number)]})
    finish(sim)
    assert len(sim.planner_calls) == rounds


def test_the_same_failure_is_not_planned_twice_under_whatever_name():
    sim = start([work("a", value=1), work("b", value={"ref": "a/value"})], program={"sim.work": bad}, settings=REPLAN)
    sim.advance(1.0)
    answer(sim, 1, {"edits": [{"op": "give_up", "id": "a"}], "tasks": [work("again", value=1)]})
    assert finish(sim) == {"a": "failed", "b": "skipped", "again": "failed"}
    assert len(sim.planner_calls) == 1
    assert "just so" in sim.task("again").state.message


def test_a_graph_that_was_there_before_ends_re_planning():
    sim = start([work("a", value=0)], program={"a": lambda job: fails_anew(job)}, settings=REPLAN)
    sim.advance(1.0)
    answer(sim, 1, {"tasks": [work("a", value=1)]})
    sim.advance(1.0)
    answer(sim, 2, {"tasks": [work("a", value=0)]})
    finish(sim)
    assert len(sim.planner_calls) == 2
    assert sim.state.runs[1].stuck
    assert "was there before" in sim.task("a").state.message


def fails_anew(job):
    yield 0.01
    return Failure(f"Bad{job.number}", "each time in another way")


def test_a_call_may_change_so_much_and_no_more():
    sim = start([work("a"), *(work(f"w{n}", after=["a"]) for n in range(9))], program={"a": bad}, settings=REPLAN)
    sim.advance(1.0)
    removed = [{"op": "remove", "id": f"w{n}"} for n in range(9)]
    assert refused(sim, {"tasks": [], "edits": removed}, author="planner", call=1).codes == ["PlanTooLarge"]
    edit(sim, {"tasks": [work(f"n{n}") for n in range(4)]}, author="planner", call=1)
    found = refused(sim, {"tasks": [work(f"o{n}") for n in range(3)]}, author="planner", call=1)
    assert found.codes == ["PlanTooLarge"]
    edit(sim, {"tasks": [work(f"o{n}") for n in range(2)], "edits": removed[:8]}, author="planner", call=1)
    assert refused(sim, {"tasks": [work("w8", after=["a"], value=2)]}, author="planner", call=1)
    edit(sim, {"tasks": [work(f"p{n}") for n in range(30)]}, author="person:ann")
    answer(sim, 1)
    finish(sim)


def test_parts_of_one_call_are_one_version_and_do_not_conflict_with_each_other():
    sim = start([work("a"), work("b", value={"ref": "a/value"})], program={"a": once_bad()}, settings=REPLAN)
    sim.advance(1.0)
    edit(sim, {"base": 1, "tasks": [work("b", value=1)]}, author="planner", call=1)
    edit(sim, {"tasks": [work("mine")]}, author="person:ann")
    edit(sim, {"base": 1, "tasks": [work("c", value={"ref": "b/value"})]}, author="planner", call=1)
    edit(sim, {"base": 1, "tasks": [work("d", value={"ref": "c/value"})]}, author="planner", call=1)
    found = refused(sim, {"base": 1, "tasks": [work("e", value={"ref": "mine/value"})]}, author="planner", call=1)
    assert found.code == "Conflict"
    answer(sim, 1, {"base": 1, **retry("a")})
    assert set(finish(sim).values()) == {"succeeded"}
    assert [version.author for version in sim.state.runs[1].versions] == [
        "person:sim",
        "planner",
        "person:ann",
        "planner",
    ]


def test_a_lost_call_costs_no_round():
    sim = start([work("a"), work("b", value={"ref": "a/value"})], program={"a": bad}, settings=REPLAN)
    for _ in range(4):
        sim.advance(1.0)
        sim.crash()
        sim.advance(3.0)
    assert len(sim.planner_calls) == 5
    assert sim.state.runs[1].rounds == 1
    answer(sim, 5)
    assert finish(sim) == {"a": "failed", "b": "skipped"}


def test_a_first_plan_that_a_restart_cut_off_is_asked_for_again_and_may_repeat_itself():
    sim = Simulator()
    sim.request()
    edit(sim, {"tasks": [work("a")]}, author="planner", call=1)
    sim.advance(0.5)
    sim.crash()
    sim.advance(3.0)
    [_, again] = sim.planner_calls
    assert (again.digest.kind, again.digest.tasks[0].id, again.digest.tasks[0].result) == ("plan", "a", None)
    assert not sim.state.runs[1].planned
    tasks = [work("a"), work("b", value={"ref": "a/value"})]
    answer(sim, 2, {"tasks": tasks})
    assert finish(sim) == {"a": "succeeded", "b": "succeeded"}
    assert len(sim.task("a").attempts) == 1


def test_a_first_plan_that_is_cut_off_again_and_again_is_given_up():
    sim = Simulator()
    sim.request()
    for _ in range(4):
        sim.crash()
        sim.advance(3.0)
    sim.settle()
    assert sim.state.runs[1].state.code == "PlannerLost"
    assert len(sim.planner_calls) == 4


def test_a_first_plan_of_which_a_part_was_refused_is_not_whole():
    sim = Simulator()
    sim.request()
    edit(sim, {"tasks": [work("a")]}, author="planner", call=1)
    assert refused(sim, {"tasks": [work("b", "no.such")]}, author="planner", call=1)
    answer(sim, 1)
    assert finish(sim) == {"a": "succeeded"}
    assert (sim.state.runs[1].state.state, sim.state.runs[1].state.code) == ("failed", "PlanRefused")
    assert "no.such" in sim.state.runs[1].state.message


# Reviews


def test_a_review_is_asked_for_after_every_so_many_tasks_and_holds_nothing():
    tasks = [work("a"), *(work(f"w{n}", value={"ref": f"{'a' if not n else f'w{n - 1}'}/value"}) for n in range(9))]
    sim = start(tasks, settings={"review": 3})
    sim.run_until(sim.now + 5.0, lambda: bool(sim.planner_calls))
    [call] = sim.planner_calls
    assert (call.digest.kind, call.digest.failed, call.digest.states["succeeded"]) == ("review", (), 3)
    assert not sim.state.runs[1].claims
    answer(sim, 1)
    sim.run_until(sim.now + 5.0, lambda: len(sim.planner_calls) == 2)
    assert sim.planner_calls[1].digest.states["succeeded"] == 6
    assert set(finish(sim).values()) == {"succeeded"}
    assert sim.now < sim.started_at + 20  # nobody waits for a review that is still open


def test_a_review_may_add_work_within_the_rounds_of_the_run():
    tasks = [work("a"), work("b", value={"ref": "a/value"}), work("slow", run_s=20)]
    sim = start(tasks, settings={"review": 1, "replan": {"rounds": 2}})
    for number in range(1, 4):
        sim.advance(1.0)
        if number <= len(sim.planner_calls):
            answer(sim, number, {"tasks": [work(f"n{number}")]})
    finish(sim)
    assert len(sim.planner_calls) == 2
    assert sim.states()["n2"] == "succeeded"


# Goals of running tasks


def proposes(goal, seen):
    def program(job):
        try:
            seen.append((yield "propose", {"goal": goal}))
        except SimulatedCallRefused as error:
            seen.append(str(error))
        return {"value": 1}

    return program


def asked(goal="look closer", **more):
    seen = []
    sim = start(
        [work("p", "sim.parent"), work("q", value={"ref": "p/value"})], program={"p": proposes(goal, seen)}, **more
    )
    sim.advance(1.0)
    return sim, seen


def test_a_running_task_asks_for_more_and_hears_what_was_added():
    sim, seen = asked(slots=1, workers=1)
    [call] = sim.planner_calls
    assert (call.goal, call.digest.kind, sim.state.runs[1].claims) == ("look closer", "propose", {})
    assert sim.task("p").state.what == "propose"
    answer(sim, 1, {"tasks": [work("closer")]})
    assert set(finish(sim).values()) == {"succeeded"}
    assert seen == [{"version": 2, "tasks": ["closer"]}]


@pytest.mark.parametrize(("outcome", "message"), [("abstained", "no skill"), ("failed", "no answer")])
def test_a_goal_that_the_planner_can_not_serve_is_answered_with_the_reason(outcome, message):
    sim, seen = asked()
    answer(sim, 1, outcome=outcome, message=message)
    finish(sim)
    assert seen == [message]


def test_a_goal_whose_plan_is_refused_is_answered_with_its_problems():
    sim, seen = asked()
    assert refused(sim, {"tasks": [work("x", "no.such")]}, author="planner", call=1)
    answer(sim, 1)
    finish(sim)
    assert "UnknownSkill" in seen[0]


def test_a_goal_that_was_asked_for_is_asked_for_again_after_a_restart_and_answered_once():
    sim, seen = asked()
    sim.crash()
    sim.advance(3.0)
    assert [call.goal for call in sim.planner_calls] == ["look closer"] * 2
    answer(sim, 2, {"tasks": [work("closer")]})
    sim.advance(0.02)
    sim.crash()
    sim.advance(3.0)
    assert set(finish(sim).values()) == {"succeeded"}
    assert seen == [{"version": 2, "tasks": ["closer"]}]


def test_the_call_for_a_task_that_is_cancelled_is_stopped():
    sim, _ = asked()
    sim.handle(s.CancelRequested(0, 1, "p", "ann"))
    sim.advance(1.0)
    assert not sim.state.runs[1].calls
    assert sim.states()["p"] == "cancelled"
    with pytest.raises(Refused):
        edit(sim, {"tasks": [work("late")]}, author="planner", call=1)
    finish(sim)


def test_goals_are_bounded_a_run_and_in_length():
    sim, seen = asked("x" * 2001)
    finish(sim)
    assert "2,000 characters" in seen[0]
    sim, seen = asked(settings={"replan": {"proposals": 0}})
    finish(sim)
    assert "may ask for 0 goals" in seen[0]


def test_nothing_is_asked_while_the_first_plan_is_written():
    seen = []
    sim = Simulator(program={"p": proposes("more", seen)})
    sim.request()
    edit(sim, {"tasks": [work("p", "sim.parent")]}, author="planner", call=1)
    sim.advance(5.0)
    assert len(sim.planner_calls) == 1
    answer(sim, 1)
    sim.advance(0.5)
    assert sim.planner_calls[1].goal == "more"
    answer(sim, 2)
    finish(sim)
    assert seen == [{"version": 1, "tasks": []}]


def test_outputs_that_a_task_says_while_the_first_plan_is_written_are_the_later_word():
    def widen(job):
        plan = {"tasks": [work("more")], "outputs": [{"name": "all", "ref": "more/value"}]}
        return (yield "propose", {"patch": plan})

    sim = Simulator(program={"p": widen})
    sim.request()
    edit(sim, {"tasks": [work("p", "sim.parent")]}, author="planner", call=1)
    sim.advance(5.0)
    answer(sim, 1, {"outputs": [{"name": "few", "ref": "p/value"}]})
    assert finish(sim) == {"p": "succeeded", "more": "succeeded"}
    assert [one.name for one in sim.state.runs[1].outputs] == ["all"]


def test_a_run_that_is_cancelled_stops_its_calls():
    sim, _ = asked()
    sim.handle(s.CancelRequested(0, 1, "", "ann"))
    assert msgspec.json.encode(sim.state.runs[1].calls) == b"{}"
    assert [type(event) for event in told(sim, e.PlannerCallClosed)] == [e.PlannerCallClosed]
    finish(sim, 5.0)
