"""Edits of a living graph: patches, undo, fork, re-plans."""

import pytest

from bench.fault import Faults
from bench.simulator import Refused, Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from protocol.outcome import Failure
from protocol.patch import Edit, Patch
from protocol.plan import parse_patch, parse_task


def work(ident, skill="sim.work", run_s=0.05, value=None, **more):
    return {"id": ident, "skill": skill, "args": {"value": value, "run_s": run_s}, **more}


def start(tasks, *, program=None, settings=None, outputs=(), **more):
    sim = Simulator(program=program, **more)
    sim.submit({"tasks": tasks, "run": settings or {}, "outputs": list(outputs)})
    return sim


def edit(sim, document=None, *, patch=None, author="person:ann", call=0):
    found = patch or parse_patch(document, author=author)
    return sim.ask(lambda reply: s.PatchProposed(reply, 1, found, call=call))


def refused(sim, document=None, **more):
    with pytest.raises(Refused) as found:
        edit(sim, document, **more)
    return found.value


def finish(sim, limit_s=60.0):
    sim.settle(limit_s)
    sim.prove_replay()
    return sim.states()


def bad(job):
    yield 0.01
    return Failure("Bad", "as told")


def once_bad():
    seen = []

    def program(job):
        yield 0.01
        seen.append(job.number)
        return Failure("Bad", "as told") if len(seen) == 1 else {"value": 1}

    return program


def test_a_patch_adds_tasks_to_a_running_graph_as_a_new_version():
    sim = start([work("a", run_s=2.0)])
    assert edit(sim, {"tasks": [work("b", value={"ref": "a/value"})]}) == {"version": 2}
    assert finish(sim) == {"a": "succeeded", "b": "succeeded"}


def test_a_task_not_yet_dispatched_is_replaced_and_runs_as_its_new_self_only():
    sim = start([work("a", run_s=1.0), work("b", after=["a"]), work("c", value={"ref": "b/value"})])
    edit(sim, {"tasks": [work("b", "sim.other", value=7)]})
    assert finish(sim)["c"] == "succeeded"
    assert [attempt.skill for attempt in sim.task("b").attempts] == ["sim.other"]


def test_a_ready_task_in_the_queue_is_replaced_without_a_stale_dispatch():
    sim = start([work("a", run_s=2.0), work("b", run_s=1.0, value=1)], workers=1, slots=1)
    edit(sim, {"tasks": [work("b", "sim.light", value=2)]})
    finish(sim)
    assert [(attempt.skill) for attempt in sim.task("b").attempts] == ["sim.light"]
    assert sim.task("b").value == b'{"value":2}'


def test_a_dispatched_or_settled_task_is_never_altered():
    sim = start([work("a"), work("b", run_s=5.0)])
    sim.advance(1.0)
    found = refused(sim, {"tasks": [work("a"), work("b")], "links": [["a", "b"]]})
    assert found.codes == ["AlreadyDispatched"] * 3
    assert finish(sim)


def test_all_problems_are_named_at_once():
    sim = start([work("a", run_s=2.0)])
    tasks = (parse_task(work("b", value={"ref": "zz/value"})), parse_task(work("c", skill="sim.nope")))
    edits = (Edit("retry", "a"), Edit("cancel", "q"))
    found = refused(sim, patch=Patch("person:ann", tasks, edits=edits, links=(("a", "y"),)))
    assert sorted(set(found.codes)) == ["NotOpen", "UnknownReference", "UnknownSkill"]
    assert sim.state.runs[1].version == 1


def test_optimistic_base_refuses_only_what_touches_what_changed():
    sim = start([work("slow", run_s=5.0), work("a", after=["slow"]), work("b", after=["slow"])])
    edit(sim, {"base": 1, "tasks": [work("a", value=2)]})
    assert refused(sim, {"base": 1, "tasks": [work("a", value=3)]}).code == "Conflict"
    assert refused(sim, {"base": 1, "tasks": [work("d", value={"ref": "a/value"})]}).code == "Conflict"
    assert refused(sim, {"base": 1, "relies": ["a"], "tasks": [work("e")]}).code == "Conflict"
    assert edit(sim, {"base": 1, "tasks": [work("b", value=4)]}) == {"version": 3}
    finish(sim)


