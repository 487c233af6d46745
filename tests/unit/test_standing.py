"""What a worker says of its server: that it was taken in, or why not; a short absence is none of anybody's business."""

from __future__ import annotations

import pytest

from protocol.errors import ServerUnreachable
from workers.standing import PATIENCE_S, Standing

REFUSED = ServerUnreachable("refused", hint="start it")
SILENT = OSError("timed out")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[str] = []
        self.standing = Standing(lambda: "here:1", self.lines.append, lambda: self.now)

    def after(self, seconds: float, error: Exception | None = None) -> list[str]:
        """What is said when, so much later, the server takes us in, or the try to reach it fails by `error`."""
        self.now += seconds
        self.lines.clear()
        if isinstance(error, ServerUnreachable | OSError):
            self.standing.failed(error)
        else:
            self.standing.welcomed()
        return list(self.lines)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_each_reason_is_said_once_after_some_seconds_with_what_to_do(clock: Clock) -> None:
    assert clock.after(PATIENCE_S / 2, REFUSED) == []
    assert clock.after(PATIENCE_S, REFUSED) == ["not connected, and trying on: refused", "  fix: start it"]
    assert clock.after(PATIENCE_S, REFUSED) == []
    assert clock.after(1.0, SILENT) == ["not connected, and trying on: timed out"]
    assert clock.after(1.0, REFUSED) == []
    assert clock.after(1.0) == ["connected to here:1"]


def test_of_a_short_absence_nothing_is_said_and_a_long_one_ends_with_a_word(clock: Clock) -> None:
    assert clock.after(0.1) == ["connected to here:1"]
    assert clock.after(1000.0, SILENT) == []
    assert clock.after(PATIENCE_S / 2) == []
    assert clock.after(1000.0, SILENT) == []
    assert clock.after(PATIENCE_S, SILENT) == ["not connected, and trying on: timed out"]
    assert clock.after(1.0) == ["connected to here:1"]
    assert clock.after(PATIENCE_S, SILENT) == []
