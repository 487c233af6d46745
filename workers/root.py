"""What of this machine's files may be opened, and what has been handed out.

A path is allowed if, after all links are followed, it lies below an allowed root (for writing: one without `:ro`).
Invariant: `Roots` never allows a path whose real place is outside; `Issued` only ever grows within a run. It knows no
skill and no link.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from protocol.artifact import FileUri, parse_file
from protocol.errors import NotAllowed, NotFound, UsageError

from .descent import open_plain


class Root(msgspec.Struct, frozen=True):
    """One allowed tree, its path real (no links in it)."""

    path: str
    read_only: bool = False


def parse_root(text: str) -> Root:
    """`DIR` or `DIR:ro`. Raises: UsageError when it is no folder."""
    path, colon, mode = text.rpartition(":")
    read_only = bool(colon) and mode == "ro"
    folder = os.path.realpath(os.path.expanduser(path if read_only else text))
    if not os.path.isdir(folder):
        raise UsageError(f"the root {text!r} is no folder", hint="--root DIR or --root DIR:ro")
    return Root(folder, read_only)


class Roots:
    """The allowed trees of one worker, first come first served for relative paths."""

    def __init__(self, worker: str, roots: Sequence[Root], home: Sequence[Root] = ()) -> None:
        self.worker = worker
        self._given = tuple(roots)
        self._all = (*roots, *home)

    @property
    def given(self) -> tuple[Root, ...]:
        """Without the worker's own folders."""
        return self._given

    @property
    def base(self) -> str:
        """Where relative paths of plans start: the first root given."""
        return self._all[0].path if self._all else os.sep

    def allow(self, path: str | os.PathLike[str], *, write: bool = False) -> str:
        """The real path, if it may be used. Relative paths start at `base`. It need not exist.

        Raises: NotAllowed with the roots there are.
        """
        text = os.path.join(self.base, os.path.expanduser(os.fspath(path)))
        if "\0" in text:
            raise UsageError("a path can't hold a NUL byte")
        real = os.path.realpath(text)
        inside = [root for root in self._all if real == root.path or real.startswith(root.path.rstrip("/") + "/")]
        if not inside:
            raise NotAllowed(
                f"{os.fspath(path)} is outside the roots of {self.worker}",
                hint="start the worker with --root " + os.path.dirname(real),
            )
        if write and all(root.read_only for root in inside):
            raise NotAllowed(f"{os.fspath(path)} is below a read-only root", hint="start with --root DIR without :ro")
        return real

    def local(self, uri: str) -> str:
        """The path of a `file://` URI of this machine, allowed and existing.

        Raises: NotAllowed for another machine's file or outside the roots; NotFound.
        """
        found = parse_file(uri)
        if found is None or found.worker != self.worker:
            raise NotAllowed(f"{uri} is not a file of {self.worker}", hint="it has to be staged first")
        real = self.allow(found.path)
        if not os.path.exists(real):
            raise NotFound(f"{uri} does not exist on {self.worker}")
        return real

    def uri(self, path: str | os.PathLike[str]) -> str:
        """The name under which others may ask for an allowed path of this machine."""
        return str(FileUri(self.worker, self.allow(path)))

    def open(self, path: str) -> BinaryIO:
        """Open an allowed file for reading. Raises: NotAllowed, NotFound."""
        return self.open_real(self.allow(path))

    def open_real(self, path: str) -> BinaryIO:
        """Open what `allow` returned so that no link swapped in meanwhile can lead elsewhere.

        Raises: NotAllowed, NotFound.
        """
        return open_plain(path)


class Issued:
    """Which paths were handed out as `file://` in which run, kept in that run's folder so that it survives restarts.

    Noted on the event loop, looked up in threads: hence the lock.
    """

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    def note(self, run_folder: Path, paths: Iterable[str]) -> None:
        with self._lock:
            known = self._load(run_folder)
            fresh = [path for path in dict.fromkeys(paths) if path not in known]
            if fresh:
                run_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                with (run_folder / ".issued").open("ab") as file:
                    file.write(b"".join(os.fsencode(path) + b"\0" for path in fresh))
                known.update(fresh)

    def holds(self, run_folder: Path, path: str) -> bool:
        with self._lock:
            return path in self._load(run_folder)

    def _load(self, run_folder: Path) -> set[str]:
        key = str(run_folder)
        if key not in self._known:
            if len(self._known) >= 16:
                del self._known[next(iter(self._known))]
            try:
                data = (run_folder / ".issued").read_bytes()
            except FileNotFoundError:
                data = b""
            self._known[key] = {os.fsdecode(part) for part in data.split(b"\0") if part}
        return self._known[key]
