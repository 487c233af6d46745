"""The port of a peer: another runtime, started in its own way, that runs a graph of no-op tasks and gives its result.

Invariant: only the standard library. What a peer needs is imported when it is opened, by name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

from .shape import Shape

Action = Callable[[], int]
"""Runs the whole graph once and gives what `shape.result_of` says."""


class Peer(Protocol):
    """A runtime that has been started and has run a task already."""

    version: str

    def prepare(self, shape: Shape, size: int) -> Action:
        """What its users do before the clock starts, such as compiling a graph; submitting belongs to the action."""
        ...


_PART: Final = """
import importlib, sys, types
package = types.ModuleType("peers")
package.__path__ = [sys.argv[1]]
sys.modules["peers"] = package
importlib.import_module("peers." + sys.argv[2]).part(*sys.argv[3:])
"""


def part_argv(module: str, *arguments: str) -> list[str]:
    """The command of a further process of a peer: it calls `part(*arguments)` of its module."""
    return [sys.executable, "-P", "-c", _PART, str(Path(__file__).parent), module, *arguments]


Opener = Callable[[int, Path], AbstractContextManager[Peer]]
"""(workers, scratch folder) -> the peer, ended on exit with all its processes."""
