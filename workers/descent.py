"""Files reached one folder at a time, no link followed: what was checked under a path is what is opened under it.

For real paths only (`Roots.allow` makes them): a link anywhere means that somebody has changed the tree since, and is
refused. Invariant: what is handed out is a regular file; pipes and devices are never even waited for. It knows no
root: whether a path is allowed was decided before.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Final

from protocol.errors import NotAllowed, NotFound

_LOOK: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def open_plain(path: str) -> BinaryIO:
    """Open a regular file for reading. Raises: NotAllowed for a link, a folder, a pipe, a device; NotFound."""
    parent, name = os.path.split(path)
    folder = open_folder(parent)
    try:
        fd = os.open(name or ".", _LOOK | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        raise _refused(path, error) from None
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotAllowed(f"{path} is no regular file", hint="pack a folder with file.pack first")
    return os.fdopen(fd, "rb")


def open_folder(path: str, *, make: bool = False) -> int:
    """A descriptor of the folder, which the caller closes. `make` creates what is missing.

    Raises: NotAllowed for a link or a file on the way, NotFound.
    """
    folder = os.open("/", _LOOK | os.O_DIRECTORY)
    for part in path.split("/"):
        if part in ("", "."):
            continue
        try:
            deeper = _deeper(folder, part, make)
        except OSError as error:
            raise _refused(path, error) from None
        finally:
            os.close(folder)
        folder = deeper
    return folder


def _deeper(folder: int, part: str, make: bool) -> int:
    try:
        return os.open(part, _LOOK | os.O_DIRECTORY, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=folder)
        return os.open(part, _LOOK | os.O_DIRECTORY, dir_fd=folder)


def replace_plain(path: str, write: Callable[[BinaryIO], object]) -> int:
    """Write a file whole or not at all: beside its place, then into it. Folders are made. How many bytes it has.

    Raises: NotAllowed where something other than a regular file is in the way; what `write` raises; OSError.
    """
    parent, name = os.path.split(path)
    folder = open_folder(parent, make=True)
    fresh = f".{name[:200]}.{secrets.token_hex(4)}.part"
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise NotAllowed(f"{path} is no regular file", hint="name another one to write")
        try:
            fd = os.open(fresh, _MAKE, 0o666, dir_fd=folder)
        except FileNotFoundError as error:  # the folder has been removed since
            raise _refused(path, error) from None
        try:
            with os.fdopen(fd, "wb") as file:
                write(file)
                size = file.tell()
            os.replace(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=folder)
            raise
    finally:
        os.close(folder)
    return size


def _refused(path: str, error: OSError) -> NotAllowed | NotFound:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{path} does not exist")
    return NotAllowed(f"{path} can't be opened: {error.strerror}")
