"""The launcher: a process without gRPC and without threads that forks skill hosts for the daemon.

Started before the daemon's first channel, because a process with gRPC inside must not fork. It imports what hosts
need once, so a host costs a fork. Invariant: `Exited` is said only when the host and its whole process group are
gone; when the daemon goes, by whatever death, everything here goes with it. It knows no attempt.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from typing import Final

from . import sandbox
from .host import serve
from .pipe import TO_LAUNCHER, Exited, Launch, Launched, Signal, Unpacker, pack

_GROUP_DEADLINE_S: Final = 5.0


class Launcher:
    """The loop of the launcher process."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
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
        gc.collect()
        gc.freeze()
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(wake_out, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select(0.02 if self._leaving else None)}
                if wake_out in ready:
                    with contextlib.suppress(BlockingIOError):
                        wake_out.recv(4096)
                if self._control in ready and not self._read((wake_out, wake_in, selector)):
                    break
                self._reap()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pid in self._hosts:
            _signal_group(pid, signal.SIGKILL)

    def _read(self, inherited: tuple[socket.socket, socket.socket, selectors.BaseSelector]) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, 65536, 64)
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
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in inherited:
                    one.close()
                self._control.close()
                sandbox.enter(parent, message.memory_bytes)
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
        self._say(pack(Launched(message.host, pid)))

    def _reap(self) -> None:
        """Collect the dead. A host's group is killed while its leader's number can't yet have been given anew."""
        while (found := _dead()) is not None:
            pid, status = found
            host = self._hosts.pop(pid, None)
            if host is not None:
                self._leaving[host] = (pid, os.waitstatus_to_exitcode(status), time.monotonic() + _GROUP_DEADLINE_S)
        for host, (pid, code, deadline) in list(self._leaving.items()):
            if time.monotonic() > deadline or not _group_exists(pid):
                del self._leaving[host]
                del self._pids[host]
                self._say(pack(Exited(host, code)))

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
    sys.stdout, sys.stderr = _text(1), _text(2)
    with socket.socket(fileno=pipe) as sock:
        return serve(sock)


def _text(descriptor: int) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="replace", line_buffering=True)


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
    """`python -m workers.launcher FD`: the daemon's end is a socket pair inherited under that number."""
    sys.path.append(os.getcwd())  # last: skills are found by module name, and hide nothing of ours
    with socket.socket(fileno=int(sys.argv[1])) as control:
        Launcher(control).run()


if __name__ == "__main__":
    main()
