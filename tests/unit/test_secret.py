"""Secrets by reference: who may have one, where it comes from, and that no form of it gets past the redaction."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulated_worker import SimulatedCallRefused, SimulatedJob
from bench.simulator import Simulator
from protocol.errors import PlanRefused, SecretDenied, SecretMissing
from protocol.outcome import Failure, Success
from protocol.plan import parse_plan
from protocol.schema import check
from protocol.task import secrets_in, substitute
from workers.redaction import Redactor
from workers.secret import Secrets, without_secrets

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=8, max_size=40)


def test_reference_is_data_and_a_value_never_names_one() -> None:
    args = {"a": {"secret": "TOKEN"}, "b": {"literal": {"secret": "TOKEN"}}, "c": {"ref": "up"}}
    assert list(secrets_in(args)) == ["TOKEN"]
    found = substitute(args, {"up": {"secret": "TOKEN"}}, {"TOKEN": "value"})
    assert found == {"a": "value", "b": {"secret": "TOKEN"}, "c": {"secret": "TOKEN"}}
    assert substitute(args, {"up": 1})["a"] == "TOKEN"


def test_plan_may_name_a_secret_but_not_anyhow() -> None:
    task = {"id": "a", "skill": "http.get", "args": {"url": "https://x", "headers": {"x-key": {"secret": "API_KEY"}}}}
    assert parse_plan({"tasks": [task]}).tasks
    for name in ("lower", "", "A-B", 7, None, {"ref": "input/x"}, "A" * 65):
        with pytest.raises(PlanRefused, match="secret is named"):
            parse_plan({"tasks": [{"id": "a", "skill": "http.get", "args": {"url": {"secret": name}}}]})
    assert not check({"type": "string"}, {"secret": "API_KEY"}, refs=True)
    assert check({"type": "string"}, {"secret": "API_KEY"})


def test_only_a_persons_plan_names_secrets() -> None:
    def parent(job: SimulatedJob) -> Iterator[Any]:
        for name, value in (("x", {"secret": "TOKEN"}), ("y", {"plain": "TOKEN"})):
            tasks = [{"id": name, "skill": "sim.work", "args": {"value": value}}]
            with nullcontext() if name == "y" else pytest.raises(SimulatedCallRefused):
                yield ("propose", {"patch": {"tasks": tasks}})
        return {"value": 1}

    sim = Simulator(program={"a": parent})
    sim.submit({"tasks": [{"id": "a", "skill": "sim.work", "args": {"value": 1}}]})
    sim.settle()
    assert set(sim.states()) == {"a", "y"}


def test_secret_comes_from_the_environment_or_a_private_file(tmp_path: Path) -> None:
    heard: list[tuple[str, str]] = []
    (tmp_path / "FILED").write_text("from the file\n")
    (tmp_path / "FILED").chmod(0o600)
    (tmp_path / "OPEN").write_text("everybody reads me")
    (tmp_path / "OPEN").chmod(0o644)
    (tmp_path / "LINK").symlink_to(tmp_path / "FILED")
    (tmp_path / "PIN").write_text("1234")
    (tmp_path / "PIN").chmod(0o600)
    environ = {"ASTERISM_SECRET_GIVEN": "from outside", "ASTERISM_JOIN": "join-me", "HOME": "/h"}
    names = ("FILED", "GIVEN", "OPEN", "LINK", "PIN", "NONE")
    allow = dict.fromkeys(names, ("http.*",))
    secrets = Secrets(allow, tmp_path, environ, lambda name, value: heard.append((name, value)))
    assert secrets.of(["FILED", "GIVEN"], "http.get") == {"FILED": "from the file", "GIVEN": "from outside"}
    assert ("GIVEN", "from outside") in heard
    assert ("FILED", "from the file") in heard
    for name in ("OPEN", "LINK", "PIN", "UNLISTED"):
        with pytest.raises(SecretDenied):
            secrets.of([name], "http.get")
    with pytest.raises(SecretMissing):
        secrets.of(["NONE"], "http.get")
    with pytest.raises(SecretDenied, match="may not have"):
        secrets.of(["GIVEN"], "process.run")
    assert without_secrets(environ) == {"HOME": "/h"}


@given(VALUE, TEXT, TEXT)
def test_no_usual_form_of_a_secret_gets_through(value: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.add("TOKEN", value)
    around = f"{before}{value}{after}"
    raw = around.encode()
    for text in (
        around,
        json.dumps(around),
        json.dumps(around, ensure_ascii=False),
        json.dumps(json.dumps(around)),
        quote(around),
        quote(around, safe=""),
        quote_plus(around),
        raw.hex(),
        raw.hex().upper(),
        repr(around) if "'" not in value else around,
    ):
        assert "[secret TOKEN]" in redactor.text(text)
        assert value not in redactor.text(text)
        assert redactor.clean(text.encode()) == redactor.text(text).encode()
    for coded in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
        assert b"[secret TOKEN]" in redactor.clean(coded)


def test_marks_keep_json_json_and_reach_every_part_of_an_outcome() -> None:
    redactor = Redactor()
    redactor.add("TOKEN", 'q"uo\\te')
    value = msgspec.json.encode({"deep": ['q"uo\\te', "x"]})
    assert redactor.outcome(Success(value)) == Success(b'{"deep":["[secret TOKEN]","x"]}')
    failure = Failure("Bad", 'no q"uo\\te', "permanent", 'Traceback ... q"uo\\te', 'try q"uo\\te')
    assert "uo" not in str(redactor.outcome(failure))


def test_key_is_known_line_by_line_and_a_short_value_not_at_all() -> None:
    redactor = Redactor()
    key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\nCCqGSM49AwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----\n"
    redactor.add("key", key)
    redactor.add("short", "1234")
    assert redactor.text("MIGHAgEAMBMGByqGSM49AgEG and 1234") == "[secret key] and 1234"
    assert redactor.text("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


def test_secret_is_found_in_a_file_across_its_blocks(tmp_path: Path) -> None:
    redactor = Redactor()
    redactor.add("TOKEN", "canary-value")
    data = b"x" * ((1 << 20) - 5) + b"canary-value" + b"y" * 100
    assert redactor.found_in(io.BytesIO(data)) == "[secret TOKEN]"
    assert redactor.found_in(io.BytesIO(data.replace(b"canary", b"parrot"))) == ""


def test_credentials_of_this_machine_are_known_from_the_start(tmp_path: Path) -> None:
    home = tmp_path
    (home / "workers" / "pi").mkdir(parents=True)
    (home / "server").mkdir()
    for path, text in (
        (
            "server.json",
            '{"token": "server-token", "tls": {"key": "-----BEGIN PRIVATE KEY-----\\nserver-key-lines\\n"}}',
        ),
        ("workers/pi/identity.json", '{"secret": "worker-secret"}'),
        ("server/ca.key", "-----BEGIN PRIVATE KEY-----\nauthority-key-line\n-----END PRIVATE KEY-----\n"),
    ):
        (home / path).write_text(text)
        (home / path).chmod(0o600)
    redactor = Redactor()
    redactor.add_home(home)
    redactor.add_environment({"OPENAI_API_KEY": "sk-canary", "PATH": "/usr/bin", "MY_DB_PASSWORD": "opensesame"})
    said = "server-token worker-secret authority-key-line server-key-lines sk-canary opensesame /usr/bin"
    assert redactor.text(said).count("[secret") == 6
    assert redactor.text(said).endswith("/usr/bin")
