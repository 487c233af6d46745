"""Records the session of docs/how-to/watch-a-plan.md: `python docs/session.py` (about ten seconds, real processes).

The page is prose with places of the form `<!-- recorded: COMMAND -->` ... `<!-- end -->`; what stands between is
replaced by what COMMAND says, on a private server in a folder of its own whose model is `examples/model.json`, played
by `asterism bench model`. A test records again and compares all but the times.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "how-to" / "watch-a-plan.md"
SCRIPT: Final = ROOT / "examples" / "model.json"
PLACE: Final = re.compile(r"(<!-- recorded: (.*?) -->\n```text\n).*?(```\n<!-- end -->)", re.DOTALL)


@contextmanager
def stage(rate: float) -> Iterator[dict[str, str]]:
    """The environment in which the commands run, while the model writes `rate` tokens a second."""
    clean = {key: text for key, text in os.environ.items() if not key.startswith(("ASTERISM_", "OPENAI_"))}
    with tempfile.TemporaryDirectory(prefix="asterism-session-", ignore_cleanup_errors=True) as folder:
        script = Path(folder) / "model.json"
        script.write_text(json.dumps({**json.loads(SCRIPT.read_text("utf-8")), "rate": rate}))
        tools = str(Path(sys.executable).parent)
        environ = {**clean, "PATH": f"{tools}:{clean.get('PATH', '')}", "ASTERISM_HOME": f"{folder}/home", "CI": "1"}
        model = subprocess.Popen(
            ["asterism", "bench", "model", str(script)],
            env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert model.stdout is not None
            found = dict(one.split("=", 1) for one in model.stdout.readline().split())
            yield {**environ, **found}
        finally:
            said("asterism server stop", environ)
            model.terminate()
            model.communicate()


def said(command: str, environ: dict[str, str]) -> str:
    """Both streams of a shell command, as a terminal shows them, without blanks at the ends of lines."""
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env=environ, text=True, timeout=90, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return re.sub(r" +$", "", done.stdout, flags=re.MULTILINE)


def recorded(text: str, rate: float) -> str:
    """The page with each place filled anew, in order."""
    with stage(rate) as environ:
        return PLACE.sub(lambda place: place[1] + said(place[2], environ) + place[3], text)


if __name__ == "__main__":
    PAGE.write_text(recorded(PAGE.read_text("utf-8"), json.loads(SCRIPT.read_text("utf-8"))["rate"]), "utf-8")
