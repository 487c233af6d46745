"""Seeded draws, for what chooses by chance and yet decides the same way every time: splitmix64 (Steele et al., 2014).

Invariant: equal seeds give equal sequences on every machine and version. It is no source of secrets.
"""

from __future__ import annotations

from math import cos, log, pi, sqrt
from typing import Final

_MASK: Final = (1 << 64) - 1
_STEP: Final = 0x9E3779B97F4A7C15


class Dice:
    """A sequence of draws."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def bits(self) -> int:
        """The next 64 bits."""
        self._state = (self._state + _STEP) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def uniform(self) -> float:
        """From [0, 1)."""
        return (self.bits() >> 11) * 2.0**-53

    def below(self, count: int) -> int:
        """From 0 .. count - 1; the bias is below count / 2^64."""
        return self.bits() % count

    def normal(self) -> float:
        """Mean 0, deviation 1 (Box and Muller)."""
        return sqrt(-2.0 * log(1.0 - self.uniform())) * cos(2.0 * pi * self.uniform())
