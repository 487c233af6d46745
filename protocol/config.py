"""Layered settings with their sources.

    flag > ASTERISM_* (`__` nests) > ./asterism.toml > [tool.asterism] in ./pyproject.toml
         > $XDG_CONFIG_HOME/asterism/config.toml > /etc/asterism/config.toml > default

Each leaf remembers where its value came from, so `asterism config view --sources` can say it. A key that no setting
has is an error in a file (a typo must not be silent) and ignored in the environment (which also carries what is no
setting). Secrets are not settings: they come by their own variables and files and are never shown.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from .errors import ConfigInvalid
from .setting import Section, Settings
from .toml_text import read_toml

PREFIX: Final = "ASTERISM_"
DEFAULT: Final = "default"
PERSONAL: Final = ("secrets.", "http.", "policy.", "llm.")
"""What a project's own file may not set: it may come from anybody, and these open doors of its user."""
ALIASES: Final = {"OPENAI_BASE_URL": "llm.base_url", "ASTERISM_MODEL": "llm.model"}
"""Variables known by other names; a setting's own variable is stronger."""


class Config(Section):
    """The merged settings, and by dotted key the layer that set it (absent: the default)."""

    settings: Settings
    sources: dict[str, str]

    def leaves(self) -> Iterator[tuple[str, Any, str]]:
        """(dotted key, value, source) of every setting, in declared order."""
        for key, value in _leaves(self.settings.model_dump(mode="json")):
            yield key, value, self.sources.get(key, DEFAULT)


def load(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> Config:
    """Read all layers. `flags` are dotted keys; None values were not given. Raises: ConfigInvalid, naming the layer."""
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, layer in _layers(flags or {}, environ, folder or Path.cwd()):
        for key, value in layer.items():
            merged[key] = value
            sources[key] = name
    tree: dict[str, Any] = {}
    for key, value in merged.items():
        _plant(tree, key.split("."), value)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise _invalid(error, sources) from None
    return Config(settings=settings, sources=sources)


def _layers(flags: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The layers from the weakest to the strongest, each as dotted leaves."""
    xdg = Path(environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    for path in (Path("/etc/asterism/config.toml"), xdg / "asterism" / "config.toml"):
        yield str(path), _from_file(path)
    yield "pyproject.toml", _of_project(folder / "pyproject.toml", ("tool", "asterism"))
    yield "asterism.toml", _of_project(folder / "asterism.toml")
    for key, name, text in _from_environment(environ):
        yield name, {key: text}
    for key, value in flags.items():
        if value is not None:
            yield f"flag --{key.rpartition('.')[2].replace('_', '-')}", {key: value}


def _of_project(path: Path, table: tuple[str, ...] = ()) -> dict[str, Any]:
    leaves = _from_file(path, table)
    for key in leaves:
        if key.startswith(PERSONAL):
            raise ConfigInvalid(
                f"{path} sets {key}, which a project may not decide",
                hint="move it to ~/.config/asterism/config.toml",
                where=str(path),
            )
    return leaves


def _from_file(path: Path, table: tuple[str, ...] = ()) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:  # what it forbids can't be known: nothing goes on without it
        raise ConfigInvalid(
            f"{path} can't be read: {error.strerror}", hint="let this user read it, or move it away", where=str(path)
        ) from None
    except UnicodeDecodeError:
        raise ConfigInvalid(f"{path} is not UTF-8 text", hint="save it as UTF-8", where=str(path)) from None
    try:
        data: Any = read_toml(text)
    except ValueError as error:
        raise ConfigInvalid(f"{path} is not TOML: {error}", hint="mend that line", where=str(path)) from None
    for key in table:
        data = data.get(key, {}) if isinstance(data, dict) else {}
    leaves = dict(_leaves(data))
    known = _known()
    for key in leaves:
        if key not in known:
            raise ConfigInvalid(f"{path} sets {key}, which is no setting", hint=_nearest(key, known), where=str(path))
    return leaves


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    known = _known()
    for name, key in ALIASES.items():
        if environ.get(name):
            yield key, name, environ[name]
    for name in sorted(environ):
        key = name.removeprefix(PREFIX).replace("__", ".").lower()
        if name.startswith(PREFIX) and key in known:
            yield key, name, _environment_value(environ[name], known[key])


def _environment_value(text: str, default: Any) -> Any:
    """A list is JSON or comma-separated, a table JSON; the rest is left to the model, which reads numbers from text."""
    if isinstance(default, dict):
        try:
            return json.loads(text)
        except ValueError:
            return text
    if not isinstance(default, list):
        return text
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return [text]
    return [part.strip() for part in text.split(",") if part.strip()]


def _known() -> dict[str, Any]:
    return dict(_leaves(Settings().model_dump(mode="json")))


_TABLES: Final = (
    "policy.skills",
    "sandbox.skills",
    "secrets.allow",
    "llm.extra",
    "device.price",
    "device.watts",
    "fair.shares",
)
"""Settings that are a table as a whole: its keys are a person's own."""


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and f"{prefix}{key}" not in _TABLES:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plant(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else "asterism config view lists every setting"


def _invalid(error: ValidationError, sources: Mapping[str, str]) -> ConfigInvalid:
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    key = ".".join(parts)
    while parts and ".".join(parts) not in sources:
        parts.pop()
    source = sources.get(".".join(parts) or key, "the settings")
    message = str(first["msg"]).removeprefix("Value error, ")
    return ConfigInvalid(f"{key} from {source}: {message}", hint=f"correct {key} in {source}", where=source)
