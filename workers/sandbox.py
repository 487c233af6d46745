"""What holds a skill host in: a session of its own, resource limits, a signal when its parent dies.

Every step works or is reported by `level()`; none needs a privilege. It knows no skill.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_OPEN_FILES: Final = 4096


def level() -> str:
    """What `asterism doctor` and the worker's profile say: the words of the measures that hold here."""
    return "process+parent-death" if sys.platform == "linux" else "process"


def enter(parent: int, memory_bytes: int = 0) -> None:
    """Put this fresh child into its own session, under its limits, tied to the life of `parent`."""
    os.setsid()
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)  # the parent died before the signal was armed
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if memory_bytes:
        # Data, not address space: GPU libraries reserve far more addresses than they ever use.
        _limit(resource.RLIMIT_DATA, memory_bytes)


def adopt_orphans() -> None:
    """Make this process the one that reaps what its hosts leave behind, where the system can do that."""
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _limit(what: int, wanted: int) -> None:
    _, hard = resource.getrlimit(what)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(what, (most, hard))
    except (ValueError, OSError):
        return  # a stricter limit is already in force
