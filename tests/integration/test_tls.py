"""Servers that other machines reach: real processes over mTLS, on a cable of their own where we may make one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from protocol.authority import Authority
from protocol.certificate import make_peer, request, requested_key
from protocol.errors import NotAllowed
from protocol.membership import dial_as
from protocol.security import Tls, load_client, load_identity, load_server, parse_join, save_client, save_identity
from tests.integration import network
from tests.integration.test_command import Shell, end, worker
from workers.identity import Credential, obtain


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A server with TLS and a worker that bought its certificate with the join string, from a home of its own."""
    folder = tmp_path_factory.mktemp("tls")
    shell = Shell(folder, folder / "home")
    join = shell.json("server", "start", "--detach", "--tls")["join"]
    far = Shell(folder, folder / "far")
    process = worker(far, "w1", join=join)
    yield shell
    end(process)
    shell.run("server", "stop")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def shell(served: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, served.home)


def address(home: Path) -> str:
    found = load_server(home)
    assert found is not None
    return found.address


def test_work_goes_to_a_worker_over_tls_and_a_client_brings_its_own(shell: Shell) -> None:
    assert shell.json("call", "sys.info", "--on", "w1")["tasks"]["call"]["worker"] == "w1"
    report = shell.json("call", "sys.info", "--on", "here")
    assert report["tasks"]["call"]["worker"] == "here"


def test_the_owners_file_holds_a_certificate_and_no_token_and_the_journal_no_key(shell: Shell) -> None:
    found = load_server(shell.home)
    assert found is not None
    assert found.tls is not None
    assert not found.token
    identity = load_identity(shell.home.parent / "far" / "workers" / "w1")
    assert identity is not None
    assert identity.tls is not None
    assert not identity.secret
    secret = parse_join(found.join).token.encode()
    for path in (shell.home / "server").rglob("*"):
        if path.is_file() and path.name != "ca.key":
            assert secret not in path.read_bytes(), path
            assert b"PRIVATE KEY" not in path.read_bytes(), path


def test_a_client_connects_with_a_token_and_its_commands_work_from_that_home(shell: Shell, tmp_path: Path) -> None:
    join = shell.json("token", "create", "--role", "viewer")["join"]
    away = tmp_path / "away"
    server = address(shell.home)
    assert shell.json("connect", server, "--name", "ada", stdin=join + "\n", home=away)["role"] == "viewer"
    assert shell.json("ps", "--server", server, home=away)["runs"] is not None
    refused = shell.json("cancel", "last", "--server", server, home=away, code=4)
    assert refused["error"]["code"] == "NotAllowed"
    token = next(row for row in shell.json("token", "list")["tokens"] if row["role"] == "viewer" and row["clients"])
    shell.json("token", "revoke", token["token"])
    ended = shell.json("ps", "--server", server, home=away, code=4)
    assert "revoked" in ended["error"]["message"]


def test_the_join_string_of_a_start_buys_workers_only(shell: Shell, tmp_path: Path) -> None:
    found = load_server(shell.home)
    assert found is not None
    refused = shell.json("connect", found.address, stdin=found.join + "\n", home=tmp_path / "x", code=4)
    assert "for workers" in refused["error"]["message"]


def test_a_token_of_another_authority_never_leaves_this_machine(shell: Shell, tmp_path: Path) -> None:
    join = shell.json("token", "create", "--role", "viewer")["join"]
    other = join[:-4] + ("0000" if join[-4:] != "0000" else "1111")
    refused = shell.json("connect", address(shell.home), stdin=other + "\n", home=tmp_path / "x", code=4)
    assert "its CA differs" in refused["error"]["message"]
    assert (
        shell.json("connect", address(shell.home), "--name", "bob", stdin=join + "\n", home=tmp_path / "x")["role"]
        == "viewer"
    )


def test_a_server_without_tls_is_told_apart(shell: Shell, tmp_path: Path) -> None:
    plain = Shell(tmp_path, tmp_path / "plain")
    try:
        listening = plain.json("server", "start", "--detach")["address"]
        join = f"{listening}/{'a' * 43}.{'b' * 64}"
        refused = plain.json("connect", listening, stdin=join + "\n", home=tmp_path / "x", code=5)
        assert "TLS" in refused["error"]["message"]
    finally:
        plain.run("server", "stop")


