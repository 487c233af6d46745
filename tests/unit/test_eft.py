"""Earliest finish time."""

import msgspec

from orchestrator.placement.eft import Eft
from orchestrator.placement.policy import WAIT, Offer


def offer(worker, room=True, start_s=0.0, run_s=1.0, transfer_s=0.0, load=0):
    return Offer(worker, "cpu", room, start_s, run_s, transfer_s, load)


def test_takes_the_earliest_finish():
    assert Eft().choose([offer(1, run_s=3.0), offer(2, run_s=1.0, start_s=1.0), offer(3, run_s=2.5)]) == 1


def test_transfer_hides_behind_the_wait_for_the_device():
    offers = [offer(1, start_s=2.0, transfer_s=1.5), offer(2, transfer_s=2.5)]
    assert Eft().choose(offers) == 0


def test_waits_for_a_fast_device_that_is_busy_rather_than_take_a_slow_one():
    assert Eft().choose([offer(1, run_s=10.0), offer(2, room=False, start_s=1.0, run_s=1.0)]) == WAIT


def test_ties_go_to_room_then_to_the_lighter_load_then_to_the_first():
    assert Eft().choose([offer(1, room=False), offer(2)]) == 1
    assert Eft().choose([offer(1, load=3), offer(2, load=1)]) == 1
    assert Eft().choose([offer(1), offer(2)]) == 0


def test_ends_a_little_later_where_fewer_bytes_move():
    far, near = Offer(1, "cpu", True, 0.0, 10.0, 1.0, bytes=500), Offer(2, "cpu", True, 0.0, 13.9, bytes=0)
    assert Eft().choose([far, near]) == 1
    assert Eft().choose([far, msgspec.structs.replace(near, run_s=14.1)]) == 0
    assert Eft().choose([far, msgspec.structs.replace(near, room=False)]) == 0


def test_no_room_anywhere_waits():
    assert Eft().choose([offer(1, room=False)]) == WAIT


def test_says_why_in_words():
    assert Eft().why([offer(1, run_s=2.0), offer(2)], 0) == "eft: finish in 2 s, first of 2"