def test_links_count_as_a_change_of_their_downstream():
    sim = start([work("slow", run_s=5.0), work("a", after=["slow"]), work("b", after=["slow"])])
    edit(sim, {"base": 1, "links": [["a", "b"]], "tasks": []})
    assert refused(sim, {"base": 1, "tasks": [work("b")]}).code == "Conflict"
    finish(sim)
    assert sim.task("b").attempts[0].at >= sim.task("a").state.at


def test_unlink_lets_a_task_go():
    sim = start([work("slow", run_s=50.0), work("b", after=["slow"])])
    edit(sim, {"unlinks": [["slow", "b"]], "tasks": []})
    sim.advance(1.0)
    assert sim.states()["b"] == "succeeded"


def test_a_cycle_is_refused_and_named():
    sim = start([work("slow", run_s=5.0), work("a", after=["slow"]), work("b", after=["a"])])
    found = refused(sim, {"links": [["b", "a"]], "tasks": []})
    assert found.codes == ["Cycle"]
    two = Patch("person:ann", (parse_task(work("x", after=["y"])), parse_task(work("y", after=["x"]))))
    assert refused(sim, patch=two).codes == ["Cycle"]
    twice = Patch("person:ann", (parse_task(work("x")), parse_task(work("x"))))
    assert refused(sim, patch=twice).codes == ["DuplicateId"]
    finish(sim)


def test_edits_cancel_remove_and_finish():
    tasks = [
        work("slow", run_s=3.0),
        work("out", value={"ref": "slow/value"}),
        work("side", run_s=50.0),
        work("gone", after=["slow"]),
        work("c", run_s=50.0),
    ]
    sim = start(tasks, outputs=[{"name": "o", "ref": "out/value"}], slots=4)
    sim.advance(0.5)
    edit(sim, {"edits": [{"op": "remove", "id": "gone"}, {"op": "cancel", "id": "c"}], "tasks": []})
    edit(sim, {"edits": [{"op": "finish"}], "tasks": []})
    states = finish(sim, 10.0)
    assert states == {
        "slow": "succeeded",
        "out": "succeeded",
        "side": "cancelled",
        "gone": "cancelled",
        "c": "cancelled",
    }
    assert sim.task("gone").state.code == "Removed"
    assert sim.state.runs[1].state.state == "succeeded"


def test_undo_takes_a_version_back_unless_it_was_dispatched():
    sim = start([work("slow", run_s=3.0), work("a", after=["slow"], value=1)])
    edit(sim, {"tasks": [work("a", value=2, after=["slow"]), work("b", after=["slow"])]})
    assert sim.ask(lambda reply: s.UndoRequested(reply, 1, 2, "ann")) == {"version": 3}
    edit(sim, {"tasks": [work("c")]})
    sim.advance(1.0)
    with pytest.raises(Refused) as found:
        sim.ask(lambda reply: s.UndoRequested(reply, 1, 4, "ann"))
    assert found.value.code == "Conflict"
    states = finish(sim)
    assert states == {"slow": "succeeded", "a": "succeeded", "b": "cancelled", "c": "succeeded"}
    assert sim.task("a").value == b'{"value":1}'
    sim.ask(lambda reply: s.ForkRequested(reply, 1, 3))
    sim.settle()
    assert set(sim.states(2)) == {"slow", "a"}, "what was undone is in no later version"


def test_a_fork_reuses_results_of_equal_pins_and_a_fork_of_a_fork_too():
    tasks = [work("a", value=1), work("o", "sim.once"), work("b", value={"ref": "a/value"}), work("c", after=["b"])]
    sim = start(tasks, program={"c": once_bad()})
    assert finish(sim)["c"] == "failed"
    for run in (2, 3):
        sim.ask(lambda reply, run=run: s.ForkRequested(reply, run - 1, by="ann"))
        sim.settle()
        assert set(sim.states(run).values()) == {"succeeded"}
        assert [len(sim.task(name, run).attempts) for name in "aob"] == [0, 0, 0]
    assert sum(sim.effects.values()) == 1
    sim.prove_replay()


