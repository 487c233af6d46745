"""A device that is gone when its worker is back: what ran on it is nobody's failure, and goes elsewhere."""

import msgspec

from bench.simulated_skill import profile_of
from orchestrator.core import event as e
from orchestrator.core.lifecycle import Ready, Unknown
from protocol.frame import Assign, Call, Welcome
from protocol.resource import Resources
from tests.unit.test_core_link import Floor, held

GPU = profile_of(gpu=1)
BARE = profile_of()


def busy(skill="sim.gpu", workers=1):
    """The first worker runs a task; its stream breaks."""
    floor = Floor(workers)
    for worker in range(1, workers + 1):
        floor.join(worker, profile=GPU)
        floor.beat(worker=worker)
    floor.submit(skill)
    (assign,) = floor.sent(Assign)
    return floor, assign


def back(floor, assign, **more):
    worker = floor.task().attempts[0].worker
    floor.leave(worker)
    floor.join(worker, running=(held(assign),), **more)


def test_what_ran_on_a_card_that_fell_off_is_ended_and_waits_for_another():
    floor, assign = busy()
    back(floor, assign, profile=BARE)
    (verdict,) = floor.sent(Welcome)[-1].verdicts
    assert verdict.verdict == "kill"
    (ended,) = floor.of(e.AttemptEnded)
    assert (ended.outcome.code, ended.outcome.klass) == ("DeviceLost", "infra")
    assert type(floor.task().state) is Ready
    assert "no longer has the gpu" in floor.task().state.why
    floor.proved()


def test_it_goes_to_a_worker_that_has_one():
    floor, assign = busy(workers=2)
    first = floor.task().attempts[0].worker
    back(floor, assign, profile=BARE)
    assert [one.worker for one in floor.task().attempts] == [first, 3 - first]


def test_what_was_on_its_way_there_is_not_sent_again():
    floor, _ = busy()
    floor.leave(1)
    floor.join(1, profile=BARE)
    assert len(floor.sent(Assign)) == 1
    assert floor.task().attempts[0].code == "DeviceLost"


def test_nobody_waits_for_a_device_that_nobody_has_for_ever():
    floor, assign = busy()
    back(floor, assign, profile=BARE)
    floor.wait(31.0)
    assert floor.task().state.code == "NoEligibleWorker"


def test_what_needs_less_than_is_left_goes_on():
    floor, assign = busy("sim.work")
    back(floor, assign, profile=BARE)
    assert floor.task().attempts[0].live


def test_an_effect_that_had_begun_there_is_a_persons_to_judge():
    floor, assign = busy("sim.once")
    floor.says(Call(assign.attempt, assign.fence, 1, "begin_effect"))
    back(floor, assign, profile=msgspec.structs.replace(BARE, capacity=Resources(cpu=0.5)))
    assert type(floor.task().state) is Unknown
