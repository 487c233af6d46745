from __future__ import annotations

import os
import subprocess
import sys

import pytest

from protocol.grpc_engine import tried


@pytest.mark.parametrize(
    ("release", "known"),
    [("1.76.0", True), ("1.85.1", True), ("1.75.1", False), ("1.86.0rc1", False), ("2.0", False), ("", False)],
)
def test_only_releases_that_were_tried_are_told_which_event_loop_to_use(release: str, known: bool) -> None:
    assert tried(release) is known


def test_what_we_start_inherits_no_experiment_of_ours_and_a_persons_own_stay() -> None:
    code = "import os, protocol.grpc_engine; print(os.environ.get('GRPC_EXPERIMENTS'))"

    def told(**more: str) -> str:
        environ = {key: value for key, value in os.environ.items() if key != "GRPC_EXPERIMENTS"} | more
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.strip()

    assert told() == "None"
    assert told(GRPC_EXPERIMENTS="-event_engine_client") == "-event_engine_client"
