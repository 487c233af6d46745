"""A server as its own certificate authority: the CA's key on disk, the server's certificate of the day, signing.

Kept as `ca.pem` and `ca.key` (0600) in the server's folder; losing them means that everybody enrols again. The
server's own key lives in memory and is new at each start; `renew` replaces its certificate while connections go on.
It must not know gRPC, tokens or roles.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import certificate
from .certificate import Peer
from .errors import ConfigInvalid, NotAllowed, NotFound
from .security import PEER_IDENTITY, PEER_KEY, PEER_TLS, Tls, read_private, write_private

CERTIFICATE_LIFE_S: Final = 30 * 86400.0
_KNOWN: Final = 1024
_USUAL_BYTES: Final = 4096


class Authority:
    """Made by `open`. `pair` is the server's (key, chain) for new handshakes."""

    def __init__(
        self, ca: str, ca_key: str, names: tuple[str, ...], life_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.ca = ca
        self.digest = certificate.digest(ca)
        self.life_s = life_s
        self._ca_key = ca_key
        self._names = names
        self._clock = clock
        self._read: dict[bytes, Peer | None] = {}
        self.pair = self._fresh()

    @classmethod
    def open(cls, folder: Path, names: tuple[str, ...] = (), life_s: float = CERTIFICATE_LIFE_S) -> Authority:
        """The authority of this folder, made when there is none. Raises: NotAllowed, ConfigInvalid."""
        try:
            ca, key = (read_private(folder / name).decode() for name in ("ca.pem", "ca.key"))
        except NotFound:
            key = certificate.new_key()
            ca = certificate.make_ca("asterism", key, time.time())
            write_private(folder / "ca.key", key.encode())
            write_private(folder / "ca.pem", ca.encode())
        try:
            return cls(ca, key, names, life_s)
        except ValueError as error:
            hint = "restore both from a copy, or remove both: then everybody enrols again"
            raise ConfigInvalid(f"{folder}/ca.pem or ca.key can't be read: {error}", hint=hint) from None

    def roots(self) -> str:
        """Whose client certificates finish a handshake."""
        return self.ca + certificate.strangers(self._clock())

    def renew(self, share: float = 0.5) -> bool:
        """Make a new server certificate if this share of the old one's life is over; whether it was."""
        if not certificate.worn(self.pair[1], self._clock(), share):
            return False
        self.pair = self._fresh()
        return True

    def times(self) -> tuple[float, float]:
        """From when until when the server's certificate is good."""
        return certificate.times(self.pair[1])

    def sign(self, csr: str, kind: str, name: str) -> tuple[str, str]:
        """A certificate for a worker or client, and the hash of its key. Raises: UsageError."""
        public = certificate.requested_key(csr)
        identity = f"asterism://{kind}/{name}"
        made = certificate.make_peer(identity, public, self.ca, self._ca_key, self._clock(), self.life_s)
        return made, certificate.key_hash(public)

    def owner(self, name: str) -> tuple[Tls, str]:
        """A certificate for the person this server runs as, and the hash of its key."""
        key = certificate.new_key()
        made, kept = self.sign(certificate.request(key), "client", name)
        return Tls(self.ca, made, key), kept

    def read(self, pem: bytes) -> Peer | None:
        """What a peer's certificate says; None for a stranger."""
        if pem in self._read:
            return self._read[pem]
        found = certificate.read(pem, self.ca)
        if len(pem) <= _USUAL_BYTES:
            if len(self._read) >= _KNOWN:
                self._read.clear()
            self._read[pem] = found
        return found

    def seen(self, pem: bytes) -> dict[str, str]:
        """What the transport tells the keyring of a peer with this certificate. Raises: NotAllowed, expired."""
        peer = self.read(pem)
        if peer is None:
            return {PEER_TLS: "stranger"}
        if peer.until <= self._clock():
            raise NotAllowed("the certificate has expired", hint="enrol again with a new join string", ref="Expired")
        return {PEER_TLS: "known", PEER_KEY: peer.key, PEER_IDENTITY: peer.identity}

    def left_s(self, pem: bytes) -> float:
        """Seconds until this certificate expires."""
        peer = self.read(pem)
        return max(0.0, peer.until - self._clock()) if peer is not None else 0.0

    def _fresh(self) -> tuple[str, str]:
        key = certificate.new_key()
        made = certificate.make_server(self._names, key, self.ca, self._ca_key, self._clock(), self.life_s)
        return key, made + self.ca
