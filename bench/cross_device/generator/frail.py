"""What the cases of recovery are about: `blobs` are files, some of them too large, `readings` numbers by the line,
`dialects` settings in two forms."""

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
    totals, sizes = [], []
    for at in range(files):
        numbers = [between(dice, 1, 999) for _ in range(lines)]
        said = [str(one) for one in numbers]
        if at >= good:
            said[between(dice, 0, lines - 1)] = "overflow"
        (folder / f"readings-{at}.txt").write_text("".join(f"{one}\n" for one in said))
        totals.append(sum(numbers))
        sizes.append(sum(len(one) + 1 for one in said))
    return {
        "totals": totals,
        "total": sum(totals),
        "bytes": sizes,
        "lines": lines,
        "names": [f"readings-{at}.txt" for at in range(files)],
    }


def dialects(folder: Path, dice: Dice, *, json: int = 4, ini: int = 2) -> Any:
    """Settings of services: `json` files of one form, service0.json and so on, and `ini` of another, unit0.ini."""
    texts: dict[str, str] = {}
    counts = []
    for at in range(json):
        texts[f"service{at}.json"] = f'{{"port": {between(dice, 1024, 9999)}, "workers": {between(dice, 1, 16)}}}\n'
    for at in range(ini):
        counts.append(between(dice, 3, 12))
        rows = [f"{'abcdefghijkl'[row]} = {between(dice, 1, 999)}\n" for row in range(counts[-1])]
        texts[f"unit{at}.ini"] = "".join(["[unit]\n", *rows])
    for name, text in texts.items():
        (folder / name).write_text(text)
    names = sorted(texts)
    return {
        "json": [name for name in names if name.endswith(".json")],
        "ini": [name for name in names if name.endswith(".ini")],
        "settings": counts,
        "bytes": [len(texts[name]) for name in names],
    }


GENERATORS: Final[dict[str, Generator]] = {"blobs": blobs, "readings": readings, "dialects": dialects}
