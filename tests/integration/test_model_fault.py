"""Every fault of a model's server, against the real planner over real HTTP: each call ends, in time and as it may."""

from __future__ import annotations

import anyio

from bench.planner.matrix import PROFILES, Matrix, matrix


def test_every_fault_of_a_models_server_ends_the_call_in_its_way():
    async def main() -> Matrix:
        return await matrix(PROFILES, each=False)

    found = anyio.run(main)
    assert found.cases > 50
    assert {f"{cell.profile}, {cell.fault}": cell.wrong for cell in found.cells if cell.wrong} == {}
    assert found.hangs == 0
