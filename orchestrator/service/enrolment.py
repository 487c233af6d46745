"""Who may come in: the server's own token, join tokens, and what workers and clients bought, by hash.

A secret is shown once, to who enrols or asks for a token; the journal keeps its SHA-256 only (WorkerEnrolled,
TokenCreated, TokenUsed). With TLS a worker or client has a certificate instead, and the journal the SHA-256 of its
key: a renewal changes nothing there. The keyring is what the transport asks; it is filled from the replayed state at
start and kept in step afterwards. Whether a token may still be used is the core's to say, so that a use counts once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final, cast

from protocol.authority import Authority
from protocol.certificate import SKEW_S
from protocol.errors import NotAllowed, UsageError, VersionMismatch
from protocol.frame import PROTOCOL_VERSIONS
from protocol.report import ClientRow, TokenList, TokenRow
from protocol.security import (
    PEER_IDENTITY,
    PEER_KEY,
    PEER_TLS,
    Keyring,
    Principal,
    Role,
    Tls,
    key_credential,
    new_secret,
    secret_hash,
)

from ..core.state import State
from ..core.stimulus import ClientEnrolled, Enrolled, TokenAsked, TokenRevocation, WorkerDismissed
from ..core.token import TokenRecord
from ..engine.engine import Engine

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_CLIENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,126}")
_RESERVED: Final = frozenset({"any", "here", "all", "cpu", "gpu", "edge", "input", "last"})


class Enrolment:
    """Owns the keyring. `authority`: signs certificates, on a server with TLS."""

    def __init__(
        self, engine: Engine, state: State, clock: Callable[[], float], authority: Authority | None = None
    ) -> None:
        self._engine = engine
        self._state = state
        self._clock = clock
        self._authority = authority
        self.keyring = Keyring()
        for record in state.workers.values():
            if record.secret_hash and not record.gone:
                self.keyring.add(record.secret_hash, Principal(record.name, "worker", record.ix))
        for token in state.tokens.values():
            if token.secret_hash:
                self._admit(token)
            for client in token.clients:
                self.keyring.add(client.secret_hash, Principal(client.name, cast(Role, token.role)))
            for kept in token.ended:
                self.keyring.bar(kept)

    def own_token(self, person: str) -> str:
        """A fresh loopback token for this start: who can read it is the person the server runs as, an admin here."""
        token = new_secret()
        self.keyring.add(secret_hash(token), Principal(person, "admin"))
        return token

    def own_certificate(self, person: str) -> Tls:
        """The same with TLS: a certificate for this start."""
        assert self._authority is not None
        tls, key = self._authority.owner(person)
        self.keyring.add(key_credential(key), Principal(person, "admin"))
        return tls

    def worker_token(self) -> str:
        """For the join string of this start: it buys any number of workers, and nothing else."""
        token = new_secret()
        self.keyring.add(secret_hash(token), Principal("the join string", "join"))
        return token

    def _credential(self, csr: str, kind: str, name: str) -> tuple[str, dict[str, str]]:
        """What the keyring keeps, and what its owner gets: a new secret, or a certificate. Raises: UsageError."""
        if self._authority is None:
            secret = new_secret()
            return secret_hash(secret), {"secret": secret}
        made, key = self._authority.sign(csr, kind, name)
        return key_credential(key), {"certificate": made}

    async def enroll(self, who: Principal, name: str, serves: str, csr: str = "") -> dict[str, Any]:
        """Give `name` an identity: `{worker, name, secret | certificate}`. A name that is known gets a new one, and the
        old one ends.

        Who is neither admin nor has a token brings temporary workers only, under names of their own. With TLS a token
        buys no name that somebody holds: a machine whose certificate has expired comes with the key that it had.

        Raises: UsageError for a name that `on` could not tell from a word of its own; NotAllowed.
        """
        if _NAME.fullmatch(name) is None or name in _RESERVED:
            raise UsageError(
                f"{name!r} can't be a worker's name",
                hint="letters, digits, dots and dashes; not a word of `on` such as here or gpu",
            )
        known = next((one for one in self._state.workers.values() if one.name == name and not one.gone), None)
        if known is not None and who.role == "join" and known.ix in self._engine.machine.fleet.sessions:
            raise NotAllowed(f"{name} is connected", hint="choose another --name, or stop that worker first")
        if who.role not in ("admin", "join") and (known is not None or not serves):
            raise NotAllowed(f"a {who.role} can't enrol the worker {name}", hint="asterism token create, as an admin")
        old = known.secret_hash if known is not None else ""
        kept, given = self._credential(csr, "worker", name)
        self._free(kept, name)
        if self._authority is not None and who.role == "join" and old not in ("", kept):
            hint = f"choose another --name; or asterism worker dismiss {name}, as an admin"
            raise NotAllowed(f"{name} is another's name, who holds its key", hint=hint)
        found = await self._engine.ask(lambda reply: Enrolled(reply, name, kept, serves, who.token))
        number = int(found["worker"])
        if self._state.workers[number].secret_hash != kept:  # revoked or sold again meanwhile
            raise NotAllowed(f"{name} went to another at the same moment", hint="choose another --name")
        self.keyring.replace(kept, Principal(name, "worker", number))
        return {"worker": found["worker"], "name": found["name"], **given}

    def _free(self, kept: str, name: str) -> None:
        """Raises: NotAllowed for a key that is another's already: one key is one identity."""
        other = self.keyring.owner(kept)
        if other is not None and other.name != name:
            raise NotAllowed(f"that key belongs to {other.name}", hint="enrol with a key of its own")

    def renew(self, who: Principal, csr: str) -> dict[str, str]:
        """A new certificate for the key that `who` came with. Raises: NotAllowed for another key, UsageError."""
        if self._authority is None:
            raise UsageError("this server has no TLS", hint="there is nothing to renew")
        made, key = self._authority.sign(csr, "worker" if who.role == "worker" else "client", who.name)
        if self.keyring.owner(key_credential(key)) != who:
            raise NotAllowed("a renewal keeps its key", hint="enrol again with a join string to have another")
        return {"certificate": made}

    def preflight(self, versions: tuple[int, int], text: str, at: float) -> None:
        """Say why a peer with this certificate would be refused; nothing when it would not.

        Raises: VersionMismatch; NotAllowed: expired, not yet good, not ours, revoked, not its name.
        """
        low, high = PROTOCOL_VERSIONS
        if versions[0] > high or versions[1] < low:
            told = f"you speak the versions {versions[0]} to {versions[1]} of the link, this server {low} to {high}"
            raise VersionMismatch(told, hint="use one version of asterism on both sides")
        if self._authority is None or not text:
            return
        peer, now = self._authority.read(text.encode("utf-8", "replace")), time.time()
        if peer is None:
            hint = "was the server set up anew? enrol again with a new join string"
            raise NotAllowed("the certificate is none that this server issued", hint=hint, ref="UnknownAuthority")
        if not peer.since - SKEW_S <= now < peer.until:
            ours = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now))
            what = "has expired" if now >= peer.until else "is not good yet"
            hint = "enrol again with a new join string; " + (
                "its work is kept" if abs(now - at) < SKEW_S else f"and set the clock: here it is {ours} UTC"
            )
            raise NotAllowed(f"the certificate {what}", hint=hint, ref="Expired")
        seen = {PEER_TLS: "known", PEER_KEY: peer.key, PEER_IDENTITY: peer.identity}
        if self.keyring.authenticate(seen) is None:
            raise NotAllowed("the certificate's key is not known here", hint="enrol again", ref="Unknown")

    def dismiss(self, worker: int) -> None:
        """Forget a worker that will not come back; its credential ends at once."""
        record = self._state.workers[worker]
        if record.secret_hash:
            self.keyring.remove(record.secret_hash)
        self._engine.post(WorkerDismissed(worker))

    # clients and tokens

    async def connect(self, who: Principal, name: str, csr: str = "") -> dict[str, Any]:
        """Give a client a credential with the role of its token: `{name, role, secret | certificate}`.

        Raises: NotAllowed.
        """
        if _CLIENT.fullmatch(name) is None:
            raise UsageError(f"{name!r} can't be a client's name", hint="letters, digits, . _ @ + -")
        if who.role == "join" and not who.token:
            raise NotAllowed("this join string is for workers", hint="asterism token create --role submitter")
        kept, given = self._credential(csr, "client", name)
        self._free(kept, name)
        if self._authority is not None and self.keyring.held(name, kept):
            hint = "choose another --name; or let an admin revoke the token that it came with"
            raise NotAllowed(f"{name} is another's name, who holds its key", hint=hint)
        found = await self._engine.ask(lambda reply: ClientEnrolled(reply, who.token, name, kept))
        if all(client.secret_hash != kept for client in self._state.tokens[int(found["token"])].clients):
            raise NotAllowed("the token was revoked at the same moment", hint="ask for another")
        self.keyring.add(kept, Principal(name, found["role"]))
        return {"name": name, "role": found["role"], **given}

    async def create(self, who: Principal, role: str, uses: int, ttl_s: float) -> dict[str, Any]:
        """A new join token: `{token, secret}`; the secret is told this once."""
        secret = new_secret()
        kept = secret_hash(secret)
        found = await self._engine.ask(lambda reply: TokenAsked(reply, kept, role, uses, ttl_s, who.name))
        record = self._state.tokens[int(found["token"])]
        self._admit(record)
        return {"token": record.name, "secret": secret}

    async def revoke(self, who: Principal, number: int) -> dict[str, Any]:
        """End a token and everybody who came with it. Raises: NotFound, Conflict."""
        await self._engine.ask(lambda reply: TokenRevocation(reply, number, who.name))
        record = self._state.tokens[number]
        for kept in record.ended:
            self.keyring.bar(kept)
        return {"token": record.name, "ended": len(record.ended)}

    def tokens(self) -> TokenList:
        """Every token there ever was; no secret, no hash."""
        now = self._clock()
        return TokenList(tokens=tuple(_row(record, now) for record in self._state.tokens.values()))

    def _admit(self, record: TokenRecord) -> None:
        """Spent, expired and revoked ones too: who comes with one is told so, by the core."""
        self.keyring.add(record.secret_hash, Principal(record.name, "join", token=record.ix))


def _row(record: TokenRecord, now: float) -> TokenRow:
    return TokenRow(
        token=record.name,
        role=record.role,
        state=record.state(now),
        used=record.used,
        uses=record.uses or None,
        expires_at=record.until or None,
        by=record.by,
        created_at=record.at,
        clients=tuple(ClientRow(client.name, client.at) for client in record.clients),
    )
