"""What is kept in case it is lost: files with a manifest, archives of them, and damage done to either."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from pathlib import Path
from typing import Any, Final

from orchestrator.placement.dice import Dice

from .draw import Generator, between, hashes, some, table, told, written


def vault(folder: Path, dice: Dice, *, files: int = 16, size: int = 20_000, damaged: int = 0) -> Any:
    """v00.bin, v01.bin, ... and manifest.csv of their hashes; so many of the files are damaged after that."""
    contents = _contents(dice, files, size)
    rows = [written(folder / name, data) for name, data in contents.items()]
    table(folder / "manifest.csv", [{"name": row["name"], "sha256": row["sha256"]} for row in rows])
    hurt = some(dice, list(contents), damaged)
    for name in hurt:
        data = bytearray(contents[name])
        data[between(dice, 0, len(data) - 1)] ^= 0xFF
        (folder / name).write_bytes(data)
    return {
        "files": rows,
        "names": [row["name"] for row in rows],
        "list": [row["sha256"] for row in rows],
        "hashes": hashes(rows),
        "damaged": [{"name": name} for name in hurt],
    }


def archive(folder: Path, dice: Dice, *, files: int = 4, size: int = 20_000, damaged: bool = False) -> Any:
    """vault.tar.gz of such files. `damaged`: it breaks off half way."""
    contents = _contents(dice, files, size)
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", mtime=0, fileobj=packed) as out, tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in contents.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    whole = packed.getvalue()
    (folder / "vault.tar.gz").write_bytes(whole[: len(whole) // 2] if damaged else whole)
    rows = [told(name, data) for name, data in contents.items()]
    return {
        "files": rows,
        "list": [row["sha256"] for row in rows],
        "hashes": hashes(rows),
        "sha256": told("", whole)["sha256"],
    }


def _contents(dice: Dice, files: int, size: int) -> dict[str, bytes]:
    """Bytes that no packing makes smaller."""
    return {
        f"v{at:02d}.bin": random.Random(dice.bits()).randbytes(between(dice, size // 2, size)) for at in range(files)
    }


GENERATORS: Final[dict[str, Generator]] = {"vault": vault, "archive": archive}
