"""A simulated network between workers and a server: a process that forwards TCP and can go silent, per direction.

`python -m bench.faults.simulated_cut HOST:PORT` reads commands on standard input and answers each with a line: `open
NAME` (a port for that worker), `cut NAME up|down|both`, `heal NAME`. `up` is from the worker to the server. A cut
direction is read no further, and nothing is closed: no end, no reset, no data passes, as when packets vanish. What it
can't show: the kernel's own acknowledgements still travel. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Final

_CHUNK: Final = 64 * 1024


class Way:
    """One worker's way to the server: a port here, two gates."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._gates = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._tasks: set[asyncio.Task[None]] = set()
        self.heal()

    async def open(self) -> int:
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def cut(self, direction: str) -> None:
        for name, gate in self._gates.items():
            if direction in (name, "both"):
                gate.clear()

    def heal(self) -> None:
        for gate in self._gates.values():
            gate.set()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._gates["up"].wait()  # a cut way is not connected either: nothing reaches the server
        await self._gates["down"].wait()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            self._pump(reader, far_writer, self._gates["up"]), self._pump(far_reader, writer, self._gates["down"])
        )

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await gate.wait()
                writer.write(data)
                await writer.drain()
        await gate.wait()
        with contextlib.suppress(OSError):
            writer.close()


async def main(target: str) -> None:
    host, _, port = target.rpartition(":")
    ways: dict[str, Way] = {}
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := (await commands.readline()).decode().split():
        match line:
            case ["open", name]:
                ways[name] = Way(host, int(port))
                answer = str(await ways[name].open())
            case ["cut", name, direction]:
                ways[name].cut(direction)
                answer = "cut"
            case ["heal", name]:
                ways[name].heal()
                answer = "healed"
            case _:
                answer = "unknown"
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
