"""Who comes in: workers and clients that buy an identity with a join token, and the tokens themselves.

Invariant: a token buys no more than `uses` identities, none after `until` and none once revoked, whatever the order
of requests and restarts, because each use is an event of its own. Of secrets only the SHA-256 comes this far.
"""

from __future__ import annotations

from protocol.errors import Conflict, NotAllowed, NotFound

from . import event as e
from . import stimulus as s
from .token import TokenRecord
from .turn import Turn


def enrolled(turn: Turn, item: s.Enrolled) -> None:
    """A known name gets a new credential (its holder proved itself with a token); a new one a new identity."""
    if item.token:
        spend(turn, item.token, item.name)
    known = next((one for one in turn.state.workers.values() if one.name == item.name), None)
    number = known.ix if known is not None else max(turn.state.workers, default=0) + 1
    turn.emit(e.WorkerEnrolled(number, item.name, item.secret_hash, item.serves, item.token))
    turn.reply(item.reply, {"worker": number, "name": item.name})


def token_asked(turn: Turn, item: s.TokenAsked) -> None:
    """A new token."""
    number = _make(turn, item.secret_hash, item.role, item.uses, item.ttl_s, item.by)
    turn.reply(item.reply, {"token": number})


def token_revoked(turn: Turn, item: s.TokenRevocation) -> None:
    """Raises: NotFound, Conflict."""
    record = find_token(turn, item.token)
    if record.revoked:
        raise Conflict(f"{record.name} is revoked already")
    turn.emit(e.TokenRevoked(record.ix, item.by, turn.now))
    turn.reply(item.reply, {"token": record.ix})


def client_enrolled(turn: Turn, item: s.ClientEnrolled) -> None:
    """A client's identity, bought with a token, or with the owner's own (`token` 0). Raises: NotAllowed."""
    number = item.token or _make(turn, "", "admin", 1, 0.0, item.name)
    record = spend(turn, number, item.name, item.secret_hash)
    turn.reply(item.reply, {"token": number, "name": item.name, "role": record.role})


def spend(turn: Turn, number: int, name: str, secret_hash: str = "") -> TokenRecord:
    """Use the token once: for a worker, or for a client whose credential has this hash. Raises: NotAllowed."""
    record = find_token(turn, number)
    state = record.state(turn.now)
    if state != "open":
        raise NotAllowed(f"the join token {record.name} is {state}", hint="ask for another: asterism token create")
    if (record.role == "worker") == bool(secret_hash):
        hint = "asterism worker start --join -" if record.role == "worker" else "asterism connect HOST:PORT"
        raise NotAllowed(f"the join token {record.name} is for the role {record.role}", hint=hint)
    turn.emit(e.TokenUsed(number, name, secret_hash, turn.now))
    return record


def find_token(turn: Turn, number: int) -> TokenRecord:
    """Raises: NotFound."""
    record = turn.state.tokens.get(number)
    if record is None:
        raise NotFound(f"there is no token t{number}", hint="asterism token list")
    return record


def _make(turn: Turn, secret_hash: str, role: str, uses: int, ttl_s: float, by: str) -> int:
    number = max(turn.state.tokens, default=0) + 1
    until = turn.now + ttl_s if ttl_s else 0.0
    turn.emit(e.TokenCreated(number, secret_hash, role, uses, until, by, turn.now))
    return number
