"""What befalls skills on a machine without their knowing: some attempts fail once, all take longer. Simulated.

It lies between a skill host and the skills it runs, built-in ones included, and obeys files in the folder that
CROSS_DEVICE_MISHAPS names: `all.json`, `MACHINE.json`. Without that variable nothing is changed. Invariant: only the
first attempt of a task that may be repeated fails, before any of the skill's code has run. What runs on the daemon's
own loop (`flow.*`), and the host that asks the model, are out of its reach.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Final

import anyio
import msgspec

from protocol.errors import TryAgain
from workers.context import SkillContext
from workers.runner.job import Desk, Job
from workers.runner.python import AsyncPythonRunner, PythonRunner

FOLDER: Final = "CROSS_DEVICE_MISHAPS"
EVERYWHERE: Final = "all"
INJECTED: Final = "a transient error that the bench injected"


class Mishap(msgspec.Struct, frozen=True):
    """`share` of the tasks fail at their first attempt, drawn by `seed` and their names; those of `certain` all do,
    those of `spared` never. `slower`: how many times as long an attempt takes, with the `start_s` for which its
    worker holds it back."""

    seed: str = ""
    share: float = 0.0
    certain: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    slower: float = 1.0
    start_s: float = 0.0

    def fails(self, task: str) -> bool:
        """`task` may be an element of a map: `count.3`."""
        whole = task.partition(".")[0]
        if whole in self.spared:
            return False
        return whole in self.certain or random.Random(f"{self.seed}/{task}").random() < self.share

    def wait_s(self, took_s: float) -> float:
        """How much longer an attempt lasts whose own work took so long."""
        return (self.slower - 1) * (self.start_s + took_s)


def befall(folder: Path, machine: str, mishap: Mishap) -> None:
    """From now on, for attempts that begin on this machine, or on all."""
    folder.mkdir(exist_ok=True)
    fresh = folder / f"{machine}.new"
    fresh.write_bytes(msgspec.json.encode(mishap))
    fresh.replace(folder / f"{machine}.json")


def relieve(folder: Path, machine: str) -> None:
    (folder / f"{machine}.json").unlink(missing_ok=True)


def install() -> None:
    """In a skill host: from now on its runners obey the folder, if there is one."""
    folder = os.environ.get(FOLDER)
    if folder is None or PythonRunner.run is not _RUN:
        return
    place = Path(folder)

    def run(self: PythonRunner, job: Job, context: SkillContext, desk: Desk) -> bytes:
        found = _met(place, context.worker, job)
        began = time.monotonic()
        value = _RUN(self, job, context, desk)
        time.sleep(found.wait_s(time.monotonic() - began))
        return value

    async def run_async(self: AsyncPythonRunner, job: Job, context: SkillContext, desk: Desk) -> bytes:
        found = _met(place, context.worker, job)
        began = time.monotonic()
        value = await _RUN_ASYNC(self, job, context, desk)
        await anyio.sleep(found.wait_s(time.monotonic() - began))
        return value

    PythonRunner.run = run  # type: ignore[method-assign]
    AsyncPythonRunner.run = run_async  # type: ignore[method-assign]


_RUN: Final = PythonRunner.run
_RUN_ASYNC: Final = AsyncPythonRunner.run


def _met(folder: Path, machine: str, job: Job) -> Mishap:
    """What holds for this attempt. Raises: TryAgain for one that is to fail."""
    everywhere, here = _read(folder / f"{EVERYWHERE}.json"), _read(folder / f"{machine}.json")
    task = job.assign.name.partition("/")[2].rpartition("#")[0]
    if job.assign.attempt.number == 1 and job.work.effect != "once" and everywhere.fails(task):
        raise TryAgain(INJECTED)
    return here


def _read(path: Path) -> Mishap:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mishap)
    except OSError:
        return Mishap()
