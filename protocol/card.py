"""The books of a machine's graphics cards: which share of each, and how much of its memory, is taken by whom.

Amounts of all cards in one sum would promise what no card has: a 12 GiB model does not fit two cards of 8 GiB, nor a
whole card two halves. Orchestrator and worker keep the same books; the worker's say which cards an attempt sees.
Invariant: no card is promised beyond its memory or its whole. A need's vram is that of all its cards together. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import ceil
from typing import Final

import msgspec

from .profile import DeviceProfile, WorkerProfile
from .resource import Resources

_EVEN: Final = 1e-9
_MOST: Final = 1024

Dealt = tuple[int, ...]
"""The cards of one attempt, by their place in the machine's list."""


def cards_needed(gpu: float) -> int:
    """How many cards so much of `gpu` is spread over: a share below one lies on a single card."""
    return max(1, ceil(gpu - _EVEN))


class Cards:
    """A share below a whole goes to the fullest card that still holds it, so that whole ones stay free."""

    def __init__(self, memory: Sequence[int]) -> None:
        """`memory` in bytes of each card; 0: not known, not judged."""
        self._memory = tuple(memory)
        self._free = [1.0] * len(memory)
        self._free_memory = list(memory)
        self._gone: set[int] = set()

    def could_ever_hold(self, gpu: float, vram: float) -> bool:
        """Whether the cards were enough if all were free."""
        return Cards([memory for at, memory in enumerate(self._memory) if at not in self._gone]).fits(gpu, vram)

    def fits(self, gpu: float, vram: float) -> bool:
        """Whether `take` would find cards now."""
        return self._chosen(gpu, vram) is not None

    def take(self, gpu: float, vram: float) -> Dealt | None:
        """The cards, taken until `give`; () when none are needed, None while they are not free."""
        dealt = self._chosen(gpu, vram)
        self._move(dealt or (), gpu, vram, -1)
        return dealt

    def give(self, dealt: Dealt, gpu: float, vram: float) -> None:
        """What `take` dealt for the same need is free again."""
        self._move(dealt, gpu, vram, 1)

    def lose(self, gone: Iterable[int]) -> None:
        """These are no more; what lies on them is still given back."""
        self._gone.update(gone)

    def check(self) -> None:
        """No card is promised twice."""
        for share, memory, most in zip(self._free, self._free_memory, self._memory, strict=True):
            assert -1e-6 <= share <= 1 + 1e-6, f"a card has {share} of itself free"
            assert not most or 0 <= memory <= most, f"a card has {memory} of {most} bytes free"

    def _chosen(self, gpu: float, vram: float) -> Dealt | None:
        if not gpu and not vram:
            return ()
        count = cards_needed(gpu)
        share, each = gpu / count, ceil(vram / count)
        fitting = [
            (free, memory, at)
            for at, (free, memory, most) in enumerate(zip(self._free, self._free_memory, self._memory, strict=True))
            if at not in self._gone and free + _EVEN >= share and (not most or memory >= each)
        ]
        return tuple(at for _, _, at in sorted(fitting)[:count]) if len(fitting) >= count else None

    def _move(self, dealt: Dealt, gpu: float, vram: float, sign: int) -> None:
        for at in dealt:
            self._free[at] += sign * gpu / len(dealt)
            self._free_memory[at] += sign * ceil(vram / len(dealt))


def cards_of(devices: Iterable[DeviceProfile], capacity: Resources) -> Cards | None:
    """The cards that a worker announced one by one; None where it only said how much there is in all."""
    gpus = [one for one in devices if one.kind == "gpu"]
    if not gpus or sum(one.count for one in gpus) != capacity.gpu or not capacity.gpu <= _MOST:
        return None
    memory = [one.memory for one in gpus for _ in range(int(one.count))]
    return Cards(memory) if (len(memory), sum(memory)) == (capacity.gpu, capacity.vram) else None


def without(profile: WorkerProfile, gone: Collection[int]) -> WorkerProfile:
    """The profile once these of its cards, announced one by one, have fallen off."""
    gpus = [device for device in profile.devices if device.kind == "gpu"]
    lost = [device for at, device in enumerate(gpus) if at in gone]
    kept = iter([device for at, device in enumerate(gpus) if at not in gone])
    room = [next(kept, None) if device.kind == "gpu" else device for device in profile.devices]
    amounts = msgspec.structs.replace(
        profile.capacity,
        gpu=profile.capacity.gpu - len(lost),
        vram=profile.capacity.vram - sum(device.memory for device in lost),
    )
    return msgspec.structs.replace(profile, devices=tuple(filter(None, room)), capacity=amounts)
