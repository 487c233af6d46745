"""`once`: dispatched after the commit, begun before the effect, Unknown when cut off, settled by a person or by its
own late report; never silently run again."""

import msgspec
import pytest

from bench.fault import Faults
from bench.simulated_skill import default_program
from bench.simulator import Refused, Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.lifecycle import Running, Unknown
from protocol.outcome import Failure

ONCE = {"id": "a", "skill": "sim.once", "args": {"value": 1, "run_s": 2.0}}
DAEMON_DIES = Faults(kills=((0.5, 0, 1.0, "boot"),))


def start(tasks, **more):
    more.setdefault("workers", 1)
    sim = Simulator(**more)
    sim.submit({"tasks": tasks})
    return sim


def unknown(task="a", **more):
    """A run in which the daemon died after the effect of ONCE began."""
    sim = start([{**ONCE, "id": task}], faults=DAEMON_DIES, **more)
    sim.advance(20.0)
    assert type(sim.task(task).state) is Unknown
    return sim


def resolve(sim, how, value=b"null", task="a", by="ann"):
    return sim.ask(lambda reply: s.UnknownResolved(reply, 1, task, by, how, value))


def events(sim, kind):
    return [event for _, _, decision in sim.log for event in decision.events if isinstance(event, kind)]


def test_a_once_task_is_dispatched_only_after_the_commit():
    sim = start([ONCE], fsync_s=3.0)
    sim.advance(3.0)  # its submission is on disk now, its dispatch is decided and not committed
    assert type(sim.task("a").state) is Running
    assert not sim.effects
    sim.crash()
    sim.settle()
    assert sum(sim.effects.values()) == 1
    sim.prove_replay()


def test_lost_before_its_effect_began_it_runs_again():
    faults = Faults(kills=((0.7, 0, 1.0, "boot"),), cuts=((0.4, 0, 0.5),), delay_s=(0.5, 0.5))  # nobody heard it begin
    sim = start([ONCE], faults=faults)
    sim.settle()
    assert len(sim.task("a").attempts) == 2
    assert sim.states() == {"a": "succeeded"}
    assert not events(sim, e.TaskUnknown)


@pytest.mark.parametrize("failure", [Failure("HostDied", "signal SIGKILL", "transient"), Failure("Gone", "", "infra"),
                                     Failure("Timeout", "too long", "transient")])  # fmt: skip
def test_cut_off_after_its_effect_began_it_is_unknown(failure):
    def cut_off(job):
        yield 0.1
        return failure

    sim = start([ONCE], program={"a": cut_off})
    sim.advance(5.0)
    assert type(sim.task("a").state) is Unknown
    assert sum(sim.effects.values()) == 1
    assert failure.code in events(sim, e.TaskUnknown)[0].why


def test_a_failure_it_reports_itself_is_a_failure():
    def failed(job):
        yield 0.1
        return Failure("Declined", "no money", "permanent")

    sim = start([ONCE], program={"a": failed})
    sim.settle()
    assert sim.task("a").state.code == "Declined"


def test_unknown_survives_a_restart_and_is_explained():
    sim = unknown()
    sim.crash()
    sim.advance(10.0)
    assert type(sim.task("a").state) is Unknown
    assert "asterism resolve r1/a" in sim.machine.explain(1, "a")["why"]
    resolve(sim, "fail")
    sim.settle()
    assert sim.task("a").state.code == "UnknownOutcome"
    sim.prove_replay()


@pytest.mark.parametrize(("how", "value"), [("succeeded", b"7"), ("fail", b"null"), ("retry", b"null")])
def test_the_same_resolution_twice_is_one_and_another_is_a_conflict(how, value):
    sim = unknown()
    resolve(sim, how, value)
    assert resolve(sim, how, value)["known"]
    other = "fail" if how != "fail" else "retry"
    with pytest.raises(Refused) as refused:
        resolve(sim, other)
    assert refused.value.code == "Conflict"
    sim.settle()
    said = events(sim, e.UnknownResolved)
    assert [(one.by, one.how) for one in said] == [("ann", how)]
    assert sum(sim.effects.values()) == (2 if how == "retry" else 1)


