"""Join tokens as the journal keeps them: what each may buy, and what it bought. Of secrets only the SHA-256.

A noun: what may be done with a token is decided in enrolment.
"""

from __future__ import annotations

import msgspec


class Client(msgspec.Struct, array_like=True):
    """Who bought a client credential, and its hash."""

    name: str
    secret_hash: str
    at: float = 0.0


class TokenRecord(msgspec.Struct, array_like=True):
    """A token as events made it. People call it `t3`."""

    ix: int
    secret_hash: str
    role: str
    uses: int
    until: float
    by: str
    at: float
    used: int = 0
    revoked: bool = False
    clients: list[Client] = []
    ended: list[str] = []
    """The credentials that ended when it was revoked: who comes with one is told so."""

    @property
    def name(self) -> str:
        return f"t{self.ix}"

    def state(self, now: float) -> str:
        """`open`, or why it buys nothing more: revoked, used up, expired."""
        if self.revoked:
            return "revoked"
        if self.uses and self.used >= self.uses:
            return "used up"
        return "expired" if self.until and now >= self.until else "open"
