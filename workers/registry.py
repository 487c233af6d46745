"""What one worker can run: skills by name, from the built-ins, from user modules and files, from TOML tables.

A user module is loaded under its own name (never as `__main__`), by file or by dotted name; code never travels.
Built-ins are known from protocol/builtin.py and imported only when one is needed, family by family.
Invariant: a name means one skill. Must not know: how a skill is run, the link.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

import msgspec

from protocol.builtin import BUILTINS
from protocol.errors import CalledWhileLoading, UsageError
from protocol.loading import LOADING
from protocol.skill import SkillSpec

from .shape import Local
from .signature import Signature
from .skill import Skill
from .tool import Tool, ToolSignature, read_tools

_MODULES: Final = {"human": "flow"}
"""Built-in families that live in another family's module."""


class Source(msgspec.Struct, frozen=True):
    """Where a skill's code is: `kind` builtin, module (dotted name), file (path) or toml (path)."""

    kind: Literal["builtin", "module", "file", "toml"]
    where: str


class Entry:
    """A skill that can be called here. `call` is by device kind; `bind` and `dump` are the way in and out of JSON."""

    __slots__ = ("call", "is_async", "kind", "signature", "source", "spec", "tool")

    def __init__(
        self,
        spec: SkillSpec,
        call: Mapping[str, Callable[..., Any]],
        signature: Signature | ToolSignature,
        source: Source,
        *,
        kind: Literal["python", "inline", "command"] = "python",
        is_async: bool = False,
        tool: Tool | None = None,
    ) -> None:
        self.spec = spec
        self.call = call
        self.signature = signature
        self.source = source
        self.kind: Literal["python", "inline", "command"] = kind
        self.is_async = is_async
        self.tool = tool

    def pick(self, device: str) -> Callable[..., Any]:
        """The variant for a device kind; the only or first one where it has none of its own."""
        found = self.call.get(device)
        return found if found is not None else next(iter(self.call.values()))

    def bind(self, args: Mapping[str, Any], context: object, local: Local) -> dict[str, Any]:
        """Keyword arguments of the call: JSON values loaded, files made local, the context where it is wanted."""
        loaded = self.signature.load(args, local)
        if self.signature.context:
            loaded[self.signature.context] = context
        return loaded

    def dump(self, value: Any, uri: Callable[[str], str]) -> Any:
        """The JSON value of a result; `uri` names a local path for the fleet."""
        return self.signature.dump(value, uri)


class Registry:
    """Skills by name. `builtins=False` leaves the built-in ones out (a client's own registry)."""

    def __init__(self, *, builtins: bool = True) -> None:
        self._entries: dict[str, Entry] = {}
        self._builtins: dict[str, SkillSpec] = (
            {spec.name: spec for spec in BUILTINS if spec.place != "engine"} if builtins else {}
        )

    def names(self) -> tuple[str, ...]:
        return tuple(sorted({*self._builtins, *self._entries}))

    def specs(self) -> tuple[SkillSpec, ...]:
        """What this worker announces, in order of name. Imports no built-in."""
        return tuple(
            self._entries[name].spec if name in self._entries else self._builtins[name] for name in self.names()
        )

    def get(self, name: str) -> Entry | None:
        """The skill of that name, or None. Imports the family of a built-in at its first use."""
        found = self._entries.get(name)
        if found is None and name in self._builtins:
            family = name.partition(".")[0]
            module = importlib.import_module(f"workers.builtin.{_MODULES.get(family, family)}")
            for made in _skills_of(module):
                self._entries.setdefault(made.name, _entry(made, Source("builtin", made.name)))
            found = self._entries.get(name)
        return found

    def add(self, made: Skill[..., Any]) -> Entry:
        """Adds one decorated function. Raises: UsageError when it has no file, or its name is taken."""
        if not isinstance(made, Skill):
            raise UsageError(
                f"{getattr(made, '__name__', made)!r} is no skill", hint="decorate the function with @skill"
            )
        home = made.home()
        module = made.function.__module__
        source = Source("file", str(home)) if module == "__main__" else Source("module", module)
        return self._put(_entry(made, source))

    def load(self, file_or_module: str) -> tuple[Entry, ...]:
        """Loads skills from `skills.py`, `package.module` or `tools.toml`.

        Raises: UsageError that says what is wrong in the module, or that there is none, or no skill in it.
        """
        path = Path(file_or_module).expanduser()
        if path.suffix == ".toml":
            return self.load_toml(path)
        if path.suffix == ".py" or path.is_file():
            source = Source("file", str(path.resolve()))
            module = _import_file(path)
        else:
            source = Source("module", file_or_module)
            module = _import_name(file_or_module)
        found = list(_skills_of(module))
        if not found:
            raise UsageError(f"{file_or_module} has no skills", hint="decorate functions in it with @skill")
        return tuple(self._put(_entry(made, source)) for made in found)

    def load_toml(self, path: str | Path) -> tuple[Entry, ...]:
        """Loads commands as skills (workers/tool.py)."""
        source = Source("toml", str(Path(path).resolve()))
        return tuple(
            self._put(
                Entry(
                    tool.spec,
                    {tool.spec.variants[0].device: tool.run},
                    ToolSignature(tool.spec),
                    source,
                    kind="command",
                    tool=tool,
                )
            )
            for tool in read_tools(Path(path))
        )

    def load_all(self, sources: Iterable[str]) -> None:
        for source in sources:
            self.load(source)

    def _put(self, entry: Entry) -> Entry:
        name = entry.spec.name
        if name in self._builtins:
            raise UsageError(f"{name} is a built-in skill", hint="give yours another name: @skill(name=...)")
        if entry.spec.inline:
            raise UsageError(
                f"{name} can't be inline: only built-in skills run on the worker's own loop", hint="drop inline=True"
            )
        known = self._entries.get(name)
        if known is not None and known.source.where != entry.source.where and known.call != entry.call:
            raise UsageError(
                f"two skills are called {name}: in {known.source.where} and in {entry.source.where}",
                hint="rename one of them: @skill(name=...)",
            )
        self._entries[name] = entry
        return entry


