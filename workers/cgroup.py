"""Control groups: every process of a host, whatever it forked or renamed itself to, limited and killed as one.

Version 2 where this process may make groups below its own, version 1 (pids, memory) where that is mounted and
writable. Invariant: once `is_empty` has said so after `kill`, nobody of the group is left. It knows no host and no
skill. A skill of the same user can leave its group on purpose: this is housekeeping, not a wall (see bubblewrap).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Final

_PROCS: Final = "cgroup.procs"
_KILL: Final = "cgroup.kill"
MOST_PROCESSES: Final = 4096
"""Of one host: enough for a parallel build, too few for a fork bomb to matter."""


class Group:
    """The control group of one host: a folder in each hierarchy."""

    def __init__(self, folders: tuple[str, ...], memory_bytes: int = 0) -> None:
        self._folders = folders
        for folder in folders:
            os.makedirs(folder, exist_ok=True)
            _limit(folder, "pids.max", MOST_PROCESSES)
            if memory_bytes:
                _limit(folder, "memory.max", memory_bytes)
                _limit(folder, "memory.limit_in_bytes", memory_bytes)

    def join(self) -> None:
        """The calling process, and all that it will ever start, belong to the group. Raises: OSError."""
        for folder in self._folders:
            _write(f"{folder}/{_PROCS}", "0")

    def kill(self) -> None:
        """SIGKILL to everybody in it; nobody can be forked meanwhile."""
        for folder in self._folders:
            if os.path.exists(f"{folder}/{_KILL}"):
                _try(f"{folder}/{_KILL}", "1")
            else:
                _limit(folder, "pids.max", 0)
                for pid in _pids(folder):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)

    def is_empty(self) -> bool:
        return not any(next(_pids(folder), 0) for folder in self._folders)

    def remove(self) -> bool:
        """Take the empty group away, with the groups that a skill made inside it. False while somebody is in it."""
        for folder in self._folders:
            for path in reversed(list(_tree(folder))):
                with contextlib.suppress(OSError):
                    os.rmdir(path)
        return not any(map(os.path.isdir, self._folders))


class Groups:
    """The places below which this worker makes a group per host."""

    def __init__(self, folders: tuple[str, ...]) -> None:
        self._folders = folders
        self.limits = tuple(
            name
            for name, files in (("memory", ("memory.max", "memory.limit_in_bytes")), ("pids", ("pids.max",)))
            if any(os.path.exists(f"{folder}/{file}") for folder in folders for file in files)
        )

    def group(self, name: str, memory_bytes: int = 0) -> Group:
        """Raises: OSError."""
        return Group(tuple(f"{folder}/{name}" for folder in self._folders), memory_bytes)

    def remove(self) -> bool:
        """Kill whoever is in any group here and take all of them away. False while some are dying still."""
        everything = Group(self._folders)
        everything.kill()
        return everything.remove()


def find_groups(tag: str) -> Groups | None:
    """Make a place for groups under the name `tag` in each hierarchy that lets us; None where none does.

    What an earlier process of the same tag left behind there is killed first; what others left empty is swept.
    """
    made = []
    for base, is_v2 in _own_groups():
        folder = f"{base}/asterism-{tag}-{os.getpid()}"
        with contextlib.suppress(OSError):
            _sweep(base, tag)
            if is_v2:
                _delegate(base, tag)
            os.makedirs(folder, exist_ok=True)
            if is_v2:
                _try(f"{folder}/cgroup.subtree_control", "+memory +pids")
            made.append(folder)
    return Groups(tuple(made)) if made else None


def _sweep(base: str, tag: str) -> None:
    with os.scandir(base) as entries:
        left = [entry.path for entry in entries if entry.name.startswith("asterism-")]
    for path in left:
        theirs, _, pid = os.path.basename(path).removeprefix("asterism-").rpartition("-")
        if theirs == tag:
            Groups((path,)).remove()
        elif pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            Group((path,)).remove()


def _own_groups() -> Iterator[tuple[str, bool]]:
    """The folders of the groups this process is in: version 2, and those of version 1 that limit."""
    mounts: dict[str, tuple[str, str]] = {}
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fields, kind = left.split(), right.split()
            if kind and kind[0] == "cgroup2":
                mounts[""] = (fields[4], fields[3])
            elif kind and kind[0] == "cgroup":
                for name in ("pids", "memory"):
                    if name in kind[2].split(","):
                        mounts[name] = (fields[4], fields[3])
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            for name in names.split(","):
                if name in mounts:
                    where, top = mounts[name]
                    below = os.path.relpath(path, top) if path.startswith(top) else "."
                    yield os.path.normpath(f"{where}/{below}"), name == ""


def _delegate(base: str, tag: str) -> None:
    """Have the controllers handed down. That needs a group without processes: ours go into a leaf, if it is only us."""
    if "memory" not in _read(f"{base}/cgroup.controllers") or "memory" in _read(f"{base}/cgroup.subtree_control"):
        return
    ours = {os.getpid(), os.getppid()}
    if not set(_members(base)) <= ours:
        return
    leaf = f"{base}/daemon-{tag}"
    os.makedirs(leaf, exist_ok=True)
    for pid in ours:
        _try(f"{leaf}/{_PROCS}", str(pid))
    _try(f"{base}/cgroup.subtree_control", "+memory +pids")


def _tree(folder: str) -> Iterator[str]:
    yield folder
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                yield from _tree(entry.path)


def _pids(folder: str) -> Iterator[int]:
    for path in _tree(folder):
        yield from _members(path)


def _members(folder: str) -> list[int]:
    return [int(word) for word in _read(f"{folder}/{_PROCS}").split() if word.isdigit()]


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _limit(folder: str, name: str, amount: int) -> None:
    if os.path.exists(f"{folder}/{name}"):
        _try(f"{folder}/{name}", str(amount))


def _try(path: str, text: str) -> None:
    with contextlib.suppress(OSError):
        _write(path, text)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
