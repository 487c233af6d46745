"""Which addresses a skill of this worker may talk to: public ones, and what the setting `http.allow` names.

Invariant: a name is resolved once, here; who asks connects to an address that was judged, never to the name again.
It must not know HTTP.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from protocol.errors import NotAllowed, UsageError

VARIABLE: Final = "ASTERISM_HTTP__ALLOW"
"""How the setting reaches the hosts."""
_WEB: Final = frozenset((80, 443))
_OTHERS: Final = frozenset(
    (1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080)
)
"""Ports above 1023 of services that could take a request for one of theirs: the list of the Fetch standard."""
_UNICAST: Final = ipaddress.ip_network("2000::/3")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_SPECIAL: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16")
)

Resolve = Callable[[str, int], list[str]]
"""The addresses of a name. Raises: OSError."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Allowed(msgspec.Struct, frozen=True):
    """What may be reached beside public addresses at the ports of the web; a port of None is any of those."""

    names: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[tuple[Any, int | None], ...] = ()

    def name(self, host: str, port: int) -> bool:
        return any((host.lower().rstrip("."), one) in self.names for one in (port, None))

    def port(self, host: str, port: int) -> bool:
        """Whether this very port is named for the host, or for some network (its addresses are judged later)."""
        if (host.lower().rstrip("."), port) in self.names or any(one == port for _, one in self.networks):
            return True
        return port in _WEB or (port >= 1024 and port not in _OTHERS)

    def address(self, address: str, port: int) -> bool:
        found = ipaddress.ip_address(address)
        return any(found in network and one in (port, None) for network, one in self.networks)


def parse_allowed(entries: list[str]) -> Allowed:
    """`HOST`, `HOST:PORT`, `ADDRESS`, `ADDRESS/BITS`, `[ADDRESS/BITS]:PORT`. Raises: UsageError."""
    names, networks = set(), []
    for entry in entries:
        text, port = entry.strip().lower(), None
        head, colon, tail = text.rpartition(":")
        if colon and tail.isdecimal() and (":" not in head or head.endswith("]")):
            text, port = head, int(tail)
        text = text.removeprefix("[").removesuffix("]")
        try:
            networks.append((ipaddress.ip_network(text, strict=False), port))
        except ValueError:
            if not text or "/" in text or (port is not None and not 0 < port < 65536):
                raise UsageError(
                    f"http.allow: {entry!r} is no host or network", hint='"10.0.0.0/8", "nas:8080"'
                ) from None
            names.add((text.rstrip("."), port))
    return Allowed(frozenset(names), tuple(networks))


def allowed_by(environ: Mapping[str, str]) -> Allowed:
    """What the worker's settings allow. Raises: UsageError."""
    text = environ.get(VARIABLE, "")
    if not text.strip():
        return Allowed()
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else text.split(",")
    except ValueError:
        raise UsageError(f"{VARIABLE} is no list", hint='["10.0.0.0/8"]') from None
    return parse_allowed([str(one) for one in found])


def system_resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))


def reach(host: str, port: int, allowed: Allowed, resolve: Resolve = system_resolve) -> list[str]:
    """The addresses to try, in order. Raises: NotAllowed; OSError when the name resolves to nothing."""
    if not allowed.port(host, port):
        raise NotAllowed(
            f"port {port} of {host} is none that the web uses", hint=f'allow it: http.allow = ["{host}:{port}"]'
        )
    addresses = resolve(host, port)
    if not addresses:
        raise OSError(f"{host} has no address")
    if not allowed.name(host, port):
        # One private address among them is enough: a name that mixes both is how the check is got round.
        for address in addresses:
            if not is_public(address) and not allowed.address(address, port):
                raise NotAllowed(
                    f"{host} is {address}, which is not a public address",
                    hint=f'allow it in ~/.config/asterism/config.toml on that worker: http.allow = ["{address}"]',
                )
    return addresses


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet; an IPv4 address inside an IPv6 one is looked into."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found not in _UNICAST:
            return False
    special = any(found.version == network.version and found in network for network in _SPECIAL)
    return found.is_global and not found.is_multicast and not special
