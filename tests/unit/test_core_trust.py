"""What may be done without a person: the commit barrier, the envelope of the first plan, and the way of taint."""

import pytest

from bench.simulated_skill import profile_of
from bench.simulator import Refused, Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.lifecycle import AwaitingApproval, Ready
from orchestrator.core.setting import CoreSettings
from orchestrator.service.query import run_status
from protocol.outcome import Failure
from protocol.plan import parse_patch
from protocol.skill import SkillSpec

OPEN = {"type": "object", "properties": {name: {} for name in ("value", "path", "text")}, "additionalProperties": False}
SKILLS = (
    SkillSpec("x.fetch", params=OPEN, effect="pure", tainted=True),
    SkillSpec("x.save", params=OPEN, effect="idempotent", sinks=("path",)),
    SkillSpec("x.look", params=OPEN, effect="pure", sinks=("path",)),
    SkillSpec("x.agent", params=OPEN, effect="pure", tainted=True, spawns=("@value",)),
)
REPLAN = {"on_failure": "replan"}


def work(ident, skill="sim.work", value=1, **more):
    return {"id": ident, "skill": skill, "args": {"value": value}, **more}


def save(ident, path, **more):
    return {"id": ident, "skill": "x.save", "args": {"path": path, "text": "words"}, **more}


def simulator(**more):
    return Simulator(workers=[profile_of(4, skills=SKILLS)], **more)


def planned(sim, *documents, outcome="complete"):
    """A first plan, part by part; its call ends with `outcome` (None: not yet)."""
    sim.request()
    for document in documents:
        patch(sim, document, call=1)
    if outcome is not None:
        sim.handle(s.PlanFinished(1, 1, outcome))
    sim.advance(1.0)
    return sim


def patch(sim, document, author="planner", call=0):
    found = parse_patch(document, author=author)
    return sim.ask(lambda reply: s.PatchProposed(reply, 1, found, call=call))


def approve(sim, task, approved=True):
    sim.ask(lambda reply: s.ApprovalDecided(reply, 1, task, "bob", approved))


def asks(sim, task):
    """Why the task awaits approval; "" if it does not."""
    state = sim.task(task).state
    return state.why if isinstance(state, AwaitingApproval) else ""


def finish(sim):
    sim.settle()
    sim.prove_replay()
    return sim.states()


def bad(job):
    yield 0.05
    return Failure("Bad", "no", "permanent")


def replanned(document, tasks=({"id": "a", "skill": "sim.work"},), program=None, **more):
    """A run whose first plan has failed, and what its planner then wrote."""
    sim = simulator(program=program or {"a": bad}, **more)
    sim.submit({"tasks": list(tasks), "run": REPLAN})
    sim.advance(1.0)
    patch(sim, document, call=1)
    sim.handle(s.PlanFinished(1, 1))
    sim.advance(1.0)
    return sim


# The commit barrier


def test_until_the_plan_is_whole_only_what_may_run_twice_starts_and_explain_says_so():
    sim = planned(simulator(), {"tasks": [work("p"), work("i", "sim.idem"), work("o", "sim.once")]}, outcome=None)
    assert sim.states() == {"p": "succeeded", "i": "succeeded", "o": ""}
    assert type(sim.task("o").state) is Ready
    assert "until the plan is whole" in sim.machine.explain(1, "o")["why"]
    assert "rest of the plan" in run_status(sim.state, sim.state.runs[1], sim.now).waiting["o"]
    patch(sim, {"tasks": [work("late")]}, call=1)
    sim.handle(s.PlanFinished(1, 1))
    assert set(finish(sim).values()) == {"succeeded"}


def test_a_task_that_its_plan_makes_act_once_waits_too():
    sim = planned(simulator(), {"tasks": [work("t", effect="once")]}, outcome=None)
    assert not sim.task("t").attempts
    sim.handle(s.PlanFinished(1, 1))
    assert finish(sim) == {"t": "succeeded"}


