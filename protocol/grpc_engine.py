"""gRPC, imported as we want it: everybody here who needs grpc takes it from this module.

Its newer event loop, the EventEngine, reads each message in one thread and hands it through a second to the one that
wakes ours. Its older one reads in the thread that wakes us: a message and its answer cost a third less CPU at both
ends. Which one it is, is read when the library is loaded, from the name of an experiment; a later release may not know
that name and would complain of it, so it is said to those that were tried. Whatever a person has set wins, and nothing
of it stays in the environment for what we start.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_EXPERIMENTS: Final = "GRPC_EXPERIMENTS"
_INLINE: Final = "-event_engine_client,-event_engine_listener"
TRIED: Final = ((1, 76), (1, 85))
"""The first and the last release that the words were tried with."""


def tried(release: str) -> bool:
    """Whether this release of grpcio knows the experiments by these names."""
    try:
        major, minor = release.split(".")[:2]
        return TRIED[0] <= (int(major), int(minor)) <= TRIED[1]
    except ValueError:
        return False


def _installed() -> str:
    """As the library's own file says, unread by itself: importlib.metadata would cost more than all of this."""
    found = find_spec("grpc")
    try:
        text = Path(found.origin).with_name("_grpcio_metadata.py").read_text() if found and found.origin else ""
    except OSError:
        return ""
    return text.partition('"""')[2].partition('"""')[0]


os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
_CHOSEN: Final = _EXPERIMENTS not in os.environ and tried(_installed())
if _CHOSEN:
    os.environ[_EXPERIMENTS] = _INLINE
import grpc as grpc  # noqa: E402

if _CHOSEN:
    del os.environ[_EXPERIMENTS]
