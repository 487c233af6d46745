"""Who this worker is: a name, a credential bought once, and a lock so that only one daemon uses it.

Kept 0600 in `ASTERISM_HOME/workers/NAME`. A child of a local client gets its identity over the pipe and keeps none.
Invariant: the secret never leaves this module but towards the server. It knows no machine and no skill.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.errors import NotAllowed, ServerUnreachable, UsageError
from protocol.security import Identity, Join, load_identity, load_server, parse_join, save_identity

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def default_name() -> str:
    """The host's own name, made legal."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname().split(".")[0]).strip("-.")[:63] or "worker"


def check_name(name: str) -> str:
    """Raises: UsageError."""
    if _NAME.fullmatch(name) is None or name in ("here", "any", "all", "cpu", "gpu", "edge", "input"):
        raise UsageError(f"{name!r} can't name a worker", hint="letters, digits, - _ and . , not a word of `on`")
    return name


def parse_join_line(text: str) -> Join | Identity:
    """A join string, or the JSON line that a local client writes to its child.

    Raises: UsageError, never with the text itself: it is a secret.
    """
    text = text.strip()
    if text.startswith("{"):
        try:
            return msgspec.json.decode(text, type=Identity)
        except msgspec.MsgspecError:
            raise UsageError("the line on stdin is no identity", hint="address, name, secret and worker") from None
    return parse_join(text)


class Credential:
    """How to reach the server: looked up anew at each dial, since a local server may come back on another port."""

    def __init__(self, home: Path, folder: Path, identity: Identity) -> None:
        self._home = home
        self._folder = folder
        self.identity = identity
        self.journal = ""

    def address(self) -> str:
        server = load_server(self._home)
        if server is not None and self.journal and server.journal == self.journal:
            return server.address
        return self.identity.address


async def obtain(home: Path, name: str, join: Join | Identity | None, serves: str = "") -> Credential:
    """The identity given, kept, or bought with the join token (or this machine's own server token).

    Raises: ServerUnreachable when there is no server to join, NotAllowed when the token is not good.
    """
    folder = home / "workers" / name
    if isinstance(join, Identity):
        return Credential(home, folder, join)
    kept = load_identity(folder)
    server = load_server(home)
    if join is not None:
        if kept is not None and kept.address == join.address:
            return Credential(home, folder, kept)
        return Credential(home, folder, await _enrol(folder, name, join.address, join.token, serves))
    if server is None:
        if kept is not None:
            return Credential(home, folder, kept)
        raise ServerUnreachable("there is no server on this machine", hint="asterism server start, or --join -")
    if kept is not None and (folder / "journal").is_file() and (folder / "journal").read_text() == server.journal:
        fresh = msgspec.structs.replace(kept, address=server.address)
        return Credential(home, folder, fresh)
    identity = await _enrol(folder, name, server.address, server.token, serves)
    (folder / "journal").write_text(server.journal)
    return Credential(home, folder, identity)


async def _enrol(folder: Path, name: str, address: str, token: str, serves: str) -> Identity:
    from protocol.transport import dial

    body: dict[str, Any] = {"name": name}
    if serves:
        body["serves"] = serves
    async with dial(address, token) as channel:
        answer = msgspec.json.decode(await channel.invoke("enroll", msgspec.json.encode(body)))
    try:
        identity = Identity(answer["worker"], answer["name"], answer["secret"], address)
    except (KeyError, TypeError):
        raise NotAllowed("the server did not answer with an identity", hint="is it the same version?") from None
    save_identity(folder, identity)
    return identity
