"""Dask distributed: a scheduler, worker processes of one thread, and this process as the client."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from .futures import graph_of
from .peer import Action
from .shape import Shape


class Dask:
    """See the module."""

    def __init__(self, client: Any, version: str) -> None:
        self.version = version
        self._client = client

    def prepare(self, shape: Shape, size: int) -> Action:
        def noop(*before: int) -> int:  # local, so that it travels by value
            return 1 + max(before, default=0)

        client = self._client
        if shape == "fan_out":
            return lambda: sum(client.gather(client.map(noop, [0] * size, pure=False)))
        return graph_of(lambda *before: client.submit(noop, *before, pure=False), client.gather, shape, size)


@contextmanager
def open_peer(workers: int, folder: Path) -> Iterator[Dask]:
    """See peer.Opener."""
    distributed: Any = import_module("distributed")
    file = folder / "scheduler.json"
    processes: list[subprocess.Popen[bytes]] = []

    def run(*argv: str) -> None:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", *argv], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )

    local = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file))
    try:
        run("distributed.cli.dask_scheduler", "--port", "0", *local)
        for at in range(workers):
            part = ("--nworkers", "1", "--nthreads", "1", "--no-nanny", "--local-directory", str(folder / f"w{at}"))
            run("distributed.cli.dask_worker", *local, *part)
        while not os.path.exists(file):
            if processes[0].poll() is not None:
                raise SystemExit("the scheduler of Dask did not start")
            time.sleep(0.02)
        with distributed.Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(workers)
            peer = Dask(client, distributed.__version__)
            peer.prepare("fan_out", 50)()
            yield peer
    finally:
        for process in processes:
            process.kill()
            process.wait()
