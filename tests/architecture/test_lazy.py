"""What is dear to import is imported when it is first used: a server without a model has no client of models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "orchestrator.runtime",
    "orchestrator.choice",
    "planner.llm_planner",
    "protocol.chat_client",
    "orchestrator.cli.doctor",
    "orchestrator.cli.run",
    "workers.worker",
    "workers.cli",
)
DEAR = ("openai", "httpx", "httpx2")


def test_the_client_of_models_is_not_there_before_a_model_is_asked() -> None:
    script = f"import {', '.join(MODULES)}, sys; print(*(name for name in {DEAR!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr
