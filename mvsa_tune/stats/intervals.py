"""The 95 % interval of an accuracy, for other seeds and other samples: a two-way bootstrap.

R replicates are scored on the same N validation samples. Both are drawn at random, and crossed: a value is the mean,
plus an effect of the replicate, an effect of the sample, and a residual. Their variances come from the mean squares of
the two-way layout (Searle, Casella & McCulloch 1992; for classifiers Gallas 2006, doi 10.1016/j.acra.2005.10.007).

**The corrected two-way bootstrap.** Replicates and samples are drawn with replacement, independently (the pigeonhole
bootstrap, Owen 2007, doi 10.1214/07-AOAS122). Uncorrected, that counts the residual up to three times and the
replicates (R − 1) / R times (McCullagh 2000). So the effects are first scaled until their squares match the estimated
variances (the reflated bootstrap of Carpenter, Goldstein & Rasbash 2003, doi 10.1111/1467-9876.00415). With few
replicates these estimates are uncertain: the quantiles are stretched by Student's t over the normal's, with
Satterthwaite's degrees of freedom (1946). `bench/coverage.py` measures how often the intervals contain the truth.

**One replicate** says nothing of other seeds: its interval is for other samples only.

**Folds.** K folds that share out the samples make one row per seed, its K parts put together. Its folds share training
samples, which no estimate accounts for (Bengio & Grandvalet 2004).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mvsa_tune.errors import InputError

RESAMPLES = 5_000
LEVEL = 0.95
SAMPLES = "other samples"
SEEDS_AND_SAMPLES = "other seeds and samples"
REDRAWN = "other seeds and other draws of the samples"

Array = NDArray[np.float64]
Values = NDArray[np.bool_] | Array


@dataclass(frozen=True)
class Interval:
    """The mean of R replicates with its 95 % interval."""

    n: int  # R
    mean: float
    std: float  # of the replicates' means (R − 1); NaN for one replicate
    low: float
    high: float
    error: float  # standard error of the mean
    degrees: float  # degrees of freedom of `error`
    holds_for: str  # what varies: `SAMPLES`, `SEEDS_AND_SAMPLES` or `REDRAWN`


class Crossed:
    """Values `(R, N)` of R replicates on the same N samples, and the variance of their mean."""

    def __init__(self, values: Values) -> None:
        self.values = stacked([values])[0]
        self.R, self.N = self.values.shape
        self.mean = float(self.values.mean())

    @cached_property
    def mean_squares(self) -> tuple[float, float, float]:
        """Mean squares of replicates, samples and residual; 0 for replicates and residual where R is 1."""
        replicates, samples, residual = (float(product[0, 0]) for product in mean_products(self.values[None]))
        return (replicates, samples, residual) if self.R > 1 else (0.0, samples, 0.0)

    @cached_property
    def variances(self) -> tuple[float, float, float]:
        """What replicates, samples and residual contribute to the variance of the mean."""
        replicates, samples, residual = (square / (self.R * self.N) for square in self.mean_squares)
        return max(0.0, replicates - residual), max(0.0, samples - residual), residual

    @property
    def variance(self) -> float:
        """The variance of the mean over seeds and samples; over samples alone where R is 1."""
        return sum(self.variances)

    @property
    def degrees(self) -> float:
        """Satterthwaite's degrees of freedom of `variance`."""
        return satterthwaite(self.mean_squares, self.R, self.N)

    def resampled(self, resamples: int = RESAMPLES) -> Array:
        """Return the means of resamples, `(resamples,)`, whose variance is `variance`; the same draws every time."""
        of_seeds, of_samples, of_residual = self.variances
        replicates, samples, residual = effects(self.values)
        values = _scaled(replicates, self.R**2 * of_seeds) + _scaled(samples, self.N**2 * of_samples)
        values = (values + _scaled(residual, (self.R * self.N) ** 2 * of_residual)).astype(np.float32)
        rows, columns = (draws(n, resamples, stream) for stream, n in enumerate((self.R, self.N)))
        return self.mean + np.einsum("br,br->b", rows, columns @ values.T) / self.values.size

    def interval(self, least: float, most: float) -> Interval:
        """Return the mean with its interval, cut off at the least and the most that the mean can be."""
        tails = (1 - LEVEL) / 2
        ends = np.quantile(self.resampled(), [tails, 1 - tails]) - self.mean
        low, high = self.mean + ends * stats.t.ppf(tails, self.degrees) / stats.norm.ppf(tails)
        return self.between(max(least, float(low)), min(most, float(high)))

    def between(self, low: float, high: float) -> Interval:
        """Return the mean with an interval of these ends."""
        std = float(self.values.mean(axis=1).std(ddof=1)) if self.R > 1 else float("nan")
        holds_for = SEEDS_AND_SAMPLES if self.R > 1 else SAMPLES
        return Interval(self.R, self.mean, std, low, high, float(np.sqrt(self.variance)), self.degrees, holds_for)


