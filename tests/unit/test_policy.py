"""The policies by name, and those that are there to compare with."""

import pytest

from bench.placement.decision import decision
from orchestrator.core.roster import MOST_GROUPS
from orchestrator.core.setting import CoreSettings
from orchestrator.placement.fastest import Fastest
from orchestrator.placement.lottery import Random
from orchestrator.placement.policy import WAIT, Offer
from orchestrator.placement.rotation import RoundRobin
from orchestrator.placement.selection import policy_named
from protocol.config import load
from protocol.errors import ConfigInvalid


def offer(worker, room=True, run_s=1.0, load=0):
    return Offer(worker, "cpu", room, 0.0 if room else 1.0, run_s, load=load)


def test_fastest_waits_for_the_fastest_device_and_takes_nothing_else():
    assert Fastest().choose([offer(1, run_s=2.0), offer(2, room=False), offer(3, run_s=3.0)]) == WAIT
    assert Fastest().choose([offer(1, run_s=2.0), offer(2, load=1), offer(3)]) == 2


def test_round_robin_gives_each_with_room_one_in_turn():
    policy = RoundRobin()
    offers = [offer(2), offer(5), offer(9, room=False)]
    assert [offers[policy.choose(offers)].worker for _ in range(4)] == [2, 5, 2, 5]
    assert policy.choose([offer(9, room=False)]) == WAIT


def test_random_repeats_with_its_seed_and_takes_only_who_has_room():
    offers = [offer(1), offer(2, room=False), offer(3), offer(4)]
    drawn = [[policy.choose(offers) for _ in range(50)] for policy in (Random(1), Random(1), Random(2))]
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == {0, 2, 3}
    assert Random().choose([offer(1, room=False)]) == WAIT


@pytest.mark.parametrize("name", ["auto", "eft", "heft", "fastest", "round_robin", "random"])
def test_every_policy_of_the_settings_is_known_and_says_why(name):
    policy = policy_named(load({"placement.policy": name}, {}).settings.placement.policy)
    offers = [offer(1), offer(2)]
    assert policy.why(offers, policy.choose(offers))


def test_a_policy_that_nobody_has_is_refused_by_name():
    with pytest.raises(ConfigInvalid, match=r"placement\.policy"):
        load({"placement.policy": "clever"}, {})
    assert policy_named(CoreSettings().placement).name == "eft"


def test_a_decision_looks_at_as_few_devices_among_hundreds_as_among_ten():
    few, many = (decision(devices, tasks=2000, samples=20) for devices in (10, 200))
    assert 1 <= many.offers <= few.offers <= MOST_GROUPS
    assert (many.devices, many.tasks) == (200, 2000)
