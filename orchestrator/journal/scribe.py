"""The process that writes a snapshot: it reads the journal as a recovery would, and hands the parts that changed back.

So the server's loop spends nothing on it and the snapshot can't be torn: it is what replay gives as of one event, by
definition. Whatever happens to this process costs a snapshot and nothing else. Invariant: it only reads the journal.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, Final

import msgspec

from protocol.errors import AsterismError, Unavailable

from .archive import Archive
from .journal import Snapshot
from .recovery import recover

NICENESS: Final = 15
"""Nobody waits for a snapshot, and everybody for what it would take the processor from."""
_PATIENCE_S: Final = 600.0


class _Head(msgspec.Struct, array_like=True):
    """What comes first; then `sizes` bytes of each part, in order."""

    seq: int
    at: float
    layout: str
    records: dict[int, int]
    sizes: dict[int, int]


def draft(path: Path, until: int) -> Snapshot:
    """The snapshot as of event `until`: parts that changed since the last one. Raises: JournalCorrupt."""
    with Archive(path) as archive:
        found = recover(archive, until)
    state = found.state
    changed = sorted({0, *state.changed} & {0, *state.runs})
    counts = {part: found.behind.get(part, 0) + found.tail.get(part, 0) for part in changed}
    return Snapshot(found.seq, found.at, {part: state.part(part) for part in changed}, counts, state.layout())


class Scribe:
    """`draft` in a process of its own, one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self, until: int) -> Snapshot:
        """Blocks. Raises: Unavailable with what that process said."""
        argv = [sys.executable, "-P", "-m", __name__, str(self._path), str(until)]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            self._child = child
            with suppress(OSError):  # from here: by the time it could do so itself most of its start is over
                os.setpriority(os.PRIO_PROCESS, child.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
            patience = threading.Timer(_PATIENCE_S, child.kill)
            patience.start()
            try:
                assert child.stdout is not None
                assert child.stderr is not None
                try:
                    found = _read(child.stdout)
                except msgspec.DecodeError as error:
                    said = child.stderr.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
                    said = said or f"{error}: its process ended: {child.wait()}"
                    raise Unavailable(f"no snapshot was written: {said}") from error
                if child.wait():
                    raise Unavailable(f"no snapshot was written: its process ended: {child.returncode}")
                return found
            finally:
                patience.cancel()
                child.kill()

    def end(self) -> None:
        """Give up the one under way, if any: its caller hears so."""
        if self._child is not None:
            self._child.kill()


def _write(snapshot: Snapshot, file: BinaryIO) -> None:
    sizes = {part: len(body) for part, body in snapshot.parts.items()}
    head = msgspec.msgpack.encode(_Head(snapshot.seq, snapshot.at, snapshot.layout, dict(snapshot.records), sizes))
    file.write(len(head).to_bytes(4, "big") + head)
    for body in snapshot.parts.values():
        file.write(body)
    file.flush()


def _read(file: IO[bytes]) -> Snapshot:
    """Each part is read at its size: a snapshot can be as large as all runs, and is in memory once.

    Raises: msgspec.DecodeError for anything `_write` did not finish.
    """
    head = msgspec.msgpack.decode(file.read(int.from_bytes(file.read(4), "big")), type=_Head)
    parts = {part: file.read(size) for part, size in head.sizes.items()}
    if any(len(parts[part]) != size for part, size in head.sizes.items()) or file.read(1):
        raise msgspec.DecodeError("it broke off")
    return Snapshot(head.seq, head.at, parts, head.records, head.layout)


if __name__ == "__main__":
    try:
        _write(draft(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout.buffer)
    except AsterismError as error:
        sys.exit(error.message)
