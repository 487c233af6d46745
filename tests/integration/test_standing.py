"""What a worker daemon says of a server that it can't reach."""

from __future__ import annotations

import socket
from pathlib import Path

from protocol.security import Identity, save_identity
from tests.integration.test_command import Shell, end


def test_a_worker_whose_server_is_not_there_says_so_and_stays(tmp_path: Path) -> None:
    shell = Shell(tmp_path, tmp_path / "home")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and not listened at
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        save_identity(shell.home / "workers" / "lonely", Identity(1, "lonely", "secret", address))
        process = shell.start("worker", "start", "--name", "lonely", "--slots", "1")
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "worker lonely is up, 1 slots\n"
            said = process.stderr.readline()
            assert said.startswith(f"not connected, and trying on: {address} can't be reached")
            assert "refused" in said
            assert process.poll() is None
        finally:
            end(process)
