"""What was played, kept in a folder as it comes, so that a suite that was cut off goes on where it stopped.

A file of JSON lines: what is played, then each play; and one of what was real where they were played. Invariant: a play
that was kept is read back whole or, if the machine died in the middle of its line, not at all. It must not know why
anything is played.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.errors import UsageError

from .play import Play

NAME: Final = "plays.jsonl"
NOTES: Final = "notes.json"


class Store:
    """`settings` are what plays must have in common to stand beside each other; of two of the same the later counts.
    `notes` are those of all calls that made them.

    Raises: UsageError.
    """

    def __init__(self, folder: Path | None, settings: dict[str, Any]) -> None:
        self.plays: list[Play] = []
        self.notes: tuple[str, ...] = ()
        self._path = folder / NAME if folder is not None else None
        if folder is None or self._path is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
            kept = [line for line in lines if line.endswith(b"\n")]
            if kept and msgspec.json.decode(kept[0]) != settings:
                raise UsageError(f"{folder} holds plays of another suite", hint="another --out, or the same options")
            self.plays = [msgspec.json.decode(line, type=Play) for line in kept[1:]]
            self._path.write_bytes(b"".join(kept) or msgspec.json.encode(settings) + b"\n")
            if (notes := folder / NOTES).exists():
                self.notes = msgspec.json.decode(notes.read_bytes(), type=tuple[str, ...])
        except (OSError, msgspec.MsgspecError) as error:
            raise UsageError(f"{folder} can't be used: {error}", hint="another --out, or remove it") from error

    def keep(self, play: Play) -> None:
        self.plays.append(play)
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(play) + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def note(self, *notes: str) -> None:
        """What of the machines is real that plays are made on, for people; "" is none."""
        self.notes = tuple(dict.fromkeys((*self.notes, *filter(None, notes))))
        if self._path is not None:
            self._path.with_name(NOTES).write_bytes(msgspec.json.encode(self.notes))
