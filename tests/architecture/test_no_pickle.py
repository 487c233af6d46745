"""No pickle from the network: none of our packages reads one, and the processes with credentials refuse to."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "planner", "protocol", "workers", "devices", "bench")
READERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "jsonpickle"}
CODE = [ROOT / "asterism.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]


def test_nothing_that_runs_what_it_reads_is_imported_or_called() -> None:
    found = []
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {node.func.id}")
            found += [f"{path.relative_to(ROOT)}: imports {name}" for name in names if name in READERS]
    assert found == []


READS = {
    "pickle": "import pickle; pickle.loads(pickle.dumps(pathlib.PurePosixPath('a')))",
    "the slow pickle": "import pickle; pickle._loads(pickle.dumps(pathlib.PurePosixPath('a')))",
    "shelve": "import shelve, tempfile, os; s = shelve.open(os.path.join(tempfile.mkdtemp(), 'x')); "
    "s['a'] = pathlib.PurePosixPath('a'); s['a']",
    "a queue of processes": "import multiprocessing.reduction as r; "
    "r.ForkingPickler.loads(r.ForkingPickler.dumps(pathlib.PurePosixPath('a')))",
}


@pytest.mark.parametrize("how", READS)
def test_guarded_process_refuses_to_unpickle(how: str) -> None:
    code = f"""
import pathlib
from protocol.errors import NotAllowed
from protocol.unpickling import refuse_unpickling
refuse_unpickling()
import json, logging, asyncio, sqlite3, ssl, importlib.metadata  # what such a process needs goes on working
try:
    {READS[how]}
except NotAllowed as error:
    raise SystemExit("refused" if "pathlib" in error.message else error.message)
raise SystemExit("it was read")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "refused"


def test_processes_with_credentials_are_guarded() -> None:
    """Servers and daemons call it as they start; the launcher and its hosts, which run user code, don't."""
    guarded = {
        str(path.relative_to(ROOT)) for path in CODE if "refuse_unpickling()" in path.read_text(encoding="utf-8")
    }
    assert guarded == {"protocol/unpickling.py", "orchestrator/cli/server.py", "workers/cli.py"}
