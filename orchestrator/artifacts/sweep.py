"""Removes contents that nobody needs: not named by what is kept, nor by a kept content, and older than a grace.

Invariant: a content that was found complete by anybody (`ArtifactStore.has`) within the grace stays, also when that
happens at this very moment: a file is moved out of sight before its age is judged for good, and moved back if it turns
out fresh. Everything here blocks: call it in a thread. It must not know runs: which digests they name is told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from protocol.artifact import CHUNK_BYTES

from .store import ArtifactStore

MARK: Final = re.compile(rb"sha256:[0-9a-f]{64}|file://[A-Za-z0-9._-]+(?=/)")
"""What names a content, or the machine that a file is on."""
_OVERLAP: Final = 71
"""One byte less than a digest: one that is cut by the end of a chunk is found with the next."""
_JSON: Final = (b"{", b"[", b'"')


class Freed(msgspec.Struct, frozen=True):
    """`artifacts` complete ones, `partial` uploads that broke off and were not gone on with."""

    artifacts: int = 0
    artifact_bytes: int = 0
    partial: int = 0
    partial_bytes: int = 0
    kept: int = 0


def sweep(store: ArtifactStore, needed: set[str], before: float, *, dry: bool = False) -> Freed:
    """Remove what is not in `needed` and was last asked for before that Unix time.

    `dry`: only count it.
    """
    artifacts = freed = kept = 0
    for path in _contents(store.directory):
        if f"sha256:{path.parent.name}{path.name}" in needed:
            kept += 1
            continue
        size = _remove(path, store.partial_path(f"sha256:{path.parent.name}{path.name}"), before, dry)
        if size is None:
            kept += 1
        else:
            artifacts, freed = artifacts + 1, freed + size
    partial = partial_bytes = 0
    for path in (store.directory / "partial").iterdir():
        size = _remove(path, path, before, dry)
        if size is not None:
            partial, partial_bytes = partial + 1, partial_bytes + size
    return Freed(artifacts, freed, partial, partial_bytes, kept)


def _contents(directory: Path) -> Iterator[Path]:
    for folder in directory.iterdir():
        if len(folder.name) == 2 and folder.is_dir():
            yield from folder.iterdir()


def closure(store: ArtifactStore, named: set[str]) -> set[str]:
    """The marks that are named, and what those of it that are JSON name in turn (lists of files, say)."""
    found: set[str] = set()
    stack = list(named)
    while stack:
        digest = stack.pop()
        if digest in found:
            continue
        found.add(digest)
        if not digest.startswith("sha256:"):
            continue
        try:
            with open(store.path(digest), "rb") as file:
                chunk = file.read(CHUNK_BYTES)
                tail = b""
                while chunk and (tail or chunk.lstrip()[:1] in _JSON):
                    text = tail + chunk
                    stack.extend(one.decode() for one in MARK.findall(text))
                    tail, chunk = text[-_OVERLAP:], file.read(CHUNK_BYTES)
        except FileNotFoundError:
            continue
    return found


def _remove(path: Path, aside: Path, before: float, dry: bool) -> int | None:
    """Its size if it was removed (or would be); None for what is fresh or gone."""
    try:
        found = path.stat()
        if found.st_mtime >= before:
            return None
        if dry:
            return found.st_size
        hidden = aside.with_name(f"{aside.name}.gone")
        os.rename(path, hidden)
        if hidden.stat().st_mtime >= before:
            os.rename(hidden, path)
            return None
        hidden.unlink()
        return found.st_size
    except FileNotFoundError:
        return None
