"""Whatever knocks at a server with TLS: refused, counted, told, and nobody with a good certificate notices."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import psutil
import pytest

from protocol import transport
from protocol.authority import Authority
from protocol.certificate import make_ca, make_peer, make_server, new_key, request, requested_key
from protocol.door import Door, host_of
from protocol.errors import NotAllowed, ServerUnreachable, Unavailable, UsageError, WireError
from protocol.membership import buy, due_s, trusting
from protocol.port import FrameStream
from protocol.security import Join, Keyring, Principal, Tls, key_credential, secret_hash
from tests.contract.test_transport import Desk

ADA = Principal("ada", "admin")
JOINER = Principal("t1", "join", token=1)


class Gate:
    """A server with TLS whose door we hold."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.told: Counter[tuple[str, str]] = Counter()
        self.door = Door(lambda source, code, message: self.told.update([(source, code)]))
        self.ring = Keyring()
        self.desk = Desk()
        self.authority = Authority.open(folder, ("localhost",), **options)
        self.address = ""

    def member(self, who: Principal = ADA, life_s: float = 3600.0, name: str = "") -> Tls:
        """A certificate of this authority, whose key is on the ring."""
        key = new_key()
        public = requested_key(request(key))
        kind = "worker" if who.role == "worker" else "client"
        identity = f"asterism://{kind}/{name or who.name}"
        made = make_peer(identity, public, self.authority.ca, self.authority._ca_key, time.time(), life_s)
        peer = self.authority.read(made.encode())
        assert peer is not None
        self.ring.add(key_credential(peer.key), who)
        return Tls(self.authority.ca, made, key)

    async def ask(self, tls: Tls | None, secret: str = "", method: str = "ps") -> bytes:
        async with transport.dial(self.address, secret, tls=tls) as channel:
            with anyio.fail_after(10):
                return await channel.invoke(method, b"{}")

    def silent(self) -> int:
        """Connections that never spoke, as two tallies in a row find them."""
        self.door.tally()
        self.door.tally()
        return self.told[("address:unknown", "Handshake")]


@asynccontextmanager
async def gate(folder: Path, **options: Any) -> AsyncIterator[Gate]:
    made = Gate(folder, **options)
    server = await transport.serve(
        "127.0.0.1:0", made.desk, made.ring.authenticate, authority=made.authority, door=made.door
    )
    made.address = f"127.0.0.1:{server.port}"
    made.ring.on_ended = server.end
    try:
        yield made
    finally:
        await server.aclose(0.1)


async def frames(stream: FrameStream) -> AsyncIterator[Any]:
    while (frame := await stream.receive()) is not None:
        yield frame


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def foreign(gate: Gate, how: str) -> Tls | None:
    """What a peer may come with that is none of ours."""
    ca, ca_key, now = gate.authority.ca, gate.authority._ca_key, time.time()
    key = new_key()
    public = requested_key(request(key))
    other_key = new_key()
    other = make_ca("asterism", other_key, now)
    made = {
        "no TLS": "",
        "another authority's": make_peer("asterism://client/ada", public, other, other_key, now, 600.0),
        "one's own": make_peer("asterism://client/ada", public, make_ca("ada", key, now), key, now, 600.0),
        "expired": make_peer("asterism://client/ada", public, ca, ca_key, now - 7200, 3600.0),
        "not good yet": make_peer("asterism://client/ada", public, ca, ca_key, now + 7200, 3600.0),
        "a server's": make_server(("localhost",), key, ca, ca_key, now, 600.0),
    }[how]
    return Tls(ca, made, key) if made else None


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["no TLS", "another authority's", "one's own", "expired", "not good yet", "a server's"])
async def test_a_certificate_that_is_no_good_gets_no_call_through_and_is_counted(tmp_path: Path, how: str) -> None:
    async with gate(tmp_path) as server:
        with pytest.raises(ServerUnreachable):
            await server.ask(foreign(server, how))
        assert not server.desk.submitted
        assert server.silent() >= 1
        assert await server.ask(server.member()) == b"[ada,ps,{}]"


@pytest.mark.anyio
async def test_garbage_silence_and_many_connections_are_counted_and_cost_nobody_else(tmp_path: Path) -> None:
    async with gate(tmp_path) as server:
        ada = server.member()
        assert await server.ask(ada)
        base = psutil.Process().num_fds()
        host, port = server.address.split(":")
        with ExitStack() as open_:
            for number in range(300):
                one = open_.enter_context(socket.create_connection((host, int(port))))
                if number % 3 == 1:
                    one.sendall(b"GET / HTTP/1.1\r\n\r\n")
                elif number % 3 == 2:
                    one.sendall(b"\x16\x03\x01\xff\xff" + os.urandom(2000))
            assert await server.ask(ada)
        with anyio.fail_after(20):
            while psutil.Process().num_fds() > base + 4 or server.silent() < 300:  # the last ones are being met yet
                await anyio.lowlevel.checkpoint()
        assert await server.ask(ada)


