"""Texts: the chapters of a book, as files or packed into one archive."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any, Final

from orchestrator.placement.dice import Dice

from .draw import Generator, between, hashes, pick, told, written

_WORDS: Final = (
    "a", "the", "of", "and", "under", "over", "light", "stone", "harbour", "winter", "letter", "engine", "glass",
    "river", "quiet", "copper", "signal", "orchard", "paper", "window", "lantern", "salt", "meadow", "clock", "wire",
)  # fmt: skip
TERMS: Final = ("Asterism", "Boreas", "Cygnus", "Draco")


def chapters(
    folder: Path,
    dice: Dice,
    *,
    files: int = 8,
    words: int = 300,
    pad: int = 0,
    archive: str = "",
    part: str = "chapter",
) -> Any:
    """`part`-01.txt and so on, a heading and `words` words each; now and then one of TERMS stands among them.

    `pad`: so many bytes more in each, as one long last word. `archive`: only this .tar.gz with all of them is there.
    """
    rows: list[dict[str, Any]] = []
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as bundle:
        for number in range(1, files + 1):
            name, text, row = _chapter(dice, f"{part}-{number:02d}.txt", number, words, pad)
            if archive:
                about = tarfile.TarInfo(name)
                about.size = len(text)
                bundle.addfile(about, io.BytesIO(text))
            else:
                (folder / name).write_bytes(text)
            rows.append({**told(name, text), **row})
    truth = {
        "files": rows,
        "names": [row["name"] for row in rows],
        "hashes": hashes(rows),
        "sha256": [row["sha256"] for row in rows],
        "words_per_file": [row["words"] for row in rows],
        "lines_per_file": [row["lines"] for row in rows],
        "words": sum(row["words"] for row in rows),
        "headings": [row["heading"] for row in rows],
        "terms": {term: sum(row["terms"][term] for row in rows) for term in TERMS},
        "index": [
            {
                "term": term,
                "n": sum(row["terms"][term] for row in rows),
                "chapters": sum(row["terms"][term] > 0 for row in rows),
            }
            for term in TERMS
        ],
        "longest": max(rows, key=lambda row: int(row["bytes"]))["name"],
    }
    if archive:
        truth["archive"] = written(folder / archive, gzip.compress(packed.getvalue(), mtime=0))
    return truth


def _chapter(dice: Dice, name: str, number: int, words: int, pad: int) -> tuple[str, bytes, dict[str, Any]]:
    drawn = [pick(dice, TERMS if dice.below(12) == 0 else _WORDS) for _ in range(words - 1)]
    heading = f"Chapter {number}: {pick(dice, _WORDS)} and {pick(dice, _WORDS)}"
    lines, at = [heading], 0
    while at < len(drawn):
        length = between(dice, 6, 14)
        lines.append(" ".join(drawn[at : at + length]))
        at += length
    lines.append("x" * max(pad, 1))
    told = {
        "heading": heading,
        "lines": len(lines),
        "words": len(heading.split()) + words,
        "terms": {term: drawn.count(term) for term in TERMS},
    }
    return name, ("\n".join(lines) + "\n").encode(), told


GENERATORS: Final[dict[str, Generator]] = {"chapters": chapters}
