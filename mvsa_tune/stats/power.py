"""What a sweep can see: the smallest difference that it finds 8 times in 10, and what a smaller one would take.

The variance of a difference between two configurations is `(a + b / R) / N + u / R` for R seeds and N validation
samples: samples that one classifies correctly and the other does not, answers that differ from seed to seed, and what
seeds add. All three are the median over the differences from the best. A difference counts as found where its t exceeds
Bonferroni's critical value for the K − 1 comparisons with the best: the test that is made finds a little more.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mvsa_tune.stats.differences import ALPHA, Errors

POWER = 0.8


@dataclass(frozen=True)
class Power:
    """What decides the differences that a sweep can find.

    Attributes:
        seeds: R of each configuration (the median).
        samples: N.
        labelled: samples that k folds would score.
        comparisons: K − 1.
        of_samples, of_answers, of_seeds: a, b and u.
    """

    seeds: int
    samples: int
    labelled: int
    comparisons: int
    of_samples: float
    of_answers: float
    of_seeds: float

    def variance(self, seeds: float, samples: float) -> float:
        """Return the variance of a difference; for one seed, of those networks alone."""
        beyond = self.of_seeds / seeds if seeds > 1 else 0.0
        return (self.of_samples + self.of_answers / seeds) / samples + beyond

    def smallest(self, seeds: float | None = None, samples: float | None = None) -> float:
        """Return the smallest difference that is found 8 times in 10, by default by this sweep."""
        return self._deviates * math.sqrt(self.variance(seeds or self.seeds, samples or self.samples))

    def seeds_for(self, difference: float) -> int | None:
        """Return the seeds that find a difference on these samples; None if no number of seeds does."""
        left = (difference / self._deviates) ** 2 - self.of_samples / self.samples
        return math.ceil((self.of_answers / self.samples + self.of_seeds) / left) if left > 0 else None

    def samples_for(self, difference: float) -> int | None:
        """Return the samples that find a difference with these seeds; None if no number of samples does."""
        left = (difference / self._deviates) ** 2 - (self.of_seeds / self.seeds if self.seeds > 1 else 0.0)
        return math.ceil((self.of_samples + self.of_answers / self.seeds) / left) if left > 0 else None

    def sees(self) -> str:
        """Return in a sentence what the sweep can see."""
        return (
            f"With {_seeds(self.seeds)} on {self.samples:,} samples a difference of {_points(self.smallest())} from "
            "the best is found 8 times in 10."
        )

    def lacking(self, difference: float) -> str:
        """Return in words what there are too few of to find a difference; it agrees with `takes`."""
        if not self._seeds_known or self.seeds_for(difference):
            return f"seeds to tell more ({self.seeds:,})"
        return f"samples to tell more ({self.samples:,})"

    def takes(self, difference: float) -> str:
        """Return in words what it takes to find a difference."""
        seeds, samples = self.seeds_for(difference), self.samples_for(difference)
        if self.smallest() <= difference:
            return f"This sweep finds {_points(difference)} 8 times in 10 already."
        limit = self.smallest(seeds=math.inf)
        parts = [f"{_seeds(seeds)} on these samples" if seeds else f"more seeds do not help ({_points(limit)} at best)"]
        if not self._seeds_known:
            parts = ["more seeds, as one says nothing of others"]
        if samples:
            parts.append(f"{samples:,} samples with {_seeds(self.seeds)}")
        if self.labelled > self.samples:
            folds = self.smallest(samples=self.labelled)
            parts.append(f"k folds (`--split kfold:10`), which score all {self.labelled:,}, show {_points(folds)}")
        return f"To find {_points(difference)}: {'; '.join(parts)}."

    @property
    def _seeds_known(self) -> bool:
        """Whether there is an estimate of what seeds add; a sweep of a single one has none."""
        return self.seeds > 1 or self.of_answers + self.of_seeds > 0

    @property
    def _deviates(self) -> float:
        return float(stats.norm.isf(ALPHA / 2 / max(self.comparisons, 1)) + stats.norm.isf(1 - POWER))


# Of the README's grid of 20 configurations on MVSA-Single, five seeds.
TYPICAL = Power(5, 400, 4000, comparisons=19, of_samples=0.079, of_answers=0.057, of_seeds=1.12e-4)


def power_of(errors: Errors, labelled: int) -> Power | None:
    """Return the power of a sweep, from the errors of its configurations, the best first; None for a single one."""
    if len(errors.means) < 2 or errors.effects.shape[1] < 2:
        return None
    N, seeds = errors.effects.shape[1], int(np.median(errors.seeds))
    over_samples = ((errors.effects[1:] - errors.effects[0]) ** 2).sum(axis=1)
    answers = errors.residual[1:] + errors.residual[0]
    of_seeds = (errors.seed_variance * errors.seeds)[1:] + (errors.seed_variance * errors.seeds)[0]
    of_samples = np.maximum(0, over_samples * N - answers / seeds)
    a, b, u = (float(np.median(part)) for part in (of_samples, answers, of_seeds))
    return Power(seeds, N, labelled, len(errors.means) - 1, a, b, u)


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points" if round(100 * difference, 1) != 1 else "1 point"


def _seeds(count: int) -> str:
    return f"{count:,} seed{'s' if count != 1 else ''}"
