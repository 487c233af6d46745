"""Prefect with the server that it starts itself (SQLite), tasks in threads of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from .futures import graph_of, results
from .peer import Action
from .shape import Shape


class Prefect:
    """See the module."""

    def __init__(self, prefect: Any, workers: int) -> None:
        self.version = prefect.__version__
        self._flow = prefect.flow
        self._runner = import_module("prefect.task_runners").ThreadPoolTaskRunner(max_workers=workers)

        def noop(*before: int) -> int:
            return 1 + max(before, default=0)

        self._noop = prefect.task(noop).submit

    def prepare(self, shape: Shape, size: int) -> Action:
        flow: Action = self._flow(task_runner=self._runner)(graph_of(self._noop, results, shape, size))
        return flow


@contextmanager
def open_peer(workers: int, folder: Path) -> Iterator[Prefect]:
    """See peer.Opener."""
    os.environ |= {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "DO_NOT_TRACK": "1",
    }
    peer = Prefect(import_module("prefect"), workers)
    peer.prepare("fan_out", 5)()
    yield peer