def test_a_fork_goes_back_to_an_old_version():
    sim = start([work("slow", run_s=1.0)])
    edit(sim, {"tasks": [work("b")]})
    finish(sim)
    sim.ask(lambda reply: s.ForkRequested(reply, 1, 1))
    sim.settle()
    assert set(sim.states(2)) == {"slow"}


def test_a_settled_or_cancelled_run_takes_no_patch():
    sim = start([work("a", run_s=50.0)])
    sim.advance(0.5)
    sim.handle(s.CancelRequested(99, 1, "", "ann"))
    assert refused(sim, {"tasks": [work("b")]}).code == "PlanRefused"
    finish(sim)
    assert refused(sim, {"tasks": [work("b")]}).code == "PlanRefused"


@pytest.mark.parametrize("use", [{"relies": ["a"]}, {"after": ["a"]}, {"value": {"ref": "a/value"}}])
def test_a_retry_or_cancel_is_a_change_for_a_patch_that_relies_on_the_task(use):
    sim = start(
        [work("a"), work("b", run_s=9.0), work("c", value={"ref": "b/value"})],
        program={"a": once_bad()},
        settings=REPLAN,
    )
    sim.advance(1.0)
    late = {"base": 1, "relies": use.pop("relies", []), "tasks": [work("late", **use)]}
    assert edit(sim, {"edits": [{"op": "retry", "id": "a"}], "tasks": []}) == {"version": 2}
    assert refused(sim, late).code == "Conflict"
    assert edit(sim, {**late, "base": 2}) == {"version": 3}
    assert edit(sim, {"edits": [{"op": "cancel", "id": "b"}], "tasks": []}) == {"version": 4}
    assert refused(sim, {"base": 3, "tasks": [work("d", after=["b"])]}).code == "Conflict"
    assert edit(sim, {"base": 1, "tasks": [work("e", after=["c"])]}) == {"version": 5}
    sim.handle(s.PlanFinished(1, 1))
    finish(sim)


def test_a_removed_run_is_forgotten_only_when_it_is_closed():
    sim = start([work("a", run_s=3.0)])
    with pytest.raises(Refused):
        sim.ask(lambda reply: s.RemoveRequested(reply, 1))
    sim.settle()
    sim.ask(lambda reply: s.RemoveRequested(reply, 1))
    sim.advance(5.0)
    assert not sim.state.runs
    sim.prove_replay()


# Re-plans


REPLAN = {"on_failure": "replan"}


def test_a_failure_opens_a_replan_that_claims_what_hangs_on_it_while_the_rest_goes_on():
    tasks = [work("a"), work("b", value={"ref": "a/value"}), work("c", run_s=1.0), work("d", after=["c"])]
    sim = start(tasks, program={"a": once_bad()}, settings=REPLAN)
    sim.advance(3.0)
    call = sim.planner_calls[0]
    assert call.digest.failed == ("a",)
    assert sim.states() == {"a": "failed", "b": "", "c": "succeeded", "d": "succeeded"}
    edit(sim, {"base": 1, "edits": [{"op": "retry", "id": "a"}], "tasks": []}, author="planner", call=call.call)
    sim.handle(s.PlanFinished(1, call.call))
    assert set(finish(sim).values()) == {"succeeded"}


def test_an_open_failure_may_be_replaced():
    tasks = [work("a"), work("b", value={"ref": "a/value"})]
    sim = start(tasks, program={"sim.work": bad, "b": once_bad()}, settings=REPLAN)
    sim.advance(1.0)
    call = sim.planner_calls[0].call
    edit(sim, {"base": 1, "tasks": [work("a", "sim.other", value=1)]}, author="planner", call=call)
    sim.handle(s.PlanFinished(1, call))
    sim.advance(0.1)
    sim.ask(lambda reply: s.ApprovalDecided(reply, 1, "a", "ann", True))  # another skill than the plan has
    sim.advance(1.0)
    assert sim.states()["a"] == "succeeded"
    sim.handle(s.PlanFinished(1, sim.planner_calls[1].call))
    finish(sim)


def test_a_silent_planner_is_given_up_at_its_deadline_and_a_cancel_ends_it():
    sim = start([work("a")], program={"a": bad}, settings=REPLAN)
    assert finish(sim, 200.0) == {"a": "failed"}
    sim = start([work("a"), work("b", run_s=9)], program={"a": bad}, settings=REPLAN)
    sim.advance(1.0)
    sim.handle(s.CancelRequested(99, 1, "", "ann"))
    finish(sim, 5.0)
    assert len(sim.planner_calls) == 1


