"""A systemd user unit that keeps this machine's worker running: `asterism worker install`.

Invariant: the unit holds no secret. The join string buys the identity now, which is kept 0600 as ever; without one the
worker finds this machine's own server at each start. Nothing is enabled here: the person does that, with the command
that is printed. It must not know what a worker does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from protocol.errors import UsageError

PASSED: Final = ("ASTERISM_HOME", "ASTERISM_DEBUG")
"""Variables that the worker must see as they are now; the rest of the environment is the session's."""


def unit_name(worker: str) -> str:
    return f"asterism-worker-{worker}.service"


def unit_path(name: str, environ: Mapping[str, str]) -> Path:
    """Where systemd looks for a person's own units."""
    config = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "systemd" / "user" / name


def unit_text(worker: str, arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """The unit file. SIGTERM drains; one that ended itself (a refusal) is not started again and again."""
    command = [sys.executable, "-P", "-m", "asterism", "worker", "start", "--name", worker, *arguments]
    variables = [f"Environment={quoted(f'{key}={environ[key]}', '$')}" for key in PASSED if environ.get(key)]
    lines = [
        "[Unit]",
        f"Description=Asterism worker {worker}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        f"ExecStart={' '.join(map(quoted, command))}",
        f"WorkingDirectory={str(Path.cwd()).replace('%', '%%')}",
        *variables,
        "Restart=on-failure",
        "RestartSec=2",
        "RestartPreventExitStatus=2 4",
        "KillMode=mixed",
        "Delegate=memory pids",
        "TimeoutStopSec=90",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def quoted(word: str, dollar: str = "$$") -> str:
    """One word of a unit file; in a command line `$` is written twice, elsewhere as it is.

    Raises: UsageError for what systemd can't be given.
    """
    if not word.isprintable():
        raise UsageError("a control character can't stand in a unit file", hint="name the folder or label otherwise")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", dollar)
    return f'"{escaped}"' if escaped != word or not word or " " in word or "'" in word or ";" in word else word


def write_unit(path: Path, text: str) -> None:
    """Raises: UsageError when it can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.chmod(path, 0o644)
    except OSError as error:
        raise UsageError(
            f"{path} can't be written: {error.strerror}", hint="use --print and put it where it belongs"
        ) from None
