"""Where a server listens, how it proves itself there, and what it tells those who shall find it.

Off loopback it serves with TLS as its own authority, always; on loopback only when told to. `server.json` is for this
machine, the join string for others: it names an address that others can dial, and with TLS buys workers only. The
certificates of the server and of its owner are renewed here, long before they expire. It must not know runs.
"""

from __future__ import annotations

import getpass
import os
import resource
import socket
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
import psutil

from protocol.authority import CERTIFICATE_LIFE_S, Authority
from protocol.door import Door, Refused
from protocol.errors import UsageError
from protocol.grpc_server import SESSION_S
from protocol.port import Server, Services
from protocol.report import TlsInfo
from protocol.security import Join, ServerFile, is_loopback, save_server
from protocol.transport import serve

from .enrolment import Enrolment

PORT: Final = 7420
"""Where a server listens that was given an address without one."""
TALLY_S: Final = 10.0
_FILES: Final = 65_536
_LOOKS: Final = 20
_LOOK_S: Final = 3600.0
_ANY: Final = ("0.0.0.0", "[::]", "*")


class EntranceSettings(msgspec.Struct, frozen=True):
    """`listen`: HOST[:PORT]; `names`: what else the server is called, the first one in join strings; `tls`: also on
    loopback; `life_s` of certificates; `session_s`: how old a stream may grow."""

    listen: str = "127.0.0.1:0"
    names: tuple[str, ...] = ()
    tls: bool = False
    life_s: float = CERTIFICATE_LIFE_S
    session_s: float = SESSION_S


class Entrance:
    """One per server. `authority` is None on a server without TLS."""

    def __init__(self, settings: EntranceSettings, folder: Path, refused: Refused) -> None:
        self._settings = settings
        self._door = Door(refused)
        self._host, self._port = _split(settings.listen)
        self.address = ""
        self.authority: Authority | None = None
        if settings.tls or not is_loopback(f"{self._host}:1"):
            self.authority = Authority.open(folder, self._names(), settings.life_s)

    async def open(self, services: Services, enrolment: Enrolment) -> Server:
        """Listen. Raises: Unavailable for a port in use."""
        _more_files()
        where = "[::]" if self._host == "*" else self._host
        server = await serve(
            f"{where}:{self._port}",
            services,
            enrolment.keyring.authenticate,
            authority=self.authority,
            session_s=self._settings.session_s,
            door=self._door,
        )
        enrolment.keyring.on_ended = server.end
        self._port = server.port
        self.address = f"{'127.0.0.1' if self._host in _ANY else self._host}:{server.port}"
        return server

    def announce(self, directory: Path, enrolment: Enrolment, journal: str, started: float, version: str) -> ServerFile:
        """Write `server.json` with the owner's credential of this start."""
        person = getpass.getuser()
        file = ServerFile(self.address, os.getpid(), "", journal, started, version)
        if self.authority is None:
            token = enrolment.own_token(person)
            file = msgspec.structs.replace(file, token=token, join=str(Join(self.address, token)))
        else:
            join = Join(self._outside(), enrolment.worker_token(), self.authority.digest)
            file = msgspec.structs.replace(file, tls=enrolment.own_certificate(person), join=str(join))
        save_server(directory, file)
        return file

    async def watch_door(self) -> None:
        """Tell of connections that failed before they said a word."""
        while self.authority is not None:
            await anyio.sleep(TALLY_S)
            self._door.tally()

    async def stay_fresh(self, directory: Path, enrolment: Enrolment, file: ServerFile) -> None:
        """Renew the certificates of server and owner half way through their life, for new handshakes."""
        if self.authority is None:
            return
        while True:
            await anyio.sleep(min(_LOOK_S, self.authority.life_s / _LOOKS))  # sleep of the machine doesn't count
            if self.authority.renew():
                file = msgspec.structs.replace(file, tls=enrolment.own_certificate(getpass.getuser()))
                save_server(directory, file)

    def info(self) -> TlsInfo | None:
        """What `server info` says of TLS; None without."""
        if self.authority is None:
            return None
        since, until = self.authority.times()
        settings = self._settings
        return TlsInfo(self.authority.digest, self._outside(), since, until, settings.life_s, settings.session_s)

    def _names(self) -> tuple[str, ...]:
        """Host names and addresses for the certificate, so that other tools find what they expect there."""
        names = [*self._settings.names, "localhost", socket.gethostname(), self._host.strip("[]")]
        if self._host in _ANY:
            names.remove(self._host.strip("[]"))
            names += [one.address for many in psutil.net_if_addrs().values() for one in many if _is_ip(one)]
        return tuple(dict.fromkeys(name.partition("%")[0] for name in names if name and name.isascii()))

    def _outside(self) -> str:
        """The address for the join string: as named, as listened on, else the one that leads out of this machine."""
        if self._settings.names:
            return f"{self._settings.names[0]}:{self._port}"
        return f"{_own_address() if self._host in _ANY else self._host}:{self._port}"


def _more_files() -> None:
    """Each connection is one, and so is each artifact on its way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_ip(one: Any) -> bool:
    return one.family in (socket.AF_INET, socket.AF_INET6)


def _own_address() -> str:
    """The source address of what would go to another network (nothing is sent); the first other one, else loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            pass
    found = [one.address for many in psutil.net_if_addrs().values() for one in many if one.family == socket.AF_INET]
    return next((one for one in found if not is_loopback(f"{one}:1")), "127.0.0.1")


def _split(listen: str) -> tuple[str, int]:
    """HOST and PORT of an address that may lack the latter. Raises: UsageError."""
    host, colon, port = listen.rpartition(":")
    if not colon or (listen.startswith("[") and listen.endswith("]")):
        host, port = listen, str(PORT)
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{listen} is no address", hint="write HOST:PORT, for example 0.0.0.0:7420")
    return host or "0.0.0.0", int(port)
