"""Images: grey frames as binary PGM files, as a camera would leave them; some of them show something bright."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from orchestrator.placement.dice import Dice

from .draw import Generator, between, hashes, some, written

_SPOT: Final = 8


def frames(
    folder: Path, dice: Dice, *, files: int = 8, width: int = 96, height: int = 64, bright: int = 2, by: int = 4
) -> Any:
    """frame-01.pgm and so on: dim noise; in `bright` of them a white square of 8 by 8. Sides are multiples of `by`.

    `small` is the sum of the pixels that are left when each stands for the brightest of `by` by `by`.
    """
    rows: list[dict[str, Any]] = []
    seen = set(some(dice, range(files), bright))
    for at in range(files):
        pixels = bytearray(_noise(dice, width * height))
        if at in seen:
            left, top = between(dice, 0, width - _SPOT), between(dice, 0, height - _SPOT)
            for y in range(top, top + _SPOT):
                pixels[y * width + left : y * width + left + _SPOT] = b"\xff" * _SPOT
        head = f"P5\n{width} {height}\n255\n".encode()
        row = written(folder / f"frame-{at + 1:02d}.pgm", head + bytes(pixels))
        small = _shrunk(pixels, width, by)
        rows.append({**row, "sum": sum(pixels), "brightest": max(pixels), "seen": at in seen, "small": sum(small)})
    return {
        "files": rows,
        "names": [row["name"] for row in rows],
        "hashes": hashes(rows),
        "sha256": [row["sha256"] for row in rows],
        "sums": [row["sum"] for row in rows],
        "sum": sum(row["sum"] for row in rows),
        "seen": [row["name"] for row in rows if row["seen"]],
        "count_seen": bright,
        "bytes": sum(row["bytes"] for row in rows),
        "brightest": [row["brightest"] for row in rows],
        "small": [row["small"] for row in rows],
        "small_sum": sum(row["small"] for row in rows),
    }


def _shrunk(pixels: bytearray, width: int, by: int) -> list[int]:
    """The brightest pixel of every square of `by` by `by`."""
    found: dict[tuple[int, int], int] = {}
    for at, pixel in enumerate(pixels):
        square = at // width // by, at % width // by
        found[square] = max(pixel, found.get(square, 0))
    return list(found.values())


def _noise(dice: Dice, count: int) -> bytes:
    """Bytes from 0 to 63, eight a draw."""
    mask = 0x3F3F3F3F3F3F3F3F
    drawn = b"".join((dice.bits() & mask).to_bytes(8, "big") for _ in range(-(-count // 8)))
    return drawn[:count]


GENERATORS: Final[dict[str, Generator]] = {"frames": frames}
