"""HyperQueue: its server and workers of one core as threads of one process; each task is a process, `/bin/true`.

The end is seen by a last task that touches a file, since the client's own wait looks once a second.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .peer import Action
from .shape import Shape, result_of, upstreams

_LOOK_S = 0.0005


class HyperQueue:
    """See the module."""

    def __init__(self, client: Any, folder: Path) -> None:
        self.version = version("hyperqueue")
        self._client = client
        self._folder = folder
        self._job: Any = import_module("hyperqueue").Job

    def prepare(self, shape: Shape, size: int) -> Action:
        def run() -> int:
            job = self._job(str(self._folder))

            def add(before: Sequence[Any] = ()) -> Any:
                return job.program(["/bin/true"], deps=list(before), stdout=None, stderr=None)

            last: list[Any] = []
            if shape == "fan_out":
                last = [add() for _ in range(size)]
            elif shape == "chain":
                for _ in range(size):
                    last = [add(last)]
            else:
                for layer in range(size):
                    last = [add([last[up] for up in upstreams(at, size)] if layer else ()) for at in range(size)]
            self._finish(job, last)
            return result_of(shape, size)  # its tasks give nothing: that they have run is all there is to see

        return run

    def _finish(self, job: Any, last: Sequence[Any]) -> None:
        mark = self._folder / "mark"
        mark.unlink(missing_ok=True)
        job.program(["/bin/touch", str(mark)], deps=list(last), stdout=None, stderr=None)
        self._client.submit(job)
        while not mark.exists():
            time.sleep(_LOOK_S)


@contextmanager
def open_peer(workers: int, folder: Path) -> Iterator[HyperQueue]:
    """See peer.Opener."""
    logging.disable(logging.CRITICAL)
    os.chdir(folder)
    cluster: Any = import_module("hyperqueue.cluster")
    inside: Any = import_module("hyperqueue.client")
    inside.create_progress_callback = lambda: lambda *_: None
    with cluster.LocalCluster(server_dir=str(folder / "server")) as local:
        for _ in range(workers):
            local.start_worker(cluster.WorkerConfig(cores=1))
        peer = HyperQueue(local.client(), folder)
        peer.prepare("fan_out", 20)()
        yield peer
