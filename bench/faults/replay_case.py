"""How long it takes to recover a long journal, in a fresh process that does nothing else.

It must not know what is in the journal but how much.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from .account import Account
from .case import Tally

SHORT: Final = 10_000
QUICK: Final = 50_000
LONG: Final = 1_000_000
_NAMES: Final[Mapping[int, str]] = {SHORT: "10k", QUICK: "50k", LONG: "1m"}


async def replay(folder: Path, tally: Tally, times: int, long: int) -> None:
    """A journal of SHORT and one of `long` events, each read `times` times, the long one also without its snapshot."""
    for events in (SHORT, long):
        path = folder / f"journal-{events}"
        made = await _ask("make", str(path), str(events))
        name = _NAMES[events]
        for _ in range(times):
            found = await _ask("read", str(path))
            whole = await _ask("read", str(path), "whole")
            tally.figure(f"replay_{name}_s", found["seconds"])
            tally.figure(f"replay_{name}_whole_s", whole["seconds"])
            for one in (found, whole):
                why = () if one["events"] == made["events"] else (f"{one['events']} events of {made['events']}",)
                lost = made["succeeded"] - one["succeeded"]
                tally.add(Account(max(lost, bool(why)), max(0, -lost), why=why))


async def _ask(*arguments: str) -> dict[str, Any]:
    argv = [sys.executable, "-P", "-m", "bench.faults.long_journal", *arguments]
    done = await anyio.run_process(argv, stderr=None, stdin=subprocess.DEVNULL)
    answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    return answer
