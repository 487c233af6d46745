"""What lies on the machines before a play, and who is away; afterwards all is as it was.

Invariant: when the block is left, however that happens, nothing of the case lies below any root, and every machine that
was sent away is back. It must not know what is played there.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from protocol.errors import UsageError

from .case import Case
from .fixture import dice_of, make
from .site import FiveMachines
from .warm import warm


@asynccontextmanager
async def ground(stage: FiveMachines, case: Case, salt: str, seed: int) -> AsyncIterator[Mapping[str, Any]]:
    """The truths of the fixtures.

    Raises: UsageError for a machine that is not there, or a fixture that can't be made.
    """
    needed = {*case.needs, *(name for one in case.fixtures for name in one.on)}
    away = [f"{name} ({why})" for name, why in stage.missing.items() if name in needed]
    if away:
        raise UsageError(f"it needs {', '.join(away)}", hint="a machine that could not be started")
    await stage.whole()
    gone = [name for name in case.absent if name in stage.machines]
    try:
        for name in stage.machines:
            (stage.root(name) / case.name).mkdir()
        truths = await anyio.to_thread.run_sync(lay, case, stage.root, salt, seed)
        for name in gone:
            await stage.leave(name)
        yield truths
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_clear, stage, case)
            if gone:
                await stage.back(*gone)
                await warm(stage, gone)


def lay(case: Case, root: Callable[[str], Path], salt: str, seed: int) -> dict[str, Any]:
    """Make the fixtures below the machines' roots; the truth of each, by machine if it lies on several.

    Raises: UsageError.
    """
    truths: dict[str, Any] = {}
    for one in case.fixtures:
        found = {}
        for machine in one.on:
            dice = dice_of(seed, salt, case.name, *((one.draw,) if one.draw else (one.name, machine)))
            found[machine] = make(one.make, root(machine) / case.name / one.path, one.args, dice)
        truths[one.name] = found if len(found) > 1 else found[one.on[0]]
    return truths


def _clear(stage: FiveMachines, case: Case) -> None:
    for name in stage.machines:
        shutil.rmtree(stage.root(name) / case.name, ignore_errors=True)