@pytest.mark.anyio
async def test_a_stranger_without_a_good_token_is_refused_and_slowed_down(tmp_path: Path) -> None:
    async with gate(tmp_path) as server:
        unknown = Tls(server.authority.ca)
        codes: Counter[str] = Counter()
        async with transport.dial(server.address, "wrong-token", tls=unknown) as channel:
            for _ in range(40):
                with pytest.raises((NotAllowed, Unavailable)) as caught:
                    await channel.invoke("enroll", b"{}")
                codes[caught.value.ref] += 1
        assert codes["Unknown"] >= 20
        assert codes["TooMany"] >= 10
        assert server.told[("address:127.0.0.1", "Unknown")] == codes["Unknown"]
        assert server.told[("address:127.0.0.1", "TooMany")] == codes["TooMany"]
        assert await server.ask(server.member()) == b"[ada,ps,{}]"


@pytest.mark.anyio
async def test_over_tls_a_secret_is_good_for_joining_only(tmp_path: Path) -> None:
    async with gate(tmp_path) as server:
        server.ring.add(secret_hash("bought-in-the-clear"), ADA)
        server.ring.add(secret_hash("token"), JOINER)
        with pytest.raises(NotAllowed, match="no credential"):
            await server.ask(Tls(server.authority.ca), "bought-in-the-clear")
        assert await server.ask(Tls(server.authority.ca), "token", "enroll") == b"[t1,enroll,{}]"
        with pytest.raises(NotAllowed, match="isn't allowed to t1"):
            await server.ask(Tls(server.authority.ca), "token")


@pytest.mark.anyio
async def test_a_certificate_must_say_the_name_of_its_key(tmp_path: Path) -> None:
    async with gate(tmp_path) as server:
        with pytest.raises(NotAllowed, match="not ada's"):
            await server.ask(server.member(name="eve"))
        assert server.told[("address:127.0.0.1", "WrongName")] == 1


@pytest.mark.anyio
async def test_who_signs_its_own_key_as_a_stranger_is_one_whatever_it_says(tmp_path: Path) -> None:
    """The strangers' root is trusted for the handshake: not for a name, nor for a key that is on the ring."""
    from protocol.certificate import _STRANGER, _issue, _key, _load, _stranger_key, strangers

    async with gate(tmp_path) as server:
        ada, now = server.member(), time.time()
        root = _load(strangers(now))
        public = _key(ada.key).public_key()
        forged = _issue(_STRANGER, public, root, _stranger_key(), now, 600.0, identity="asterism://client/ada")
        with pytest.raises(NotAllowed, match="no credential"):
            await server.ask(Tls(ada.ca, forged, ada.key))
        named = make_peer("asterism://client/ada", public, strangers(now), new_key(), now, 600.0)
        with pytest.raises(ServerUnreachable):
            await server.ask(Tls(ada.ca, named, ada.key))


@pytest.mark.anyio
async def test_more_metadata_than_fits_is_a_typed_refusal(tmp_path: Path) -> None:
    async with gate(tmp_path) as server:
        async with transport.dial(server.address, "x" * 300_000, tls=Tls(server.authority.ca)) as channel:
            with pytest.raises((WireError, ServerUnreachable)):
                await channel.invoke("enroll", b"{}")
        assert await server.ask(server.member()) == b"[ada,ps,{}]"


@pytest.mark.anyio
async def test_a_revoked_identity_gets_no_call_and_loses_what_it_has_open(tmp_path: Path) -> None:
    async with gate(tmp_path) as server:
        pi = Principal("pi-1", "worker", 3)
        ada, worker = server.member(), server.member(pi)
        async with (
            transport.dial(server.address, "", tls=worker) as channel,
            transport.dial(server.address, "", tls=ada) as other,
        ):
            stream = await channel.link()
            told: list[str] = []

            async def hears(messages: AsyncIterator[Any]) -> None:
                try:
                    async for _ in messages:
                        pass
                except NotAllowed as error:
                    told.append(error.message)

            with anyio.fail_after(10):
                async with anyio.create_task_group() as group:
                    group.start_soon(hears, frames(stream))
                    group.start_soon(hears, other.watch("events", b"0"))
                    while not (server.desk.watchers and server.desk.streams):
                        await anyio.lowlevel.checkpoint()
                    for tls in (worker, ada):
                        peer = server.authority.read(tls.certificate.encode())
                        assert peer is not None
                        server.ring.bar(key_credential(peer.key))
                await server.desk.ended.wait()
                await server.desk.watch_left.wait()
            assert told == ["this identity was revoked"] * 2
            with pytest.raises(NotAllowed, match="revoked"):
                await channel.link()
        assert server.told[("address:127.0.0.1", "Revoked")] == 1


