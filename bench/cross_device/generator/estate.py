"""What an administrator looks after: settings, accounts, certificates, rotated logs, homes full of files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

from orchestrator.placement.dice import Dice

from .draw import Generator, between, hashes, pick, some, table, told, written

_PEOPLE: Final = ("ada", "ben", "cleo", "dag", "eva", "finn", "gro", "hal", "ida", "jon", "kim", "lea", "mia", "nils")
_KEYS: Final = ("cache", "listen", "queue", "retries", "threads", "timeout", "verbose", "workers")
_SITES: Final = ("api", "cdn", "docs", "id", "mail", "pay", "shop", "wiki")


def settings(folder: Path, dice: Dice, *, drifted: bool = False) -> Any:
    """app.conf, one value a line. `drifted`: one of them is not what it was drawn as."""
    values = {key: between(dice, 1, 90) for key in _KEYS}
    wanted = told("app.conf", _conf(values))
    if drifted:
        values[pick(dice, _KEYS)] += 1000
    return {"wanted": wanted["sha256"], **written(folder / "app.conf", _conf(values))}


def accounts(folder: Path, dice: Dice, *, users: int = 10, roots: int = 2) -> Any:
    """passwd: so many users, some with the rights of root; `roots` names them, `root` first."""
    names = [f"{name}{between(dice, 10, 99)}" for name in some(dice, _PEOPLE, users)]
    chosen = some(dice, names, roots)
    lines = ["root:x:0:0:root:/root:/bin/sh"]
    for at, name in enumerate(names):
        number = 0 if name in chosen else 1000 + at
        lines.append(f"{name}:x:{number}:{number}:{name}:/home/{name}:/bin/sh")
    (folder / "passwd").write_text("\n".join(lines) + "\n")
    return {"roots": ["root", *chosen], "extra": chosen, "users": len(lines)}


def certificates(folder: Path, dice: Dice, *, hosts: int = 24, soon: int = 4) -> Any:
    """certificates.csv (host, days left) and owners.csv (host, owner); `soon`: those with less than 30 days."""
    names = [f"{_SITES[at % len(_SITES)]}{at // len(_SITES) + 1}" for at in range(hosts)]
    late = some(dice, names, soon)
    rows = [
        {"host": name, "days": between(dice, *((0, 29) if name in late else (30, 360))), "owner": pick(dice, _PEOPLE)}
        for name in names
    ]
    table(folder / "certificates.csv", [{"host": row["host"], "days": row["days"]} for row in rows])
    table(folder / "owners.csv", [{"host": row["host"], "owner": row["owner"]} for row in rows])
    expiring = sorted((row for row in rows if row["host"] in late), key=lambda row: (row["days"], row["host"]))
    return {"expiring": expiring, "hosts": hosts}


def rotated(folder: Path, dice: Dice, *, old: int = 6, size: int = 6_000) -> Any:
    """app.log and its older generations app.log.1, .2, ..., as random as logs are not."""
    rows = [
        written(folder / name, random.Random(dice.bits()).randbytes(between(dice, size // 2, size)))
        for name in ("app.log", *(f"app.log.{at}" for at in range(1, old + 1)))
    ]
    return {"kept": rows[0], "old": rows[1:], "hashes": hashes(rows[1:])}


def homes(folder: Path, dice: Dice, *, people: int = 4, files: int = 5, largest: int = 40_000) -> Any:
    """A folder for each of some people, with files of very unlike sizes."""
    rows: list[tuple[int, str]] = []
    for name in some(dice, _PEOPLE, people):
        (folder / name).mkdir(exist_ok=True)
        for at in range(files):
            size = between(dice, 1, 200) * between(dice, 1, largest // 200)
            (folder / name / f"{at}.dat").write_bytes(bytes(size))
            rows.append((size, f"{name}/{at}.dat"))
    return {"files": [{"name": name, "bytes": size} for size, name in sorted(rows, key=lambda row: (-row[0], row[1]))]}


def _conf(values: dict[str, int]) -> bytes:
    return "".join(f"{key} = {value}\n" for key, value in values.items()).encode()


GENERATORS: Final[dict[str, Generator]] = {
    "settings": settings,
    "accounts": accounts,
    "certificates": certificates,
    "rotated": rotated,
    "homes": homes,
}
