"""A client that asks nothing while its server is started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio

from orchestrator.client.client import AsyncClient
from orchestrator.local import gone, start_server


def test_it_finds_the_new_server_behind_the_old_address(tmp_path: Path) -> None:
    environ = {**os.environ, "ASTERISM_HOME": str(tmp_path)}

    async def main() -> None:
        async with AsyncClient(environ=environ, home=False) as client:
            old = client.connection.endpoint
            os.kill(old.pid, signal.SIGKILL)
            await gone(old.pid)
            new = await start_server(environ, listen=old.address)
            try:
                assert (await client.connection.call("info"))["pid"] == new.pid != old.pid
            finally:
                os.kill(new.pid, signal.SIGKILL)

    anyio.run(main)