def accuracy(correct: Values) -> Interval:
    """Return the accuracy of a configuration with its interval.

    Args:
        correct: `(R, N)` whether replicate r classifies sample n correctly, or how often (`cross_fitted`).
    """
    crossed = Crossed(correct)
    if not crossed.variance:  # all correct, or all wrong
        return crossed.between(*wilson(crossed.mean, crossed.N))
    return crossed.interval(0, 1)


def redrawn(values: Array, ratio: float, least: float) -> Interval:
    """Return the mean of accuracies, or of their differences, with its interval where each seed draws its own samples.

    The draws overlap, so that the spread of the replicates is too small: the variance is taken `1 / R + ratio` times,
    with R − 1 degrees of freedom (Nadeau & Bengio 2003, doi 10.1023/A:1024068626366).

    Args:
        values: `(R,)`, two at least.
        ratio: of validation to training samples.
        least: the least that the mean can be; the most is 1.
    """
    R, mean, std = len(values), float(values.mean()), float(values.std(ddof=1))
    error = std * (1 / R + ratio) ** 0.5
    half = float(stats.t.ppf((1 + LEVEL) / 2, R - 1)) * error
    return Interval(R, mean, std, max(least, mean - half), min(1.0, mean + half), error, R - 1.0, REDRAWN)


def wilson(share: float, n: int) -> list[float]:
    """Return the 95 % score interval of a share of n (Wilson 1927)."""
    from statsmodels.stats.proportion import proportion_confint

    return [float(end) for end in proportion_confint(share * n, n, alpha=1 - LEVEL, method="wilson")]


def satterthwaite(mean_squares: Sequence[float], R: int, N: int) -> float:
    """Return the degrees of freedom of the variance of the mean that these mean squares give."""
    replicates, samples, residual = (square / (R * N) for square in mean_squares)
    of_samples, of_seeds = max(samples, residual), max(0.0, replicates - residual)
    uncertainty = of_samples**2 / (N - 1)
    if of_seeds > 1e-12 * residual:  # else the replicates add nothing to the variance, or what rounding leaves
        uncertainty += replicates**2 / (R - 1) + residual**2 / ((R - 1) * (N - 1))
    return (of_samples + of_seeds) ** 2 / uncertainty if uncertainty else float(N - 1)


def effects(values: Array) -> tuple[Array, Array, Array]:
    """Return the effects of replicates `(…, R, 1)`, samples `(…, 1, N)` and the residual of values `(…, R, N)`."""
    centred = values - values.mean(axis=(-2, -1), keepdims=True)
    replicates, samples = centred.mean(axis=-1, keepdims=True), centred.mean(axis=-2, keepdims=True)
    return replicates, samples, centred - replicates - samples


def mean_products(values: Array) -> tuple[Array, Array, Array]:
    """Return the mean products of K configurations `(K, R, N)`: of replicates, samples and residual, `(K, K)` each.

    Their diagonals are the configurations' mean squares.
    """
    K, R, N = values.shape
    replicates, samples, residual = (effect.reshape(K, -1) for effect in effects(values))
    free = max(R - 1, 1)
    return (
        N * replicates @ replicates.T / free,
        R * samples @ samples.T / (N - 1),
        residual @ residual.T / (free * (N - 1)),
    )


def stacked(values: Sequence[Values]) -> Array:
    """Return values `(R, N)` of K configurations as `(K, R, N)`; raise InputError for other shapes or values."""
    shapes = {np.shape(array) for array in values}
    if len(shapes) > 1:
        raise InputError(f"only configurations of the same seeds and samples can be compared, not {sorted(shapes)}")
    array = np.array(values, dtype=np.float64)
    if array.ndim != 3 or not array.size or array.shape[2] < 2 or not np.isfinite(array).all():
        shape, bad = " × ".join(map(str, array.shape[1:])), int((~np.isfinite(array)).sum())
        raise InputError(
            "an interval needs a finite value for each replicate and sample, and at least two samples; these are "
            f"{shape} values, {bad:,} of them not finite"
        )
    return array


@lru_cache(maxsize=4)
def draws(n: int, resamples: int, stream: int) -> NDArray[np.float32]:
    """Return how often each of n is drawn, `(resamples, n)`, in n draws with replacement; the same every time."""
    return np.random.default_rng([stream, n]).multinomial(n, np.full(n, 1 / n), resamples).astype(np.float32)


def _scaled(effect: Array, total: float) -> Array:
    """Return `effect` scaled so that its squares sum to `total`; an effect of 0 stays 0."""
    squares = float((effect**2).sum())
    return effect * np.sqrt(total / squares) if squares else effect
