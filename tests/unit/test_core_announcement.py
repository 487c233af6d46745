"""A worker is believed only what can be true: nothing it announces can make the core stumble later."""

from math import inf, nan

import msgspec
import pytest

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.machine import Machine
from orchestrator.core.state import State
from protocol.frame import Bye, Hello
from protocol.profile import DeviceProfile, LinkProfile, WorkerProfile, device_class
from protocol.profile_bound import problems_of
from protocol.resource import Resources
from protocol.skill import SkillSpec, Variant

GOOD = WorkerProfile(slots=1, capacity=Resources(cpu=1.0), skills=(SkillSpec("x.work"),))
BAD = {
    "slots": {"slots": 0},
    "many slots": {"slots": 2**40},
    "capacity": {"capacity": Resources(cpu=-1.0)},
    "counters": {"capacity": Resources(counters={"licence": -2.0})},
    "speed": {"devices": (DeviceProfile("cpu", speed=0.0),)},
    "negative speed": {"devices": (DeviceProfile("cpu", speed=-2.0),)},
    "speed of no number": {"devices": (DeviceProfile("cpu"), DeviceProfile("gpu", speed=nan))},
    "price of no number": {"devices": (DeviceProfile("cpu", price_per_s=nan),)},
    "negative power": {"devices": (DeviceProfile("cpu", watts=-1.0),)},
    "gflops": {"devices": (DeviceProfile("gpu", gflops=inf),)},
    "long name": {"devices": (DeviceProfile("cpu", "x" * 1000),)},
    "many features": {"devices": (DeviceProfile("cpu", features=("x",) * 1000),)},
    "many devices": {"devices": (DeviceProfile("cpu"),) * 2000},
    "bandwidth": {"link": LinkProfile(bandwidth=0.0)},
    "absurd bandwidth": {"link": LinkProfile(bandwidth=1e30)},
    "latency": {"link": LinkProfile(latency_s=-1.0)},
    "params": {"skills": (SkillSpec("x.work", params={"type": "object", "properties": 5}),)},
    "result": {"skills": (SkillSpec("x.work", result={"anyOf": "all"}),)},
    "name": {"skills": (SkillSpec("../x"),)},
    "variants": {"skills": (SkillSpec("x.work", variants=()),)},
    "needs": {"skills": (SkillSpec("x.work", variants=(Variant("cpu", Resources(cpu=-1.0)),)),)},
    "absurd estimate": {"skills": (SkillSpec("x.work", run_s=1e12),)},
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


def test_each_impossible_amount_of_a_profile_is_named_with_its_place_and_bounds():
    lie = WorkerProfile(
        devices=(DeviceProfile("cpu"), DeviceProfile("gpu", "H100", price_per_s=nan)), link=LinkProfile(bandwidth=1e30)
    )
    assert [(one.where, one.message) for one in problems_of(lie)] == [
        ("link/bandwidth", "a link with bandwidth 1e+30"),
        ("devices/1/price_per_s", "a gpu device with price_per_s nan"),
    ]
    assert problems_of(lie)[0].fix == "1 to 1e+13 bytes/s"
    assert not problems_of(GOOD)


def test_devices_are_alike_by_kind_and_name_and_simulated_ones_by_speed():
    kinds = [
        DeviceProfile("cpu"), DeviceProfile("gpu", "NVIDIA H100", speed=30.0),
        DeviceProfile("gpu", "T4", speed=0.5, simulated=True),
    ]  # fmt: skip
    assert [device_class(one) for one in kinds] == ["cpu", "gpu/NVIDIA H100", "gpu/T4 x0.5 (simulated)"]


def test_a_session_takes_all_devices_of_a_kind_for_the_first():
    devices = (DeviceProfile("cpu", speed=2.0), DeviceProfile("gpu", "A", speed=9.0), DeviceProfile("gpu", "B"))
    machine, _ = join(msgspec.structs.replace(GOOD, devices=devices))
    session = machine.fleet.sessions[1]
    assert session.speed == {"cpu": 2.0, "gpu": 9.0}
    assert session.device_class == {"cpu": "cpu", "gpu": "gpu/A"}


def test_what_a_skill_is_said_to_take_is_expected_until_it_has_run():
    machine, _ = join(msgspec.structs.replace(GOOD, skills=(SkillSpec("x.work", run_s=8.0),)))
    found = machine.predictor.predict("x.work", "cpu", 1, 2.0)
    assert (found.run_s, found.by) == (4.0, "declared")


def test_a_known_skill_is_not_said_to_take_no_time_at_all():
    machine, _ = join(GOOD)
    liar = msgspec.structs.replace(GOOD, skills=(SkillSpec("x.work", run_s=nan),))
    machine.handle(s.Enrolled(2, "w2", "1" * 64), 1.0)
    decision = machine.handle(s.WorkerJoined(2, 2, Hello("w2", "b", liar)), 1.0)
    assert any(isinstance(one, c.Send) and isinstance(one.item, Bye) for one in decision.commands)
    assert set(machine.fleet.sessions) == {1}
