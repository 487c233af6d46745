"""Parsl with its HighThroughputExecutor: an interchange and one manager with worker processes, on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from .futures import graph_of, results
from .peer import Action
from .shape import Shape


class Parsl:
    """See the module."""

    def __init__(self, parsl: Any) -> None:
        self.version = parsl.__version__

        def noop(*before: int) -> int:
            return 1 + max(before, default=0)

        # With globals that no module has it travels by value: the workers can't import this module.
        self._noop = parsl.python_app(FunctionType(noop.__code__, {"__name__": "__main__"}, "noop"))

    def prepare(self, shape: Shape, size: int) -> Action:
        return graph_of(self._noop, results, shape, size)


@contextmanager
def open_peer(workers: int, folder: Path) -> Iterator[Parsl]:
    """See peer.Opener."""
    programs = os.path.dirname(sys.executable)
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"  # its parts are found by name
    os.chdir(folder)
    parsl: Any = import_module("parsl")
    provider = import_module("parsl.providers").LocalProvider(
        init_blocks=1, min_blocks=1, max_blocks=1, worker_init=f"export PATH={programs}:$PATH"
    )
    executor = import_module("parsl.executors").HighThroughputExecutor(
        address="127.0.0.1", max_workers_per_node=workers, cores_per_worker=1, encrypted=False, provider=provider
    )
    config = import_module("parsl.config").Config(
        executors=[executor], run_dir=str(folder / "run"), usage_tracking=0, strategy="none", initialize_logging=False
    )
    with parsl.load(config):
        peer = Parsl(parsl)
        peer.prepare("fan_out", 50)()
        yield peer