def test_a_half_worn_certificate_is_renewed_by_the_next_command(shell: Shell, tmp_path: Path) -> None:
    join, server, away = shell.json("token", "create", "--role", "viewer")["join"], address(shell.home), tmp_path / "a"
    shell.json("connect", server, "--name", "cleo", stdin=join + "\n", home=away)
    first = load_client(away, server)
    assert first is not None
    with pytest.MonkeyPatch.context() as patch:
        later = time.time() + 16 * 86400
        patch.setattr(time, "time", lambda: later)
        shell.json("ps", "--server", server, home=away)
    second = load_client(away, server)
    assert second is not None
    assert first.tls is not None
    assert second.tls is not None
    assert second.tls.certificate != first.tls.certificate
    assert second.tls.key == first.tls.key


def test_why_a_certificate_is_refused_is_said(shell: Shell, tmp_path: Path) -> None:
    """A server set up anew has another CA: every handshake fails, and the command says which file is to blame."""
    join, server, away = shell.json("token", "create", "--role", "viewer")["join"], address(shell.home), tmp_path / "a"
    shell.json("connect", server, "--name", "dan", stdin=join + "\n", home=away)
    kept = load_client(away, server)
    assert kept is not None
    fresh = Shell(tmp_path, tmp_path / "fresh")
    try:
        listening = fresh.json("server", "start", "--detach", "--tls")["address"]
        save_client(away, type(kept)(listening, kept.name, kept.role, tls=kept.tls))
        refused = fresh.json("ps", "--server", listening, home=away, code=4)
        assert "another CA" in refused["error"]["message"]
    finally:
        fresh.run("server", "stop")


def test_files_that_stand_in_a_large_value_of_another_machine_are_read(shell: Shell) -> None:
    """The list is an artifact by then: only what stands in it may be asked for, whatever its name looks like."""
    folder = shell.home.parent / "w1"
    for number in range(160):
        (folder / f'{number} "quoted" \N{SNOWMAN} {"x" * 200}.txt').write_text(f"{number}\n")
    found = {"id": "find", "skill": "fs.find", "args": {"path": str(folder), "glob": "*.txt"}, "on": ["w1"]}
    count = {"skill": "text.count", "args": {"file": {"ref": "find/files[]/file"}}, "on": ["here"]}
    total = {"id": "all", "skill": "flow.list", "args": {"items": {"ref": "count"}}, "on": ["w1"]}
    name = shell.write("plan.json", {"tasks": [found, {"id": "count", **count}, total]})
    report = shell.json("run", "-f", name)
    assert report["state"] == "succeeded", report
    assert report["tasks"]["count"]["children"] == {"succeeded": 160}


def test_doctor_says_how_old_the_certificates_are(shell: Shell, tmp_path: Path) -> None:
    join, server, away = shell.json("token", "create", "--role", "viewer")["join"], address(shell.home), tmp_path / "a"
    shell.json("connect", server, "--name", "eve", stdin=join + "\n", home=away)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASTERISM_SERVER", server)
        found = {one["name"]: one for one in json.loads(shell.run("doctor", "-o", "json", home=away).stdout)["checks"]}
    assert "good for" in found["tls"]["found"]
    assert found[f"client of {server}"]["level"] == "ok"
    later = time.time() + 40 * 86400
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: later)
        found = {one["name"]: one for one in json.loads(shell.run("doctor", "-o", "json", home=away).stdout)["checks"]}
    assert found[f"client of {server}"]["found"] == "the certificate has expired"


def test_streams_that_have_grown_old_are_opened_anew_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASTERISM_DAEMON__SESSION_AGE", "1s")
    shell = Shell(tmp_path, tmp_path / "home")
    try:
        process = worker(
            Shell(tmp_path, tmp_path / "far"), "w1", join=shell.json("server", "start", "--detach", "--tls")["join"]
        )
        try:
            report = shell.json("call", "flow.sleep", "seconds=3", "--on", "w1")
            assert report["state"] == "succeeded"
            assert report["tasks"]["call"]["attempts"] == 1
            assert report["recovered"]["lost"] == 0
        finally:
            end(process)
    finally:
        shell.run("server", "stop")


