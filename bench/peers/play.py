"""Plays one peer, in the environment where that is installed: `python -P play.py NAME WORKERS FOLDER`.

Told a graph by a line on stdin, `fan_out 10000`, it answers with the seconds that the peer took, as a line of JSON. It
is run by its path, without Asterism on the path: the package is loaded under a name of its own, so that a module called
`dask` here doesn't hide the real one.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any


def main(name: str, workers: int, folder: Path) -> None:
    package = types.ModuleType("peers")
    package.__path__ = [str(Path(__file__).parent)]
    sys.modules["peers"] = package
    shape: Any = importlib.import_module("peers.shape")
    module: Any = importlib.import_module(f"peers.{name}")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the peer prints is not an answer
    start = time.perf_counter()
    with module.open_peer(workers, folder) as peer:
        answers.write(json.dumps({"version": peer.version, "start_s": time.perf_counter() - start}) + "\n")
        for line in sys.stdin:
            kind, size = line.split()
            action = peer.prepare(kind, int(size))
            gc.collect()
            start = time.perf_counter()
            found = action()
            taken = time.perf_counter() - start
            if found != shape.result_of(kind, int(size)):
                raise SystemExit(f"{name} gave {found} for {kind} {size}")
            answers.write(json.dumps({"seconds": taken}) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
