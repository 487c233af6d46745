"""Workers and clients that say what is not theirs to say, on a real server with and without TLS.

Each is refused with a type, counted where people see it, and changes nothing: the state before and after is the same.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

import anyio
import msgspec
import pytest

from orchestrator.runtime import Runtime
from orchestrator.service.entrance import EntranceSettings
from orchestrator.service.service import methods
from protocol.artifact import ArtifactRef, digest_of
from protocol.authority import Authority
from protocol.certificate import make_ca, make_peer, new_key, request, requested_key
from protocol.errors import AsterismError, NotAllowed, NotYours, Unavailable, VersionMismatch
from protocol.frame import PROTOCOL_VERSIONS, Assign, Call, Heartbeat, Rejected, Report, Staged
from protocol.ids import AttemptId, Fence
from protocol.membership import buy, dial_as
from protocol.outcome import Outcome, Success
from protocol.port import Channel
from protocol.security import ROLES, Role, ServerFile, Tls, allowed, parse_join
from protocol.transport import dial
from tests.integration.hand_worker import HandWorker, client, enrolled, events, line, submit
from tests.integration.test_link import fleet_event
from tests.integration.test_server import chain, server, worker

TLS: Final = EntranceSettings(tls=True)
PLAIN: Final = EntranceSettings()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=[PLAIN, TLS], ids=["plain", "tls"])
def entrance(request: pytest.FixtureRequest) -> EntranceSettings:
    found: EntranceSettings = request.param
    return found


async def never(_: Any, __: HandWorker, ___: Assign) -> Outcome | None:
    """Hold the attempt."""
    return None


class Scene:
    """An attempt at `pi-1`, and `cam`, another worker without any work."""

    def __init__(self, runtime: Runtime, file: ServerFile, pi: HandWorker, cam: HandWorker, channel: Channel) -> None:
        self.runtime = runtime
        self.file = file
        self.pi = pi
        self.cam = cam
        self.channel = channel
        self.assign = pi.assigns[0]

    def snapshot(self) -> dict[int, bytes]:
        assert self.runtime._engine is not None
        return self.runtime._engine.machine.state.snapshot()

    def count(self, name: str) -> int:
        assert self.runtime._engine is not None
        return self.runtime._engine.instrument.counts.get(name, 0)

    def report(self, **changed: Any) -> Report:
        """What pi would say, changed."""
        assign = self.assign
        report = Report(assign.attempt, assign.fence, assign.pin, Success(b'"forged"'))
        return msgspec.structs.replace(report, **changed)

    def call(self, what: Any, **changed: Any) -> Call:
        bodies = {"spawn": {"skill": "flow.echo", "args": {"value": 1}}, "propose": {"patch": {"tasks": []}}}
        body = msgspec.json.encode(bodies.get(what, {"ids": [], "question": "?", "kind": "k"}))
        return msgspec.structs.replace(Call(self.assign.attempt, self.assign.fence, 1, what, body), **changed)


@asynccontextmanager
async def scene(folder: Path, entrance: EntranceSettings = TLS) -> AsyncIterator[Scene]:
    async with server(folder, entrance=entrance) as (runtime, file), worker(file) as pi, client(file) as channel:
        pi.skills["flow.echo"] = never
        await submit(channel, chain(1))
        await pi.until(lambda: bool(pi.assigns))
        async with worker(file, "cam") as cam:
            yield Scene(runtime, file, pi, cam, channel)


def _calls(what: str, s: Scene) -> tuple[HandWorker, Any]:
    return s.cam, s.call(what)


Say = Callable[[Scene], tuple[HandWorker, Any]]
FORGERIES: Final[dict[str, tuple[Say, str]]] = {
    "another's attempt": (lambda s: (s.cam, s.report()), "ForeignAttempt"),
    "an old fence": (lambda s: (s.pi, s.report(fence=Fence(s.assign.fence.epoch, 0))), "StaleFence"),
    "a fence to come": (lambda s: (s.pi, s.report(fence=Fence(s.assign.fence.epoch + 1, 1))), "StaleFence"),
    "another pin": (lambda s: (s.pi, s.report(pin=b"p" * 32)), "OtherPin"),
    "an unknown task": (lambda s: (s.pi, s.report(attempt=AttemptId(1, 99, 1))), "UnknownAttempt"),
    "an unknown run": (lambda s: (s.pi, s.report(attempt=AttemptId(99, 0, 1))), "UnknownAttempt"),
    "an attempt to come": (lambda s: (s.pi, s.report(attempt=AttemptId(1, 0, 2))), "UnknownAttempt"),
    **{
        f"another's {what}": (partial(_calls, what), "ForeignAttempt")
        for what in ("spawn", "propose", "join", "ask", "begin_effect", "checkpoint", "restore", "emit")
    },
    "a call under an old fence": (lambda s: (s.pi, s.call("spawn", fence=Fence(0, 0))), "StaleFence"),
    "a call of an unknown attempt": (lambda s: (s.pi, s.call("spawn", attempt=AttemptId(1, 0, 7))), "ForeignAttempt"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("what", FORGERIES)
async def test_a_forgery_is_refused_and_told_and_changes_nothing(tmp_path: Path, what: str) -> None:
    say, code = FORGERIES[what]
    async with scene(tmp_path) as found:
        before = found.snapshot()
        speaker, item = say(found)
        await speaker.say(item)
        row = await fleet_event(found.channel, "peer_refused", code=code)
        assert row["source"] == f"worker:{speaker.identity['name']}"
        assert found.snapshot() == before
        found.pi.skills.clear()
        await found.pi.report(found.assign.attempt, Success(b'"true"'))
        await events(found.channel, 1)
        assert msgspec.json.decode(await found.channel.invoke("get", b'{"task":"t0"}'))["value"] == "true"


@pytest.mark.anyio
async def test_what_was_acknowledged_is_not_replaced_by_a_replay(tmp_path: Path, entrance: EntranceSettings) -> None:
    async with scene(tmp_path, entrance) as found:
        await found.pi.report(found.assign.attempt, Success(b'"true"'))
        await found.pi.until(lambda: bool(found.pi.acked))
        await events(found.channel, 1)
        before = found.snapshot()
        await found.pi.say(found.report())
        await found.pi.until(lambda: len(found.pi.acked) > 1)
        assert found.count("report_already_settled") == 1
        assert found.snapshot() == before


@pytest.mark.anyio
async def test_a_session_that_was_superseded_speaks_for_nobody(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        newer = HandWorker(found.pi.identity)
        newer.skills["flow.echo"] = never
        async with line(found.file, found.pi.identity) as channel, anyio.create_task_group() as group:
            group.start_soon(newer.run, channel)
            await newer.until(lambda: bool(newer.welcomes))
            before = found.snapshot()
            await found.pi.say(found.report())
            await found.pi.say(Heartbeat(1.0, inventory=()))
            await found.channel.invoke("info", b"{}")
            await newer.say(found.report(pin=b"p" * 32))
            await fleet_event(found.channel, "peer_refused", code="OtherPin")
            assert found.snapshot() == before
            group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_what_is_said_of_others_attempts_and_files_beside_reports_is_dropped(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        before, attempt = found.snapshot(), found.assign.attempt
        await found.cam.say(Rejected(attempt, "Full", "not mine to reject"))
        await found.cam.say(Staged(1, "file://pi-1/etc/passwd", ArtifactRef(digest_of(b"x"), "text/plain", 1)))
        await found.cam.say(found.report())
        await fleet_event(found.channel, "peer_refused", code="ForeignAttempt")
        assert found.count("staged_unasked") == 1
        assert found.snapshot() == before


# Reading


@pytest.mark.anyio
async def test_a_worker_reads_the_inputs_of_its_attempts_and_nothing_else(
    tmp_path: Path, entrance: EntranceSettings
) -> None:
    """Given: a result too large for a frame, a list of many results, a file that a value names. Not: anything else."""
    large, secret = b'"' + b"x" * 100_000 + b'"', b"somebody else's"
    named = b"named in a value"
    refs = {data: ArtifactRef(digest_of(data), "application/json", len(data)) for data in (large, named)}
    async with server(tmp_path, entrance=entrance) as (_, file), client(file) as channel:
        for data in (large, named, secret):
            await channel.put(digest_of(data), "application/json", once(data))
        async with worker(file) as pi, worker(file, "cam") as cam:

            async def makes(args: Any, _: HandWorker, assign: Assign) -> Outcome | None:
                if args["value"] == "large":
                    return Success(refs[large])
                return Success(msgspec.json.encode(args["value"])) if assign.inputs == () else None

            pi.skills["flow.echo"] = cam.skills["flow.echo"] = makes
            tasks: list[dict[str, Any]] = [
                {"id": "large", "skill": "flow.echo", "args": {"value": "large"}},
                {"id": "named", "skill": "flow.echo", "args": {"value": {"literal": {"f": digest_of(named)}}}},
                {
                    "id": "user",
                    "skill": "flow.echo",
                    "args": {"value": [{"ref": "large"}, {"ref": "named"}]},
                    "on": ["pi-1"],
                },
            ]
            await submit(channel, {"schema": "asterism/plan/v1", "tasks": tasks})
            await pi.until(lambda: any(assign.inputs for assign in pi.assigns))
            async with line(file, pi.identity) as ours, line(file, cam.identity) as theirs:
                for data in (large, named):
                    assert b"".join([part async for part in ours.get(digest_of(data))]) == data
                    assert [one.data async for many in ours.get_many([digest_of(data)]) for one in many] in ([data], [])
                for reader, data in ((ours, secret), (theirs, named), (theirs, large), (theirs, secret)):
                    with pytest.raises(NotYours):
                        await anext(aiter(reader.get(digest_of(data))))
                    with pytest.raises(NotYours):
                        await anext(aiter(reader.get_many([digest_of(data)])))
                for reader in (ours, theirs):
                    with pytest.raises(NotYours):
                        await reader.invoke("stage", b'{"run":1,"uris":["file://cam/etc/passwd"]}')
            for name in ("pi-1", "cam"):
                assert await fleet_event(channel, "peer_refused", code="NotYours", source=f"worker:{name}")


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


# Roles


@asynccontextmanager
async def everybody(file: ServerFile) -> AsyncIterator[dict[Role, Channel]]:
    """A channel for each role that there is."""
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(client(file))
        found: dict[Role, Channel] = {"admin": owner}

        async def dialled(secret: str, tls: Tls | None) -> Channel:
            return await stack.enter_async_context(dial(file.address, secret, tls=tls))

        async def token(role: str) -> str:
            answer = await owner.invoke("token", msgspec.json.encode({"role": role, "uses": 0}))
            return str(msgspec.json.decode(answer)["secret"])

        stranger = Tls(file.tls.ca) if file.tls is not None else None
        for role in ("viewer", "submitter", "approver"):
            joining = await dialled(await token(role), stranger)
            answer, tls = await buy(joining, "connect", stranger, name=role)
            found[role] = await dialled(answer.get("secret", ""), tls)
        found["worker"] = await stack.enter_async_context(line(file, await enrolled(file, "pi-1")))
        found["join"] = await dialled(await token("viewer"), stranger)
        found["guest"] = await dialled("nonsense", stranger)
        yield found


async def attempted(channel: Channel, method: str) -> AsterismError | None:
    """What comes of calling it with a body that no method takes."""
    none = "sha256:" + "0" * 64
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "Link": channel.link,
        "Submit": lambda: channel.submit(b"[]", once(b"x")),
        "Put": lambda: channel.put("sha256:bad", "", once(b"x")),
        "Has": lambda: channel.has(none),
        "Get": lambda: anext(aiter(channel.get(none))),
        "PutMany": lambda: channel.put_many(_nothing()),
        "HasMany": lambda: channel.has_many([none]),
        "GetMany": lambda: anext(aiter(channel.get_many([none])), None),
        "events": lambda: anext(aiter(channel.watch("events", b"[]"))),
        "logs": lambda: anext(aiter(channel.watch("logs", b"[]"))),
    }
    try:
        found = await calls.get(method, lambda: channel.invoke(method, b"[]"))()
    except AsterismError as error:
        return error
    if method == "Link":
        await found.aclose()  # type: ignore[attr-defined]
    return None


async def _nothing() -> AsyncIterator[Any]:
    return
    yield


@pytest.mark.anyio
async def test_every_method_is_refused_to_every_role_that_its_row_does_not_name(
    tmp_path: Path, entrance: EntranceSettings
) -> None:
    async with server(tmp_path, entrance=entrance) as (_, file), everybody(file) as channels:
        assert set(channels) == set(get_args(Role))
        assert methods() <= set(ROLES)
        for method in ROLES:
            for role, channel in channels.items():
                error = await attempted(channel, method)
                if role == "guest" and isinstance(error, Unavailable):
                    continue  # too many tries: refused all the same
                refused = isinstance(error, NotAllowed) and not isinstance(error, NotYours)
                assert refused is not allowed(role, method), (method, role, error)
        await fleet_event(channels["admin"], "peer_refused", source="client:viewer", code="NotAllowed")


@pytest.mark.anyio
async def test_why_a_handshake_fails_is_told(tmp_path: Path) -> None:
    """gRPC shows each as a lost connection; asked as a stranger, the server says what it is."""
    async with server(tmp_path, entrance=TLS) as (_, file):
        mine, now = Authority.open(tmp_path / "server"), time.time()
        key = new_key()
        public = requested_key(request(key))
        other_key = new_key()
        other = make_ca("asterism", other_key, now)
        ada = "asterism://client/ada"
        reasons = {
            "has expired": make_peer(ada, public, mine.ca, mine._ca_key, now - 7200, 3600.0),
            "not good yet": make_peer(ada, public, mine.ca, mine._ca_key, now + 7200, 3600.0),
            "none that this server issued": make_peer(ada, public, other, other_key, now, 600.0),
        }
        for why, certificate in reasons.items():
            with pytest.raises(NotAllowed, match=why) as caught:
                async with dial_as(file.address, "", Tls(mine.ca, certificate, key)) as channel:
                    await channel.link()
            assert caught.value.hint
        with pytest.raises(NotAllowed, match="another CA"):
            async with dial_as(file.address, "", Tls(other, reasons["has expired"], key)) as channel:
                await channel.link()
        async with client(file) as channel:
            for code in ("Expired", "UnknownAuthority"):
                assert await fleet_event(channel, "peer_refused", code=code)
            old = msgspec.json.encode({"versions": [7, 9], "certificate": ""})
            with pytest.raises(VersionMismatch, match="7 to 9"):
                await channel.invoke("preflight", old)
            assert await channel.invoke("preflight", msgspec.json.encode({"versions": PROTOCOL_VERSIONS}))


@pytest.mark.anyio
async def test_a_stream_that_has_grown_old_is_ended_kindly(tmp_path: Path) -> None:
    async with server(tmp_path, entrance=EntranceSettings(tls=True, session_s=0.3)) as (_, file):
        async with worker(file) as pi, client(file) as channel:
            await pi.until(lambda: bool(pi.byes))
            assert (pi.byes[0].code, pi.byes[0].retry_after_s) == ("Old", 0.1)
            with pytest.raises(Unavailable, match="grown old"):
                async for _ in channel.watch("events", b'{"fleet":true,"follow":true}'):
                    pass


@pytest.mark.anyio
async def test_a_server_that_starts_again_knows_its_members_and_whom_it_sent_away(tmp_path: Path) -> None:
    async with server(tmp_path, entrance=TLS) as (_, file), everybody(file) as channels:
        assert file.tls is not None
        stranger = Tls(file.tls.ca)
        pi = await enrolled(file, "pi-2")

        async def token() -> dict[str, Any]:
            return msgspec.json.decode(await channels["admin"].invoke("token", b'{"role":"viewer","uses":0}'))

        first, second = await token(), await token()
        bought: list[Tls | None] = []
        for name, made, before in (("ada", first, 0), ("bob", first, 1), ("bob", second, 2)):
            async with dial(file.address, made["secret"], tls=stranger) as channel:
                ours = bought[before - 1] if before == 2 else None
                bought.append((await buy(channel, "connect", stranger, before=ours, name=name))[1])
        async with dial(file.address, first["secret"], tls=stranger) as channel:
            with pytest.raises(NotAllowed, match="another's name"):
                await buy(channel, "connect", stranger, name="bob")
        await channels["admin"].invoke("revoke", msgspec.json.encode({"token": int(first["token"][1:])}))
    async with server(tmp_path, entrance=TLS) as (_, again):
        assert again.tls is not None
        assert again.tls.ca == file.tls.ca
        async with dial(again.address, "", tls=bought[0]) as ada, dial(again.address, "", tls=bought[2]) as bob:
            with pytest.raises(NotAllowed, match="revoked"):
                await ada.invoke("ps", b"{}")
            assert await bob.invoke("ps", b"{}"), "bought again with a token that is still good"
        async with line(again, pi) as channel:
            assert await channel.invoke("info", b"{}")
        with pytest.raises(NotAllowed, match="no credential"):
            async with dial(again.address, parse_join(file.join).token, tls=stranger) as channel:
                await channel.invoke("enroll", b"{}")


@pytest.mark.anyio
async def test_of_two_that_want_one_name_at_once_one_has_it(tmp_path: Path) -> None:
    async with server(tmp_path, entrance=TLS) as (_, file), client(file) as owner:
        assert file.tls is not None
        stranger, secret = Tls(file.tls.ca), parse_join(file.join).token
        bought: list[Tls | None] = []
        async with dial(file.address, secret, tls=stranger) as channel:

            async def enrol() -> None:
                try:
                    bought.append((await buy(channel, "enroll", stranger, name="pi-3"))[1])
                except NotAllowed:
                    bought.append(None)

            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(enrol)
        good = 0
        for tls in bought:
            if tls is not None:
                async with dial(file.address, "", tls=tls) as channel:
                    error = await attempted(channel, "info")
                    good += not isinstance(error, NotAllowed)
        assert good == 1
        assert await owner.invoke("info", b"{}")
