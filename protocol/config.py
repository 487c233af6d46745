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
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import ConfigInvalid, UsageError
from .profile import Policies, Policy, strict
from .resource import size_bytes, span_s
from .skill import Level
from .toml_text import read_toml

PREFIX: Final = "ASTERISM_"
DEFAULT: Final = "default"
PERSONAL: Final = ("secrets.", "http.", "policy.", "llm.")
"""What a project's own file may not set: it may come from anybody, and these open doors of its user."""
ALIASES: Final = {"OPENAI_BASE_URL": "llm.base_url", "ASTERISM_MODEL": "llm.model"}
"""Variables known by other names; a setting's own variable is stronger."""

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetDefaults(_Section):
    """Caps that a run gets unless it says otherwise; 0 is the server's own default."""

    tasks: Count = 0
    attempts: Count = 0
    calls: Count = 0
    tokens: Count = 0
    price: Amount = 0.0
    wall: Amount = 0.0


class RunDefaults(_Section):
    """What `run` assumes where neither flags nor the plan say anything."""

    on_failure: Literal["", "continue", "stop", "replan"] = ""
    deadline: Amount = 0.0
    priority: int = 0
    budget: BudgetDefaults = BudgetDefaults()

    @field_validator("deadline", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class HereDefaults(_Section):
    """The temporary worker `here` that joins with each run. `slots` 0: one per core."""

    slots: Count = 0
    roots: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()


class ServerDefaults(_Section):
    """What `server start` assumes. `idle`: a private server ends itself after this long without work or client.

    `name`: what a server is called in join strings and its certificate; `tls`: also on loopback; `certificate_life`:
    how long a worker may stay away before it has to enrol again; `session_age`: when a stream is opened anew.
    """

    listen: str = "127.0.0.1:0"
    name: tuple[str, ...] = ()
    tls: bool = False
    certificate_life: Annotated[float, Field(ge=1)] = 30 * 86400.0
    session_age: Annotated[float, Field(ge=1)] = 86400.0
    dispatch: Literal["ahead", "durable"] = "ahead"
    idle: Amount = 300.0

    @field_validator("idle", "certificate_life", "session_age", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class PolicyDefaults(_Section):
    """What skills may do, for the server and for every worker of this machine. `skills`: patterns of names and a word
    each; of several that fit the most restrictive counts. `self_approval`: who submitted a run may approve its tasks.
    `untrusted`: what becomes of a task that was not in the plan, or whose sink holds a value of nobody's word.
    """

    default: Policy = "allow"
    skills: dict[str, Policy] = {}
    self_approval: bool = True
    untrusted: Literal["ask", "deny"] = "ask"

    def rules(self, allow: tuple[str, ...] = ()) -> Policies:
        """In the order in which they count; `allow` are patterns that were allowed beside."""
        rest: tuple[tuple[str, Policy], ...] = (("*", self.default),) if self.default != "allow" else ()
        return (*strict([*self.skills.items(), *((pattern, "allow") for pattern in allow)]), *rest)


class RetryDefaults(_Section):
    """How often a run may try again, so that an outage can't multiply its load: `floor` times, and `ratio` times for
    each task that succeeded. Work of lost workers is counted apart, against a budget of its own."""

    floor: Count = 100
    ratio: Amount = 0.2


class LendingDefaults(_Section):
    """How many tokens of a run's budget are lent at most to a planner's `call`, and to an `attempt` of a skill that
    spends: who finds nothing left to borrow waits, or does not start."""

    call: Annotated[int, Field(ge=1)] = 32_000
    attempt: Annotated[int, Field(ge=1)] = 16_000


class SandboxDefaults(_Section):
    """How workers of this machine hold skills. `skills`: patterns of names and the lowest level each gets."""

    minimum: Level = "none"
    maximum: Level = "bubblewrap"
    skills: dict[str, Level] = {}


class SecretDefaults(_Section):
    """Which skills may be handed which secret: names, and patterns of skills. Nobody otherwise."""

    allow: dict[str, tuple[str, ...]] = {}


class HttpDefaults(_Section):
    """What the skills of http may reach beside public addresses: HOST, HOST:PORT, ADDRESS, ADDRESS/BITS."""

    allow: tuple[str, ...] = ()


class LlmDefaults(_Section):
    """The language model of this machine, for its planner and its workers' skills. The key is no setting.

    `max_tokens`: of one answer. `first_token`, `stall`: how long the server may be silent, before and within an answer.
    Prices are per million tokens. `plain_key`: send the key also where others can read it on its way. `extra`: fields
    that only this server or model knows, added to each request as they are.
    """

    base_url: str = ""
    model: str = ""
    profile: Literal["auto", "openai", "vllm", "llama.cpp", "ollama", "generic"] = "auto"
    max_tokens: Annotated[int, Field(ge=1)] = 8192
    first_token: Annotated[float, Field(gt=0)] = 60.0
    stall: Annotated[float, Field(gt=0)] = 30.0
    price_in: Amount = 0.0
    price_out: Amount = 0.0
    plain_key: bool = False
    extra: dict[str, Any] = {}

    @field_validator("first_token", "stall", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class PlannerDefaults(_Section):
    """Who plans. `default` "": the model if there is one, else the catalog. `fallback`: who plans when the model can't.
    `examples`: at most so many earlier plans, and `shortlist`: so many skills, are shown to a model; `pinned` ones
    always: what joins others is in no request's words."""

    default: Literal["", "llm", "catalog"] = ""
    deadline: Annotated[float, Field(gt=0)] = 120.0
    fallback: Literal["catalog", "none"] = "catalog"
    examples: Count = 6
    shortlist: Annotated[int, Field(ge=1)] = 24
    pinned: tuple[str, ...] = ("data.sql", "flow.echo", "flow.list", "report.markdown")

    @field_validator("deadline", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class ReplanDefaults(_Section):
    """How far planners may change a run under way, where it doesn't say so itself (`run.replan`): `rounds` of
    re-planning; `edits` and new `tasks` of one call; `proposals`, goals that its running tasks may ask for. What hangs
    on a failure is held back for `claim` at most."""

    rounds: Count = 3
    edits: Count = 8
    tasks: Count = 6
    proposals: Count = 10
    claim: Annotated[float, Field(gt=0)] = 150.0

    @field_validator("claim", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class RetentionDefaults(_Section):
    """Which settled runs a server keeps: so many, so long, while its journal is no larger. 0 is no limit."""

    keep_runs: Count = 0
    days: Amount = 0.0
    max_bytes: Count = 0

    @field_validator("max_bytes", mode="before")
    @classmethod
    def _read_size(cls, value: Any) -> int:
        try:
            return size_bytes(value)
        except UsageError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None


class Settings(_Section):
    """Every setting there is. `server` is an address to use instead of the local server, `home` moves all files."""

    home: str = ""
    server: str = ""
    run: RunDefaults = RunDefaults()
    here: HereDefaults = HereDefaults()
    daemon: ServerDefaults = ServerDefaults()
    policy: PolicyDefaults = PolicyDefaults()
    retention: RetentionDefaults = RetentionDefaults()
    retry: RetryDefaults = RetryDefaults()
    lending: LendingDefaults = LendingDefaults()
    replan: ReplanDefaults = ReplanDefaults()
    sandbox: SandboxDefaults = SandboxDefaults()
    secrets: SecretDefaults = SecretDefaults()
    http: HttpDefaults = HttpDefaults()
    llm: LlmDefaults = LlmDefaults()
    planner: PlannerDefaults = PlannerDefaults()


class Config(_Section):
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


_TABLES: Final = ("policy.skills", "sandbox.skills", "secrets.allow", "llm.extra")
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


def _seconds(value: Any) -> float:
    """A duration as config files write it. ValueError, so that pydantic names the key."""
    try:
        return span_s(value)
    except UsageError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None