def _entry(made: Skill[..., Any], source: Source) -> Entry:
    kind: Literal["python", "inline"] = "inline" if made.spec.inline else "python"
    return Entry(made.spec, dict(made.variants), made.signature, source, kind=kind, is_async=made.is_async)


def _skills_of(module: ModuleType) -> list[Skill[..., Any]]:
    """The skills among a module's names, once each, in the order of their first name there."""
    found = {id(value): value for value in vars(module).values() if isinstance(value, Skill)}
    return list(found.values())


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}", hint="give the path of a .py or .toml file, or a dotted module name"
        )
    name, top = path.stem, path.parent
    while (top / "__init__.py").is_file():
        name, top = f"{top.name}.{name}", top.parent
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{path.name} can't be imported by its name", hint="name the file like a Python module")
    known = sys.modules.get(name)
    if known is not None and _file_of(known) == path:
        return known
    if str(top) not in sys.path:
        sys.path.append(str(top))  # so that it can import its neighbours; last, so that they hide no library
    importlib.invalidate_caches()
    if known is None and "." in name:
        return _guarded(name, lambda: importlib.import_module(name))
    if known is not None or _stands_for_another(name, path):
        name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        if name in sys.modules:
            return sys.modules[name]
    return _guarded(name, lambda: _exec_file(name, path))


def _stands_for_another(name: str, path: Path) -> bool:
    """Whether importing that name would find another file (`json.py` of the user against the library's)."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() != path


def _exec_file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python source")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _import_name(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{name!r} is no module", hint="give a .py file, a .toml file, or a dotted module name")
    if name == "__main__":
        raise UsageError("__main__ can't be loaded by name", hint="give the file's path")
    return _guarded(name, lambda: importlib.import_module(name))


def _guarded(name: str, load: Callable[[], ModuleType]) -> ModuleType:
    """Runs user code at import; whatever it raises becomes one clear error, its own line named."""
    token = LOADING.set(name)
    try:
        return load()
    except CalledWhileLoading:
        raise
    except ModuleNotFoundError as error:
        if error.name == name:
            raise UsageError(
                f"there is no module {name}", hint="give a file's path, or a name on the Python path"
            ) from error
        raise UsageError(f"{name} needs {error.name}, which is not installed here", hint="install it") from error
    except SystemExit as error:
        raise UsageError(
            f"{name} calls exit while it is loaded", hint='put the script part under if __name__ == "__main__":'
        ) from error
    except Exception as error:
        raise UsageError(f"{name} can't be loaded: {_story(error)}", hint="fix it, or leave it out") from error
    finally:
        LOADING.reset(token)


def _story(error: Exception) -> str:
    """`TypeError: ... (skills.py, line 3)`: the last place of the user's own code."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({Path(error.filename or '?').name}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    text = str(error).partition("\n")[0]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None