def test_what_is_not_unknown_is_not_resolved():
    sim = start([ONCE])
    sim.settle()
    with pytest.raises(Refused) as refused:
        resolve(sim, "retry")
    assert refused.value.code == "NotFound"


def test_a_value_that_is_no_result_of_the_skill_is_refused():
    send = {"id": "a", "skill": "http.send", "args": {"method": "POST", "url": "http://h/", "json": 1}}
    sim = Simulator(workers=1, faults=DAEMON_DIES, program={"a": lambda job: iter([5.0])})
    sim.submit({"tasks": [send]})
    sim.advance(20.0)
    assert type(sim.task("a").state) is Unknown
    for value, code in ((b'"sent"', "SchemaMismatch"), (b'"' + b"x" * 70_000 + b'"', "Usage")):
        with pytest.raises(Refused) as refused:
            resolve(sim, "succeeded", value)
        assert refused.value.code == code
    resolve(sim, "succeeded", b'{"status":200,"text":"ok"}')
    sim.settle()
    assert sim.states() == {"a": "succeeded"}


def test_the_late_report_of_the_very_attempt_settles_it():
    sim = start([ONCE], faults=Faults(cuts=((0.5, 0, 15.0),)))
    sim.advance(12.0)
    assert type(sim.task("a").state) is Unknown
    sim.settle()
    assert sim.states() == {"a": "succeeded"}
    assert sim.task("a").state.winner == 1
    assert sum(sim.effects.values()) == 1
    sim.prove_replay()


def test_a_late_failure_settles_it_too():
    def failed(job):
        yield 2.0
        return Failure("Declined", "no money", "permanent")

    sim = start([ONCE], program={"a": failed}, faults=Faults(cuts=((0.5, 0, 15.0),)))
    sim.advance(12.0)
    assert type(sim.task("a").state) is Unknown
    sim.settle()
    assert sim.task("a").state.code == "Declined"


def test_after_a_person_resolved_it_a_late_report_changes_nothing():
    sim = start([ONCE], faults=Faults(cuts=((0.5, 0, 15.0),)))
    sim.advance(12.0)
    resolve(sim, "succeeded", b'{"value":"by hand"}')
    sim.advance(10.0)
    sim.settle()
    assert msgspec.json.decode(sim.task("a").value) == {"value": "by hand"}
    assert any(name.startswith(("report_", "verdict_")) for name in sim.counts)


def test_an_element_of_a_map_is_resolved_under_its_own_name():
    items = {"id": "l", "skill": "flow.list", "args": {"items": [1, 2]}}
    each = {"id": "m", "skill": "sim.once", "args": {"value": {"ref": "l/items[]"}, "run_s": 2.0}}
    sim = start([items, each], faults=DAEMON_DIES, slots=1)
    sim.advance(30.0)
    stuck = [name for name in ("m.0", "m.1") if type(sim.task(name).state) is Unknown]
    assert len(stuck) == 1
    resolve(sim, "succeeded", b'{"value":1}', task=stuck[0])
    sim.settle()
    assert sim.states()["m"] == "succeeded"


def test_a_spawned_child_is_resolved_and_its_parent_goes_on():
    def parent(job):
        child = yield "spawn", {"skill": "sim.once", "args": {"value": 1, "run_s": 2.0}, "on": ["w2"]}
        found = yield "join", {"ids": [child["id"]]}
        return {"value": found}

    program = {"p": parent, "sim.once": default_program}
    sim = Simulator(workers=2, slots=1, program=program, faults=Faults(kills=((0.8, 1, 1.0, "boot"),)))
    sim.submit({"tasks": [{"id": "p", "skill": "sim.parent", "args": {}, "on": ["w1"]}]})
    sim.advance(20.0)
    assert type(sim.task("p.0").state) is Unknown
    resolve(sim, "succeeded", b'{"value":9}', task="p.0")
    sim.settle()
    assert msgspec.json.decode(sim.task("p").value) == {"value": [{"value": 9}]}
