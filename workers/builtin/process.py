"""Built-in skill process.run, and the running of one program that command skills share.

An argument list, never a shell string. The program belongs to the process group of its skill host, so that a cancel
reaches everything it has started; where the caller leads no group of its own, the program gets one.
Invariant: output is capped while it is read, and when the run is over its process is gone.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, TypedDict

from protocol.builtin import BY_NAME
from protocol.errors import SkillFailed, UsageError
from workers.context import SkillContext
from workers.file import File
from workers.redaction import is_secret_variable
from workers.skill import skill

from .glob import matcher

MAX_OUTPUT_BYTES: Final = 1024 * 1024
MAX_COLLECTED: Final = 10_000
_TAIL_CHARS: Final = 2000
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Ran(TypedDict):
    exit: int
    stdout: str
    stderr: str
    files: list[File]


@skill(spec=BY_NAME["process.run"])
def run(
    ctx: SkillContext,
    argv: list[File | str],
    stdin: str = "",
    cwd: str = "",
    ok: Sequence[int] = (0,),
    collect: Sequence[str] = (),
    env: dict[str, str] | None = None,
) -> Ran:
    """Fails if the exit status is none of `ok`, with the end of what it wrote to stderr."""
    return run_process(ctx, [str(word) for word in argv], stdin=stdin, cwd=cwd, ok=ok, collect=collect, env=env)


def run_process(
    ctx: SkillContext,
    argv: Sequence[str],
    *,
    stdin: str = "",
    cwd: str = "",
    ok: Sequence[int] = (0,),
    collect: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Ran:
    """Runs a program to its end in `cwd` (below the roots), else in the attempt's own folder.

    Raises: UsageError when there is no such program or folder; SkillFailed for an exit status not in `ok`.
    """
    if not argv or not argv[0] or any("\0" in word for word in argv):
        raise UsageError("argv is no command", hint='give the program and its arguments: ["wc", "-l", "a.txt"]')
    if any(map(ctx.holds_secret, argv)):
        raise UsageError(
            "a secret would stand in the command line, where everybody can read it", hint="hand it over by env or stdin"
        )
    if bad := [name for name in env or () if _NAME.fullmatch(name) is None or "\0" in (env or {})[name]]:
        raise UsageError(f"{bad[0]!r} is no variable of an environment", hint="letters, digits and _")
    folder = Path(ctx.roots.allow(cwd)) if cwd else ctx.folder
    environment = clean_environment(os.environ) | dict(env or {})
    program = shutil.which(argv[0], path=environment.get("PATH")) if "/" not in argv[0] else argv[0]
    if program is None:
        raise UsageError(f"there is no program {argv[0]!r} on {ctx.worker}", hint="install it there, or give its path")
    own_group = os.getpgrp() != os.getpid()
    try:
        child = subprocess.Popen(
            [program, *argv[1:]],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0 if own_group else None,
        )
    except OSError as error:
        raise UsageError(f"{argv[0]} can't be started: {error.strerror}", hint="check the path and its mode") from error
    with child:
        try:
            status, out, err = _drive(child, stdin)
        except BaseException:
            _end(child, own_group)
            raise
        _end(child, own_group)
    result = Ran(exit=status, stdout=out, stderr=err, files=_collected(folder, collect))
    if status not in ok:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        tail = (err or out)[-_TAIL_CHARS:].strip()
        raise SkillFailed(f"{Path(argv[0]).name} {how}" + (f": {tail}" if tail else ""), hint="add the status to ok")
    return result


def _drive(child: subprocess.Popen[bytes], stdin: str) -> tuple[int, str, str]:
    """Feeds and reads all three streams at once, each by a thread of its own, and waits for the exit."""
    kept = {"out": _Kept(), "err": _Kept()}
    pumps = [
        threading.Thread(target=kept["out"].drain, args=(child.stdout,), daemon=True),
        threading.Thread(target=kept["err"].drain, args=(child.stderr,), daemon=True),
    ]
    if stdin:
        pumps.append(threading.Thread(target=_feed, args=(child.stdin, stdin.encode()), daemon=True))
    for pump in pumps:
        pump.start()
    status = child.wait()
    # A grandchild may keep the pipes open: what the program itself wrote is there by now.
    for pump in pumps:
        pump.join(timeout=2.0)
    return status, kept["out"].text(), kept["err"].text()


class _Kept:
    """The beginning and the end of a stream of any length."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def drain(self, stream: IO[bytes]) -> None:
        half = MAX_OUTPUT_BYTES // 2
        while block := os.read(stream.fileno(), 65536):
            room = half - len(self._head)
            self._head += block[: max(room, 0)]
            self._tail += block[max(room, 0) :]
            if len(self._tail) > 2 * half:
                self._dropped += len(self._tail) - half
                del self._tail[: len(self._tail) - half]

    def text(self) -> str:
        half = MAX_OUTPUT_BYTES // 2
        dropped = self._dropped + max(len(self._tail) - half, 0)
        tail = bytes(self._tail[-half:])
        middle = f"\n... {dropped} bytes left out ...\n".encode() if dropped else b""
        return (bytes(self._head) + middle + tail).decode("utf-8", "replace")


def _feed(stream: IO[bytes], data: bytes) -> None:
    try:
        with stream:
            stream.write(data)
    except BrokenPipeError:
        pass  # it did not want all of it; its exit status says whether that is a fault


def _end(child: subprocess.Popen[bytes], own_group: bool) -> None:
    """Nothing of it stays: the rest of its group, if it had one, or the process itself."""
    if own_group:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    elif child.poll() is None:
        child.kill()


def _collected(folder: Path, patterns: Sequence[str]) -> list[File]:
    if not patterns:
        return []
    wanted = matcher(patterns)
    found: list[File] = []
    for top, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(top, name)
            if wanted(path.relative_to(folder).as_posix()) and path.is_file() and not path.is_symlink():
                found.append(File(path))
            if len(found) >= MAX_COLLECTED:
                raise SkillFailed(f"collect matches more than {MAX_COLLECTED} files", hint="pack them first")
    return found


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without secrets and without our own settings: programs get theirs by argument or file."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("ASTERISM_") and not is_secret_variable(name)
    }