@pytest.mark.parametrize("outcome", ["truncated", "failed", "refused"])
def test_a_plan_that_is_not_whole_acts_on_the_world_only_by_a_persons_word(outcome):
    sim = planned(simulator(), {"tasks": [work("p"), work("o", "sim.once"), work("n", "sim.once")]}, outcome=outcome)
    assert "not whole" in asks(sim, "o")
    sim.crash()
    sim.advance(3.0)
    assert "not whole" in asks(sim, "o")
    approve(sim, "o")
    approve(sim, "n", approved=False)
    assert finish(sim) == {"p": "succeeded", "o": "succeeded", "n": "failed"}
    assert (sim.state.runs[1].state.state, sim.effects) == ("failed", {(1, 1): 1})


def test_what_a_person_adds_to_a_plan_that_is_not_whole_acts():
    sim = planned(simulator(), {"tasks": [work("p"), work("o", "sim.once")]}, outcome="truncated")
    patch(sim, {"tasks": [work("mine", "sim.once")]}, author="person:ann")
    sim.advance(1.0)
    assert (sim.states()["mine"], bool(asks(sim, "o"))) == ("succeeded", True)


# The envelope


def test_a_skill_that_the_plan_has_not_needs_a_person_whoever_adds_it_later():
    sim = replanned({"tasks": [work("evil", "sim.once"), work("fine")]})
    assert "sim.once is not one of the skills of the plan" in asks(sim, "evil")
    assert "sim.once" in sim.machine.explain(1, "evil")["why"]
    assert sim.states()["fine"] == "succeeded"
    sim.ask(lambda reply: s.CancelRequested(reply, 1, "", "ann"))
    finish(sim)
    assert sim.effects == {}


def test_the_envelope_is_open_while_the_first_plan_is_written_and_holds_what_it_falls_back_to():
    sim = simulator(program={"sim.work": bad})
    planned(sim, {"tasks": [work("a", alt=["sim.other"])]}, {"tasks": [work("b", "sim.idem")]})
    assert list(sim.state.runs[1].envelope) == ["sim.work", "sim.other", "sim.idem"]
    assert finish(sim) == {"a": "succeeded", "b": "succeeded"}


def test_a_persons_patch_widens_it_and_a_fork_or_an_undo_does_not():
    sim = replanned({"tasks": [work("evil", "sim.once")]}, tasks=[work("a"), work("hold", value=2)])
    assert asks(sim, "evil")
    forked = sim.ask(lambda reply: s.ForkRequested(reply, 1, by="ann"))["run"]
    sim.advance(1.0)
    assert isinstance(sim.task("evil", forked).state, AwaitingApproval)
    again = sim.ask(lambda reply: s.ForkRequested(reply, forked, by="ann"))["run"]
    sim.advance(1.0)
    assert isinstance(sim.task("evil", again).state, AwaitingApproval)
    patch(sim, {"tasks": [work("evil", "sim.once", value=3)]}, author="person:ann")
    sim.advance(1.0)
    assert sim.states()["evil"] == "succeeded"
    assert sim.state.runs[1].envelope["sim.once"]


def test_undo_gives_back_whose_it_was():
    sim = replanned({"tasks": [work("evil", "sim.once", deadline=50)]})
    patch(sim, {"tasks": [work("evil", "sim.other", approve=True)]}, author="person:ann")
    sim.ask(lambda reply: s.UndoRequested(reply, 1, sim.state.runs[1].version, "ann"))
    sim.advance(1.0)
    assert "not one of the skills" in asks(sim, "evil")


def test_policy_that_states_allow_lets_it_and_one_that_asks_nobody_refuses():
    sim = replanned({"tasks": [work("o", "sim.once")]}, settings=CoreSettings(policies=(("sim.once", "allow"),)))
    assert sim.states()["o"] == "succeeded"
    closed = CoreSettings(policies=(("sim.*", "allow"), ("*", "deny")))
    assert asks(replanned({"tasks": [work("o", "sim.once")]}, settings=closed), "o")
    sim = replanned({"tasks": [work("o", "sim.once")]}, settings=CoreSettings(untrusted="deny"))
    assert sim.task("o").state.code == "PolicyDenied"


