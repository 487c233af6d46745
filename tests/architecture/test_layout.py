"""The shape of the tree: sizes, empty package files, docstrings, the public surface, and words that must not be."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import asterism

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "planner", "protocol", "workers", "devices", "bench")
LARGEST = 450
NOT_A_NOUN = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "handler", "base", "impl"}


def modules() -> list[Path]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [ROOT / "asterism.py", *(path for path in found if "_pb" not in path.parts)]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


CODE = [path for path in modules() if path.name != "__init__.py"]


@pytest.mark.parametrize("path", CODE, ids=names(CODE))
def test_a_module_is_one_noun_of_readable_size(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LARGEST, f"{path.name} has {lines} lines: it has outgrown its noun"
    assert path.stem not in NOT_A_NOUN


@pytest.mark.parametrize("path", CODE, ids=names(CODE))
def test_a_module_says_what_it_is(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert doc, f"{path.name} has no docstring"
    assert len(doc) > 30


def test_package_files_are_empty() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")]
    assert files
    assert [str(path) for path in files if path.read_text(encoding="utf-8").strip()] == []


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in CODE if path.parent != ROOT}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("path", CODE, ids=names(CODE))
def test_imports_of_neighbours_are_relative_and_none_is_of_the_front_door(path: Path) -> None:
    folder = ".".join(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if folder and isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            crosses = (ROOT / node.module.replace(".", "/")).is_dir()
            neighbour = node.module.rpartition(".")[0] == folder
            assert crosses or not neighbour, f"{path.name}:{node.lineno} write a relative import"
            assert node.module != "asterism", f"{path.name}:{node.lineno} imports the front door"


def test_the_public_names_are_these() -> None:
    """Adding one is a decision; taking one away breaks somebody."""
    assert asterism.__all__ == [
        "AsterismError",
        "AsyncClient",
        "AwaitingApproval",
        "BudgetSpent",
        "CalledWhileLoading",
        "Client",
        "Conflict",
        "File",
        "Graph",
        "NoEligibleWorker",
        "NotAllowed",
        "NotFound",
        "PlanRefused",
        "PlannerAbstained",
        "Resources",
        "RunFailed",
        "ServerUnreachable",
        "SkillContext",
        "TimedOut",
        "UsageError",
        "run",
        "skill",
    ]


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "Graph", "run"])
def test_what_people_call_is_documented(name: str) -> None:
    found = getattr(asterism, name)
    assert found.__doc__


def test_the_blocking_client_has_the_names_of_the_awaited_one() -> None:
    from orchestrator.client.blocking import Client, Live
    from orchestrator.client.client import AsyncClient
    from orchestrator.client.live import AsyncLive

    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    inner = {"check_home", "keep_home", "join", "local_file"}
    assert public(AsyncClient) - public(Client) - inner == {"events", "fleet_events", "logs"}
    assert public(AsyncLive) - public(Live) == set()


def test_no_print_and_no_swallowed_exceptions() -> None:
    bad = re.compile(r"^\s*print\(|except Exception: *pass|# *TODO|# *FIXME|NotImplementedError", re.MULTILINE)
    found = [
        f"{path.relative_to(ROOT)}: {match[0].strip()}" for path in CODE for match in bad.finditer(path.read_text())
    ]
    assert found == []


def test_the_dependencies_are_the_declared_ones() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    declared = {re.split(r"[<>=;\[ ]", one)[0] for one in wanted}
    imported = {"grpcio": "grpc", "protobuf": "google", "nvidia-ml-py": "pynvml"}
    allowed = {imported.get(name, name) for name in declared} | {"pydantic_core"} | set(PACKAGES) | {"asterism"}
    found: dict[str, str] = {}
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            tops: list[str] = []
            if isinstance(node, ast.Import):
                tops = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                tops = [node.module.split(".")[0]]
            for top in tops:
                if top not in sys.stdlib_module_names and top not in allowed and top != "__future__":
                    found[top] = str(path.relative_to(ROOT))
    assert found == {}
