"""Settings: which layer wins, where a value came from, and that a typo is not silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.config import load
from protocol.errors import ConfigInvalid


def sources(tmp_path: Path, **layers: str) -> tuple[object, str]:
    """The value and the source of run.deadline with these layers written."""
    (tmp_path / "xdg" / "asterism").mkdir(parents=True)
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    if "xdg" in layers:
        (tmp_path / "xdg" / "asterism" / "config.toml").write_text(f'[run]\ndeadline = "{layers["xdg"]}"\n')
    if "pyproject" in layers:
        text = f'[tool.asterism.run]\ndeadline = "{layers["pyproject"]}"\n'
        (tmp_path / "pyproject.toml").write_text(text)
    if "file" in layers:
        (tmp_path / "asterism.toml").write_text(f'[run]\ndeadline = "{layers["file"]}"\n')
    if "environ" in layers:
        environ["ASTERISM_RUN__DEADLINE"] = layers["environ"]
    flags = {"run.deadline": layers.get("flag")}
    found = load(flags, environ, tmp_path)
    return found.settings.run.deadline, next(source for key, _, source in found.leaves() if key == "run.deadline")


ORDER = ["xdg", "pyproject", "file", "environ", "flag"]


@pytest.mark.parametrize("strongest", range(len(ORDER)))
def test_the_stronger_layer_wins(tmp_path: Path, strongest: int) -> None:
    layers = {name: f"{n + 1}s" for n, name in enumerate(ORDER[: strongest + 1])}
    value, source = sources(tmp_path, **layers)
    assert value == strongest + 1
    names = [str(tmp_path / "xdg" / "asterism" / "config.toml"), "pyproject.toml", "asterism.toml"]
    assert source == [*names, "ASTERISM_RUN__DEADLINE", "flag --deadline"][strongest]


def test_without_any_layer_the_default_holds(tmp_path: Path) -> None:
    assert sources(tmp_path) == (0.0, "default")


def test_a_flag_that_was_not_given_sets_nothing(tmp_path: Path) -> None:
    assert load({"server": None}, {}, tmp_path).sources == {}


def test_numbers_and_lists_are_read_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "ASTERISM_RUN__BUDGET__TOKENS": "20000",
        "ASTERISM_HERE__ROOTS": "a, b",
        "ASTERISM_HERE__SKILLS": '["c"]',
    }
    settings = load({}, environ, tmp_path).settings
    assert settings.run.budget.tokens == 20000
    assert settings.here.roots == ("a", "b")
    assert settings.here.skills == ("c",)


def test_variables_that_are_no_settings_are_left_alone(tmp_path: Path) -> None:
    assert load({}, {"ASTERISM_DEBUG": "1", "ASTERISM_JOIN": "secret"}, tmp_path).sources == {}


def test_a_typo_in_a_file_is_refused_with_the_nearest_key(tmp_path: Path) -> None:
    (tmp_path / "asterism.toml").write_text("[run]\ndedline = 3\n")
    with pytest.raises(ConfigInvalid) as caught:
        load({}, {}, tmp_path)
    assert "run.dedline" in caught.value.message
    assert "run.deadline" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "named"),
    [("run = [", "TOML"), ("[run]\ndeadline = 'soon'\n", "run.deadline"), ("[here]\nslots = -1\n", "here.slots")],
)
def test_what_cant_be_read_is_refused_and_names_its_place(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "asterism.toml").write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        load({}, {}, tmp_path)
    assert named in caught.value.message
    assert "asterism.toml" in caught.value.where


def test_a_table_where_a_value_belongs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "asterism.toml").write_text("[server]\naddress = 'x'\n")
    with pytest.raises(ConfigInvalid):
        load({}, {}, tmp_path)


def test_every_setting_is_listed_with_its_source(tmp_path: Path) -> None:
    found = {key: source for key, _, source in load({"server": "127.0.0.1:1"}, {}, tmp_path).leaves()}
    assert found["server"] == "flag --server"
    assert found["run.budget.price"] == "default"


def test_a_setting_that_is_a_table_keeps_keys_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "asterism.toml").write_text('[sandbox]\nskills = {"render.*" = "bubblewrap"}\n')
    environ = {"ASTERISM_SECRETS__ALLOW": '{"GITHUB": ["http.*"]}'}
    settings = load({}, environ, tmp_path).settings
    assert settings.sandbox.skills == {"render.*": "bubblewrap"}
    assert settings.secrets.allow == {"GITHUB": ("http.*",)}


@pytest.mark.parametrize("text", ['[secrets]\nallow = {A = ["*"]}\n', '[http]\nallow = ["10.0.0.0/8"]\n'])
def test_a_project_opens_no_door_of_its_user(tmp_path: Path, text: str) -> None:
    (tmp_path / "asterism.toml").write_text(text)
    with pytest.raises(ConfigInvalid, match="a project may not decide"):
        load({}, {}, tmp_path)
    (tmp_path / "asterism").mkdir()
    (tmp_path / "asterism" / "config.toml").write_text(text)
    (tmp_path / "asterism.toml").unlink()
    load({}, {"XDG_CONFIG_HOME": str(tmp_path)}, tmp_path)
