"""The launcher process, as its daemon sees it: a child with a control socket.

It is started before the daemon's first gRPC channel, without any secret in its environment. It knows no host.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys

from .secret import without_secrets


class Spawned:
    """The launcher process and the daemon's end of its control socket. Make it before the first gRPC channel."""

    def __init__(self, tag: str = "") -> None:
        """`tag` names this worker's control groups: what an earlier launcher of the same tag left is killed."""
        self.tag = tag or secrets.token_hex(4)
        self.control, theirs = socket.socketpair()
        environment = without_secrets(os.environ)
        environment["GRPC_ENABLE_FORK_SUPPORT"] = "0"
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "workers.launcher", str(theirs.fileno()), self.tag],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self.control.setblocking(False)

    def close(self) -> None:
        """The launcher sees its pipe end, kills what it started and goes."""
        self.control.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