def test_what_the_plan_has_only_with_approval_is_had_only_so():
    sim = replanned({"tasks": [work("ship2", "sim.once")]}, tasks=[work("a"), work("ship", "sim.once", approve=True)])
    assert "only with an approval" in asks(sim, "ship2")
    tight = [work("ship", "sim.once", approve=True, after=["a"]), work("tight", effect="once", after=["a"])]
    for loose in (work("ship", "sim.once"), work("tight")):
        with pytest.raises(Refused) as refused:
            replanned({"tasks": [loose]}, tasks=[work("a"), *tight])
        assert refused.value.codes == ["Loosens"]


def test_what_the_plan_does_only_under_a_condition_is_not_done_beside_it():
    gated = save("post", "out.txt", when=[{"ref": "gate/value", "op": "==", "value": 2}])
    sim = replanned({"tasks": [save("beside", "out.txt"), work("fine")]}, tasks=[work("a"), work("gate"), gated])
    assert "under a condition" in asks(sim, "beside")
    assert (sim.states()["post"], sim.states()["fine"]) == ("skipped", "succeeded")


def test_a_planner_that_calls_itself_a_person_is_none():
    sim = simulator(program={"a": bad})
    sim.submit({"tasks": [work("a")], "run": REPLAN})
    sim.advance(1.0)
    patch(sim, {"tasks": [work("evil", "sim.once")]}, author="person:ann", call=1)
    sim.advance(1.0)
    assert asks(sim, "evil")


def test_a_call_for_something_else_adds_nothing_to_the_envelope_of_a_plan_that_is_being_written():
    sim = planned(simulator(program={"a": bad}), {"tasks": [work("a")]}, outcome=None)
    run = sim.state.runs[1]
    sim.state.apply(e.PlannerCallOpened(1, 9, "propose", 0, sim.now + 100.0))
    patch(sim, {"tasks": [work("evil", "sim.idem")]}, call=9)
    sim.advance(1.0)
    assert asks(sim, "evil")
    assert list(run.envelope) == ["sim.work"]


def test_children_have_the_skills_of_the_plan_and_those_that_their_parent_declares():
    def parent(job):
        ids = []
        for skill in ("sim.work", "sim.once", "x.look"):
            ids.append((yield "spawn", {"skill": skill, "args": {"value": 1}})["id"])
        return (yield "join", {"ids": ids})

    sim = simulator(program={"p": parent})
    sim.submit({"tasks": [work("p", "sim.parent")]})
    sim.advance(2.0)
    assert [asks(sim, f"p.{k}") != "" for k in range(3)] == [False, False, True]
    approve(sim, "p.2")
    assert set(finish(sim).values()) == {"succeeded"}


def test_an_agent_has_the_tools_that_the_plan_names_for_it_and_no_other_task_has_them():
    def agent(job):
        ids = []
        for skill in ("sim.idem", "sim.once"):
            ids.append((yield "spawn", {"skill": skill, "args": {"value": 1}})["id"])
        return (yield "join", {"ids": ids})

    sim = simulator(program={"g": agent, "h": agent})
    sim.submit({"tasks": [work("g", "x.agent", ["sim.idem"]), work("h", "x.agent", ["sim.work"])]})
    sim.advance(2.0)
    assert [bool(asks(sim, name)) for name in ("g.0", "g.1", "h.0", "h.1")] == [False, True, True, True]


def test_what_a_task_proposes_is_not_the_plans():
    def propose(job):
        document = {"tasks": [work("more"), work("evil", "sim.once")]}
        return (yield "propose", {"patch": document})

    sim = simulator(program={"p": propose})
    sim.submit({"tasks": [work("p")]})
    sim.advance(1.0)
    assert (sim.states()["more"], bool(asks(sim, "evil"))) == ("succeeded", True)


# Taint


@pytest.mark.parametrize("by", ["planner", "person"])
def test_a_value_of_a_worker_fills_a_sink_only_where_a_person_wrote_the_edge(by):
    tasks = [work("find", value="out.txt"), save("keep", {"ref": "find/value"})]
    sim = simulator()
    if by == "person":
        sim.submit({"tasks": tasks})
        sim.advance(1.0)
    else:
        planned(sim, {"tasks": tasks})
        assert asks(sim, "keep") == 'its path comes from find/value, a result of sim.work (path="out.txt")'
        approve(sim, "keep")
    assert set(finish(sim).values()) == {"succeeded"}


