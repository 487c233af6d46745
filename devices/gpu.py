"""NVIDIA GPUs, found through NVML when its binding is installed and a driver answers; otherwise there are none.

A process sees only the cards that its attempt was dealt (CUDA_VISIBLE_DEVICES; the books are protocol.card's). Must not
know: CUDA, any numeric library.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from protocol.profile import DeviceProfile
from protocol.resource import Resources

UNMEASURED: Final = 10.0
"""How much faster than the reference core a card is taken for until it was calibrated."""


class Card(msgspec.Struct, frozen=True):
    """One card as NVML lists it. `memory` in bytes, `watts` its power limit (0: not told), `features` as sm_90."""

    index: int
    name: str
    memory: int
    uuid: str = ""
    watts: float = 0.0
    features: tuple[str, ...] = ()

    def free(self) -> int:
        """Bytes of its memory free right now, by whoever it is used; 0 when it no longer answers."""
        with _nvml() as nvml:
            if nvml is not None:
                with contextlib.suppress(nvml.NVMLError):
                    return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(self.index)).free)
        return 0


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """The NVML binding, initialised, or None where there is none or no driver answers."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        yield None
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def find_gpus() -> tuple[Card, ...]:
    """The cards of this machine, in NVML's order; empty without NVIDIA hardware, driver or binding.

    A CUDA_VISIBLE_DEVICES of our own holds: whoever started this process gave it no other cards.
    """
    found: list[Card] = []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = None if given is None else [word.strip() for word in given.split(",") if word.strip()]
    with _nvml() as nvml:
        if nvml is None:
            return ()
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
                name, uuid = (_text(nvml.nvmlDeviceGetName(handle)), _text(nvml.nvmlDeviceGetUUID(handle)))
            except nvml.NVMLError:
                continue  # a card that has fallen off the bus is not there
            if visible is None or str(index) in visible or any(uuid.startswith(word) for word in visible):
                found.append(Card(index, name, memory, uuid, *_limits(nvml, handle)))
    return tuple(found)


def _limits(nvml: Any, handle: Any) -> tuple[float, tuple[str, ...]]:
    """Power limit in watts and the features of a card, as far as it tells them."""
    watts, features = 0.0, []
    with contextlib.suppress(nvml.NVMLError, AttributeError):
        watts = nvml.nvmlDeviceGetPowerManagementLimit(handle) / 1e3
    with contextlib.suppress(nvml.NVMLError, AttributeError):
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        features.append(f"sm_{major}{minor}")
    with contextlib.suppress(nvml.NVMLError, AttributeError):
        limit = nvml.nvmlDeviceGetTemperatureThreshold(handle, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
        features.append(f"limit={limit}C")
    return watts, tuple(features)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class Gpu:
    """The cards as one device."""

    kind: Final = "gpu"

    def __init__(self, cards: Sequence[Card], *, speed: float = UNMEASURED, simulated: bool = False) -> None:
        self.cards = tuple(cards)
        self.speed = speed
        self.simulated = simulated

    def profile(self) -> tuple[DeviceProfile, ...]:
        return tuple(
            DeviceProfile(
                "gpu", card.name, 1.0, card.memory, self.speed, self.simulated, watts=card.watts, features=card.features
            )
            for card in self.cards
        )

    def capacity(self) -> Resources:
        return Resources(cpu=0.0, gpu=float(len(self.cards)), vram=sum(card.memory for card in self.cards))

    def environment(self, dealt: Sequence[int]) -> dict[str, str]:
        """What makes a process see these cards and no others; `dealt` by their place in `cards`."""
        visible = ",".join(str(self.cards[at].index) for at in dealt)
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
