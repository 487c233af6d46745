"""A small disk of one folder's own (tmpfs), that can be filled to the last page and given room again. Root only.

Invariant: the guard knows of the mount before it is made, so it is gone whatever happens.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from protocol.errors import Unavailable

from ..guard import Guard

MIB: Final = 1024 * 1024


def missing() -> str:
    """Why there can be none here; "" if there can."""
    if os.geteuid() != 0:
        return "a small disk needs root (mount)"
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, text=True, check=False)
        if made.returncode == 0:
            subprocess.run(["umount", folder], capture_output=True, check=False)
    return made.stderr.strip()


class SmallDisk:
    """The disk of `folder`."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no page free."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(64 * 1024))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def make_room(self) -> None:
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(guard: Guard, folder: Path, size: int = 16 * MIB) -> Iterator[SmallDisk]:
    """Mount one at `folder`, which is made if need be. Raises: Unavailable."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    guard.note("mount", str(folder))
    options = f"size={size},mode=0700"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise Unavailable(f"no small disk could be mounted: {made.stderr.strip()}", hint="leave out the disk cases")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
