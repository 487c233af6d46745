"""Reach a server, or be one: grpc.aio behind the ports of protocol/port.py.

With protocol/grpc_*.py the only asyncio-bound part; each process uses one loop for it. All seen in the wild: a call
that is abandoned is never collected; a peer frozen by SIGSTOP is noticed only with `ping_timeout_ms`; a server that
stops waits its whole grace while a stream is open, so send Bye first. Without TLS both ends refuse to leave this
machine: the credential would travel in clear. With it each end trusts the server's own CA and nobody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from .authority import Authority
from .door import Door
from .errors import NotAllowed
from .grpc_client import GrpcChannel
from .grpc_server import SESSION_S, GrpcServer
from .port import Authenticate, Channel, Server, Services
from .security import Tls, is_loopback


@asynccontextmanager
async def dial(target: str, credential: str, edge: bool = False, tls: Tls | None = None) -> AsyncIterator[Channel]:
    """A channel to the server at `HOST:PORT`. Nothing is sent before the first call.

    Args:
        credential: A secret; empty where the certificate of `tls` says it all.
        tls: The CA to trust, and who we are. Without it the link stays on this machine.

    Raises: NotAllowed for an address off this machine without `tls`: the credential would travel in clear.
    """
    if tls is None and not is_loopback(target):
        raise NotAllowed(
            f"{target} is another machine and the link has no TLS", hint="asterism connect, with a join string"
        )
    channel = GrpcChannel(target, credential, edge, tls)
    try:
        yield channel
    finally:
        with anyio.CancelScope(shield=True):
            await channel.aclose()


async def serve(
    listen: str,
    services: Services,
    authenticate: Authenticate,
    *,
    edge: bool = False,
    authority: Authority | None = None,
    session_s: float = SESSION_S,
    door: Door | None = None,
) -> Server:
    """Listen on `HOST:PORT` (port 0: any free one, see `.port`) and serve until `aclose`.

    Args:
        authority: Serve with TLS, as this authority; every peer has a certificate of its, or is a stranger.
        session_s: How old a stream may grow before its peer is told to open another.
        door: Hears of everybody who was refused.

    Raises: NotAllowed for an address that other machines reach without TLS; Unavailable for a port in use.
    """
    if authority is None and not is_loopback(listen):
        raise NotAllowed(
            f"{listen} can be reached from other machines and the link has no TLS",
            hint="listen on 127.0.0.1:PORT (other machines can come in through an SSH tunnel)",
        )
    server = GrpcServer(services, authenticate, edge, authority, session_s, door)
    await server.start(listen)
    return server
