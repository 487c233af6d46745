"""`asterism bench schedule`: the algorithms of placement on recorded workflows, in the model that a reference states.

The folder holds workflows in the neutral form, `fleets.json` and, if there is one, `reference.json`. Cases are shared
out over the cores. It must not know how numbers are shown.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from protocol.errors import UsageError

from . import hedging
from .answer import Answer, Core
from .case import Job, Known, Row, measure
from .decision import decision
from .foretold import foretold
from .learning import Learning, learning
from .sharing import sharing
from .workflow import read_fleets, read_workflow


class Sizes(msgspec.Struct, frozen=True):
    """`decodes` and `futures`: see Job. `samples` of a decision among each of `devices`; `luck`: with how many seeds
    hedging is played; `live`: what takes real processes is measured, too."""

    decodes: int = 10_000_000
    futures: int = 32
    samples: int = 2000
    devices: tuple[int, ...] = (2, 10, 100, 1000)
    luck: int = 3
    live: bool = True


QUICK: Final = Sizes(decodes=800_000, futures=4, samples=1000, devices=(100, 1000), luck=1, live=False)
_OTHERS: Final = ("fleets.json", "reference.json")


def schedule(data: Path, sizes: Sizes, say: Callable[[str], None], processes: int = 0) -> Answer:
    """Raises: UsageError when the folder doesn't hold what it should, PlanRefused for a file that isn't one."""
    began = time.perf_counter()
    jobs = list(_jobs(data, sizes))
    if not jobs:
        raise UsageError(f"{data} holds no workflow", hint="name a folder with *.json or *.json.gz and fleets.json")
    count = min(processes or os.cpu_count() or 1, len(jobs))
    core = Core(tuple(decision(count, samples=sizes.samples) for count in sizes.devices))
    if sizes.live:
        say("hedging, forecasts and shared cores, by real processes")
        live, told, shared = anyio.run(hedging.live), anyio.run(foretold), anyio.run(sharing)
        core = msgspec.structs.replace(core, hedging_live=live, forecast=told, sharing=shared)
    rows: list[Row] = []
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        learned = pool.submit(_learned, tuple({job.path: None for job in jobs}))
        hedged = pool.submit(hedging.hedging, range(sizes.luck)) if sizes.luck else None
        for row in pool.map(measure, jobs):
            rows.append(row)
            say(f"{len(rows)} of {len(jobs)}: {row.instance} on {row.fleet}")
        core = msgspec.structs.replace(core, learning=learned.result())
        if hedged is not None:
            core = msgspec.structs.replace(core, hedging=hedged.result())
    rows.sort(key=lambda row: (row.instance, row.fleet))
    seconds = round(time.perf_counter() - began, 1)
    return Answer(tuple(rows), core, sizes.decodes, sizes.futures, count, seconds)


def _learned(paths: tuple[Path, ...]) -> Learning | None:
    return learning(one for one in map(read_workflow, paths) if not one.synthetic)


def _jobs(data: Path, sizes: Sizes) -> Iterator[Job]:
    """The longest first, so that no core is left with one at the end."""
    if not (data / "fleets.json").is_file():
        raise UsageError(f"{data} holds no fleets.json", hint="it says on which devices the workflows are placed")
    fleets = read_fleets(data / "fleets.json")
    known: dict[str, Any] = {}
    if (data / "reference.json").is_file():
        known = msgspec.json.decode((data / "reference.json").read_bytes())["instances"]
    found = [path for path in data.iterdir() if path.name.endswith((".json", ".json.gz")) and path.name not in _OTHERS]
    for path in sorted(found, key=lambda path: (-path.stat().st_size, path.name)):
        for fleet, sites in fleets.items():
            row = known.get(path.name.partition(".json")[0], {}).get(fleet)
            yield Job(path, fleet, tuple(sites), _known(row) if row else None, sizes.decodes, sizes.futures)


def _known(row: dict[str, Any]) -> Known:
    return Known(row["results"]["HEFT"]["makespan_s"], row["lb2"], row["best_known"]["makespan_s"])
