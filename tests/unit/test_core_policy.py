"""Policy: who allows, asks for and denies a skill, server and workers, the most restrictive counts; approvals are of
one work, by one person, and nothing else."""

import msgspec
import pytest

from bench.simulated_worker import profile_of
from bench.simulator import Refused, Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.lifecycle import AwaitingApproval, Ready
from orchestrator.core.setting import CoreSettings
from protocol.frame import Assign
from protocol.plan import parse_patch
from protocol.profile import ruling, strict
from protocol.setting import PolicyDefaults


def work(ident, skill="sim.work", run_s=0.05, **more):
    return {"id": ident, "skill": skill, "args": {"value": ident, "run_s": run_s}, **more}


def server(**skills):
    return CoreSettings(policies=PolicyDefaults(skills={k.replace("_", "."): v for k, v in skills.items()}).rules())


def start(tasks, core=None, **more):
    sim = Simulator(settings=core, **more)
    sim.submit({"tasks": tasks})
    return sim


def decide(sim, task, approved=True, by="bob"):
    return sim.ask(lambda reply: s.ApprovalDecided(reply, 1, task, by, approved))


def sent(sim, kind):
    return [c.item for _, _, decision in sim.log for c in decision.commands if isinstance(getattr(c, "item", 0), kind)]


def events(sim, kind):
    return [event for _, _, decision in sim.log for event in decision.events if isinstance(event, kind)]


def test_of_several_rules_the_most_restrictive_counts():
    rules = strict([("sim.*", "allow"), ("sim.work", "ask"), ("*.work", "deny")])
    assert [ruling(rules, name) for name in ("sim.work", "sim.other", "x.y")] == ["deny", "allow", None]
    closed = PolicyDefaults(default="deny", skills={"flow.*": "allow"}).rules()
    assert [ruling(closed, name) for name in ("flow.echo", "process.run")] == ["allow", "deny"]


def test_what_the_server_denies_is_refused_at_submission_with_who_denies_it():
    with pytest.raises(Refused) as refused:
        start([work("a"), work("b", "sim.other", alt=["sim.work"])], server(sim_work="deny"))
    assert refused.value.codes == ["PolicyDenied", "PolicyDenied"]
    assert "this server" in refused.value.error["problems"][0]["message"]


def test_what_every_worker_denies_is_refused_at_submission_with_their_names():
    with pytest.raises(Refused) as refused:
        start([work("a")], workers=[profile_of(policies=(("sim.work", "deny"),))] * 2)
    assert refused.value.codes == ["PolicyDenied"]
    assert "w1 and w2" in refused.value.error["problems"][0]["message"]


def test_what_one_worker_denies_runs_elsewhere_and_explain_says_so():
    sim = start([work("a", run_s=1)], workers=[profile_of(policies=(("sim.work", "deny"),)), profile_of(slots=1)])
    sim.submit({"tasks": [work("b")]})
    rows = {row["worker"]: row["why"] for row in sim.machine.explain(2, "b")["workers"]}
    sim.settle()
    assert {sim.task(name, run).winner().worker for run, name in ((1, "a"), (2, "b"))} == {2}
    assert rows.get("w1", "denies sim.work") == "denies sim.work"


def test_what_the_server_asks_for_no_worker_can_allow():
    sim = start([work("a")], server(sim_work="ask"), workers=[profile_of(policies=(("sim.*", "allow"),))])
    sim.advance(1.0)
    assert type(sim.task("a").state) is AwaitingApproval
    assert "this server asks" in sim.machine.explain(1, "a")["why"]
    decide(sim, "a")
    sim.settle()
    (assign,) = sent(sim, Assign)
    assert assign.approval == assign.pin == events(sim, e.ApprovalGiven)[0].pin


def test_a_rule_that_came_later_stops_what_is_ready():
    sim = start([work("first", run_s=1.0), work("a", after=["first"])])
    sim.advance(0.2)
    sim.settings = server(sim_work="deny")
    sim.crash()
    sim.settle()
    assert sim.task("a").state.code == "PolicyDenied"


def test_an_approval_lapses_with_any_change_of_the_task():
    sim = start([work("gate", run_s=9), work("a", approve=True)])
    sim.advance(0.5)
    asked = sim.task("a").state.pin
    patch = parse_patch({"base": 1, "tasks": [work("a", approve=True, timeout=5)]}, author="person:ann")
    sim.ask(lambda reply: s.PatchProposed(reply, 1, patch))
    sim.advance(0.5)
    assert sim.task("a").state.pin != asked
    assert len(events(sim, e.ApprovalAsked)) == 2
    decide(sim, "a")
    sim.settle()
    assert sim.task("a").attempts[0].pin == events(sim, e.ApprovalGiven)[0].pin != asked


def test_questions_and_answers_survive_a_restart():
    sim = start([work("a", approve=True), work("b", approve=True)])
    sim.advance(0.5)
    decide(sim, "a", by="eve")
    sim.crash()
    sim.advance(5.0)
    assert sim.states() == {"a": "succeeded", "b": ""}
    assert type(sim.task("b").state) is AwaitingApproval
    sim.crash()
    decide(sim, "b", False)
    sim.settle()
    assert (sim.task("a").by, sim.task("b").by) == ("eve", "bob")
    sim.prove_replay()


def test_the_same_decision_twice_counts_once():
    sim = start([work("a", approve=True), work("b", approve=True)])
    sim.advance(0.5)
    for task, approved in (("a", True), ("b", False)):
        decide(sim, task, approved)
        assert decide(sim, task, approved)["known"]
    with pytest.raises(Refused):
        decide(sim, "b", True)
    assert (len(events(sim, e.ApprovalGiven)), len(events(sim, e.ApprovalRefused))) == (1, 1)


def test_who_asked_for_it_may_not_approve_it_where_that_is_off():
    sim = start([work("a", approve=True)], CoreSettings(self_approval=False))
    patch = parse_patch({"base": 1, "tasks": [work("c", approve=True)]}, author="person:ann")
    sim.ask(lambda reply: s.PatchProposed(reply, 1, patch))
    sim.advance(0.5)
    for task, by in (("a", "sim"), ("c", "sim"), ("c", "ann")):
        with pytest.raises(Refused) as refused:
            decide(sim, task, by=by)
        assert refused.value.code == "NotAllowed"
    assert decide(sim, "c", False, by="ann")["tasks"] == ["c"]  # to take back what one asked for is nobody else's
    decide(sim, "a")
    sim.settle()
    assert sim.states() == {"a": "succeeded", "c": "failed"}


def test_a_child_that_the_server_denies_is_not_spawned():
    def parent(job):
        yield "spawn", {"skill": "sim.work", "args": {"value": 1}}

    sim = start([work("p", "sim.parent")], server(sim_work="deny"), program={"p": parent})
    sim.settle()
    assert sim.task("p").state.code == "CallRefused"
    assert "denies sim.work" in sim.task("p").state.message


def test_a_denied_task_is_never_ready_for_nothing():
    sim = start([work("a", approve=True)])
    sim.advance(0.5)
    assert type(sim.task("a").state) is not Ready
    assert msgspec.json.encode(sim.machine.explain(1, "a"))
