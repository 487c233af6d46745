"""The cases that are shipped: all are read, they are as many and as unlike as promised, and every check can fail."""

from pathlib import Path
from typing import Any

import pytest

from bench.cross_device.case import CATEGORIES, Case, Claim, load_cases
from bench.cross_device.check import unlike
from bench.cross_device.ground import lay
from bench.cross_device.tamper import unfailing_of
from bench.cross_device.truth import MISSING, as_cells, filled

LOADED = load_cases()


def test_every_shipped_case_is_read() -> None:
    assert LOADED.problems == ()
    assert len(LOADED.cases) >= 60
    assert {case.category for case in LOADED.cases} == set(CATEGORIES)
    assert sum(case.changes for case in LOADED.cases) >= 10


def as_claimed(claim: Claim, truths: dict[str, Any]) -> Any:
    """A value of which everything that is claimed is so."""
    wanted = {key: filled(one, truths) for key, one in claim.expects.items()}
    if wanted.get("exists") is False:
        return MISSING
    for exact in ("equals", "near", "rows", "same_set", "sha256"):
        if exact in wanted:
            return as_cells(wanted[exact]) if claim.form == "csv" else wanted[exact]
    part, count = wanted.get("contains"), wanted.get("count")
    if count is not None:
        some = part if isinstance(part, list) else [] if part is None else [part]
        return [*some, *range(10**9, 10**9 + count - len(some))]
    if isinstance(part, list) and (claim.file or claim.form) and claim.form in ("", "text"):
        return "\n".join(part)
    return part if isinstance(part, str | list | dict) else ["there" if part is None else part]


@pytest.mark.parametrize("case", LOADED.cases, ids=lambda case: case.name)
def test_every_check_of_a_case_fails_when_its_result_is_tampered_with(case: Case, tmp_path: Path) -> None:
    placed = case.placed({})
    truths = lay(placed, lambda name: tmp_path / name, "", 1)
    for claim in (*placed.subtasks, *placed.checks):
        value = as_claimed(claim, truths)
        assert unlike(claim, value, truths) == ""
        assert unfailing_of(claim, value, truths) == []
