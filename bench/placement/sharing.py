"""What tasks that share cores and memory cost each other, and whether predictions that count it are better for it.

A real worker with twice the slots of this machine's cores gets loads at drawn times: half of them work, half of them
copy memory. Each run is then predicted before it is learned from, by the server's own predictor, once with what ran
beside it and once without. It must not know how that is counted.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from orchestrator.journal.prediction import read_recent
from orchestrator.placement.predictor import Outcome, Predictor
from orchestrator.placement.regression import median, quantile
from protocol.errors import RunFailed

from ..scenario import Machine, Scenario

TASKS: Final = 160
SPAN_S: Final = 14.0
"""The tasks become ready within this time, on a machine of two cores; in less on a larger one."""
_SKILLS: Final = '''
from asterism import skill


@skill(name="share.work", effect="pure")
def work(n: int) -> int:
    """Holds a core."""
    return sum(k * k for k in range(1_200_000))


@skill(name="share.copy", effect="pure")
def copy(n: int) -> int:
    """Holds the memory's bandwidth."""
    held = bytearray(24_000_000)
    for _ in range(14):
        held = bytearray(held)
    return len(held)
'''


class Sharing(msgspec.Struct, frozen=True):
    """Of `runs`: the median and the 90th percentile of the error as a share of what came true, with what ran beside
    them (`error`) and without (`alone_`). `slows`: what one more was found to multiply a run time with, by skill."""

    runs: int
    error: float
    error_p90: float
    alone_error: float
    alone_error_p90: float
    slows: dict[str, float]


def held_against(outcomes: Iterable[Outcome]) -> Sharing:
    """Both ways to predict, over the same runs. The first of a skill is not judged."""
    counting, plain = Predictor(), Predictor()
    errors: tuple[list[float], list[float]] = ([], [])
    for one in outcomes:
        known = counting.measured(one.skill) is not None
        for predictor, beside, found in ((counting, one.beside, errors[0]), (plain, -1, errors[1])):
            if known:
                said = predictor.predict(one.skill, one.device_class, one.worker, one.speed, one.input_bytes, beside)
                found.append(abs(said.run_s - one.run_s) / one.run_s)
            again = msgspec.structs.replace(one, beside=beside, predicted=None)
            predictor.note(*msgspec.structs.astuple(again))
            predictor.refit()
    if not errors[0]:
        raise RunFailed("no run was kept", hint="see asterism predictor stats")
    for found in errors:
        found.sort()
    slows = {one.skill: one.slows for one in counting.known()}
    return Sharing(
        len(errors[0]), median(errors[0]), quantile(errors[0], 0.9), median(errors[1]), quantile(errors[1], 0.9), slows
    )


def tasks_of(seed: int, span_s: float) -> list[dict[str, Any]]:
    """Each load behind a sleep that takes no slot."""
    luck, rows = Random(seed), list[dict[str, Any]]()
    for n in range(TASKS):
        at = {"id": f"at{n}", "skill": "flow.sleep", "args": {"seconds": round(luck.uniform(0.0, span_s), 3)}}
        skill = luck.choice(("share.work", "share.copy"))
        rows += [at, {"id": f"t{n}", "skill": skill, "args": {"n": n}, "after": [at["id"]]}]
    return rows


async def sharing(seed: int = 1) -> Sharing:
    """About twenty seconds. Raises: RunFailed."""
    cores = os.cpu_count() or 1
    async with Scenario() as fleet, fleet.client() as client:
        path = Path(fleet.folder) / "loads.py"
        path.write_text(_SKILLS)
        slots = 2 * cores
        machine = Machine("shared", slots=slots, skills=(str(path),), resources=(f"cpu={slots}",))
        await fleet.start_worker(client, machine)
        await fleet.joined(client, "shared")
        found = await client.run({"tasks": tasks_of(seed, 2.0 * SPAN_S / cores)})
        await client.ask("result", found.run)  # what was kept is on disk
        with closing(sqlite3.connect(fleet.journal_folder / "journal.db")) as reader:
            kept = read_recent(reader, TASKS)
    return held_against(one for one in kept if one.skill.startswith("share."))
