"""Ray on one node: its store, its daemon, worker processes, and this process as the driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from .futures import graph_of
from .peer import Action
from .shape import Shape

_STORE_BYTES = 200 << 20


class Ray:
    """See the module."""

    def __init__(self, ray: Any) -> None:
        self.version = ray.__version__
        self._get = ray.get

        def noop(*before: int) -> int:  # local, so that it travels by value
            return 1 + max(before, default=0)

        self._noop = ray.remote(num_cpus=1)(noop).remote

    def prepare(self, shape: Shape, size: int) -> Action:
        return graph_of(self._noop, self._get, shape, size)


@contextmanager
def open_peer(workers: int, folder: Path) -> Iterator[Ray]:
    """See peer.Opener."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
    ray: Any = import_module("ray")
    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=_STORE_BYTES,
        _temp_dir=str(folder),
    )
    try:
        peer = Ray(ray)
        peer.prepare("fan_out", 100)()
        yield peer
    finally:
        ray.shutdown()
