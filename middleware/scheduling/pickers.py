"""Which of the scored endpoints is it? (pure, with the randomness as an argument)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from middleware.scheduling.load import Draw


class Picker(Protocol):
    """Picks one."""

    def pick(self, scores: Sequence[float], draw: Draw) -> int:
        """The index of the one picked; there is at least one score."""
        ...


@dataclass(frozen=True, slots=True)
class MaxScorePicker:
    """The highest score, ties at random."""

    def pick(self, scores: Sequence[float], draw: Draw) -> int:
        """One draw, and only when there is a tie."""
        best = max(scores)
        first = scores.index(best)
        ties = scores.count(best)
        if ties == 1:
            return first
        skip = int(draw() * ties)
        for _ in range(skip):
            first = scores.index(best, first + 1)
        return first


MAX_SCORE = MaxScorePicker()


@dataclass(frozen=True, slots=True)
class WeightedRandomPicker:
    """At random, twice the score twice as often; all alike when every score is 0 (Efraimidis and Spirakis' A-Res)."""

    def pick(self, scores: Sequence[float], draw: Draw) -> int:
        """One draw for each score above 0. The greatest of U^(1/score) wins."""
        best, best_key = -1, -1.0
        for index, score in enumerate(scores):
            if score > 0 and (key := draw() ** (1.0 / score)) > best_key:
                best, best_key = index, key
        return int(draw() * len(scores)) if best < 0 else best


@dataclass(frozen=True, slots=True)
class RandomPicker:
    """At random, whatever the scores."""

    def pick(self, scores: Sequence[float], draw: Draw) -> int:
        """One draw."""
        return int(draw() * len(scores))
