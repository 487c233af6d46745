"""A worker is believed only what can be true: nothing it announces can make the core stumble later."""

import msgspec
import pytest

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.machine import Machine
from orchestrator.core.state import State
from protocol.frame import Bye, Hello
from protocol.profile import DeviceProfile, LinkProfile, WorkerProfile
from protocol.resource import Resources
from protocol.skill import SkillSpec, Variant

GOOD = WorkerProfile(slots=1, capacity=Resources(cpu=1.0), skills=(SkillSpec("x.work"),))
BAD = {
    "slots": {"slots": 0},
    "many slots": {"slots": 2**40},
    "capacity": {"capacity": Resources(cpu=-1.0)},
    "counters": {"capacity": Resources(counters={"licence": -2.0})},
    "speed": {"devices": (DeviceProfile("cpu", speed=0.0),)},
    "bandwidth": {"link": LinkProfile(bandwidth=0.0)},
    "params": {"skills": (SkillSpec("x.work", params={"type": "object", "properties": 5}),)},
    "result": {"skills": (SkillSpec("x.work", result={"anyOf": "all"}),)},
    "name": {"skills": (SkillSpec("../x"),)},
    "variants": {"skills": (SkillSpec("x.work", variants=()),)},
    "needs": {"skills": (SkillSpec("x.work", variants=(Variant("cpu", Resources(cpu=-1.0)),)),)},
    "timeout": {"skills": (SkillSpec("x.work", timeout_s=-1.0),)},
}


def join(profile: WorkerProfile) -> tuple[Machine, c.Decision]:
    machine = Machine(State())
    machine.handle(s.Started(1, "5eed" * 8), 1.0)
    machine.handle(s.Enrolled(1, "w1", "0" * 64), 1.0)
    return machine, machine.handle(s.WorkerJoined(1, 1, Hello("w1", "b", profile)), 1.0)


def test_an_honest_worker_is_welcome():
    machine, _ = join(GOOD)
    assert set(machine.fleet.sessions) == {1}
    assert "x.work" in machine.state.digests


@pytest.mark.parametrize("name", BAD)
def test_what_no_machine_could_be_is_refused_and_leaves_nothing_behind(name):
    machine, decision = join(msgspec.structs.replace(GOOD, **BAD[name]))
    said = [one.item for one in decision.commands if isinstance(one, c.Send)]
    assert [(type(one), one.code) for one in said] == [(Bye, "BadProfile")]
    assert any(isinstance(one, c.Refuse) and one.code == "BadProfile" for one in decision.commands)
    assert not machine.fleet.sessions
    assert not decision.events
    assert "x.work" not in machine.state.digests
