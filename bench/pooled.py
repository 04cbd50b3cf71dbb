"""The interval of a single replicate, with the variance over seeds estimated from other configurations: measured, but not used by the package."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mvsa_tune.stats.intervals import LEVEL, RESAMPLES, Crossed, Values


@dataclass(frozen=True)
class SeedVariance:
    """The variance of a replicate's true accuracy over seeds, and the degrees of freedom of that estimate."""

    variance: float
    degrees: float


def pooled(values: Sequence[Values]) -> SeedVariance | None:
    """Return the mean seed variance of configurations `(R, N)`, weighted by R − 1; None where none has two replicates."""
    several = [Crossed(array) for array in values if len(array) > 1]
    if not several:
        return None
    weights = np.array([crossed.R - 1 for crossed in several])
    # Some may be below 0: their mean is unbiased.
    variances = [(crossed.mean_squares[0] - crossed.mean_squares[2]) / crossed.N for crossed in several]
    return SeedVariance(max(0.0, float(np.average(variances, weights=weights))), float(weights.sum()))


def interval(correct: Values, seeds: SeedVariance) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy of one replicate `(1, N)`, for other seeds and other samples."""
    crossed = Crossed(correct)
    means = resampled(crossed, seeds, RESAMPLES)
    total = crossed.variance + seeds.variance
    degrees = total**2 / (crossed.variance**2 / (crossed.N - 1) + seeds.variance**2 / seeds.degrees)
    tails = (1 - LEVEL) / 2
    ends = np.quantile(means, [tails, 1 - tails]) - crossed.mean
    low, high = crossed.mean + ends * stats.t.ppf(tails, degrees) / stats.norm.ppf(tails)
    return max(0.0, float(low)), min(1.0, float(high))


def resampled(crossed: Crossed, seeds: SeedVariance, resamples: int) -> np.ndarray:
    """Return the means of resamples of the samples, each with a normal draw of the seed's effect."""
    effect = np.random.default_rng(2).standard_normal(resamples)
    return crossed.resampled(resamples) + np.sqrt(seeds.variance) * effect
