"""The strictest cell: a program that sees a read-only system, its own folder and what it was given, and no network.

Namespaces of its own for users, processes, IPC, host name and (unless declared) network, made by `bwrap`. Invariant:
nothing of the person's home and nothing of this worker's folder is inside but what `binds` names; no variable of the
environment but the few listed here. Pure apart from looking at which system folders there are.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from glob import glob
from typing import Final

import msgspec

from .address import VARIABLE as ALLOWED

PIPE: Final = 3
"""The descriptor under which a host inside finds its pipe."""
NOBODY: Final = "65534"
_TOP: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SYSTEM: Final = ("/usr", "/opt", "/nix/store")
_ETC: Final = (
    "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime",
    "/etc/mime.types", "/etc/ssl/openssl.cnf",
)  # fmt: skip
_NETWORK: Final = (
    "/etc/ca-certificates", "/etc/host.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/pki", "/etc/resolv.conf",
    "/etc/services", "/etc/ssl",
)  # fmt: skip
_KEPT: Final = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", ALLOWED)
_CARDS: Final = ("/dev/nvidia*", "/dev/dri", "/dev/kfd")


class Bind(msgspec.Struct, frozen=True):
    """A path of this machine that is there inside under the same name."""

    path: str
    writable: bool = False


def program() -> str:
    """Where bwrap is, "" if it is not installed."""
    return shutil.which("bwrap") or ""


def wrapped(
    argv: Iterable[str],
    folder: str,
    binds: Iterable[Bind] = (),
    *,
    code: Iterable[str] = (),
    masks: Iterable[str] = (),
    network: bool = False,
    cards: bool = False,
    environment: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The whole command line. `folder` is where it starts and what it takes for its home.

    `code` is read-only, like what this interpreter needs. `masks` are folders that must be empty inside, should they
    lie below any of that; `binds` come after them. Secrets never stand here: a command line is readable by everybody.
    """
    words = [program(), "--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--cap-drop", "ALL", "--uid", NOBODY, "--gid", NOBODY, "--clearenv"]
    words += [] if network else ["--unshare-net"]
    words += _system(network)
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp"]
    inside = [path for path in (*_python_folders(), *code) if not _below(path, _SYSTEM)]
    for path in inside:
        words += ["--ro-bind-try", path, path]
    for mask in masks:
        if _below(mask, inside):
            words += ["--tmpfs", mask]
    for bind in binds:
        words += ["--bind" if bind.writable else "--ro-bind", bind.path, bind.path]
    if cards:
        for pattern in _CARDS:
            for path in glob(pattern):
                words += ["--dev-bind-try", path, path]
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": folder, "TMPDIR": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    for name, value in {**kept, **base, **(environment or {})}.items():
        words += ["--setenv", name, value]
    return (*words, "--remount-ro", "/", "--chdir", folder, "--", *argv)


def _system(network: bool) -> list[str]:
    words: list[str] = []
    for path in (*_SYSTEM, *_ETC, *(_NETWORK if network else ())):
        words += ["--ro-bind-try", path, path]
    for name in _TOP:
        top = f"/{name}"
        if os.path.islink(top):
            words += ["--symlink", os.readlink(top), top]
        elif os.path.isdir(top):
            words += ["--ro-bind", top, top]
    return words


def _python_folders() -> list[str]:
    """What this interpreter and its packages need: its prefixes and every folder they are imported from."""
    paths = [sys.base_prefix, sys.prefix, *sys.path]
    found = dict.fromkeys(os.path.abspath(path) for path in paths if path and os.path.exists(path))
    return [path for path in found if not any(other != path and _below(path, (other,)) for other in found)]


def _below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
