"""Which model server is used, with which key, and that the key is shown nowhere."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from protocol.chat_client import open_chat
from protocol.chat_endpoint import OPENAI_URL, Endpoint, find_endpoint
from protocol.config import load
from protocol.errors import AsterismError, ConfigInvalid, NotAllowed, UsageError
from protocol.setting import LlmDefaults

CANARY = "sk-canary-of-the-model"


def found(tmp_path: Path, base_url: str = "", **environ: str) -> Endpoint | None:
    return find_endpoint(LlmDefaults(base_url=base_url), {"ASTERISM_HOME": str(tmp_path), **environ})


def test_without_key_and_url_there_is_no_model(tmp_path: Path) -> None:
    assert found(tmp_path) is None
    with pytest.raises(UsageError, match="no model is set"):
        open_chat(LlmDefaults(), {"ASTERISM_HOME": str(tmp_path)})


def test_a_key_alone_means_openai_and_a_url_alone_needs_no_key(tmp_path: Path) -> None:
    with_key = found(tmp_path, OPENAI_API_KEY=f" {CANARY}\n")
    assert with_key is not None
    assert (with_key.base_url, with_key.authorization) == (OPENAI_URL, f"Bearer {CANARY}")
    without = found(tmp_path, "http://192.168.1.7:8000/v1/")
    assert without is not None
    assert (without.base_url, without.authorization) == ("http://192.168.1.7:8000/v1", "")


def test_the_key_may_lie_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "OPENAI_API_KEY"
    path.parent.mkdir()
    path.write_text(CANARY + "\n")
    path.chmod(0o644)
    with pytest.raises(NotAllowed, match="others may read"):
        found(tmp_path)
    path.chmod(0o600)
    kept = found(tmp_path)
    assert kept is not None
    assert kept.authorization == f"Bearer {CANARY}"


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:1/v1", "http://localhost/v1", "http://[::1]:1/v1", "https://a.b/v1"]
)
def test_a_key_may_go_to_this_machine_and_over_tls(tmp_path: Path, host: str) -> None:
    assert found(tmp_path, host, OPENAI_API_KEY=CANARY) is not None


@pytest.mark.parametrize(
    "host", ["http://192.168.1.7:8000/v1", "http://gpu.lan/v1", "http://localhost.evil.example/v1"]
)
def test_a_key_goes_nowhere_that_others_can_read_it(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigInvalid, match="plain HTTP") as caught:
        found(tmp_path, host, OPENAI_API_KEY=CANARY)
    assert "plain_key" in caught.value.hint
    assert find_endpoint(LlmDefaults(base_url=host, plain_key=True), {"OPENAI_API_KEY": CANARY}) is not None


@pytest.mark.parametrize(
    "url", ["", "gpu:8000", "ftp://a/v1", "http://", "http://a:b/v1", "http://[::1/v1", "https://a/v1?x=1", "file:///a"]
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigInvalid, match="base URL"):
        Endpoint(url)


def test_a_url_of_the_page_itself_is_refused_with_the_right_end() -> None:
    with pytest.raises(ConfigInvalid, match="one page") as caught:
        Endpoint("http://127.0.0.1/v1/chat/completions/")
    assert "/v1" in caught.value.hint


def test_a_url_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Endpoint(f"https://me:{CANARY}@a.b/v1")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "sk-é", "sk\x00", "'\r\nx-evil: 1"])
def test_a_key_that_is_none_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Endpoint(OPENAI_URL, key)
    assert key not in str(caught.value)


def test_a_key_is_in_no_repr_and_no_pickle() -> None:
    endpoint = Endpoint(OPENAI_URL, CANARY)
    assert CANARY not in f"{endpoint!r}{endpoint}"
    assert endpoint.hide(f"a {CANARY} b") == "a [key] b"
    assert endpoint.hide(f"cut: '{CANARY[:17]}'") == "cut: '[key]'"
    assert Endpoint(OPENAI_URL).hide("a b") == Endpoint(OPENAI_URL, "b").hide("a b").replace("[key]", "b") == "a b"
    with pytest.raises(TypeError):
        pickle.dumps(endpoint)


def test_the_usual_variables_are_settings_and_a_setting_s_own_is_stronger(tmp_path: Path) -> None:
    environ = {"OPENAI_BASE_URL": "http://a/v1", "ASTERISM_MODEL": "m", "XDG_CONFIG_HOME": str(tmp_path)}
    config = load(environ=environ, folder=tmp_path)
    assert (config.settings.llm.base_url, config.settings.llm.model) == ("http://a/v1", "m")
    assert config.sources["llm.base_url"] == "OPENAI_BASE_URL"
    config = load(environ={**environ, "ASTERISM_LLM__MODEL": "n"}, folder=tmp_path)
    assert (config.settings.llm.model, config.sources["llm.model"]) == ("n", "ASTERISM_LLM__MODEL")


def test_a_project_may_not_say_where_the_key_goes(tmp_path: Path) -> None:
    (tmp_path / "asterism.toml").write_text('[llm]\nbase_url = "https://evil.example/v1"\n')
    with pytest.raises(AsterismError, match="a project may not decide"):
        load(environ={"XDG_CONFIG_HOME": str(tmp_path)}, folder=tmp_path)
