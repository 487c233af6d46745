"""Who may come in: the server's own token, and the identities of workers, by the hash of their secrets.

A secret is shown once, to who enrols; the journal keeps its SHA-256 only (WorkerEnrolled). The keyring is what the
transport asks; it is filled from the replayed state at start and kept in step afterwards.
"""

from __future__ import annotations

import re
from typing import Any, Final

from protocol.errors import NotAllowed, UsageError
from protocol.security import Keyring, Principal, new_secret, secret_hash

from ..core.state import State
from ..core.stimulus import Enrolled, WorkerDismissed
from ..engine.engine import Engine

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_RESERVED: Final = frozenset({"any", "here", "all", "cpu", "gpu", "edge", "input", "last"})


class Enrolment:
    """Owns the keyring."""

    def __init__(self, engine: Engine, state: State) -> None:
        self._engine = engine
        self._state = state
        self.keyring = Keyring()
        for record in state.workers.values():
            if record.secret_hash and not record.gone:
                self.keyring.add(record.secret_hash, Principal(record.name, "worker", record.ix))

    def own_token(self, person: str) -> str:
        """A fresh loopback token for this start: who can read it is the person the server runs as, an admin here."""
        token = new_secret()
        self.keyring.add(secret_hash(token), Principal(person, "admin"))
        return token

    async def enroll(self, who: Principal, name: str, serves: str) -> dict[str, Any]:
        """Give `name` an identity: `{worker, name, secret}`. A name that is known gets a new secret, the old one ends.

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
        old = known.secret_hash if known is not None else ""
        secret = new_secret()
        kept = secret_hash(secret)
        found = await self._engine.ask(lambda reply: Enrolled(reply, name, kept, serves))
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
