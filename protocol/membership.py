"""How a worker or a client becomes a member of a server's fleet over TLS, stays one, and learns why it can't get in.

The order is the invariant: the CA is fetched unverified, its digest is compared with the join string's, and only then
does the token leave this machine, to a server that proved itself with that CA. The private key never leaves at all.
A handshake that fails shows as a plain loss of the connection; `why_refused` asks as a stranger, and says the reason.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio.to_thread
import msgspec

from . import certificate
from .errors import AsterismError, NotAllowed, ServerUnreachable, WireError
from .frame import PROTOCOL_VERSIONS
from .port import Channel
from .security import Join, Tls
from .transport import dial

DEADLINE_S: Final = 5.0


def trusted(join: Join) -> Tls | None:
    """What to dial a join string's server with: as a stranger who trusts its CA; None for a server without TLS.

    Blocks for a handshake. Raises: ServerUnreachable; NotAllowed when the CA is not the join string's.
    """
    if not join.ca:
        return None
    ca = certificate.authority_in(_chain(join.address), join.ca)
    if ca is None:
        raise NotAllowed(
            f"the server at {join.address} is not the one of this join string: its CA differs",
            hint="ask for a new join string; somebody may stand in between",
            ref="WrongAuthority",
        )
    return Tls(ca)


async def trusting(join: Join) -> Tls | None:
    """As `trusted`, without blocking the loop."""
    return await anyio.to_thread.run_sync(trusted, join)


async def buy(
    channel: Channel, method: str, tls: Tls | None, *, before: Tls | None = None, **body: Any
) -> tuple[dict[str, Any], Tls | None]:
    """Ask for an identity with `enroll` or `connect`: the answer, and over TLS what to dial with from now on.

    `before`: what we had; of the same authority its key is kept, since the name belongs to it.
    """
    if tls is None:
        return msgspec.json.decode(await channel.invoke(method, msgspec.json.encode(body))), None
    key = before.key if before is not None and before.ca == tls.ca else certificate.new_key()
    body["csr"] = certificate.request(key)
    answer = msgspec.json.decode(await channel.invoke(method, msgspec.json.encode(body)))
    return answer, _vouched(tls, answer, key)


async def renew(channel: Channel, tls: Tls) -> Tls:
    """A new certificate for the key of the old one, over a channel that the old one authenticated."""
    body = msgspec.json.encode({"csr": certificate.request(tls.key)})
    return _vouched(tls, msgspec.json.decode(await channel.invoke("renew", body)), tls.key)


def due_s(tls: Tls | None, now: float | None = None) -> float:
    """Seconds until the certificate should be renewed, half way through its life; below 0: it is over-due."""
    if tls is None or not tls.certificate:
        return float("inf")
    since, until = certificate.times(tls.certificate)
    return (since + until) / 2 - (time.time() if now is None else now)


async def why_refused(target: str, tls: Tls, lost: ServerUnreachable) -> AsterismError:
    """What keeps a handshake with this server from working, as well as can be told from here; else `lost`."""
    if not any(word in lost.message.lower() for word in ("handshake", "socket closed", "reset")):
        return lost  # nobody is there
    try:
        chain = await anyio.to_thread.run_sync(_chain, target)
    except AsterismError as error:
        return error
    if certificate.authority_in(chain, certificate.digest(tls.ca)) is None:
        hint = "was it set up anew? join again with a new join string; if not, somebody stands in between"
        return NotAllowed(
            f"the server at {target} has another CA than the one we know", hint=hint, ref="WrongAuthority"
        )
    asked = {"versions": PROTOCOL_VERSIONS, "certificate": tls.certificate, "at": time.time()}
    try:
        with anyio.fail_after(DEADLINE_S):
            async with dial(target, "", tls=Tls(tls.ca)) as channel:
                await channel.invoke("preflight", msgspec.json.encode(asked))
    except ServerUnreachable:
        since, until = certificate.times(_leaf(chain))
        if not since - certificate.SKEW_S <= time.time() <= until:
            return NotAllowed(
                f"the server's certificate is not good at this time, {time.ctime()}", hint="set the clock"
            )
        return lost
    except TimeoutError:
        return lost
    except AsterismError as error:
        return error
    return lost


@asynccontextmanager
async def dial_as(target: str, credential: str, tls: Tls | None) -> AsyncIterator[Channel]:
    """As `transport.dial`; a handshake that fails raises what it failed by."""
    try:
        async with dial(target, credential, tls=tls) as channel:
            yield channel
    except ServerUnreachable as lost:
        raise (lost if tls is None else await why_refused(target, tls, lost)) from None


def _leaf(chain: list[bytes]) -> str:
    return ssl.DER_cert_to_PEM_cert(chain[0])


def _vouched(tls: Tls, answer: Any, key: str) -> Tls:
    try:
        made = str(answer["certificate"])
        same = certificate.read(made.encode(), tls.ca)
    except (KeyError, TypeError):
        same = None
    if same is None or same.key != certificate.own_key_hash(key):
        raise NotAllowed("the server did not answer with our certificate", hint="is it the same version?")
    return Tls(tls.ca, made, key)


def _chain(address: str) -> list[bytes]:
    """The certificates (DER) a server shows, leaf first. Nothing is verified, and nothing is sent but a handshake.

    Raises: ServerUnreachable; WireError for what doesn't speak TLS.
    """
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection((host.strip("[]"), int(port)), DEADLINE_S) as plain:
            with context.wrap_socket(plain, server_hostname=certificate.SERVER_NAME) as secured:
                return _shown(secured)
    except ssl.SSLError as error:
        hint = "give the join string of that server as it is; without TLS it is reached from its own machine only"
        raise WireError(f"what listens at {address} doesn't speak our TLS: {error.reason}", hint=hint) from None
    except (OSError, ValueError) as error:
        hint = "is the server running? check address and firewall"
        raise ServerUnreachable(f"{address} can't be reached: {error}", hint=hint) from None


def _shown(secured: Any) -> list[bytes]:
    if hasattr(secured, "get_unverified_chain"):  # Python 3.13
        return list(secured.get_unverified_chain())
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in secured._sslobj.get_unverified_chain()]
