"""Who may come in: the server's own token, join tokens, and what workers and clients bought, by the hash of secrets.

A secret is shown once, to who enrols or asks for a token; the journal keeps its SHA-256 only (WorkerEnrolled,
TokenCreated, TokenUsed). The keyring is what the transport asks; it is filled from the replayed state at start and
kept in step afterwards. Whether a token may still be used is the core's to say, so that a use counts once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, cast

from protocol.errors import NotAllowed, UsageError
from protocol.report import ClientRow, TokenList, TokenRow
from protocol.security import Keyring, Principal, Role, new_secret, secret_hash

from ..core.state import State
from ..core.stimulus import ClientEnrolled, Enrolled, TokenAsked, TokenRevocation, WorkerDismissed
from ..core.token import TokenRecord
from ..engine.engine import Engine

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_CLIENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,126}")
_RESERVED: Final = frozenset({"any", "here", "all", "cpu", "gpu", "edge", "input", "last"})


class Enrolment:
    """Owns the keyring."""

    def __init__(self, engine: Engine, state: State, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._state = state
        self._clock = clock
        self.keyring = Keyring()
        for record in state.workers.values():
            if record.secret_hash and not record.gone:
                self.keyring.add(record.secret_hash, Principal(record.name, "worker", record.ix))
        for token in state.tokens.values():
            if token.secret_hash:
                self._admit(token)
            for client in token.clients:
                self.keyring.add(client.secret_hash, Principal(client.name, cast(Role, token.role)))

    def own_token(self, person: str) -> str:
        """A fresh loopback token for this start: who can read it is the person the server runs as, an admin here."""
        token = new_secret()
        self.keyring.add(secret_hash(token), Principal(person, "admin"))
        return token

    async def enroll(self, who: Principal, name: str, serves: str) -> dict[str, Any]:
        """Give `name` an identity: `{worker, name, secret}`. A name that is known gets a new secret, the old one ends.

        Who is neither admin nor has a token brings temporary workers only, under names of their own.

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
        secret = new_secret()
        kept = secret_hash(secret)
        found = await self._engine.ask(lambda reply: Enrolled(reply, name, kept, serves, who.token))
        if old:
            self.keyring.remove(old)
        self.keyring.add(kept, Principal(name, "worker", int(found["worker"])))
        return {"worker": found["worker"], "name": found["name"], "secret": secret}

    def dismiss(self, worker: int) -> None:
        """Forget a worker that will not come back; its credential ends at once."""
        record = self._state.workers[worker]
        if record.secret_hash:
            self.keyring.remove(record.secret_hash)
        self._engine.post(WorkerDismissed(worker))

    # clients and tokens

    async def connect(self, who: Principal, name: str) -> dict[str, Any]:
        """Give a client a credential with the role of its token: `{name, role, secret}`. Raises: NotAllowed."""
        if _CLIENT.fullmatch(name) is None:
            raise UsageError(f"{name!r} can't be a client's name", hint="letters, digits, . _ @ + -")
        secret = new_secret()
        kept = secret_hash(secret)
        found = await self._engine.ask(lambda reply: ClientEnrolled(reply, who.token, name, kept))
        self.keyring.add(kept, Principal(name, found["role"]))
        return {"name": name, "role": found["role"], "secret": secret}

    async def create(self, who: Principal, role: str, uses: int, ttl_s: float) -> dict[str, Any]:
        """A new join token: `{token, secret}`; the secret is told this once."""
        secret = new_secret()
        kept = secret_hash(secret)
        found = await self._engine.ask(lambda reply: TokenAsked(reply, kept, role, uses, ttl_s, who.name))
        record = self._state.tokens[int(found["token"])]
        self._admit(record)
        return {"token": record.name, "secret": secret}

    async def revoke(self, who: Principal, number: int) -> dict[str, Any]:
        """End a token and the clients that came with it; workers that did stay. Raises: NotFound, Conflict."""
        record = self._state.tokens.get(number)
        ended = [client.secret_hash for client in record.clients] if record is not None else []
        await self._engine.ask(lambda reply: TokenRevocation(reply, number, who.name))
        for kept in ended:
            self.keyring.remove(kept)
        return {"token": f"t{number}", "clients": len(ended)}

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
