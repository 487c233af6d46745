"""protocol.card and the two that keep its books: which cards an attempt gets, and that none is promised twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fleet import Load, Session
from protocol.card import Cards, Dealt, cards_needed, cards_of
from protocol.ids import Fence
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import Resources

NEEDS = st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 2.0]), st.integers(0, 30))
TWO = (DeviceProfile("gpu", "A", memory=8), DeviceProfile("gpu", "B", memory=24))


@given(st.lists(st.one_of(NEEDS, st.integers(0, 9)), max_size=60))
def test_no_card_is_promised_twice_and_all_comes_back(steps: list[tuple[float, int] | int]) -> None:
    cards = Cards([8, 24, 0])
    held: list[tuple[Dealt, float, int]] = []
    for step in steps:
        if isinstance(step, int):
            if held:
                cards.give(*held.pop(step % len(held)))
        else:
            fits, dealt = cards.fits(*step), cards.take(*step)
            assert fits is (dealt is not None)
            if dealt is not None:
                assert len(dealt) == len(set(dealt)) == (cards_needed(step[0]) if any(step) else 0)
                held.append((dealt, *step))
        cards.check()
    for one in held:
        cards.give(*one)
    assert cards.take(3.0, 24) == (2, 0, 1)


def test_shares_fill_one_card_before_they_open_the_next() -> None:
    cards = Cards([8, 8])
    assert [cards.take(0.5, 2) for _ in range(3)] == [(0,), (0,), (1,)]
    assert cards.take(1.0, 0) is None
    cards.give((0,), 0.5, 2)
    cards.give((0,), 0.5, 2)
    assert cards.take(1.0, 0) == (0,)


def test_memory_decides_which_card() -> None:
    cards = Cards([8, 24])
    assert cards.take(1.0, 16) == (1,)
    assert cards.take(0.0, 4) == (1,), "a need of memory alone lies on a card, too: the fullest that holds it"
    assert cards.take(0.0, 5) == (0,)
    assert not Cards([8, 8]).could_ever_hold(1.0, 12)
    assert Cards([8, 8]).could_ever_hold(2.0, 12)


def test_only_cards_announced_one_by_one_are_counted_one_by_one() -> None:
    assert cards_of(TWO, Resources(gpu=2.0, vram=32)) is not None
    assert cards_of((DeviceProfile("gpu", count=2.0, memory=8),), Resources(gpu=2.0, vram=16)) is not None
    for capacity in (Resources(gpu=2.0, vram=16), Resources(gpu=1.0, vram=32), Resources()):
        assert cards_of(TWO, capacity) is None
    assert cards_of((DeviceProfile("gpu", count=1e6),), Resources(gpu=1e6)) is None


def test_a_session_starts_nothing_on_cards_that_only_add_up() -> None:
    profile = WorkerProfile(slots=4, capacity=Resources(cpu=4.0, gpu=2.0, vram=32), devices=TWO)
    session = Session(1, 1, "w", "b", profile, 0.0)

    def sent(number: int, gpu: float, vram: float) -> Load:
        needs = {"cpu": 1.0, "gpu": gpu, "vram": vram}
        load = Load(needs, Fence(1, number), "x", "gpu", 0.0, False)
        assert session.has_room(needs, 9)
        session.take((1, number, 1), load)
        session.check()
        return load

    first, second, third = sent(1, 0.5, 7.0), sent(2, 0.5, 7.0), sent(3, 0.5, 12.0)
    assert (first.dealt, second.dealt, third.started) == ((0,), (1,), True)
    assert not session.fits({"gpu": 1.0})
    assert not session.fits({"gpu": 0.25, "vram": 10.0}), "12 are free, but no card has 10"
    waiting = sent(4, 1.0, 8.0)
    assert not waiting.started
    session.drop((1, 1, 1))
    assert (waiting.started, waiting.dealt) == (True, (0,))
    for number in (2, 3, 4):
        session.drop((1, number, 1))
    session.check()
    assert session.fits({"gpu": 2.0, "vram": 16.0})