@pytest.mark.anyio
async def test_a_worker_renews_what_is_half_worn_and_keeps_its_key(shell: Shell) -> None:
    folder = shell.home.parent / "far" / "workers" / "w1"
    first = load_identity(folder)
    assert first is not None
    assert first.tls is not None
    credential = Credential(shell.home.parent / "nowhere", folder, first)
    with pytest.MonkeyPatch.context() as patch:
        later = time.time() + 16 * 86400
        patch.setattr(time, "time", lambda: later)
        async with anyio.create_task_group() as group:
            group.start_soon(credential.stay_fresh)
            with anyio.fail_after(20):
                while load_identity(folder) == first:
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    second = load_identity(folder)
    assert second is not None
    assert second.tls is not None
    assert second.tls.key == first.tls.key
    assert second.tls.certificate != first.tls.certificate


@pytest.mark.anyio
async def test_a_name_is_its_keys_until_an_admin_dismisses_it(shell: Shell, tmp_path: Path) -> None:
    """Another machine with a good token does not get it; the machine that holds the key does, with any address."""
    join = parse_join(await anyio.to_thread.run_sync(lambda: shell.run("token", "create", "--uses", "0").stdout))
    first, second = tmp_path / "first", tmp_path / "second"
    kept = (await obtain(first, "pi", join)).identity
    assert kept.tls is not None
    with pytest.raises(NotAllowed, match="another's name"):
        await obtain(second, "pi", join)
    folder = first / "workers" / "pi"
    save_identity(folder, msgspec.structs.replace(kept, address="127.0.0.1:1"))
    assert (await obtain(first, "pi", join)).identity == kept, "the server has moved: no other certificate"
    now, authority = time.time(), Authority.open(shell.home / "server")
    public = requested_key(request(kept.tls.key))
    expired = make_peer("asterism://worker/pi", public, authority.ca, authority._ca_key, now - 7200, 3600.0)
    old = msgspec.structs.replace(kept, tls=Tls(kept.tls.ca, expired, kept.tls.key))
    save_identity(folder, old)
    with pytest.raises(NotAllowed, match=r"(?s)has expired.*new join string"):
        async with dial_as(join.address, "", old.tls) as channel:
            await channel.link()
    again = (await obtain(first, "pi", join)).identity
    assert again.tls is not None
    assert again.tls.key == kept.tls.key
    assert again.tls.certificate != expired
    assert again.worker == kept.worker
    await anyio.to_thread.run_sync(lambda: shell.json("worker", "dismiss", "pi"))
    assert (await obtain(second, "pi", join)).identity.tls is not None


def test_a_worker_with_a_token_for_persons_is_told_so_in_two_lines(shell: Shell, tmp_path: Path) -> None:
    join = shell.json("token", "create", "--role", "viewer")["join"]
    process = Shell(tmp_path, tmp_path / "far").start("worker", "start", "--name", "pi-9", ASTERISM_JOIN=join)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 4
    assert said.splitlines() == [
        f"NotAllowed: the join token {said.split()[4]} is for the role viewer",
        "  fix: asterism connect HOST:PORT",
    ]


def test_a_worker_whose_token_is_revoked_is_sent_away_at_once(shell: Shell, tmp_path: Path) -> None:
    made = shell.json("token", "create")
    process = worker(Shell(tmp_path, tmp_path / "far"), "gone", join=made["join"])
    assert shell.json("token", "revoke", made["token"])["ended"] == 1
    process.stdin = None  # closed already
    _, said = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "revoked" in said


@pytest.mark.skipif(bool(network.available()), reason=network.available())
def test_a_worker_and_a_client_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shell, far = Shell(tmp_path, tmp_path / "home"), Shell(tmp_path, tmp_path / "far")
    with network.cable() as cable:
        far.prefix = cable.prefix
        try:
            join = shell.json("server", "start", "--detach", "--listen", "0.0.0.0:0", "--name", cable.here)["join"]
            assert join.startswith(f"{cable.here}:")
            process = worker(far, "far-1", join=join)
            try:
                assert shell.json("call", "sys.info", "--on", "far-1")["tasks"]["call"]["worker"] == "far-1"
                token = shell.json("token", "create", "--role", "submitter")["join"]
                there = token.partition("/")[0]
                done = subprocess.run(
                    [*cable.prefix, sys.executable, "-P", "-m", "asterism", "connect", there, "-o", "json"],
                    env=far.environ,
                    input=token,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                assert json.loads(done.stdout)["role"] == "submitter"
                done = subprocess.run(
                    [*cable.prefix, sys.executable, "-P", "-m", "asterism", "call", "sys.info", "--server", there],
                    env=far.environ,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
            finally:
                end(process)
        finally:
            shell.run("server", "stop")
