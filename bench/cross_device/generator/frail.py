"""What the cases of recovery are about: `blobs` are files, some of them too large, `readings` numbers by the line."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from orchestrator.placement.dice import Dice

from .draw import Generator, between, some

LARGE_BYTES: Final = 96 * 1024
_SMALL_BYTES: Final = 8 * 1024


def blobs(folder: Path, dice: Dice, *, files: int = 6, large: int = 2) -> Any:
    """blob00.bin and so on; `large` of them have 96 KiB, the others 8 KiB."""
    names = [f"blob{at:02d}.bin" for at in range(files)]
    heavy = set(some(dice, names, large))
    rows = []
    for name in names:
        size = LARGE_BYTES if name in heavy else _SMALL_BYTES
        data = (dice.bits().to_bytes(8, "big") * (size // 8))[:size]
        (folder / name).write_bytes(data)
        rows.append({"name": name, "sha256": sha256(data).hexdigest(), "bytes": size})
    return {
        "files": rows,
        "names": names,
        "sha256": [row["sha256"] for row in rows],
        "by_name": {row["name"]: row["sha256"] for row in rows},
        "bytes": sum(row["bytes"] for row in rows),
        "large": sorted(heavy),
    }


def readings(folder: Path, dice: Dice, *, files: int = 1, lines: int = 400, good: int = 99) -> Any:
    """readings-0.txt and so on: a whole number on each line. Of those from number `good` on, a line holds a word."""
    totals = []
    for at in range(files):
        numbers = [between(dice, 1, 999) for _ in range(lines)]
        said = [str(one) for one in numbers]
        if at >= good:
            said[between(dice, 0, lines - 1)] = "overflow"
        (folder / f"readings-{at}.txt").write_text("".join(f"{one}\n" for one in said))
        totals.append(sum(numbers))
    return {
        "totals": totals,
        "total": sum(totals),
        "lines": lines,
        "names": [f"readings-{at}.txt" for at in range(files)],
    }


GENERATORS: Final[dict[str, Generator]] = {"blobs": blobs, "readings": readings}
