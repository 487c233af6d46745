"""Where one attempt at level bubblewrap runs: what is bound into it, and what of its word is believed afterwards.

The host inside may be anybody's by the time it ends. Invariant: it has seen nothing of this machine but the system,
its skill's own folder, its attempt's folder, its inputs and the roots it acts on; of what it reports, only files of
its own folder are taken. It starts nothing itself.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from protocol.artifact import ArtifactRef, digest_of
from protocol.errors import NotAllowed, NotFound, UsageError
from protocol.schema import check_schema
from protocol.skill import SkillSpec
from protocol.task_form import SKILL_NAME

from .bubblewrap import PIPE, Bind, wrapped
from .descent import open_plain
from .pipe import Described
from .redaction import Redactor
from .root import Root


class Cell:
    """One attempt's. `inputs` is a folder of its own for the artifacts it may read; `home` must not be seen."""

    def __init__(self, folder: Path, inputs: Path, home: Path) -> None:
        self.folder = folder
        self._inputs = inputs
        self._home = home
        for one in (folder, inputs):
            one.mkdir(parents=True, exist_ok=True, mode=0o700)

    def admit(self, path: str) -> str:
        """Let this file be read inside, also while the attempt runs already. The path that it has there."""
        inside = self._inputs / os.path.basename(path)
        if not inside.exists():
            try:
                os.link(path, inside)
            except OSError:
                shutil.copyfile(path, inside)  # another file system
        return str(inside)

    def command(
        self, skill: SkillSpec, source: str, files: Iterable[str], roots: Iterable[Root], environment: Mapping[str, str]
    ) -> tuple[str, ...]:
        """The command line of its host: the named `files` to read, and the roots if the skill acts on files here."""
        binds = [Bind(root.path, not root.read_only) for root in roots] if skill.place == "local" else []
        binds += [Bind(path) for path in files]
        binds += [Bind(str(self._inputs)), Bind(str(self.folder), writable=True)]
        argv = [sys.executable, "-P", "-m", "workers.host", str(PIPE), os.getcwd()]
        return wrapped(
            argv,
            str(self.folder),
            binds,
            code=_home_of(source),
            masks=(str(self._home),),
            network=skill.network,
            cards=bool(environment),
            environment=environment,
        )

    def own(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Those of the files it says it made that are really its own."""
        top = str(self.folder) + os.sep
        return tuple(path for path in paths if os.path.realpath(path) == path and path.startswith(top))

    def close(self) -> None:
        shutil.rmtree(self._inputs, ignore_errors=True)


def held_down(found: Iterable[Described], taken: set[str], source: str) -> list[Described]:
    """Skills as an untrusted source describes them, with none of the liberties that it may have given itself.

    Raises: UsageError for a name that is taken, or a schema that nobody should have to check.
    """
    kept = []
    for one in found:
        spec = one.spec
        if one.source != source:
            continue  # the built-in ones, which every host knows
        if spec.name in taken or SKILL_NAME.fullmatch(spec.name) is None:
            raise UsageError(f"{source} calls a skill {spec.name[:80]!r}, which it can't", hint="rename it there")
        if problems := [*check_schema(spec.params, "params"), *check_schema(spec.result, "result")]:
            raise UsageError(f"{source}: the schemas of {spec.name} can't be announced", problems=problems)
        held = msgspec.structs.replace(spec, sandbox="bubblewrap", network=False, place="any", inline=False)
        kept.append(msgspec.structs.replace(one, spec=held, is_async=False))
    return kept


def taken(spill: str, folder: Path, target: Path, redactor: Redactor) -> ArtifactRef:
    """Move the file of a large value from an attempt's folder to `target`, redacted; the artifact that it now is.

    Raises: NotAllowed when it is not a file of that folder, OSError.
    """
    place, name = os.path.split(spill)
    place = os.path.realpath(place)
    if not name or place != os.path.realpath(folder):
        raise NotAllowed("the value does not lie in the attempt's folder")
    with open_plain(os.path.join(place, name)) as file:
        data = file.read()
    clean = redactor.clean(data)
    if clean is data:
        os.replace(os.path.join(place, name), target)
    else:
        try:
            target.write_bytes(clean)
        except OSError:
            target.unlink(missing_ok=True)
            raise
        finally:
            os.unlink(os.path.join(place, name))
    return ArtifactRef(digest_of(clean), "application/json", len(clean))


def _home_of(source: str) -> list[str]:
    """What a skill's source is loaded from: of a file the folder of its package, of a module the module."""
    if not source:
        return []
    path = Path(source)
    if path.is_file():
        top = path.parent
        while (top / "__init__.py").is_file():
            top = top.parent
        if Path(os.path.realpath(os.path.expanduser("~"))).is_relative_to(top):
            return [str(path)]  # it would show the person's home
        return [str(top)]
    sys.path.append(os.getcwd())
    try:
        found = importlib.util.find_spec(source.partition(".")[0])
    except (ImportError, ValueError):
        found = None
    finally:
        sys.path.remove(os.getcwd())
    if found is None or not found.origin:
        raise NotFound(f"there is no module {source}")
    return [str(Path(found.origin).parent) if found.submodule_search_locations else found.origin]
