"""What is expected of a run before it runs, and beside its fact afterwards: as people and programs read it."""

from __future__ import annotations

import msgspec


class LaneRow(msgspec.Struct, frozen=True):
    """What one device is expected to do. `busy_s`: of all its slots together; `spans`: (task, start_s, finish_s) from
    the start of the run, the first of them where there are many."""

    worker: str
    device: str
    slots: int
    tasks: int
    busy_s: float
    spans: tuple[tuple[str, float, float], ...] = ()


class ForetoldRow(msgspec.Struct, frozen=True):
    """What was expected of a run when its plan was complete, and what came true: seconds from its submission.

    `error` is the fact over the forecast, less one; null while the run is open. `paid` and `used_j` are what its
    successful attempts cost on devices that are still connected.
    """

    policy: str
    makespan_s: float
    low_s: float
    high_s: float
    price: float
    energy_j: float
    error: float | None = None
    paid: float | None = None
    used_j: float | None = None


class ForecastRow(msgspec.Struct, frozen=True):
    """`makespan_s` is the median of what may happen, `low_s` and `high_s` the 10th and 90th percentile, from the start.

    All three are null while nobody knows how long some of the tasks take (`unknown`: skill -> tasks): then `least_s`,
    which the others take alone, is all there is to say. `price` is in what devices are priced in, `energy_j` in joules.
    `policy`: how tasks are placed; `samples`: how often it was played; `nowhere`: tasks that no device may run now;
    `assumed`: what had to be assumed, in words.
    """

    policy: str
    tasks: int
    makespan_s: float | None
    low_s: float | None
    high_s: float | None
    least_s: float
    price: float = 0.0
    energy_j: float = 0.0
    moved_bytes: float = 0.0
    samples: int = 0
    unknown: dict[str, int] = {}
    nowhere: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    devices: tuple[LaneRow, ...] = ()