def test_what_strangers_wrote_fills_none_and_the_way_is_named():
    tasks = [
        work("page", "x.fetch"), work("pick", value={"ref": "page/value"}), work("list", value=[{"ref": "pick"}]),
        save("keep", {"ref": "list/value/0/value"}),
    ]  # fmt: skip
    sim = simulator()
    sim.submit({"tasks": tasks})
    sim.advance(1.0)
    why = "its path comes from list/value/0/value <- list (sim.work) <- pick (sim.work) <- page (x.fetch) (path=1)"
    assert asks(sim, "keep") == why
    assert [event.why for event in _events(sim, e.ApprovalAsked)] == [why]


def test_no_other_argument_no_pure_skill_no_input_and_no_control_edge_asks():
    tasks = [
        work("page", "x.fetch"),
        {"id": "text", "skill": "x.save", "args": {"path": "out.txt", "text": {"ref": "page/value"}}},
        {"id": "pure", "skill": "x.look", "args": {"path": {"ref": "page/value"}}},
        save("given", {"ref": "input/where"}),
        save("after", "b.txt", after=["page"], when=[{"ref": "page/value", "op": "==", "value": 1}]),
    ]
    sim = simulator()
    sim.submit({"tasks": tasks, "inputs": [{"name": "where", "default": "c.txt"}]})
    assert set(finish(sim).values()) == {"succeeded"}


def test_every_element_of_a_map_asks_by_its_maps_edges():
    tasks = [work("page", "x.fetch", ["a", "b"]), save("keep", {"ref": "page/value[]"})]
    sim = simulator()
    sim.submit({"tasks": tasks})
    sim.advance(1.0)
    way = "its path comes from page/value[] <- page (x.fetch)"
    assert [asks(sim, f"keep.{k}") for k in range(2)] == [f'{way} (path="{name}")' for name in "ab"]
    approve(sim, "")
    assert set(finish(sim).values()) == {"succeeded"}


def test_what_is_written_down_after_the_plan_is_a_value_unless_the_plan_has_it_there():
    tasks = [work("a"), save("first", "out.txt", after=["a"])]
    sim = replanned({"tasks": [work("a"), save("same", "out.txt"), save("other", "evil.txt")]}, tasks=tasks)
    assert sim.states()["same"] == "succeeded"
    assert "written after the plan" in asks(sim, "other")


def test_an_input_is_a_persons_word_whoever_names_it():
    sim = simulator(program={"a": bad})
    tasks = [work("a"), save("first", "out.txt", after=["a"])]
    sim.submit({"tasks": tasks, "run": REPLAN, "inputs": [{"name": "where", "default": "mine.txt"}]})
    sim.advance(1.0)
    patch(sim, {"tasks": [save("given", {"ref": "input/where"}), save("mixed", [{"ref": "input/where"}, "x"])]}, call=1)
    sim.advance(1.0)
    assert (sim.states()["given"], "written after" in asks(sim, "mixed")) == ("succeeded", True)


def test_a_spawned_child_has_the_taint_of_what_its_parent_was_given():
    def parent(job):
        yield "spawn", {"skill": "x.save", "args": {"path": "out.txt"}}
        return {"value": 1}

    sim = simulator(program={"p": parent})
    tasks = [work("page", "x.fetch"), work("p", "sim.parent", {"ref": "page/value"}), save("s", "out.txt")]
    sim.submit({"tasks": tasks})
    sim.advance(1.0)
    assert asks(sim, "p.0") == 'its path comes from p (sim.parent) <- page (x.fetch) (path="out.txt")'


def test_rules_hold_across_a_crash():
    sim = replanned({"tasks": [work("evil", "sim.once"), save("out", "x"), work("fine")]})
    sim.crash()
    sim.advance(3.0)
    assert all(asks(sim, name) for name in ("evil", "out"))
    approve(sim, "evil")
    sim.advance(1.0)
    sim.ask(lambda reply: s.CancelRequested(reply, 1, "", "ann"))
    finish(sim)
    assert sim.effects == {(1, sim.task("evil").ix): 1}


def _events(sim, kind):
    return [event for _, _, decision in sim.log for event in decision.events if isinstance(event, kind)]
