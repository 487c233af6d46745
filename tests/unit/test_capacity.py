"""Capacity: never over-committed, everything given back exactly once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.card import Cards
from protocol.resource import Resources
from workers.capacity import Capacity, Need

TOTAL = Resources(cpu=4.0, memory=100, gpu=2.0, vram=50)
NEEDS = st.builds(
    Need,
    cpu=st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0]),
    memory=st.integers(0, 110),
    gpu=st.sampled_from([0.0, 0.5, 1.0]),
    vram=st.integers(0, 60),
)


@given(st.lists(st.tuples(st.sampled_from(["take", "give", "pause", "resume"]), NEEDS, st.integers(0, 9)), max_size=60))
def test_what_is_held_never_exceeds_the_total(steps: list[tuple[str, Need, int]]) -> None:
    capacity = Capacity(3, TOTAL)
    full: list[Need] = []
    paused: list[Need] = []
    for what, need, pick in steps:
        if what == "take" and capacity.take(need) is not None:
            full.append(need)
        elif what == "give" and full:
            capacity.give(full.pop(pick % len(full)))
        elif what == "pause" and full:
            paused.append(full.pop(pick % len(full)))
            capacity.pause(paused[-1])
        elif what == "resume" and paused and capacity.resume(paused[pick % len(paused)]):
            full.append(paused.pop(pick % len(paused)))
        assert sum(one.cpu for one in full) <= TOTAL.cpu
        assert sum(bool(one.cpu) for one in full) == 3 - capacity.free_slots <= 3
        for amount in ("memory", "gpu", "vram"):
            assert sum(getattr(one, amount) for one in full + paused) <= getattr(TOTAL, amount)
    for need in full:
        capacity.give(need)
    for need in paused:
        capacity.give_paused(need)
    assert capacity.free_slots == 3
    assert capacity.take(Need(4.0, 100, 2.0, 50)) == ()


def test_need_without_cpu_takes_no_slot() -> None:
    capacity = Capacity(1, TOTAL)
    assert capacity.take(Need(1.0)) == ()
    assert capacity.take(Need(0.0)) == ()
    assert capacity.take(Need(0.25)) is None


def test_what_could_never_fit_is_known() -> None:
    capacity = Capacity(1, TOTAL)
    assert capacity.could_ever_hold(Need(4.0, 100, 2.0, 50))
    assert not capacity.could_ever_hold(Need(4.5))
    assert not capacity.could_ever_hold(Need(1.0, 101))


def test_cards_are_dealt_one_by_one_and_a_sum_of_two_is_no_card() -> None:
    capacity = Capacity(4, Resources(cpu=4.0, gpu=2.0, vram=16), Cards([8, 8]))
    assert not capacity.could_ever_hold(Need(1.0, gpu=1.0, vram=12))
    assert capacity.could_ever_hold(Need(1.0, gpu=2.0, vram=12))
    half = Need(1.0, gpu=0.5, vram=6)
    assert capacity.take(half) == (0,)
    assert capacity.take(half) == (1,)
    assert capacity.take(Need(1.0, gpu=1.0)) is None
    capacity.give(half, (0,))
    assert capacity.take(Need(1.0, gpu=1.0)) == (0,)
