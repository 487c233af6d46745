"""What holds a skill host in, by level: process < cgroup < bubblewrap. Which hold here is tried, not guessed.

process: a session and a user's limits of its own, killed with its parent, never more privileged than it started.
cgroup: that, and all of its descendants in one control group. bubblewrap: that, in namespaces of its own.
Invariant: a level counts as held only after a trivial child has lived and died in it. It knows no skill.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from typing import Final

import msgspec

from protocol.errors import UsageError
from protocol.skill import LEVELS, Level, holds

from . import bubblewrap
from .cgroup import Group, Groups, find_groups

_PR_SET_PDEATHSIG: Final = 1
_PR_GET_PDEATHSIG: Final = 2
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_GET_NO_NEW_PRIVS: Final = 39
_OPEN_FILES: Final = 4096
_TRIAL_S: Final = 10.0


class Trial(msgspec.Struct, frozen=True):
    """How one level fared: `note` says what it comes to where it holds, else why it does not; `fix` what would help."""

    level: Level
    held: bool
    note: str = ""
    fix: str = ""


class Found(msgspec.Struct, frozen=True):
    """What this machine can hold skills with."""

    trials: tuple[Trial, ...] = ()

    @property
    def held(self) -> frozenset[Level]:
        """Not always a row: bubblewrap can do without cgroup."""
        return frozenset(one.level for one in self.trials if one.held)


def find(tag: str) -> tuple[Found, Groups | None]:
    """Try every level once. Only for a process without threads and without gRPC: it forks."""
    wrapped = _begin_bubblewrap()
    process = _try_process()
    groups = find_groups(tag) if sys.platform == "linux" else None
    cgroup = _try_cgroup(groups)
    if not cgroup.held and groups is not None:
        groups.remove()
        groups = None
    return Found((process, cgroup, _end_bubblewrap(wrapped))), groups


def enter(parent: int, memory_bytes: int = 0, level: Level = "process", group: Group | None = None) -> None:
    """Put this fresh child into its own session and, from `process` on, under its limits, tied to `parent`."""
    os.setsid()
    if group is not None:
        group.join()
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)  # the parent died before the signal was armed
        adopt_orphans()
    if not holds(level, "process"):
        return
    if sys.platform == "linux" and level != "bubblewrap":  # bwrap does it itself; where it is setuid, it must be first
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if memory_bytes:
        # Data, not address space: GPU libraries reserve far more addresses than they ever use.
        _limit(resource.RLIMIT_DATA, memory_bytes)


def adopt_orphans() -> None:
    """Make this process the one that reaps what its children leave behind, where the system can do that."""
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def strays(known: dict[int, int]) -> list[int]:
    """Children of this process that it has not started itself: adopted orphans of hosts that are gone."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:
        return []
    return [pid for pid in children if pid not in known]


def _try_process() -> Trial:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            enter(os.getppid(), level="process")
            armed = ctypes.c_int()
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(armed), 0, 0, 0)
                done = armed.value == signal.SIGKILL and _prctl(_PR_GET_NO_NEW_PRIVS, 0) == 1
            else:
                done = True
            status = 0 if done and os.getsid(0) == os.getpid() else 1
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        return Trial("process", False, "a child can't be put into a session of its own", "look at the system's limits")
    tied = "killed with the worker" if sys.platform == "linux" else "ended with its pipe to the worker"
    return Trial("process", True, f"own session, own limits, {tied}")


def _try_cgroup(groups: Groups | None) -> Trial:
    if groups is None:
        return Trial("cgroup", False, "no control group is writable here", "run the worker as a systemd unit: "
                     "asterism worker install")  # fmt: skip
    group = None
    try:
        group = groups.group("trial")
        leader = _sleeper(group)
        group.kill()
        os.waitpid(leader, 0)
        until = time.monotonic() + _TRIAL_S
        while not group.is_empty() and time.monotonic() < until:
            _reap()
            time.sleep(0.001)
        held = group.is_empty()
    except OSError as error:
        return Trial("cgroup", False, f"a child can't join one: {error.strerror}", "asterism worker install")
    finally:
        if group is not None:
            group.remove()
    limits = f", limits {' and '.join(groups.limits)}" if groups.limits else ""
    return Trial("cgroup", held, f"kills all descendants{limits}" if held else "one was not emptied by a kill")


def _sleeper(group: Group) -> int:
    """A child in the group, with a child of its own in another session: what a kill of the process group misses."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            group.join()
            if os.fork() == 0:
                os.setsid()
                os.write(done, b".")
            signal.pause()
        finally:
            os._exit(0)
    os.close(done)
    try:
        os.read(ready, 1)
    finally:
        os.close(ready)
    return pid


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _begin_bubblewrap() -> subprocess.Popen[bytes] | None:
    if sys.platform != "linux" or not bubblewrap.program():
        return None
    folder = tempfile.gettempdir()
    argv = bubblewrap.wrapped([sys.executable, "-I", "-S", "-c", "import os, sys; sys.exit(os.getpid() > 9)"], folder)
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _end_bubblewrap(child: subprocess.Popen[bytes] | None) -> Trial:
    if child is None:
        where = "is not installed" if sys.platform == "linux" else "exists on Linux only"
        fix = "install the package bubblewrap" if sys.platform == "linux" else "run such skills on a Linux worker"
        return Trial("bubblewrap", False, f"bwrap {where}", fix)
    try:
        _, said = child.communicate(timeout=_TRIAL_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return Trial("bubblewrap", False, "a child inside did not end in time", "try bwrap by hand")
    if child.returncode != 0:
        why = said.decode(errors="replace").strip().partition("\n")[0] or f"status {child.returncode}"
        return Trial("bubblewrap", False, why[:200], "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1")
    return Trial("bubblewrap", True, "own namespaces, read-only system, no network unless declared")


def level_named(text: str, what: str) -> Level:
    """Raises: UsageError."""
    if text not in LEVELS:
        raise UsageError(f"{what}: there is no sandbox level {text!r}", hint=f"one of {', '.join(LEVELS)}")
    return text


def _prctl(option: int, value: int) -> int:
    return int(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0))


def _limit(what: int, wanted: int) -> None:
    _, hard = resource.getrlimit(what)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(what, (most, hard))
    except (ValueError, OSError):
        return  # a stricter limit is already in force