@pytest.mark.anyio
async def test_a_server_renews_its_certificate_for_new_handshakes_and_old_streams_live_on(tmp_path: Path) -> None:
    async with gate(tmp_path) as server:
        ada, worker = server.member(), server.member(Principal("pi-1", "worker", 3))
        host, port = server.address.split(":")
        async with transport.dial(server.address, "", tls=worker) as channel:
            stream = await channel.link()
            first = await anyio.to_thread.run_sync(ssl.get_server_certificate, (host, int(port)))
            assert not server.authority.renew()
            assert server.authority.renew(share=0.0)
            second = await anyio.to_thread.run_sync(ssl.get_server_certificate, (host, int(port)))
            assert first != second
            assert await server.ask(ada) == b"[ada,ps,{}]"
            assert await channel.invoke("info", b"{}")
            await stream.aclose()


@pytest.mark.anyio
async def test_a_join_string_with_another_digest_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with gate(tmp_path) as server:
        assert await trusting(Join(server.address, "t", server.authority.digest)) == Tls(server.authority.ca)
        with pytest.raises(NotAllowed, match="its CA differs"):
            await trusting(Join(server.address, "t", "ab" * 32))
        assert not server.told


@pytest.mark.anyio
async def test_an_answer_that_is_not_our_certificate_is_refused(tmp_path: Path) -> None:
    async with gate(tmp_path) as server:
        server.ring.add(secret_hash("token"), JOINER)
        other, _ = server.authority.sign(request(new_key()), "worker", "pi-1")
        for told in ({}, {"certificate": "x"}, {"certificate": other}):

            async def invoke(who: Principal, method: str, body: bytes, told: dict[str, str] = told) -> bytes:
                return msgspec.json.encode(told)

            server.desk.invoke = invoke  # type: ignore[method-assign]
            async with transport.dial(server.address, "token", tls=Tls(server.authority.ca)) as channel:
                with pytest.raises(NotAllowed, match="our certificate"):
                    await buy(channel, "enroll", Tls(server.authority.ca), name="pi-1")


@pytest.mark.parametrize("csr", ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\n", "x" * 9000])
def test_a_request_that_is_none_is_refused(tmp_path: Path, csr: str) -> None:
    with pytest.raises(UsageError):
        Authority.open(tmp_path).sign(csr, "worker", "pi-1")


def test_an_authority_is_made_once_and_kept_for_nobody_else_to_read(tmp_path: Path) -> None:
    first = Authority.open(tmp_path / "server")
    assert Authority.open(tmp_path / "server").digest == first.digest
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "server").iterdir()} == {0o600}
    (tmp_path / "server" / "ca.key").chmod(0o644)
    with pytest.raises(NotAllowed):
        Authority.open(tmp_path / "server")


def test_a_certificate_is_due_half_way_through_its_life(tmp_path: Path) -> None:
    tls, _ = Authority.open(tmp_path, life_s=1000.0).owner("ada")
    now = time.time()
    assert 480 < due_s(tls, now) < 510
    assert due_s(tls, now + 510) < 0
    assert due_s(None) == due_s(Tls(tls.ca)) == float("inf")


@pytest.mark.parametrize(
    ("peer", "host"),
    [("ipv4:10.0.0.1:5000", "10.0.0.1"), ("ipv6:%5B::1%5D:5000", "::1"), ("unix:", "unix"), ("", "")],
)
def test_the_host_of_a_peer(peer: str, host: str) -> None:
    assert host_of(peer) == host


def test_a_door_forgets_rather_than_grows() -> None:
    now = [0.0]
    door = Door(clock=lambda: now[0])
    for number in range(70_000):
        door.spoke(f"ipv4:10.0.0.1:{number}", stranger=False)
    assert len(door._connections) <= 65_536
    for number in range(3000):
        with contextlib.suppress(Unavailable):
            door.admit(Principal("nobody", "guest"), f"ipv4:10.{number // 256}.{number % 256}.1:1")
    assert len(door._strangers._left) <= 1024
    now[0] = 3600.0
    door.admit(Principal("nobody", "guest"), "ipv4:10.0.0.1:1")