def test_a_planner_call_lost_with_the_orchestrator_is_asked_again():
    sim = start([work("a"), work("b", value={"ref": "a/value"})], program={"a": once_bad()}, settings=REPLAN)
    sim.advance(1.0)
    sim.crash()
    sim.advance(2.0)
    assert [call.call for call in sim.planner_calls] == [1, 2]
    edit(sim, {"edits": [{"op": "retry", "id": "a"}], "tasks": []}, author="planner", call=2)
    with pytest.raises(Refused):
        edit(sim, {"tasks": [work("late")]}, author="planner", call=1)
    sim.handle(s.PlanFinished(1, 2))
    assert set(finish(sim).values()) == {"succeeded"}


def test_a_failed_map_is_retried_element_by_element():
    items = {"id": "l", "skill": "flow.list", "args": {"items": [0, 1, 2]}}
    seen = set()

    def odd(job):
        yield 0.2 * job.args["value"]
        if job.args["value"] == 1 and job.name not in seen:
            seen.add(job.name)
            return Failure("Bad", "one")
        return {"value": job.args["value"]}

    tasks = [items, work("m", value={"ref": "l/items[]"}), work("w", value={"ref": "m"})]
    sim = start(tasks, program={"m": odd}, settings=REPLAN)
    sim.advance(3.0)
    assert sim.states()["m"] == "failed"
    edit(sim, {"edits": [{"op": "retry", "id": "m"}], "tasks": []}, author="planner", call=1)
    sim.handle(s.PlanFinished(1, 1))
    assert set(finish(sim).values()) == {"succeeded"}
    assert [len(sim.task(f"m.{k}").attempts) for k in range(3)] == [1, 2, 2]


def test_give_up_settles_an_open_failure():
    sim = start([work("a"), work("b", value={"ref": "a/value"})], program={"a": bad}, settings=REPLAN)
    sim.advance(1.0)
    edit(sim, {"edits": [{"op": "give_up", "id": "a"}], "tasks": []}, author="planner", call=1)
    assert sim.states()["b"] == "skipped"
    sim.handle(s.PlanFinished(1, 1))
    finish(sim)


def test_tokens_are_reserved_while_a_planner_thinks_and_never_overspent():
    sim = start([work("a")], program={"a": bad}, settings={**REPLAN, "budget": {"tokens": 100}})
    sim.advance(1.0)
    assert sim.state.runs[1].spend.reserved == {1: 100}
    edit(sim, {"edits": [{"op": "retry", "id": "a"}], "tasks": []}, author="planner", call=1)
    sim.handle(s.PlanFinished(1, 1, tokens_in=60, tokens_out=40))
    finish(sim)
    assert len(sim.planner_calls) == 1


def test_a_first_plan_streams_in_parts_of_one_version():
    sim = Simulator()
    sim.request()
    for document in ({"tasks": [work("a")]}, {"tasks": [work("b", value={"ref": "a/value"})]}):
        assert edit(sim, document, author="planner", call=1) == {"version": 1}
    assert refused(sim, {"tasks": [work("a")]}, author="planner", call=1).codes == ["DuplicateId"]
    sim.handle(s.PlanFinished(1, 1))
    assert finish(sim) == {"a": "succeeded", "b": "succeeded"}


def test_an_empty_plan_is_a_refusal():
    sim = Simulator()
    sim.request()
    sim.handle(s.PlanFinished(1, 1, "abstained", "no skill"))
    sim.settle()
    assert sim.state.runs[1].state.code == "PlannerAbstained"


def test_the_same_key_gives_the_same_run_across_a_crash():
    sim = Simulator(faults=Faults())
    first = sim.submit({"tasks": [work("a")]}, key="k")
    sim.advance(0.1)
    sim.crash()
    sim.advance(1.0)
    assert sim.submit({"tasks": [work("a")]}, key="k") == first
    assert [one for _, _, d in sim.log for one in d.events if isinstance(one, e.RunSubmitted)].__len__() == 1
