"""What of this worker is free: slots and one pool of cpu, memory, gpu and vram.

A need without cpu (a wait, a request to elsewhere) takes no slot; the orchestrator counts the same way.

Invariant: what is taken never exceeds the total, and each amount is given back exactly once. Pure: it knows no
process, no clock and no link; `machine` decides when something is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from protocol.card import Cards, Dealt
from protocol.frame import WorkSpec
from protocol.resource import Resources

_SLACK: Final = 1e-9


class Need(msgspec.Struct, frozen=True, gc=False):
    """What one attempt holds while it runs."""

    cpu: float = 1.0
    memory: int = 0
    gpu: float = 0.0
    vram: int = 0


def _slots(need: Need) -> int:
    return 1 if need.cpu else 0


def need_of(work: WorkSpec) -> Need:
    return Need(work.cpu, work.memory, work.gpu, work.vram)


class Capacity:
    """Counts what attempts hold. A parent that waits for its children gives back its slot and its cpu only."""

    def __init__(self, slots: int, total: Resources, cards: Cards | None = None) -> None:
        self.slots = slots
        self._cards = cards
        self._total = Need(total.cpu or float(slots), total.memory, total.gpu, total.vram)
        self._free_slots = slots
        self._cpu, self._memory = self._total.cpu, self._total.memory
        self._gpu, self._vram = self._total.gpu, self._total.vram

    @property
    def free_slots(self) -> int:
        return self._free_slots

    def could_ever_hold(self, need: Need) -> bool:
        """False when the need exceeds the whole machine. Memory and vram of 0 in the total mean unknown: not judged."""
        total = self._total
        return (
            need.cpu <= total.cpu + _SLACK
            and need.gpu <= total.gpu + _SLACK
            and (not total.memory or need.memory <= total.memory)
            and (not total.vram or need.vram <= total.vram)
            and (self._cards is None or self._cards.could_ever_hold(need.gpu, need.vram))
        )

    def lose(self, gone: Iterable[int], left: Resources) -> None:
        """These cards fell off, and so much is left. What still lies on them is given back all the same."""
        if self._cards is not None:
            self._cards.lose(gone)
        before = self._total
        self._total = msgspec.structs.replace(before, gpu=left.gpu, vram=left.vram)
        self._gpu += left.gpu - before.gpu
        self._vram += left.vram - before.vram

    def take(self, need: Need) -> Dealt | None:
        """Reserve a slot and all of `need`, or nothing and return None; which cards, where they are known."""
        total = self._total
        if (
            self._free_slots < _slots(need)
            or need.cpu > self._cpu + _SLACK
            or need.gpu > self._gpu + _SLACK
            or (total.memory and need.memory > self._memory)
            or (total.vram and need.vram > self._vram)
        ):
            return None
        dealt = self._cards.take(need.gpu, need.vram) if self._cards is not None else ()
        if dealt is None:
            return None
        self._free_slots -= _slots(need)
        self._cpu -= need.cpu
        self._gpu -= need.gpu
        self._memory -= need.memory
        self._vram -= need.vram
        return dealt

    def give(self, need: Need, dealt: Dealt = ()) -> None:
        """The attempt's process is known to be gone or idle: everything it took is free."""
        self._free_slots += _slots(need)
        self._cpu += need.cpu
        self.give_paused(need, dealt)

    def pause(self, need: Need) -> None:
        """The attempt waits for others: its slot and cpu are free, memory and gpu stay with it."""
        self._free_slots += _slots(need)
        self._cpu += need.cpu

    def resume(self, need: Need) -> bool:
        """Take slot and cpu again after `pause`, or return False while another attempt has them."""
        if self._free_slots < _slots(need) or need.cpu > self._cpu + _SLACK:
            return False
        self._free_slots -= _slots(need)
        self._cpu -= need.cpu
        return True

    def give_paused(self, need: Need, dealt: Dealt = ()) -> None:
        """The attempt ended while it waited: only memory and gpu were still held."""
        if dealt and self._cards is not None:
            self._cards.give(dealt, need.gpu, need.vram)
        self._gpu += need.gpu
        self._memory += need.memory
        self._vram += need.vram
