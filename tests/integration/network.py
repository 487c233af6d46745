"""A second machine on this one: a network namespace with addresses of its own, joined to us by a cable (veth).

Only root can make one; `available` says why not. What is made is removed, whatever happens in between.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Cable(NamedTuple):
    """`here` and `there` are the addresses of the two ends; start commands of the far end with `prefix`."""

    here: str
    there: str
    prefix: tuple[str, ...]


def available() -> str:
    """Empty, or why there can be none."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "network namespaces need root and the ip command"
    name = f"ast-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made.stderr.strip()


@contextmanager
def cable() -> Iterator[Cable]:
    """A far end named by this process, on addresses that are kept for tests (RFC 2544)."""
    number = os.getpid() % 16000
    space, near, far = f"ast-{os.getpid()}", f"ast{number}a", f"ast{number}b"
    here, there = (f"198.18.{number // 64}.{number % 64 * 4 + one}" for one in (1, 2))
    inside = ("ip", "netns", "exec", space)
    _run("ip", "netns", "add", space)
    try:
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", space)
        _run("ip", "addr", "add", f"{here}/30", "dev", near)
        _run("ip", "link", "set", near, "up")
        for command in (
            ("addr", "add", f"{there}/30", "dev", far),
            ("link", "set", far, "up"),
            ("link", "set", "lo", "up"),
        ):
            _run(*inside, "ip", *command)
        yield Cable(here, there, inside)
    finally:
        subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", near], capture_output=True, check=False)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
