"""A process that cleans up after a benchmark, however that ends: `python -m bench.guard FOLDER`.

It reads lines until its standard input ends, which it also does when the benchmark is killed: `mount PATH` and `netns
NAME` name what was made besides processes. Then it kills every process whose ASTERISM_HOME lies in FOLDER, undoes
those, and removes FOLDER. Invariant: it touches nothing that FOLDER or a line doesn't name. It knows no benchmark.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import psutil

_ROUNDS: Final = 5
"""Processes may start others while they are being killed."""


class Guard:
    """The benchmark's end of it; `folder` is where everything belongs."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self._process = process

    def note(self, kind: str, name: str) -> None:
        """Tell of a `mount` or `netns` before it is made."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {name}\n".encode())
        self._process.stdin.flush()


@contextlib.contextmanager
def guarded(prefix: str) -> Iterator[Guard]:
    """A fresh folder; at the end nothing of it is left, and nothing that was started in it lives."""
    folder = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    argv = [sys.executable, "-P", "-m", "bench.guard", str(folder)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    try:
        yield Guard(folder, process)
    finally:
        process.stdin.close()
        process.wait()


def clean_up(folder: Path, told: Sequence[Sequence[str]]) -> None:
    """Kill, unmount, remove."""
    for _ in range(_ROUNDS):
        living = [one for one in psutil.process_iter() if _belongs(one, folder)]
        for one in living:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(living, timeout=3.0)
        if not living:
            break
    undo = {"mount": ["umount", "--lazy"], "netns": ["ip", "netns", "delete"]}
    for kind, name in told:
        subprocess.run([*undo[kind], name], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _belongs(process: psutil.Process, folder: Path) -> bool:
    try:
        home = process.environ().get("ASTERISM_HOME", "")
    except (psutil.Error, OSError):
        return False
    return process.pid != os.getpid() and Path(home).is_relative_to(folder)


def main() -> None:
    for what in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(what, signal.SIG_IGN)  # the end of the benchmark is what counts
    told = [line.split(maxsplit=1) for line in sys.stdin.read().splitlines()]
    clean_up(Path(sys.argv[1]), told)


if __name__ == "__main__":
    main()
