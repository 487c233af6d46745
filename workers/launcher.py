"""The launcher: a process without gRPC and without threads that forks skill hosts for the daemon.

Started before the daemon's first channel, because a process with gRPC inside must not fork. It imports what hosts
need once, so a host costs a fork; one in bubblewrap costs an interpreter. The modules of built-in skills are imported
while nobody asks for anything. Invariant: `Exited` is said only when the
host, its process group, its control group and whoever left both are gone; when the daemon goes, by whatever death,
everything here goes with it. It knows no attempt.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from typing import Final

from protocol.skill import holds

from . import sandbox
from .bubblewrap import PIPE
from .cgroup import Group, Groups
from .host import serve
from .pipe import TO_LAUNCHER, Exited, Launch, Launched, Signal, Tried, Unpacker, pack

_GROUP_DEADLINE_S: Final = 3.0
_FAMILIES: Final = ("fs", "file", "data", "text", "sys", "report", "process")
"""Built-in skills that run in hosts of their own. Each host would import them anew: milliseconds before its first task
of each family, stretched on a slow machine. What large libraries come with (http) and what runs in shared hosts stays
out."""


class Launcher:
    """The loop of the launcher process."""

    def __init__(self, control: socket.socket, tag: str) -> None:
        self._control = control
        self._tag = tag
        self._groups: Groups | None = None
        self._group_of: dict[int, Group] = {}
        self._pids: dict[int, int] = {}
        self._hosts: dict[int, int] = {}
        self._leaving: dict[int, tuple[int, int, float]] = {}
        self._descriptors: list[int] = []
        self._unpacker = Unpacker(TO_LAUNCHER)

    def run(self) -> None:
        """Returns when the daemon has closed its end; everything it started is killed then."""
        sandbox.adopt_orphans()
        wake_out, wake_in = socket.socketpair()
        for end in (wake_out, wake_in):
            end.setblocking(False)
        signal.set_wakeup_fd(wake_in.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        found, self._groups = sandbox.find(self._tag)
        self._say(pack(Tried(found)))
        gc.collect()
        gc.freeze()
        families = [*reversed(_FAMILIES)]
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(wake_out, selectors.EVENT_READ)
            while True:
                patience = 0.0 if families else 0.02 if self._leaving else None
                ready = {key.fileobj for key, _ in selector.select(patience)}
                if families and not ready:
                    with contextlib.suppress(ImportError):  # whoever uses it is told
                        importlib.import_module(f"workers.builtin.{families.pop()}")
                    if not families:
                        gc.freeze()
                if wake_out in ready:
                    with contextlib.suppress(BlockingIOError):
                        wake_out.recv(4096)
                if self._control in ready and not self._read((wake_out, wake_in, selector)):
                    break
                self._reap()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._end()

    def _end(self) -> None:
        for pid in self._hosts:
            _signal_group(pid, signal.SIGKILL)
        deadline = time.monotonic() + _GROUP_DEADLINE_S
        while time.monotonic() < deadline:
            swept = self._groups is None or self._groups.remove()
            while (found := _dead()) is not None:
                self._hosts.pop(found[0], None)
            strays = sandbox.strays(self._hosts)  # only now: the death of a host is what makes them ours
            for pid in strays:
                _kill(pid)
            if swept and not strays and not self._hosts:
                break
            time.sleep(0.002)

    def _read(self, inherited: tuple[socket.socket, socket.socket, selectors.BaseSelector]) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 65536, 64)
        except ConnectionResetError:  # the daemon ended with something of ours unread
            return False
        if not data:
            return False
        self._descriptors += descriptors
        for message in self._unpacker.feed(data):
            if isinstance(message, Launch):
                mine, self._descriptors = self._descriptors[:3], self._descriptors[3:]
                self._launch(message, mine, inherited)
            elif isinstance(message, Signal) and message.host in self._pids:
                self._signal(self._pids[message.host], message.number)
        return True

    def _signal(self, pid: int, number: int) -> None:
        host = self._hosts.get(pid)
        if number == signal.SIGKILL and host in self._group_of:
            self._group_of[host].kill()
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            if pid in self._hosts:  # forked, but not yet in a session of its own
                os.kill(pid, number)

    def _launch(
        self,
        message: Launch,
        descriptors: list[int],
        inherited: tuple[socket.socket, socket.socket, selectors.BaseSelector],
    ) -> None:
        parent = os.getpid()
        group = self._group(message)
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in inherited:
                    one.close()
                self._control.close()
                for descriptor in self._descriptors:
                    os.close(descriptor)  # of the host that is launched next
                sandbox.enter(parent, message.memory_bytes, message.level, group)
                if message.argv:
                    _become_program(message.argv, *descriptors)
                status = _become_host(*descriptors)
            except Exception:  # noqa: BLE001 - a forked child must never return into the launcher's loop
                traceback.print_exc()
            finally:
                with contextlib.suppress(OSError, ValueError):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(status)
        for descriptor in descriptors:
            os.close(descriptor)
        self._pids[message.host] = pid
        self._hosts[pid] = message.host
        if group is not None:
            self._group_of[message.host] = group
        self._say(pack(Launched(message.host, pid)))

    def _group(self, message: Launch) -> Group | None:
        if self._groups is None or not holds(message.level, "cgroup"):
            return None
        with contextlib.suppress(OSError):
            return self._groups.group(f"host-{message.host}", message.memory_bytes)
        return None

    def _reap(self) -> None:
        """Collect the dead. A host's group is killed while its leader's number can't yet have been given anew.

        What left its process group became a child of the host, and when that died a child of ours: a stray.
        """
        while (found := _dead()) is not None:
            pid, status = found
            host = self._hosts.pop(pid, None)
            if host is not None:
                self._leaving[host] = (pid, os.waitstatus_to_exitcode(status), time.monotonic() + _GROUP_DEADLINE_S)
        if not self._leaving:
            return
        strays = sandbox.strays(self._hosts)
        for stray in strays:
            _kill(stray)
        for host, (pid, code, deadline) in list(self._leaving.items()):
            group = self._group_of.get(host)
            if group is not None:
                group.kill()
            if time.monotonic() > deadline or self._is_gone(pid, group, strays):
                del self._leaving[host]
                del self._pids[host]
                if group is not None:
                    del self._group_of[host]
                    group.remove()
                self._say(pack(Exited(host, code)))

    @staticmethod
    def _is_gone(pid: int, group: Group | None, strays: list[int]) -> bool:
        return not strays and not _group_exists(pid) and (group is None or group.is_empty())

    def _say(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(data)


def _become_host(pipe: int, out: int, err: int) -> int:
    with open(os.devnull, "rb") as null:
        os.dup2(null.fileno(), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    return serve(pipe)


def _become_program(argv: tuple[str, ...], pipe: int, out: int, err: int) -> None:
    """What runs inside finds its pipe under one fixed number, and nothing else of ours. Raises: OSError."""
    null = os.open(os.devnull, os.O_RDONLY)
    kept = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 2 * PIPE + 4) for descriptor in (null, out, err, pipe)]
    for number, descriptor in enumerate(kept):
        os.dup2(descriptor, number)
    os.closerange(PIPE + 1, 4096)
    os.execve(argv[0], argv, {})


def _dead() -> tuple[int, int] | None:
    """A child that ended, with its wait status; what is left of its group is killed first where that is possible."""
    try:
        if hasattr(os, "waitid"):
            seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if seen is None:
                return None
            _signal_group(seen.si_pid, signal.SIGKILL)
            return os.waitpid(seen.si_pid, 0)
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    if pid == 0:
        return None
    _signal_group(pid, signal.SIGKILL)
    return pid, status


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _group_exists(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main() -> None:
    """`python -m workers.launcher FD TAG`: the daemon's end of a socket pair, the name of its control groups."""
    sys.path.append(os.getcwd())  # last: skills are found by module name, and hide nothing of ours
    with socket.socket(fileno=int(sys.argv[1])) as control:
        Launcher(control, sys.argv[2]).run()


if __name__ == "__main__":
    main()
