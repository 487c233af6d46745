"""`asterism bench sweep --suite cross-device`: the params of a point reach the machines."""

from __future__ import annotations

import anyio

from bench.cross_device.machine import FIVE
from bench.sweep_suite import CrossDeviceSweep


def test_a_machine_of_one_slot_does_one_thing_at_a_time() -> None:
    alone = [one for one in FIVE if one.name == "log-server"]
    suite = CrossDeviceSweep(True, names=["reasons-of-failure"], members=alone)
    found = anyio.run(suite.play, {"policy": "eft", "slots": 1, "speed": 2.0}, {}, 3)
    assert found["latency_s"] > 0
    assert 0 < found["mean_width"] <= 1
