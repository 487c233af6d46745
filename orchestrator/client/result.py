"""What a run came to, for Python: the report with its values, and files brought out.

A `Result` is the report of cli.md plus a way to fetch what the report leaves out (task values, large outputs, files).
Values are fetched when they are asked for, once. It must not know how they are fetched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.artifact import is_digest, parse_file
from protocol.errors import NotFound

Fetch = Callable[[str], Any]
"""Task name -> its value."""
FetchFile = Callable[[str, Path], None]
"""(file URI, destination): copy the file there."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


class TaskResult:
    """One task of a report. `value` is fetched at first use; that of a map is the list of its elements' values."""

    def __init__(self, name: str, row: Mapping[str, Any], fetch: Fetch) -> None:
        self.name = name
        self.row = row
        self._fetch = fetch
        self._value: list[Any] = []

    @property
    def state(self) -> str:
        return str(self.row["state"])

    @property
    def worker(self) -> str | None:
        worker: str | None = self.row["worker"]
        return worker

    @property
    def attempts(self) -> int:
        return int(self.row["attempts"])

    @property
    def error(self) -> dict[str, Any] | None:
        return self.row.get("error")

    @property
    def value(self) -> Any:
        """Raises: NotFound for a task that has not succeeded."""
        if not self._value:
            self._value.append(self._fetch(self.name))
        return self._value[0]

    def __repr__(self) -> str:
        return f"TaskResult({self.name}: {self.state})"


class Result(Mapping[str, Any]):
    """The outputs of a run by name; `report` is the whole of it, `tasks` each task."""

    def __init__(self, report: Mapping[str, Any], fetch: Fetch, fetch_file: FetchFile) -> None:
        self.report = dict(report)
        self.tasks = {name: TaskResult(name, row, fetch) for name, row in report.get("tasks", {}).items()}
        self.fetch_file = fetch_file

    @property
    def run(self) -> str:
        return str(self.report["run"])

    @property
    def state(self) -> str:
        return str(self.report["state"])

    @property
    def outputs(self) -> dict[str, Any]:
        return dict(self.report["outputs"])

    def __getitem__(self, name: str) -> Any:
        try:
            return self.report["outputs"][name]
        except KeyError:
            known = ", ".join(self.report["outputs"]) or "none"
            raise NotFound(f"{self.run} has no output {name}", hint=f"its outputs: {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.report["outputs"])

    def __len__(self) -> int:
        return len(self.report["outputs"])

    def save(self, folder: str | Path) -> list[Path]:
        """Write the report and every output into a folder, files included; returns what was written.

        Text becomes NAME.txt, a file keeps its own name, anything else becomes NAME.json.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        written = [target / "report.json"]
        written[0].write_bytes(msgspec.json.format(msgspec.json.encode(self.report), indent=2) + b"\n")
        for name, value in self.outputs.items():
            written += save_value(value, target, name, self.fetch_file)
        return written

    def __repr__(self) -> str:
        return f"Result({self.run}: {self.state}, outputs: {', '.join(self) or 'none'})"


def save_value(value: Any, target: Path, name: str, fetch_file: FetchFile) -> list[Path]:
    """Write one value into a folder under its name, and the files that it is or names.

    A file that is the value itself is always copied; of files that are merely named only those that are not under the
    current folder already (a list of one's own files is no reason to copy them).
    """
    stem = _UNSAFE.sub("-", name).strip("-.") or "value"
    if isinstance(value, str) and is_file(value):
        return [_save_file(value, target, stem, fetch_file)]
    files = [_save_file(uri, target, "", fetch_file) for uri in _files_in(value) if not _is_ours(uri)]
    path = target / (f"{stem}.txt" if isinstance(value, str) else f"{stem}.json")
    if isinstance(value, str):
        path.write_text(value if value.endswith("\n") else value + "\n", encoding="utf-8")
    else:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    return [path, *files]


def is_file(text: str) -> bool:
    return is_digest(text) or parse_file(text) is not None


def _is_ours(uri: str) -> bool:
    where = parse_file(uri)
    return where is not None and where.worker.startswith("here") and _under_cwd(Path(where.path))


def _under_cwd(path: Path) -> bool:
    return path.is_relative_to(Path.cwd()) and path.is_file()


def _files_in(value: Any) -> list[str]:
    found: dict[str, None] = {}
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str) and is_file(node):
            found[node] = None
        elif isinstance(node, dict):
            stack.extend(reversed(node.values()))
        elif isinstance(node, list):
            stack.extend(reversed(node))
    return list(found)


def _save_file(uri: str, target: Path, stem: str, fetch_file: FetchFile) -> Path:
    """A copy under the file's own name; two files of one name get a number."""
    where = parse_file(uri)
    name = _UNSAFE.sub("-", Path(where.path).name) if where is not None else stem or uri[7:23]
    path = target / name
    number = 2
    while path.exists():
        path = target / f"{Path(name).stem}-{number}{Path(name).suffix}"
        number += 1
    fetch_file(uri, path)
    return path
