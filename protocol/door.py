"""Who knocks at a server and is not let in: counted, told, and slowed down.

gRPC says nothing about a handshake that fails. So each connection is counted when it begins (`knocked`) and when it
makes its first call (`spoke`); what never speaks had no TLS, a certificate that is not ours or has expired, or only
wanted to stay. Who speaks without a credential has a bucket of tries per address, and all of them together one.
Invariant: memory is bounded, whoever knocks, and nobody with a good credential waits for those without.
It must not know gRPC, nor what is refused and why.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

import msgspec

from .errors import AsterismError, Unavailable
from .security import Principal

Refused = Callable[[str, str, str], None]
"""Source (`worker:NAME`, `client:NAME`, `address:HOST`), code, message: the desk of refusals."""

_ADDRESSES: Final = 1024
_CONNECTIONS: Final = 65_536
_MOST_TOLD: Final = 1000


class Rate(msgspec.Struct, frozen=True):
    """A bucket of `burst` tries that fills up again by `per_s`."""

    burst: float
    per_s: float


REFUSED: Final = Rate(20.0, 1.0)
"""Calls without a good credential, from one address."""
ENROLLED: Final = Rate(256.0, 32.0)
"""Calls with a join token, from one address: a signature and a line in the journal each."""
ALTOGETHER: Final = Rate(2048.0, 128.0)


class Buckets:
    """Tries by key; the key that was quiet longest is forgotten first."""

    def __init__(self, rate: Rate, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> bool:
        """One try; False when there is none left."""
        now = self._clock()
        left, at = self._left.pop(key, (self._rate.burst, now))
        left = min(self._rate.burst, left + (now - at) * self._rate.per_s)
        self._left[key] = (max(0.0, left - 1.0), now)
        if len(self._left) > _ADDRESSES:
            self._left.popitem(last=False)
        return left >= 1.0


class Door:
    """One per server; all of it for its loop but `knocked`, which gRPC's threads call."""

    def __init__(self, refused: Refused | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._told = refused or (lambda source, code, message: None)
        self._lock = threading.Lock()
        self._knocks = 0
        self._spoken = 0
        self._due = 0
        self._silent = 0
        self._connections: OrderedDict[str, None] = OrderedDict()
        self._strangers = Buckets(REFUSED, clock)
        self._joining = Buckets(ENROLLED, clock)
        self._all = Buckets(ALTOGETHER, clock)

    def knocked(self) -> None:
        """A connection begins."""
        with self._lock:
            self._knocks += 1

    def spoke(self, peer: str, stranger: bool) -> None:
        """A call came over this connection. A stranger looked at our certificates before, over another."""
        if peer in self._connections:
            self._connections.move_to_end(peer)
            return
        self._connections[peer] = None
        self._spoken += 2 if stranger else 1
        if len(self._connections) > _CONNECTIONS:
            self._connections.popitem(last=False)

    def tally(self) -> int:
        """Tell of connections that had not spoken since the tally before last; how many it were."""
        fresh = min(max(0, self._due - self._spoken - self._silent), _MOST_TOLD)
        self._due = self._knocks
        self._silent += fresh
        for _ in range(fresh):
            self._told("address:unknown", "Handshake", "a connection that never became a call")
        return fresh

    def admit(self, who: Principal, peer: str) -> None:
        """Slow down whoever has no identity. Raises: Unavailable."""
        if who.role not in ("guest", "join"):
            return
        buckets = self._joining if who.role == "join" else self._strangers
        if not (buckets.take(host_of(peer)) and self._all.take(who.role)):
            raise Unavailable(
                f"too many tries from {host_of(peer)}", hint="wait a minute, then try again", ref="TooMany"
            )

    def refuse(self, who: Principal, peer: str, error: AsterismError) -> None:
        """Tell the desk."""
        known = who.role not in ("guest", "join")
        kind = "worker" if who.role == "worker" else "client"
        source = f"{kind}:{who.name}" if known else f"address:{host_of(peer)}"
        self._told(source, error.ref or error.code, error.message)


def host_of(peer: str) -> str:
    """`ipv4:10.0.0.1:5000`, `ipv6:%5B::1%5D:5000`, `unix:` -> the host."""
    kind, _, rest = peer.partition(":")
    return unquote(rest.rpartition(":")[0]).strip("[]") if kind in ("ipv4", "ipv6") else kind
