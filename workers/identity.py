"""Who this worker is: a name, a credential bought once, and a lock so that only one daemon uses it.

The credential is a secret, or over TLS a key with a certificate, which is renewed while the daemon lives. Kept 0600 in
`ASTERISM_HOME/workers/NAME`. A child of a local client gets its identity over the pipe and keeps none. Invariant: the
secret never leaves this module but towards the server; gRPC is not imported before it is used, since the launcher has
to start first. It knows no machine and no skill.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from protocol.certificate import digest, worn
from protocol.errors import AsterismError, NotAllowed, ServerUnreachable, UsageError, WireError
from protocol.json_bytes import read_json
from protocol.security import Identity, Join, Tls, load_identity, load_server, parse_join, save_identity

_LOOK_S: Final = 3600.0
_RETRY_S: Final = 1.0
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
            found: Identity = read_json(text, Identity)
            return found
        except WireError:
            raise UsageError("the line on stdin is no identity", hint="address, name, secret and worker") from None
    return parse_join(text)


class Credential:
    """How to reach the server: looked up anew at each dial, since a local server may come back on another port."""

    def __init__(self, home: Path, folder: Path, identity: Identity, kept: bool = True) -> None:
        self._home = home
        self._folder = folder
        self._kept = kept
        self.identity = identity
        self.journal = ""

    def address(self) -> str:
        server = load_server(self._home)
        if server is not None and self.journal and server.journal == self.journal:
            return server.address
        return self.identity.address

    async def stay_fresh(self) -> None:
        """Renew the certificate when half its life is over, and try again while the server is away."""
        from protocol.membership import due_s, renew
        from protocol.transport import dial

        while True:
            await anyio.sleep(min(_LOOK_S, max(due_s(self.identity.tls), _RETRY_S)))
            tls = self.identity.tls
            if tls is None or due_s(tls) > 0:
                continue
            try:
                async with dial(self.address(), "", tls=tls) as channel:
                    self.identity = msgspec.structs.replace(self.identity, tls=await renew(channel, tls))
            except (AsterismError, OSError):
                continue
            if self._kept:
                with contextlib.suppress(OSError):  # the old one is kept as long as the disk is full
                    save_identity(self._folder, self.identity)


async def obtain(home: Path, name: str, join: Join | Identity | None, serves: str = "") -> Credential:
    """The identity given, kept, or bought with the join token (or this machine's own server).

    Raises: ServerUnreachable when there is no server to join, NotAllowed when the token is not good.
    """
    from protocol.membership import trusting

    folder = home / "workers" / name
    if isinstance(join, Identity):
        return Credential(home, folder, join, kept=False)
    kept = load_identity(folder)
    if join is not None:
        if kept is not None and (join.ca or kept.address == join.address) and _good(kept, join.ca):
            if kept.address != join.address:  # the same authority elsewhere: the server has moved
                kept = msgspec.structs.replace(kept, address=join.address)
                save_identity(folder, kept)
            return Credential(home, folder, kept)
        return Credential(home, folder, await _enrol(folder, name, join, await trusting(join), serves, kept))
    server = load_server(home)
    if server is None:
        if kept is not None:
            return Credential(home, folder, kept)
        raise ServerUnreachable("there is no server on this machine", hint="asterism server start, or --join -")
    ours = (folder / "journal").is_file() and (folder / "journal").read_text() == server.journal
    if kept is not None and ours and _good(kept, digest(server.tls.ca) if server.tls is not None else ""):
        fresh = msgspec.structs.replace(kept, address=server.address)
        return Credential(home, folder, fresh)
    identity = await _enrol(folder, name, Join(server.address, server.token), server.tls, serves, kept)
    (folder / "journal").write_text(server.journal)
    return Credential(home, folder, identity)


def _good(kept: Identity, ca: str) -> bool:
    """Whether it fits the server that has this CA, and may still be used."""
    if kept.tls is None:
        return not ca
    return digest(kept.tls.ca) == ca and not worn(kept.tls.certificate, time.time(), 1.0)


async def _enrol(folder: Path, name: str, join: Join, tls: Tls | None, serves: str, kept: Identity | None) -> Identity:
    from protocol.membership import buy
    from protocol.transport import dial

    body: dict[str, Any] = {"name": name}
    if serves:
        body["serves"] = serves
    async with dial(join.address, join.token, tls=tls) as channel:
        before = kept.tls if kept is not None else None
        answer, bought = await buy(channel, "enroll", tls, before=before, **body)
    try:
        identity = Identity(answer["worker"], answer["name"], answer.get("secret", ""), join.address, bought)
    except (KeyError, TypeError):
        raise NotAllowed("the server did not answer with an identity", hint="is it the same version?") from None
    save_identity(folder, identity)
    return identity
