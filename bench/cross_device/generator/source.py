"""Small Python programs: `program` writes modules, a main and tests, `revisions` a history, `target` its own build."""

from __future__ import annotations

import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from orchestrator.placement.dice import Dice

from .draw import Generator, between, some


def program(
    folder: Path,
    dice: Dice,
    *,
    modules: int = 6,
    tests: int = 2,
    failing: int = 0,
    flaky: int = 0,
    broken: int = 0,
    changed: int = 0,
    wait_ms: int = 0,
) -> Any:
    """`modules` modules and `__main__`, which prints one number; `tests` (at most 4) of each module in test_NAME.py.

    `failing` modules have a test that expects too much, `broken` ones don't compile, and `flaky` tests lose their
    connection in a first attempt (simulated: they ask BUILD_ATTEMPT). `changed` of them are unlike what manifest.csv
    says of an earlier build. `wait_ms`: a compiler waits so long for each.
    """
    parts = [_Part(f"part{at:02d}", between(dice, 2, 99), between(dice, 1, 999)) for at in range(modules)]
    wrong = some(dice, parts, failing)
    bad = some(dice, parts, broken)
    texts = {f"{part.name}.py": part.source(wait_ms, broken=part in bad) for part in parts}
    texts["__main__.py"] = _main([part.name for part in parts], wait_ms)
    if tests:
        texts |= {f"test_{part.name}.py": part.tests(tests, wrong=part in wrong) for part in parts}
    texts |= {f"test_flaky{at}.py": _FLAKY for at in range(flaky)}
    for name, text in texts.items():
        (folder / name).write_text(text)
    digests = {name: sha256(text.encode()).hexdigest() for name, text in texts.items()}
    newer = {f"{part.name}.py" for part in some(dice, parts, changed)}
    rows = [f"{name},{digests[name][::-1] if name in newer else digests[name]}\n" for name in sorted(texts)]
    (folder / "manifest.csv").write_text("name,sha256\n" + "".join(rows))
    names = sorted(texts)
    sources = [name for name in names if not name.startswith("test_")]
    return {
        "names": names,
        "sources": sources,
        "modules": [name.removesuffix(".py") for name in sources],
        "sha256": digests,
        "hashes": [digests[name] for name in names],
        "changed": sorted(newer),
        "changed_modules": sorted(name.removesuffix(".py") for name in newer),
        "answer": str(sum(part.fold(7) for part in parts)),
        "tests": modules * tests + flaky,
        "failures": sorted(f"test_{part.name}.test_0" for part in wrong),
        "failed": len(wrong),
        "broken": sorted(f"{part.name}.py" for part in bad),
        "whole": sorted(name for name in sources if name not in {f"{part.name}.py" for part in bad}),
    }


def revisions(folder: Path, dice: Dice, *, count: int = 15, modules: int = 3) -> Any:
    """rev00.zip and so on, each with tests; those of the first are right, those from one revision on fail."""
    first = between(dice, 1, count - 1)
    parts = [_Part(f"part{at:02d}", between(dice, 2, 99), between(dice, 1, 999)) for at in range(modules)]
    for at in range(count):
        with zipfile.ZipFile(folder / f"rev{at:02d}.zip", "w") as archive:
            for number, part in enumerate(parts):
                texts = (part.source(0), part.tests(2, wrong=at >= first and number == 0))
                for name, text in zip((f"{part.name}.py", f"test_{part.name}.py"), texts, strict=True):
                    archive.writestr(zipfile.ZipInfo(name), f"# revision {at}\n{text}")
    names = [f"rev{at:02d}.zip" for at in range(count)]
    return {"names": names, "first_bad": names[first], "before": names[first - 1]}


def target(folder: Path, dice: Dice, *, name: str = "target", kib: int = 64, wait_ms: int = 0) -> Any:
    """A build.py that waits, writes NAME.bin from seed.txt and says so: as a machine's own compiler would."""
    seed = f"{dice.bits():016x}"
    (folder / "seed.txt").write_text(seed)
    (folder / "build.py").write_text(_BUILD.format(wait_s=wait_ms / 1000, blocks=kib * 32, name=name))
    data = b"".join(sha256(f"{seed} {at}".encode()).digest() for at in range(kib * 32))
    return {"name": f"{name}.bin", "sha256": sha256(data).hexdigest(), "bytes": len(data)}


class _Part:
    """One module: two functions, whose results the generator knows by the same arithmetic."""

    def __init__(self, name: str, factor: int, offset: int) -> None:
        self.name, self.factor, self.offset = name, factor, offset

    def scale(self, x: int) -> int:
        return x * self.factor + self.offset

    def fold(self, x: int) -> int:
        return sum(self.scale(one) for one in range(x)) % 9973

    def source(self, wait_ms: int, *, broken: bool = False) -> str:
        return (
            _wait(wait_ms) + f"def scale(x):\n    return x * {self.factor} + {self.offset}\n\n\n"
            f"def fold(x):\n    return sum(scale(one) for one in range(x)) % 9973{')' if broken else ''}\n"
        )

    def tests(self, count: int, *, wrong: bool) -> str:
        rows = [f"import {self.name}\n"]
        for at, (name, want) in enumerate(
            (("scale(3)", self.scale(3)), ("scale(0)", self.offset), ("fold(7)", self.fold(7)), ("fold(0)", 0))[:count]
        ):
            want += wrong and at == 0
            rows.append(f"\n\ndef test_{at}():\n    assert {self.name}.{name} == {want}\n")
        return "".join(rows)


def _main(modules: list[str], wait_ms: int) -> str:
    imports = "".join(f"import {name}\n" for name in modules)
    total = " + ".join(f"{name}.fold(7)" for name in modules)
    return f"{_wait(wait_ms)}import sys\n\n{imports}\nsys.stdout.write(str({total}))\n"


def _wait(wait_ms: int) -> str:
    return f"# simulated: takes {wait_ms / 1000:g} s\n" if wait_ms else ""


_FLAKY: Final = """\
import os


def test_simulated_flake():
    if int(os.environ["BUILD_ATTEMPT"]) < 2:
        raise ConnectionResetError("the port was taken")
"""

_BUILD: Final = """\
import hashlib
import sys
import time

time.sleep({wait_s})  # simulated: a larger build takes longer
seed = open("seed.txt").read()
with open("{name}.bin", "wb") as made:
    for at in range({blocks}):
        made.write(hashlib.sha256(f"{{seed}} {{at}}".encode()).digest())
sys.stdout.write("built {name}.bin")
"""


GENERATORS: Final[dict[str, Generator]] = {"program": program, "revisions": revisions, "target": target}
