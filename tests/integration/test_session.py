"""The recorded session of the docs is what the commands say: it is recorded again, with a quicker model."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def recorder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_session", ROOT / "docs" / "session.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines(text: str) -> list[str]:
    """Without what differs from one time to the next: numbers, and the order of what happens at once."""
    return sorted(re.sub(r" +", " ", re.sub(r"\d+", "0", line)) for line in text.splitlines())


def test_the_recorded_session_is_what_the_commands_say() -> None:
    made = recorder()
    page = made.PAGE.read_text("utf-8")
    assert len(made.PLACE.findall(page)) == 2
    assert lines(made.recorded(page, rate=500)) == lines(page)
