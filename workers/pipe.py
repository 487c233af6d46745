"""What the daemon, its launcher and its hosts say to each other: length-prefixed msgpack over socket pairs.

Invariant: every message is one of the structs below; nothing is ever pickled. It knows no process and no link.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from protocol.errors import WireError
from protocol.frame import Assign
from protocol.ids import AttemptId
from protocol.outcome import Outcome, Usage
from protocol.skill import Level, SkillSpec

from .model import Access
from .root import Root
from .sandbox import Found


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    pass


# Daemon to launcher (each Launch carries three descriptors: pipe, stdout, stderr), and back


class Launch(_Message, frozen=True):
    """Fork a host, held by as much of `level` as holds here. With `argv` the host is that program (bubblewrap).

    `memory_bytes` 0 means no limit of its own.
    """

    host: int
    memory_bytes: int = 0
    level: Level = "process"
    argv: tuple[str, ...] = ()


class Signal(_Message, frozen=True):
    """To the whole process group of the host."""

    host: int
    number: int


class Tried(_Message, frozen=True):
    """First word of a launcher: which sandbox levels hold here."""

    found: Found


class Launched(_Message, frozen=True):
    host: int
    pid: int


class Exited(_Message, frozen=True):
    """The host and everything in its process group is gone. `status` is an exit code, negative for a signal."""

    host: int
    status: int


# Daemon to host


class Setup(_Message, frozen=True):
    """First message: who this worker is and what to load. `shared`: the host of async skills, one for all of them.

    `access` is for the host of the skills that ask the worker's model, which loads no code of anybody else; `known`
    are the skills that an agent there may use.
    """

    worker: str
    skills: tuple[str, ...]
    roots: tuple[Root, ...]
    home: tuple[Root, ...]
    serves: str = ""
    shared: bool = False
    access: Access | None = None
    known: tuple[SkillSpec, ...] = ()


class Begin(_Message, frozen=True):
    """Run the attempt. `paths`: where each artifact that it names lies on this machine. `secrets`: by name."""

    assign: Assign
    paths: dict[str, str]
    folder: str
    run_folder: str
    environment: dict[str, str] = {}
    secrets: dict[str, str] = {}


class Stop(_Message, frozen=True):
    """Cancel one attempt of a host that no signal is meant for: a shared one, or one in namespaces of its own."""

    attempt: AttemptId


class Answered(_Message, frozen=True):
    attempt: AttemptId
    k: int
    value: bytes
    error: bytes = b""


class Fetched(_Message, frozen=True):
    """Answer to Fetch: `path`, or why not."""

    attempt: AttemptId
    digest: str
    path: str = ""
    code: str = ""
    message: str = ""


# Host to daemon


class Described(msgspec.Struct, frozen=True, array_like=True):
    """A skill as the host has loaded it. `source`: which entry of Setup.skills it came from, "" for a built-in."""

    spec: SkillSpec
    is_async: bool = False
    source: str = ""


class Loaded(_Message, frozen=True):
    """Answer to Setup; `error` is a wire error as JSON, empty when all could be loaded."""

    skills: tuple[Described, ...]
    error: bytes = b""


class Line(_Message, frozen=True):
    """Output of an attempt in a shared host; others write to their own stdout and stderr."""

    attempt: AttemptId
    stream: str
    text: str


class Noted(_Message, frozen=True):
    """Progress: JSON."""

    attempt: AttemptId
    body: bytes


class Asking(_Message, frozen=True):
    attempt: AttemptId
    k: int
    what: str
    body: bytes


class Fetch(_Message, frozen=True):
    """The attempt needs an artifact that its arguments name by digest."""

    attempt: AttemptId
    digest: str


class Finished(_Message, frozen=True):
    """The attempt ended. `spill`: the file that holds the value an ArtifactRef outcome names. `issued`: its files."""

    attempt: AttemptId
    outcome: Outcome
    usage: Usage
    spill: str = ""
    issued: tuple[str, ...] = ()


ToHost = Setup | Begin | Stop | Answered | Fetched
FromHost = Loaded | Line | Noted | Asking | Fetch | Finished
ToLauncher = Launch | Signal
FromLauncher = Tried | Launched | Exited

TO_HOST: Final[msgspec.msgpack.Decoder[ToHost]] = msgspec.msgpack.Decoder(ToHost)
FROM_HOST: Final[msgspec.msgpack.Decoder[FromHost]] = msgspec.msgpack.Decoder(FromHost)
TO_LAUNCHER: Final[msgspec.msgpack.Decoder[ToLauncher]] = msgspec.msgpack.Decoder(ToLauncher)
FROM_LAUNCHER: Final[msgspec.msgpack.Decoder[FromLauncher]] = msgspec.msgpack.Decoder(FromLauncher)
_ENCODER: Final = msgspec.msgpack.Encoder()
_HEAD: Final = 4
MOST_BYTES: Final = 16 * 1024 * 1024
"""Of one message. The description of all skills of a worker is the largest."""


def pack(message: _Message) -> bytes:
    body = _ENCODER.encode(message)
    return len(body).to_bytes(_HEAD, "little") + body


class Unpacker:
    """Bytes in, whole messages out, however the bytes were cut. It holds no more than one message of MOST_BYTES."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Raises: WireError, and nothing else: the far side is no sound process any more."""
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= _HEAD:
            size = int.from_bytes(buffer[at : at + _HEAD], "little")
            if size > MOST_BYTES:
                raise WireError(f"a message of {size} bytes, {MOST_BYTES} are allowed")
            end = at + _HEAD + size
            if len(buffer) < end:
                break
            try:
                message = self._decoder.decode(memoryview(buffer)[at + _HEAD : end].tobytes())
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise WireError(f"no message: {error}") from None
            yield message
            at = end
        del buffer[:at]


def receive(sock: socket.socket, decoder: Any) -> Any | None:
    """One message from a blocking socket, None at its end."""
    head = _exactly(sock, _HEAD)
    body = _exactly(sock, int.from_bytes(head, "little")) if head else None
    return None if body is None else decoder.decode(body)


def _exactly(sock: socket.socket, count: int) -> bytes | None:
    parts = []
    while count:
        part = sock.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
