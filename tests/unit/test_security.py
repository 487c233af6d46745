"""Credentials, roles and private files: deny by default, secrets nowhere but where they belong."""

from __future__ import annotations

import stat
import typing
from pathlib import Path

import pytest

from protocol.codec import METHODS
from protocol.errors import ConfigInvalid, Conflict, NotAllowed, NotFound, UsageError
from protocol.security import (
    ROLES,
    Identity,
    Join,
    Keyring,
    Principal,
    Role,
    ServerFile,
    allowed,
    bearer,
    claim,
    forget_server,
    home,
    is_loopback,
    load_identity,
    load_server,
    new_secret,
    parse_join,
    read_private,
    same_secret,
    save_identity,
    save_server,
    secret_hash,
    write_private,
)

SERVER = ServerFile("127.0.0.1:7000", 4711, "token", "j" * 32, 12.5, "0.1.0")


def test_every_rpc_has_a_row_and_every_row_names_known_roles() -> None:
    assert set(METHODS) - {"Invoke", "Watch"} == {name for name in ROLES if name[0].isupper()}
    known = set(typing.get_args(Role))
    for method, roles in ROLES.items():
        assert roles, method
        assert roles <= known, method


def test_what_has_no_row_is_allowed_to_nobody() -> None:
    for role in typing.get_args(Role):
        assert not allowed(role, "nonsense")
        assert not allowed(role, "")
    assert not allowed("root", "ps")


def test_roles_open_what_they_should() -> None:
    assert allowed("viewer", "ps")
    assert not allowed("viewer", "Submit")
    assert not allowed("submitter", "approve")
    assert allowed("approver", "approve")
    assert not allowed("approver", "shutdown")
    assert {method for method in ROLES if allowed("worker", method)} == {
        "Link",
        "Put",
        "PutMany",
        "Has",
        "HasMany",
        "Get",
        "GetMany",
        "info",
        "stage",
        "renew",
        "echo",
        "preflight",
    }
    assert {method for method in ROLES if allowed("join", method)} == {"connect", "enroll", "preflight"}
    assert {method for method in ROLES if allowed("guest", method)} == {"preflight"}
    assert {method for method in ROLES if not allowed("admin", method)} == {"Link"}


def test_secrets_are_long_different_and_kept_as_hashes() -> None:
    one, other = new_secret(), new_secret()
    assert one != other
    assert len(one) >= 43
    assert same_secret(one, secret_hash(one))
    assert not same_secret(other, secret_hash(one))
    assert one not in secret_hash(one)


def test_a_keyring_knows_its_own_and_nobody_else() -> None:
    ring, secret, who = Keyring(), new_secret(), Principal("pi-1", "worker", 3)
    ring.add(secret_hash(secret), who)
    assert ring.authenticate({"authorization": bearer(secret)}) == who
    assert ring.authenticate({"authorization": f"bearer  {secret} "}) == who
    for sent in ("", secret, "Bearer ", "Bearer", f"Basic {secret}", bearer(secret_hash(secret)), "Bearer \ud800"):
        assert ring.authenticate({"authorization": sent}) is None
    assert ring.authenticate({}) is None
    with pytest.raises(UsageError):
        bearer("sécret")
    ring.remove(secret_hash(secret))
    ring.remove(secret_hash(secret))
    assert ring.authenticate({"authorization": bearer(secret)}) is None


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.9.1:7000", "[::1]:7000", "localhost:1", "unix:/run/a.sock"])
def test_addresses_of_this_machine(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1", "[::]:1", ":1", "10.0.0.1:1", "localhost.evil:1", "127.0.0.1.evil:1", "example.org:1", "x"]
)
def test_addresses_that_others_can_reach(address: str) -> None:
    assert not is_loopback(address)


def test_a_join_string_says_what_it_was_made_from() -> None:
    for join in (Join("127.0.0.1:7000", "tok-en_"), Join("[::1]:7", "t", "ab" * 32)):
        assert parse_join(f" {join}\n") == join


@pytest.mark.parametrize("text", ["", "x", "/secret", "host/secret-token", "host:1/", "host:1/.ca"])
def test_what_is_no_join_string_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_join(text)
    assert "secret" not in str(caught.value)


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASTERISM_HOME", str(tmp_path / "x"))
    assert home() == tmp_path / "x"
    monkeypatch.delenv("ASTERISM_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert home() == tmp_path / "asterism"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".local/state/asterism"


def test_private_files_are_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "secret"
    write_private(path, b"one")
    write_private(path, b"two")
    assert read_private(path) == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["secret"]


def test_a_secret_that_others_can_read_or_a_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, b"x")
    path.chmod(0o640)
    with pytest.raises(NotAllowed, match="others"):
        read_private(path)
    path.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(NotAllowed):
        read_private(link)
    with pytest.raises(NotFound):
        read_private(tmp_path / "absent")


def test_server_and_identity_files_come_back(tmp_path: Path) -> None:
    assert load_server(tmp_path) is None
    save_server(tmp_path, SERVER)
    assert load_server(tmp_path) == SERVER
    forget_server(tmp_path, 1)
    assert load_server(tmp_path) == SERVER
    forget_server(tmp_path, SERVER.pid)
    assert load_server(tmp_path) is None
    identity = Identity(3, "pi-1", "secret", "127.0.0.1:7000")
    assert load_identity(tmp_path / "workers/pi-1") is None
    save_identity(tmp_path / "workers/pi-1", identity)
    assert load_identity(tmp_path / "workers/pi-1") == identity
    write_private(tmp_path / "server.json", b"{")
    with pytest.raises(ConfigInvalid):
        load_server(tmp_path)


def test_one_identity_one_holder(tmp_path: Path) -> None:
    with claim(tmp_path / "w" / "lock"):
        with pytest.raises(Conflict), claim(tmp_path / "w" / "lock"):
            pass
    with claim(tmp_path / "w" / "lock"):
        pass
