"""`python -m tests.fuzz [--seconds N | --executions N] [--seed N] [--keep] [TARGET ...]`: fuzz every decoder, or some.

Prints executions a second of each. What breaks a target is printed and, with `--keep`, written into its corpus, so that
the tests break until it is mended. Ends with 1 if anything broke.
"""

from __future__ import annotations

import argparse
import sys

from .decoder import TARGETS
from .fuzzing import bounded, fuzz, report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=0.0, help="for all targets together")
    parser.add_argument("--executions", type=int, default=0, help="of a cheap target; dear ones get a share")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    chosen = [target for target in TARGETS if not given.targets or target.name in given.targets]
    seconds = given.seconds / max(1, len(chosen)) if given.seconds else 1e9
    broken = 0
    with bounded():
        for target in chosen:
            most = max(1, given.executions * target.share // 100) if given.executions else 10**9
            tally = fuzz(target, given.seed, most, seconds, keep=given.keep)
            report(tally)
            broken += len(tally.broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
